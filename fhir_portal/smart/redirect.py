"""Redirect URIs: which may be registered, and which match what is registered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from fhir_portal.smart.errors import InvalidRedirectUri

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_URI: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]{1,2000}")
_PRIVATE_SCHEME: Final = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")


def check_registrable(uri: str) -> None:
    """Accept ``https``, ``http`` on a loopback host, and private-use schemes like a domain's.

    Source: RFC 8252 §7, RFC 9700 §2.1. Raises `InvalidRedirectUri`.
    """
    parts = _split(uri)
    if parts is None or "@" in parts.netloc or "*" in parts.netloc:
        raise InvalidRedirectUri("a redirect URI is absolute and exact, without user or fragment")
    if parts.scheme == "https":
        acceptable = bool(parts.hostname)
    elif parts.scheme == "http":
        acceptable = parts.hostname in LOOPBACK_HOSTS
    else:
        acceptable = bool(_PRIVATE_SCHEME.fullmatch(parts.scheme) and (parts.netloc or parts.path))
    if not acceptable:
        raise InvalidRedirectUri(
            "a redirect URI must be https, http on a loopback address, "
            "or a private-use scheme such as com.example.app:/callback"
        )


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Whether ``uri`` is one of the registered ones, character for character.

    On a loopback address any port will do (RFC 8252 §7.3): a native app takes what it gets.
    """
    if uri in registered:
        return True
    loopback = _without_loopback_port(uri)
    return loopback is not None and any(
        loopback == _without_loopback_port(one) for one in registered
    )


def origin_of(uri: str) -> str | None:
    """The web origin of a redirect URI (RFC 6454 §6.1); ``None`` for private-use schemes."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.lower()}" if parts.scheme in ("http", "https") else None


def _split(uri: str) -> SplitResult | None:
    if not _URI.fullmatch(uri):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme else None


def _without_loopback_port(uri: str) -> tuple[str, str, str] | None:
    parts = _split(uri)
    if parts is None or parts.scheme != "http" or "@" in parts.netloc:
        return None
    host = parts.hostname
    return (host, parts.path, parts.query) if host in LOOPBACK_HOSTS else None
