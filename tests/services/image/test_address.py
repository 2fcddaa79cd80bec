"""Which places on the web may be fetched."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pileus.services.image.rules.address import AddressFilter, Unreachable, networks

PLAIN = AddressFilter()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://example.org/a", ("http", "example.org", 80)),
        ("HTTPS://Example.ORG./a?b#c", ("https", "example.org", 443)),
        ("http://example.org:443/", ("http", "example.org", 443)),
        ("http://8.8.8.8", ("http", "8.8.8.8", 80)),
        ("https://[2001:4860:4860::8888]/x", ("https", "2001:4860:4860::8888", 443)),
    ],
)
def test_what_may_be_fetched(url: str, found: tuple[str, str, int]) -> None:
    assert PLAIN.check(url) == found


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
        "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
        # What some Pythons call global, and where a packet would end in the operator's own network all the same.
        "64:ff9b:1::a00:1", "64:ff9b:1::808:808", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "fec0::1", "feff::1",
        "::10.0.0.1", "::127.0.0.1", "::8.8.8.8", "::ffff:8.8.8.8", "192.0.0.1", "192.0.0.8", "192.0.0.9",
        "192.0.0.10", "192.0.0.170", "192.0.0.255", "192.88.99.1", "3fff::1", "3fff:fff:ffff::1", "5f00::1",
        "100::1", "100:0:0:1::1", "2001::1", "2001:0:a00:1::f5ff:fffe", "2001:1::1", "2001:1::2", "2001:2::1",
        "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff::1", "2002:808:808::1",
        "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe", "64:ff9b::c000:1", "64:ff9b::e000:1", "64:ff9b::f000:1",
        "::ffff:0:10.0.0.1", "::1:0:0:0", "64:ff9a::1", "1000::1", "4000::1", "8000::1", "f000::1", "fe00::1",
        "ff0e::1", "febf::1", "fdff::1", "100.127.255.255", "172.31.255.255", "198.19.255.255", "198.51.100.1",
        "203.0.113.1", "0.255.255.255", "225.0.0.1", "233.252.0.1", "255.0.0.1", "241.0.0.1",
    ],
)  # fmt: skip
def test_what_no_packet_may_be_sent_to(address: str) -> None:
    with pytest.raises(Unreachable):
        PLAIN.judge(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255",
        "100.128.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2000::1", "2003::1", "2606:4700:4700::1111",
        "3ffe:ffff::1", "2a00:1450::1",
    ],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    PLAIN.judge(ip_address(address))


def test_networks_that_an_operator_names() -> None:
    own = AddressFilter(networks=networks(["10.1.0.0/16", "fd00::/8"]))
    own.judge(ip_address("10.1.2.3"))
    own.judge(ip_address("::ffff:10.1.2.3"))
    own.judge(ip_address("fd00::1"))
    own.judge(ip_address("64:ff9b::a01:203"))
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "64:ff9b::a02:1", "fec0::1", "64:ff9b:1::a01:203"):
        with pytest.raises(Unreachable):
            own.judge(ip_address(address))
    AddressFilter(networks=networks(["64:ff9b:1::/48"])).judge(ip_address("64:ff9b:1::a00:1"))


def test_lists_of_what_is_allowed_and_not() -> None:
    only = AddressFilter(allowed_hosts=("Mirror.example.org",), disallowed_hosts=("mirror.example.org",))
    assert only.check("http://mirror.example.org/x")[1] == "mirror.example.org"
    with pytest.raises(Unreachable):
        only.check("http://example.org/x")
    but = AddressFilter(disallowed_hosts=("example.org", "8.8.8.8"), allowed_ports=(), disallowed_ports=(22,))
    assert but.check("http://example.com:8080/")[2] == 8080
    for url in ("http://example.org/", "http://EXAMPLE.org./", "http://example.com:22/", "http://8.8.8.8/"):
        with pytest.raises(Unreachable):
            but.check(url)
    for address in ("8.8.8.8", "64:ff9b::808:808"):
        with pytest.raises(Unreachable):
            but.judge(ip_address(address))
    secure = AddressFilter(allowed_schemes=(), disallowed_schemes=("http",))
    assert secure.check("https://example.org/")[0] == "https"
    for url in ("http://example.org/", "gopher://example.org/"):
        with pytest.raises(Unreachable):
            secure.check(url)


@pytest.mark.parametrize(
    "url",
    ["", "http://", "http:///x", "http://[::1", "http://a:b/", "http://a:99999/", "http://a\r\nX: y/", "http://ü.de/",
     "http://u@example.org/", "http://example.org:0/", "http://[2001:4860:4860::8888%25eth0]/", "http://8.8.8.8%25x/"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Unreachable):
        PLAIN.check(url)
