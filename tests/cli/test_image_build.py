"""The builder of the image `tiny`, without fetching packages and without booting anything."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pileus.cli.image import BuildFailure, build_tiny, child, command, missing_packages, register
from pileus.cli.image.disk import Layout, assemble, make_root
from pileus.cli.image.elf import module_facts, needed
from pileus.cli.image.kernel import Kernel, plain_name
from pileus.cli.image.package import LEDGER, cached, dependencies, forget
from pileus.cli.image.system import ASSETS, Source, assets
from pileus.cli.image.tree import Tree
from pileus.cli.main import CommandFailure

AWKS = [words for words in (["awk"], ["busybox", "awk"]) if shutil.which(words[0])]
HAS_EXT4 = shutil.which("mke2fs", path=child.SEARCH_PATH) and shutil.which("debugfs", path=child.SEARCH_PATH)


def elf(sections: dict[str, tuple[int, int, bytes]]) -> bytes:
    """An ELF file of nothing but sections: name to (type, link, content); the first has the index 1."""
    names = b"\0"
    body = b""
    headers = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
    for name, (kind, link, content) in sections.items():
        headers.append(struct.pack("<IIQQQQIIQQ", len(names), kind, 0, 0, 64 + len(body), len(content), link, 0, 1, 0))
        names += name.encode() + b"\0"
        body += content
    headers.append(struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64 + len(body), len(names), 0, 0, 1, 0))
    body += names
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0)
    return head + struct.pack("<HHH", 64, len(headers), len(headers) - 1) + body + b"".join(headers)


def module(**facts: str) -> bytes:
    """A kernel module that says this of itself."""
    info = b"".join(f"{key}={value}\0".encode() for key, value in facts.items())
    return elf({".modinfo": (1, 0, info)})


def awk(program: str, text: str, words: list[str]) -> str:
    """What one of the guest's awk programs prints."""
    file = ASSETS / "root" / "usr" / "libexec" / "tiny" / program
    done = subprocess.run([*words, "-f", str(file)], input=text, capture_output=True, text=True, check=True)
    return done.stdout


# --- packages ---


def test_dependencies_follow_libraries_and_kernels_only() -> None:
    listing = (
        "curl\n  Depends: libc6\n |Depends: libone1\n  Depends: <libvirtual>\n    libtwo2\n  PreDepends: zlib1g\n"
        "  Depends: adduser\nlinux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n  Depends: libc6\n"
    )
    assert dependencies(listing) == ["libc6", "libone1", "zlib1g", "linux-image-6.1.0-1-cloud-amd64"]


def write_ledger(cache: Path, content: bytes) -> None:
    digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # of b"content"
    (cache / "a.deb").write_bytes(content)
    row = {"name": "a", "version": "1", "file": "a.deb", "sha256": digest}
    (cache / LEDGER).write_text(json.dumps({"wanted": ["a", "k"], "packages": [row]}))


def test_cache_is_used_only_when_whole(tmp_path: Path) -> None:
    assert cached(tmp_path, ["a", "k"]) is None
    write_ledger(tmp_path, b"content")
    packages = cached(tmp_path, ["k", "a"])
    assert packages is not None
    assert [(package.name, package.version) for package in packages] == [("a", "1")]
    assert cached(tmp_path, ["a"]) is None
    (tmp_path / "a.deb").write_bytes(b"damaged")
    assert cached(tmp_path, ["a", "k"]) is None
    (tmp_path / "a.deb").unlink()
    assert cached(tmp_path, ["a", "k"]) is None
    (tmp_path / LEDGER).write_text("{")
    assert cached(tmp_path, ["a", "k"]) is None


def test_forget_leaves_what_is_not_ours(tmp_path: Path) -> None:
    write_ledger(tmp_path, b"content")
    (tmp_path / "other.deb").touch()
    forget(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["other.deb"]
    forget(tmp_path)


def test_missing_packages_names_what_a_bare_host_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(child, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(child, "FILE_PACKAGE", {str(tmp_path / "mbr.bin"): "syslinux-common"})
    wanted = {"dosfstools", "e2fsprogs", "fdisk", "mtools", "qemu-utils", "syslinux", "syslinux-common"}
    assert wanted <= set(missing_packages())
    assert missing_packages() == sorted(missing_packages())


def test_missing_packages_knows_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in child.PROGRAM_PACKAGE:
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(child, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(child, "FILE_PACKAGE", {str(tmp_path / "apt-get"): "syslinux-common"})
    assert missing_packages() == []


def test_run_says_what_failed() -> None:
    assert child.run("cat", stdin=b"text") == "text"
    with pytest.raises(BuildFailure, match=r"status 2: .*no-such-place"):
        child.run("ls", "/no-such-place")
    with pytest.raises(BuildFailure, match="not installed"):
        child.run("no-such-program")


def test_failed_build_leaves_the_old_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "tiny.qcow2"
    output.write_text("old")
    monkeypatch.setattr("pileus.cli.image.build.missing_packages", list)
    write_ledger(tmp_path, b"content")

    def broken(*_: object) -> None:
        raise BuildFailure("no")

    monkeypatch.setattr("pileus.cli.image.build.fetch", lambda *_: [])
    monkeypatch.setattr("pileus.cli.image.build.unpack", broken)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["image", "build", "tiny", "-o", str(output), "--cache", str(tmp_path)])
    assert arguments.run is command
    with pytest.raises(CommandFailure, match="could not be built: no"):
        command(arguments)
    assert output.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.qcow2", "a.deb", LEDGER}


def test_build_names_the_packages_that_a_host_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pileus.cli.image.build.missing_packages", lambda: ["mtools", "syslinux"])
    with pytest.raises(BuildFailure, match="mtools syslinux"):
        build_tiny(tmp_path / "image", cache=tmp_path, progress=print)


# --- ELF files and modules ---


def test_needed_reads_the_dynamic_section() -> None:
    strings = b"\0libc.so.6\0libz.so.1\0"
    dynamic = struct.pack("<QQQQQQ", 1, 1, 1, 11, 0, 0)
    assert needed(elf({".dynstr": (3, 0, strings), ".dynamic": (6, 1, dynamic)})) == ["libc.so.6", "libz.so.1"]
    assert needed(elf({".text": (1, 0, b"static")})) == []
    with pytest.raises(ValueError, match="ELF"):
        needed(b"#!/bin/sh\n")


def test_module_facts() -> None:
    facts = module_facts(module(depends="a,b", alias="pci:v1"))
    assert facts == {"depends": ["a,b"], "alias": ["pci:v1"]}


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel of three modules, one of which is compressed."""
    directory = tmp_path / "lib" / "modules" / "6.1-test" / "kernel"
    directory.mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-6.1-test").write_bytes(b"kernel")
    (directory / "virtio_ring.ko").write_bytes(module(depends=""))
    (directory / "virtio.ko").write_bytes(module(depends="virtio_ring"))
    (directory / "virtio-rng.ko").write_bytes(module(depends="virtio,virtio_ring", alias="virtio:d00000004v*"))
    return Kernel(tmp_path)


def test_modules_come_after_what_they_need(kernel: Kernel) -> None:
    assert plain_name("virtio-rng.ko.xz") == "virtio_rng"
    assert kernel.release == "6.1-test"
    assert kernel.load_order(["virtio_rng", "not_there", "virtio"]) == ["virtio_ring", "virtio", "virtio_rng"]


def test_indexes_for_modprobe(kernel: Kernel) -> None:
    tree = Tree()
    kernel.install(tree)
    contents = {str(path): entry.content.decode() for path, entry in tree if path.name.startswith("modules.")}
    directory = "/usr/lib/modules/6.1-test"
    assert "kernel/virtio_rng.ko: kernel/virtio.ko kernel/virtio_ring.ko\n" in contents[f"{directory}/modules.dep"]
    assert contents[f"{directory}/modules.alias"] == "alias virtio:d00000004v* virtio_rng\n"


# --- trees and disks ---


def test_tree_makes_parents_and_refuses_nonsense() -> None:
    tree = Tree()
    tree.file("/usr/bin/x", b"x", 0o755)
    tree.link("/bin", "usr/bin")
    assert [str(path) for path, _ in tree] == ["/bin", "/usr", "/usr/bin", "/usr/bin/x"]
    assert "/usr/bin" in tree
    with pytest.raises(ValueError, match="no directory"):
        tree.file("/bin/y", b"")
    with pytest.raises(ValueError, match="absolute"):
        tree.file("etc/x", b"")


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox to read the archive")
def test_archive_is_cpio(tmp_path: Path) -> None:
    tree = Tree()
    tree.file("/init", b"start", 0o755)
    tree.file("/a/odd", b"123")
    tree.link("/a/link", "odd")
    archive = tree.archive(1_700_000_000)
    assert archive == tree.archive(1_700_000_000)
    subprocess.run(["busybox", "cpio", "-i", "-d", "-m"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"start"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "init").stat().st_mtime == 1_700_000_000
    assert (tmp_path / "a" / "link").read_bytes() == b"123"


@pytest.mark.skipif(not HAS_EXT4, reason="needs e2fsprogs")
def test_root_has_owners_and_modes_and_is_reproducible(tmp_path: Path) -> None:
    tree = Tree()
    tree.file("/bin/su", b"su", 0o4755)
    tree.directory("/home/cirros", 0o750, 1000, 1001)
    tree.link("/etc/link", "target")
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_root(tmp_path / name / "root", 16 << 20, tree, 1_700_000_000)
        contents.append((tmp_path / name / "root").read_bytes())
    assert contents[0] == contents[1]

    def stat(path: str) -> str:
        return " ".join(child.run("debugfs", "-R", f"stat {path}", tmp_path / "one" / "root").split())

    assert "Mode: 04755" in stat("/bin/su")
    assert "User: 0 Group: 0" in stat("/bin/su")
    assert "Mode: 0750" in stat("/home/cirros")
    assert "User: 1000 Group: 1001" in stat("/home/cirros")
    assert 'Fast link dest: "target"' in stat("/etc/link")
    child.run("e2fsck", "-f", "-n", tmp_path / "one" / "root")


@pytest.mark.skipif(bool(missing_packages()), reason="needs the tools of a build")
def test_disk_has_two_partitions_and_boot_code(tmp_path: Path) -> None:
    layout = Layout(boot=2 << 20, root=4 << 20)
    (tmp_path / "boot").write_bytes(b"B" * (2 << 20))
    (tmp_path / "root").write_bytes(bytes(1 << 20) + b"R" * (3 << 20))
    disk = tmp_path / "disk"
    assemble(disk, layout, tmp_path / "boot", tmp_path / "root")
    content = disk.read_bytes()
    assert len(content) == layout.size == 7 << 20
    assert content[:2] != b"\0\0"
    assert content[510:512] == b"\x55\xaa"
    entries = [struct.unpack_from("<B3xB3xII", content, 446 + 16 * number) for number in range(4)]
    assert entries == [(0x80, 6, 2048, 4096), (0, 0x83, 6144, 8192), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert content[1 << 20 : 3 << 20] == b"B" * (2 << 20)
    assert content[4 << 20 :] == b"R" * (3 << 20)


def test_source_follows_links_and_merges_usr(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "usr" / "sbin").mkdir(parents=True)
    (tmp_path / "lib" / "liba.so.1.2").write_bytes(elf({".text": (1, 0, b"")}))
    (tmp_path / "lib" / "liba.so.1").symlink_to("liba.so.1.2")
    (tmp_path / "usr" / "sbin" / "tool").symlink_to("/lib/liba.so.1")
    source = Source(tmp_path)
    program = elf({".dynstr": (3, 0, b"\0liba.so.1\0"), ".dynamic": (6, 1, struct.pack("<QQ", 1, 1))})
    assert list(source.libraries([program])) == ["usr/lib/liba.so.1"]
    assert source.program("tool") == source.content("usr/lib/liba.so.1")
    with pytest.raises(BuildFailure, match=r"library libb\.so"):
        source.library("libb.so")


# --- the guest's own files ---


def test_every_script_of_the_guest_can_be_parsed() -> None:
    scripts = [(place, content) for place, content in assets("") if content.startswith(b"#!/bin/sh\n")]
    assert {"initramfs/init", "root/etc/init.d/boot", "root/usr/libexec/tiny/configure"} <= {
        name for name, _ in scripts
    }
    for place, content in scripts:
        done = subprocess.run(["sh", "-n"], input=content, capture_output=True, check=False)
        assert done.returncode == 0, f"{place}: {done.stderr.decode()}"


@pytest.mark.parametrize("words", AWKS, ids=" ".join)
def test_json_becomes_lines(words: list[str]) -> None:
    document: dict[str, object] = {
        "name": 'a\\b\tc\nd"e/f',
        "list": [True, None, -1.5e3, [], {}, {"x": "y"}],
        "signs": "é€\U0001f600",
        "empty": "",
        "a key": {"with/slash": "v"},
    }
    wanted = {
        "/name": 'a\\\\b\\tc\\nd"e/f',
        "/list/0": "true",
        "/list/1": "null",
        "/list/2": "-1500.0",
        "/list/5/x": "y",
        "/signs": "é€\U0001f600",
        "/empty": "",
        "/a key/with/slash": "v",
    }
    for text in (json.dumps(document), json.dumps(document, indent=2, ensure_ascii=False)):
        lines = awk("json.awk", text, words).splitlines()
        assert dict(line.split("\t", 1) for line in lines) == wanted


@pytest.mark.parametrize("words", AWKS, ids=" ".join)
@pytest.mark.parametrize("text", ["", "{", '{"a" 1}', '{"a": 1', '["x]', "[1 2]", "{} x", '{"a": }'])
def test_what_is_not_json_fails(words: list[str], text: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        awk("json.awk", text, words)


@pytest.mark.parametrize("words", AWKS, ids=" ".join)
def test_network_plan(words: list[str]) -> None:
    hop = {"network": "::", "netmask": "::", "gateway": "fd00::1"}
    document: dict[str, object] = {
        "links": [
            {"id": "t1", "ethernet_mac_address": "FA:16:3E:00:00:01", "mtu": 1442},
            {"id": "t2", "ethernet_mac_address": "fa:16:3e:00:00:02", "mtu": None},
        ],
        "networks": [
            {"link": "t1", "type": "ipv4_dhcp"},
            {"link": "t1", "type": "ipv6_dhcpv6-stateful"},
            {
                "link": "t2",
                "type": "ipv4",
                "ip_address": "10.0.0.4",
                "netmask": "255.255.240.0",
                "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}],
                "services": [{"type": "dns", "address": "10.0.0.2"}],
            },
            {
                "link": "t2",
                "type": "ipv6",
                "ip_address": "fd00::4",
                "netmask": "ffff:ffff:ffff:fff8::",
                "routes": [hop],
            },
            {"link": "t2", "type": "ipv6_slaac"},
            {"link": "gone", "type": "ipv4_dhcp"},
        ],
        "services": [{"type": "dns", "address": "192.0.2.53"}],
    }
    assert awk("network.awk", awk("json.awk", json.dumps(document), words), words).splitlines() == [
        "fa:16:3e:00:00:01 mtu 1442",
        "fa:16:3e:00:00:01 dhcp",
        "fa:16:3e:00:00:01 dhcp6 stateful",
        "fa:16:3e:00:00:02 address 10.0.0.4/20",
        "fa:16:3e:00:00:02 route 0.0.0.0/0 10.0.0.1",
        "dns 10.0.0.2",
        "fa:16:3e:00:00:02 address fd00::4/61",
        "fa:16:3e:00:00:02 route ::/0 fd00::1",
        "dns 192.0.2.53",
    ]


def test_shadow_has_the_documented_password() -> None:
    lines = dict(line.split(":")[:2] for line in (ASSETS / "root" / "etc" / "shadow").read_text().splitlines())
    assert lines["root"] == "*"
    words = ["openssl", "passwd", "-6", "-salt", lines["cirros"].split("$")[2], "gocubsgo"]
    if shutil.which(words[0]) is None:
        pytest.skip("needs openssl to compute the hash")
    assert child.run(*words).strip() == lines["cirros"]


def test_child_does_not_inherit_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_SURPRISE", "1")
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    said = child.run("env").splitlines()
    assert "https_proxy=http://proxy.invalid" in said
    assert "LC_ALL=C" in said
    assert not [line for line in said if line.startswith("LD_SURPRISE")]
    assert os.environ["LD_SURPRISE"] == "1"
