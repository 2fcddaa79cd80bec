"""Contract suites: what every driver of a kind must do, as pytest classes that ship with the package.

A driver's own test subclasses a suite and gives it a fixture named `harness`, which knows how to open the driver and
how to play the guest or the host around it:

    class TestMine(HypervisorContract):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> HypervisorHarness:
            return MyHarness(tmp_path)

This is the only place in the package that imports pytest.
"""

import pytest

for _name in ("hypervisor", "images", "network", "network_bench", "network_packet", "storage"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
