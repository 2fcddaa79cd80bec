"""Projects with users of their own, each seen through the unmodified SDK as its owner sees it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pileus.drivers.host.process import apart
from tests.real.cloud import Cloud, run, until

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")

SDK = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
"""For tests that use the SDK, which warns itself of its own later versions."""


class Tenant:
    """A user in a project."""

    def __init__(self, cloud: Cloud, user: str, password: str, project: str) -> None:
        self.cloud = cloud
        self.name = project
        self.auth = {"username": user, "password": password, "project_name": project}
        self.key = cloud.state / f"{project}.key"

    def do(self, act: Callable[[Connection], T]) -> T:
        """Let a session of the SDK do something, from where the cloud is."""
        return apart(lambda: act(self._session), self.cloud.namespace)

    @cached_property
    def _session(self) -> Connection:
        import openstack

        domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
        return openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            region_name="RegionOne",
            auth={"auth_url": "http://127.0.0.1:5000/identity/v3", **self.auth, **domains},
        )

    def keypair(self) -> str:
        """The name of this tenant's key pair, made when it is missing."""
        if not self.key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", self.key)
            public = self.key.with_name(self.key.name + ".pub").read_text()
            self.do(lambda session: session.compute.create_keypair(name=self.name, public_key=public))
        return self.name

    def status(self, kind: str, identifier: str) -> int:
        """The HTTP status of a GET of something by its id, e.g. of `network/ports`."""
        return int(self._get(f"{kind}/{identifier}").status_code)

    def ids(self, kind: str) -> set[str]:
        """The ids in a list, e.g. of `network/ports`."""
        (listed,) = (value for value in self._get(kind).json().values() if isinstance(value, list))
        return {one["id"] for one in listed}

    def _get(self, place: str) -> Any:
        service, _, path = place.partition("/")
        return self.do(lambda session: getattr(session, service).get(f"/{path}"))


def administrator(cloud: Cloud) -> Tenant:
    """Who made the cloud."""
    return Tenant(cloud, "admin", (cloud.state / "admin-password").read_text().strip(), "admin")


def tenant(admin: Tenant, name: str) -> Tenant:
    """A new project, with a new user who is a member of it."""

    def make(session: Connection) -> None:
        identity: Any = session.identity  # of version 2 or 3, says the SDK
        project = identity.create_project(name=name, domain_id="default")
        user = identity.create_user(name=name, password=f"secret-of-{name}", domain_id="default")
        role = identity.find_role("member", ignore_missing=False)
        identity.assign_project_role_to_user(project, user, role)

    admin.do(make)
    return Tenant(admin.cloud, name, f"secret-of-{name}", name)


def furnish(admin: Tenant, tiny: Path) -> None:
    """What a cloud without demo content lacks: the flavor `nano`, the image `tiny`, the external network `public`."""

    def make(session: Connection) -> None:
        session.compute.create_flavor(name="nano", vcpus=1, ram=128, disk=1)
        session.create_image(
            "tiny", filename=str(tiny), disk_format="qcow2", container_format="bare", visibility="public", wait=True
        )
        public = session.network.create_network(name="public", is_router_external=True)
        session.network.create_subnet(
            name="public", network_id=public.id, ip_version=4, cidr="172.24.4.0/24", is_dhcp_enabled=False
        )

    admin.do(make)


@dataclass
class Land:
    """A tenant's network behind a router."""

    network: str
    subnet: str
    router: str


def settle(owner: Tenant, cidr: str, cidr_6: str | None = None) -> Land:
    """A network with a subnet of this range, and one for SLAAC, behind a router with an external gateway."""

    def make(session: Connection) -> Land:
        network = session.network.create_network(name="inner")
        subnets = [session.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr)]
        if cidr_6 is not None:
            modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
            subnets.append(
                session.network.create_subnet(network_id=network.id, ip_version=6, cidr=cidr_6, **modes)
            )  # fmt: skip
        public = session.network.find_network("public", ignore_missing=False)
        router = session.network.create_router(name="way", external_gateway_info={"network_id": public.id})
        for subnet in subnets:
            session.network.add_interface_to_router(router, subnet=subnet.id)
        return Land(network.id, subnets[0].id, router.id)

    return owner.do(make)


def let_in(owner: Tenant, **rule: Any) -> None:
    """Add a rule to the default group of a project that lets IPv4 in."""

    def make(session: Connection) -> None:
        groups = session.network.security_groups(name="default", project_id=session.current_project_id)
        session.network.create_security_group_rule(
            security_group_id=next(iter(groups)).id, direction="ingress", ether_type="IPv4", **rule
        )

    owner.do(make)


class Guest:
    """A server with a floating IP, in the group of this id, or the default one."""

    def __init__(
        self, owner: Tenant, land: Land, name: str, ip: str, group: str | None = None, user_data: str = ""
    ) -> None:
        self.owner = owner
        self.name = name
        self.ip = ip
        key = owner.keypair()
        more: dict[str, Any] = {"user_data": base64.b64encode(user_data.encode()).decode()} if user_data else {}

        def make(session: Connection) -> None:
            asked = {} if group is None else {"security_groups": [group]}
            fixed = [{"subnet_id": land.subnet, "ip_address": ip}]
            port = session.network.create_port(network_id=land.network, fixed_ips=fixed, **asked)
            server = session.compute.create_server(
                name=name,
                image_id=session.image.find_image("tiny", ignore_missing=False).id,
                flavor_id=session.compute.find_flavor("nano", ignore_missing=False).id,
                networks=[{"port": port.id}],
                key_name=key,
                **more,
            )
            public = session.network.find_network("public", ignore_missing=False)
            address = session.network.create_ip(floating_network_id=public.id, port_id=port.id)
            self.port, self.mac, self.server = port.id, str(port.mac_address), server.id
            self.floating, self.floating_id = str(address.floating_ip_address), address.id

        owner.do(make)

    def shell(self, command: str, *, check: bool = True) -> str:
        """Run a command on the guest as `cirros`."""
        return self.owner.cloud.ssh(self.floating, command, key=self.owner.key, check=check)

    def console(self) -> str:
        """What the guest printed."""
        return str(self.owner.do(lambda session: session.compute.get_server_console_output(self.server))["output"])

    def booted(self, seconds: float = 300) -> None:
        """Wait until the guest has said on its console that it serves."""
        until(lambda: "=== tiny ready" in self.console(), f"{self.name} is ready", seconds, 0.5)
