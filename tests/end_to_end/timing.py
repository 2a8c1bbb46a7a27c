"""Does the time of an answer tell whether there is an account? Sign-in and recovery, measured.

``python -m tests.end_to_end.timing --tries 400`` prints the figures and fails if a difference is
found, or if a planted one is not. The whole application runs on a store on disk, with the delivery
of its outbox running beside it all the time; half of the tries name an account (with a proved
contact and recovery codes), half do not, in random order, each from a network of its own.

The statistic is the two-sided Mann-Whitney U test over the tries, with the normal approximation and
the correction for ties; a difference is found when p is below 0.01 divided by the number of flows
(Bonferroni). The planted fault is a branch of 5 ms that only known names take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from lxml import html

from fhir_portal.accounts import credentials, recovery
from fhir_portal.accounts.account import Account, account_named, add_account
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.recovery_codes import RecoveryCodeBook
from fhir_portal.app import DELIVERY_SECONDS, Application
from fhir_portal.logs import configure
from fhir_portal.records import RecordReader, RecordTransaction
from fhir_portal.settings import load

ALPHA: Final = 0.01
PLANTED_SECONDS: Final = 0.005
NAMES: Final = 20
_START: Final = 1_900_000_000.0
_PASSWORD: Final = "correct horse battery"
_ROUND_SECONDS: Final = 0.02

Flow = Callable[["House", str], Awaitable[float]]


@dataclass
class House:
    """The application and the clock it goes by."""

    application: Application
    now: float = _START
    networks: int = 0

    def browser(self) -> httpx.AsyncClient:
        """A browser that nobody knows, in a network of its own, an hour after the last one."""
        self.now += 3601
        self.networks += 1
        number = self.networks
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        transport = httpx.ASGITransport(self.application, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@dataclass(frozen=True)
class Found:
    """What one flow showed: milliseconds, and how likely chance alone does so."""

    flow: str
    known: float
    unknown: float
    p: float
    tries: int


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney U test (normal approximation, ties corrected)."""
    n, m = len(first), len(second)
    joined = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks_of_first, ties, at = 0.0, 0, 0
    while at < len(joined):
        end = at
        while end < len(joined) and joined[end][0] == joined[at][0]:
            end += 1
        rank = (at + 1 + end) / 2
        ranks_of_first += rank * sum(group == 0 for _, group in joined[at:end])
        ties += (end - at) ** 3 - (end - at)
        at = end
    u = ranks_of_first - n * (n + 1) / 2
    total = n + m
    spread = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    if spread == 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / spread
    return math.erfc(z / math.sqrt(2))


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    """The application over a new store, with `NAMES` accounts: ``known-<n>@example.org``."""
    settings = load(data=folder / "portal.db")

    async def pause(seconds: float) -> None:
        await asyncio.sleep(_ROUND_SECONDS if seconds == DELIVERY_SECONDS else seconds)

    application = Application(settings, clock=lambda: house.now, pause=pause)
    house = House(application)
    await application.open()
    try:
        passwords = Passwords()
        password_hash = await passwords.hash_unchecked(_PASSWORD)
        store = application.store
        book = RecoveryCodeBook(
            store, passwords, clock=lambda: house.now, random=secrets.token_bytes
        )
        for number in range(NAMES):
            account = await add_account(
                store,
                username=f"known-{number:02}@example.org",
                password_hash=password_hash,
                now=house.now,
                random=secrets.token_bytes,
            )
            await store.transact(_contact_of(account))
            _, keep = await book.new(account.key)
            await store.transact(keep)
        passwords.close()
        yield house
    finally:
        await application.close()


def _contact_of(account: Account) -> Callable[[RecordTransaction], Awaitable[None]]:
    contact = Contact(
        key=account.key,
        account=account.key,
        medium="mail",
        value=account.username,
        added=0.0,
        verified=1.0,
        recovers_from=1.0,
    )

    async def insert(transaction: RecordTransaction) -> None:
        await transaction.insert(contact)

    return insert


async def sign_in(house: House, name: str) -> float:
    """Seconds of one sign-in with a wrong password."""
    async with house.browser() as browser:
        form = await _form(browser, "/signin", "/signin")
        data = {**form, "username": name, "password": "a wrong password indeed"}
        seconds, answer = await _timed(browser, "/signin", data)
        assert answer.status_code == 403, answer.text
        return seconds


async def recover(house: House, name: str) -> float:
    """Seconds of a recovery: to begin, the page that follows, a wrong code of each kind.

    What is sent meanwhile is sent by the same process, so that it counts.
    """
    async with house.browser() as browser:
        form = await _form(browser, "/recover?want=password", "/recover")
        begun, answer = await _timed(browser, "/recover", {**form, "name": name})
        assert answer.status_code == 303, answer.text
        before = time.perf_counter()
        form = await _form(browser, answer.headers["location"], "/recover/code")
        total = begun + time.perf_counter() - before
        for code in ("1234 5678", "0aaa-bbbb-cccc"):
            seconds, answer = await _timed(browser, "/recover/code", {**form, "code": code})
            assert answer.status_code == 403, answer.text
            total += seconds
        return total


async def remind(house: House, name: str) -> float:
    """Seconds of asking for a forgotten user name."""
    async with house.browser() as browser:
        form = await _form(browser, "/recover?want=username", "/recover")
        seconds, answer = await _timed(browser, "/recover", {**form, "name": name})
        assert answer.status_code == 303, answer.text
        return seconds


FLOWS: Final[dict[str, Flow]] = {"sign-in": sign_in, "recovery": recover, "user name": remind}


async def measured(house: House, flow: str, tries: int, *, seed: int) -> Found:
    """Run a flow so often for known and as often for unknown names, in random order."""
    order = [True, False] * tries
    random.Random(seed).shuffle(order)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * NAMES):  # whatever is slow once is over by then
        await FLOWS[flow](house, _name(number, is_known=number % 2 == 0))
    for is_known in order:
        name = _name(len(seconds[is_known]), is_known=is_known)
        seconds[is_known].append(await FLOWS[flow](house, name))
    return Found(
        flow,
        known=statistics.median(seconds[True]) * 1000,
        unknown=statistics.median(seconds[False]) * 1000,
        p=mann_whitney(seconds[True], seconds[False]),
        tries=tries,
    )


@contextlib.contextmanager
def planted(seconds: float = PLANTED_SECONDS) -> Iterator[None]:
    """Have known names take longer: what the statistic must find."""

    async def slower(reader: RecordReader, username: str) -> Account | None:
        found = await account_named(reader, username)
        if found is not None:
            await asyncio.sleep(seconds)
        return found

    try:
        for module in (credentials, recovery):
            module.account_named = slower  # type: ignore[attr-defined]
        yield
    finally:
        for module in (credentials, recovery):
            module.account_named = account_named  # type: ignore[attr-defined]


def _name(number: int, *, is_known: bool) -> str:
    return f"{'known' if is_known else 'nobod'}-{number % NAMES:02}@example.org"


async def _form(browser: httpx.AsyncClient, path: str, action: str) -> dict[str, str]:
    page = await browser.get(path)
    document: Any = html.document_fromstring(page.text)
    (form,) = [one for one in document.xpath("//form") if one.get("action") == action]
    return {one.get("name"): one.get("value") for one in form.xpath('.//input[@type="hidden"]')}


async def _timed(
    browser: httpx.AsyncClient, path: str, data: dict[str, str]
) -> tuple[float, httpx.Response]:
    before = time.perf_counter()
    answer = await browser.post(path, data=data)
    return time.perf_counter() - before, answer


async def compare(tries: int, *, seed: int, flows: Sequence[str] = tuple(FLOWS)) -> dict[str, Any]:
    """Measure every flow as it is and with the planted branch."""
    found: dict[str, list[Found]] = {"as it is": [], "planted": []}
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as house:
            for number, flow in enumerate(flows):
                found["as it is"].append(await measured(house, flow, tries, seed=seed + number))
                with planted():
                    found["planted"].append(await measured(house, flow, tries, seed=seed + number))
    return {
        "alpha": ALPHA / len(flows),
        **{how: [vars(one) for one in several] for how, several in found.items()},
    }


def main() -> None:
    """Print the figures as JSON; exit 1 when they are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=400, help="of known names, and of unknown")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    configure("error")
    figures = asyncio.run(compare(asked.tries, seed=asked.seed))
    print(json.dumps(figures, indent=2))
    alpha = figures["alpha"]
    leaks = [one["flow"] for one in figures["as it is"] if one["p"] < alpha]
    missed = [one["flow"] for one in figures["planted"] if one["p"] >= alpha]
    raise SystemExit(1 if leaks or missed else 0)


if __name__ == "__main__":
    main()
