"""What can be done with namespaces and with what belongs to them."""

from __future__ import annotations

from pileus.services.image.resources.metadef.operations import namespace, resource_type, tag
from pileus.services.image.resources.metadef.operations import object as thing
from pileus.services.image.resources.metadef.operations import property as prop

RESOURCES = [namespace.resource, thing.resource, prop.resource, resource_type.resource, tag.resource]
