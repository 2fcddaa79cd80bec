"""Whatever users ask for, and whatever fails or dies at whatever step: the cloud ends as it was promised.

Each run is a function of its seed: some users' requests, among turns of loops and agents in any order, while steps
fail, are repeated and kill their process; then calm.  `PILEUS_SEED=n` plays one seed and says what was asked;
`./pileus test --long` plays more than ten thousand.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.effort import times
from tests.sim import invariant
from tests.sim.cloud import Cloud, make_template
from tests.sim.user import User

RUNS = 10
"""Runs in one test."""

SEEDS = [int(os.environ["PILEUS_SEED"])] if "PILEUS_SEED" in os.environ else list(range(times(12, 1_100)))
"""Seeds of tests; each plays RUNS clouds, unless it is one that was asked for."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cloud") / "template"
    asyncio.run(make_template(directory))
    return directory


async def play(template: Path, directory: Path, seed: int) -> Cloud:
    """One cloud's life."""
    cloud = Cloud(template, directory, seed, hosts=2, shelved_offload_time=0, image_web_store="")
    user = User(cloud)
    try:
        assert await cloud.settle(), "the hosts do not join"
        cloud.chance.storm = True
        for _ in range(cloud.chance.random.randrange(15, 40)):
            await user.act()
            for _ in range(cloud.chance.random.randrange(4)):
                await disturb(cloud)
        settled = await cloud.settle()
        wrong = invariant.broken(cloud) + await invariant.promises(cloud, user)
        assert not wrong, _tell(seed, wrong, user)
        assert settled, _tell(seed, ["it never comes to rest"], user)
        await user.everything_goes()
        wrong = invariant.broken(cloud) + invariant.empty(cloud)
        assert not wrong, _tell(seed, wrong, user)
    finally:
        cloud.close()
    return cloud


async def disturb(cloud: Cloud) -> None:
    """A turn of something, in any order."""
    choice = cloud.chance.random
    if cloud.chance.often(0.02):
        cloud.clock.jump(choice.choice((-1, 1)) * choice.choice((1, 60, 3600, 100_000)))
        cloud.chance.met["the clock jumps"] += 1
    match choice.randrange(6):
        case 0 | 1:
            await cloud.loop(choice.choice(list(cloud.life.controllers)), listing=choice.random() < 0.5)
        case 2:
            await cloud.loops(listing=False)
        case 3 | 4:
            host = choice.choice(cloud.hosts)
            await host.step(choice.choice(("listen", "work", "work", "tell", "beat")))
            cloud.reborn()
        case _:
            await cloud.round()


def _tell(seed: int, wrong: list[str], user: User) -> str:
    lines = [f"PILEUS_SEED={seed}", *wrong[:20], "", "asked:", *user.said[-60:]]
    return "\n".join(lines)


@pytest.mark.parametrize("number", SEEDS)
def test_a_cloud_that_is_disturbed_ends_as_it_was_promised(template: Path, tmp_path: Path, number: int) -> None:
    seeds = [number] if "PILEUS_SEED" in os.environ else range(number * RUNS, (number + 1) * RUNS)
    deaths = troubles = 0
    for seed in seeds:
        cloud = asyncio.run(play(template, tmp_path / str(seed), seed))
        deaths += cloud.deaths + sum(host.deaths for host in cloud.hosts)
        troubles += sum(cloud.chance.met.values())
    assert troubles > 0, "nothing went wrong: this proves nothing"
    print(f"{troubles} troubles, {deaths} deaths")
