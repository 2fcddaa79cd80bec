"""Images that a host fetches ahead, because the control plane asks it to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pileus.agent.image_cache import NoImages
from pileus.agent.link import Link
from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from tests.agent.control import Control, Machine, play, until
from tests.agent.spec import guest


class Asked(NoImages):
    """Notes what is fetched; `broken` cannot be."""

    def __init__(self) -> None:
        self.images: list[tuple[str | None, str, str | None]] = []
        self.wanted: set[str | None] | None = None

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        self.images.append((disk.image_id, disk.image_format, disk.image_sha512))
        if disk.image_id == "broken":
            raise StorageFailure("it does not hash to what it should")

    async def make_room(self, wanted: Callable[[], Iterable[DiskSpec]]) -> None:
        self.wanted = {disk.image_id for disk in wanted()}


def test_room_is_made_when_the_agent_has_heard_what_is_wanted(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        disk = DiskSpec(id="root", image_id="tiny", size_gib=1, boot_index=0)
        control.assign(guest("g", disks=(disk,)), guest("h", disks=(disk,)))
        await control.settles()
        await machine.kill()
        asked = machine.images = Asked()
        machine.boot(lost=lambda path: path.startswith("/watch"))
        await until(lambda: machine.link.host_id != "")
        assert asked.wanted is None
        machine.link.lost = lambda path: False
        await until(lambda: asked.wanted == {"tiny"}, lambda: asked.wanted)

    play(scenario, database_url, tmp_path)


def test_an_image_is_fetched_ahead_and_a_broken_one_ends_nothing(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        asked = Asked()
        machine.images = asked
        await machine.kill()
        await machine.join()
        control.assign(guest("g"))
        await control.settles()
        host_id = control.host_id()
        asked.images.clear()

        def ask(tx: Tx) -> None:
            for image_id in ("broken", "tiny"):
                fleet.fetch_image(tx, host_id, image_id, form="raw", sha512="0" * 128)

        control.store.write_here(ask)
        await until(lambda: len(asked.images) == 2, "both are fetched")
        assert sorted(asked.images, key=str) == [("broken", "raw", "0" * 128), ("tiny", "raw", "0" * 128)]
        control.assign(guest("h"))
        await control.settles()

    play(scenario, database_url, tmp_path)
