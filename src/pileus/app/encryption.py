"""TLS of the public API: its certificate is made, published, read, and kept fresh while the API is served."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pileus.cli.main import CommandFailure
from pileus.core.config import Config

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

LOOK = 60.0
"""Seconds between two looks at the certificate."""

SOON = timedelta(days=14)
"""How long before its end a certificate of the operator's own is spoken of."""


def certify(config: Config) -> None:
    """Make the cloud's own authority and certificate, and publish the first, before privilege is dropped.

    What the unprivileged user owns is written by a child that is that user.  Raises CommandFailure.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from pileus.core import privilege

    if not config.tls:
        return
    if not privilege.apart(functools.partial(_certify, config)):
        raise CommandFailure("the API's certificate cannot be made: see the log above")
    source, target = config.tls_directory / "ca.pem", config.state / "ca.pem"
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        published = x509.load_pem_x509_certificate(stream.read()).public_bytes(Encoding.PEM)
    if not target.exists() or target.read_bytes() != published:
        partial = target.with_suffix(".new")
        partial.write_bytes(published)
        partial.chmod(0o644)
        partial.replace(target)


def _certify(config: Config) -> None:
    from pileus.core import privilege, tls

    names = tls.names(config)
    privilege.drop(config.unprivileged_uid)
    tls.prepare(config.tls_directory, names)


def open_context(config: Config) -> ssl.SSLContext | None:
    """What the API speaks TLS with, as the user who serves it; None for plain HTTP. Raises CommandFailure."""
    from pileus.core import tls

    if config.scheme == "http":
        return None
    try:
        return tls.context(*tls.files(config))
    except tls.TlsFailure as failure:
        raise CommandFailure(str(failure)) from None


class Freshness:
    """Keeps the certificate of a server that runs from getting old."""

    def __init__(self, config: Config, context: ssl.SSLContext) -> None:
        from pileus.core import tls

        self._config = config
        self._context = context
        self._files = tls.files(config)
        self._seen = self._stamp()
        self._warned = datetime.min.replace(tzinfo=UTC)

    async def run(self, now: asyncio.Event) -> None:
        """Look at once when the event is set, and once in a while; until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    await now.wait()
            except TimeoutError:
                pass
            asked = now.is_set()
            now.clear()
            try:
                await asyncio.to_thread(self.look, asked=asked)
            except Exception:
                logger.exception("the certificate of the API cannot be looked after")

    def look(self, *, asked: bool = False) -> None:
        """Renew the certificate when it is due, and read the files again when they are not what they were."""
        from pileus.core import tls

        if self._config.tls and tls.prepare(self._config.tls_directory, tls.names(self._config)):
            logger.info("a new certificate of the API was made")
        stamp = self._stamp()
        if stamp == self._seen and not asked:
            self._warn()
            return
        try:
            tls.load(self._context, *self._files)
        except tls.TlsFailure as failure:
            logger.error("the certificate of the API stays as it is: %s", failure)
        else:
            logger.info("the certificate of the API was read, it is good until %s", tls.ends(self._files[0]))
        self._seen = stamp

    def _stamp(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                stat = file.stat()
                found.append((stat.st_mtime_ns, stat.st_ino))
            except OSError:
                found.append(None)
        return found

    def _warn(self) -> None:
        """Once a day, when the certificate ends soon."""
        from pileus.core import tls

        now = datetime.now(UTC)
        if now - self._warned < timedelta(days=1):
            return
        self._warned = now
        left = tls.ends(self._files[0]) - now
        if left < SOON:
            logger.warning("the certificate of the API, %s, is good for %d days more", self._files[0], left.days)
