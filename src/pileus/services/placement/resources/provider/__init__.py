"""Resource providers, and what they have: inventories, traits, aggregates.

Source: https://docs.openstack.org/api-ref/placement/#resource-providers
"""
