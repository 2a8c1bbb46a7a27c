"""Asking hosts that apps name, without being led to where only this machine can go.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fhir_portal.smart.outbound import (
    AT_ONCE,
    AddressRefused,
    BadAnswer,
    NoAnswer,
    Outbound,
    check_address,
    client,
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
