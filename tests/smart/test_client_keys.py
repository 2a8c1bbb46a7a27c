"""JWK Sets by URL: kept as their header says, read anew for a new key, never more than that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from fhir_portal.smart.client_keys import ClientKeys, KeysUnavailable
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
        self.keys = ClientKeys(Outbound(self.hosts.http, resolve=self.hosts.resolve), self.clock)
        self.serve(jwks(OLD))

    def serve(self, content: bytes = b"{}", **answer: Any) -> None:
        self.hosts.serve("app.example", as_it_is(content, **answer))

    async def kids(self, kid: str | None = "old") -> set[str]:
        return {one["kid"] for one in (await self.keys.of(URL, kid))["keys"]}

    async def refuses(self, kid: str | None = "old") -> str:
        with pytest.raises(KeysUnavailable) as refusal:
            await self.keys.of(URL, kid)
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
    corner.keys = ClientKeys(Outbound(http, resolve=corner.hosts.resolve), corner.clock)
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
    assert len(corner.keys._held) == 3  # noqa: SLF001 - what cannot be seen otherwise
