"""How a server's ports look in Compute's API, and what may be said of its addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from pileus.core.address import read_address
from pileus.core.errors import BadRequest


class Fixed(Protocol):
    """An address of a port."""

    @property
    def ip_address(self) -> str: ...
    @property
    def floating_ip_address(self) -> str | None: ...


class Port(Protocol):
    """A port as this module looks at it."""

    @property
    def network_name(self) -> str: ...
    @property
    def mac_address(self) -> str: ...
    @property
    def addresses(self) -> Sequence[Fixed]: ...
    @property
    def security_group_names(self) -> Sequence[str]: ...


def _entry(address: str, kind: str, mac: str, *, brief: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"version": 6 if ":" in address else 4, "addr": address}
    if not brief:
        found["OS-EXT-IPS:type"] = kind
        found["OS-EXT-IPS-MAC:mac_addr"] = mac
    return found


def by_network(ports: Iterable[Port], *, brief: bool = False) -> dict[str, list[dict[str, Any]]]:
    """A server's addresses by the network's name: fixed ones, then floating ones."""
    fixed: dict[str, list[dict[str, Any]]] = {}
    floating: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        label, mac = port.network_name, port.mac_address
        for one in port.addresses:
            fixed.setdefault(label, []).append(_entry(one.ip_address, "fixed", mac, brief=brief))
            if one.floating_ip_address is not None:
                entry = _entry(one.floating_ip_address, "floating", mac, brief=brief)
                floating.setdefault(label, []).append(entry)
    return {label: entries + floating.get(label, []) for label, entries in fixed.items()}


def groups(ports: Iterable[Port]) -> list[str]:
    """Names of the security groups of a server's ports, each as often as ports have it."""
    return [name for port in ports for name in port.security_group_names]


def canonical(text: str) -> str:
    """An address as Network writes it. Raises BadRequest for what is none."""
    try:
        return str(read_address(text))
    except ValueError:
        raise BadRequest(f"{text!r} is not an IP address") from None


def _access(text: str | None, version: int) -> str | None:
    """`accessIPv4` or `accessIPv6` as it is kept: canonical, None when empty. Raises BadRequest for another version."""
    if not text:
        return None
    try:
        found = read_address(text)
        if found.version != version:
            raise ValueError
    except ValueError:
        raise BadRequest(f"{text!r} is not an IP address of its version") from None
    return str(found)


def access_v4(text: str | None) -> str | None:
    """`accessIPv4` as it is kept."""
    return _access(text, 4)


def access_v6(text: str | None) -> str | None:
    """`accessIPv6` as it is kept."""
    return _access(text, 6)
