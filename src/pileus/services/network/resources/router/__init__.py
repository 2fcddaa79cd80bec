"""Routers.

https://docs.openstack.org/api-ref/network/v2/#routers-routers
"""
