"""The ledger: extensions in place of microversions. Each alias is here because what it promises is there."""

from __future__ import annotations

from typing import NamedTuple


class Extension(NamedTuple):
    """What `GET /v2.0/extensions` says of an alias. `updated` is upstream's date of the definition."""

    name: str
    description: str
    updated: str


EXTENSIONS = {
    "address-scope": Extension(
        "Address scope", "Sets of subnet pools whose prefixes are unique", "2015-07-26T10:00:00-00:00"
    ),
    "allowed-address-pairs": Extension(
        "Allowed Address Pairs", "Further addresses that a port may send from", "2013-07-23T10:00:00-00:00"
    ),
    "auto-allocated-topology": Extension(
        "Auto Allocated Topology Services", "Networks that are made when they are needed", "2016-01-01T00:00:00-00:00"
    ),
    "availability_zone": Extension(
        "Availability Zone", "Availability zones of networks and routers", "2015-01-01T10:00:00-00:00"
    ),
    "binding": Extension("Port Binding", "Where a port is bound, for administrators", "2014-02-03T10:00:00-00:00"),
    "default-subnetpools": Extension(
        "Default Subnetpools", "Subnets out of the default subnet pool", "2016-02-18T18:00:00-00:00"
    ),
    "empty-string-filtering": Extension(
        "Empty String Filtering Extension", "Filters for what is empty", "2018-05-01T10:00:00-00:00"
    ),
    "ext-gw-mode": Extension(
        "Neutron L3 Configurable external gateway mode",
        "Routers with or without source NAT on their external gateway",
        "2013-03-28T10:00:00-00:00",
    ),
    "external-net": Extension(
        "Neutron external network", "Networks that are reached from outside the cloud", "2013-01-14T10:00:00-00:00"
    ),
    "extra_dhcp_opt": Extension(
        "Neutron Extra DHCP options", "DHCP options for a single port", "2013-03-17T12:00:00-00:00"
    ),
    "extraroute": Extension("Neutron Extra Route", "Static routes of routers", "2013-02-01T10:00:00-00:00"),
    "extraroute-atomic": Extension(
        "Atomically add/remove extra routes",
        "Routes that are added and removed one by one",
        "2019-07-10T00:00:00+00:00",
    ),
    "fip-port-details": Extension(
        "Floating IP Port Details Extension", "Floating IPs tell of their ports", "2018-04-09T10:00:00-00:00"
    ),
    "floatingip-pools": Extension(
        "Floating IP Pools Extension", "Subnets out of which floating IPs come", "2018-03-21T10:00:00-00:00"
    ),
    "ip-substring-filtering": Extension(
        "IP address substring filtering", "Ports found by a part of their address", "2017-11-28T09:00:00-00:00"
    ),
    "metering": Extension(
        "Neutron Metering", "Labels and rules of traffic that is to be counted", "2013-06-12T10:00:00-00:00"
    ),
    "metering_source_and_destination_fields": Extension(
        "Neutron Metering with source and destination filtering",
        "Rules by where traffic comes from and goes to",
        "2020-08-21T08:12:00-00:00",
    ),
    "net-mtu": Extension("Network MTU", "Networks tell their MTU", "2015-03-25T10:00:00-00:00"),
    "net-mtu-writable": Extension("Network MTU (writable)", "MTU can be set", "2017-07-12T00:00:00-00:00"),
    "network-ip-availability": Extension(
        "Network IP Availability", "How many addresses of networks are in use", "2015-09-24T00:00:00-00:00"
    ),
    "network_availability_zone": Extension(
        "Network Availability Zone", "Availability zones of networks", "2015-01-01T10:00:00-00:00"
    ),
    "pagination": Extension("Pagination support", "Lists in pages", "2016-06-12T00:00:00-00:00"),
    "port-mac-address-regenerate": Extension(
        "Neutron Port MAC address regenerate",
        "A port gets a new MAC address when it is set to null",
        "2018-05-03T10:00:00-00:00",
    ),
    "port-security": Extension("Port Security", "Anti-spoofing can be turned off", "2012-07-23T10:00:00-00:00"),
    "port-security-groups-filtering": Extension(
        "Port filtering on security groups", "Ports found by their security groups", "2018-01-09T09:00:00-00:00"
    ),
    "project-id": Extension(
        "project_id field enabled", "project_id stands beside tenant_id", "2016-09-09T09:09:09-09:09"
    ),
    "provider": Extension(
        "Provider Network", "How networks are realised, for administrators", "2012-09-07T10:00:00-00:00"
    ),
    "quota_details": Extension("Quota details management support", "Usage beside limits", "2017-02-10T10:00:00-00:00"),
    "quotas": Extension("Quota management support", "Limits of projects", "2012-07-29T10:00:00-00:00"),
    "rbac-policies": Extension(
        "RBAC Policies", "Networks that are shared with single projects", "2015-06-17T12:15:12-00:00"
    ),
    "revision-if-match": Extension(
        "If-Match constraints based on revision_number",
        "Updates and deletes that hold only for a revision",
        "2016-12-11T00:00:00-00:00",
    ),
    "router": Extension("Neutron L3 Router", "Routers and floating IPs", "2012-07-20T10:00:00-00:00"),
    "router_availability_zone": Extension(
        "Router Availability Zone", "Availability zones of routers", "2015-01-01T10:00:00-00:00"
    ),
    "security-group": Extension("security-group", "Security groups and their rules", "2012-10-05T10:00:00-00:00"),
    "security-groups-normalized-cidr": Extension(
        "Normalized CIDR field for security group rules",
        "Rules tell their prefix in canonical form",
        "2020-07-28T10:00:00-00:00",
    ),
    "security-groups-rules-belongs-to-default-sg": Extension(
        "Security group rule belongs to the project's default security group",
        "Rules tell whether they are of the default group",
        "2023-05-23T10:00:00-00:00",
    ),
    "service-type": Extension(
        "Neutron Service Type Management", "What realises a kind of service", "2013-01-20T00:00:00-00:00"
    ),
    "sort-key-validation": Extension(
        "Sort keys validation", "Sort keys that do not exist are refused", "2018-07-04T10:00:00-00:00"
    ),
    "sorting": Extension("Sorting support", "Sorted lists", "2016-06-12T00:00:00-00:00"),
    "standard-attr-description": Extension(
        "standard-attr-description", "Descriptions of resources", "2016-02-10T10:00:00-00:00"
    ),
    "standard-attr-revisions": Extension(
        "Resource revision numbers", "Revision numbers of resources", "2016-04-11T10:00:00-00:00"
    ),
    "standard-attr-tag": Extension(
        "Tag support for resources with standard attribute", "Tags of resources", "2017-01-01T00:00:00-00:00"
    ),
    "standard-attr-timestamp": Extension(
        "Resource timestamps", "When resources were made and changed", "2016-09-12T10:00:00-00:00"
    ),
    "stateful-security-group": Extension(
        "Stateful security group", "Security groups without connection tracking", "2019-11-26T09:00:00-00:00"
    ),
    "subnet-external-network": Extension(
        "Subnet belongs to an external network",
        "Subnets tell whether their network is external",
        "2024-02-05T18:00:00-00:00",
    ),
    "subnet_allocation": Extension(
        "Subnet Allocation", "Subnets with an address range of the caller's choice", "2015-03-30T10:00:00-00:00"
    ),
    "subnet_onboard": Extension(
        "Subnet Onboard", "Subnet pools take in the subnets of a network", "2018-12-18T09:00:00-00:00"
    ),
    "subnetpool-prefix-ops": Extension(
        "Subnet Pool Prefix Operations", "Prefixes of subnet pools added and taken away", "2019-02-08T10:00:00-00:00"
    ),
    "tag-creation": Extension("Tag creation extension", "Several tags added at once", "2024-07-23T10:00:00-00:00"),
    "tag-ports-during-bulk-creation": Extension(
        "Tag Ports During Bulk Creation", "Ports are tagged as they are made", "2019-12-29T19:00:00-00:00"
    ),
}
"""Alias to what it is."""
