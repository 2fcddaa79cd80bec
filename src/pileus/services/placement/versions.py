"""The ledger of Placement's microversions, and what differs by version that a field's window cannot say.

Source: Placement API reference, "REST API Version History".
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pileus.core.versions import Ledger, Version, parse

LEDGER = Ledger(
    "placement",
    {
        "1.0": "providers, inventories, usages, allocations",
        "1.1": "aggregates of a provider",
        "1.2": "custom resource classes",
        "1.3": "providers are filtered by `member_of`",
        "1.4": "providers are filtered by `resources`",
        "1.5": "all inventories of a provider are deleted at once",
        "1.6": "traits",
        "1.7": "PUT of a resource class makes it or finds it",
        "1.8": "an allocation names its project and user",
        "1.9": "usages of a project",
        "1.10": "allocation candidates",
        "1.11": "a provider links to its allocations",
        "1.12": "allocations are an object by provider, both ways",
        "1.13": "allocations of several consumers in one request",
        "1.14": "providers have parents; `in_tree`",
        "1.15": "responses say when they were true, and that they are not to be kept",
        "1.16": "candidates are limited in number",
        "1.17": "candidates are filtered by traits, and show them",
        "1.18": "providers are filtered by traits",
        "1.19": "aggregates come with a generation",
        "1.20": "creating a provider answers with the provider",
        "1.21": "candidates are filtered by `member_of`",
        "1.22": "traits may be forbidden",
        "1.23": "errors have a code",
        "1.24": "`member_of` may be repeated",
        "1.25": "candidates for groups of resources by number",
        "1.26": "all of an inventory may be reserved",
        "1.27": "candidates show all resource classes of a provider",
        "1.28": "consumers have a generation",
        "1.29": "candidates from trees of providers",
        "1.30": "inventories and allocations are moved at once",
        "1.31": "candidates are filtered by `in_tree`",
        "1.32": "aggregates may be forbidden",
        "1.33": "groups of resources by name",
        "1.34": "candidates say which provider serves which group",
        "1.35": "candidates are filtered by traits of a tree's root",
        "1.36": "groups may have to lie in the same subtree",
        "1.37": "a provider may be given another parent",
        "1.38": "consumers have a type",
        "1.39": "one of several traits may be required, and `required` be repeated",
    },
)

_LINKS = {"inventories": "1.0", "usages": "1.0", "aggregates": "1.1", "traits": "1.6", "allocations": "1.11"}


class Grammar(NamedTuple):
    """What the query parameters of a version may say."""

    forbidden_traits: bool
    any_traits: bool
    """One of several traits, and the parameter repeated."""
    repeated_aggregates: bool
    forbidden_aggregates: bool
    numbered_groups: bool
    in_tree: bool
    named_groups: bool
    root_required: bool
    same_subtree: bool
    required: bool
    member_of: bool
    limit: bool


def grammar(version: Version | None) -> Grammar:
    """What the query parameters of a version may say."""
    return Grammar(
        forbidden_traits=_since(version, "1.22"),
        any_traits=_since(version, "1.39"),
        repeated_aggregates=_since(version, "1.24"),
        forbidden_aggregates=_since(version, "1.32"),
        numbered_groups=_since(version, "1.25"),
        in_tree=_since(version, "1.31"),
        named_groups=_since(version, "1.33"),
        root_required=_since(version, "1.35"),
        same_subtree=_since(version, "1.36"),
        required=_since(version, "1.17"),
        member_of=_since(version, "1.21"),
        limit=_since(version, "1.16"),
    )


def _since(version: Version | None, first: str) -> bool:
    return version is None or version >= parse(first)


def links(version: Version | None, path: str) -> list[dict[str, str]]:
    """The links of a provider at a path."""
    known = [name for name, first in _LINKS.items() if _since(version, first)]
    return [{"rel": "self", "href": path}, *({"rel": name, "href": f"{path}/{name}"} for name in known)]


def freshness(version: Version | None, moment: datetime) -> dict[str, str]:
    """The headers that say when a response was true."""
    if not _since(version, "1.15"):
        return {}
    return {"last-modified": f"{moment:%a, %d %b %Y %H:%M:%S GMT}", "cache-control": "no-cache"}


def shows_created(version: Version | None) -> bool:
    """Whether creating a provider answers with the provider."""
    return _since(version, "1.20")


def least_capacity(version: Version | None) -> int:
    """The least capacity that an inventory may have."""
    return 0 if _since(version, "1.26") else 1


def counts_aggregates(version: Version | None) -> bool:
    """Whether a change of aggregates is guarded by the provider's generation and counts in it."""
    return _since(version, "1.19")


def sets_parents(version: Version | None) -> bool:
    """Whether a provider that has a parent may get another, or none."""
    return _since(version, "1.37")


def empties(version: Version | None) -> bool:
    """Whether empty allocations of one consumer mean that it holds nothing any more."""
    return _since(version, "1.28")


def allocations_by_provider(version: Version | None) -> bool:
    """Whether allocations are an object by provider and not a list."""
    return _since(version, "1.12")


def groups_usages(version: Version | None) -> bool:
    """Whether usages are told by type of consumer."""
    return _since(version, "1.38")


def sees_trees(version: Version | None) -> bool:
    """Whether candidates may come from providers that have parents."""
    return _since(version, "1.29")


def shows_all_classes(version: Version | None) -> bool:
    """Whether candidates show the resource classes that nobody asked for."""
    return _since(version, "1.27")


def shows_mappings(version: Version | None) -> bool:
    """Whether candidates say which provider serves which group."""
    return _since(version, "1.34")
