"""Servers, and what belongs to them alone: metadata, tags, addresses, ports, actions.

https://docs.openstack.org/api-ref/compute/#servers-servers
https://docs.openstack.org/api-ref/compute/#servers-run-an-action-servers-action
https://docs.openstack.org/api-ref/compute/#server-metadata-servers-metadata
https://docs.openstack.org/api-ref/compute/#server-tags-servers-tags
https://docs.openstack.org/api-ref/compute/#servers-ips-servers-ips
https://docs.openstack.org/api-ref/compute/#port-interfaces-servers-os-interface
https://docs.openstack.org/api-ref/compute/#servers-actions-servers-os-instance-actions

A row holds what its user wants and, apart from it, what was observed; the status is computed of both.  Requests write
what is wanted and answer; the controllers make it so.
"""
