"""What every interaction works with: the store, the clock, ids, addresses and the page cipher."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fhir_portal.access.context import AuthContext
from fhir_portal.access.log import AccessLog
from fhir_portal.fhir.errors import Invalid
from fhir_portal.resources.files import FileCheck
from fhir_portal.resources.store import ResourceReader, ResourceStore, ResourceTransaction


class PageLinks:
    """Paging links as sealed text: the search and where it stopped, unreadable and unforgeable.

    A link proves nothing: the request that carries it is decided on like any other. The cipher
    is deterministic (AES-SIV), so equal pages have equal links.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal(self, query: Sequence[tuple[str, str]], after: Sequence[Any], scope: str) -> str:
        """Return the text of a ``_page`` parameter for one search path (``scope``)."""
        plain = msgspec.msgpack.encode((list(query), list(after)))
        sealed = self._cipher.encrypt(plain, [scope.encode()])
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, text: str, scope: str) -> tuple[list[tuple[str, str]], list[Any]]:
        """Return the query and position of a ``_page`` parameter.

        Raises:
            Invalid: for anything this server did not seal for this path.
        """
        try:
            plain = self._cipher.decrypt(
                urlsafe_b64decode(text + "=" * (-len(text) % 4)), [scope.encode()]
            )
            query, after = msgspec.msgpack.decode(plain)
        except (InvalidTag, ValueError, TypeError):
            message = "this paging link is not valid; start the search again"
            raise Invalid(message) from None
        return [(name, value) for name, value in query], after


class Still(Protocol):
    """Asks once more, inside the transaction of a write, whether the caller's rights stand."""

    async def __call__(self, transaction: ResourceTransaction, auth: AuthContext) -> None:
        """Raise `Unauthenticated` when token, account or grant have changed since."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """The collaborators of the interactions.

    ``reader`` is what reads look at: the store, or inside a transaction the transaction.

    ``clock`` gives seconds since 1970 UTC; ``new_id`` an unguessable resource id. ``base`` is the
    FHIR base without a slash at the end, ``aliases`` other spellings of it; ``served`` the types;
    ``files`` says of files which are taken: none, where there is nothing to say it.
    """

    store: ResourceStore
    reader: ResourceReader
    log: AccessLog
    clock: Callable[[], float]
    new_id: Callable[[], str]
    base: str
    pages: PageLinks
    still: Still
    served: frozenset[str]
    aliases: tuple[str, ...] = field(default=())
    files: FileCheck | None = None

    def url(self, path: str) -> str:
        """Return the absolute address of a path under the FHIR base."""
        return f"{self.base}/{path}"
