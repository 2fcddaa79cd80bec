"""Metadata definitions: what properties images, flavors, volumes and the like may have, for people and for programs.

Namespaces hold definitions of properties, objects (sets of properties) and tags, and name the resource types to which
they apply.

Source: https://docs.openstack.org/api-ref/image/v2/metadefs-index.html
"""
