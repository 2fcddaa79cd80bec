"""One dnsmasq: its files, its start, its end, and finding it again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pileus.contracts.network import NetworkFailure
from pileus.drivers.host import netservice
from pileus.drivers.host.process import Child, ChildFailure, Identity
from pileus.drivers.network.bridge.dhcp import Config

_HANDED = "handed"


class Daemon:
    """The dnsmasq of one namespace. `directory` is its own; `identity` may read it and write nothing."""

    def __init__(self, directory: Path, namespace: str, identity: Identity) -> None:
        self.directory = directory
        self._namespace = namespace
        self._identity = identity
        self._argument = f"--conf-file={directory}/dnsmasq.conf"
        self._config: Config | None = None
        self._child: Child | None = None
        self._handed: dict[str, str] = {}
        """Address to MAC address, of all that this process may have leased in its life; kept in a file for the next
        driver."""

    def alive(self) -> bool:
        """Whether it does what the last `ensure` asked; costs one system call."""
        return self._config is None or (self._child is not None and self._child.alive())

    def ensure(self, config: Config | None) -> None:
        """Make it run with this configuration, or not run. Raises NetworkFailure with what it said otherwise."""
        if config is None:
            self.remove()
            return
        if self._child is None:
            self._adopt()
        known = self._config
        if self._child is None or known is None or not self._child.alive() or self._must_restart(known, config):
            self._restart(config)
        elif known.files != config.files:
            self._write(config)
            netservice.reload(self._child)
        self._config = config

    def remove(self) -> None:
        """End it, also one of an earlier life, and delete its files. Absent is fine."""
        self._end()
        self._config = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _adopt(self) -> None:
        """Take over the process of an earlier life, with what its files say that it was told."""
        found = netservice.find(self._argument)
        if len(found) != 1:
            return
        try:
            main = (self.directory / "dnsmasq.conf").read_text()
            self._handed = dict(line.split() for line in (self.directory / _HANDED).read_text().splitlines())
            tagged = (self.directory / "hosts").is_file() and ",set:" in (self.directory / "hosts").read_text()
        except (OSError, ValueError):
            return
        self._child, self._config = found[0], Config(main, tagged=tagged)

    def _must_restart(self, known: Config, config: Config) -> bool:
        """A lease binds an address for as long as the process lives; another guest gets it from a new process."""
        moved = any(self._handed.get(address, mac) != mac for address, mac in config.leases)
        return moved or known.main != config.main or (known.tagged and known.files != config.files)

    def _restart(self, config: Config) -> None:
        self._end()
        self._write(config)
        # ICMPv6 needs a raw socket; dnsmasq refuses to serve DHCP at all without NET_ADMIN.
        capabilities = [netservice.NET_ADMIN, *([netservice.NET_RAW] if config.raw else [])]
        try:
            self._child = netservice.daemon(
                ["dnsmasq", self._argument],
                namespace=self._namespace,
                identity=self._identity,
                capabilities=capabilities,
            )
        except (ChildFailure, OSError) as failure:
            raise NetworkFailure(f"DHCP service in {self._namespace}: {failure}") from None

    def _end(self) -> None:
        found = netservice.find(self._argument)
        self._child = None
        for child in found:
            if not child.end(2):
                raise NetworkFailure(f"DHCP service in {self._namespace} does not end")
        self._handed.clear()

    def _write(self, config: Config) -> None:
        """The files name the users' hosts and MAC addresses: readable by the daemon, not by everybody."""
        self._handed.update(config.leases)
        handed = "".join(f"{address} {mac}\n" for address, mac in sorted(self._handed.items()))
        self.directory.mkdir(parents=True, exist_ok=True)
        os.chown(self.directory, 0, self._identity.gid)
        self.directory.chmod(0o750)
        for name, content in ((_HANDED, handed), ("dnsmasq.conf", config.main), *config.files):
            path = self.directory / name
            fresh = self.directory / f".{name}"
            fresh.write_text(content)
            os.chown(fresh, 0, self._identity.gid)
            fresh.chmod(0o640)
            fresh.replace(path)
