"""Runs Tempest in its environment, and hears what becomes of each test."""

from __future__ import annotations

import configparser
import os
import shutil
import string
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from conformance.area import HOME, base
from conformance.environment import program
from conformance.stream import Report, reports

CONFIGURATIONS = ("tempest.conf", "tempest-lenient.conf")
"""Templates of Tempest's configuration: the first, and one of what differs, for the tests that the first skipped."""

TEST_TIMEOUT = 900
"""Seconds that one test may take."""

NO_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")
"""The cloud is in a namespace where no proxy is."""


class TempestFailure(Exception):
    """Tempest did not run; the message has what it said."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A folder in which Tempest runs with one configuration."""

    place: Path

    def make(self, template: str, names: Mapping[str, str]) -> None:
        """Lay it out anew, with the `${…}` of the templates filled in. Raises KeyError when a name has no value."""
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / "etc").mkdir(parents=True, mode=0o700)
        parser = configparser.ConfigParser(interpolation=None)
        for name in dict.fromkeys((CONFIGURATIONS[0], template)):
            text = string.Template((HOME / name).read_text(encoding="utf-8"))
            parser.read_string(text.substitute(names, workspace=str(self.place)))
        with (self.place / "etc" / "tempest.conf").open("w", encoding="utf-8") as file:
            parser.write(file)
        discover = self._ask("import tempest.test_discover as found; print(found.__path__[0])")
        lines = ["[DEFAULT]", f"test_path={discover}", f"top_dir={Path(discover).parents[1]}"]
        # A class shares what it prepares: its tests stay with one worker.
        lines += [r"group_regex=([^\.]*\.)*", ""]
        (self.place / ".stestr.conf").write_text("\n".join(lines), encoding="utf-8")
        self._stestr("init")

    def known(self) -> dict[str, list[str]]:
        """The ids of all tests that are installed, by base name. Raises TempestFailure."""
        found: dict[str, list[str]] = {}
        for line in self._stestr("list").splitlines():
            found.setdefault(base(line), []).append(line)
        if not found:
            raise TempestFailure("no test was found")
        return found

    def run(self, tests: Sequence[str], workers: int, heard: Callable[[Report], None]) -> None:
        """Run tests by id. Each is heard when it ends."""
        if not tests:
            return  # an empty list would run all there are
        chosen = self.place / "chosen"
        chosen.write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
        command = [str(program("stestr")), "run", "--subunit", f"--concurrency={workers}", f"--load-list={chosen}"]
        with (
            (self.place / "stderr").open("w") as errors,
            subprocess.Popen(
                command, cwd=self.place, env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors,
            ) as child,
        ):  # fmt: skip
            try:
                for report in reports(cast(BinaryIO, child.stdout)):
                    heard(report)
            except BaseException:
                child.terminate()
                raise

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in NO_VARIABLES}
        kept.pop("PYTHONPATH", None)
        mine = {
            "PATH": f"{program('python').parent}:{kept.get('PATH', '')}",
            "TEMPEST_CONFIG_DIR": str(self.place / "etc"),
            "TEMPEST_CONFIG": "tempest.conf",
            "OS_TEST_TIMEOUT": str(TEST_TIMEOUT),
            "OS_STDOUT_CAPTURE": "1",
            "OS_STDERR_CAPTURE": "1",
            "OS_LOG_CAPTURE": "1",
        }
        return kept | mine

    def _stestr(self, *arguments: str) -> str:
        return self._call(str(program("stestr")), *arguments)

    def _ask(self, code: str) -> str:
        return self._call(str(program("python")), "-c", code).strip()

    def _call(self, *command: str) -> str:
        done = subprocess.run(
            command, check=False, cwd=self.place, env=self._environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise TempestFailure(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:] or done.stdout[-2000:]}")
        return done.stdout
