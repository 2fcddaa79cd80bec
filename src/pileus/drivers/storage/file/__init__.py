"""Disks as qcow2 files in a directory."""

from pileus.drivers.storage.file.driver import FileStorage

__all__ = ["FileStorage"]
