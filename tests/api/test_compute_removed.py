"""Operations that upstream took out answer 410, whatever the version; methods that never were answer 404."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.services.compute.resources.removed import REMOVED
from tests.api.compute_cloud import Cloud, cloud, fault


@pytest.fixture(scope="module", name="cloud")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    place: Path = tmp_path_factory.mktemp("removed")
    with cloud(place) as made:
        yield made


@pytest.mark.parametrize("version", ["2.1", "2.104"])
def test_what_was_taken_out_is_gone(cloud: Cloud, version: str) -> None:
    for operation in REMOVED:
        method, _, path = operation.partition(" ")
        body: dict[str, Any] | None = {"anything": {}} if method in ("POST", "PUT") else None
        found = cloud.ask(method, path.replace("{}", "one"), body, version=version, token="reader:p1")
        assert "no longer available" in fault(found, 410), operation


def test_who_has_no_token_is_not_told(cloud: Cloud) -> None:
    assert cloud.served.client().request("GET", "/compute/v2.1/os-cells").status == 401


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/images/"), ("DELETE", "/images"), ("PATCH", "/servers/x")])
def test_a_method_that_a_path_does_not_have_is_not_found(cloud: Cloud, method: str, path: str) -> None:
    fault(cloud.ask(method, path), 404)


@pytest.mark.parametrize("path", ["/servers/", "/os-simple-tenant-usage/", "/images/detail/"])
def test_an_empty_name_is_not_found(cloud: Cloud, path: str) -> None:
    fault(cloud.ask("GET", path), 404)
