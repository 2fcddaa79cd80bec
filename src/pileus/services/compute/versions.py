"""Compute's microversions: one line on what each brought.

The range is upstream's ("REST API Version History" of the Compute API).  A version whose subject is not built here has
its line all the same: a client may ask for it, and finds neither operation nor field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pileus.core.fields import UNSET, UnsetType, W
from pileus.core.versions import Ledger, Version

HISTORY = {
    "2.1": "The shapes of API 2.0, with bodies checked strictly.",
    "2.2": "Key pairs have a type; creating one answers 201, deleting one 204.",
    "2.3": "Servers show host name, reservation, launch index, kernel, ramdisk, root device and user data to admins.",
    "2.4": "Fixed IPs show whether they are reserved.",
    "2.5": "Everybody may filter servers by IPv6 address.",
    "2.6": "One operation for all remote consoles; the four older actions end.",
    "2.7": "A public flavor refuses to be given to a project (409).",
    "2.8": "Remote consoles by MKS.",
    "2.9": "Servers show whether they are locked.",
    "2.10": "Key pairs show their user, and admins may act on those of others.",
    "2.11": "Services show and take forced_down.",
    "2.12": "Virtual interfaces show their network.",
    "2.13": "Server groups show project and user.",
    "2.14": "Evacuation finds out by itself about shared storage, and returns no password.",
    "2.15": "Server groups may be of soft affinity and soft anti-affinity.",
    "2.16": "Servers show the status of their host to those who may see it.",
    "2.17": "A guest can be told to write a crash dump.",
    "2.18": "The project is left out of paths.",
    "2.19": "Servers have a description.",
    "2.20": "Volumes are attached to and detached from shelved servers.",
    "2.21": "The actions of deleted servers are shown.",
    "2.22": "A running live migration can be forced to end.",
    "2.23": "A server's live migrations are listed; migrations show their type.",
    "2.24": "A running live migration can be cancelled.",
    "2.25": "Live migration chooses block migration by itself; disk_over_commit is gone.",
    "2.26": "Servers have tags, and are filtered by them.",
    "2.27": "Microversions are also negotiated by the header OpenStack-API-Version.",
    "2.28": "Hypervisors show cpu_info as an object.",
    "2.29": "Evacuation checks the wanted host with the scheduler, unless forced.",
    "2.30": "Live migration checks the wanted host with the scheduler, unless forced.",
    "2.31": "Console tokens of every type can be looked up.",
    "2.32": "Network cards and disks can be tagged when a server is created.",
    "2.33": "Hypervisors are paged; disks lose their tags (until 2.42).",
    "2.34": "Live migration makes its checks in the background.",
    "2.35": "Key pairs are paged, in the order of their names.",
    "2.36": "Operations that stand in for other services end, and quotas of networking with them.",
    "2.37": "networks is required, and may be auto or none; cards lose their tags (until 2.42).",
    "2.38": "A status that does not exist is refused as a filter.",
    "2.39": "Image metadata and its limit end.",
    "2.40": "Usage of projects is paged.",
    "2.41": "Aggregates show their UUID.",
    "2.42": "Network cards and disks can be tagged again.",
    "2.43": "Hosts as a resource end.",
    "2.44": "Actions on fixed and floating IPs, and virtual interfaces, end.",
    "2.45": "Making an image answers with its id in the body.",
    "2.46": "Responses carry X-OpenStack-Request-ID.",
    "2.47": "Servers show the flavor that they were made with, in place of a link.",
    "2.48": "Diagnostics have one form for all hypervisors.",
    "2.49": "Cards and disks can be tagged when they are attached.",
    "2.50": "Quota classes show server groups, and no networking.",
    "2.51": "Events of an action are shown to everybody; volumes may be extended while attached.",
    "2.52": "Servers are created with tags.",
    "2.53": "Services and hypervisors are named by UUID; searches become query parameters.",
    "2.54": "A rebuild may change the key pair.",
    "2.55": "Flavors have a description, which can be changed.",
    "2.56": "Migration takes a host.",
    "2.57": "Files are injected no more; a rebuild may change user data.",
    "2.58": "Instance actions are paged, filtered by time, and show when they changed.",
    "2.59": "Migrations are paged, filtered by time, and have UUIDs.",
    "2.60": "A volume may be attached to several servers.",
    "2.61": "Flavors show their extra specs.",
    "2.62": "Events show their host, or a hash of it.",
    "2.63": "Trusted certificates of signed images.",
    "2.64": "Server groups have one policy, with rules.",
    "2.65": "Waiting live migrations can be cancelled.",
    "2.66": "Servers, actions and migrations are filtered by changes-before.",
    "2.67": "A volume type may be named when a server is created.",
    "2.68": "Forced live migration and evacuation end.",
    "2.69": "Parts of the cloud that do not answer show in a short form.",
    "2.70": "Attached cards and disks show their tags.",
    "2.71": "Servers show their server group.",
    "2.72": "Ports that request resources can be used.",
    "2.73": "A lock has a reason; servers are filtered and sorted by locked.",
    "2.74": "Admins may name host and hypervisor when they create a server.",
    "2.75": "Unknown query parameters are refused by most lists; updates show all; an empty swap is 0.",
    "2.76": "The event power-update.",
    "2.77": "Unshelving takes an availability zone.",
    "2.78": "Servers show their NUMA topology.",
    "2.79": "Attached volumes have delete_on_termination.",
    "2.80": "Migrations show and filter by user and project.",
    "2.81": "Images are fetched ahead for an aggregate.",
    "2.82": "The event accelerator-request-bound.",
    "2.83": "Everybody may filter servers by eleven more fields.",
    "2.84": "Failed events show details.",
    "2.85": "delete_on_termination of an attached volume can be changed.",
    "2.86": "Known extra specs are checked.",
    "2.87": "Servers that boot from volume can be rescued.",
    "2.88": "Hypervisors show uptime, and none of the sums that mislead; statistics end.",
    "2.89": "Attached volumes show their attachment and mapping, and no id.",
    "2.90": "Servers take a host name, and show it to everybody.",
    "2.91": "Unshelving takes a host, or lets go of the availability zone.",
    "2.92": "Key pairs are only imported, and their names may hold @ and a dot.",
    "2.93": "Servers that boot from volume can be rebuilt.",
    "2.94": "A host name may be fully qualified.",
    "2.95": "Evacuated servers arrive stopped.",
    "2.96": "Servers show the availability zone that they are bound to.",
    "2.97": "Shares can be attached.",
    "2.98": "Servers show properties of their image.",
    "2.99": "SPICE consoles without a proxy.",
    "2.100": "Servers show their scheduler hints.",
    "2.101": "Attaching a volume answers 202 and goes on by itself.",
    "2.102": "Flavors are filtered by name and lose two old fields; unknown query parameters are refused everywhere.",
    "2.103": "The alias os-volumes_boot ends.",
    "2.104": "The availability zone that a server is bound to can be changed.",
}

LEDGER = Ledger("compute", HISTORY, legacy="X-OpenStack-Nova-API-Version")

PUBLIC_FLAVOR_REFUSES = W(since="2.7")
"""Giving a project access to a public flavor is a conflict."""

EMPTY_SWAP_IS_ZERO = W(since="2.75")
"""A flavor without swap shows 0; before, an empty text."""


def swap(mib: int, version: Version | None) -> int | str:
    """A flavor's swap as it is shown."""
    return mib or (0 if EMPTY_SWAP_IS_ZERO.covers(version) else "")


FLAVOR_NAME_FILTER = W(since="2.102")
EXTRA_SPECS_CHECKED = W(since="2.86")
"""Extra specs in a known namespace must be known, and hold what they may."""

KEYPAIR_USER = W(since="2.10")
"""Key pairs of another user can be named."""

KEYPAIR_PAGES = W(since="2.35")

ACTIONS_OF_DELETED = W(since="2.21")
EVENTS_FOR_ALL = W(since="2.51")
ACTIONS_PAGED = W(since="2.58")
"""What is shown of a server's actions, and to whom."""

SERVER_FILTERS = W(since="2.83")
"""Everybody may filter servers by most fields."""

IP6_FILTER = W(since="2.5")
TAG_FILTERS = W(since="2.26")
STATUS_FILTER_STRICT = W(since="2.38")
CHANGES_BEFORE_FILTER = W(since="2.66")
LOCKED_FILTER = W(since="2.73")
LOCKED_KEY_IDLE = W(until="2.72")
SORT_KEYS_IDLE = W(until="2.74")
"""Sort keys that are passed over, where later versions sort by them or refuse them."""

HOSTNAME_FILTER = W(since="2.90")
UPDATE_SHOWS_ALL = W(since="2.75")

IMAGE_METADATA_LIMITED = W(until="2.38")
IMAGE_ID_IN_BODY = W(since="2.45")
"""How an image of a server is asked for, and told of."""

DIAGNOSTICS_STANDARD = W(since="2.48")

DESCRIPTION = W(since="2.19")
"""Servers have a description; before, it was their name."""


def description(given: str | UnsetType | None, name: str, version: Version | None) -> str | None:
    """The description of a new server."""
    if given is UNSET:
        return None if DESCRIPTION.covers(version) else name
    return given


MIGRATION_PAGES = W(since="2.59")
"""Migrations are paged, newest first, and filtered by time."""
MIGRATION_CHANGES_BEFORE = W(since="2.66")
MIGRATION_USERS = W(since="2.80")
"""Migrations are filtered by user and project."""
LIVE_MIGRATION_LATER = W(since="2.34")
"""A live migration is checked in the background: what is wrong with it is told by its action."""
EVACUATION_HAS_NO_PASSWORD = W(since="2.14")

USAGE_PAGES = W(since="2.40")
"""Usage of projects comes in pages of servers."""

HYPERVISOR_PAGES = W(since="2.33")
HYPERVISOR_UUID = W(since="2.53")
"""Hypervisors and services are named by UUID; before, by number."""

HYPERVISOR_QUERIES = W(since="2.53")
SERVERS_ALWAYS = W(since="2.75")
"""A hypervisor without servers shows an empty list of them."""

CPU_INFO_IS_OBJECT = W(since="2.28")


def cpu_info(found: dict[str, Any], version: Version | None) -> dict[str, Any] | str:
    """What is known of a host's processor; as text in JSON until 2.27."""
    return found if CPU_INFO_IS_OBJECT.covers(version) else msgspec.json.encode(found).decode()
