"""What commands that work in the store share: opening it, and saying why not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fhir_portal.app import open_store
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import InvalidSettings, load

T = TypeVar("T")


class Refused(Exception):
    """The command cannot be carried out; the message says why."""


async def in_store(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Run ``work`` with the store that the settings name.

    Raises:
        Refused: settings that cannot be used, or a store that cannot be opened.
    """
    try:
        store = await open_store(load())
    except (InvalidSettings, Unavailable) as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"the store cannot be opened: {error.strerror}") from None
    try:
        return await work(store)
    finally:
        await store.aclose()
