"""What people are told of connections: those that end, and those that a proxy makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from fhir_portal.accounts.proof import Write
from fhir_portal.consent.record import RecordAccess
from fhir_portal.smart.connection import is_adult

Event = Literal["ended", "ended-by-record", "ended-by-practice", "narrowed", "made-by-proxy"]


class ConnectionNotices(Protocol):
    """Writes down what people are told, in the transaction of what they are told of."""

    def about(self, event: Event, *, to: str, practice: str, once: str, now: float) -> Write:
        """Return the write of one notice.

        ``to`` is ``account:<id>``, or ``record:<practice>/Patient/<id>`` for the person whose
        record that is. Of the same event and ``once`` there is one notice only.
        """
        ...


def made_by_proxy(
    notices: ConnectionNotices, records: Iterable[RecordAccess], *, once: str, now: float
) -> list[Write]:
    """Return the notices that a consent owes: to each adult whose record a proxy gave an app.

    They belong into the transaction that issues the code; ``once`` names that consent. Whose age
    is not known is told.
    """
    return [
        notices.about(
            "made-by-proxy",
            to=f"record:{record.practice}/{record.patient}",
            practice=record.practice,
            once=f"{once}.{number}",
            now=now,
        )
        for number, record in enumerate(records)
        if record.is_proxy and is_adult(record.birth_date, now=now)
    ]
