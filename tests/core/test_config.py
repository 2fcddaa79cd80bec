"""Settings come from files, the environment and options, and all that is wrong with them is said at once."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from pileus.core.config import STATE, Config, ConfigError, check_exposure
from pileus.core.config_origin import NAMES, check, from_text, keep, meanings, places, settle, shown


def write(directory: Path, text: str, name: str = "pileus.toml") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def refusal(directory: Path, text: str) -> list[str]:
    write(directory, text)
    with pytest.raises(ConfigError) as failed:
        settle(directory, environment={})
    return str(failed.value).split("\n  ")


def test_later_places_count_and_each_value_knows_where_it_comes_from(tmp_path: Path) -> None:
    operator = write(tmp_path, 'region = "Operator"\nfake = 1\nhost = "a"\nfake_seed = 1\n', "operator.toml")
    kept = write(tmp_path, "# kept\nfake = 2\nhost = 'b'\nfake_seed = 2\n")
    environment = {"PILEUS_CONFIG": str(operator), "PILEUS_HOST": "c", "PILEUS_FAKE_SEED": "3"}
    settled = settle(tmp_path, {"fake_seed": 4, "listen": None}, environment)
    config = settled.config
    assert (config.region, config.fake, config.host, config.fake_seed) == ("Operator", 2, "c", 4)
    assert settled.origins == {
        "region": f"{operator}:1",
        "fake": f"{kept}:2",
        "host": "PILEUS_HOST",
        "fake_seed": "--fake-seed",
    }


def test_the_operators_file_is_of_the_cloud_in_its_usual_place() -> None:
    assert [str(one) for one in places(STATE, {})] == ["/etc/pileus/pileus.toml", "/var/lib/pileus/pileus.toml"]
    assert places(Path("/srv/other"), {}) == [Path("/srv/other/pileus.toml")]


def test_everything_wrong_is_named_with_its_line_and_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "pileus.toml"
    text = 'lissten = "x"\n\nfake = "many"\nfake_failures = 1.5\nimport_allowed_ports = [\n  80,\n  0,\n]\nspeed = 3\n'
    assert refusal(tmp_path, text) == [
        f"{file}:1: there is no setting `lissten`; did you mean `listen`?",
        f"{file}:3: fake: Expected `int`, got `str`",
        f"{file}:4: fake_failures: Expected `float` <= 1.0",
        f"{file}:5: import_allowed_ports: Expected `int` >= 1 (at [1])",
        f"{file}:9: there is no setting `speed`",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("fake = 1\nlisten = ", 2, "this is not TOML"),
        ("[image]\nstores = []", 1, "there is no setting `image`"),
        ('state = "/elsewhere"', 1, "there is no setting `state`"),
        ('password_regex = """\nfake = x\n"""\nlog_level = "loud"', 4, "log_level: Invalid enum value 'loud'"),
        ('log_levels = ["pileus.request"]', 1, "not of the form LOGGER=LEVEL"),
        ('\n\ntls_key = "/k"', 1, "tls_certificate is not set"),
        ('tls = true\ntls_key = "/k"\ntls_certificate = "/c"', 1, "choose one"),
        ('tls_certificate = "c"\ntls_key = "/k"', 1, "not a path from the root"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (said,) = refusal(tmp_path, text)
    assert words in said
    assert f"pileus.toml:{line}: " in said or "tls_certificate is not set" in said


def test_a_variable_that_is_almost_a_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PILEUS_LISTN: there is no setting `listn`; did you mean PILEUS_LISTEN"):
        settle(tmp_path, environment={"PILEUS_LISTN": "x"})
    with pytest.raises(ConfigError, match="PILEUS_FAKE: fake: Expected `int`, got `str`"):
        settle(tmp_path, environment={"PILEUS_FAKE": "x"})
    assert settle(tmp_path, environment={"PILEUS_STATE": "x", "PILEUS_TEST_DATABASE": "x"}).origins == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("listen", "::1:5", "::1:5"),
        ("fake", "3", 3),
        ("tls", "true", True),
        ("token_hours", "1.5", 1.5),
        ("import_allowed_ports", "80, 443", [80, 443]),
        ("import_allowed_hosts", "a, b", ["a", "b"]),
        ("import_allowed_hosts", '["a"]', ["a"]),
        ("import_networks", "", []),
        ("database", "sqlite:///x", "sqlite:///x"),
    ],
)
def test_values_of_variables(name: str, text: str, value: object) -> None:
    assert from_text(name, text) == value


def test_a_file_is_checked_alone(tmp_path: Path) -> None:
    write(tmp_path, "fake = 1")
    assert check(write(tmp_path, "fake_seed = 2", "other.toml"), tmp_path).config.fake == 0
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nowhere.toml")


def test_options_are_kept_and_other_lines_stay(tmp_path: Path) -> None:
    keep(tmp_path, {"fake": None})
    file = write(tmp_path, '# mine\nfake = 1  # why\nimport_allowed_ports = [\n 80,\n]\nhost = "x"\n')
    keep(tmp_path, {"fake": 2, "import_allowed_ports": [81], "region": 'a"b', "listen": None})
    assert file.read_text() == '# mine\nfake = 2\nimport_allowed_ports = [81]\nhost = "x"\nregion = "a\\"b"\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.stat().st_mtime_ns
    keep(tmp_path, {"fake": 2})
    assert file.stat().st_mtime_ns == before


def test_passwords_are_masked() -> None:
    url = "postgresql+psycopg://pileus:sesame@db/pileus?password=sesame"
    assert shown("database", url) == '"postgresql+psycopg://pileus:***@db/pileus?password=***"'
    assert "sesame" not in shown("database", "postgresql://:sesame@")


def test_every_setting_has_a_meaning() -> None:
    means = meanings()
    assert [name for name in NAMES if len(means.get(name, "")) < 10] == []


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"listen": "127.0.0.1:5000"}, False),
        ({"listen": "127.3.2.1:5000"}, False),
        ({"listen": "[::1]:5000"}, False),
        ({"listen": "localhost:5000"}, False),
        ({"listen": "0.0.0.0:5000"}, True),
        ({"listen": "[::]:5000"}, True),
        ({"listen": "192.0.2.1:5000"}, True),
        ({"listen": "cloud.example.org:5000"}, True),
        ({"listen": "192.0.2.1:5000", "public_url": "https://cloud.example.org"}, True),
        ({"listen": "192.0.2.1:5000", "allow_plain_http": True}, False),
        ({"listen": "192.0.2.1:5000", "tls": True}, False),
        ({"listen": "192.0.2.1:5000", "tls_certificate": "/c", "tls_key": "/k"}, False),
    ],
)
def test_plain_http_is_for_the_loopback(settings: dict[str, object], refused: bool) -> None:
    config = Config(state=Path("/x"), **settings)  # type: ignore[arg-type] # of several types
    if not refused:
        check_exposure(config)
        return
    with pytest.raises(ConfigError, match=re.escape("`--tls`")) as failed:
        check_exposure(config)
    assert "allow_plain_http" in str(failed.value)
