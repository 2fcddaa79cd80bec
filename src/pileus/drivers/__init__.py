"""Drivers: the only rooms that know an operating system."""
