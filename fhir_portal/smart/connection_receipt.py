"""The receipt of what was ended or narrowed."""

from __future__ import annotations

from typing import ClassVar, Literal

from fhir_portal.records import Record

Held = Literal["access-token", "refresh-token", "code"]


class UnknownReceipt(Exception):
    """There is no such receipt, or it is not this person's."""


class Receipt(Record, frozen=True, kw_only=True):
    """What was ended or narrowed, when and by whom; ``key`` is printed on it.

    ``account`` did it; ``holder`` had made the connection. Both may open it. With ``by_practice``
    the practice did it, and ``account`` is whose account it was at when it did. It names the record
    and holds nothing of it. ``held`` counts what was ended, by kind. ``scope`` is what the app had,
    ``left`` what a narrowing left it, until ``until``.
    """

    kind: ClassVar[str] = "receipt"
    indexed: ClassVar[tuple[str, ...]] = ("account", "holder", "connection")

    at: float
    action: Literal["ended", "narrowed"]
    account: str
    holder: str
    connection: str
    client_id: str
    app: str
    practice: str
    patient: str
    since: float
    scope: str
    held: dict[Held, int]
    left: str = ""
    until: float | None = None
    as_staff: bool = False
    by_practice: bool = False

    @property
    def is_for_proxy(self) -> bool:
        """Whether the person whose record it is did it to a proxy's connection."""
        return self.account != self.holder
