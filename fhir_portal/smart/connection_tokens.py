"""The tokens and codes that a connection holds, and how they are ended and narrowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from fhir_portal.records import RecordReader, RecordTransaction
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection import Change, Connection
from fhir_portal.smart.connection_receipt import Held
from fhir_portal.smart.offer import OFFLINE_ACCESS
from fhir_portal.smart.revocation import is_of_staff, revoke_family
from fhir_portal.smart.scope import Scope, ScopeSet
from fhir_portal.smart.token import AccessToken, TokenFamily

ALL: Final = 1_000_000

ConnectionKey = tuple[str, str, str, str, bool]
"""Account, practice, patient or ``""``, client, and whether it is used as staff."""


def connection_key(one: TokenFamily | AuthorizationCode) -> ConnectionKey:
    """The connection that something belongs to."""
    patient = one.access[1]
    return one.account, one.practice, patient, one.client_id, is_of_staff(one)


def is_alive(family: TokenFamily, now: float) -> bool:
    """Whether a family has not ended, and its time is not over."""
    ends = _earlier(family.expires, family.until)
    return family.ended is None and (ends is None or now < ends)


def resource_scopes(families: Iterable[TokenFamily]) -> list[Scope]:
    """What several families may use together, with repetitions."""
    return [one for family in families for one in ScopeSet.parse(family.scope).resource]


async def families_of(reader: RecordReader, of: Connection, now: float) -> list[TokenFamily]:
    """The families of a connection that have not ended."""
    return [
        family
        for family in await reader.find(TokenFamily, "account", of.account, limit=ALL)
        if connection_key(family)
        == (of.account, of.practice, of.patient, of.client.key, of.as_staff)
        and is_alive(family, now)
    ]


async def end_held(
    transaction: RecordTransaction, of: Connection, *, now: float
) -> tuple[bool, dict[Held, int]]:
    """End all that a connection holds, whatever of it is stored now.

    Returns whether there was anything, and what, counted by kind: one record's share of a consent
    for several may hold nothing of its own at a moment.
    """
    held: dict[Held, int] = {"access-token": 0, "refresh-token": 0, "code": 0}
    above: set[str] = set()
    families = await families_of(transaction, of, now)
    for family in families:
        await _end_family(transaction, family, held, now=now)
        if family.parent is not None:
            above.add(family.parent)
    for key in above:
        below = await transaction.find(TokenFamily, "parent", key, limit=ALL)
        parent = await transaction.get(TokenFamily, key)
        # The list is of use for the other records; after the last of them it is of none.
        if parent is not None and all(one.ended is not None for one in below):
            await _end_family(transaction, parent, held, now=now)
    held["code"] = await _delete_codes(transaction, of)
    return bool(families) or bool(held["code"]), held


async def _end_family(
    transaction: RecordTransaction, family: TokenFamily, held: dict[Held, int], *, now: float
) -> None:
    held["access-token"] += len(
        await transaction.find(AccessToken, "family", family.key, limit=ALL)
    )
    ended = await revoke_family(transaction, family.key, now=now, because="by-person")
    if ended and OFFLINE_ACCESS in ScopeSet.parse(family.scope).identity:
        held["refresh-token"] += 1


async def _delete_codes(transaction: RecordTransaction, of: Connection) -> int:
    """Codes that were not exchanged yet; one that was has to be known when it is replayed."""
    deleted = 0
    for code in await transaction.find(AuthorizationCode, "account", of.account, limit=ALL):
        keys = {connection_key(code)}
        if code.records:
            keys = {
                (code.account, r.practice, r.patient, code.client_id, False) for r in code.records
            }
        is_of = (of.account, of.practice, of.patient, of.client.key, of.as_staff) in keys
        if is_of and not code.family:
            deleted += await transaction.delete(AuthorizationCode, code.key)
    return deleted


async def narrow_held(
    transaction: RecordTransaction,
    of: Connection,
    families: Sequence[TokenFamily],
    change: Change,
    *,
    now: float,
) -> dict[Held, int]:
    """Narrow families and the access tokens they have; count what ended on the way."""
    held: dict[Held, int] = {"access-token": 0, "refresh-token": 0, "code": 0}
    for family in families:
        left = change.of(ScopeSet.parse(family.scope))
        if not left.resource:
            await _end_family(transaction, family, held, now=now)
            continue
        left_until = _earlier(family.until, change.until)
        narrowed = msgspec.structs.replace(
            family, scope=str(left), expires=change.end_of(family.expires), until=left_until
        )
        await transaction.put(narrowed)
        for token in await transaction.find(AccessToken, "family", family.key, limit=ALL):
            fewer = change.of(ScopeSet.parse(token.scope))
            if not fewer.resource:
                held["access-token"] += await transaction.delete(AccessToken, token.key)
                continue
            await transaction.put(
                msgspec.structs.replace(
                    token,
                    scope=str(fewer),
                    expires=change.end_of(token.expires),
                    until=_earlier(token.until, change.until),
                )
            )
    held["code"] = await _delete_codes(transaction, of)
    return held


def _earlier(one: float | None, other: float | None) -> float | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends, default=None)
