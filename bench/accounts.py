"""How the list of a practice's accounts costs at a thousand and at a hundred thousand of them.

    python bench/accounts.py --sizes 1000,10000,100000

Fills one embedded store step by step: each Person has an account; one in a hundred is disabled,
one in a thousand closed, one in a hundred has no account. At each size the same pages of
``Person/$portal-accounts`` are asked for through `Portal.perform`, in this process: medians of the
milliseconds of CPU of one page, and the ratio to the first size. Then all pages of the file that
staff save are read one after the other, with the time and what the process grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import random
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.access.policy import Ask, Permit, decide
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.at_practice import (
    AccountAtPractice,
    ClosedAccount,
    ClosedPerson,
    at_practice_key,
)
from fhir_portal.accounts.sessions import LatestSignIn
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.writing import update_in
from fhir_portal.smart.keys import derive
from fhir_portal.smart.scope import ScopeSet

PRACTICE = "scale"
BATCH = 500
DAY = 86_400.0
SYLLABLES = ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su")


def an_ehr() -> AuthContext:
    """The practice's EHR, which may write Persons."""
    scopes = ScopeSet.parse("system/*.cruds")
    found = AuthContext("ehr", "system", scopes, PRACTICE, time.time() + 1e6, "")
    return replace(found, permissions=frozenset({"grant-writing", "label"}))


def a_person(number: int) -> dict[str, Any]:
    """The ``number``-th Person; one in five acts for somebody."""
    name = "".join(SYLLABLES[int(digit)] for digit in f"{number:06}"[::-1])
    target = f"RelatedPerson/r{number}" if number % 5 == 0 else f"Patient/p{number}"
    tree: dict[str, Any] = {
        "resourceType": "Person",
        "id": f"n{number:06}",
        "name": [{"family": name.capitalize(), "given": ["Ada"]}],
    }
    if number % 1000 == 999:  # noqa: PLR2004 - one in a thousand
        return tree | {"active": False}
    return tree | {"link": [{"target": {"reference": target}, "assurance": "level3"}]}


async def fill(portal: Portal, low: int, high: int) -> None:
    """Store Persons with their accounts, without the write gate."""
    auth, now = an_ehr(), time.time()
    permit = decide(auth, Ask("u", "Person", now))
    if not isinstance(permit, Permit):
        raise TypeError(permit)
    for start in range(low, high, BATCH):

        async def work(transaction: Any, start: int = start) -> None:
            for number in range(start, min(start + BATCH, high)):
                tree = a_person(number)
                await put_account(transaction, number, tree, now)
                await update_in(
                    transaction,
                    portal.server,
                    auth,
                    tree,
                    permit.visible,
                    key=ResourceKey("Person", tree["id"]),
                    if_match=None,
                    if_none_match=None,
                )

        await portal.server.store.transact(work)


async def put_account(transaction: Any, number: int, tree: dict[str, Any], now: float) -> None:
    """Store what there is outside FHIR about a Person."""
    person, account = f"{PRACTICE}/Person/{tree['id']}", f"a{number:06}"
    if number % 1000 == 999:  # noqa: PLR2004
        await transaction.put(ClosedPerson(key=person, at=now, by="x", reason="other"))
        return
    if number % 100 == 98:  # noqa: PLR2004
        return
    await transaction.put(Account(key=account, username=account, created=now, persons=(person,)))
    await transaction.put(AccountPerson(key=person, account=account))
    await transaction.put(LatestSignIn(key=account, at=now - number % 1000 * DAY))
    if number % 100 == 97:  # noqa: PLR2004
        key = at_practice_key(PRACTICE, account)
        await transaction.put(ClosedAccount(key=key))
        await transaction.put(
            AccountAtPractice(
                key=key,
                practice=PRACTICE,
                account=account,
                person=f"Person/{tree['id']}",
                state="disabled",
                since=now,
                by="x",
                reason="other",
            )
        )


def the_list(**given: Any) -> FhirRequest:
    """A page of the list."""
    pairs = tuple((name.replace("_", "-"), str(value)) for name, value in given.items())
    return FhirRequest("operation", "Person", None, operation="portal-accounts", query=pairs,
                       is_get=True)  # fmt: skip


async def page(portal: Portal, request: FhirRequest) -> tuple[int, str | None]:
    """Return how many accounts a page has, and the name of the next one."""
    answer = await portal.perform(request, an_ehr())
    listed = json.loads(answer.body).get("parameter", [])
    following = [one["valueString"] for one in listed if one["name"] == "page"]
    return sum(one["name"] == "account" for one in listed), next(iter(following), None)


async def timed(portal: Portal, request: FhirRequest, times: int = 15) -> tuple[float, int]:
    """Return the median milliseconds of CPU of one page, and how many accounts it has."""
    found, held = [], 0
    for _ in range(times):
        began = time.process_time()
        held, _ = await page(portal, request)
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found), held


async def middle(portal: Portal, size: int) -> FhirRequest:
    """Return the request for a page half way through the list."""
    request = the_list(count=200)
    for _ in range(size // 400):
        _, following = await page(portal, request)
        if following is None:
            break
        request = the_list(page=following)
    return request


async def exported(portal: Portal, **filters: Any) -> tuple[float, int, int, float]:
    """Read every page; return seconds, pages, accounts, and megabytes that the process grew by."""
    before, began = rss(), time.perf_counter()
    pages, held, request = 0, 0, the_list(count=200, **filters)
    while True:
        found, following = await page(portal, request)
        pages, held = pages + 1, held + found
        if following is None:
            return time.perf_counter() - began, pages, held, rss() - before
        request = the_list(page=following)


def rss() -> float:
    """Return the most megabytes that the process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(portal: Portal, size: int) -> dict[str, tuple[float, int]]:
    """Time each kind of page at a size."""
    chance = random.Random(7)  # noqa: S311 - the same at each size
    name = a_person(chance.randrange(min(size, 1000)))["name"][0]["family"]
    long_ago = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 990 * DAY))
    kinds = {
        "first page (50)": the_list(),
        "page of 200, half way": await middle(portal, size),
        "enabled": the_list(status="enabled"),
        "disabled (1 in 100)": the_list(status="disabled"),
        "no account (1 in 100)": the_list(status="none"),
        "closed (1 in 1000)": the_list(status="closed"),
        "who act for somebody (1 in 5)": the_list(kind="proxy"),
        "one name": the_list(name=name),
        "not signed in for 990 days (1 in 100)": the_list(signed_in_before=long_ago),
    }
    return {kind: await timed(portal, request) for kind, request in kinds.items()}


async def run(sizes: list[int]) -> None:
    """Fill and measure, size by size."""
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore.open(f"{folder}/portal.db")
        portal = Portal.over(
            store,
            store.log,
            clock=time.time,
            base="http://127.0.0.1:8000/fhir",
            aliases=(),
            derive=functools.partial(derive, b"0123456789abcdef" * 2),
        )
        figures: dict[int, dict[str, tuple[float, int]]] = {}
        stored = 0
        for size in sizes:
            began = time.perf_counter()
            await fill(portal, stored, size)
            rate = (size - stored) / (time.perf_counter() - began)
            stored = size
            print(f"{size:,} accounts, filled at {rate:,.0f}/s, {rss():,.0f} MB", flush=True)
            figures[size] = await measure(portal, size)
            for filters in ({}, {"status": "disabled"}, {"status": "closed"}):
                seconds, pages, held, grew = await exported(portal, **filters)
                print(
                    f"  all pages {filters or ''}: {held:,} accounts on {pages} pages in"
                    f" {seconds:.2f} s, {grew:.0f} MB more",
                    flush=True,
                )
        print(
            "\n| CPU ms of a page |" + "".join(f" {one:,} |" for one in sizes) + " ratio | holds |"
        )
        print("| --- |" + " ---: |" * (len(sizes) + 2))
        for name in figures[sizes[0]]:
            row = [figures[size][name] for size in sizes]
            cells = "".join(f" {value:.1f} |" for value, _ in row)
            print(f"| {name} |{cells} {row[-1][0] / row[0][0]:.2f} | {row[-1][1]} |")
        store.close()


def main() -> None:
    """Read the sizes and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    given = parser.parse_args()
    asyncio.run(run([int(size) for size in given.sizes.split(",")]))


if __name__ == "__main__":
    main()
