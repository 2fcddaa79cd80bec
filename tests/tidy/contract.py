"""Import contracts that import-linter has no type for; `pyproject.toml` registers them.

Each judges whatever packages exist at the moment, so that a new service or driver is held to the rule from its first
commit.  All look at direct imports, which is enough: a forbidden chain begins with a forbidden link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def within(module: str, package: str) -> bool:
    """Whether `module` is `package` or lies below it."""
    return module == package or module.startswith(f"{package}.")


def room(module: str, root: str, depth: int) -> str | None:
    """The ancestor of `module` that lies `depth` names below `root`; None when there is none."""
    if not within(module, root):
        return None
    names = module[len(root) + 1 :].split(".")
    return ".".join([root, *names[:depth]]) if len(names) >= depth and names[0] else None


class DirectContract(Contract):
    """A contract that is broken by single imports; heirs say which."""

    def broken(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        """Importer and imported module of each import that breaks the contract."""
        raise NotImplementedError

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        links = sorted(set(self.broken(graph)))
        lines = [
            f"{importer} -> {imported} (line {detail['line_number']})"
            for importer, imported in links
            for detail in graph.get_import_details(importer=importer, imported=imported)
        ]
        return ContractCheck(kept=not links, metadata={"lines": lines})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["lines"]:
            output.print_error(f"- {line}")


def imports(graph: ImportGraph, sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    """All imports, direct ones, that the given modules make."""
    for importer in sources:
        for imported in graph.find_modules_directly_imported_by(importer):
            yield importer, imported


class DoorContract(DirectContract):
    """Each package below `packages` is entered by its neighbours through its module `door` only."""

    packages = fields.StringField()
    door = fields.StringField()

    def broken(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        root, door = str(self.packages), str(self.door)
        for importer, imported in imports(graph, [name for name in graph.modules if within(name, root)]):
            home, visited = room(importer, root, 1), room(imported, root, 1)
            if visited is not None and home != visited and not within(imported, f"{visited}.{door}"):
                yield importer, imported


class DriversContract(DirectContract):
    """No driver, which is `<drivers>.<kind>.<name>`, imports another; all may import what is in `shared`."""

    drivers = fields.StringField()
    shared = fields.ListField(subfield=fields.StringField())

    def broken(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        root = str(self.drivers)
        shared = [str(name) for name in self.shared]  # type: ignore[attr-defined]  # import-linter's fields are untyped
        for importer, imported in imports(graph, [name for name in graph.modules if within(name, root)]):
            if any(within(imported, name) for name in shared):
                continue
            driver = room(imported, root, 2)
            foreign = driver is not None and driver != room(importer, root, 2)
            if foreign or (within(imported, root) and any(within(importer, name) for name in shared)):
                yield importer, imported


class GuardedContract(DirectContract):
    """The modules `guarded`, ours or others', are imported only from within `allowed`."""

    guarded = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())

    def broken(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        guarded = [str(name) for name in self.guarded]  # type: ignore[attr-defined]  # as above
        allowed = [str(name) for name in self.allowed]  # type: ignore[attr-defined]  # as above
        ours = [name for name in graph.modules if not graph.is_module_squashed(name)]
        for importer, imported in imports(graph, ours):
            if not any(within(imported, name) for name in guarded):
                continue
            if not any(within(importer, name) for name in (*allowed, *guarded)):
                yield importer, imported
