"""What is shown once: the answer of a form that holds a secret, behind a redirect.

A page that answers a form itself is sent again when it is reloaded. So the form leads on to a page
that shows the answer once, to the browser that sent it. Until then, for two minutes at most, the
answer is stored encrypted, by a key that needs the browser's own cookie: the store holds only the
cookie's hash, and so nothing that could read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fhir_portal.records import Record, RecordStore, RecordTransaction
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.token import base64url, token_hash
from fhir_portal.web.pages.browser import Browser

SECONDS: Final = 120.0
_HANDLE_BYTES: Final = 18


class Sealed(Record, frozen=True, kw_only=True):
    """One answer that waits to be shown; ``key`` is the hash of the handle in its address."""

    kind: ClassVar[str] = "shown-once"

    expires: float
    content: bytes


class ShownOnce:
    """Keeps answers until they are shown."""

    def __init__(
        self,
        store: RecordStore,
        keys: ServerKeys,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._random = random

    async def keep(self, browser: Browser, content: Any) -> str:
        """Keep an answer (values that msgspec writes) for a browser; return its handle."""
        handle = base64url(self._random(_HANDLE_BYTES))
        sealed = Sealed(
            key=token_hash(handle),
            expires=self._clock() + SECONDS,
            content=self._cipher(browser, handle).encrypt(msgspec.msgpack.encode(content), None),
        )

        async def insert(transaction: RecordTransaction) -> None:
            await transaction.insert(sealed)

        await self._store.transact(insert)
        return handle

    async def take(self, browser: Browser, handle: str) -> Any:
        """Return an answer, which is gone then; ``None``: shown already, too late, not yours."""
        sealed = await self._store.get(Sealed, token_hash(handle))
        if sealed is None or self._clock() >= sealed.expires:
            return None
        try:
            plain = self._cipher(browser, handle).decrypt(sealed.content, None)
        except InvalidTag:
            return None  # another browser: it stays for the right one

        async def delete(transaction: RecordTransaction) -> bool:
            return await transaction.delete(Sealed, sealed.key)

        return msgspec.msgpack.decode(plain) if await self._store.transact(delete) else None

    def _cipher(self, browser: Browser, handle: str) -> AESSIV:
        return AESSIV(self._keys.derive("shown-once", browser.cookie.encode(), handle.encode()))
