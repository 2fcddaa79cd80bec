"""The shapes of ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, Guard, View
from pileus.core.listing import Filter, Listing, few
from pileus.services.network.resources.address import Given
from pileus.services.network.resources.port.table import address, port, port_group
from pileus.services.network.resources.standard_attribute import (
    BULK,
    SOME,
    DnsName,
    Id,
    Name,
    Owned,
    StandardView,
    Tags,
    Text,
    filters,
    sort_keys,
    standard,
)

VnicType = Literal[
    "normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa"
]


class FixedIPBody(Body, kw_only=True):
    """An address that is asked for."""

    subnet_id: Id | None = None
    ip_address: str | None = None


class PairBody(Body, kw_only=True):
    """A further address that a port may send from, with its own MAC address or another."""

    ip_address: str
    mac_address: str | None = None


class OptionBody(Body, kw_only=True):
    """An extra DHCP option; a value of null takes it away."""

    opt_name: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
    opt_value: Annotated[str, msgspec.Meta(max_length=255)] | None
    ip_version: Literal[4, 6] | None = None


class PortCreate(Owned, kw_only=True):
    """A new port."""

    network_id: Id
    name: Name = ""
    description: Text = ""
    admin_state_up: bool = True
    mac_address: str | UnsetType | None = UNSET
    fixed_ips: Annotated[list[FixedIPBody], SOME] | UnsetType | None = UNSET
    device_id: Name = ""
    device_owner: Name = ""
    security_groups: Annotated[list[Id], SOME] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    allowed_address_pairs: Annotated[list[PairBody], SOME] | UnsetType | None = UNSET
    extra_dhcp_opts: Annotated[list[OptionBody], SOME] | UnsetType | None = UNSET
    dns_name: DnsName = ""
    tags: Tags = msgspec.field(default_factory=list)
    qos_policy_id: None = None
    vnic_type: VnicType = msgspec.field(name="binding:vnic_type", default="normal")
    host: Annotated[Name | UnsetType | None, Guard("create_port:binding:host_id")] = msgspec.field(
        name="binding:host_id", default=UNSET
    )
    profile: Annotated[dict[str, Any] | UnsetType | None, Guard("create_port:binding:profile")] = msgspec.field(
        name="binding:profile", default=UNSET
    )


class PortsCreate(Body, kw_only=True):
    """One port, or several at once."""

    port: PortCreate | UnsetType = UNSET
    ports: Annotated[list[PortCreate], BULK] | UnsetType = UNSET


class PortUpdate(Body, kw_only=True):
    """What may be changed of a port."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    mac_address: str | UnsetType | None = UNSET
    fixed_ips: Annotated[list[FixedIPBody], SOME] | UnsetType = UNSET
    device_id: Name | UnsetType = UNSET
    device_owner: Name | UnsetType = UNSET
    security_groups: Annotated[list[Id], SOME] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    allowed_address_pairs: Annotated[list[PairBody], SOME] | UnsetType | None = UNSET
    extra_dhcp_opts: Annotated[list[OptionBody], SOME] | UnsetType | None = UNSET
    dns_name: DnsName | UnsetType = UNSET
    qos_policy_id: UnsetType | None = UNSET
    vnic_type: VnicType | UnsetType = msgspec.field(name="binding:vnic_type", default=UNSET)
    host: Annotated[Name | UnsetType | None, Guard("update_port:binding:host_id")] = msgspec.field(
        name="binding:host_id", default=UNSET
    )
    profile: Annotated[dict[str, Any] | UnsetType | None, Guard("update_port:binding:profile")] = msgspec.field(
        name="binding:profile", default=UNSET
    )


class FixedIPView(View, kw_only=True):
    """An address of a port in a response."""

    subnet_id: str
    ip_address: str


class PortView(StandardView, kw_only=True):
    """A port in a response."""

    name: str
    network_id: str
    admin_state_up: bool
    status: str
    mac_address: str
    fixed_ips: list[FixedIPView]
    device_id: str
    device_owner: str
    security_groups: list[str]
    port_security_enabled: bool
    allowed_address_pairs: list[dict[str, str]]
    extra_dhcp_opts: list[dict[str, Any]]
    dns_name: str
    dns_assignment: list[dict[str, str]]
    qos_policy_id: None = None
    vnic_type: str = msgspec.field(name="binding:vnic_type")
    host: Annotated[str | UnsetType, Guard("get_port:binding:host_id")] = msgspec.field(name="binding:host_id")
    profile: Annotated[dict[str, Any] | UnsetType, Guard("get_port:binding:profile")] = msgspec.field(
        name="binding:profile"
    )
    vif_type: Annotated[str | UnsetType, Guard("get_port:binding:vif_type")] = msgspec.field(name="binding:vif_type")
    vif_details: Annotated[dict[str, Any] | UnsetType, Guard("get_port:binding:vif_details")] = msgspec.field(
        name="binding:vif_details"
    )


class PortReply(View, kw_only=True):
    """One port, or those of a bulk request."""

    port: PortView | UnsetType = UNSET
    ports: list[PortView] | UnsetType = UNSET


def view(
    row: Mapping[str, Any],
    given: Sequence[Given],
    groups: Sequence[str],
    tags: Sequence[str] = (),
    domain: str = "",
) -> PortView:
    """A port's row, addresses and groups as a response shows them. `domain` is its network's DNS domain."""
    bound = row["host_id"] is not None
    return PortView(
        **standard(row, tags),
        name=row["name"],
        network_id=row["network_id"],
        admin_state_up=row["admin_state_up"],
        status=row["status"],
        mac_address=row["mac_address"],
        fixed_ips=[FixedIPView(subnet_id=one.subnet_id, ip_address=one.ip_address) for one in given],
        device_id=row["device_id"],
        device_owner=row["device_owner"],
        security_groups=list(groups),
        port_security_enabled=row["port_security_enabled"],
        allowed_address_pairs=row["allowed_address_pairs"],
        extra_dhcp_opts=row["extra_dhcp_opts"],
        dns_name=row["dns_name"],
        dns_assignment=_assignment(row["dns_name"] or row["hostname"], given, domain),
        vnic_type=row["vnic_type"],
        host=row["binding_host"],
        profile=row["binding_profile"],
        vif_type="bridge" if bound else "binding_failed" if row["binding_host"] else "unbound",
        vif_details={"port_filter": True, "connectivity": "l2"} if bound else {},
    )


def _assignment(name: str, given: Sequence[Given], domain: str) -> list[dict[str, str]]:
    found = []
    for one in given:
        host = name or "host-" + one.ip_address.replace(".", "-").replace(":", "-")
        fqdn = f"{host}.{domain.strip('.')}." if domain.strip(".") else f"{host}."
        found.append({"ip_address": one.ip_address, "hostname": host, "fqdn": fqdn})
    return found


class _FixedIP(Filter):
    """`fixed_ips`: by `ip_address=…`, `subnet_id=…` or a part of an address, `ip_address_substr=…`."""

    __slots__ = ("key",)

    def __init__(self, key: str = "") -> None:
        super().__init__(port.c.id)
        self.key = key

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter: any address, and any subnet."""
        wanted: dict[str, list[str]] = {}
        for value in values:
            key, sign, text = value.partition("=") if not self.key else (self.key, "=", value)
            if sign:
                wanted.setdefault(key, []).append(text)
        arms = []
        for key, texts in wanted.items():
            if key == "ip_address_substr":
                matches = sa.or_(*(address.c.ip_address.contains(text, autoescape=True) for text in few(texts)))
            elif key in ("ip_address", "subnet_id"):
                matches = address.c[key].in_(texts)
            else:
                continue
            arms.append(self.column.in_(sa.select(address.c.port_id).where(matches)))
        return sa.and_(sa.true(), *arms)


class _Group(Filter):
    """`security_groups`: by the id of a group."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        wanted = [part for value in values for part in value.split(",")]
        return self.column.in_(sa.select(port_group.c.port_id).where(port_group.c.group_id.in_(wanted)))


class _Mac(Filter):
    """`mac_address`, in whatever case."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        return self.column.in_([value.lower().replace("-", ":") for value in values])


class _VifType(Filter):
    """`binding:vif_type`: by whether a port is bound."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        arms = {
            "bridge": port.c.host_id.is_not(None),
            "unbound": sa.and_(port.c.host_id.is_(None), port.c.binding_host == ""),
            "binding_failed": sa.and_(port.c.host_id.is_(None), port.c.binding_host != ""),
        }
        return sa.or_(sa.false(), *(arms[value] for value in values if value in arms))


listing = Listing(
    port,
    filters={
        **filters(
            port,
            "name",
            "network_id",
            "status",
            "device_id",
            "device_owner",
            "dns_name",
            flags=("admin_state_up", "port_security_enabled"),
        ),
        "mac_address": _Mac(port.c.mac_address),
        "fixed_ips": _FixedIP(),
        "ip_address": _FixedIP("ip_address"),
        "subnet_id": _FixedIP("subnet_id"),
        "security_groups": _Group(port.c.id),
        "binding:host_id": Filter(port.c.binding_host),
        "binding:vnic_type": Filter(port.c.vnic_type),
        "binding:vif_type": _VifType(port.c.id),
    },
    sort=sort_keys(port, "name", "network_id", "admin_state_up", "status", "mac_address", "device_id", "device_owner"),
    maximum=None,
    view=PortView,
)
