"""What is kept of a ranking comes to what a look at every host comes to."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from pileus.services.compute.rules import placing
from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.placing import Decision, Host, Stock, Wish
from pileus.services.compute.rules.ranking import KINDS, Ranking, Ranks, kind

FLAVORS = ({"VCPU": 1, "MEMORY_MB": 512}, {"VCPU": 4, "MEMORY_MB": 2048}, {"MEMORY_MB": 6000})


def some_host(random: Random, number: int) -> Host:
    """A host in some state."""
    stock = {
        "VCPU": Stock(8, 0, 2.0, random.randrange(17)),
        "MEMORY_MB": Stock(8192, 512, 1.0, 512 * random.randrange(16)),
    }
    return Host(
        id=f"id-{number}",
        name=f"h{number}",
        up=random.random() < 0.9,
        disabled=random.random() < 0.1,
        disabled_reason=None,
        zone=random.choice(("nova", "other")),
        generation=random.randrange(100),
        stock=stock if random.random() < 0.95 else {},
    )


def some_wish(random: Random, number: int) -> Wish:
    """What a server may wish for, by name of a host now and then."""
    return Wish(
        server_id=str(number),
        resources=random.choice(FLAVORS),
        zone=random.choice((None, "nova", "other")),
        host="h3" if random.random() < 0.1 else None,
        forced=False,
        apart=("h1", "h2") if random.random() < 0.1 else (),
    )


def one_by_one(wishes: list[Wish], hosts: dict[str, Host]) -> Iterator[Decision]:
    """What was to be decided, by a look at all hosts for each."""
    known = dict(hosts)
    for wish in wishes:
        decision = placing.decide(wish, known.values())
        if decision.host is not None:
            known[decision.host.id] = placing.take(known[decision.host.id], wish.resources)
        yield decision


@pytest.mark.parametrize("seed", range(20))
def test_a_ranking_that_is_kept_decides_as_a_look_at_all_hosts(seed: int) -> None:
    random = Random(seed)
    hosts = {one.id: one for one in (some_host(random, number) for number in range(12))}
    ranks = Ranks(hosts.values())
    for _ in range(30):
        for number in random.sample(range(16), random.randrange(4)):
            key = f"id-{number}"
            if key in hosts and random.random() < 0.3:
                del hosts[key]
                ranks.drop(key)
            else:
                hosts[key] = some_host(random, number)
                ranks.put(hosts[key])
        wishes = [some_wish(random, number) for number in range(random.randrange(6))]
        expected = list(one_by_one(wishes, hosts))
        for wish, found, wanted in zip(wishes, ranks.decide_all(wishes), expected, strict=True):
            assert (found.host, found.counts, found.best) == (wanted.host, wanted.counts, wanted.best)
            if wanted.host is None or kind(wish) is None:
                assert found.refused == wanted.refused
        for key in ranks.promised:  # nothing of it came about
            ranks.put(hosts[key])
        ranks.promised.clear()


def test_who_looks_at_hosts_by_name_is_of_no_kind() -> None:
    plain = Wish("1", {"VCPU": 1}, None, None, False)
    group = Group("g", "affinity", 1, {})
    assert kind(plain) == kind(plain._replace(server_id="2", resources={"VCPU": 1})) is not None
    assert kind(plain) != kind(plain._replace(resources={"VCPU": 2}))
    named = ({"group": group}, {"host": "h1"}, {"beside": ("h1",)}, {"apart": ("h1",)})
    assert [kind(plain._replace(**one)) for one in named] == [None] * 4


def test_a_further_server_looks_at_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(1)
    ranks = Ranks(some_host(random, number) for number in range(500))
    wish = Wish("1", FLAVORS[0], None, None, False)
    ranks.decide_all([wish])
    judged: list[str] = []

    def judge(wish: Wish, host: Host) -> tuple[str, str] | None:
        judged.append(host.id)
        return placing.judge(wish, host)

    monkeypatch.setattr("pileus.services.compute.rules.ranking.judge", judge)
    ranks.decide_all([wish] * 40)
    assert len(judged) == 40


def test_only_so_many_kinds_are_remembered_and_a_heap_does_not_grow() -> None:
    random = Random(1)
    ranks = Ranks(some_host(random, number) for number in range(10))
    for number in range(2 * KINDS):
        ranks.decide_all([Wish("1", {"VCPU": number}, None, None, False)])
    assert len(ranks._rankings) == KINDS
    ranking = Ranking(Wish("1", {}, None, None, False), ranks.hosts)
    for _ in range(2000):
        ranking.change("id-0")
        ranking.decide(Wish("1", {}, None, None, False))
    assert len(ranking._heap) <= 2 * len(ranks.hosts) + 65
