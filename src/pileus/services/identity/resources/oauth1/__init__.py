"""OAuth 1.0a: what a user lets a program, the consumer, do in its place.

(https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api)
"""
