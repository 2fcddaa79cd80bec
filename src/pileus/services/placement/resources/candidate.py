"""Allocation candidates: which providers could together serve a request.

Source: https://docs.openstack.org/api-ref/placement/#allocation-candidates
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.versions import Version
from pileus.services.placement import versions
from pileus.services.placement.resources import resource_class, trait
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.rules import candidate, identifier, query
from pileus.services.placement.rules.candidate import Ask, Candidate, Group
from pileus.services.placement.rules.capacity import Capacity
from pileus.services.placement.versions import Grammar

resource = Resource(
    "allocation_candidate", "allocation_candidates", rules=rules(allocation_candidates__list="List candidates")
)

_OPEN = Parameters(closed=str(Version(9, 99)))
"""The names of parameters hold suffixes: they are checked here."""

_PREFIX = r"(resources|required|member_of|in_tree)"
_NUMBERED = re.compile(_PREFIX + r"([1-9][0-9]*)?")
_NAMED = re.compile(_PREFIX + r"([a-zA-Z0-9_-]{1,64})?")
_BARE = re.compile(_PREFIX + r"()")


@resource.get("/allocation_candidates", policy="placement:allocation_candidates:list", since="1.10", query=_OPEN)
def index(ctx: Context) -> Reply:
    """The ways to serve a request, at most `limit`. Raises BadRequest."""
    grammar = versions.grammar(ctx.version)
    limit = _limit(ctx, grammar)
    ask = _ask(ctx, grammar)
    providers = table.capacities(ctx.tx, None)
    found = candidate.search(providers, _in_trees(ask, providers))
    if not versions.sees_trees(ctx.version):
        roots = {one.uuid for one in providers if one.parent is None}
        found = (one for one in found if one.allocations.keys() <= roots)
    chosen = list(itertools.islice(found, limit))
    body = {
        "allocation_requests": [_request(ctx, one) for one in chosen],
        "provider_summaries": _summaries(ctx, providers, chosen, ask),
    }
    return Reply(body, versions.freshness(ctx.version, ctx.now))


def _limit(ctx: Context, grammar: Grammar) -> int | None:
    text = ctx.query.get("limit")
    if text is None:
        return None
    if not grammar.limit or not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise BadRequest(f"Invalid query string parameters: limit: {text!r}")
    return int(text)


def _ask(ctx: Context, grammar: Grammar) -> Ask:
    groups = _groups(ctx, grammar)
    same_subtree = [set(text.split(",")) for text in ctx.query.all("same_subtree")]
    policy = ctx.query.get("group_policy")
    if policy not in (None, "none", "isolate"):
        raise BadRequest(f"Invalid query string parameters: group_policy: {policy!r}")
    if policy is None and sum(1 for group in groups if group.suffix) > 1:
        raise BadRequest(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    _check_groups(groups, same_subtree)
    root_traits = query.traits(ctx.query.all("root_required"), grammar, "root_required")
    names = root_traits.names.union(*(group.traits.names for group in groups))
    if missing := trait.unknown(ctx.tx, names):
        raise BadRequest(f"No such trait(s): {', '.join(sorted(missing))}.")
    if missing := resource_class.unknown(ctx.tx, {name for group in groups for name in group.resources}):
        raise BadRequest(f"Invalid resource class in resources parameter: {', '.join(sorted(missing))}")
    return Ask(groups=groups, isolate=policy == "isolate", root_traits=root_traits, same_subtree=same_subtree)


def _groups(ctx: Context, grammar: Grammar) -> list[Group]:
    pattern = _NAMED if grammar.named_groups else _NUMBERED if grammar.numbered_groups else _BARE
    others = {"limit": grammar.limit, "group_policy": grammar.numbered_groups}
    others |= {"root_required": grammar.root_required, "same_subtree": grammar.same_subtree}
    known = {"required": grammar.required, "member_of": grammar.member_of, "in_tree": grammar.in_tree}
    found: dict[str, Group] = {}
    for name in sorted(ctx.query.names()):
        match = None if name in others else pattern.fullmatch(name)
        if not others.get(name, match is not None and known.get(match.group(1), True)):
            raise BadRequest(f"Invalid query string parameters: Additional properties are not allowed ({name!r})")
        if match is None:
            continue
        prefix, suffix = match.group(1), match.group(2) or ""
        group = found.setdefault(suffix, Group(suffix=suffix))
        values = ctx.query.all(name)
        if prefix == "resources":
            group.resources = query.resources(values[-1])
        elif prefix == "required":
            group.traits = query.traits(values, grammar, name)
        elif prefix == "member_of":
            group.aggregates = query.aggregates(values, grammar, name)
        else:
            group.in_tree = identifier.normal(values[-1].strip())
    return list(found.values())


def _check_groups(groups: Sequence[Group], same_subtree: Sequence[set[str]]) -> None:
    named = set().union(*same_subtree)
    if not any(group.resources for group in groups):
        raise BadRequest(
            "There must be at least one resources or resources[$S] parameter.", code="pileus.query.missing_value"
        )
    bare = sorted(group.suffix for group in groups if not group.resources and group.suffix not in named)
    if bare:
        raise BadRequest(
            "All request groups must specify resources, or be specified in `same_subtree`: "
            f"bad group(s) - {', '.join(map(repr, bare))}.",
            code="pileus.query.bad_value",
        )
    unknown = sorted(named - {group.suffix for group in groups if group.suffix})
    if unknown:
        raise BadRequest(
            f"Real suffixes should be specified in `same_subtree`: {', '.join(map(repr, unknown))} not found.",
            code="pileus.query.bad_value",
        )


def _in_trees(ask: Ask, providers: Sequence[Capacity]) -> Ask:
    """The request with the roots of the trees that it names by any of their providers."""
    roots = {one.uuid: one.root for one in providers}
    for group in ask.groups:
        if group.in_tree is not None:
            group.in_tree = roots.get(group.in_tree, group.in_tree)
    return ask


def _request(ctx: Context, one: Candidate) -> dict[str, Any]:
    if not versions.allocations_by_provider(ctx.version):
        return {
            "allocations": [
                {"resource_provider": {"uuid": uuid}, "resources": amounts} for uuid, amounts in one.allocations.items()
            ]
        }
    found: dict[str, Any] = {"allocations": {uuid: {"resources": amounts} for uuid, amounts in one.allocations.items()}}
    if versions.shows_mappings(ctx.version):
        found["mappings"] = one.mappings
    return found


def _summaries(
    ctx: Context, providers: Sequence[Capacity], chosen: Sequence[Candidate], ask: Ask
) -> dict[str, dict[str, Any]]:
    """What the candidates' providers have; with trees, all providers of theirs."""
    named = {uuid for one in chosen for uuid in one.allocations}
    trees = {one.root for one in providers if one.uuid in named}
    wanted = {name for group in ask.groups for name in group.resources}
    everything, whole = versions.shows_all_classes(ctx.version), versions.sees_trees(ctx.version)
    found = {}
    for one in providers:
        if one.uuid not in named and not (whole and one.root in trees):
            continue
        summary: dict[str, Any] = {
            "resources": {
                name: {"capacity": room.capacity, "used": room.used}
                for name, room in one.rooms.items()
                if everything or name in wanted
            }
        }
        if versions.grammar(ctx.version).required:
            summary["traits"] = sorted(one.traits)
        if whole:
            summary["parent_provider_uuid"] = one.parent
            summary["root_provider_uuid"] = one.root
        found[one.uuid] = summary
    return found
