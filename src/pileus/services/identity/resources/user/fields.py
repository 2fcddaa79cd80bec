"""Shapes of users."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.context import Context, Request
from pileus.core.fields import Body, OpenBody, View
from pileus.services.identity.resources.attribute import Id, Links, Name, extended, link
from pileus.services.identity.rules.compliance import Compliance


class Options(Body, omit_defaults=True):
    """Options of a user: what of the cloud's rules for passwords and accounts does not hold for it."""

    ignore_change_password_upon_first_use: bool | UnsetType | None = UNSET
    ignore_password_expiry: bool | UnsetType | None = UNSET
    ignore_lockout_failure_attempts: bool | UnsetType | None = UNSET
    lock_password: bool | UnsetType | None = UNSET
    """Whether only an administrator can change the password."""
    ignore_user_inactivity: bool | UnsetType | None = UNSET
    multi_factor_auth_rules: list[list[str]] | UnsetType | None = UNSET
    """Sets of methods of authentication; one of them must be shown together."""
    multi_factor_auth_enabled: bool | UnsetType | None = UNSET


class User(View):
    """A user. The password is never shown."""

    id: str
    name: str
    domain_id: str
    enabled: bool
    default_project_id: str | UnsetType
    password_expires_at: str | None
    options: dict[str, Any]
    links: Links


class UserCreate(OpenBody):
    """A new user. Without a password nobody can log in as it."""

    name: Name
    domain_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    password: str | UnsetType | None = UNSET
    default_project_id: str | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class UserUpdate(OpenBody):
    """What is to be changed of a user."""

    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    password: str | UnsetType | None = UNSET
    default_project_id: str | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class PasswordChange(Body):
    """A user's own change of password."""

    original_password: str
    password: str


def compliance(ctx: Request) -> Compliance:
    """What this cloud asks of passwords and accounts."""
    found = ctx.provided.get(Compliance)
    return found if isinstance(found, Compliance) else Compliance()


def moment(at: datetime | None) -> str | None:
    """A time as Identity writes it of users, e.g. `2026-01-31T12:00:00.000000`, in UTC."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def active(ctx: Context, row: sa.Row[Any]) -> bool:
    """Whether a user is enabled, and has not been away for too long."""
    asked = compliance(ctx)
    return bool(row.enabled) and not asked.inactive(row.options, row.active_at or row.created_at, ctx.now)


def view(ctx: Context, row: sa.Row[Any]) -> User:
    """A row as a user."""
    user = User(
        id=row.id,
        name=row.name,
        domain_id=row.domain_id,
        enabled=active(ctx, row),
        default_project_id=UNSET if row.default_project_id is None else row.default_project_id,
        password_expires_at=moment(row.password_expires_at),
        options=row.options,
        links=link(ctx, "users", row.id),
    )
    return extended(user, row.extra)
