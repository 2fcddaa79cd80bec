"""The composition root: the only package that sees everything, and puts it together.

It is imported at each start of `pileus`, so it imports late what a command may not need.
"""

from __future__ import annotations

from pileus.app import maintenance
from pileus.app.control_plane import Control, control, rotate_keys, upgrade
from pileus.app.host import agent, examine_host, join_host, metadata_server, teardown
from pileus.app.service import SERVICES, declare_tables, driver, public_services
from pileus.cli.main import Roles

__all__ = ["SERVICES", "Control", "declare_tables", "driver", "public_services", "roles"]

roles = Roles(
    control=control,
    agent=agent,
    metadata_server=metadata_server,
    join_host=join_host,
    teardown=teardown,
    examine_host=examine_host,
    tell_story=maintenance.tell_story,
    examine_store=maintenance.examine_store,
    mend_store=maintenance.mend_store,
    backup=maintenance.backup,
    examine_backup=maintenance.examine_backup,
    restore=maintenance.restore,
    upgrade=upgrade,
    rotate_keys=rotate_keys,
)
