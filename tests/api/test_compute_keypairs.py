"""Key pairs through the real edge."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from tests.services.compute.cloud import PROJECT, Cloud, at

KEYPAIRS = "/compute/v2.1/os-keypairs"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX8nHInsdWOCyN3b8wIQXMqHzbbJybgxcibCtO3CHH5 me"
PRINT = "9f:37:2e:c2:c7:69:93:be:05:fd:fe:c1:0f:f3:81:07"


@pytest.fixture
def cloud(database_url: str) -> Iterator[Cloud]:
    with Cloud(database_url) as found:
        yield found


@pytest.mark.parametrize(
    ("version", "body", "status"),
    [
        ("2.1", {"name": "k"}, 200),
        ("2.1", {"name": "k", "public_key": KEY}, 200),
        ("2.1", {"name": "k", "type": "ssh"}, 400),
        ("2.2", {"name": "k", "type": "ssh"}, 201),
        ("2.2", {"name": "k", "type": "x509"}, 201),
        ("2.92", {"name": "k", "type": "x509"}, 400),
        ("2.9", {"name": "k", "user_id": "u"}, 400),
        ("2.10", {"name": "k", "user_id": f"{PROJECT}-user"}, 201),
        ("2.10", {"name": "k", "user_id": "somebody"}, 403),
        ("2.91", {"name": "k"}, 201),
        ("2.92", {"name": "k"}, 400),
        ("2.92", {"name": "k", "public_key": KEY}, 201),
        ("2.91", {"name": "me@home.org", "public_key": KEY}, 400),
        ("2.92", {"name": "me@home.org", "public_key": KEY}, 201),
        ("2.1", {"name": ""}, 400),
        ("2.1", {"name": "k" * 256}, 400),
        ("2.1", {"name": " k"}, 400),
        ("2.1", {"name": "k", "public_key": "nonsense"}, 400),
        ("2.1", {"name": "k", "other": 1}, 400),
        ("2.1", {}, 400),
    ],
)
def test_bodies(cloud: Cloud, version: str, body: dict[str, object], status: int) -> None:
    found = cloud.member.request("POST", KEYPAIRS, json={"keypair": body}, headers=at(version))
    assert found.status == status, found


def test_import(cloud: Cloud) -> None:
    made = cloud.member.request(
        "POST", KEYPAIRS, json={"keypair": {"name": "k", "public_key": KEY}}, headers=at("2.92")
    )
    assert made.json["keypair"] == {
        "name": "k",
        "public_key": KEY,
        "fingerprint": PRINT,
        "user_id": f"{PROJECT}-user",
        "type": "ssh",
    }
    shown = cloud.member.request("GET", f"{KEYPAIRS}/k", headers=at("2.92")).json["keypair"]
    assert shown["public_key"] == KEY
    assert (shown["deleted"], shown["id"]) == (False, 1)
    assert "type" not in cloud.member.request("GET", f"{KEYPAIRS}/k").json["keypair"]


def test_a_private_key_is_shown_once(cloud: Cloud) -> None:
    made = cloud.member.request("POST", KEYPAIRS, json={"keypair": {"name": "k"}}).json["keypair"]
    assert "OPENSSH PRIVATE KEY" in made["private_key"]
    assert "private_key" not in cloud.member.request("GET", f"{KEYPAIRS}/k").json["keypair"]


def test_a_pair_for_windows_is_a_certificate_and_an_archive(cloud: Cloud) -> None:
    body = {"keypair": {"name": "k", "type": "x509"}}
    made = cloud.member.request("POST", KEYPAIRS, json=body, headers=at("2.2")).json["keypair"]
    certificate = x509.load_pem_x509_certificate(made["public_key"].encode())
    [common_name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == f"{PROJECT}-user"
    assert made["fingerprint"] == certificate.fingerprint(hashes.SHA1()).hex(":")
    private, held, _ = pkcs12.load_key_and_certificates(base64.b64decode(made["private_key"]), None)
    assert held == certificate
    assert isinstance(private, rsa.RSAPrivateKey)
    assert private.public_key() == certificate.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value[2:].decode() for one in names.get_values_for_type(x509.OtherName)] == [
        f"{PROJECT}-user@localhost"
    ]


def test_delete(cloud: Cloud) -> None:
    for version, status in (("2.1", 202), ("2.2", 204)):
        cloud.member.request("POST", KEYPAIRS, json={"keypair": {"name": "k"}})
        assert cloud.member.request("DELETE", f"{KEYPAIRS}/k", headers=at(version)).status == status
        assert cloud.member.request("DELETE", f"{KEYPAIRS}/k", headers=at(version)).status == 404


def test_names_belong_to_users(cloud: Cloud) -> None:
    body = {"keypair": {"name": "k", "public_key": KEY}}
    assert cloud.member.request("POST", KEYPAIRS, json=body).status == 200
    assert cloud.member.request("POST", KEYPAIRS, json=body).status == 409
    assert cloud.stranger.request("GET", f"{KEYPAIRS}/k").status == 404
    assert cloud.stranger.request("POST", KEYPAIRS, json=body).status == 200
    other = f"{KEYPAIRS}?user_id={PROJECT}-user"
    assert cloud.stranger.request("GET", other, headers=at("2.10")).status == 403
    admin = cloud.served.client("admin:admins")
    assert len(admin.request("GET", other, headers=at("2.10")).json["keypairs"]) == 1
    assert admin.request("GET", other, headers=at("2.9")).json["keypairs"] == []


def test_pages(cloud: Cloud) -> None:
    for name in ("c", "a", "b"):
        cloud.member.request("POST", KEYPAIRS, json={"keypair": {"name": name, "public_key": KEY}})
    every = cloud.member.request("GET", KEYPAIRS).json["keypairs"]
    assert [one["keypair"]["name"] for one in every] == ["a", "b", "c"]
    page = cloud.member.request("GET", f"{KEYPAIRS}?limit=2", headers=at("2.35")).json
    assert [one["keypair"]["name"] for one in page["keypairs"]] == ["a", "b"]
    assert "marker=b" in page["keypairs_links"][0]["href"]
    rest = cloud.member.request("GET", f"{KEYPAIRS}?marker=b", headers=at("2.35")).json
    assert [one["keypair"]["name"] for one in rest["keypairs"]] == ["c"]
    assert len(cloud.member.request("GET", f"{KEYPAIRS}?limit=2", headers=at("2.34")).json["keypairs"]) == 3
    assert cloud.member.request("GET", f"{KEYPAIRS}?marker=x", headers=at("2.35")).status == 400
    assert cloud.member.request("GET", f"{KEYPAIRS}?x=1", headers=at("2.75")).status == 400


def test_quota_is_by_user(cloud: Cloud) -> None:
    path = f"/compute/v2.1/os-quota-sets/{PROJECT}"
    assert cloud.admin.request("PUT", path, json={"quota_set": {"key_pairs": 1}}).status == 200
    one = cloud.served.client(f"member:{PROJECT}:ann")
    two = cloud.served.client(f"member:{PROJECT}:bob")
    for client in (one, two):
        assert client.request("POST", KEYPAIRS, json={"keypair": {"name": "k"}}).status == 200
        found = client.request("POST", KEYPAIRS, json={"keypair": {"name": "l"}})
        assert found.status == 403
        assert found.json["forbidden"]["message"] == "Quota exceeded, too many key pairs."
    assert one.request("DELETE", f"{KEYPAIRS}/k").status == 202
    assert one.request("POST", KEYPAIRS, json={"keypair": {"name": "l"}}).status == 200
