"""RBAC policies: with which projects a network is shared.

https://docs.openstack.org/api-ref/network/v2/#rbac-policies
"""
