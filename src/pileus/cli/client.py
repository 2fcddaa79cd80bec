"""A small client of the public API, for commands that ask the cloud about itself."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pileus.cli.main import CommandFailure
from pileus.cli.place import hint, settings

if TYPE_CHECKING:
    from pileus.core.config import Config

CLOUD = "pileus"
"""Name of the entry in `clouds.yaml`."""


class ApiFailure(CommandFailure):
    """The cloud does not answer, or says no: `code` is the HTTP status, 0 when there was none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def credentials(state: Path) -> dict[str, Any]:
    """The entry of `clouds.yaml`. Raises CommandFailure when there is none."""
    file = state / "clouds.yaml"
    try:
        entry: dict[str, Any] = yaml.safe_load(file.read_text())["clouds"][CLOUD]
    except FileNotFoundError:
        raise CommandFailure(
            f"there is no cloud in {state}: start one with `pileus up`, or name it by --state{hint(state)}"
        ) from None
    except PermissionError:
        raise CommandFailure(f"{file} belongs to another user: run this as the one who runs the cloud") from None
    return entry


def local_address(config: Config) -> tuple[str, int]:
    """Address and port of the API as this machine reaches it."""
    host, port = config.address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - what was bound, not a binding


def local_root(config: Config) -> str:
    """The root of the API as this machine reaches it, whatever name the world knows it by."""
    host, port = local_address(config)
    return f"{config.scheme}://[{host}]:{port}" if ":" in host else f"{config.scheme}://{host}:{port}"


def connect(config: Config, timeout: float) -> http.client.HTTPConnection:
    """A connection to the API, to be closed. Over TLS it is the one whose certificate this cloud's settings name.

    Raises OSError when there is no such certificate.
    """
    host, port = local_address(config)
    if config.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The names are for others: whoever holds the key of this very certificate, or of the cloud's authority, is it.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(config.tls_certificate or config.state / "ca.pem")
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


class Api:
    """An administrator's session with the cloud of a state directory."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._auth = credentials(state)["auth"]
        self._config = settings(state)
        self._root = local_root(self._config)
        self._token = ""

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        """GET a path below the cloud's root, e.g. `/compute/v2.1/servers`. Raises ApiFailure."""
        if not self._token:
            self._login()
        return self._call("GET", path, None, headers)[0]

    def delete(self, path: str) -> None:
        """DELETE a path below the cloud's root. Raises ApiFailure."""
        if not self._token:
            self._login()
        self._call("DELETE", path, None)

    def _login(self) -> None:
        auth = self._auth
        user = {"name": auth["username"], "password": auth["password"], "domain": {"name": auth["user_domain_name"]}}
        project = {"name": auth["project_name"], "domain": {"name": auth["project_domain_name"]}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": {"project": project}}}
        try:
            _, headers = self._call("POST", "/identity/v3/auth/tokens", body)
        except ApiFailure as failure:
            if failure.code != 401:
                raise
            file = self._state / "admin-password"
            raise ApiFailure(
                f"the password in {file} is not the administrator's any more: write the new one there, "
                "then run `pileus up`",
                401,
            ) from None
        self._token = headers["X-Subject-Token"] or ""

    def _call(
        self, method: str, path: str, body: Any, more: dict[str, str] | None = None
    ) -> tuple[Any, http.client.HTTPMessage]:
        headers = {"content-type": "application/json", "x-auth-token": self._token, **(more or {})}
        if not self._token:
            del headers["x-auth-token"]
        connection = None
        try:
            connection = connect(self._config, 30)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            found = json.loads(content) if content else None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ApiFailure(f"the cloud does not answer at {self._root}: {error}") from None
        finally:
            if connection is not None:
                connection.close()
        if answer.status >= 400:
            raise ApiFailure(f"{method} {path}: {answer.status}: {_message(found)}", answer.status)
        return found, answer.headers


def _message(found: Any) -> str:
    while isinstance(found, dict) and found:
        found = found.get("message") or next(iter(found.values()))
    return str(found)
