"""Tokens (https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management)."""
