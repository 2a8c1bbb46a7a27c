"""Asking hosts that apps name, without being led to where only this machine can go.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import httpx
import pytest

from fhir_portal.smart.outbound import (
    AT_ONCE,
    AddressRefused,
    BadAnswer,
    NoAnswer,
    NoTurn,
    Outbound,
    check_address,
    client,
    look_up,
    site_of,
)
from tests.smart.hosts import PUBLIC, Hosts, Parts, as_it_is

URL = "https://app.example/jwks.json"


@pytest.fixture
def hosts() -> Hosts:
    hosts = Hosts()
    hosts.serve("app.example", as_it_is())
    return hosts


def outbound(hosts: Hosts, **options: Any) -> Outbound:
    return Outbound(hosts.http, resolve=hosts.resolve, **options)


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example/jwks.json",
        "https://app.example",
        "https://app.example:8443/a/b?c=d&e=%20f",
        "https://APP.example/",
        f"https://{PUBLIC}/jwks",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/jwks",
    ],
)
def test_these_addresses_may_be_asked(url: str) -> None:
    check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example/jwks",
        "http://app.example/jwks",
        "ftp://app.example/jwks",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:/app.example/jwks",
        "https://",
        "https:///jwks",
        "https://app.example:/jwks",
        "https://app.example:0/jwks",
        "https://app.example:65536/jwks",
        "https://app.example/#x",
        "https://user@app.example/jwks",
        "https://user:word@app.example/jwks",
        "https://127.0.0.1@app.example/jwks",
        "https://app.example\\@127.0.0.1/jwks",
        "https://app.example\n/jwks",
        "https://app.example/\r\nHost: x",
        "https://app.example /jwks",
        "https://app.exämple/jwks",
        "https://app.example./jwks",
        "https://-app.example/jwks",
        "https://app_1.example/jwks",
        "https://[::1%25lo]/jwks",
        "https://app.example/" + "x" * 2000,
        "https://localhost/jwks",
        "https://127.0.0.1/jwks",
        "https://10.0.0.7:5432/jwks",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/jwks",
        "https://[::ffff:127.0.0.1]/jwks",
        "https://[fe80::1]/jwks",
        "https://[fd00::1]/jwks",
    ],
)
def test_these_addresses_are_never_asked(url: str) -> None:
    """Planted fault: a host that is an IP address is not looked at before it is registered."""
    with pytest.raises(AddressRefused):
        check_address(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.251",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "not an address",
    ],
)
async def test_a_name_that_means_an_inner_address_is_not_asked(hosts: Hosts, address: str) -> None:
    """Server-side request forgery. Planted fault: addresses are not looked at."""
    hosts.serve("app.example", as_it_is(), address)
    with pytest.raises(AddressRefused):
        await outbound(hosts).get_json(URL)
    assert hosts.asked == []


@pytest.mark.parametrize("order", [(PUBLIC, "10.0.0.1"), ("10.0.0.1", PUBLIC)])
async def test_one_inner_address_among_others_is_enough_to_refuse(
    hosts: Hosts, order: tuple[str, ...]
) -> None:
    """Planted fault: only the first address that a name has is looked at."""
    hosts.serve("app.example", as_it_is(), *order)
    with pytest.raises(AddressRefused):
        await outbound(hosts).get_json(URL)
    assert hosts.asked == []


@pytest.mark.parametrize(
    ("address", "host"),
    [(PUBLIC, PUBLIC), ("2606:2800:220:1::1", "2606:2800:220:1::1")],
)
async def test_the_connection_goes_to_the_address_that_was_looked_at(
    hosts: Hosts, address: str, host: str
) -> None:
    """DNS rebinding: at the second look-up the name would mean this machine.

    Planted fault: the request is made to the name, which the HTTP client resolves again.
    """
    hosts.serve("app.example", as_it_is(), address)
    await outbound(hosts).get_json("https://app.example:8443/a?b=c")
    (request,) = hosts.asked
    assert hosts.looked_up == ["app.example"]
    assert (request.url.host, request.url.port) == (host, 8443)
    assert request.url.raw_path == b"/a?b=c"
    assert request.headers["host"] == "app.example:8443"
    assert request.extensions["sni_hostname"] == "app.example"


async def test_nothing_of_ours_goes_along(hosts: Hosts) -> None:
    """Planted fault: cookies that one host set are kept in the client and sent to the next."""
    hosts.serve("app.example", as_it_is(set_cookie="track=1; Path=/"))
    asking = outbound(hosts)
    await asking.get_json(URL)
    await asking.get_json(URL)
    for request in hosts.asked:
        assert set(request.headers) == {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "connection",
        }
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["connection"] == "close"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(hosts: Hosts, status: int) -> None:
    """The way round every check. Planted fault: ``follow_redirects=True``."""
    hosts.serve("app.example", as_it_is(status=status, location="https://inner.example/"))
    hosts.serve("inner.example", as_it_is())
    hosts.answers[PUBLIC] = as_it_is()
    with pytest.raises(BadAnswer):
        await outbound(hosts).get_json(URL)
    assert len(hosts.asked) == 1


async def test_a_long_answer_is_not_read_to_its_end(hosts: Hosts) -> None:
    """Planted fault: the whole body is read, then measured."""
    parts = Parts(*[b" " * 1000] * 1000)
    hosts.serve("app.example", as_it_is(stream=parts))
    with pytest.raises(BadAnswer):
        await outbound(hosts, max_bytes=5000).get_json(URL)
    assert parts.sent == 6


async def test_an_answer_may_have_just_so_many_bytes(hosts: Hosts) -> None:
    hosts.serve("app.example", as_it_is(b" " * 5000))
    answer = await outbound(hosts, max_bytes=5000).get_json(URL)
    assert len(answer.content) == 5000


async def test_a_compressed_answer_is_refused(hosts: Hosts) -> None:
    """A kilobyte could unpack to a gigabyte. Planted fault: the header is not looked at."""
    hosts.serve("app.example", as_it_is(content_encoding="gzip"))
    with pytest.raises(BadAnswer):
        await outbound(hosts).get_json(URL)


class NeverEnding(httpx.AsyncByteStream):
    async def __aiter__(self) -> Any:
        yield b" "
        await asyncio.Event().wait()


async def forever(*_: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("what", ["the name", "the answer", "its body"])
async def test_whoever_keeps_us_waiting_is_left(hosts: Hosts, what: str) -> None:
    """Planted fault: there is a limit for each read, and none in all."""
    http = hosts.http
    resolve: Any = hosts.resolve
    if what == "the name":
        resolve = forever
    elif what == "the answer":
        http = httpx.AsyncClient(transport=httpx.MockTransport(forever))
    else:
        hosts.serve("app.example", as_it_is(stream=NeverEnding()))
    asking = Outbound(http, resolve=resolve, seconds=0.02)
    with pytest.raises(NoAnswer):
        await asyncio.wait_for(asking.get_json(URL), 5)


def breaks(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        as_it_is(status=500),
        as_it_is(status=503),
        as_it_is(status=429),
        breaks(httpx.ConnectError("refused")),
        breaks(httpx.RemoteProtocolError("not HTTP")),
        breaks(OSError("no route")),
    ],
    ids=["500", "503", "429", "refused", "not HTTP", "no route"],
)
async def test_a_host_in_trouble_is_told_from_one_that_answers(hosts: Hosts, answer: Any) -> None:
    hosts.serve("app.example", answer)
    with pytest.raises(NoAnswer):
        await outbound(hosts).get_json(URL)


async def test_a_name_that_nobody_has_is_no_answer(hosts: Hosts) -> None:
    with pytest.raises(NoAnswer):
        await outbound(hosts).get_json("https://gone.example/jwks")


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 404, 410])
async def test_only_200_is_a_document(hosts: Hosts, status: int) -> None:
    hosts.serve("app.example", as_it_is(status=status))
    with pytest.raises(BadAnswer):
        await outbound(hosts).get_json(URL)


@pytest.mark.parametrize(
    ("media", "good"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/jwk-set+json", True),
        ("text/html", False),
        ("text/plain", False),
        ("application/javascript", False),
        ("", False),
    ],
)
async def test_only_json_is_read(
    hosts: Hosts,
    media: str,
    good: bool,  # noqa: FBT001 - a table
) -> None:
    """A page that anybody may write to is no key set. Planted fault: any media type will do."""
    hosts.serve("app.example", as_it_is(content_type=media))
    if good:
        assert (await outbound(hosts).get_json(URL)).content == b"{}"
    else:
        with pytest.raises(BadAnswer):
            await outbound(hosts).get_json(URL)


async def test_something_is_handed_over(hosts: Hosts) -> None:
    hosts.serve("app.example", as_it_is(status=202))
    answer = await outbound(hosts).post(URL, b"token", "application/secevent+jwt")
    (request,) = hosts.asked
    assert answer.status == 202
    assert (request.method, request.content) == ("POST", b"token")
    assert request.headers["content-type"] == "application/secevent+jwt"
    assert request.headers["content-length"] == "5"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/jwks", "https://localhost/jwks", "http://[::1]:9000/jwks"]
)
async def test_in_development_this_machine_may_be_named(hosts: Hosts, url: str) -> None:
    """Planted fault: the setting is not asked, loopback is always open."""
    for name in ("127.0.0.1", "localhost", "::1"):
        hosts.serve(name, as_it_is(), "::1" if name == "::1" else "127.0.0.1")
    hosts.answers["[::1]"] = as_it_is()
    check_address(url, loopback=True)
    assert (await outbound(hosts, loopback=True).get_json(url)).status == 200
    with pytest.raises(AddressRefused):
        await outbound(hosts).get_json(url)


@pytest.mark.parametrize("url", ["http://app.example/jwks", "http://10.0.0.1/", "https://10.0.0.1"])
async def test_in_development_only_this_machine_is_excepted(hosts: Hosts, url: str) -> None:
    hosts.serve("10.0.0.1", as_it_is(), "10.0.0.1")
    with pytest.raises(AddressRefused):
        check_address(url, loopback=True)
    with pytest.raises(AddressRefused):
        await outbound(hosts, loopback=True).get_json(url)


async def test_not_everybody_is_asked_at_once(hosts: Hosts) -> None:
    """Planted fault: there is no bound on how many hosts are waited for."""
    going, most = 0, 0
    release = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        nonlocal going, most
        going += 1
        most = max(most, going)
        if going == AT_ONCE:
            release.set()
        await release.wait()
        await asyncio.sleep(0)
        going -= 1
        return as_it_is()(request)

    asking = Outbound(httpx.AsyncClient(transport=httpx.MockTransport(slow)), resolve=hosts.resolve)
    await asyncio.gather(*(asking.get_json(URL) for _ in range(2 * AT_ONCE)))
    assert most == AT_ONCE


async def test_the_client_it_is_made_for_takes_no_proxy_and_keeps_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy would resolve the name again. Planted fault: ``trust_env`` is left as it is."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    async with client() as http:
        assert http.trust_env is False
        assert http.follow_redirects is False
        assert list(http._mounts) == []  # noqa: SLF001 - where proxies would be
        transport: Any = http._transport  # noqa: SLF001 - where the bound would be
        assert transport._pool._max_connections > 2**31  # noqa: SLF001


# ---------------------------------------------------------------- turns


class Stuck:
    """Hosts that answer when they are let; `asked` are those that were."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self))

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers["host"])
        if request.headers["host"].startswith("slow"):
            await self.go_on.wait()
        return as_it_is()(request)

    async def resolve(self, host: str, port: int) -> list[str]:
        del host, port
        return [PUBLIC]


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - the world here has no event for it
            await asyncio.sleep(0)


@asynccontextmanager
async def asking_slow(asking: Outbound, *hosts: str) -> AsyncIterator[None]:
    going = [asyncio.create_task(asking.get_json(f"https://{host}/")) for host in hosts]
    try:
        yield
    finally:
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


async def test_whoever_finds_no_turn_is_told_so() -> None:
    """It says nothing about the host. Planted fault: it is taken for one that is down."""
    stuck = Stuck()
    asking = Outbound(stuck.http, resolve=stuck.resolve, seconds=0.05)
    other = Outbound(stuck.http, resolve=stuck.resolve)
    turns = asking._turns  # noqa: SLF001 - as if others had them all
    for _ in range(AT_ONCE):
        await turns.acquire()
    with pytest.raises(NoTurn):
        await asking.get_json("https://app.example/")
    assert stuck.asked == []
    assert (await other.get_json("https://app.example/")).status == 200


async def test_the_hosts_of_one_site_wait_for_one_another_and_for_no_other() -> None:
    """A wildcard in the DNS makes a stranger any number of hosts.

    Planted faults: each host is a site; who waits for the site's turn holds one of the others'.
    """
    stuck = Stuck()
    asking = Outbound(stuck.http, resolve=stuck.resolve, site_at_once=1)
    names = [f"slow{n}.tarpit.example" for n in range(2 * AT_ONCE)]
    async with asking_slow(asking, *names):
        await until(lambda: len(stuck.asked) == 1)
        assert (await asking.get_json("https://app.example/")).status == 200
        assert len(stuck.asked) == 2
        stuck.go_on.set()
        await until(lambda: len(stuck.asked) == 2 * AT_ONCE + 1)


async def test_a_site_is_forgotten_when_nobody_asks_it() -> None:
    """Planted fault: a registration each, and the memory is full."""
    stuck = Stuck()
    asking = Outbound(stuck.http, resolve=stuck.resolve, site_at_once=1)
    for n in range(20):
        await asking.get_json(f"https://app{n}.example/")
    assert len(asking._sites) == 0  # noqa: SLF001 - what cannot be seen otherwise


async def test_a_turn_is_given_back_however_it_ends() -> None:
    """Planted fault: who went away while waiting keeps the turn."""
    stuck = Stuck()
    asking = Outbound(stuck.http, resolve=stuck.resolve, site_at_once=1)
    for _ in range(AT_ONCE + 1):
        asked = len(stuck.asked)
        async with asking_slow(asking, "slow.example", "slow.example"):
            while len(stuck.asked) == asked:  # noqa: ASYNC110 - as in `until`
                await asyncio.sleep(0)
    assert (await asking.get_json("https://app.example/")).status == 200


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("app.example", "app.example"),
        ("a.b.c.app.example", "app.example"),
        ("a.app.co.uk", "app.co.uk"),
        ("a.clinic.at", "clinic.at"),
        ("a.b.gv.at", "b.gv.at"),
        ("example", "example"),
        (PUBLIC, PUBLIC),
        ("[2606:2800:220:1::1]", "[2606:2800:220:1::1]"),
    ],
)
def test_what_the_site_of_a_host_is(host: str, site: str) -> None:
    assert site_of(host) == site


# ---------------------------------------------------------------- names


class NameServer(asyncio.DatagramProtocol):
    """A name server on this machine; of names in ``tarpit.example`` it says nothing."""

    def __init__(self, **zone: dict[str, list[str]]) -> None:
        self.zone = zone
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        known = self.zone.get(name.partition(".")[0])
        if known is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif "silent" in known.get(kind, []):
            return
        elif known.get(kind):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *known[kind]))
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def names(**zone: dict[str, list[str]]) -> AsyncIterator[tuple[NameServer, Any]]:
    """A name server, and a resolver that asks it."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(**zone), local_addr=("127.0.0.1", 0)
    )
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield server, resolver
    finally:
        transport.close()


async def test_a_name_is_looked_up_in_the_dns() -> None:
    async with names(app={"A": [PUBLIC, "93.184.216.35"]}) as (server, resolver):
        assert sorted(await look_up("app.example", 443, resolver)) == [PUBLIC, "93.184.216.35"]
        assert sorted(server.asked) == ["app.example A", "app.example AAAA"]


async def test_every_address_of_either_kind_is_found() -> None:
    """What is not found is not looked at. Planted fault: only one kind is asked for."""
    async with names(app={"A": [PUBLIC], "AAAA": ["fd00::1"]}) as (_, resolver):
        assert set(await look_up("app.example", 443, resolver)) == {PUBLIC, "fd00::1"}


@pytest.mark.parametrize("name", ["gone.example", "empty.example", "a..b", "x" * 64 + ".example"])
async def test_a_name_without_an_address_is_none(name: str) -> None:
    async with names(empty={"TXT": ["x"]}) as (_, resolver):
        with pytest.raises(OSError, match="no address"):
            await look_up(name, 443, resolver)


async def test_search_domains_are_not_tried() -> None:
    """Planted fault: ``ehr`` is looked for in our own network's domain."""
    async with names(ehr={"A": [PUBLIC]}) as (server, resolver):
        resolver.search = [dns.name.from_text("inner.example")]
        resolver.use_search_by_default = True
        server.zone.clear()
        with pytest.raises(OSError, match="no address"):
            await look_up("ehr", 443, resolver)
        assert sorted(server.asked) == ["ehr A", "ehr AAAA"]


async def test_silence_about_one_kind_of_address_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted fault: one look-up after the other, in one time."""
    monkeypatch.setattr("fhir_portal.smart.outbound._LOOK_UP_SECONDS", 0.2)
    async with names(app={"A": [PUBLIC], "AAAA": ["silent"]}) as (_, resolver), asyncio.timeout(3):
        assert await look_up("app.example", 443, resolver) == [PUBLIC]


async def test_slow_names_keep_nobody_waiting_once_they_are_left() -> None:
    """A name server that says nothing, and more names than there ever were threads.

    Planted fault: the system's resolver, whose threads go on after the time is over.
    """
    silent = {"A": ["silent"], "AAAA": ["silent"]}
    async with names(slow=silent, app={"A": [PUBLIC]}) as (server, resolver):

        async def resolve(host: str, port: int) -> Any:
            return await look_up(host, port, resolver)

        stuck = Stuck()
        asking = Outbound(stuck.http, resolve=resolve, seconds=0.5)
        going = [
            asyncio.create_task(asking.get_json(f"https://slow.tarpit{n}.example/"))
            for n in range(AT_ONCE)
        ]
        for answer in await asyncio.gather(*going, return_exceptions=True):
            assert isinstance(answer, NoAnswer)
        assert len(server.asked) >= AT_ONCE
        patient = Outbound(stuck.http, resolve=resolve)
        assert (await patient.get_json("https://app.example/")).status == 200
