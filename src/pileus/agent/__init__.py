"""The host side: dials out to the control plane, makes its host hold what it is assigned, and reports.

One event loop runs any number of agents (one for a real host, many for simulated ones); drivers block, so they are
called on threads.
"""
