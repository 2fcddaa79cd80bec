"""An answer that is read while it is sent: no longer than somebody is there to take it.

Sources: ASGI 2.3, "HTTP & WebSocket ASGI Message Format" (`http.disconnect`, and `send` after it).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pileus.core.http import Receive, Send


async def pour(chunks: AsyncIterator[bytes], send: Send, receive: Receive | None) -> None:
    """Send the chunks of an answer, as long as the client is there.

    Only `receive` tells that it hung up: `send` does nothing from then on, and all would be read for nobody. It is None
    for an operation that has what is received for itself, and notices by that.
    """
    watch = None if receive is None else asyncio.create_task(_gone(receive))
    try:
        async for chunk in chunks:
            if watch is not None and watch.done():
                break
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        if watch is not None:
            watch.cancel()
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _gone(receive: Receive) -> None:
    """Wait until the client hangs up; what it sends until then is of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass
