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
    ],
)  # fmt: skip
def test_what_no_packet_may_be_sent_to(address: str) -> None:
    with pytest.raises(Unreachable):
        PLAIN.judge(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    PLAIN.judge(ip_address(address))


def test_networks_that_an_operator_names() -> None:
    own = AddressFilter(networks=networks(["10.1.0.0/16", "fd00::/8"]))
    own.judge(ip_address("10.1.2.3"))
    own.judge(ip_address("::ffff:10.1.2.3"))
    own.judge(ip_address("fd00::1"))
    with pytest.raises(Unreachable):
        own.judge(ip_address("10.2.0.1"))


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
    with pytest.raises(Unreachable):
        but.judge(ip_address("8.8.8.8"))
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
