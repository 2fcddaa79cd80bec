"""Image's loops: what was begun is ended, what is to be imported comes in, and what is to be removed goes."""

from __future__ import annotations

from pileus.core.reconcile import Controller
from pileus.services.image.controllers.caching import Caching
from pileus.services.image.controllers.disposal import Disposal
from pileus.services.image.controllers.importing import Importing
from pileus.services.image.controllers.upload import DeadUploads, OldTasks
from pileus.services.image.interface import ImageStores


def controllers(stores: ImageStores) -> list[Controller]:
    """The loops of this service."""
    found: list[Controller] = [DeadUploads(), OldTasks(), Disposal(stores), Importing(stores)]
    if stores.cache is not None:
        found.append(Caching(stores))
    return found
