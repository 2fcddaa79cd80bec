"""What is measured: areas, each a frozen list of test ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parent
LISTS = HOME / "lists"

ATTRIBUTES = re.compile(r"[\[(].*$")
"""Behind a test's name: its attributes `[id-…,smoke]`, and `(…)` where one test runs in several scenarios."""

PARTS = ("identity", "image", "compute", "network", "volume", "object_storage")
"""How the interop list is divided, by the folder of Tempest in which a test lies."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """One row of the table."""

    name: str
    source: str
    """File below `lists`."""
    parts: tuple[str, ...] = ()
    """Names of the rows below this one."""

    def tests(self) -> tuple[str, ...]:
        """The tests listed, by base name and in the list's order."""
        return read(LISTS / self.source)

    def part(self, name: str) -> tuple[str, ...]:
        """Those of the tests that belong to a row below."""
        return tuple(test for test in self.tests() if test.startswith(f"tempest.api.{name}."))


AREAS = {
    area.name: area
    for area in (
        Area(name="interop", source="interop-platform.txt", parts=PARTS),
        Area(name="smoke", source="tempest-47-smoke.txt"),
        Area(name="tempest-identity", source="tempest-47-identity.txt"),
        Area(name="tempest-image", source="tempest-47-image.txt"),
        Area(name="tempest-compute", source="tempest-47-compute.txt"),
        Area(name="tempest-network", source="tempest-47-network.txt"),
        Area(name="tempest-volume", source="tempest-47-volume.txt"),
        Area(name="tempest-object_storage", source="tempest-47-object_storage.txt"),
        Area(name="tempest-scenario", source="tempest-47-scenario.txt"),
        Area(name="tempest-serial", source="tempest-47-serial.txt"),
        Area(name="keystone-plugin", source="keystone-plugin-0.22.txt"),
        Area(name="glance-plugin", source="glance-plugin-0.17.txt"),
        Area(name="interop-orchestration", source="interop-orchestration.txt"),
        Area(name="interop-dns", source="interop-dns.txt"),
    )
}


def base(test: str) -> str:
    """A test's id without attributes and scenario."""
    return ATTRIBUTES.sub("", test)


def read(file: Path) -> tuple[str, ...]:
    """The tests that a list names, each once, by base name and in the list's order."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(dict.fromkeys(base(line) for line in lines if line and not line.startswith("#")))
