"""Ports.

https://docs.openstack.org/api-ref/network/v2/#ports
"""
