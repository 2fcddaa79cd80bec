"""Commands of `pileus`: one module each, found by `pileus.cli.main`."""
