"""What the control plane, the agent and the drivers agree on.

Wire structs (msgspec) and the Protocols that drivers implement.  Nothing here performs I/O, and nothing here
names an operating system: host facts stay behind the drivers.
"""
