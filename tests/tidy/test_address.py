"""Text becomes an address in one place: `ipaddress` alone takes a zone, which may be any text."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.tidy.tree import PACKAGE, ROOT, parse, sources

READERS = {"ip_address", "ip_network", "ip_interface"}
"""What `ipaddress` has to read text."""

ELSEWHERE = {
    "core/address.py": "where it is done",
    "core/config.py": "the operator's own words",
    "core/tls.py": "the operator's own words",
    "services/compute/rules/guest.py": "what Network has kept",
    "services/network/resources/address.py": "what this service has kept",
    "services/network/resources/leg.py": "what this service has kept",
    "services/network/resources/subnet/operations.py": "what this service has kept",
    "services/network/resources/subnetpool/operations.py": "what this service has kept",
    "services/network/rules/prefix.py": "what this service has kept",
    "services/network/rules/security.py": "what this service has kept",
    "services/network/rules/spec.py": "what this service has kept",
    "services/network/rules/subnet.py": "what this service has kept",
    "drivers/host/netfilter.py": "what was read before, and octets of the kernel's",
}
"""Modules that may call `ipaddress` all the same, and what they have it read."""


def reads(path: Path) -> bool:
    """Whether a module has `ipaddress` read text."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "ipaddress":
            if READERS & {one.name for one in node.names}:
                return True
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ipaddress" and node.attr in READERS:
            return True
    return False


def test_every_module_that_reads_addresses_is_known() -> None:
    below = {str((ROOT / path).relative_to(PACKAGE)): path for path, _ in sources(PACKAGE)}
    found = {name for name, path in below.items() if reads(path) and not name.startswith("contracts/suite/")}
    assert found - ELSEWHERE.keys() == set(), "users' words are read by core.address"
    assert ELSEWHERE.keys() - found == set()
