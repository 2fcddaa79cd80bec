"""Hosts, assignments and the link."""
