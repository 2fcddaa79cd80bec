"""Security groups and their rules.

https://docs.openstack.org/api-ref/network/v2/#security-groups-security-groups
"""
