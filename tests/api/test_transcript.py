"""What people type: sessions with the unmodified `openstack` client, one file for each noun or two, all in one process.

A line `$ openstack …` is run, and what follows is what it printed on both streams; `$ name=$(openstack …)` keeps the
output for `$name` below, `$ eval $(openstack … -f shell)` each value by its name, and a line `(exit 1)` is the status
when it is not 0.  `$ su USER PASSWORD PROJECT` is somebody else from there on, `$ su --oauth URL KEYS…` a consumer with
an access token, and `$ exit` the administrator again.  Ids, times and keys differ from run to run and stand as `<id>`,
`<uuid>`, `<time>`, `<key>`.  With PILEUS_TRANSCRIPT=write the files are written anew, to be read.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import re
import shlex
import socket
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from openstackclient import shell
from osc_lib.clientmanager import ClientCache, ClientManager

from tests.api.whole import whole_cloud

PLACE = Path(__file__).parent / "transcript"
UNPLAYED = {
    # Federation is switched off.
    "federation domain", "federation project", "federation protocol", "identity provider", "mapping",
    "service provider",
    # The client shows a property of an object, and has no command that gives one to it.
    "image metadef object property",
}  # fmt: skip

pytestmark = pytest.mark.skipif("PILEUS_TEST_DATABASE" in os.environ, reason="what the client prints knows no engine")

_SHAPES = (
    (re.compile(r"gAAAA[\w-]+=*"), "<token>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:?00)?"), "<time>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://cloud"),
    (re.compile(r"(?m)^((?:secret|access|key): )\S{20,}$"), r"\1<key>"),
    (re.compile(r"(?m)^(oauth_verifier: )[0-9A-Za-z]{8}$"), r"\1<key>"),
)


class Session:
    """A person at a terminal, logged in as the administrator."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = self.own = environment
        self.names: dict[str, str] = {}

    def run(self, command: str) -> str:
        """Run one command; what it printed, and its status when that is not 0."""
        assigned = re.fullmatch(r"(?:(\w+)=|eval )\$\((.*)\)", command)
        line = string.Template(assigned[2] if assigned else command).substitute(self.names)
        program, *argv = shlex.split(line)
        if program in ("su", "exit"):
            self.environment = self._become(*argv) if argv else self.own
            return ""
        assert program == "openstack", f"no such program here: {program}"
        output = io.StringIO()
        # The cloud is in this process, and the client leaves nothing that its log could go to but the terminal.
        logging.getLogger("pileus").addHandler(logging.NullHandler())
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            patch.setattr(logging.getLogger("pileus"), "propagate", False)  # the cloud logs in this process, too,
            patch.setattr(logging, "lastResort", None)  # and the client takes over what goes to no handler
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with contextlib.redirect_stderr(output):
                status = self._client(argv)
        if assigned and not status:
            self.names |= {assigned[1]: output.getvalue().strip()} if assigned[1] else _assignments(output.getvalue())
            return ""
        text = output.getvalue()
        for pattern, name in _SHAPES:
            text = pattern.sub(name, text)
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "".join(f"{line}\n" for line in [*lines, *([f"(exit {status})"] if status else [])])

    def _become(self, *who: str) -> dict[str, str]:
        if who[0] == "--oauth":
            names = ["AUTH_TYPE", "AUTH_URL", "CONSUMER_KEY", "CONSUMER_SECRET", "ACCESS_KEY", "ACCESS_SECRET"]
            values = ["v3oauth1", *who[1:]]
            absent = {"OS_TOKEN", "OS_PROJECT_NAME", "OS_PROJECT_DOMAIN_ID"}
        else:
            names = ["AUTH_TYPE", "USERNAME", "PASSWORD", "PROJECT_NAME", "USER_DOMAIN_ID"]
            values = ["password", *who, "default"]
            absent = {"OS_TOKEN"}
        kept = {name: value for name, value in self.own.items() if name not in absent}
        return kept | {f"OS_{name}": value for name, value in zip(names, values, strict=True)}

    def _client(self, argv: list[str]) -> int:
        for kept in vars(ClientManager).values():
            if isinstance(kept, ClientCache):
                kept._handle = None  # else it acts for whoever was first in this process
        try:
            return int(shell.OpenStackShell().run(argv) or 0)
        except SystemExit as end:
            return int(end.code or 0)

    def play(self, text: str) -> str:
        """The session again: each command with what it prints now. Remarks (`# …`) and empty lines stay."""
        played = []
        for line in text.splitlines():
            if line.startswith("$ "):
                played.append(f"{line}\n{self.run(line[2:])}")
            elif not line or line.startswith("#"):
                played.append(f"{line}\n")
        return "".join(played)


def _assignments(text: str) -> dict[str, str]:
    """What `-f shell` printed."""
    return {name: value for name, _, value in (shlex.split(line)[0].partition("=") for line in text.splitlines())}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cloud that listens, and what tells the client of it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    root = f"127.0.0.1:{listener.getsockname()[1]}"
    with whole_cloud(tmp_path_factory.mktemp("transcript"), listen=root) as whole:
        server = uvicorn.Server(uvicorn.Config(whole.served.edge, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield {
            "OS_AUTH_TYPE": "token",
            "OS_AUTH_URL": f"http://{root}/identity",
            "OS_TOKEN": whole.admin.token or "",
            "OS_PROJECT_NAME": "admin",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_PLACEMENT_API_VERSION": "1.39",
            "OS_CLIENT_CONFIG_FILE": "/dev/null",
            "COLUMNS": "120",
        }
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("name", sorted(path.stem for path in PLACE.glob("*.txt")))
def test_a_session_goes_as_it_is_written(
    environment: dict[str, str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk.raw").write_bytes(b"a disk" * 1000)
    (tmp_path / "policy.json").write_text("{}")
    (tmp_path / "endpoint.json").write_text('{"region_id": "north"}')
    path = PLACE / f"{name}.txt"
    written = path.read_text(encoding="utf-8")
    played = Session(environment).play(written)
    if os.environ.get("PILEUS_TRANSCRIPT") == "write":
        path.write_text(played, encoding="utf-8")
    assert played == path.read_text(encoding="utf-8")


def test_every_noun_of_the_client_is_in_a_session() -> None:
    played = "\n".join(path.read_text(encoding="utf-8") for path in PLACE.glob("*.txt"))
    groups = ("openstack.identity.v3", "openstack.image.v2", "openstack.placement.v1")
    commands = [
        entry.name.replace("_", " ") for group in groups for entry in importlib.metadata.entry_points(group=group)
    ]
    found = {command.rpartition(" ")[0] for command in commands if f"openstack {command} " in played}
    nouns = {command.rpartition(" ")[0] for command in commands}
    assert "access token" in nouns
    assert nouns - found == UNPLAYED
