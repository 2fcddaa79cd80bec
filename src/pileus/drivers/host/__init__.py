"""The privileged verbs of a Linux host: a closed list, shared by all drivers.

- `process`: start a child with an identity, a network namespace and the few descriptors that it needs; name the live
  process behind a pidfile; end a process without ever hitting a recycled pid.
- `tap`: open the tap of a port inside its namespace.
- `cgroup`: put a process under limits of its own.
- `traffic`: limit the rates of a device.

A driver asks for these verbs and does nothing else as root.  Every child runs with `no_new_privs`, so that nothing
it executes can gain back what was taken from it.
"""
