"""Passing on the passwords that guests tell their metadata service."""

from __future__ import annotations

import asyncio
import logging

from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.agent.metadata import Tell
from pileus.contracts.link import GuestPassword

log = logging.getLogger(__name__)

PATIENCE = 8.0
"""Seconds that the control plane has; a guest is told to come again when it takes longer."""


def teller(link: Link, loop: asyncio.AbstractEventLoop) -> Tell:
    """A function for other threads that passes a password on over a link of this event loop."""

    def tell(guest_id: str, password: str) -> int:
        sent = link.send(f"/guests/{guest_id}/password", GuestPassword(password=password))
        future = asyncio.run_coroutine_threadsafe(sent, loop)
        try:
            future.result(PATIENCE)
        except LinkRefused as refusal:
            return refusal.status
        except (LinkDown, TimeoutError):
            future.cancel()
            log.info("the guest %s told a password, and the control plane is away", guest_id)
            return 503
        return 200

    return tell
