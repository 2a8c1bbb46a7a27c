"""Bundles joined from stored bytes: no resource is parsed or re-serialised on the way out.

Source: FHIR R4 §2.36 (Bundle).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


def bundle(
    kind: str,
    *,
    total: int | None,
    links: Sequence[tuple[str, str]],
    entries: Iterable[bytes],
) -> bytes:
    """Return a Bundle of a kind (``searchset``, ``history``, …) with links (relation, url)."""
    parts = [b'{"resourceType":"Bundle","type":"', kind.encode(), b'"']
    if total is not None:
        parts += [b',"total":', str(total).encode()]
    if links:
        rows = [{"relation": relation, "url": url} for relation, url in links]
        parts += [b',"link":', _encode(rows)]
    joined = b",".join(entries)
    if joined:
        parts += [b',"entry":[', joined, b"]"]
    parts.append(b"}")
    return b"".join(parts)


def search_entries(base: str, found: Iterable[tuple[str, str, bytes]], mode: str) -> list[bytes]:
    """Entries of a searchset for (type, id, body); ``mode`` is ``match`` or ``include``."""
    head, tail = f'{{"fullUrl":"{base}/'.encode(), b',"search":{"mode":"%b"}}' % mode.encode()
    return [
        b'%b%b/%b","resource":%b%b' % (head, name.encode(), own_id.encode(), body, tail)
        for name, own_id, body in found
    ]


def history_entry(
    full_url: str, body: bytes, *, method: str, url: str, status: str, etag: str, modified: str
) -> bytes:
    """One entry of a history Bundle; a deletion has no resource."""
    tail = _encode(
        {
            "request": {"method": method, "url": url},
            "response": {"status": status, "etag": etag, "lastModified": modified},
        }
    )[1:]
    if not body:
        return b'{"fullUrl":"%b",%b' % (full_url.encode(), tail)
    return b'{"fullUrl":"%b","resource":%b,%b' % (full_url.encode(), body, tail)


def response_entry(
    *,
    status: str,
    body: bytes,
    outcome: bytes,
    location: str | None,
    etag: str | None,
    modified: str | None,
) -> bytes:
    """One entry of a batch-response or transaction-response Bundle."""
    response: dict[str, object] = {"status": status}
    if location is not None:
        response["location"] = location
    if etag is not None:
        response["etag"] = etag
    if modified is not None:
        response["lastModified"] = modified
    if outcome:
        response["outcome"] = msgspec.Raw(outcome)
    tail = _encode({"response": response})[1:]
    return (b'{"resource":%b,%b' % (body, tail)) if body else (b"{" + tail)
