"""OS-EP-FILTER: which endpoints a project sees (https://docs.openstack.org/api-ref/identity/v3-ext/#os-ep-filter-api).

A project is associated with single endpoints, and with groups of endpoints that filters describe.  One without any
association sees all endpoints.
"""
