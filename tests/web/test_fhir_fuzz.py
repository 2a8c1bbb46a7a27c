"""Whatever is sent: never a 5xx, a refusal is an OperationOutcome, and stores nothing."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import fhirkit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.fhir_world import (
    ANNA,
    EHR,
    FHIR_JSON,
    Answer,
    FhirWorld,
    encoded,
    entry,
    observation,
    patient,
    transaction,
)

Send = Callable[..., tuple[Answer, bool]]

often = settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def send(tmp_path_factory) -> Iterator[Send]:
    """Send a request to one world that lives as long as the module; says if rows changed."""
    with asyncio.Runner() as runner:
        world = runner.run(FhirWorld.begin(tmp_path_factory.mktemp("fuzz")))

        def sent(method: str, target: bytes, **more: Any) -> tuple[Answer, bool]:
            before = world.rows()
            answer = runner.run(world.raw(method, target, **more))
            return answer, world.rows() != before

        yield sent
        world.close()


def check(answer: Answer, changed: bool, *, body: bool = True) -> None:  # noqa: FBT001 - one fact
    assert answer.status_code < 500, answer.content
    if answer.status_code < 400:
        return
    assert not changed
    if not body:
        return
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"]
    assert "Traceback" not in answer.content.decode()
    assert not [str(i) for i in fhirkit.validate(answer.content) if i.severity == "error"]


# --- bodies

BODIES = [
    patient("x", name=[{"family": "A", "given": ["B"]}], birthDate="1980-02-03", active=True),
    observation("x"),
    {
        "resourceType": "QuestionnaireResponse",
        "id": "x",
        "status": "completed",
        "subject": {"reference": "Patient/anna"},
        "source": {"reference": "Patient/anna"},
        "item": [{"linkId": "1", "answer": [{"valueDecimal": 1.5}]}],
        "contained": [{"resourceType": "Patient", "id": "p"}],
    },
    {"resourceType": "Binary", "id": "x", "contentType": "text/plain", "data": "YWJj"},
    {
        "resourceType": "Provenance",
        "id": "x",
        "target": [{"reference": "Patient/anna"}],
        "recorded": "2029-03-01T10:00:00Z",
        "agent": [{"who": {"reference": "#"}}],
    },
    {
        "resourceType": "Consent",
        "id": "x",
        "status": "active",
        "scope": {"coding": [{"code": "x"}]},
        "category": [{"coding": [{"code": "proxy-grant"}]}],
        "patient": {"reference": "Patient/anna"},
        "policyRule": {"text": "x"},
        "provision": {"period": {"start": "2020"}, "provision": [{"type": "permit"}]},
    },
]
UUID = "urn:uuid:11111111-1111-1111-1111-111111111111"
BUNDLES = [
    transaction(
        entry("POST", "Patient", patient(), full_url=UUID),
        entry("PUT", "Observation/x", observation("x"), ifMatch='W/"1"', ifNoneMatch="*"),
        entry("GET", "Patient?name=a&_count=1"),
        entry("DELETE", "Observation/y"),
        kind=kind,
    )
    for kind in ("transaction", "batch")
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "Patient/anna",
            "#",
            "#p",
            "urn:uuid:x",
            "Patient?name=a",
            "2020-02-30",
            "<div xmlns='http://www.w3.org/1999/xhtml'><script/></div>",
            "http://x.example",
            "$where",
            "9" * 400,
            10**400,
        ]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=6)
            | st.sampled_from(
                ["id", "reference", "extension", "url", "resourceType", "coding", "_id", "meta"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    members = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in members:
        yield node, name
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def mutated(draw: st.DrawFn, trees: list[Any]) -> Any:
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, name = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "drop", "add", "wrap"]))
        if kind == "replace":
            holder[name] = draw(values)
        elif kind == "drop":
            del holder[name]
        elif kind == "wrap":
            holder[name] = [holder[name]]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=6) | st.sampled_from(["extension", "id", "_x"]))] = draw(
                values
            )
        else:
            holder.append(draw(values))
    return tree


@often
@given(tree=mutated(BODIES), person=st.booleans(), create=st.booleans())
def test_mutated_resources(send: Send, tree, person, create):
    name = tree.get("resourceType") if isinstance(tree.get("resourceType"), str) else "Patient"
    if not (name.isascii() and name.isalpha()):
        name = "Patient"
    answer, changed = send(
        "POST" if create else "PUT",
        f"/fhir/{name}" if create else f"/fhir/{name}/x",
        headers=[("Content-Type", FHIR_JSON)],
        body=[_written(tree)],
        token=ANNA if person else EHR,
    )
    check(answer, changed)


@often
@given(tree=mutated(BUNDLES), person=st.booleans())
def test_mutated_bundles(send: Send, tree, person):
    answer, changed = send(
        "POST",
        "/fhir",
        headers=[("Content-Type", FHIR_JSON)],
        body=[_written(tree)],
        token=ANNA if person else EHR,
    )
    check(answer, changed)
    if answer.status_code == 200:
        for one in answer.json().get("entry", ()):
            assert not one["response"]["status"].startswith("5"), one


@often
@given(
    tree=st.sampled_from(BODIES + BUNDLES),
    edits=st.lists(
        st.tuples(st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 4)), max_size=4
    ),
)
def test_mutated_bytes(send: Send, tree, edits):
    body = bytearray(encoded(tree))
    for place, new, length in edits:
        at = place % (len(body) + 1)
        body[at : at + length] = new
    target = "/fhir" if tree["resourceType"] == "Bundle" else f"/fhir/{tree['resourceType']}/x"
    method = "POST" if target == "/fhir" else "PUT"
    answer, changed = send(
        method, target, headers=[("Content-Type", FHIR_JSON)], body=[bytes(body)]
    )
    check(answer, changed)


# --- addresses and headers

SEGMENTS = (
    "Patient Observation AuditEvent Binary Nothing anna x _history _search metadata 1 0 .. . "
    "$everything %2f %00 %ff * a_b"
)
segments = st.sampled_from([*SEGMENTS.split(), "", "a" * 64, "a" * 65]) | st.binary(max_size=4).map(
    quote_from_bytes
)
names = st.sampled_from(
    (
        "_id _lastUpdated _count _sort _include _revinclude _total _summary _page _format _pretty "
        "_since _has name name:exact name:contains name:missing birthdate identifier code date "
        "identifier:not value-quantity subject subject:Patient patient organization.name url x "
        "agent entity outcome category:not"
    ).split()
) | st.text(max_size=5)
texts = st.sampled_from(
    [
        *"x 1 -1 0 2020 ge2020-01 2020-01-01T10:00:00Z ap2020 ne5 5|u|c |c s| anna".split(),
        *"Patient/anna true false json xml accurate count name -birthdate,name a\\,b".split(),
        *"Patient:organization Observation:patient Observation:* * \\ , || $ lt1e400 1e9".split(),
        "http://127.0.0.1:8000/fhir/Patient/anna",
        "9" * 50,
        "",
        "' OR 1=1",
        "2020-01-01T10:00:00-99:00",
        "0001",
        "9999-12-31T23:59:60-14:00",
        "ap0001-01-01",
        "0000",
        "-0",
        "1.0e-300",
        "a,b,c",
    ]
) | st.text(max_size=6)


def _quoted(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"))


queries = st.lists(st.tuples(names, texts), max_size=4).map(
    lambda pairs: "&".join(f"{_quoted(name)}={_quoted(text)}" for name, text in pairs)
) | st.binary(max_size=12).map(lambda raw: raw.decode("latin-1").replace("#", ""))
HEADERS = (
    "Accept Prefer If-Match If-None-Match If-Modified-Since If-None-Exist Content-Type "
    "Content-Length Origin Cookie Range Host X-HTTP-Method-Override Expect Content-Encoding"
).split()
headers = st.lists(
    st.tuples(
        st.sampled_from(HEADERS),
        st.sampled_from(
            [
                b"*",
                b'W/"1"',
                b"1",
                b"application/fhir+json",
                b"text/html;q=0",
                b"return=minimal",
                b"handling=lenient",
                b"name=a",
                b"Sun, 17 Mar 2030 17:46:40 GMT",
                b"Sun, 17 Mar 0000 17:46:40 -0000",
                b"bytes=0-1",
                b"https://app.example",
            ]
        )
        | st.binary(max_size=10),
    ),
    max_size=4,
)


@often
@given(
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "X"]),
    path=st.lists(segments, max_size=5),
    query=queries,
    sent=headers,
    token=st.sampled_from([EHR, EHR, ANNA, "x" * 30, None]),
    body=st.sampled_from([b"", b"{}", b'{"resourceType":"Patient"}', b"a=b&name=x"]),
)
def test_random_addresses_and_headers(send: Send, method, path, query, sent, token, body):
    target = "/fhir/" + "/".join(path)
    answer, changed = send(
        method,
        f"{target}?{query}".encode("latin-1", "replace"),
        headers=sent,
        body=[body],
        token=token,
    )
    check(answer, changed, body=method != "HEAD")
    if token not in {EHR, ANNA} and "metadata" not in path and method != "OPTIONS":
        assert answer.status_code in {400, 401}


@often
@given(
    name=st.sampled_from(["Patient", "Observation", "AuditEvent", "Provenance", "Practitioner"]),
    query=st.lists(st.tuples(names, texts), min_size=1, max_size=4),
    person=st.booleans(),
    lenient=st.booleans(),
)
def test_random_searches(send: Send, name, query, person, lenient):
    encoded_query = "&".join(f"{_quoted(one)}={_quoted(text)}" for one, text in query)
    answer, changed = send(
        "GET",
        f"/fhir/{name}?{encoded_query}",
        headers=[("Prefer", "handling=lenient")] if lenient else [],
        token=ANNA if person else EHR,
    )
    check(answer, changed)
    assert not changed


def _written(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=True).encode()
