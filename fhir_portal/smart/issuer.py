"""The addresses of this server, and how long what it issues lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Issuer:
    """The base URL (issuer and all links) and the aliases that name the same server.

    Both without a trailing slash. Links always use the base, never the ``Host`` header.
    """

    base: str
    aliases: tuple[str, ...] = ()

    @property
    def fhir(self) -> str:
        """The FHIR base, which apps send as ``aud``."""
        return f"{self.base}/fhir"

    @property
    def is_https(self) -> bool:
        """Whether browsers reach us by TLS, so that cookies can be bound to it."""
        return self.base.startswith("https://")

    def at(self, path: str) -> str:
        """An absolute address on this server."""
        return f"{self.base}{path}"

    def everywhere(self, path: str) -> Iterator[str]:
        """The address under the base and under each alias."""
        for origin in (self.base, *self.aliases):
            yield f"{origin}{path}"

    def is_audience(self, aud: str) -> bool:
        """Whether ``aud`` names our FHIR base; one trailing slash is ignored (SMART 2.2 §2.0.6)."""
        return aud.removesuffix("/") in self.everywhere("/fhir")

    def url_of(self, reference: str) -> str:
        """The absolute URL of a resource of ours (``fhirUser``)."""
        return f"{self.fhir}/{reference}"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds. A refresh token lives ``refresh_token`` from its last use: at least three months.

    After ``refresh_in_all`` from the consent it ends, however often it was used.
    """

    access_token: int = 900
    backend_token: int = 300
    id_token: int = 3600
    code: int = 60
    authorization_request: int = 900
    refresh_token: int = 92 * DAY
    refresh_in_all: int = 365 * DAY
    refresh_repeat: int = 30
