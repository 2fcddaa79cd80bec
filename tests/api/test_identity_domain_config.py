"""Configuration of single domains: what is kept, what is shown, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.services.identity.rules.compliance import Compliance
from tests.services.identity.cloud import Cloud, make_cloud, ok

CONFIG = {"ldap": {"url": "ldap://x", "user_tree_dn": "ou=us"}, "identity": {"driver": "ldap"}}


@pytest.fixture
def cloud(database_url: str, tmp_path: Path) -> Iterator[Cloud]:
    compliance = Compliance(password_regex="^.{8,}$", password_regex_description="eight or more")
    with make_cloud(database_url, tmp_path, {Compliance: compliance}) as made:
        yield made


def test_a_configuration_from_first_to_last(cloud: Cloud) -> None:
    admin, path = cloud.admin, f"/v3/domains/{cloud.domain('d')}/config"
    ok(admin.request("GET", path), 404)
    assert ok(admin.request("PUT", path, {"config": CONFIG}), 201)["config"] == CONFIG
    assert ok(admin.request("PUT", path, {"config": CONFIG}), 200)["config"] == CONFIG
    assert ok(admin.request("GET", path))["config"] == CONFIG
    assert ok(admin.request("GET", f"{path}/ldap"))["config"] == {"ldap": CONFIG["ldap"]}
    assert ok(admin.request("GET", f"{path}/ldap/url"))["config"] == {"url": "ldap://x"}
    ok(admin.request("HEAD", path))
    changed = ok(admin.request("PATCH", path, {"config": {"ldap": {"url": "ldap://y"}}}))["config"]
    assert changed == {**CONFIG, "ldap": {**CONFIG["ldap"], "url": "ldap://y"}}
    changed = ok(admin.request("PATCH", f"{path}/ldap", {"config": {"ldap": {"suffix": "cn=z"}}}))["config"]
    assert changed["ldap"] == {"url": "ldap://y", "user_tree_dn": "ou=us", "suffix": "cn=z"}
    changed = ok(admin.request("PATCH", f"{path}/ldap/url", {"config": {"url": "ldap://z"}}))["config"]
    assert changed["ldap"]["url"] == "ldap://z"
    ok(admin.request("DELETE", f"{path}/ldap/url"), 204)
    ok(admin.request("GET", f"{path}/ldap/url"), 404)
    ok(admin.request("DELETE", f"{path}/ldap/url"), 404)
    ok(admin.request("PATCH", f"{path}/ldap/url", {"config": {"url": "ldap://z"}}), 404)
    ok(admin.request("DELETE", f"{path}/ldap"), 204)
    assert ok(admin.request("GET", path))["config"] == {"identity": {"driver": "ldap"}}
    ok(admin.request("DELETE", path), 204)
    ok(admin.request("GET", path), 404)
    ok(admin.request("DELETE", path), 204)


def test_what_cannot_be_configured(cloud: Cloud) -> None:
    admin, path = cloud.admin, f"/v3/domains/{cloud.domain('d')}/config"
    ok(admin.request("PUT", path, {"config": CONFIG}), 201)
    bad_ones: list[dict[str, object]] = [{}, {"token": {"x": 1}}, {"ldap": {}}, {"ldap": "x"}, {"ldap": {"red": 1}}]
    for bad in bad_ones:
        ok(admin.request("PUT", path, {"config": bad}), 403)
        ok(admin.request("PATCH", path, {"config": bad}), 403)
    ok(admin.request("PATCH", f"{path}/ldap", {"config": CONFIG}), 403)
    ok(admin.request("PATCH", f"{path}/ldap", {"config": {"identity": {"driver": "sql"}}}), 403)
    ok(admin.request("PATCH", f"{path}/ldap/url", {"config": {"suffix": "x"}}), 403)
    for part in ("token", "ldap/colour"):
        ok(admin.request("GET", f"{path}/{part}"), 403)
        ok(admin.request("DELETE", f"{path}/{part}"), 403)
    ok(admin.request("PUT", "/v3/domains/none/config", {"config": CONFIG}), 404)
    ok(admin.request("GET", "/v3/domains/none/config"), 404)
    assert ok(admin.request("GET", path))["config"] == CONFIG


def test_a_password_is_never_shown(cloud: Cloud) -> None:
    admin, path = cloud.admin, f"/v3/domains/{cloud.domain('d')}/config"
    answer = admin.request("PUT", path, {"config": {"ldap": {"password": "hidden-one", "user": "u"}}})
    assert ok(answer, 201)["config"] == {"ldap": {"user": "u"}}
    assert ok(admin.request("GET", path))["config"] == {"ldap": {"user": "u"}}
    ok(admin.request("GET", f"{path}/ldap/password"), 404)
    shown = ok(admin.request("PATCH", f"{path}/ldap/password", {"config": {"password": "hidden-two"}}))
    assert shown["config"] == {"ldap": {"user": "u"}}
    ok(admin.request("GET", "/v3/domains/config/ldap/password/default"), 403)
    ok(admin.request("DELETE", f"{path}/ldap/password"), 204)


def test_defaults(cloud: Cloud) -> None:
    admin = cloud.admin
    everything = ok(admin.request("GET", "/v3/domains/config/default"))["config"]
    assert set(everything) == {"identity", "ldap"}
    assert "password" not in everything["ldap"]
    assert ok(admin.request("GET", "/v3/domains/config/ldap/default"))["config"] == {"ldap": everything["ldap"]}
    assert ok(admin.request("GET", "/v3/domains/config/identity/driver/default"))["config"] == {"driver": "sql"}
    ok(admin.request("GET", "/v3/domains/config/token/default"), 403)
    ok(admin.request("GET", "/v3/domains/config/ldap/colour/default"), 403)


def test_the_form_of_passwords_is_shown_to_anybody(cloud: Cloud) -> None:
    member = cloud.persona("member", "project", cloud.project("p"))
    path = "/v3/domains/default/config/security_compliance"
    wanted = {"password_regex": "^.{8,}$", "password_regex_description": "eight or more"}
    assert ok(member.request("GET", path))["config"] == {"security_compliance": wanted}
    assert ok(member.request("GET", f"{path}/password_regex"))["config"] == {"password_regex": "^.{8,}$"}
    ok(member.request("GET", f"{path}/lockout_duration"), 403)
    ok(member.request("GET", f"/v3/domains/{cloud.domain('d')}/config/security_compliance"), 403)


def test_who_configures_domains(cloud: Cloud) -> None:
    domain = cloud.domain("d")
    path = f"/v3/domains/{domain}/config"
    ok(cloud.admin.request("PUT", path, {"config": CONFIG}), 201)
    reader = cloud.persona("reader", "system", None)
    others = [cloud.persona("member", "project", cloud.project("p")), cloud.persona("admin", "domain", domain)]
    for place in (path, f"{path}/ldap", f"{path}/ldap/url", "/v3/domains/config/default", "/v3/domains/none/config"):
        assert reader.request("GET", place).status == (404 if "none" in place else 200)
        assert [one.request("GET", place).status for one in others] == [403, 403]
    for client in (reader, *others):
        for place in (path, f"{path}/ldap", f"{path}/ldap/url"):
            ok(client.request("DELETE", place), 403)
            ok(client.request("PATCH", place, {"config": CONFIG}), 403)
        ok(client.request("PUT", path, {"config": CONFIG}), 403)
    assert ok(cloud.admin.request("GET", path))["config"] == CONFIG
