"""Subnet pools: prefixes out of which subnets are allocated.

https://docs.openstack.org/api-ref/network/v2/#subnet-pools-extension-subnetpools
"""
