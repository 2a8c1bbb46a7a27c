"""Redirect URIs: which may be registered, and which match what is registered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from fhir_portal.smart.errors import InvalidRedirectUri

# What is between "//" and "/", to the letter: browsers do not see in it what urlsplit does.
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?")
_ANY_PORT: Final = frozenset({"127.0.0.1", "[::1]"})
_DEFAULT_PORTS: Final[Mapping[str, str]] = {"http": ":80", "https": ":443"}
_ANSWER: Final = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})
"""Parameters of our answers: a registered URI that has one would be read for one."""
_URI: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]{1,2000}")
_PRIVATE_SCHEME: Final = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")


def check_registrable(uri: str) -> None:
    """Accept ``https``, ``http`` on a loopback host, and private-use schemes like a domain's.

    Source: RFC 8252 §7, RFC 9700 §2.1. Raises `InvalidRedirectUri`.
    """
    parts = _split(uri)
    if parts is None or "@" in parts.netloc or "*" in parts.netloc:
        raise InvalidRedirectUri("a redirect URI is absolute and exact, without user or fragment")
    if not _ANSWER.isdisjoint(name for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise InvalidRedirectUri("a redirect URI has no code, state, iss or error of its own")
    if parts.scheme == "https":
        acceptable = bool(_HOST.fullmatch(parts.netloc))
    elif parts.scheme == "http":
        acceptable = bool(_LOOPBACK.fullmatch(parts.netloc))
    else:
        acceptable = bool(_PRIVATE_SCHEME.fullmatch(parts.scheme) and (parts.netloc or parts.path))
    if not acceptable:
        raise InvalidRedirectUri(
            "a redirect URI must be https, http on a loopback address, "
            "or a private-use scheme such as com.example.app:/callback"
        )


def is_registered(uri: str, registered: Iterable[str], *, any_port: bool = False) -> bool:
    """Whether ``uri`` is one of the registered ones, character for character.

    With ``any_port``, for native apps, the port of a loopback address (not of ``localhost``) does
    not count (RFC 8252 §7.3): such an app takes what it gets.
    """
    if uri in registered:
        return True
    loopback = _without_loopback_port(uri) if any_port else None
    return loopback is not None and any(
        loopback == _without_loopback_port(one) for one in registered
    )


def origin_of(uri: str) -> str | None:
    """The web origin of a redirect URI (RFC 6454 §6.1), as browsers spell it.

    ``None`` for private-use schemes.
    """
    parts = urlsplit(uri)
    if parts.scheme not in _DEFAULT_PORTS:
        return None
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])}"


def answer_at(uri: str, parameters: Mapping[str, str | None]) -> str:
    """Add the parameters of an answer to a redirect URI, the rest of it untouched.

    Source: RFC 6749 §4.1.2 and §4.1.2.1. Parameters without a value are left out.
    """
    added = "&".join(f"{name}={quote(v, safe='')}" for name, v in parameters.items() if v)
    if "?" not in uri:
        return f"{uri}?{added}"
    return f"{uri}{added}" if uri.endswith(("?", "&")) else f"{uri}&{added}"


def _split(uri: str) -> SplitResult | None:
    if not _URI.fullmatch(uri):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme else None


def _without_loopback_port(uri: str) -> tuple[str, str] | None:
    parts = _split(uri)
    if parts is None or not uri.startswith("http://"):
        return None
    loopback = _LOOPBACK.fullmatch(parts.netloc)
    if loopback is None or loopback[1] not in _ANY_PORT:
        return None
    return loopback[1], uri[len("http://") + len(parts.netloc) :]
