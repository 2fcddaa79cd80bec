"""Configuration of single domains (https://docs.openstack.org/api-ref/identity/v3/#domain-configuration).

It is kept for clients as upstream keeps it; nothing here follows it, since users come from no directory.  So the value
of an option that must never be shown, a password, is not kept at all: only that there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import Fault, Forbidden, NotFound
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import domain as domains
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import CLOUD_ADMIN, CLOUD_ADMIN_OR_SYSTEM_READER
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import option as options
from pileus.services.identity.rules.compliance import Compliance

table = sa.Table(
    "identity_domain_config",
    metadata,
    sa.Column("domain_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("group_name", sa.String(64), primary_key=True),
    sa.Column("option_name", sa.String(64), primary_key=True),
    sa.Column("value", sa.JSON),
    sa.Column("sensitive", sa.Boolean, nullable=False),
)

Config = dict[str, dict[str, Any]]
"""Groups of options with their values."""

resource = Resource(
    "config",
    "config",
    rules=[
        Rule("identity:create_domain_config", CLOUD_ADMIN, "Give a domain a configuration of its own"),
        Rule("identity:get_domain_config", CLOUD_ADMIN_OR_SYSTEM_READER, "Show the configuration of a domain"),
        Rule("identity:get_security_compliance_domain_config", "", "Show what form passwords must have"),
        Rule("identity:update_domain_config", CLOUD_ADMIN, "Change the configuration of a domain"),
        Rule("identity:delete_domain_config", CLOUD_ADMIN, "Delete the configuration of a domain"),
        Rule("identity:get_domain_config_default", CLOUD_ADMIN_OR_SYSTEM_READER, "Show the default configuration"),
    ],
)

_ALL = "/domains/{domain_id}/config"
_GROUP = f"{_ALL}/{{group}}"
_OPTION = f"{_GROUP}/{{option}}"
_COMPLIANCE = f"{_ALL}/security_compliance"


def _invalid(reason: str) -> Fault:
    return Forbidden(f"Invalid domain specific configuration: {reason}.")


def _check(group: str, option: str | None = None) -> None:
    """Raise Forbidden unless there can be a configuration of a group, or of an option in it."""
    reason = options.refusal(group, option)
    if reason is not None:
        raise _invalid(reason)


def _checked(config: Mapping[str, Any]) -> Config:
    """A configuration that was sent. Raises Forbidden for groups and options that there are not."""
    if not config:
        raise _invalid("No options specified")
    for group, held in config.items():
        if not held or not isinstance(held, dict):
            raise _invalid(f"The value of group {group} specified in the config should be a dictionary of options")
        for option in held:
            _check(group, option)
    return dict(config)


def _conditions(domain_id: str, group: str | None, option: str | None) -> list[sa.ColumnElement[bool]]:
    found = [table.c.domain_id == domain_id]
    found += [] if group is None else [table.c.group_name == group]
    return found + ([] if option is None else [table.c.option_name == option])


def _read(tx: Tx, domain_id: str, group: str | None = None, option: str | None = None) -> Config:
    """What may be shown of a domain's configuration."""
    query = sa.select(table).where(*_conditions(domain_id, group, option), ~table.c.sensitive)
    found: Config = {}
    for row in tx.all(query.order_by(table.c.group_name, table.c.option_name)):
        found.setdefault(row.group_name, {})[row.option_name] = row.value
    return found


def _missing(domain_id: str, group: str | None, option: str | None) -> Fault:
    what = (
        "any options" if group is None else f"group {group}" if option is None else f"option {option} in group {group}"
    )
    return NotFound(f"Could not find {what} in domain configuration for domain {domain_id}.")


def _show(ctx: Context, domain_id: str, group: str | None = None, option: str | None = None) -> dict[str, Any]:
    if group is not None:
        _check(group, option)
    found = _read(ctx.tx, domain_id, group, option)
    if not found:
        raise _missing(domain_id, group, option)
    return found if group is None or option is None else found[group]


def _write(tx: Tx, domain_id: str, config: Config) -> None:
    for group, held in config.items():
        for option, value in held.items():
            hidden = options.sensitive(group, option)
            row = {"domain_id": domain_id, "group_name": group, "option_name": option, "sensitive": hidden}
            tx.upsert(
                table, {**row, "value": None if hidden else value}, key=("domain_id", "group_name", "option_name")
            )
    tx.changed("identity.project", domain_id)


@resource.get("/domains/config/default", policy="identity:get_domain_config_default", wraps="config")
def show_default(ctx: Context) -> Mapping[str, Any]:
    """Show all options with what they are where a domain has none of its own."""
    return options.DEFAULTS


@resource.get("/domains/config/{group}/default", policy="identity:get_domain_config_default", wraps="config")
def show_group_default(ctx: Context, group: str) -> Mapping[str, Any]:
    """Show the options of a group with what they are where a domain has none of its own."""
    _check(group)
    return {group: options.DEFAULTS[group]}


@resource.get("/domains/config/{group}/{option}/default", policy="identity:get_domain_config_default", wraps="config")
def show_option_default(ctx: Context, group: str, option: str) -> Mapping[str, Any]:
    """Show what an option is where a domain has none of its own."""
    _check(group, option)
    if option not in options.DEFAULTS[group]:
        raise _invalid(f"Reading the default for option {option} in group {group} is not supported")
    return {option: options.DEFAULTS[group][option]}


@resource.get(_COMPLIANCE, policy="identity:get_security_compliance_domain_config", wraps="config")
def show_compliance(ctx: Context, domain_id: str) -> Mapping[str, Any]:
    """Show what form passwords must have: of the domain Default alone, to anybody with a token."""
    return {"security_compliance": _compliance(ctx, domain_id)}


@resource.get(f"{_COMPLIANCE}/{{option}}", policy="identity:get_security_compliance_domain_config", wraps="config")
def show_compliance_option(ctx: Context, domain_id: str, option: str) -> Mapping[str, Any]:
    """Show the expression that passwords must match, or the words for it."""
    found = _compliance(ctx, domain_id)
    if option not in found:
        raise _invalid(f"Reading security compliance values other than {' and '.join(found)} is not allowed")
    return {option: found[option]}


def _compliance(ctx: Context, domain_id: str) -> dict[str, str | None]:
    if domain_id != users.DEFAULT_DOMAIN:
        raise _invalid(
            "Reading security compliance information for any domain other than the default domain is not allowed"
        )
    held: Compliance = ctx.provided.get(Compliance, Compliance())
    return {
        "password_regex": held.password_regex or None,
        "password_regex_description": held.password_regex_description or None,
    }


@resource.get(_ALL, policy="identity:get_domain_config", wraps="config")
def show(ctx: Context, domain_id: str) -> Mapping[str, Any]:
    """Show the configuration of a domain."""
    return _show(ctx, domain_id)


@resource.get(_GROUP, policy="identity:get_domain_config", wraps="config")
def show_group(ctx: Context, domain_id: str, group: str) -> Mapping[str, Any]:
    """Show a group of options of a domain."""
    return _show(ctx, domain_id, group)


@resource.get(_OPTION, policy="identity:get_domain_config", wraps="config")
def show_option(ctx: Context, domain_id: str, group: str, option: str) -> Mapping[str, Any]:
    """Show an option of a domain."""
    return _show(ctx, domain_id, group, option)


@resource.put(_ALL, policy="identity:create_domain_config", accepts="config", wraps="config")
def create(ctx: Context, domain_id: str, body: dict[str, Any]) -> Reply:
    """Give a domain a configuration (201), in place of the one that it had (200)."""
    domains.get(ctx.tx, domain_id)
    config = _checked(body)
    gone = ctx.tx.execute(sa.delete(table).where(table.c.domain_id == domain_id)).rowcount
    _write(ctx.tx, domain_id, config)
    return Reply(_read(ctx.tx, domain_id), status=200 if gone else 201)


@resource.patch(_ALL, policy="identity:update_domain_config", accepts="config", wraps="config")
def update(ctx: Context, domain_id: str, body: dict[str, Any]) -> Mapping[str, Any]:
    """Change options of a domain; those that are not named stay."""
    domains.get(ctx.tx, domain_id)
    _write(ctx.tx, domain_id, _checked(body))
    return _show(ctx, domain_id)


@resource.patch(_GROUP, policy="identity:update_domain_config", accepts="config", wraps="config")
def update_group(ctx: Context, domain_id: str, group: str, body: dict[str, Any]) -> Mapping[str, Any]:
    """Change options of one group that a domain has; the answer is its whole configuration."""
    return _update_part(ctx, domain_id, body, group)


@resource.patch(_OPTION, policy="identity:update_domain_config", accepts="config", wraps="config")
def update_option(ctx: Context, domain_id: str, group: str, option: str, body: dict[str, Any]) -> Mapping[str, Any]:
    """Change one option that a domain has; the answer is its whole configuration."""
    return _update_part(ctx, domain_id, {group: body}, group, option)


def _update_part(
    ctx: Context, domain_id: str, sent: Mapping[str, Any], group: str, option: str | None = None
) -> Mapping[str, Any]:
    domains.get(ctx.tx, domain_id)
    config = _checked(sent)
    _check(group, option)
    if set(config) != {group} or (option is not None and set(config[group]) != {option}):
        what = f"group {group}" if option is None else f"option {option} in group {group}"
        raise _invalid(f"Trying to update {what}, so that, and only that, must be specified in the config")
    if ctx.tx.first(sa.select(table.c.domain_id).where(*_conditions(domain_id, group, option))) is None:
        raise _missing(domain_id, group, option)
    _write(ctx.tx, domain_id, config)
    return _show(ctx, domain_id)


@resource.delete(_ALL, policy="identity:delete_domain_config")
def delete(ctx: Context, domain_id: str) -> None:
    """Delete the configuration of a domain, if it has one."""
    domains.get(ctx.tx, domain_id)
    ctx.tx.execute(sa.delete(table).where(table.c.domain_id == domain_id))
    ctx.tx.changed("identity.project", domain_id)


@resource.delete(_GROUP, policy="identity:delete_domain_config")
def delete_group(ctx: Context, domain_id: str, group: str) -> None:
    """Delete a group of options of a domain."""
    _delete_part(ctx, domain_id, group)


@resource.delete(_OPTION, policy="identity:delete_domain_config")
def delete_option(ctx: Context, domain_id: str, group: str, option: str) -> None:
    """Delete an option of a domain."""
    _delete_part(ctx, domain_id, group, option)


def _delete_part(ctx: Context, domain_id: str, group: str, option: str | None = None) -> None:
    domains.get(ctx.tx, domain_id)
    _check(group, option)
    if ctx.tx.execute(sa.delete(table).where(*_conditions(domain_id, group, option))).rowcount == 0:
        raise _missing(domain_id, group, option)
    ctx.tx.changed("identity.project", domain_id)
