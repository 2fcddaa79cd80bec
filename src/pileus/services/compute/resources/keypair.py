"""Key pairs: public keys that new servers let in.

https://docs.openstack.org/api-ref/compute/#keypairs-keypairs

A key pair belongs to a user, whatever project the user works in.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound, QuotaExceeded
from pileus.core.fields import Body, UnsetType, View, W
from pileus.core.listing import Listing
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.rules import public_key
from pileus.services.compute.rules.persona import ADMIN, ANYONE
from pileus.services.compute.rules.shape import bare
from pileus.services.compute.versions import KEYPAIR_PAGES, KEYPAIR_USER

keypair = sa.Table(
    "compute_keypair",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.UniqueConstraint("user_id", "name"),
)
"""`project_id` is the project under whose quota the pair was made."""

_NAME = r"^(?! )[a-zA-Z0-9_\- ]+(?<! )$"
_NAME_292 = r"^(?! )[a-zA-Z0-9_\-@. ]+(?<! )$"


class KeypairCreate(Body):
    """Body of create: the value of `keypair`. Without a public key, a pair is generated (until 2.91)."""

    name: Annotated[
        str,
        W(Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=_NAME)], until="2.91"),
        W(Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=_NAME_292)], since="2.92"),
    ]
    public_key: Annotated[str | None, W(str, until="2.91"), W(str, since="2.92", need=True)] = None
    type: Annotated[Literal["ssh", "x509"], W(since="2.2")] = "ssh"
    user_id: Annotated[str | None, W(str, since="2.10")] = None


class KeypairMade(View):
    """A pair that was just made; the private key is shown this once."""

    name: str
    public_key: str
    fingerprint: str
    user_id: str
    type: Annotated[str | UnsetType, W(since="2.2")]
    private_key: str | UnsetType = msgspec.UNSET


class KeypairItem(View):
    """A pair in a list."""

    name: str
    public_key: str
    fingerprint: str
    type: Annotated[str | UnsetType, W(since="2.2")]


class KeypairEntry(View):
    """The wrapping of a pair in a list."""

    keypair: KeypairItem


class Keypair(View):
    """A pair in full."""

    name: str
    public_key: str
    fingerprint: str
    user_id: str
    type: Annotated[str | UnsetType, W(since="2.2")]
    id: int
    created_at: str | None
    updated_at: None = None
    deleted: bool = False
    deleted_at: None = None


_OWNER = f"{ADMIN} or (user_id:%(user_id)s and {ANYONE})"

RULES = (
    Rule("os_compute_api:os-keypairs:index", _OWNER, "List key pairs"),
    Rule("os_compute_api:os-keypairs:show", _OWNER, "Show a key pair"),
    Rule("os_compute_api:os-keypairs:create", _OWNER, "Make or import a key pair"),
    Rule("os_compute_api:os-keypairs:delete", _OWNER, "Delete a key pair"),
)

resource = Resource("keypair", "keypairs", rules=RULES)

_ONE = Parameters(later={"user_id": "2.10"}, closed="2.75")
_MANY = Parameters(later={"user_id": "2.10", "limit": "2.35", "marker": "2.35"}, closed="2.75")

listing = Listing(keypair, filters={}, sort={"name": keypair.c.name}, order=("name",), key="name")


def _user(ctx: Request, wanted: str | None) -> str:
    """The user whose pairs are meant. Raises Forbidden for others' unless the policy lets the caller."""
    user_id = wanted or ctx.auth.user_id
    ctx.enforce(ctx.operation, {"user_id": user_id})
    return user_id


def _asked(ctx: Context) -> str:
    return _user(ctx, ctx.query.get("user_id") if KEYPAIR_USER.covers(ctx.version) else None)


def find(tx: Tx, user_id: str, name: str) -> sa.Row[Any] | None:
    """A user's pair by name."""
    return tx.first(sa.select(keypair).where(keypair.c.user_id == user_id, keypair.c.name == name))


def _found(ctx: Context, name: str) -> sa.Row[Any]:
    user_id = _asked(ctx)
    row = find(ctx.tx, user_id, name)
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return row


@resource.get("/os-keypairs", policy="os_compute_api:os-keypairs:index", query=_MANY)
def list_all(ctx: Context) -> Page:
    """A user's pairs."""
    query = sa.select(keypair).where(keypair.c.user_id == _asked(ctx))
    paged = KEYPAIR_PAGES.covers(ctx.version)
    found = listing.page(ctx, query) if paged else None
    rows = found.rows if found else ctx.tx.all(query.order_by(keypair.c.name))
    items = [
        KeypairEntry(
            keypair=KeypairItem(name=row.name, public_key=row.public_key, fingerprint=row.fingerprint, type=row.type)
        )
        for row in rows
    ]
    return Page(items, found.next_marker if found else None)


@resource.get("/os-keypairs/{name}", policy="os_compute_api:os-keypairs:show", wraps="keypair", query=_ONE)
def show(ctx: Context, name: str) -> Keypair:
    """One pair."""
    row = _found(ctx, name)
    return Keypair(
        name=row.name,
        public_key=row.public_key,
        fingerprint=row.fingerprint,
        user_id=row.user_id,
        type=row.type,
        id=row.id,
        created_at=bare(row.created_at),
    )


@resource.post(
    "/os-keypairs",
    policy="os_compute_api:os-keypairs:create",
    accepts="keypair",
    wraps="keypair",
    status={"": 200, "2.2": 201},
)
async def create(ctx: Request, body: KeypairCreate) -> KeypairMade:
    """Import a public key, or generate a pair.

    Raises BadRequest for data that is no key, Conflict for a name that is taken, Forbidden over quota.
    """
    user_id = _user(ctx, body.user_id)
    if body.public_key is not None:
        return await ctx.write(lambda inner: _keep(inner, body, user_id, str(body.public_key), None))
    pair = await ctx.slow(lambda: _generate(body, user_id, ctx.seams.clock.now()))
    return await ctx.write(lambda inner: _keep(inner, body, user_id, pair.public, pair.private))


def _generate(body: KeypairCreate, user_id: str, now: datetime) -> public_key.Pair:
    if body.type == "x509":
        return public_key.generate_x509(user_id, now)
    return public_key.generate(f"Generated-by-{body.name.replace(' ', '_')}")


def _keep(ctx: Context, body: KeypairCreate, user_id: str, line: str, private: str | None) -> KeypairMade:
    fingerprint = _fingerprint(body.type, line)
    project_id = ctx.auth.project_id or ""
    try:
        QUOTA.take(ctx.tx, project_id, {"key_pairs": 1}, holder=user_id)
    except QuotaExceeded:
        raise Forbidden("Quota exceeded, too many key pairs.") from None
    values = {
        "user_id": user_id,
        "name": body.name,
        "type": body.type,
        "fingerprint": fingerprint,
        "public_key": line,
        "project_id": project_id,
        "created_at": ctx.now,
    }
    if not ctx.tx.insert_missing(keypair, values, key=("user_id", "name")):
        raise Conflict(f"Key pair '{body.name}' already exists.")
    return KeypairMade(
        name=body.name,
        public_key=line,
        fingerprint=fingerprint,
        user_id=user_id,
        type=body.type,
        private_key=msgspec.UNSET if private is None else private,
    )


def _fingerprint(kind: str, text: str) -> str:
    try:
        return public_key.ssh_fingerprint(text) if kind == "ssh" else public_key.x509_fingerprint(text)
    except ValueError:
        raise BadRequest("Keypair data is invalid: failed to generate fingerprint") from None


@resource.delete(
    "/os-keypairs/{name}", policy="os_compute_api:os-keypairs:delete", status={"": 202, "2.2": 204}, query=_ONE
)
def delete(ctx: Context, name: str) -> None:
    """Delete a pair; servers that were made with it keep its public key."""
    row = _found(ctx, name)
    if ctx.tx.execute(sa.delete(keypair).where(keypair.c.id == row.id)).rowcount:
        QUOTA.give_back(ctx.tx, row.project_id, {"key_pairs": 1}, holder=row.user_id)
