"""The Linux network driver: bridges, netfilter and dnsmasq in namespaces.

- `driver`: the contract's methods; locks, and what is known to be in force.
- `name`: names of namespaces and interfaces, derived from ids.
- `segment`: the namespace of a network: bridge, taps, addresses.
- `ruleset`: a packet filter as a value; the nft commands that make it or change one into another.
- `guard`: the packet filter of a network: anti-spoofing, security groups.
- `limit`: how much one port may ask of what is shared.
- `dhcp`: the DHCP and DNS service of a network, and router advertisements.
- `router`: the namespace of a router; `nat`: its packet filter.
- `uplink`: the leg of the host in an external network; `border`: its packet filter, which keeps guests off the host.
- `probe`: finds out by trying which packet filter engine works here.
"""

from pileus.drivers.network.bridge.driver import BridgeNetwork

__all__ = ["BridgeNetwork"]
