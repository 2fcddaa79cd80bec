"""Trusts (https://docs.openstack.org/api-ref/identity/v3-ext/#os-trust-api)."""
