"""The parts of the image debian that need no packages: sources, owners, our own files over a system."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from pileus.cli.image import BuildFailure, bootstrap, build_debian, staging
from pileus.cli.image.disk import MEBIBYTE, edit_root, format_root

LISTING = """\
Debian\tDebian\tbookworm\tmain\thttp://mirror.example/debian/
Debian\tDebian\tbookworm-updates\tmain\thttp://mirror.example/debian/
Debian\tDebian-Security\tbookworm-security\tmain\thttp://mirror.example/debian-security/
Somebody\tDebian\tbookworm\tmain\thttp://other.example/
Debian\tDebian\tbookworm\tmain\thttp://mirror.example/debian/
"""


def test_only_debians_own_sources_are_taken() -> None:
    found = bootstrap.parse_origin(LISTING)
    assert found.suite == "bookworm"
    assert found.lines == (
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm-updates main",
        "deb http://mirror.example/debian-security/ bookworm-security main",
    )


@pytest.mark.parametrize("listing", ["", "Ubuntu\tUbuntu\tnoble\tmain\thttp://other.example/\n", "broken\n"])
def test_a_host_without_sources_of_debian_is_told(listing: str) -> None:
    with pytest.raises(BuildFailure, match="apt-get update"):
        bootstrap.parse_origin(listing)


def archive(file: Path) -> Path:
    """A small system as mmdebstrap leaves one."""
    with tarfile.open(file, "w") as stream:
        for name in ("etc", "etc/ssh", "etc/systemd", "etc/systemd/system", "boot", "srv", "dev"):
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            stream.addfile(entry)
        for name, uid, mode in (
            ("etc/ssh/ssh_host_rsa_key", 0, 0o600),
            ("etc/hostname", 0, 0o644),
            ("boot/vmlinuz-6.1.0-9-cloud-amd64", 0, 0o644),
            ("boot/initrd.img-6.1.0-9-cloud-amd64", 0, 0o644),
            ("srv/a file", 4321, 0o4750),
            ("dev/null-like", 0, 0o644),
        ):
            content = name.encode()
            entry = tarfile.TarInfo(f"./{name}")
            entry.uid, entry.gid, entry.mode, entry.size = uid, uid, mode, len(content)
            stream.addfile(entry, io.BytesIO(content))
    return file


def test_a_system_becomes_a_file_system_with_its_owners(tmp_path: Path) -> None:
    system = tmp_path / "system"
    owned = staging.unpack(archive(tmp_path / "system.tar"), system)
    if os.geteuid() == 0:
        assert owned == []
    values = {"ROOT_UUID": "the-root"}
    owned += staging.configure(system, values)
    assert not (system / "etc/ssh/ssh_host_rsa_key").exists(), "no two servers share a key"
    assert list((system / "dev").iterdir()) == []
    assert "UUID=the-root  /  " in (system / "etc/fstab").read_text()
    assert (system / "etc/machine-id").read_text() == ""
    assert (system / "etc/resolv.conf").readlink() == Path(staging.RESOLVER)
    assert (system / "etc/systemd/system/apt-daily.timer").readlink() == Path("/dev/null")
    for name in ("etc/kernel/postinst.d/zz-loader", "etc/initramfs/post-update.d/zz-loader"):
        assert stat.S_IMODE((system / name).stat().st_mode) == 0o755
    release, image, first_root = staging.kernel(system)
    assert (release, image[:12], first_root[:15]) == ("6.1.0-9-cloud-amd64", b"boot/vmlinuz", b"boot/initrd.img")
    assert staging.space(system) > 4096

    # As if someone else had unpacked it.
    file = tmp_path / "root"
    format_root(file, 16 * MEBIBYTE, system, 1_700_000_000, "debian root")
    edit_root(file, staging.ownership([staging.Owned("/srv/a file", 4321, 4322)]), 1_700_000_000)
    with pytest.raises(BuildFailure, match="not found"):
        edit_root(file, staging.ownership([staging.Owned("/srv/nothing", 1, 1)]), 1_700_000_000)


def test_a_system_without_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildFailure, match="no kernel"):
        staging.kernel(tmp_path)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-1").touch()
    with pytest.raises(BuildFailure, match="no first root"):
        staging.kernel(tmp_path)


def test_boot_settings_name_the_root() -> None:
    assert b"root=UUID=the-root ro" in staging.boot_settings({"ROOT_UUID": "the-root"})


def test_an_archive_of_the_same_wish_is_taken_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[tuple[str, bytes]] = []

    def run(*words: str | Path, stdin: bytes = b"") -> str:
        ran.append((str(words[0]), stdin))
        Path(words[-2]).write_bytes(b"a system")
        return ""

    monkeypatch.setattr(bootstrap, "origin", lambda: bootstrap.parse_origin(LISTING))
    monkeypatch.setattr(bootstrap, "run", run)
    (tmp_path / "debian-0123.tar").write_bytes(b"an older wish")
    (tmp_path / "other.deb").touch()
    first = bootstrap.bootstrap(tmp_path, lambda line: None)
    assert first.read_bytes() == b"a system"
    assert bootstrap.bootstrap(tmp_path, lambda line: None) == first
    ((program, sources),) = ran
    assert program == "mmdebstrap"
    assert b"bookworm-security" in sources
    assert {file.name for file in tmp_path.iterdir()} == {first.name, "other.deb"}
    bootstrap.forget(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"other.deb"}


def test_a_host_without_mmdebstrap_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pileus.cli.image.build.missing_packages", sorted)
    with pytest.raises(BuildFailure, match="installed first: mmdebstrap"):
        build_debian(tmp_path / "image", cache=tmp_path, progress=print)
    assert list(tmp_path.iterdir()) == []
