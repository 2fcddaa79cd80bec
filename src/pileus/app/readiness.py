"""What a process of the cloud tells the service manager while it serves."""

from __future__ import annotations

import asyncio

from pileus.core.notify import notify, watchdog_seconds


async def tell(status: str) -> None:
    """Say that this process serves, then again and again that its event loop goes on; when cancelled, that it ends."""
    notify("READY=1", f"STATUS={status}")
    pause = watchdog_seconds()
    try:
        while True:
            await asyncio.sleep(pause or 3600)
            if pause:
                notify("WATCHDOG=1")
    finally:
        notify("STOPPING=1", "STATUS=ending")
