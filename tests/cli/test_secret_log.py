"""Nothing secret is in any log: a cloud over TLS that logs all it can is asked for whatever has to do with secrets.

Each secret is marked, or taken from the answer that gave it away, and looked for in all that the processes wrote.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from pileus.cli.client import connect
from pileus.cli.place import settings
from tests.cli.simulated import Cloud, until

pytestmark = pytest.mark.slow


@dataclass
class Session:
    """An administrator's session that remembers secrets."""

    cloud: Cloud
    secrets: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def mark(self, what: str) -> str:
        """A secret of our own."""
        return self.keep(what, f"Sesame-{what.replace(' ', '-')}-9f3b")

    def keep(self, what: str, secret: str) -> str:
        """A secret that somebody gave us."""
        assert len(secret) > 8
        self.secrets[what] = secret
        return secret

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = connect(settings(self.cloud.state), 30)
        named = {"x-auth-token": self.token} if self.token else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json", **named})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, json.loads(data) if data else None, found

    def login(self, what: str, method: str, value: dict[str, Any], status: int = 201) -> str:
        held, self.token = self.token, ""
        identity = {"methods": [method], method: value}
        found, answer, headers = self.ask("POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity}})
        self.token = held
        assert found == status, answer
        return self.keep(f"token {what}", headers["x-subject-token"]) if status == 201 else ""


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    cloud = Cloud()
    try:
        words = ("--fake", "1", "--tls", "--set", "log_level=DEBUG", "--listen", cloud.listen)
        cloud.up(*words)
        found = Session(cloud)
        password = found.keep("admin password", (cloud.state / "admin-password").read_text().strip())
        user = {"name": "admin", "password": password, "domain": {"id": "default"}}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        _, _, headers = found.ask("POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity, "scope": scope}})
        found.token = found.keep("admin token", headers["x-subject-token"])
        yield found
    finally:
        cloud.remove()


def use_identity(on: Session) -> None:
    first, second = on.mark("first password"), on.mark("second password")
    status, made, _ = on.ask("POST", "/identity/v3/users", {"user": {"name": "mallory", "password": first}})
    assert status == 201
    user = made["user"]["id"]
    change = {"user": {"original_password": first, "password": second}}
    assert on.ask("POST", f"/identity/v3/users/{user}/password", change)[0] == 204
    who = {"id": user, "password": on.mark("wrong password")}
    on.login("wrong", "password", {"user": who}, 401)
    token = on.login("of mallory", "password", {"user": {"id": user, "password": second}})
    assert on.ask("GET", "/identity/v3/auth/tokens", x_subject_token=token)[0] == 200
    on.ask("GET", f"/identity/v3/users?token={quote(token)}&password={on.mark('query password')}")
    admin = on.ask("GET", "/identity/v3/auth/tokens", x_subject_token=on.token)[1]["token"]["user"]["id"]
    secret = on.mark("application credential")
    body = {"application_credential": {"name": "a", "secret": secret}}
    status, made, _ = on.ask("POST", f"/identity/v3/users/{admin}/application_credentials", body)
    assert status == 201, made
    on.login(
        "of a credential", "application_credential", {"id": made["application_credential"]["id"], "secret": secret}
    )
    blob = json.dumps({"access": "a", "secret": on.mark("blob")})
    project = on.ask("GET", "/identity/v3/auth/projects")[1]["projects"][0]["id"]
    body = {"credential": {"type": "ec2", "blob": blob, "user_id": admin, "project_id": project}}
    assert on.ask("POST", "/identity/v3/credentials", body)[0] == 201
    status, made, _ = on.ask("POST", f"/identity/v3/users/{admin}/credentials/OS-EC2", {"tenant_id": project})
    assert status == 201, made
    on.keep("ec2 secret", made["credential"]["secret"])
    status, made, _ = on.ask("POST", "/identity/v3/OS-OAUTH1/consumers", {"consumer": {"description": "c"}})
    assert status == 201, made
    on.keep("consumer secret", made["consumer"]["secret"])


def use_compute(on: Session) -> None:
    status, made, _ = on.ask("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "pair"}})
    assert status in (200, 201)
    on.keep("private key", made["keypair"]["private_key"].splitlines()[2])
    flavor = on.ask("GET", "/compute/v2.1/flavors")[1]["flavors"][0]["id"]
    image = on.ask("GET", "/image/v2/images")[1]["images"][0]["id"]
    network = on.ask("GET", "/network/v2.0/networks?name=private")[1]["networks"][0]["id"]
    data = base64.b64encode(on.mark("user data").encode()).decode()
    on.keep("user data in base64", data)
    server = {"name": "s", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}], "user_data": data}
    server["adminPass"] = on.mark("adminPass")
    status, made, _ = on.ask("POST", "/compute/v2.1/servers", {"server": server})
    assert status == 202, made
    path = f"/compute/v2.1/servers/{made['server']['id']}"
    until(lambda: on.ask("GET", path)[1]["server"]["status"] == "ACTIVE")
    on.ask("POST", f"{path}/action", {"changePassword": {"adminPass": on.mark("changed adminPass")}})
    on.ask("POST", f"{path}/action", {"rebuild": {"imageRef": image, "adminPass": on.mark("rebuilt adminPass")}})
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    status, made, _ = on.ask("POST", f"{path}/remote-consoles", body, openstack_api_version="compute 2.79")
    if status == 200:
        (token,) = re.findall(r"token(?:=|%3D)([\w-]+)", made["remote_console"]["url"])
        on.keep("console token", token)
        on.ask("GET", f"/compute/v2.1/os-console-auth-tokens/{token}", openstack_api_version="compute 2.99")


def use_badly(on: Session) -> None:
    """What is refused is not told in the log, either."""
    bad = [
        {"user": {"name": "x" * 300, "password": on.mark("password of a long name")}},
        {"user": {"name": "y", "password": {"nested": on.mark("password of a wrong type")}}},
        {"user": {"name": "mallory", "password": on.mark("password of a name that is taken")}},
        {"user": {"name": "z", "password": on.mark("password of a lost domain"), "domain_id": "nowhere"}},
    ]
    for body in bad:
        assert on.ask("POST", "/identity/v3/users", body)[0] in (400, 403, 404, 409)
    on.ask("GET", "/compute/v2.1/servers", x_auth_token=on.mark("bad token"))


def test_no_log_has_a_secret(session: Session) -> None:
    use_identity(session)
    use_compute(session)
    use_badly(session)
    os.kill(session.cloud.pid("control"), signal.SIGABRT)  # what a crash says counts as well
    os.kill(session.cloud.pid("agent"), signal.SIGABRT)
    session.cloud.up()
    logs = {file.name: file.read_text(errors="replace") for file in (session.cloud.state / "log").iterdir()}
    assert {"control.log", "agent.log", "supervisor.log"} <= set(logs)
    assert "ended with status -6" in logs["supervisor.log"]
    found = []
    for what, secret in session.secrets.items():
        for form in {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}:
            found += [f"{what} in {name}" for name, text in logs.items() if form in text]
    assert found == []
    assert len(session.secrets) > 20


def test_each_request_has_one_line_with_its_id_and_who_asked(session: Session) -> None:
    _, _, headers = session.ask("GET", "/compute/v2.1/servers?limit=1")
    asked = headers["x-openstack-request-id"]
    lines: list[str] = []
    deadline = time.monotonic() + 5
    while not lines and time.monotonic() < deadline:  # the line comes just after the answer
        time.sleep(0.01)
        log = session.cloud.log("control")
        lines = [line for line in log.splitlines(keepends=True) if f"[{asked}]" in line and " 200 " in line]
        lines = [line.removesuffix("\n") for line in lines if line.endswith("\n")]
    (line,) = lines
    shape = (
        r"\S+Z control INFO pileus\.request \[req-\S+\] GET /compute/v2\.1/servers\?limit=1 200 \d+\.\d ms "
        r"project=[0-9a-f]{32} user=[0-9a-f]{32} from=127\.0\.0\.1"
    )
    assert re.fullmatch(shape, line), line


def test_the_openstack_client_trusts_the_clouds_own_authority(session: Session) -> None:
    assert f"OS_CACERT='{session.cloud.state / 'ca.pem'}'" in (session.cloud.state / "openrc").read_text()
    found = json.loads(session.cloud.run("openstack", "catalog", "list", "-f", "json").stdout)
    urls = [one["url"] for service in found for one in service["Endpoints"]]
    assert urls
    assert {url.split("/")[0] for url in urls} == {"https:"}
    assert "✓ certificate: " in session.cloud.run("doctor").stdout
    assert "is up" in session.cloud.run("status").stdout
