"""Another project's things cannot be told apart from nothing: every operation, as a plain member of a project.

Project `red` has one of everything; a member of project `green` asks for each, by every operation whose path names
something, and then for what never was.  Both answers are the same but for the id.  In the end red's things are as they
were.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core import NotSet
from schemathesis.core.errors import OperationNotFound

from pileus.app import public_services
from pileus.core.api import Operation, Service
from pileus.core.openapi import document
from tests.api.edge import Client, Response
from tests.api.whole import Whole, whole_cloud

SERVICES: dict[str, Service] = {service.type: service for service in public_services()}

NETWORK, COMPUTE, IMAGE, IDENTITY = "/network/v2.0", "/compute/v2.1", "/image/v2", "/identity/v3"


@dataclass
class Member:
    """A plain member of a project, and what the project has: id by the word of a path that comes before it."""

    client: Client
    project: str
    user: str
    ids: dict[str, str] = field(default_factory=dict)

    def make(self, path: str, noun: str, word: str | None = None, **values: Any) -> str:
        """POST something; its id, kept under the last word of the path or under `word`."""
        found = self.client.request("POST", path, {noun: values}, {"openstack-api-version": "compute 2.103"})
        assert found.status in (200, 201, 202), (path, found)
        body = found.json[noun]
        identifier = str(body["id"] if "id" in body else body["name"])
        self.ids[word or path.rpartition("/")[2]] = identifier
        return identifier


def settled(whole: Whole, name: str, network: str, flavor: str, cidr: str) -> Member:
    """A project with a member who has made one of everything."""
    admin = whole.admin

    def made(path: str, noun: str, **values: Any) -> str:
        found = admin.request("POST", IDENTITY + path, {noun: values})
        assert found.status == 201, found
        return str(found.json[noun]["id"])

    project = made("/projects", "project", name=name, domain_id="default")
    user = made("/users", "user", name=name, password=f"secret of {name}", domain_id="default")
    [role] = [one["id"] for one in admin.request("GET", IDENTITY + "/roles?name=member").json["roles"]]
    assert admin.request("PUT", f"{IDENTITY}/projects/{project}/users/{user}/roles/{role}").status == 204
    client = whole.served.client(_token(whole.served.client(), name))
    member = Member(client, project, user)
    _network(member, network, cidr)
    _compute(member, flavor)
    _image(member)
    space = {"namespace": f"Namespace::Of::{name}", "visibility": "private", "owner": project}
    assert admin.request("POST", f"{IMAGE}/metadefs/namespaces", space).status == 201
    member.ids["namespaces"] = space["namespace"]
    member.make(f"{IDENTITY}/users/{user}/application_credentials", "application_credential", name="a credential")
    member.make(f"{IDENTITY}/credentials", "credential", type="cert", blob="x", project_id=project, user_id=user)
    ec2 = client.request("POST", f"{IDENTITY}/users/{user}/credentials/OS-EC2", {"tenant_id": project})
    assert ec2.status == 201, ec2
    member.ids |= {"OS-EC2": ec2.json["credential"]["access"], "projects": project, "users": user}
    member.ids |= dict.fromkeys(("quotas", "os-quota-sets", "os-simple-tenant-usage", "members"), project)
    return member


def _token(client: Client, name: str) -> str:
    user = {"name": name, "domain": {"id": "default"}, "password": f"secret of {name}"}
    scope = {"project": {"name": name, "domain": {"id": "default"}}}
    wanted = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    found = client.request("POST", f"{IDENTITY}/auth/tokens", wanted)
    assert found.status == 201, found
    return found.headers["x-subject-token"]


def _network(member: Member, public: str, cidr: str) -> None:
    network = member.make(f"{NETWORK}/networks", "network", name="inner")
    member.make(f"{NETWORK}/subnets", "subnet", network_id=network, cidr=cidr, ip_version=4)
    member.make(f"{NETWORK}/ports", "port", network_id=network)
    router = member.make(f"{NETWORK}/routers", "router", name="way", external_gateway_info={"network_id": public})
    leg = {"subnet_id": member.ids["subnets"]}
    assert member.client.request("PUT", f"{NETWORK}/routers/{router}/add_router_interface", leg).status == 200
    member.make(f"{NETWORK}/floatingips", "floatingip", floating_network_id=public)
    group = member.make(f"{NETWORK}/security-groups", "security_group", name="a group")
    member.make(f"{NETWORK}/security-group-rules", "security_group_rule", security_group_id=group, direction="ingress")
    for kind in ("networks", "subnets", "ports", "routers", "floatingips", "security-groups"):
        found = member.client.request("PUT", f"{NETWORK}/{kind}/{member.ids[kind]}/tags/a-tag")
        assert found.status in (200, 201, 204), (kind, found)
    member.ids |= {
        "os-networks": network,
        "os-tenant-networks": network,
        "os-security-groups": group,
        "os-security-group-rules": member.ids["security-group-rules"],
        "os-floating-ips": member.ids["floatingips"],
        "os-interface": member.ids["ports"],
        "tags": "a-tag",
    }


def _compute(member: Member, flavor: str) -> None:
    member.make(f"{COMPUTE}/os-keypairs", "keypair", name=f"key-{member.project}", type="ssh", public_key=PUBLIC_KEY)
    member.make(f"{COMPUTE}/os-server-groups", "server_group", name="together", policy="affinity")
    image = member.client.request("POST", f"{IMAGE}/images", IMAGE_BODY)
    assert image.status == 201, image
    written = member.client.request(
        "PUT",
        f"{IMAGE}/images/{image.json['id']}/file",
        headers={"content-type": "application/octet-stream"},
        data=b"x" * 1024,
    )
    assert written.status == 204, written
    server = {"name": "one", "flavorRef": flavor, "imageRef": image.json["id"], "networks": "none"}
    member.make(f"{COMPUTE}/servers", "server", metadata={"key": "value"}, **server)
    member.ids |= {"metadata": "key", "servers-image": image.json["id"], "servers-flavor": flavor}
    actions = member.client.request("GET", f"{COMPUTE}/servers/{member.ids['servers']}/os-instance-actions")
    member.ids["os-instance-actions"] = actions.json["instanceActions"][0]["request_id"]
    member.ids["flavors"] = flavor


def _image(member: Member) -> None:
    image = member.client.request("POST", f"{IMAGE}/images", {**IMAGE_BODY, "tags": ["a-tag"]})
    member.ids["images"] = image.json["id"]


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ one"
IMAGE_BODY = {"name": "an image", "disk_format": "raw", "container_format": "bare", "visibility": "private"}


@dataclass
class Town:
    """Both projects."""

    red: Member
    green: Member
    public: str


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with whole_cloud(tmp_path_factory.mktemp("town")) as whole:
        admin = whole.admin
        network = admin.request("POST", f"{NETWORK}/networks", {"network": {"name": "public", "router:external": True}})
        public = network.json["network"]["id"]
        subnet = {"network_id": public, "cidr": "203.0.113.0/24", "ip_version": 4}
        assert admin.request("POST", f"{NETWORK}/subnets", {"subnet": subnet}).status == 201
        flavor = {"name": "nano", "vcpus": 1, "ram": 128, "disk": 1}
        open_flavor = admin.request("POST", f"{COMPUTE}/flavors", {"flavor": flavor}).json["flavor"]["id"]
        red = settled(whole, "red", public, open_flavor, "10.1.0.0/24")
        green = settled(whole, "green", public, open_flavor, "10.2.0.0/24")
        for member in (red, green):
            hidden = {**flavor, "name": f"of-{member.project}", "os-flavor-access:is_public": False}
            member.ids["flavors"] = admin.request("POST", f"{COMPUTE}/flavors", {"flavor": hidden}).json["flavor"]["id"]
            access = {"addTenantAccess": {"tenant": member.project}}
            done = admin.request("POST", f"{COMPUTE}/flavors/{member.ids['flavors']}/action", access)
            assert done.status == 200, done
        yield Town(red, green, public)


def never(identifier: str) -> str:
    """An id that never was, of the same shape."""
    if re.fullmatch(r"[0-9a-f]{32}", identifier):
        return uuid.uuid4().hex
    if re.fullmatch(r"[0-9a-f-]{36}", identifier):
        return str(uuid.uuid4())
    return "nothing-" + uuid.uuid4().hex[: max(1, len(identifier) - 8)]


def told(response: Response, *names: str) -> tuple[int, str]:
    """What an answer tells: its status and body, but for the ids that the request named, and times."""
    text = response.body.decode("utf-8", "replace")
    for name in sorted(names, key=len, reverse=True):
        if len(name) > 8:
            text = text.replace(name, "ID")
    text = re.sub(r"req-[0-9a-f-]{36}", "REQUEST", text)
    return response.status, re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?", "TIME", text)


def named(path: str) -> list[tuple[str, str]]:
    """Each parameter of a path with the word before it."""
    return re.findall(r"([\w-]+)/\{(\w+)\}", path)


def operations(kind: str) -> Iterator[tuple[str, Operation]]:
    service = SERVICES[kind]
    for resource in service.resources:
        for operation in resource.operations:
            if operation.parameters:
                yield service.roots[0] + operation.path, operation


ACTIONS: dict[str, Any] = {
    "reboot": {"type": "HARD"},
    "createImage": {"name": "taken"},
    "createBackup": {"name": "kept", "backup_type": "daily", "rotation": 1},
    "rebuild": {"imageRef": str(uuid.uuid4())},
    "resize": {"flavorRef": "1"},
    "addSecurityGroup": {"name": "default"},
    "removeSecurityGroup": {"name": "default"},
    "changePassword": {"adminPass": "another"},
    "os-getConsoleOutput": {},
    "os-resetState": {"state": "active"},
    "addTenantAccess": {"tenant": "somebody"},
    "removeTenantAccess": {"tenant": "somebody"},
    "addFixedIp": {"networkId": str(uuid.uuid4())},
    "removeFixedIp": {"address": "10.1.0.9"},
    "addFloatingIp": {"address": "203.0.113.9"},
    "removeFloatingIp": {"address": "203.0.113.9"},
    "evacuate": {},
    "os-migrateLive": {"host": None, "block_migration": "auto"},
    "os-getVNCConsole": {"type": "novnc"},
    "os-getSerialConsole": {"type": "serial"},
    "os-getSPICEConsole": {"type": "spice-html5"},
}
"""What actions are told that want to be told something."""


def body_of(schema: Any, path: str, operation: Operation) -> Any:
    """A well-formed body of an operation; None when it takes none."""
    if operation.action:
        return {operation.action: ACTIONS.get(operation.action)}
    if "body" not in operation.takes:
        return None
    found: list[Any] = []
    try:
        strategy = schema[path][operation.method].as_strategy()
    except OperationNotFound:
        return {}  # it ended with an older version

    @settings(max_examples=1, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def draw(case: Any) -> None:
        found.append(case.body)

    draw()
    return None if isinstance(found[0], NotSet) else found[0]


_KEYSTONE = "403 for another user's, as Keystone's own tests want it; the ids have 128 random bits and are in no list"

DIFFERENT: dict[str, str] = {
    f"{method} /v3/users/{{user_id}}/{place}": _KEYSTONE
    for method in ("GET", "DELETE")
    for place in ("application_credentials/{application_credential_id}", "credentials/OS-EC2/{credential_id}")
}
"""Operations that tell another project's thing from nothing, each with its reason."""


@pytest.mark.parametrize("kind", ["compute", "network", "image", "identity"])
def test_what_is_anothers_and_what_never_was_are_answered_alike(town: Town, kind: str) -> None:
    service = SERVICES[kind]
    schema = schemathesis.openapi.from_dict(document(service))
    ledger = service.ledger
    before = _look(town.red)
    wrong: list[str] = []
    asked = 0
    for path, operation in operations(kind):
        words = named(path)
        if not words or not {word for word, _ in words} <= town.red.ids.keys() or operation.public:
            continue
        body = body_of(schema, path, operation)
        version = operation.until or (ledger.maximum if ledger else None)
        headers = {"openstack-api-version": f"{ledger.service} {version}"} if ledger else {}
        for parent in (town.red, town.green)[: len(words)]:
            # All of it red's; or, where there is more than one, what is red's below what is green's own.
            ours = [parent.ids[word] for word, _ in words[:-1]]
            theirs = [*ours, town.red.ids[words[-1][0]]]
            place = 0 if parent is town.red else len(words) - 1
            missing = [*theirs]
            missing[place] = never(theirs[place])
            if words[place][0] == "tags" or (parent is town.green and theirs[place] == parent.ids[words[place][0]]):
                continue
            answers = []
            for values in (theirs, missing):
                filled = dict(zip((name for _, name in words), values, strict=True))
                target = service.mounts[0] + path.format(**filled)
                answers.append(told(town.green.client.request(operation.method, target, body, headers), values[place]))
            asked += 1
            if answers[0] != answers[1]:
                wrong.append(f"{operation.method} {path} {operation.action or ''}: {answers[0]} | {answers[1]}")
    assert [one for one in wrong if one.partition(":")[0].strip() not in DIFFERENT] == []
    assert asked > 30, "little was asked"
    assert _look(town.red) == before, "something of another project was changed"


Asked = tuple[str, str, Any]
"""Method, path and body."""


def bodies(red: dict[str, str], town: Town) -> dict[str, Asked]:
    """Requests by a member of green that name, besides green's own, one thing of red's; by what they are."""
    return {**_of_network(red, town), **_of_compute(red, town), **_of_identity(red, town)}


def _of_network(red: dict[str, str], town: Town) -> dict[str, Asked]:
    own = town.green.ids
    router, group = f"{NETWORK}/routers/{own['routers']}", red["security-groups"]
    subnet, port = {"subnet_id": red["subnets"]}, {"port_id": red["ports"]}

    def made(noun: str, **values: Any) -> Asked:
        return "POST", f"{NETWORK}/{noun}s", {noun.replace("-", "_"): values}

    def rule(of: str, **values: Any) -> Asked:
        return made("security-group-rule", security_group_id=of, direction="ingress", **values)

    def put(kind: str, noun: str, **values: Any) -> Asked:
        return "PUT", f"{NETWORK}/{kind}/{own[kind]}", {noun: values}

    return {
        "a subnet in a network": made("subnet", network_id=red["networks"], cidr="10.3.0.0/24", ip_version=4),
        "a port in a network": made("port", network_id=red["networks"]),
        "a port in a subnet": made("port", network_id=own["networks"], fixed_ips=[subnet]),
        "a port in a group": made("port", network_id=own["networks"], security_groups=[group]),
        "a port into a group": put("ports", "port", security_groups=[group]),
        "a floating IP at a port": made("floatingip", floating_network_id=town.public, **port),
        "a floating IP to a port": put("floatingips", "floatingip", **port),
        "a floating IP in a network": made("floatingip", floating_network_id=red["networks"]),
        "a router with a gateway": made("router", external_gateway_info={"network_id": red["networks"]}),
        "a gateway of a router": put("routers", "router", external_gateway_info={"network_id": red["networks"]}),
        "a rule in a group": rule(group),
        "a rule about a group": rule(own["security-groups"], remote_group_id=group),
        "a leg in a subnet": ("PUT", f"{router}/add_router_interface", subnet),
        "a leg that is a port": ("PUT", f"{router}/add_router_interface", port),
        "no leg in a subnet": ("PUT", f"{router}/remove_router_interface", subnet),
        "no leg that is a port": ("PUT", f"{router}/remove_router_interface", port),
    }


def _of_compute(red: dict[str, str], town: Town) -> dict[str, Asked]:
    own = town.green.ids
    server = {"name": "two", "networks": "none", "imageRef": own["servers-image"], "flavorRef": own["servers-flavor"]}
    place = f"{COMPUTE}/servers/{own['servers']}"
    group = {"name": red["security-groups"]}

    def booted(**values: Any) -> Asked:
        return "POST", f"{COMPUTE}/servers", {"server": {**server, **values}}

    def hinted(**hints: str) -> Asked:
        return "POST", f"{COMPUTE}/servers", {"server": server, "os:scheduler_hints": hints}

    def does(action: str, **values: Any) -> Asked:
        return "POST", f"{place}/action", {action: values}

    return {
        "a server of an image": booted(imageRef=red["images"]),
        "a server of a flavor": booted(flavorRef=red["flavors"]),
        "a server with a port": booted(networks=[{"port": red["ports"]}]),
        "a server in a network": booted(networks=[{"uuid": red["networks"]}]),
        "a server with a key": booted(key_name=red["os-keypairs"]),
        "a server in a security group": booted(security_groups=[group], networks="auto"),
        "a server in a server group": hinted(group=red["os-server-groups"]),
        "a server beside another": hinted(same_host=red["servers"]),
        "a server away from another": hinted(different_host=red["servers"]),
        "a rebuild of an image": does("rebuild", imageRef=red["images"]),
        "a rebuild with a key": does("rebuild", imageRef=own["servers-image"], key_name=red["os-keypairs"]),
        "a resize to a flavor": does("resize", flavorRef=red["flavors"]),
        "a security group more": does("addSecurityGroup", **group),
        "a security group less": does("removeSecurityGroup", **group),
        "a card at a port": ("POST", f"{place}/os-interface", {"interfaceAttachment": {"port_id": red["ports"]}}),
        "a card in a network": ("POST", f"{place}/os-interface", {"interfaceAttachment": {"net_id": red["networks"]}}),
    }


def _of_identity(red: dict[str, str], town: Town) -> dict[str, Asked]:
    # EC2 keys for a project are not among them: Keystone's own tests want a user to have some for any project that is
    # there, member of it or not.  They open nothing.
    user, project = town.green.user, red["projects"]
    credential = {"type": "ec2", "blob": '{"access": "a", "secret": "b"}', "project_id": project}
    trust = {"trustor_user_id": user, "trustee_user_id": user, "impersonation": False, "roles": [{"name": "member"}]}
    scope = {"identity": {"methods": ["token"], "token": {"id": town.green.client.token}}}
    return {
        "a credential for a project": ("POST", f"{IDENTITY}/credentials", {"credential": credential}),
        "a trust in a project": ("POST", f"{IDENTITY}/OS-TRUST/trusts", {"trust": {**trust, "project_id": project}}),
        "a token for a project": (
            "POST",
            f"{IDENTITY}/auth/tokens",
            {"auth": {**scope, "scope": {"project": {"id": project}}}},
        ),
        "a member of an image": ("POST", f"{IMAGE}/images/{red['images']}/members", {"member": town.green.project}),
    }


TAKEN = {"a server beside another", "a server away from another"}
"""Requests that are taken whatever they name: hints, which mean nothing where they name what is not the project's."""


def test_what_names_anothers_thing_is_refused_as_what_names_nothing(town: Town) -> None:
    before = _look(town.red)
    fake = {word: never(identifier) for word, identifier in town.red.ids.items()}
    wrong = []
    for (what, theirs), missing in zip(bodies(town.red.ids, town).items(), bodies(fake, town).values(), strict=True):
        answers = []
        for ids, (method, path, body) in ((town.red.ids, theirs), (fake, missing)):
            headers = {"openstack-api-version": "compute 2.95"} if path.startswith(COMPUTE) else {}
            found = town.green.client.request(method, path, body, headers)
            answers.append((found.status, "") if what in TAKEN else told(found, *ids.values()))
            if (found.status < 400) is not (what in TAKEN):
                wrong.append(f"{what}: {found}")
        if answers[0] != answers[1]:
            wrong.append(f"{what}: {answers[0]} | {answers[1]}")
    assert wrong == []
    assert _look(town.red) == before


def _look(member: Member) -> dict[str, tuple[int, str]]:
    """What a project has, as it sees it."""
    places = [
        f"{COMPUTE}/servers/detail",
        f"{COMPUTE}/os-keypairs",
        f"{COMPUTE}/os-server-groups",
        f"{IMAGE}/images?owner={member.project}",
        *(f"{NETWORK}/{kind}" for kind in ("networks", "subnets", "ports", "routers", "floatingips")),
        *(f"{NETWORK}/{kind}" for kind in ("security-groups", "security-group-rules")),
        f"{IDENTITY}/users/{member.user}/application_credentials",
        f"{IDENTITY}/credentials",
    ]
    return {place: told(member.client.request("GET", place)) for place in places}
