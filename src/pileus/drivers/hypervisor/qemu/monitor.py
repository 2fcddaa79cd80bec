"""QMP (docs/interop/qmp-spec of QEMU) for synchronous callers: one event loop, in its own thread, for all guests."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError, Runstate

# Whatever the library logs it raises too, and the end of a guest is no error.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

T = TypeVar("T")
log = logging.getLogger(__name__)


class MonitorFailure(Exception):
    """QEMU did not answer, or refused a command."""


class Loop:
    """The private event loop of a driver, and what it does again and again."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._closed = threading.Event()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine there and wait for it; raises MonitorFailure after `timeout` seconds."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop)
        try:
            return future.result(timeout + 1)
        except (TimeoutError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            raise MonitorFailure(f"no answer on QMP within {timeout:g} s") from None

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` in the loop's thread once, when the descriptor becomes readable."""

        def once() -> None:
            self._loop.remove_reader(fd)
            ready()

        self._do(lambda: self._loop.add_reader(fd, once))

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._do(lambda: self._loop.remove_reader(fd))

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` again and again, in a thread of its own: what waits for a disk must not keep QMP waiting."""

        def again() -> None:
            while not self._closed.wait(seconds):
                try:
                    act()
                except Exception:
                    log.exception("what is done every %g s has failed", seconds)

        threading.Thread(target=again, name="qemu-every", daemon=True).start()

    def close(self) -> None:
        """Stop the threads; one that waits for a disk ends when it has been answered."""
        self._closed.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, act: Callable[[], object]) -> None:
        """Run something small in the loop's thread and wait until it is done."""

        async def work() -> None:
            act()

        if threading.current_thread() is self._thread:
            act()
        else:
            asyncio.run_coroutine_threadsafe(work(), self._loop).result()


class Monitor:
    """One QMP connection. `heard` is called in the loop's thread with each event's name, and with `EOF` at the end."""

    def __init__(self, loop: Loop, heard: Callable[[str], None]) -> None:
        self._loop = loop
        self._heard = heard
        self._client: QMPClient | None = None
        self._follower: asyncio.Task[None] | None = None
        self._handing = threading.Lock()
        """A descriptor and the command that names it travel apart, so one pair at a time does."""

    @property
    def connected(self) -> bool:
        """Whether QEMU may be asked."""
        return self._client is not None and self._client.runstate is Runstate.RUNNING

    @property
    def lost(self) -> bool:
        """Whether there was a connection that QEMU ended."""
        return self._client is not None and not self.connected

    def connect(self, sock: socket.socket, timeout: float) -> None:
        """Take over a connected socket and wait for QEMU's greeting, at most `timeout` seconds.

        Raises MonitorFailure when no greeting comes: QEMU ended, or another client has it.
        """
        self.close()
        try:
            self._loop.run(self._connect(sock), timeout)
        except (QMPError, OSError, EOFError) as error:
            raise MonitorFailure(f"QMP: {error}") from error
        finally:
            if not self.connected:
                sock.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = 5.0) -> Any:
        """Run a command, give what it returns. Raises MonitorFailure when it fails or is not answered in time."""
        client = self._client
        if client is None:
            raise MonitorFailure("QMP is not connected")
        try:
            return self._loop.run(client.execute(command, arguments), timeout)
        except (QMPError, OSError, EOFError) as error:
            raise MonitorFailure(f"{command}: {error}") from error

    def hand(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a descriptor under a name, which the next command that names it uses up.

        Raises MonitorFailure.
        """

        async def work(client: QMPClient) -> None:
            client.send_fd_scm(fd)
            await client.execute("getfd", {"fdname": name})

        client = self._client
        if client is None:
            raise MonitorFailure("QMP is not connected")
        try:
            with self._handing:
                self._loop.run(work(client), 5)
        except (QMPError, OSError, EOFError) as error:
            raise MonitorFailure(f"getfd: {error}") from error

    def hand_set(self, fd: int) -> int:
        """Give QEMU a copy of a descriptor as the file /dev/fdset/N, and say N. Raises MonitorFailure."""

        async def work(client: QMPClient) -> int:
            client.send_fd_scm(fd)
            found: Any = await client.execute("add-fd")
            return int(found["fdset-id"])

        client = self._client
        if client is None:
            raise MonitorFailure("QMP is not connected")
        try:
            with self._handing:
                return self._loop.run(work(client), 5)
        except (QMPError, OSError, EOFError) as error:
            raise MonitorFailure(f"add-fd: {error}") from error

    def close(self) -> None:
        """Hang up; QEMU goes on."""
        if self._client is not None:
            with contextlib.suppress(MonitorFailure):
                self._loop.run(self._close(), 2)
            self._client = None

    async def _connect(self, sock: socket.socket) -> None:
        client = QMPClient("guest")

        def event(message: Mapping[str, Any]) -> bool:
            self._heard(str(message["event"]))
            # The library keeps each event that it lets through, for ever; so none is.
            return False

        client.events.event_filter = event
        await client.connect(sock)
        self._client = client
        self._follower = asyncio.create_task(self._follow(client))

    async def _follow(self, client: QMPClient) -> None:
        while client.runstate is Runstate.RUNNING:
            await client.runstate_changed()
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()
        self._heard("EOF")

    async def _close(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        if self._client is not None:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await self._client.disconnect()
