"""Storage drivers: they keep the contract in `pileus.contracts.storage`."""
