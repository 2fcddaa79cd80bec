"""How a guest's processors are spread over sockets, cores and threads.

Source: Compute administrator guide, "CPU topologies": limits and preferences of flavor and image.
"""

from __future__ import annotations

from typing import NamedTuple

_MANY = 65536


class Topology(NamedTuple):
    """Sockets, cores of each, threads of each core; as a wish, 0 for what nothing was said of."""

    sockets: int
    cores: int
    threads: int

    def within(self, most: Topology) -> bool:
        """Whether no part is more than another's; 0 stands for no limit."""
        return all(not limit or one <= limit for one, limit in zip(self, most, strict=True))

    def __str__(self) -> str:
        return f"sockets={self.sockets}, cores={self.cores}, threads={self.threads}"


NOTHING = Topology(0, 0, 0)


def constraints(preferred: tuple[Topology, Topology], most: tuple[Topology, Topology]) -> tuple[Topology, Topology]:
    """What is preferred and the most of each part, from those of (flavor, image).

    An image may lower the flavor's limits.  Raises ValueError where it exceeds them.
    """
    flavor_most, image_most = most
    if not image_most.within(flavor_most):
        raise ValueError(f"Image vCPU topology limits ({image_most}) exceeds the limits of the flavor ({flavor_most})")
    limits = Topology(*(image or flavor for flavor, image in zip(flavor_most, image_most, strict=True)))
    flavor, image = preferred
    if not image.within(limits):
        raise ValueError(f"Image vCPU topology ({image}) exceeds the limits of the flavor or image ({limits})")
    if image != NOTHING:
        return image, limits
    return (flavor if flavor.within(limits) else NOTHING), limits


def best(vcpus: int, preferred: Topology, most: Topology) -> Topology:
    """The topology of so many processors that is nearest to what is preferred; `NOTHING` where nothing was said.

    Of equals the one with the fewest threads, then with the most sockets.  Raises ValueError when none fits.
    """
    if preferred == most == NOTHING:
        return NOTHING
    room = Topology(*(min(vcpus, limit or _MANY) for limit in most))
    possible = [
        Topology(sockets, cores, vcpus // (sockets * cores))
        for sockets in range(1, room.sockets + 1)
        if vcpus % sockets == 0
        for cores in range(1, room.cores + 1)
        if (vcpus // sockets) % cores == 0 and vcpus // (sockets * cores) <= room.threads
    ]
    if not possible:
        raise ValueError(
            f"Requested vCPU limits {room.sockets}:{room.cores}:{room.threads} are impossible to satisfy for vcpus "
            f"count {vcpus}"
        )

    def rank(one: Topology) -> tuple[int, int, int, int]:
        met = sum(want == is_ for want, is_ in zip(preferred, one, strict=True) if want)
        return met, one.sockets * one.cores, one.sockets, one.threads

    return max(possible, key=rank)
