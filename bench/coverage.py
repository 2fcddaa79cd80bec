"""What of upstream's documented operations is there, and is exercised through the edge by a test.

.venv/bin/pileus test --only sqlite --only coverage     # notes what the tests exercise, and checks the page
.venv/bin/python -m bench.coverage EXERCISED > docs/coverage.md

EXERCISED is what a run of the suite noted (see `tests/api/exercise.py`); what is documented is in
`conformance/lists/operations`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pileus.app import public_services
from pileus.core.api import Service

LISTS = Path(__file__).parents[1] / "conformance" / "lists" / "operations"

TYPES = {"identity": "identity", "image": "image", "placement": "placement", "compute": "compute", "network": "network"}
"""Lists that have a service here, with its type."""

ASIDE = {
    "identity": (
        (re.compile(r"/OS-FEDERATION\b"), "federation"),
        (re.compile(r"/OS-SIMPLE-CERT/"), "PKI tokens, which upstream took out"),
    ),
    "compute": (
        (
            re.compile(
                r"/os-(agents|cells|certificates|cloudpipe|consoles|fixed-ips|floating-ip-dns|floating-ips-bulk|fping"
                r"|virtual-interfaces|security-group-default-rules)\b"
            ),
            "what upstream took out; it answers 410 here too",
        ),
        (
            re.compile(
                r"/os-(volumes|volumes_boot|snapshots|baremetal-nodes|assisted-volume-snapshots)\b|/os-volume_att"
            ),
            "what belongs to services that are not there",
        ),
    ),
}
"""What is put off on purpose, by list: paths, and what they belong to."""

HEAD = """# What of the documented operations is there

An operation counts when it is declared, and when a test made it succeed through the HTTP edge. The lists of what
upstream's API references document are in `conformance/lists/operations`; the step `coverage` of `pileus test` compares
this page with what its tests did. Set aside is what is put off on purpose, by name below; it is not in the percentage.

| service | documented | set aside | there | exercised | |
|---|---|---|---|---|---|
"""


class Documented(NamedTuple):
    """An operation as upstream documents it."""

    method: str
    path: str

    @property
    def text(self) -> str:
        """As the list has it."""
        return f"{self.method} {self.path}"


class Ours(NamedTuple):
    """An operation as we declare it."""

    kind: str
    method: str
    act: str
    """Path and the key of an action."""
    pattern: re.Pattern[str]
    fixed: int
    """How many segments are no parameters: of several that match, the most exact is meant."""

    def line(self, method: str) -> str:
        """The line that notes its success."""
        return f"{self.kind} {method} {self.act}"


def documented(name: str) -> list[Documented]:
    """The operations of one list."""
    lines = (LISTS / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    return [Documented(*line.split(" ", 1)) for line in lines if line]


def ours(service: Service) -> Iterator[Ours]:
    """The operations of one service, below its mount; those of Compute as its reference names them, without a root."""
    bare = "" if service.type == "compute" else service.roots[0]
    for resources, root in ((service.outer, ""), (service.resources, bare)):
        for operation in (operation for resource in resources for operation in resource.operations):
            path = (root + operation.path).rstrip("/") or "/"
            segments = ["[^/]+" if part.startswith("{") else re.escape(part) for part in path.split("/")]
            act = f"{operation.path or '/'} {operation.action or ''}".strip()
            fixed = sum(not part.startswith("{") for part in path.split("/"))
            yield Ours(service.type, operation.method, act, re.compile("/".join(segments)), fixed)


def find(wanted: Documented, candidates: list[Ours]) -> list[Ours]:
    """Those of ours that do what is documented: one, or all actions of a path."""
    path = wanted.path.partition("?")[0].removeprefix("/identity").replace("{", "").replace("}", "").rstrip("/") or "/"
    method = "GET" if wanted.method == "HEAD" else wanted.method
    found = [one for one in candidates if one.method == method and one.pattern.fullmatch(path)]
    best = max((one.fixed for one in found), default=0)
    return [one for one in found if one.fixed == best]


def section(name: str, service: Service, exercised: set[str]) -> tuple[str, list[str]]:
    """The row of one list in the table, and what follows below it."""
    candidates = list(ours(service))
    aside: dict[str, list[str]] = {}
    absent, idle, good = [], [], 0
    for wanted in documented(name):
        reason = next((text for pattern, text in ASIDE.get(name, ()) if pattern.search(wanted.path)), None)
        if reason is not None:
            aside.setdefault(reason, []).append(wanted.text)
            continue
        found = find(wanted, candidates)
        if not found:
            absent.append(wanted.text)
        elif not any(one.line(wanted.method) in exercised for one in found):
            idle.append(wanted.text)
        else:
            good += 1
    put_off = sum(map(len, aside.values()))
    total = good + len(idle) + len(absent)
    row = f"| {name} | {total + put_off} | {put_off} | {good + len(idle)} | {good} | {100 * good / total:.1f} % |"
    below = [f"## {name.capitalize()}", ""]
    for title, items in ((f"Set aside, {reason}", items) for reason, items in aside.items()):
        below += [f"{title}:", "", *(f"- `{item}`" for item in items), ""]
    for title, items in (("Absent", absent), ("There, but no test exercises it", idle)):
        if items:
            below += [f"{title}:", "", *(f"- `{item}`" for item in items), ""]
    return row, below if len(below) > 2 else []


def page(exercised: set[str]) -> str:
    """The whole page, in Markdown."""
    services = {service.type: service for service in public_services()}
    rows, texts = [], []
    for name, kind in TYPES.items():
        row, below = section(name, services[kind], exercised)
        rows.append(row)
        texts += below
    stems = sorted(path.stem for path in LISTS.glob("*.txt") if not path.stem.endswith("-actions"))
    others = [stem for stem in stems if stem not in TYPES]
    rows += [f"| {stem} | {len(documented(stem))} | 0 | 0 | 0 | no such service yet |" for stem in others]
    return HEAD + "\n".join([*rows, "", *texts]).rstrip("\n") + "\n"


if __name__ == "__main__":
    print(page(set(Path(sys.argv[1]).read_text(encoding="utf-8").split("\n"))), end="")
