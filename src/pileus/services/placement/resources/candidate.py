"""Allocation candidates: which providers could together serve a request.

Source: https://docs.openstack.org/api-ref/placement/#allocation-candidates
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.config import Config
from pileus.core.context import Context
from pileus.core.errors import BadQuery, BadRequest
from pileus.core.versions import Version
from pileus.services.placement import versions
from pileus.services.placement.resources import resource_class, trait
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.snapshot import Snapshot, snapshot_of
from pileus.services.placement.rules import query
from pileus.services.placement.rules.candidate.ask import Ask, Candidate, Group
from pileus.services.placement.rules.candidate.land import Land
from pileus.services.placement.rules.candidate.search import search
from pileus.services.placement.versions import Grammar

resource = Resource(
    "allocation_candidate", "allocation_candidates", rules=rules(allocation_candidates__list="List candidates")
)


_OPEN = Parameters(closed=str(Version(9, 99)))
"""The names of parameters hold suffixes: they are checked here."""

_KINDS = ("resources", "required", "member_of", "in_tree")
_NUMBER, _NAME = "([1-9][0-9]*)?", "([a-zA-Z0-9_-]{1,64})?"
_NUMBERED, _NAMED, _BARE = (re.compile(f"({'|'.join(_KINDS)}){suffix}") for suffix in (_NUMBER, _NAME, "()"))
_LIMIT = "^[1-9][0-9]*$"


@resource.get("/allocation_candidates", policy="placement:allocation_candidates:list", since="1.10", query=_OPEN)
def index(ctx: Context) -> Reply:
    """The ways to serve a request, at most `limit`. Raises BadRequest."""
    grammar = versions.grammar(ctx.version)
    _check_names(ctx, grammar)
    limit = _limit(ctx)
    ask = _ask(ctx, grammar)
    snapshot = snapshot_of(ctx.store)
    with snapshot.fresh(ctx.tx):
        found: Iterable[Candidate] = search(snapshot.land, _in_trees(ask, snapshot.land))
        if not versions.sees_trees(ctx.version):
            found = (one for one in found if _flat(snapshot.land, one))
        chosen = _chosen(ctx, found, limit)
        body = {
            "allocation_requests": _requests(ctx, chosen),
            "provider_summaries": _summaries(ctx, snapshot, chosen, ask),
        }
    return Reply(body, versions.freshness(ctx.version, ctx.now))


def _check_names(ctx: Context, grammar: Grammar) -> None:
    """Raise BadQuery for parameters that the version does not know."""
    pattern = _NAMED if grammar.named_groups else _NUMBERED if grammar.numbered_groups else _BARE
    single = {"limit": grammar.limit, "group_policy": grammar.numbered_groups}
    single |= {"root_required": grammar.root_required, "same_subtree": grammar.same_subtree}
    grouped = {"required": grammar.required, "member_of": grammar.member_of, "in_tree": grammar.in_tree}
    for name in sorted(ctx.query.names()):
        match = None if name in single else pattern.fullmatch(name)
        if single.get(name, match is not None and grouped.get(match[1], True)):
            continue
        if grammar.numbered_groups:
            suffix = _NAME if grammar.named_groups else _NUMBER
            regexes = ", ".join(f"'^{kind}{suffix}$'" for kind in _KINDS if grouped.get(kind, True))
            raise BadQuery(f"{name!r} does not match any of the regexes: {regexes}")
        raise BadQuery(f"Additional properties are not allowed ({name!r} was unexpected)")
    if not grammar.numbered_groups and "resources" not in ctx.query.names():
        raise BadQuery("'resources' is a required property")


def _limit(ctx: Context) -> int | None:
    texts = ctx.query.all("limit")
    for text in texts:
        if not re.fullmatch(r"[1-9][0-9]*", text):
            raise BadQuery(f"{text!r} does not match {_LIMIT!r}\n\nFailed validating 'pattern' in schema")
    # More than fit into a machine's word are all there are.
    return int(texts[0]) if texts and len(texts[0]) < 19 else None


def _ask(ctx: Context, grammar: Grammar) -> Ask:
    groups = _groups(ctx, grammar)
    same_subtree = [_suffixes(text) for text in ctx.query.all("same_subtree")]
    policies = ctx.query.all("group_policy")
    for policy in policies:
        if policy not in ("none", "isolate"):
            raise BadQuery(f"{policy!r} is not one of ['none', 'isolate']")
    if grammar.same_subtree:
        _check_groups(groups, same_subtree)
    else:
        _check_orphans(groups)
    if not policies and sum(1 for group in groups if group.suffix) > 1:
        raise BadRequest(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    clashes = [
        f"required{group.suffix}: ({', '.join(sorted(one))})" for group in groups for one in group.traits.clashes
    ]
    if clashes:
        words = "Conflicting required and forbidden traits found in the following traits keys"
        raise BadRequest(f"{words}: {', '.join(sorted(clashes))}")
    root_traits = _root_traits(ctx)
    if missing := trait.unknown(ctx.tx, root_traits.names.union(*(group.traits.names for group in groups))):
        raise BadRequest(f"No such trait(s): {', '.join(sorted(missing))}.")
    if missing := resource_class.unknown(ctx.tx, {name for group in groups for name in group.resources}):
        names = ", ".join(sorted(missing))
        raise BadRequest(f"Invalid resource class in resources parameter: No such resource class {names}.")
    return Ask(groups=groups, isolate=policies[:1] == ["isolate"], root_traits=root_traits, same_subtree=same_subtree)


def _suffixes(text: str) -> set[str]:
    found = {part.strip() for part in text.split(",")}
    if "" in found:
        raise BadRequest(
            "Empty string (unsuffixed group) can not be specified in `same_subtree`", code="pileus.query.bad_value"
        )
    return found


def _root_traits(ctx: Context) -> query.Traits:
    texts = ctx.query.all("root_required")
    if len(texts) > 1:
        raise BadRequest(
            "Query parameter 'root_required' may be specified only once.", code="pileus.query.duplicate_key"
        )
    found = query.traits(texts, versions.grammar(ctx.version)._replace(any_traits=False, forbidden_traits=True))
    if found.clashes:
        names = ", ".join(sorted(set().union(*found.clashes)))
        raise BadRequest(
            f"Conflicting required and forbidden traits found in root_required: {names}", code="pileus.query.bad_value"
        )
    return found


def _groups(ctx: Context, grammar: Grammar) -> list[Group]:
    """The groups, the one without suffix first. Raises BadRequest."""
    found: dict[str, Group] = {}
    for name in sorted(ctx.query.names()):
        match = _NAMED.fullmatch(name)
        if match is None or name in ("limit", "group_policy", "root_required", "same_subtree"):
            continue
        group = found.setdefault(match[2] or "", Group(suffix=match[2] or ""))
        values = ctx.query.all(name)
        if match[1] == "resources":
            group.resources = query.resources(values[-1])
        elif match[1] == "required":
            group.traits = query.traits(values, grammar)
        elif match[1] == "member_of":
            group.aggregates = query.aggregates(values, grammar, name)
        else:
            group.in_tree = query.tree(values[-1])
    return sorted(found.values(), key=lambda group: group.suffix)


def _check_orphans(groups: Sequence[Group]) -> None:
    """Before 1.36: each group has resources. Raises BadRequest."""
    bare = [group for group in groups if not group.resources]
    for parameter, kind, orphans in (
        ("traits", "required", [group.suffix for group in bare if group.traits.required]),
        ("member_of", "member_of", [group.suffix for group in bare if group.aggregates != query.Aggregates()]),
    ):
        if orphans:
            keys = ", ".join(kind + suffix for suffix in orphans)
            raise BadRequest(
                f"All {parameter} parameters must be associated with resources. "
                f"Found the following orphaned {parameter} keys: {keys}"
            )
    if bare:
        raise BadRequest("All request groups must specify resources.")
    if not groups:
        raise BadRequest("At least one request group (`resources` or `resources{$S}`) is required.")


def _check_groups(groups: Sequence[Group], same_subtree: Sequence[set[str]]) -> None:
    """From 1.36 on: a group without resources is one of a subtree. Raises BadRequest."""
    named = set().union(*same_subtree)
    if not any(group.resources for group in groups):
        raise BadRequest(
            "There must be at least one resources or resources[$S] parameter.", code="pileus.query.missing_value"
        )
    bare = sorted(group.suffix for group in groups if not group.resources and group.suffix not in named)
    if bare:
        raise BadRequest(
            "Resourceless suffixed group request should be specified in `same_subtree` query param: "
            f"bad group(s) - {', '.join(map(repr, bare))}.",
            code="pileus.query.bad_value",
        )
    unknown = sorted(named - {group.suffix for group in groups if group.suffix})
    if unknown:
        raise BadRequest(
            f"Real suffixes should be specified in `same_subtree`: {', '.join(map(repr, unknown))} not found.",
            code="pileus.query.bad_value",
        )


def _in_trees(ask: Ask, land: Land) -> Ask:
    """The request with the roots of the trees that it names by any of their providers."""
    for group in ask.groups:
        if group.in_tree is not None:
            group.in_tree = land.root_of(group.in_tree) or group.in_tree
    return ask


def _flat(land: Land, one: Candidate) -> bool:
    """Whether no two of the providers are of one tree: before 1.29 clients knew no trees."""
    roots = {land.places[uuid].root for uuid in one.allocations}
    return len(roots) == len(one.allocations)


def _chosen(ctx: Context, found: Iterable[Candidate], limit: int | None) -> list[Candidate]:
    config = ctx.provided.get(Config)
    if config is None or not config.randomize_allocation_candidates:
        return list(itertools.islice(found, limit))
    everything = list(found)
    ctx.seams.random.shuffle(everything)
    return everything[:limit]


def _requests(ctx: Context, chosen: Sequence[Candidate]) -> list[dict[str, Any]]:
    if not versions.allocations_by_provider(ctx.version):
        return [
            {
                "allocations": [
                    {"resource_provider": {"uuid": uuid}, "resources": amounts}
                    for uuid, amounts in one.allocations.items()
                ]
            }
            for one in chosen
        ]
    found: list[dict[str, Any]] = [
        {"allocations": {uuid: {"resources": amounts} for uuid, amounts in one.allocations.items()}} for one in chosen
    ]
    if versions.shows_mappings(ctx.version):
        for entry, one in zip(found, chosen, strict=True):
            entry["mappings"] = one.mappings
    return found


def _summaries(ctx: Context, snapshot: Snapshot, chosen: Sequence[Candidate], ask: Ask) -> dict[str, Any]:
    """What the candidates' providers have; with trees, all providers of theirs."""
    land = snapshot.land
    named = {uuid: None for one in chosen for uuid in one.allocations}
    if versions.sees_trees(ctx.version):
        roots = {land.places[uuid].root: None for uuid in named}
        return {uuid: snapshot.summary(uuid) for root in roots for uuid in land.trees[root]}
    wanted = {name for group in ask.groups for name in group.resources}
    everything, traits = versions.shows_all_classes(ctx.version), versions.grammar(ctx.version).required
    found = {}
    for uuid in named:
        one = snapshot.providers[uuid]
        entry: dict[str, Any] = {
            "resources": {
                name: {"capacity": room.capacity, "used": room.used}
                for name, room in one.rooms.items()
                if everything or name in wanted
            }
        }
        found[uuid] = entry | ({"traits": sorted(one.traits)} if traits else {})
    return found
