"""Signatures of OAuth 1.0a, against the library's own client; and the example of RFC 5849, section 1.2."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st
from oauthlib import oauth1

from pileus.services.identity.rules.secret import Box, SecretUnreadable
from pileus.services.identity.rules.signature import BadSignature, Claim, genuine, read, timely

URL = "http://cloud.example.org:5000/identity/v3/auth/tokens"
PLAIN = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


def signed(url: str = URL, **more: str) -> Claim:
    _, headers, _ = oauth1.Client(**{"client_key": "c", "client_secret": "s", **more}).sign(url, http_method="POST")
    return read(headers["Authorization"])


@settings(max_examples=60, deadline=None)
@given(PLAIN, PLAIN, PLAIN, st.sampled_from(["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512"]))
def test_what_the_library_signs_is_genuine(client: str, token: str, verifier: str, method: str) -> None:
    claim = signed(
        client_secret=client,
        resource_owner_key="t",
        resource_owner_secret=token,
        verifier=verifier,
        signature_method=method,
    )
    assert (claim.consumer_key, claim.token, claim.verifier) == ("c", "t", verifier)
    assert genuine(claim, "POST", [URL], client, token)
    assert genuine(claim, "POST", ["http://other/", URL], client, token)
    assert not genuine(claim, "PUT", [URL], client, token)
    assert not genuine(claim, "POST", [URL + "/"], client, token)
    assert not genuine(claim, "POST", [], client, token)
    assert not genuine(claim, "POST", [URL], client + "x", token)
    assert not genuine(claim, "POST", [URL], client, token + "x")
    for change in ({"nonce": "x"}, {"timestamp": "1"}):
        parameters = {f"oauth_{name}": value for name, value in change.items()}
        other = claim._replace(signed=tuple({**dict(claim.signed), **parameters}.items()))
        assert not genuine(other, "POST", [URL], client, token)


def test_a_query_is_signed_too() -> None:
    claim = signed(URL + "?b=2&a=%20x")
    assert genuine(claim, "POST", [URL + "?b=2&a=%20x"], "s")
    assert genuine(claim, "POST", [URL + "?a=+x&b=2"], "s")
    assert not genuine(claim, "POST", [URL + "?b=2"], "s")


def test_the_example_of_the_specification() -> None:
    header = (
        'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_token="nnch734d00sl2jdk",'
        'oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131202", oauth_nonce="chapoH",'
        'oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"'
    )
    url = "http://photos.example.net/photos?file=vacation.jpg&size=original"
    assert genuine(read(header), "GET", [url], "kd94hf93k423kf44", "pfkkdhi9sl3r4s00")


GOOD = (
    'oauth_consumer_key="c",oauth_signature="x",oauth_signature_method="HMAC-SHA1",oauth_timestamp="1",oauth_nonce="n"'
)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic eDp5",
        "OAuth",
        "OAuth ",
        "OAuth nonsense",
        f"Bearer {GOOD}",
        f'OAuth {GOOD},oauth_version="2.0"',
        f"OAuth {GOOD.replace('HMAC-SHA1', 'PLAINTEXT')}",
        f"OAuth {GOOD.replace('HMAC-SHA1', 'RSA-SHA1')}",
        f'OAuth {GOOD},oauth_token="{"x" * 256}"',
        *(f"OAuth {','.join(GOOD.split(',')[:place] + GOOD.split(',')[place + 1 :])}" for place in range(5)),
    ],
)
def test_claims_that_say_too_little(header: str) -> None:
    with pytest.raises(BadSignature):
        read(header)


@given(st.text(max_size=60))
def test_no_header_breaks_it(text: str) -> None:
    for header in (text, "OAuth " + text, f"OAuth {GOOD},{text}"):
        with suppress(BadSignature):
            genuine(read(header), "POST", [URL], "s")


def test_about_now() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    claim = read(f"OAuth {GOOD}")
    for seconds, fits in ((0, True), (600, True), (-600, True), (601, False), (-601, False)):
        at = str(int((now + timedelta(seconds=seconds)).timestamp()))
        assert timely(claim._replace(timestamp=at), now) is fits
    for text in ("", "x", "1.5", "-1", "1e9", "9" * 12, "9" * 40, "٢"):
        assert not timely(claim._replace(timestamp=text), now)


def test_a_box() -> None:
    first, second = Fernet.generate_key(), Fernet.generate_key()
    old, new = Box([first]), Box([second, first])
    sealed = old.seal("a secret ü")
    assert "secret" not in sealed.text
    assert sealed.key_hash == old.primary_hash != new.primary_hash
    assert new.open(sealed.text) == old.open(sealed.text) == "a secret ü"
    for text in ("", "x", "ü", new.seal("x").text):
        with pytest.raises(SecretUnreadable):
            old.open(text)
