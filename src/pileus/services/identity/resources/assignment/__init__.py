"""Role assignments: who holds which role where (https://docs.openstack.org/api-ref/identity/v3/#roles)."""
