"""Hosts and what they are to hold: the lowest floor.

Upper services assign objects to hosts (`interface.assign`), the hosts' agents watch their assignments over the link and
report what they observed, and the change log tells the upper services that something was observed.
"""
