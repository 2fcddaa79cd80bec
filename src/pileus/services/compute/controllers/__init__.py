"""Compute's control loops: where servers go, what their hosts are told, and what comes back."""

from __future__ import annotations

from pileus.services.compute.controllers.archive import Archive
from pileus.services.compute.controllers.deadline import Deadlines
from pileus.services.compute.controllers.folder import Folder
from pileus.services.compute.controllers.inventory import HostInventory
from pileus.services.compute.controllers.scheduler import Scheduler
from pileus.services.compute.controllers.snapshot import Snapshots
from pileus.services.compute.controllers.writer import GuestWriter

__all__ = ["Archive", "Deadlines", "Folder", "GuestWriter", "HostInventory", "Scheduler", "Snapshots"]
