"""Floating IPs.

https://docs.openstack.org/api-ref/network/v2/#floating-ips-floatingips
"""
