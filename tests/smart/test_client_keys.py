"""JWK Sets by URL: kept as their header says, read anew for a new key, never more than that."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest

from fhir_portal.smart.client import Client
from fhir_portal.smart.client_keys import ClientKeys, KeysUnavailable, was_looked_at
from fhir_portal.smart.outbound import Outbound
from tests.smart.hosts import Hosts, as_it_is
from tests.smart.world import Clock, client_key

URL = "https://app.example/jwks.json"
OLD, NEW = client_key("ES384", "old"), client_key("ES384", "new")


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class Corner:
    """One host with a key set, and a cache that reads it."""

    def __init__(self) -> None:
        self.hosts = Hosts()
        self.clock = Clock()
        self.paused: list[float] = []
        self.looked_at = True
        self.keys = self.over(self.hosts.http)
        self.serve(jwks(OLD))

    def over(self, http: httpx.AsyncClient) -> ClientKeys:
        return ClientKeys(Outbound(http, resolve=self.hosts.resolve), self.clock, pause=self.pause)

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.clock.advance(seconds)

    def serve(self, content: bytes = b"{}", **answer: Any) -> None:
        self.hosts.serve("app.example", as_it_is(content, **answer))

    async def kids(self, kid: str | None = "old") -> set[str]:
        found = await self.keys.of(URL, kid, looked_at=self.looked_at)
        return {one["kid"] for one in found["keys"]}

    async def refuses(self, kid: str | None = "old") -> str:
        with pytest.raises(KeysUnavailable) as refusal:
            await self.keys.of(URL, kid, looked_at=self.looked_at)
        return str(refusal.value)

    @property
    def asked(self) -> int:
        return len(self.hosts.asked)


@pytest.fixture
def corner() -> Corner:
    return Corner()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 300),
        ({"cache_control": "max-age=60"}, 60),
        ({"cache_control": "public, MAX-AGE=60"}, 60),
        ({"cache_control": 'max-age="60"'}, 60),
        ({"cache_control": "max-age=60", "age": "20"}, 40),
        ({"cache_control": "max-age=600, max-age=60"}, 60),
        ({"cache_control": "max-age=60", "expires": "Mon, 01 Jan 2031 00:00:00 GMT"}, 60),
        ({"cache_control": "max-age=100000"}, 3600),
        (
            {
                "date": "Mon, 01 Jan 2029 00:00:00 GMT",
                "expires": "Mon, 01 Jan 2029 00:01:30 GMT",
            },
            90,
        ),
    ],
)
async def test_a_set_is_kept_as_long_as_its_header_says(
    corner: Corner, headers: dict[str, str], seconds: int
) -> None:
    """Planted faults: the header is not read; an hour is no bound; ``Age`` is not taken off."""
    corner.serve(jwks(OLD), **headers)
    await corner.kids()
    corner.clock.advance(seconds - 1)
    await corner.kids()
    assert corner.asked == 1
    corner.clock.advance(1)
    await corner.kids()
    assert corner.asked == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"cache_control": "no-store"},
        {"cache_control": "no-cache"},
        {"cache_control": "max-age=600, no-store"},
        {"cache_control": "max-age=0"},
        {"cache_control": "max-age=-1"},
        {"cache_control": "max-age=soon"},
        {"cache_control": "max-age="},
        {"cache_control": "max-age=60", "age": "60"},
        {"expires": "0"},
        {"expires": "Mon, 01 Jan 2029 00:00:00 GMT"},
    ],
)
async def test_a_set_that_may_not_be_kept_is_read_each_time(
    corner: Corner, headers: dict[str, str]
) -> None:
    """SMART 2.2 §4. Planted fault: a minimum is kept whatever the header says."""
    corner.serve(jwks(OLD), **headers)
    for times in (1, 2, 3):
        await corner.kids()
        assert corner.asked == times


async def test_a_key_taken_away_is_gone_with_the_old_set(corner: Corner) -> None:
    """Planted fault: sets are joined, so that a key once seen is good for ever."""
    await corner.kids()
    corner.serve(jwks(NEW))
    corner.clock.advance(300)
    assert await corner.kids() == {"new"}


async def test_an_unknown_key_is_looked_for_once_a_minute(corner: Corner) -> None:
    """Planted faults: never looked for; looked for each time a stranger makes up a name."""
    await corner.kids()
    corner.serve(jwks(OLD, NEW))
    assert await corner.kids("new") == {"old"}  # the set was read this minute
    corner.clock.advance(60)
    assert await corner.kids("new") == {"old", "new"}
    assert corner.asked == 2
    for number in range(100):
        await corner.kids(f"made up {number}")
    assert corner.asked == 2
    corner.clock.advance(60)
    for number in range(100):
        await corner.kids(f"made up {number}")
    assert corner.asked == 3


async def test_while_the_host_is_down_the_last_good_set_serves_for_a_while(
    corner: Corner,
) -> None:
    """Planted faults: there is no grace; the grace has no end."""
    await corner.kids()
    corner.serve(status=503)
    corner.clock.advance(300 + 299)
    assert await corner.kids() == {"old"}
    corner.clock.advance(1)
    assert "in trouble" in await corner.refuses()


@pytest.mark.parametrize("header", ["no-store", "max-age=60, must-revalidate", "max-age=0"])
async def test_without_leave_there_is_no_grace(corner: Corner, header: str) -> None:
    """RFC 9111 §5.2.2.2. Planted fault: ``must-revalidate`` is not read."""
    corner.serve(jwks(OLD), cache_control=header)
    await corner.kids()
    corner.clock.advance(60)
    corner.serve(status=503)
    await corner.refuses()


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404},
        {"status": 301, "location": URL},
        {"content": b"not json"},
        {"content": b"[" * 50_000},
        {"content": b"\xff\xfe"},
        {"content": b'{"keys": []}'},
        {"content": json.dumps({"keys": [OLD.as_dict(private=True)]}).encode()},
        {"content": jwks(OLD), "content_type": "text/html"},
        {"content": jwks(OLD) + b" " * 70_000},
    ],
)
async def test_a_host_that_answers_otherwise_has_no_keys_any_more(
    corner: Corner, answer: dict[str, Any]
) -> None:
    """Poisoning, or a client that took its keys away: no grace.

    Planted fault: any failure leaves the last good set in use.
    """
    await corner.kids()
    corner.clock.advance(300)
    corner.serve(**answer)
    await corner.refuses()


async def test_a_name_that_moved_inside_has_no_keys_any_more(corner: Corner) -> None:
    """DNS rebinding between two readings. Planted fault: addresses are not looked at."""
    await corner.kids()
    corner.clock.advance(300)
    corner.hosts.serve("app.example", as_it_is(jwks(OLD)), "127.0.0.1")
    await corner.refuses()
    assert corner.asked == 1


async def test_a_host_that_fails_is_left_alone_for_a_moment(corner: Corner) -> None:
    """Planted fault: whoever sends assertions has us knock each time."""
    corner.serve(status=503)
    for _ in range(20):
        await corner.refuses()
    assert corner.asked == 1
    corner.clock.advance(10)
    corner.serve(jwks(OLD))
    assert await corner.kids() == {"old"}


@pytest.mark.parametrize(("header", "times"), [("max-age=60", 1), ("no-store", 2)])
async def test_requests_at_one_moment_share_an_answer(
    corner: Corner, header: str, times: int
) -> None:
    """Planted fault: each of fifty asks for itself.

    What may not be kept is asked for once more: the first answer was begun before the others came.
    """
    answer = slow_host(corner, *[jwks(OLD)] * 50, cache_control=header)
    going = [asyncio.create_task(corner.kids()) for _ in range(50)]
    await answer.asked.wait()
    answer.go_on.set()
    assert await asyncio.gather(*going) == [{"old"}] * 50
    assert answer.times == times


async def test_who_comes_while_an_answer_is_under_way_waits_for_a_newer_one(
    corner: Corner,
) -> None:
    """With ``no-store``, an answer asked for before somebody came is not theirs.

    Planted fault: it is given to everybody who waited.
    """
    answer = slow_host(corner, jwks(OLD), jwks(NEW), cache_control="no-store")
    first = asyncio.create_task(corner.kids())
    await answer.asked.wait()
    second = asyncio.create_task(corner.kids())
    await asyncio.sleep(0)
    answer.go_on.set()
    assert (await first, await second) == ({"old"}, {"new"})


class SlowHost:
    """A host that answers these, one after the other, once it is let go on."""

    def __init__(self, *contents: bytes, **headers: Any) -> None:
        self.contents = iter(contents)
        self.headers = headers
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.times = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times += 1
        content = next(self.contents)
        self.asked.set()
        await self.go_on.wait()
        return as_it_is(content, **self.headers)(request)


def slow_host(corner: Corner, *contents: bytes, **headers: Any) -> SlowHost:
    host = SlowHost(*contents, **headers)
    http = httpx.AsyncClient(transport=httpx.MockTransport(host))
    corner.keys = corner.over(http)
    return host


async def test_one_address_says_nothing_of_another(corner: Corner) -> None:
    """Cache poisoning. Planted fault: sets are remembered by host."""
    corner.hosts.serve("evil.example", as_it_is(jwks(NEW)))
    await corner.kids()
    other = await corner.keys.of("https://evil.example/jwks.json", "old")
    assert [one["kid"] for one in other["keys"]] == ["new"]
    assert await corner.kids() == {"old"}


async def test_what_is_remembered_is_bounded(
    corner: Corner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a registration each, and the memory is full."""
    monkeypatch.setattr("fhir_portal.smart.client_keys.REMEMBERED", 3)
    for number in range(10):
        await corner.keys.of(f"{URL}?{number}", "old")
    assert len(corner.keys._strange._held) == 3  # noqa: SLF001 - what cannot be seen otherwise


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 403},
        {"status": 404},
        {"status": 503},
        {"status": 301, "location": URL},
        {"content": b"<p>blocked"},
        {"content": jwks(OLD), "content_type": "text/html"},
        {"content": b'{"keys": []}'},
    ],
)
async def test_a_made_up_key_takes_nothing_from_a_set_that_is_fresh(
    corner: Corner, answer: dict[str, Any]
) -> None:
    """An assertion that nobody signed has us ask, and a firewall has had enough of us.

    Planted faults: a bad answer drops the set; a set that had no grace is not used at its end,
    because the host was left alone by then.
    """
    corner.serve(jwks(OLD), cache_control="max-age=600, must-revalidate")
    await corner.kids()
    corner.clock.advance(595)
    corner.serve(**answer)
    assert await corner.kids("made up") == {"old"}
    assert corner.asked == 2
    assert await corner.kids() == {"old"}
    corner.serve(jwks(OLD))
    corner.clock.advance(5)
    assert await corner.kids() == {"old"}
    assert corner.asked == 3


async def test_nobody_waits_for_a_made_up_key_who_has_a_good_one(corner: Corner) -> None:
    """Planted fault: one request at a time also for a set that needs none."""
    held = slow_host(corner, jwks(OLD), jwks(OLD))
    held.go_on.set()
    await corner.kids()
    held.go_on.clear()
    held.asked.clear()
    corner.clock.advance(60)
    stranger = asyncio.create_task(corner.kids("made up"))
    await held.asked.wait()
    assert await asyncio.wait_for(corner.kids(), 5) == {"old"}
    held.go_on.set()
    await stranger


async def test_a_host_is_not_asked_without_end_for_what_may_not_be_kept(corner: Corner) -> None:
    """Planted fault: fifty assertions that nobody signed are fifty requests at a moment."""
    corner.serve(jwks(OLD), cache_control="no-store")
    began = corner.clock.now
    for _ in range(50):
        await corner.kids("made up")
    assert corner.clock.now - began >= 49 * 2
    assert corner.paused == [2] * 49


async def test_a_host_that_goes_on_failing_is_left_alone_for_longer(corner: Corner) -> None:
    """Planted fault: the wait is the same each time."""
    corner.looked_at = False
    corner.serve(status=503)
    asked_at = []
    for _ in range(3_600):
        before = corner.asked
        await corner.refuses()
        if corner.asked > before:
            asked_at.append(corner.clock.now)
        corner.clock.advance(1)
    waits = [later - sooner for sooner, later in itertools.pairwise(asked_at)]
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


async def test_the_host_of_a_client_that_was_looked_at_is_back_within_a_minute(
    corner: Corner,
) -> None:
    corner.serve(status=503)
    for _ in range(3_600):
        await corner.refuses()
        corner.clock.advance(1)
    corner.serve(jwks(OLD))
    corner.clock.advance(60)
    assert await corner.kids() == {"old"}
    corner.serve(status=503)
    corner.clock.advance(600)
    await corner.refuses()
    corner.clock.advance(10)  # the first failure after a good answer
    corner.serve(jwks(OLD))
    assert await corner.kids() == {"old"}


async def test_strangers_use_up_no_turns_of_clients_that_were_looked_at(corner: Corner) -> None:
    """Planted fault: all clients' hosts are asked in one row."""
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["host"].startswith("slow"):
            await release.wait()
        return as_it_is(jwks(OLD))(request)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    known, strangers = (Outbound(http, resolve=corner.hosts.resolve) for _ in range(2))
    keys = ClientKeys(known, corner.clock, strangers=strangers)
    going = []
    for number in range(100):
        corner.hosts.serve(f"slow{number}.example", as_it_is())
        url = f"https://slow{number}.example/jwks"
        going.append(asyncio.create_task(keys.of(url, None)))
    await asyncio.sleep(0)
    found = await asyncio.wait_for(keys.of(URL, "old", looked_at=True), 2)
    assert [one["kid"] for one in found["keys"]] == ["old"]
    release.set()
    await asyncio.gather(*going)


async def test_a_stranger_who_names_the_same_address_changes_nothing(corner: Corner) -> None:
    """Planted fault: what is held is shared by address."""
    await corner.kids()
    corner.clock.advance(300)
    corner.serve(status=404)
    corner.looked_at = False
    await corner.refuses()
    corner.looked_at = True
    corner.serve(jwks(OLD))
    assert await corner.kids() == {"old"}


async def test_no_turn_is_no_failure_of_the_host(corner: Corner) -> None:
    """Planted fault: who found no turn is left alone as if its host were down."""
    outbound = Outbound(corner.hosts.http, resolve=corner.hosts.resolve, seconds=0.02)
    corner.keys = ClientKeys(outbound, corner.clock, pause=corner.pause)
    turns = outbound._turns  # noqa: SLF001 - as if others had them all
    for _ in range(32):
        await turns.acquire()
    assert "too many" in await corner.refuses()
    turns.release()
    assert await corner.kids() == {"old"}


@pytest.mark.parametrize(
    ("change", "looked_at"),
    [
        ({}, True),
        ({"self_registered": True}, False),
        ({"self_registered": True, "approved_at": ("skin",)}, True),
        ({"self_registered": True, "practice": "skin"}, True),
        ({"self_registered": True, "practice": "skin", "awaits_review": True}, False),
        ({"awaits_review": True}, False),
    ],
)
def test_who_counts_as_looked_at(change: dict[str, Any], looked_at: bool) -> None:  # noqa: FBT001 - a table
    """Planted faults: a registration is enough; a change after the approval does not matter."""
    client = Client(
        key="app", name="App", type="public", auth_method="none", scope="", registered=0, **change
    )
    assert was_looked_at(client) is looked_at
