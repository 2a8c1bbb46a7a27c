from __future__ import annotations

import pytest

from fhir_portal.smart.errors import InvalidRedirectUri
from fhir_portal.smart.redirect import answer_at, check_registrable, is_registered, origin_of


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/callback",
        "https://app.example:8443/callback?tenant=1",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:5000/callback",
        "http://[::1]:5000/",
        "http://localhost:3000/",
        "com.example.app:/callback",
        "com.example.app://callback",
    ],
)
def test_these_can_be_registered(uri: str) -> None:
    check_registrable(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/callback",
        "app.example/callback",
        "http://app.example/callback",
        "http://127.0.0.1.evil.example/",
        "https://app.example/callback#fragment",
        "https://user@app.example/callback",
        "https://app.example@evil.example/callback",
        "https://app.example\\@evil.example/callback",
        "https://app.example/call back",
        "https://app.example/\r\nSet-Cookie:x",
        "https://*.example/callback",
        "https:///callback",
        "https://app.example:port/",
        "https://[::1/",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "myapp:/callback",
        "com.example.app:",
        "https://app.example/é",
        "https://" + "a" * 3000,
        "http://[127.0.0.1].evil.example/",
        "http://evil.example[localhost]/",
        "http://[::1].evil.example/",
        "https://[::1].evil.example/",
        "https://app.example:/",
        "https://app.example/cb?code=1",
        "https://app.example/cb?x=1&state",
        "https://app.example/cb?i%73s=x",
        "com.example.app:/cb?error=x",
    ],
)
def test_these_cannot(uri: str) -> None:
    with pytest.raises(InvalidRedirectUri):
        check_registrable(uri)


def test_a_match_is_exact() -> None:
    registered = ["https://app.example/callback"]
    assert is_registered("https://app.example/callback", registered)
    for other in (
        "https://app.example/callback/",
        "https://app.example/callback?x=1",
        "https://app.example/Callback",
        "https://APP.example/callback",
        "https://app.example:443/callback",
        "https://app.example/callback/../other",
        "https://app.example/callback%2f",
        "http://app.example/callback",
    ):
        assert not is_registered(other, registered)


def test_on_loopback_a_native_app_takes_any_port_and_nothing_else() -> None:
    registered = [
        "http://127.0.0.1/callback",
        "http://[::1]:1/callback",
        "http://localhost:3000/callback",
    ]
    assert is_registered("http://127.0.0.1:51004/callback", registered, any_port=True)
    assert is_registered("http://[::1]:51004/callback", registered, any_port=True)
    assert is_registered("http://localhost:3000/callback", registered, any_port=True)
    assert not is_registered("http://127.0.0.1:51004/callback", registered)
    for other in (
        "http://[127.0.0.1].evil.example/callback",
        "http://evil.example[127.0.0.1]:80/callback",
        "http://[::1].evil.example/callback",
        "http://[::1]evil.example/callback",
        "http://evil.example[localhost]/callback",
        "HTTP://127.0.0.1:51004/callback",
        "http://127.0.0.1:51004/callback?",
        "http://127.0.0.1:51004/other",
        "http://127.0.0.1:51004/callback?x=1",
        "http://user@127.0.0.1:51004/callback",
        "http://127.0.0.1:51004/callback#x",
        "http://localhost:51004/callback",
        "https://127.0.0.1:51004/callback",
        "http://127.0.0.1:99999/callback",
    ):
        assert not is_registered(other, registered, any_port=True)


def test_an_https_port_is_no_exception() -> None:
    registered = ["https://app.example/cb"]
    assert not is_registered("https://app.example:8443/cb", registered, any_port=True)


def test_origins_are_of_web_addresses_only() -> None:
    assert origin_of("https://App.example:8443/callback?x") == "https://app.example:8443"
    assert origin_of("com.example.app:/callback") is None


def test_an_origin_is_spelled_without_the_port_that_goes_without_saying() -> None:
    """RFC 6454 §6.2: so browsers write it."""
    assert origin_of("https://app.example:443/callback") == "https://app.example"
    assert origin_of("http://127.0.0.1:80/callback") == "http://127.0.0.1"
    assert origin_of("https://app.example:80/callback") == "https://app.example:80"


@pytest.mark.parametrize(
    ("uri", "answer"),
    [
        ("https://app.example/cb", "https://app.example/cb?code=a%2Fb&iss=i"),
        ("https://app.example/cb?", "https://app.example/cb?code=a%2Fb&iss=i"),
        ("https://app.example/cb?x='[1]'&y", "https://app.example/cb?x='[1]'&y&code=a%2Fb&iss=i"),
        ("https://app.example/cb?x=a%2Fb%zz", "https://app.example/cb?x=a%2Fb%zz&code=a%2Fb&iss=i"),
        ("com.example.app:cb", "com.example.app:cb?code=a%2Fb&iss=i"),
    ],
)
def test_an_answer_leaves_the_registered_part_as_it_is(uri: str, answer: str) -> None:
    assert answer_at(uri, {"code": "a/b", "state": None, "iss": "i"}) == answer
