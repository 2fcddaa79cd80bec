"""A guest's TPM: a process beside QEMU that plays it (swtpm(8)), under the guest's id, gone when QEMU is."""

from __future__ import annotations

import os
import socket

from pileus.contracts.hypervisor import GuestFailure, MachineSpec
from pileus.drivers.host.process import Child, Identity, spawn
from pileus.drivers.hypervisor.qemu.directory import RunDirectory

_STATE = "tpm"


def start(directory: RunDirectory, machine: MachineSpec, identity: Identity | None) -> tuple[Child, socket.socket]:
    """Start it; the socket is QEMU's end.  It ends when that is closed.  Raises GuestFailure."""
    folder = directory.path / f"{_STATE}-{machine.tpm}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if identity is not None:
        os.chown(folder, identity.uid, identity.gid)
    ours, theirs = socket.socketpair()
    argv = [
        *("swtpm", "socket", *(("--tpm2",) if machine.tpm == "2.0" else ())),
        *("--tpmstate", f"dir={folder.name},mode=0600", "--ctrl", f"type=unixio,clientfd={theirs.fileno()}"),
        "--terminate",
    ]
    errors = directory.open_errors()
    try:
        child = spawn(
            argv, identity=identity, cwd=directory.path, pass_fds=[theirs.fileno()], stdout=errors, stderr=errors
        )
    except OSError as error:
        ours.close()
        raise GuestFailure(f"the TPM cannot be started: {error.strerror}") from error
    finally:
        theirs.close()
        os.close(errors)
    return child, ours
