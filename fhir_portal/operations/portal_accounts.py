"""``Person/$portal-accounts``: the portal accounts of a practice, filtered, page by page.

Each page looks at a bounded number of Persons or accounts, by keys of the practice, so that it
takes no longer with a hundred thousand of them; it can hold fewer than were asked for and still
have one after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.accounts.at_practice import (
    ClosedAccount,
    at_practice_key,
    closing_of,
    standing,
    status_of,
)
from fhir_portal.accounts.sessions import LatestSignIn
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import Arguments, queried
from fhir_portal.operations.links import links_of
from fhir_portal.operations.person import ended_of, moment, said_of
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search

STATUSES: Final = ("enabled", "disabled", "closed", "none")
KINDS: Final = {"self": "patient", "proxy": "relatedperson"}
"""Whom somebody with an account stands for, and the search parameter of Person that says so."""
DEFAULT_COUNT: Final = 50
MAX_COUNT: Final = 200
EXAMINED: Final = 400
"""Persons that one page looks at."""
_NEVER_BY_TIME: Final = frozenset({"closed", "none"})
"""Statuses that the tag of a Person tells at any moment: none of them begins or ends by itself."""
_FILTERS: Final = ("status", "kind", "signed-in-before", "name", "count")
_SCOPE: Final = "Person/$portal-accounts"
_ESCAPED: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\,|$"})
_LONGEST_NAME: Final = 200


async def portal_accounts(call: Call) -> FhirResponse:
    """Return a page of the practice's Persons, each with how its account stands."""
    arguments, after = _asked(call)
    wanted = _Wanted.of(arguments)
    rows, found = list[Row](), list[dict[str, Any]]()
    examined = 0
    following: Sequence[Any] | None = after
    while True:
        at_most = min(wanted.count - len(found), EXAMINED - examined)
        candidates, looked_at, following = await _candidates(call, wanted, following, at_most)
        examined += looked_at
        for row in candidates:
            account = await _account(call, wanted, row)
            if account is not None:
                rows.append(row)
                found.append(account)
        if following is None or len(found) >= wanted.count or examined >= EXAMINED:
            break
    page = None
    if following is not None:
        page = call.server.pages.seal(wanted.pairs, following, _SCOPE)
    return call.answer({"account": found, "page": page}, *rows)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The filters, understood; ``pairs`` are what they were read from."""

    status: str | None
    kind: str | None
    before: float | None
    name: str | None
    count: int
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, given: Arguments) -> _Wanted:
        status, kind, name = given.one("status"), given.one("kind"), given.one("name")
        before, count = given.one("signed-in-before"), given.one("count")
        _one_of("status", status, STATUSES)
        _one_of("kind", kind, tuple(KINDS))
        if count is not None and count < 1:
            message = "count is 1 or more"
            raise Invalid(message)
        if name is not None and len(name) > _LONGEST_NAME:
            message = f"name has at most {_LONGEST_NAME} characters"
            raise Invalid(message)
        return cls(
            status=status,
            kind=kind,
            before=period_of(before)[0] / 1_000_000 if before is not None else None,
            name=name,
            count=min(DEFAULT_COUNT if count is None else count, MAX_COUNT),
            pairs=tuple(
                (one, str(given.one(one))) for one in _FILTERS if given.one(one) is not None
            ),
        )


def _asked(call: Call) -> tuple[Arguments, Sequence[Any] | None]:
    """What is asked for, or what the name of a page holds, and where that page begins."""
    page = call.arguments.one("page")
    if page is None:
        return call.arguments, None
    if any(call.arguments.one(name) is not None for name in _FILTERS):
        message = "page is given alone: it holds what was asked for"
        raise Invalid(message)
    pairs, after = call.server.pages.open(page, _SCOPE)
    return queried(call.definition, pairs), after


def _one_of(name: str, given: str | None, known: Sequence[str]) -> None:
    if given is not None and given not in known:
        message = f"{name} is one of {', '.join(known)}"
        raise Invalid(message, expression=f"Parameters.parameter.where(name='{name}')")


async def _candidates(
    call: Call, wanted: _Wanted, after: Sequence[Any] | None, at_most: int
) -> tuple[list[Row], int, Sequence[Any] | None]:
    """The next Persons that may match, how many keys were looked at, and where to go on.

    Those that are disabled are found by keys of their own, unless there is a name to seek by.
    """
    if wanted.status == "disabled" and wanted.name is None:
        return await _closed(call, after, at_most)
    # In the store's own order: by any other one each page would be found by sorting all of them.
    pairs = [("_count", str(at_most))]
    if wanted.name is not None:
        pairs.append(("name", wanted.name.translate(_ESCAPED)))
    if wanted.kind is not None:
        pairs.append((f"{KINDS[wanted.kind]}:missing", "false"))
    if wanted.status in _NEVER_BY_TIME:
        pairs.append(("portal-status", wanted.status))
    request = parse_search("Person", pairs, base=call.server.base)
    page = await call.server.store.search(request, call.visible, after=after)
    return list(checked(page.rows, call.visible)), len(page.rows), page.next


async def _closed(
    call: Call, after: Sequence[Any] | None, at_most: int
) -> tuple[list[Row], int, Sequence[Any] | None]:
    practice, reader = call.auth.practice, call.server.store
    begin = at_practice_key(practice, "") if after is None else str(after[0])
    listed = await reader.every(ClosedAccount, after=begin, limit=at_most)
    keys = [one.key for one in listed if one.key.startswith(at_practice_key(practice, ""))]
    persons = list[ResourceKey]()
    for key in keys:
        account = await reader.get(Account, key.rpartition("/")[2])
        for person in account.persons if account is not None else ():
            where, _, name = person.partition("/")
            if where == practice:
                persons.append(ResourceKey.parse(name))
    rows = await reader.read_many(persons, call.visible)
    following = (keys[-1],) if keys and len(keys) == at_most else None
    return list(checked(rows, call.visible)), len(keys), following


async def _account(call: Call, wanted: _Wanted, row: Row) -> dict[str, Any] | None:
    """What is told of a Person, ``None`` when it does not match."""
    reader, now, practice = call.server.store, call.server.clock(), call.auth.practice
    kinds = {link.partition("/")[0] for link in links_of(row, proven=False)}
    stands_for = [kind for kind, name in KINDS.items() if name in {k.lower() for k in kinds}]
    if wanted.kind is not None and wanted.kind not in stands_for:
        return None
    account = await account_of_person(reader, f"{practice}/{row.key}")
    here = await standing(reader, practice, account.key) if account is not None else None
    tree = json.parse(row.body)
    closed = await closing_of(reader, f"{practice}/{row.key}", tree) if account is None else None
    status = await status_of(reader, practice, f"{practice}/{row.key}", tree, now=now)
    if wanted.status is not None and wanted.status != status:
        return None
    latest = await reader.get(LatestSignIn, account.key) if account is not None else None
    if wanted.before is not None:
        too_late = latest is not None and latest.at >= wanted.before
        if account is None or too_late:
            return None
    said = said_of(here) or ended_of(closed) or {}
    return {
        "person": {"reference": str(row.key)},
        "status": status,
        "kind": stands_for,
        "name": name_of(tree) if tree.get("name") else None,
        "created": moment(account.created) if account is not None else None,
        "signed-in": moment(latest.at) if latest is not None else None,
        **{name: said.get(name) for name in ("since", "by", "reason", "text", "until")},
    }
