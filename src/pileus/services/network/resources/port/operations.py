"""The operations on ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources import association, quota, service_port
from pileus.services.network.resources.address import Ask, Given, Wish
from pileus.services.network.resources.draft import (
    DHCP,
    GATEWAY,
    LEG,
    OURS,
    Draft,
    Port,
    announce,
    check_macs,
    join,
    load,
    make,
    remove,
)
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import TOPIC as NETWORK
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port import fields, policy
from pileus.services.network.resources.port.fields import (
    FixedIPBody,
    OptionBody,
    PairBody,
    PortCreate,
    PortReply,
    PortsCreate,
    PortUpdate,
    PortView,
    view,
)
from pileus.services.network.resources.port.table import TOPIC, address, port, port_group
from pileus.services.network.resources.security_group import operations as groups
from pileus.services.network.resources.security_group import policy as group_policy
from pileus.services.network.resources.security_group.table import group
from pileus.services.network.resources.standard_attribute import (
    Row,
    change,
    check_revision,
    enforce,
    every,
    owner,
    page,
    tag_operations,
    tags_of,
    write_tags,
)
from pileus.services.network.rules import address as rules
from pileus.services.network.rules.fault import (
    AddressPairAndPortSecurityRequired,
    InvalidInput,
    PortInUse,
    PortSecurityAndIPRequiredForSecurityGroups,
    PortSecurityPortHasSecurityGroup,
    SecurityGroupNotFound,
    ServicePortInUse,
    UnsupportedPortDeviceOwner,
)
from pileus.services.network.rules.subnet import parse_address, parse_cidr

resource = Resource("port", "ports", rules=policy.RULES)

MAX_OPTIONS = 256
"""How many extra DHCP options a port may have: all that DHCPv4 knows."""


def views(tx: Tx, ports: Sequence[Port], domains: Mapping[str, str]) -> list[PortView]:
    """Ports as a response shows them. `domains` are the DNS domains of their networks."""
    tags = tags_of(tx, [one.row["id"] for one in ports])
    return [
        view(one.row, one.addresses, one.groups, tags.get(one.row["id"], ()), domains[one.row["network_id"]])
        for one in ports
    ]


def _wishes(fixed_ips: Sequence[FixedIPBody]) -> list[Wish]:
    return [Wish(one.subnet_id, one.ip_address) for one in fixed_ips]


def _mac(text: str) -> str:
    try:
        return rules.parse_mac(text)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _pairs(pairs: Sequence[PairBody], mac: str) -> list[dict[str, str]]:
    found = []
    for one in pairs:
        text = str(parse_cidr(one.ip_address)) if "/" in one.ip_address else str(parse_address(one.ip_address))
        found.append({"ip_address": text, "mac_address": _mac(one.mac_address) if one.mac_address else mac})
    if len({tuple(one.values()) for one in found}) != len(found):
        raise InvalidInput("an allowed address pair is given twice")
    if len(found) > 10:
        raise InvalidInput("there may be at most 10 allowed address pairs")
    return found


def _options(options: Sequence[OptionBody], before: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The options after a request; one whose value is null goes. An option is known by name and IP version."""
    found = {(one["opt_name"], one["ip_version"]): dict(one) for one in before}
    for one in options:
        version = one.ip_version or 4
        if not (one.opt_value or "").isprintable():
            raise InvalidInput(f"the DHCP option {one.opt_name!r} holds a letter that it must not")
        if one.opt_value is None:
            found.pop((one.opt_name, version), None)
        else:
            found[one.opt_name, version] = {
                "opt_name": one.opt_name,
                "opt_value": one.opt_value,
                "ip_version": version,
            }
    if len(found) > max(MAX_OPTIONS, len(before)):
        raise InvalidInput(f"a port has at most {MAX_OPTIONS} extra DHCP options")
    return list(found.values())


def find_groups(ctx: Context, ids: Sequence[str]) -> list[str]:
    """The ids of groups that the caller sees, each once. Raises SecurityGroupNotFound."""
    wanted = list(dict.fromkeys(ids))
    rows = every(ctx.tx, by(group, "id"), {"values": wanted}) if wanted else ()
    known = {row["id"] for row in rows if ctx.allows("get_security_group", group_policy.target(row))}
    for one in wanted:
        if one not in known:
            raise SecurityGroupNotFound(one)
    return wanted


def _authorize(ctx: Context, verb: str, body: PortCreate | PortUpdate, target: Mapping[str, Any]) -> None:
    """The rules for attributes that ask about the port's network."""
    for name in ("device_id", "device_owner", "mac_address", "port_security_enabled", "allowed_address_pairs"):
        value = getattr(body, name)
        if value is not UNSET and (value != "" or name == "mac_address"):
            enforce(ctx, f"{verb}_port:{name}", target)
    if isinstance(body.fixed_ips, list):
        enforce(ctx, f"{verb}_port:fixed_ips", target)
        for one in body.fixed_ips:
            for name in ("ip_address", "subnet_id"):
                if getattr(one, name) is not None:
                    enforce(ctx, f"{verb}_port:fixed_ips:{name}", target)


def _check_device(row: Mapping[str, Any], body: PortCreate | PortUpdate) -> None:
    """Raise for a port that would become, or cease to be, a part of a router or of a server by its name alone.

    Raises InvalidInput and UnsupportedPortDeviceOwner for ports that the cloud makes for itself, and PortInUse for one
    that a server has.
    """
    given_id, kind = body.device_id, body.device_owner
    if kind in OURS and kind != row["device_owner"]:
        raise InvalidInput(f"ports with the device owner {kind} are made by the cloud itself")
    moved = given_id is not UNSET and given_id != row["device_id"]
    if row["device_owner"] in OURS and (moved or kind not in (UNSET, row["device_owner"])):
        raise InvalidInput(f"the port belongs to {row['device_owner']} {row['device_id']}")
    if row["device_owner"] in OURS and given(body).keys() - _HARMLESS:
        raise UnsupportedPortDeviceOwner(row["id"], row["device_owner"])
    if row["attached_at"] is not None and moved:
        raise PortInUse(row["id"], row["device_id"])


def _has(one: Port, asked: Sequence[FixedIPBody]) -> bool:
    """Whether a port has just the addresses that are asked for, in whatever order."""
    left = list(one.addresses)
    for wish in asked:
        fits = [
            each
            for each in left
            if wish.subnet_id in (None, each.subnet_id) and wish.ip_address in (None, each.ip_address)
        ]
        if not fits:
            return False
        left.remove(fits[0])
    return not left


_HARMLESS = {"name", "description", "admin_state_up", "dns_name", "device_id", "device_owner"}
"""What users may say of ports that the cloud made for itself."""

_NO_DEVICE: dict[str, Any] = {"device_owner": "", "device_id": "", "attached_at": None}


def _draft(ctx: Context, net: Row, body: PortCreate) -> Draft:
    """A port as a user asks for it. Raises what is wrong with that."""
    project_id = owner(ctx, body)
    target = policy.target({"project_id": project_id, "device_owner": body.device_owner}, net)
    enforce(ctx, "create_port", target)
    _authorize(ctx, "create", body, target)
    _check_device(_NO_DEVICE, body)
    trusted = body.device_owner.startswith("network:")
    secure = net["port_security_enabled"] if body.port_security_enabled is UNSET else body.port_security_enabled
    secure = secure and not trusted
    asked = list(body.security_groups) if isinstance(body.security_groups, list) else None
    if asked and not secure:
        raise PortSecurityAndIPRequiredForSecurityGroups
    if body.allowed_address_pairs and not secure:
        raise AddressPairAndPortSecurityRequired
    if asked is None and secure and body.fixed_ips != []:
        asked = [groups.ensure_default(ctx.tx, project_id)]
    elif asked:
        asked = find_groups(ctx, asked)
    mac = _mac(body.mac_address) if isinstance(body.mac_address, str) else None
    mac = mac or rules.mac_address(ctx.seams.random.getrandbits(24))
    return Draft(
        network=net,
        project_id=project_id,
        wishes=_wishes(body.fixed_ips) if isinstance(body.fixed_ips, list) else None,
        groups=asked or [],
        mac=mac if isinstance(body.mac_address, str) else None,
        description=body.description,
        values={
            "name": body.name,
            "admin_state_up": body.admin_state_up,
            "mac_address": mac,
            "device_id": body.device_id,
            "device_owner": body.device_owner,
            "port_security_enabled": secure,
            "allowed_address_pairs": _pairs(body.allowed_address_pairs or [], mac),
            "extra_dhcp_opts": _options(body.extra_dhcp_opts or []),
            "dns_name": body.dns_name,
            "vnic_type": body.vnic_type,
            "binding_host": body.host or "",
            "binding_profile": body.profile or {},
        },
    )


def _create(ctx: Context, bodies: Sequence[PortCreate]) -> list[PortView]:
    tx = ctx.tx
    nets = networks.find_all(ctx, {one.network_id for one in bodies})
    drafts = [_draft(ctx, nets[one.network_id], one) for one in bodies]
    counts: dict[str, int] = {}
    for each in drafts:
        counts[each.project_id] = counts.get(each.project_id, 0) + 1
    for project_id in sorted(counts):
        quota.take(tx, project_id, {"port": counts[project_id]})
    made = make(tx, drafts)
    for one, body in zip(made, bodies, strict=True):
        if one.groups and not one.addresses:
            _leave(tx, one)
        write_tags(tx, one.row["id"], body.tags)
    domains = {key: net["dns_domain"] for key, net in nets.items()}
    if any(body.tags for body in bodies):
        return views(tx, made, domains)
    return [view(one.row, one.addresses, one.groups, (), domains[one.row["network_id"]]) for one in made]


def _leave(tx: Tx, one: Port) -> None:
    """A port without an address is in no group, as upstream has it."""
    tx.execute(sa.delete(port_group).where(port_group.c.port_id == one.row["id"]))
    one.groups.clear()


@resource.post("/ports", policy="create_port", guarded=True, status=201)
def create(ctx: Context, body: PortsCreate) -> PortReply:
    """Make one port, or several: all or none."""
    if body.port is not UNSET:
        return PortReply(port=_create(ctx, [body.port])[0])
    if body.ports is UNSET or not body.ports:
        raise BadRequest("Unable to find 'port' in the request body.")
    return PortReply(ports=_create(ctx, body.ports))


@resource.get("/ports", policy="get_port", guarded=True, wraps="ports")
def index(ctx: Context) -> Page:
    """The ports that the caller sees."""
    rows, make_page = page(ctx, fields.listing, sa.select(port).where(policy.visible(ctx)))
    query = sa.select(network.c.id, network.c.dns_domain).where(network.c.id.in_({row["network_id"] for row in rows}))
    domains = {row.id: row.dns_domain for row in ctx.tx.all(query)}
    return make_page(views(ctx.tx, load(ctx.tx, rows), domains))


@resource.get("/ports/{port_id}", policy="get_port", guarded=True, wraps="port")
def show(ctx: Context, port_id: str) -> PortView:
    """A port."""
    row, net = policy.find(ctx, port_id)
    return views(ctx.tx, load(ctx.tx, [row]), {net["id"]: net["dns_domain"]})[0]


def readdress(ctx: Context, one: Port, mac: str, fixed_ips: Sequence[FixedIPBody] | None) -> list[Given]:
    """Give a port other addresses; those that it has and still wants it keeps. None: those that follow from its MAC."""
    tx, row = ctx.tx, one.row
    subnets = addresses.lock_subnets(tx, [row["network_id"]])
    left = {each.ip_address: each for each in one.addresses}
    self_made = {each["id"] for each in subnets[row["network_id"]] if addresses.automatic(each)}
    wishes = []
    if fixed_ips is None:
        wishes = [Wish(each.subnet_id, each.ip_address) for each in one.addresses if each.subnet_id not in self_made]
    for body in fixed_ips or ():
        text = body.ip_address
        if text is None and body.subnet_id not in self_made:
            kept = next((each for each in left.values() if each.subnet_id == body.subnet_id), None)
            text = kept.ip_address if kept else None
        left.pop(text or "", None)
        wishes.append(Wish(body.subnet_id, text))
    held = frozenset(each.ip_address for each in one.addresses)
    leg = row["device_owner"] in (LEG, GATEWAY)
    [found] = addresses.allocate(tx, subnets, [Ask(row["network_id"], mac, wishes, router=leg, held=held)])
    association.release(tx, [row["id"]], keep={each.ip_address for each in found})
    tx.execute(sa.delete(address).where(address.c.port_id == row["id"]))
    if found:
        tx.insert(address, addresses.rows_of(row["id"], found))
    return found


def _values(ctx: Context, one: Port, body: PortUpdate) -> dict[str, Any]:
    """The columns that an update sets."""
    row = one.row
    values = given(body)
    for name in ("fixed_ips", "security_groups", "qos_policy_id"):
        values.pop(name, None)
    if "mac_address" in values:
        if row["host_id"] is not None:
            raise PortInUse(row["id"], row["device_id"])
        text = values["mac_address"]
        values["mac_address"] = _mac(text) if text is not None else rules.mac_address(ctx.seams.random.getrandbits(24))
        if values["mac_address"] != row["mac_address"]:
            check_macs(ctx.tx, [(row["network_id"], values["mac_address"])])
    mac = str(values.get("mac_address", row["mac_address"]))
    if "allowed_address_pairs" in values:
        values["allowed_address_pairs"] = _pairs(values["allowed_address_pairs"] or [], mac)
    if "extra_dhcp_opts" in values:
        values["extra_dhcp_opts"] = _options(values["extra_dhcp_opts"] or [], row["extra_dhcp_opts"])
    if "host" in values:
        values["binding_host"] = values.pop("host") or ""
    if "profile" in values:
        values["binding_profile"] = values.pop("profile") or {}
    return values


def _check_security(row: Mapping[str, Any], members: Sequence[str], body: PortUpdate) -> None:
    if row["port_security_enabled"]:
        return
    if members:
        if isinstance(body.security_groups, list) and body.security_groups:
            raise PortSecurityAndIPRequiredForSecurityGroups
        raise PortSecurityPortHasSecurityGroup
    if row["allowed_address_pairs"]:
        raise AddressPairAndPortSecurityRequired


@resource.put("/ports/{port_id}", policy="update_port", guarded=True, accepts="port", wraps="port")
def update(ctx: Context, port_id: str, body: PortUpdate) -> PortView:
    """Change a port."""
    tx = ctx.tx
    row, net = policy.find(ctx, port_id, "update")
    check_revision(ctx, row)
    device_owner = row["device_owner"] if body.device_owner is UNSET else body.device_owner
    _authorize(ctx, "update", body, policy.target({**row, "device_owner": device_owner}, net))
    before = load(tx, [row])[0]
    if row["device_owner"] in OURS and isinstance(body.fixed_ips, list) and _has(before, body.fixed_ips):
        body.fixed_ips = UNSET
    _check_device(row, body)
    values = _values(ctx, before, body)
    members = before.groups
    if body.security_groups is not UNSET:
        members = find_groups(ctx, body.security_groups or [])
    _check_security({**row, **values}, members, body)
    ips = before.addresses
    mac = str(values.get("mac_address", row["mac_address"]))
    if body.fixed_ips is not UNSET or mac != row["mac_address"]:
        wanted = None if body.fixed_ips is UNSET else body.fixed_ips
        ips = readdress(ctx, before, mac, wanted)
    touched = ips != before.addresses or members != before.groups
    # A change of addresses or groups is one of the port too, so its revision counts up.
    new = change(ctx, port, TOPIC, row, values | ({"updated_at": ctx.now} if touched else {}))
    after = Port(new, ips, members)
    if sorted(members) != sorted(before.groups):
        tx.execute(sa.delete(port_group).where(port_group.c.port_id == port_id))
        join(tx, [after])
    if touched or new is not row:
        announce(tx, before)
        announce(tx, after)
    return views(tx, [after], {net["id"]: net["dns_domain"]})[0]


@resource.delete("/ports/{port_id}", policy="delete_port", guarded=True)
def delete(ctx: Context, port_id: str) -> None:
    """Delete a port that is nobody's but its owner's; a network whose DHCP port it is gets another in its place."""
    row, net = policy.find(ctx, port_id, "delete")
    check_revision(ctx, row)
    if row["device_owner"] in OURS and row["device_owner"] != DHCP:
        raise ServicePortInUse(port_id, f"it belongs to {row['device_owner']} {row['device_id']}")
    remove(ctx.tx, load(ctx.tx, [row]))
    if row["device_owner"] == DHCP:
        subnets = addresses.lock_subnets(ctx.tx, [net["id"]])[net["id"]]
        service_port.settle_dhcp(ctx.tx, net, subnets, first=True)
        ctx.tx.changed(NETWORK, net["id"])


def _find_tagged(ctx: Context, port_id: str, verb: str) -> Row:
    return policy.find(ctx, port_id, verb)[0]


tag_operations(resource, "/ports", port, TOPIC, _find_tagged)
