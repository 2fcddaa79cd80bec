"""Credentials, those of the EC2 API among them (https://docs.openstack.org/api-ref/identity/v3/#credentials)."""
