"""Projects, and domains, which are projects at the root (https://docs.openstack.org/api-ref/identity/v3/#projects)."""
