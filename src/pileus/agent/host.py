"""What an agent is the agent of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pileus.agent.image_cache import ImageCache
from pileus.agent.metadata import Metadata
from pileus.contracts.hypervisor import Hypervisor
from pileus.contracts.network import Network
from pileus.contracts.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Host:
    """The drivers and places of one host."""

    name: str
    state: Path | None
    """Where the agent keeps its identity; None for a simulated host."""
    hypervisor: Hypervisor
    network: Network
    storage: Storage
    images: ImageCache
    metadata: Metadata | None
    """None where nobody asks for metadata."""
    simulated: bool = False
    """Whether it is one of many on a machine that plays them, whose disk is not kept busy on behalf of each."""
