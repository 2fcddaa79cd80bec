"""Where many servers go, one after the other, on a snapshot of hosts that is kept.

Servers that are made of the same flavor and image wish for the same.  So the hosts are judged and weighed once for each
kind of wish, and again only where a host changed: a further server costs the same however many hosts there are.  What
it comes to is what `placing.decide` comes to, which looks at all of them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping

from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.placing import BEST, Decision, Host, Wish, decide, judge, take, weight

KINDS = 16
"""How many kinds of wishes are remembered."""


def kind(wish: Wish) -> Hashable | None:
    """What wishes of a kind have in common; None for one that looks at hosts by name."""
    if wish.group is not None or wish.host is not None or wish.beside is not None or wish.apart:
        return None
    amounts, demands = frozenset(wish.resources.items()), frozenset(wish.capabilities.items())
    return amounts, wish.zone, wish.forced, wish.machine, demands


class Ranking:
    """The hosts as one kind of wish ranks them. `hosts` are those of its owner, who says what changed."""

    def __init__(self, wish: Wish, hosts: Mapping[str, Host]) -> None:
        self._wish = wish
        self._hosts = hosts
        self._changed = set(hosts)
        self._verdicts: dict[str, str | float] = {}
        """By host: the filter that refuses it, or its weight."""
        self._counts: dict[str, int] = {}
        self._heap: list[tuple[float, str, str]] = []
        """The heaviest first: negative weight, name and id. What is not a host's verdict any more is passed over."""
        self._refused: Mapping[str, str] | None = None

    def change(self, host_id: str) -> None:
        """Note that a host is not what it was."""
        self._changed.add(host_id)

    def decide(self, wish: Wish) -> Decision:
        """Choose a host for a wish of this kind."""
        if self._changed:
            self._look()
        best = self._best()
        counts = {name: count for name, count in self._counts.items() if count}
        kept = [{"host": host.name, "weight": round(heavy, 6), "generation": host.generation} for heavy, host in best]
        if best:
            # Reasons are for who has no host; to tell them takes a look at every host.
            return Decision(wish.server_id, best[0][1], counts, kept, {})
        if self._refused is None:
            self._refused = decide(wish, self._hosts.values()).refused
        return Decision(wish.server_id, None, counts, kept, self._refused)

    def _look(self) -> None:
        """Judge the hosts that changed."""
        self._refused = None
        for host_id in self._changed:
            before = self._verdicts.pop(host_id, None)
            if isinstance(before, str):
                self._counts[before] -= 1
            host = self._hosts.get(host_id)
            if host is None:
                continue
            refusal = judge(self._wish, host)
            if refusal is not None:
                self._verdicts[host_id] = refusal[0]
                self._counts[refusal[0]] = self._counts.get(refusal[0], 0) + 1
            else:
                heavy = self._verdicts[host_id] = weight(host)
                heapq.heappush(self._heap, (-heavy, host.name, host_id))
        self._changed.clear()
        if len(self._heap) > 2 * len(self._hosts) + 64:
            self._heap = [
                (-verdict, self._hosts[host_id].name, host_id)
                for host_id, verdict in self._verdicts.items()
                if isinstance(verdict, float)
            ]
            heapq.heapify(self._heap)

    def _best(self) -> list[tuple[float, Host]]:
        """The best few."""
        found: dict[str, tuple[float, str, str]] = {}
        while self._heap and len(found) < BEST:
            entry = heapq.heappop(self._heap)
            light, name, host_id = entry
            host = self._hosts.get(host_id)
            if host is not None and host.name == name and self._verdicts.get(host_id) == -light:
                found[host_id] = entry
        for entry in found.values():
            heapq.heappush(self._heap, entry)
        return [(-light, self._hosts[host_id]) for light, _, host_id in found.values()]


class Ranks:
    """Hosts, and how kinds of wishes rank them."""

    def __init__(self, hosts: Iterable[Host] = ()) -> None:
        self.hosts: dict[str, Host] = {host.id: host for host in hosts}
        self.promised: set[str] = set()
        """Hosts that count here what was decided, and may not have come about."""
        self._rankings: OrderedDict[Hashable, Ranking] = OrderedDict()

    def put(self, host: Host) -> None:
        """A host is new, or not what it was."""
        self.hosts[host.id] = host
        for ranking in self._rankings.values():
            ranking.change(host.id)

    def drop(self, host_id: str) -> None:
        """A host is gone."""
        del self.hosts[host_id]
        for ranking in self._rankings.values():
            ranking.change(host_id)

    def decide_all(self, wishes: Iterable[Wish]) -> list[Decision]:
        """Choose hosts for several servers, each knowing what those before it took."""
        groups: dict[str, Group] = {}
        decisions = []
        for wish in wishes:
            together = wish.group and groups.get(wish.group.id, wish.group)
            decision = self._decide(wish._replace(group=together))
            if decision.host is not None:
                self.promised.add(decision.host.id)
                self.put(take(self.hosts[decision.host.id], wish.resources))
                if together is not None:
                    groups[together.id] = together.joined(decision.host.name)
            decisions.append(decision)
        return decisions

    def _decide(self, wish: Wish) -> Decision:
        which = kind(wish)
        if which is None:
            return decide(wish, self.hosts.values())
        ranking = self._rankings.get(which)
        if ranking is None:
            ranking = self._rankings[which] = Ranking(wish, self.hosts)
            if len(self._rankings) > KINDS:
                self._rankings.popitem(last=False)
        self._rankings.move_to_end(which)
        return ranking.decide(wish)
