"""Requests to addresses that apps name: their JWK Sets, and where they want to be told.

Whoever names an address could name one that only this machine can reach (server-side request
forgery, OWASP ASVS 5.0 §1.3.6). So: ``https`` only; the name is resolved here, every address it
has must be one of the public internet, and the connection goes to an address that was looked at,
so that a name cannot mean one thing when it is checked and another when it is used (DNS
rebinding). Redirects are not followed. An answer has a limit of bytes and of time.

A name may be slow by intent. So it is looked up in the DNS by a resolver that can be left, not by
the system's, which holds a thread for as long as it likes. What only this machine could resolve
(its hosts file, search domains) is no name of the public internet and is not found. Who asks is
served in turn; where strangers name the hosts, those of one site wait for one another.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import httpx

SECONDS: Final = 5.0
MAX_BYTES: Final = 64 * 1024
AT_ONCE: Final = 32
_LOOK_UP_SECONDS: Final = 2.5
"""For one kind of address: a name server that keeps silent about the other kind costs no more."""
_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429
_REDIRECTS: Final = range(300, 400)

# To the letter, so that no two readers of an address see different hosts in it.
_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9\-._~:/@!$&'()*+,;=%]*)?"
    r"(?P<query>\?[A-Za-z0-9\-._~:/?@!$&'()*+,;=%]*)?"
)
_LONGEST: Final = 2000
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MOST_PORTS: Final = 65535

# What is not reached over the public internet (IANA special-purpose address registries).
_OTHER_IPV4: Final = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 "
        "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 "
        "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
    ).split()
]
# Of IPv6, only what is given out to networks. That leaves out every form that holds an IPv4
# address (mapped, NAT64), and the rest here are documentation, tunnels and protocol assignments.
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
_OTHER_IPV6: Final = [
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]


class AddressRefused(Exception):
    """This address is not asked, whatever it would answer."""


class NoAnswer(Exception):
    """The host is down, or too slow, or says that it is in trouble: try again later."""


class NoTurn(NoAnswer):
    """Too many hosts are waited for at this moment; this one was not asked."""


class BadAnswer(Exception):
    """The host answered, with something that is of no use."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered with a status under 300; headers by lower-case name."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class _Address:
    scheme: str
    host: str
    port: int
    authority: str
    target: str


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to the addresses it has. Raises `OSError` when it has none."""


def client() -> httpx.AsyncClient:
    """An HTTP client for `Outbound`: no proxy, cookie or redirect comes in between.

    Several may share it: it has no bound of its own for one of them to use up.
    """
    return httpx.AsyncClient(
        verify=_trust(),
        trust_env=False,
        follow_redirects=False,
        timeout=SECONDS,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


@functools.cache
def _trust() -> ssl.SSLContext:
    """Whom TLS believes; reading the list takes longer than all the rest of a client."""
    return httpx.create_ssl_context(trust_env=False)


def check_address(url: str, *, loopback: bool = False) -> None:
    """Refuse an address that could never be asked. Raises `AddressRefused`.

    With ``loopback``, for development, this machine may be named, also without TLS.
    """
    _parse(url, loopback=loopback)


class Outbound:
    """Asks hosts that somebody else named, over an injected HTTP client and name resolution.

    Each has turns of its own: whoever can make some hosts wait for others should share none with
    those who must not. With ``site_at_once``, so many hosts of a site are asked at a time.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        loopback: bool = False,
        resolve: Resolve | None = None,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
        site_at_once: int | None = None,
    ) -> None:
        self._http = http
        self._loopback = loopback
        self._resolve = resolve or _resolve
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._site_at_once = site_at_once
        self._sites: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def get_json(self, url: str) -> Answer:
        """Read a JSON document. Raises `AddressRefused`, `NoAnswer`, `NoTurn` or `BadAnswer`."""
        answer = await self._ask("GET", url, {"Accept": "application/json"}, b"")
        media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.status != httpx.codes.OK:
            raise BadAnswer("the answer is not 200")
        if not (media == "application/json" or media.endswith("+json")):
            raise BadAnswer("the answer is not application/json")
        return answer

    async def post(
        self,
        url: str,
        content: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Hand something over. Raises `AddressRefused`, `NoAnswer`, `NoTurn` or `BadAnswer`."""
        sent = {"Content-Type": content_type, "Accept": "application/json", **(headers or {})}
        return await self._ask("POST", url, sent, content)

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> Answer:
        address = _parse(url, loopback=self._loopback)
        async with self._turn(address.host):
            try:
                async with asyncio.timeout(self._seconds):
                    connect_to = await self._look_up(address)
                    return await self._answer(
                        self._request(method, address, connect_to, headers, content)
                    )
            except (TimeoutError, httpx.TransportError, OSError):
                raise NoAnswer("the host does not answer") from None

    @asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        """Wait for one's turn, the site's first: who waits for that keeps no other site waiting."""
        turns = [self._turns]
        if self._site_at_once is not None:
            own = self._sites.setdefault(site_of(host), asyncio.Semaphore(self._site_at_once))
            turns.insert(0, own)
        had: list[asyncio.Semaphore] = []
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    for turn in turns:
                        await turn.acquire()
                        had.append(turn)
            except TimeoutError:
                raise NoTurn("too many hosts are waited for at this moment") from None
            yield
        finally:
            for turn in had:
                turn.release()

    async def _look_up(self, address: _Address) -> str:
        """Return the address to connect to; all that the name has must be allowed."""
        try:
            found = await self._resolve(address.host.strip("[]"), address.port)
        except UnicodeError:
            raise AddressRefused("there is no such host name") from None
        if not found or not all(_may_be_asked(one, loopback=self._loopback) for one in found):
            raise AddressRefused("the host is not on the public internet")
        return found[0]

    def _request(
        self,
        method: str,
        address: _Address,
        connect_to: str,
        headers: Mapping[str, str],
        content: bytes,
    ) -> httpx.Request:
        host = f"[{connect_to}]" if ":" in connect_to else connect_to
        return httpx.Request(
            method,
            f"{address.scheme}://{host}:{address.port}{address.target}",
            headers={
                "Host": address.authority,
                "User-Agent": "fhir-portal",
                "Accept-Encoding": "identity",  # a small answer could unpack to a large one
                "Connection": "close",  # the next host at this address is another one
                **headers,
            },
            content=content or None,
            extensions={
                # The certificate must be that of the name, though we connect to the address.
                "sni_hostname": address.host.strip("[]"),
                "timeout": httpx.Timeout(self._seconds).as_dict(),
            },
        )

    async def _answer(self, request: httpx.Request) -> Answer:
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code >= _SERVER_FAULT or response.status_code == _TOO_MANY:
                raise NoAnswer("the host is in trouble")
            if response.status_code in _REDIRECTS:
                raise BadAnswer("the answer is a redirect, and none is followed")
            if not response.is_success:
                raise BadAnswer("the host refuses")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise BadAnswer("the answer is compressed, which was not asked for")
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > self._max_bytes:
                    raise BadAnswer(f"the answer is over {self._max_bytes // 1024} KiB")
            return Answer(response.status_code, response.headers, bytes(content))
        finally:
            await response.aclose()


def _parse(url: str, *, loopback: bool) -> _Address:
    match = _ADDRESS.fullmatch(url) if len(url) <= _LONGEST else None
    if match is None:
        raise AddressRefused("the address is https, a host, and a path, without user or fragment")
    scheme, host = match["scheme"], match["host"].lower()
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 0 < port <= _MOST_PORTS:
        raise AddressRefused("there is no such port")
    literal = _literal(host.strip("[]"))
    here = host == "localhost" or (literal is not None and literal.is_loopback)
    if not (loopback and here):
        if scheme != "https":
            raise AddressRefused("the address must be https")
        if here or (literal is not None and not _is_public(literal)):
            raise AddressRefused("the host is not on the public internet")
    authority = url[len(scheme) + 3 :].partition("/")[0].partition("?")[0].lower()
    return _Address(scheme, host, port, authority, (match["path"] or "/") + (match["query"] or ""))


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _may_be_asked(address: str, *, loopback: bool) -> bool:
    parsed = _literal(address)
    return parsed is not None and (_is_public(parsed) or (loopback and parsed.is_loopback))


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _OTHER_IPV4)
    return (
        address.scope_id is None
        and address in _GLOBAL_IPV6
        and not any(address in network for network in _OTHER_IPV6)
    )


def site_of(host: str) -> str:
    """Return what a host has in common with others that one owner can make at will.

    The domain that can be bought: two labels, or three under a country that sells below its own
    (``co.uk``). Hosts of different owners may share one (``github.io``); they then wait for one
    another, which is the lesser harm.
    """
    if _literal(host.strip("[]")) is not None:
        return host
    labels = host.split(".")
    _, second, top = ("", "", *labels)[-3:]
    below_country = len(top) == _COUNTRY and len(second) <= _BELOW_COUNTRY
    return ".".join(labels[-3:] if below_country else labels[-2:])


_COUNTRY: Final = 2
_BELOW_COUNTRY: Final = 3


async def _resolve(host: str, port: int) -> Sequence[str]:
    if _literal(host) is not None:
        return [host]
    if host == "localhost":  # RFC 6761 §6.3: never asked for in the DNS
        return ["127.0.0.1", "::1"]
    try:
        resolver = dns.asyncresolver.Resolver()  # anew: its configuration may have changed
    except dns.exception.DNSException:
        raise OSError("there is no name server") from None
    return await look_up(host, port, resolver)


async def look_up(host: str, port: int, resolver: dns.asyncresolver.Resolver) -> Sequence[str]:
    """Return the addresses a name has in the DNS, first those that this machine has a route to.

    Raises `OSError` when it has none.
    """
    answers = await asyncio.gather(
        *(
            resolver.resolve(
                f"{host}.",  # the whole name: no search domain is tried
                kind,
                raise_on_no_answer=False,
                lifetime=_LOOK_UP_SECONDS,
            )
            for kind in (dns.rdatatype.AAAA, dns.rdatatype.A)
        ),
        return_exceptions=True,
    )
    found: list[str] = []
    for answer in answers:
        if isinstance(answer, dns.exception.DNSException | OSError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        found += [str(one.address) for one in answer.rrset or ()]
    if not found:
        raise OSError("the name has no address")
    return sorted(found, key=lambda address: not _has_route(address, port))


def _has_route(address: str, port: int) -> bool:
    """Whether there is a way to an address. Connecting a datagram socket sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, port))
    except OSError:
        return False
    return True
