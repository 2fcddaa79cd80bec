"""A hypervisor without guests.

`driver` keeps the contract; `console` is what a simulated guest's screen and serial port say; `disk` is the empty disk
that snapshots are of.
"""

from pileus.drivers.hypervisor.fake.driver import FACTS, FakeGuest, FakeHypervisor

__all__ = ["FACTS", "FakeGuest", "FakeHypervisor"]
