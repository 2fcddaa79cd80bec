"""Acts that are no state: each is applied once for each nonce, or told why it could not be."""

from __future__ import annotations

from pileus.contracts.hypervisor import GuestSpec
from pileus.core.seams import reach
from pileus.drivers.hypervisor.qemu.agent_channel import AgentFailure, converse
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure

_USER = "root"
"""Whose password is set, as upstream's drivers do for guests that do not say otherwise."""


class _Refused(Exception):
    """Why an act could not be applied; for people, without secrets."""


def apply(guest: Guest, spec: GuestSpec) -> None:
    """Apply the acts whose nonces have grown, and record that."""
    kept = guest.directory.applied()
    done = {} if kept is None else kept.acts
    for name, nonce in sorted(spec.acts.items()):
        if nonce <= done.get(name, 0):
            continue
        fault = ""
        if name == "nmi":
            # Twice would spoil the dump that it is for, so an agent that is killed meanwhile does not try again.
            _record(guest, name, nonce, "")
        reach(f"qemu.act.{name}")
        try:
            _apply(guest, spec, name)
        except (_Refused, MonitorFailure, AgentFailure) as error:
            fault = str(error)
        _record(guest, name, nonce, fault)


def _apply(guest: Guest, spec: GuestSpec, name: str) -> None:
    if not guest.alive() or guest.status() != "running":
        raise _Refused("the guest does not run")
    if name == "nmi":
        guest.execute("inject-nmi")
    elif name == "password":
        if spec.password is None:
            raise _Refused("there is no password to set")
        with converse(guest.directory) as agent:
            agent.set_password(_USER, spec.password)
    else:
        raise _Refused(f"this host knows no act {name}")


def _record(guest: Guest, name: str, nonce: int, fault: str) -> None:
    kept = guest.directory.applied()
    if kept is None:
        return
    faults = {key: why for key, why in kept.faults.items() if key != name}
    guest.note(acts={**kept.acts, name: nonce}, faults=faults | ({name: fault} if fault else {}))
