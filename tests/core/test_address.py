"""What is read as an address or a prefix, and what it is written as."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.core.address import read_address, read_interface, read_prefix

PLAIN = re.compile(r"[0-9a-f:./]+")

ADDRESSES = st.ip_addresses().map(str)
LENGTHS = st.integers(-1, 129).map(lambda length: f"/{length}")
ZONES = st.text(max_size=20).map(lambda text: f"%{text}")
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("0123456789abcdefABCDEF:./% \n\"'{};#", max_size=60),
    st.builds("".join, st.tuples(ADDRESSES, st.just("") | ZONES, st.just("") | LENGTHS)),
    st.builds("".join, st.tuples(ADDRESSES, st.just("") | LENGTHS, ZONES | st.text(max_size=3))),
)


@given(TEXTS)
def test_what_is_read_is_written_without_any_other_sign(text: str) -> None:
    for read in (read_address, read_prefix, lambda one: read_prefix(one, strict=False), read_interface):
        try:
            found = read(text)
        except ValueError:
            continue
        assert PLAIN.fullmatch(str(found)), (text, found)
        assert text.isascii()
        assert not set(text) & set("% \t\r\n;{}\"'")


@given(ADDRESSES, st.integers(0, 32))
def test_what_is_plain_is_read_as_it_always_was(text: str, length: int) -> None:
    assert read_address(text) == ip_address(text)
    assert read_prefix(f"{text}/{length}", strict=False) == ip_network(f"{text}/{length}", strict=False)
    assert read_interface(f"{text}/{length}") == ip_interface(f"{text}/{length}")
    assert read_prefix(text) == ip_network(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "::1%", "::1%eth0", "fe80::1%1", "2001:db8::%x\nflush ruleset\n#/32", "2001:db8::%\"/32", "::%;/0",
        "10.0.0.1\n", " 10.0.0.1", "10.0.0.1 ", "10.0.0.0/8\n", "10.0.0.0/8 ", "\uff11.0.0.1", "10.0.0.0/\uff18", "1",
        "0x7f.1", "10.0.0.0/8/8", "10.0.0.0/8%x", "[::1]", "10.1", "256.0.0.1", "01.0.0.1", "::1/129", "10.0.0.0/33",
        "10.0.0.0/-1",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    for read in (read_address, read_prefix, read_interface):
        with pytest.raises(ValueError, match=r".*"):
            read(text)


def test_forms_that_are_taken() -> None:
    assert read_address("::FFFF:10.0.0.1") == IPv6Address("::ffff:a00:1")
    assert read_address("10.0.0.1") == IPv4Address("10.0.0.1")
    assert str(read_prefix("10.0.0.0/255.255.0.0")) == "10.0.0.0/16"
    with pytest.raises(ValueError, match="host bits"):
        read_prefix("10.0.0.1/8")
