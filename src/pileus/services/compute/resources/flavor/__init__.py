"""Flavors, their extra specs, and who may use private ones.

https://docs.openstack.org/api-ref/compute/#flavors
https://docs.openstack.org/api-ref/compute/#flavors-extra-specs-flavors-os-flavor-extra-specs
https://docs.openstack.org/api-ref/compute/#flavors-access-flavors-os-flavor-access-addtenantaccess-removetenantaccess-action

A server keeps a copy of the flavor that it was made with, so that a flavor may go while servers of it run.
"""

from __future__ import annotations

from pileus.services.compute.resources.flavor.operations import find, resource
from pileus.services.compute.resources.flavor.table import access, extra_spec, extra_specs, flavor

__all__ = ["access", "extra_spec", "extra_specs", "find", "flavor", "resource"]
