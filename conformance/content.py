"""What the tests expect to find in a cloud: two flavors, two images, a network to the outside and default subnet pools.

Made through the public API, with the client library that everybody uses.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openstack.connection import Connection

PUBLIC = "172.24.5.0/24"
PUBLIC_V6 = "2001:db8:ffff::/64"
POOLS = (("10.64.0.0/16", 24), ("fd00:64::/48", 64))
"""Prefix and length of the subnets out of it: the default pools, out of which networks are made on their own."""

FLAVORS = (("conformance.nano", 1, 128, 1), ("conformance.micro", 1, 192, 2))
"""Name, vCPUs, MiB, GiB. The image tiny boots with 96 MiB."""

REMOTE = "image_remote"
"""Type under which the catalog names the image service once more."""

ORIGIN = ("192.175.48.80", 80)
"""Where images are served that the cloud is to fetch. It stands for the world outside, and so must be a public address
in the cloud's eyes; it is of the block that RFC 7534 sets aside for answers to stray questions, and stays inside."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Ids of what was made, under the names that the templates of Tempest's configuration use."""

    flavor: str
    flavor_alt: str
    image: str
    image_alt: str
    public_network: str
    network_extensions: str
    """What the cloud announces, separated by commas."""

    def names(self) -> dict[str, str]:
        """As a template's substitutions."""
        return {name: str(value) for name, value in asdict(self).items()}


def make(cloud: Connection, disk: Path) -> Content:
    """Make it; `disk` is the image tiny, a qcow2 file."""
    flavors = [
        cloud.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=size).id for name, vcpus, ram, size in FLAVORS
    ]
    images = [_image(cloud, name, disk) for name in ("conformance", "conformance-alt")]
    public = cloud.network.create_network(name="public", is_router_external=True, is_default=True)
    for name, version, cidr in (("public", 4, PUBLIC), ("public-v6", 6, PUBLIC_V6)):
        cloud.network.create_subnet(
            name=name, network_id=public.id, ip_version=version, cidr=cidr, is_dhcp_enabled=False
        )
    for prefix, length in POOLS:
        cloud.network.create_subnet_pool(
            name="pool", prefixes=[prefix], default_prefixlen=length, is_default=True, is_shared=True
        )
    # Any process that serves images serves all of them: to the tests of several, one is as remote as another.
    remote = cloud.create_service(name="glance-remote", type=REMOTE)
    cloud.create_endpoint(
        remote.id, url=cloud.image.get_endpoint(), interface="public", region=cloud.config.get_region_name()
    )
    return Content(
        flavor=flavors[0],
        flavor_alt=flavors[1],
        image=images[0],
        image_alt=images[1],
        public_network=public.id,
        network_extensions=",".join(sorted(extension.alias for extension in cloud.network.extensions())),
    )


def _image(cloud: Connection, name: str, disk: Path) -> str:
    image = cloud.create_image(
        name, filename=str(disk), disk_format="qcow2", container_format="bare", visibility="public", wait=True
    )
    if image is None:
        raise LookupError(f"the image {name} was not made")
    return str(image.id)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def origin(folder: Path) -> Iterator[str]:
    """Serve the files of a folder to the cloud; the root URL."""
    server = http.server.ThreadingHTTPServer(ORIGIN, functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{ORIGIN[0]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
