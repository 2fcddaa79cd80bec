"""Application credentials (https://docs.openstack.org/api-ref/identity/v3/#application-credentials)."""
