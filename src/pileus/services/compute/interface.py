"""What others may ask of Compute, within their own transaction: above it are the console proxy and Orchestration."""

from __future__ import annotations

from pileus.services.compute.resources.console import PAGE, SERIAL, STREAM, Console, lookup

__all__ = ["PAGE", "SERIAL", "STREAM", "Console", "lookup"]
