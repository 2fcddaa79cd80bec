"""Hypervisor drivers: they keep the contract in `pileus.contracts.hypervisor`."""
