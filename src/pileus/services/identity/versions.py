"""The ledger of Identity: one version in the path, v3, whose minor number grows with the API.

Identity negotiates nothing: a client sees the newest minor version in the version document and uses what it knows.

Source: Identity API v3, "What's new in Version 3.x".
"""

from __future__ import annotations

HISTORY = {
    "3.0": "Domains, projects, users, groups, roles, credentials, policies and the catalog",
    "3.1": "Trusts; unscoped tokens when the default project cannot be used",
    "3.2": "Regions as a tree; region_id of endpoints",
    "3.3": "Catalog, projects and domains that a token can be scoped to",
    "3.4": "Project hierarchy; roles inherited by projects",
    "3.5": "Endpoint groups; revocation events",
    "3.6": "Role assignments with names; projects that act as domains; implied and domain-specific roles",
    "3.7": "Credentials and assignments filtered further",
    "3.8": "Password expiry times in users and tokens; project tags",
    "3.9": "Password expiry filters",
    "3.10": "System scope and role assignments on the system; unified limits",
    "3.11": "Application credentials",
    "3.12": "Two-level limits",
    "3.13": "Resource options; immutable roles, projects and domains",
    "3.14": "Access rules of application credentials; explicit domain ids",
}
"""Minor version to what it brought."""

NEWEST = f"v{list(HISTORY)[-1]}"
"""The id of the version document."""

UPDATED = "2020-04-07T00:00:00Z"
"""When upstream last changed the version document."""
