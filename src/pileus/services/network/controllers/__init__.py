"""Network's control loops: they tell hosts what to hold, and fold what hosts say into statuses."""

from __future__ import annotations

from pileus.core.reconcile import Controller
from pileus.services.fleet.interface import Fleet
from pileus.services.network.controllers.group import GroupController, MemberController
from pileus.services.network.controllers.hold import HoldController
from pileus.services.network.controllers.network import NetworkController
from pileus.services.network.controllers.port import PortController
from pileus.services.network.controllers.router import RouterController
from pileus.services.network.controllers.status import DhcpStatus, PortStatus, RouterStatus


def controllers(fleet: Fleet) -> list[Controller]:
    """All loops of the service."""
    return [
        PortController(),
        HoldController(),
        NetworkController(),
        GroupController(),
        MemberController(),
        RouterController(fleet),
        PortStatus(),
        RouterStatus(),
        DhcpStatus(),
    ]
