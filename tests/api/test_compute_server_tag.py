"""Tags of servers whose text is not made for a header."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.compute.cloud import Cloud, at


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        found.image()
        found.flavor("1")
        yield found


@pytest.mark.parametrize("name", ["☃", "a\r\nx-other: b", "two words"])
def test_locations_of_any_text(cloud: Cloud, name: str) -> None:
    cloud.host("h1")
    server_id = cloud.made()
    cloud.reach(server_id, "ACTIVE")
    path = f"/compute/v2.1/servers/{server_id}/tags/{name}"
    found = cloud.member.request("PUT", path, headers=at("2.26"))
    assert found.status == 201, found
    location = found.headers["location"]
    assert location.isascii()
    assert not set(location) & set("\r\n ")
    assert cloud.show(server_id)["tags"] == [name]
