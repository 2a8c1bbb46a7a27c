"""Published sample data, imported by the command and read back to the digit.

``FHIR_PORTAL_TEST_DATA`` names the folder (by default ``../shared/data`` beside the checkout);
with ``FHIR_PORTAL_TEST_ALL_DATA=1`` all of it is imported, not only the first Bundles.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from fhir_portal.access.visibility import Visibility
from fhir_portal.commands.import_ import import_command
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.reference import ResourceKey
from tests.places import Place, kinds, new_place, variables

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DATA: Final = Path(os.environ.get("FHIR_PORTAL_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
ALL: Final = os.environ.get("FHIR_PORTAL_TEST_ALL_DATA") == "1"
FIRST: Final = 3
PRACTICE: Final = "sample"

pytestmark = pytest.mark.skipif(
    not (DATA / "synthea" / "bundles.ndjson.gz").is_file(),
    reason=f"no sample data in {DATA}; FHIR_PORTAL_TEST_DATA names another folder",
)

KNOWN_FAULTS: Final = {
    "CodeSystem/example": "CodeSystem",  # a code twice: csd-1
    "DeviceMetric/example": "DeviceMetric.parent",  # a DeviceDefinition
    "DeviceUseStatement/example": "DeviceUseStatement.reasonReference[0]",  # a Procedure
    "MedicationRequest/medrx0301": "MedicationRequest.dispenseRequest.performer",  # a Practitioner
}
"""Published examples that break R4, each where Medplum or pyrofile finds the same fault."""


# --- JSON as written: the order of members and the text of numbers count


@dataclass(frozen=True)
class Number:
    text: str


@dataclass(frozen=True)
class Members:
    """An object as it was written: names and values in order."""

    pairs: tuple[tuple[str, Any], ...]

    def get(self, name: str) -> Any:
        return next((value for key, value in self.pairs if key == name), None)

    def without(self, *names: str) -> Members:
        return Members(tuple(pair for pair in self.pairs if pair[0] not in names))

    def map(self, change: Callable[[str, Any], Any]) -> Members:
        return Members(tuple((name, change(name, value)) for name, value in self.pairs))


def as_written(text: bytes | str) -> Any:
    return json.loads(
        text,
        parse_int=Number,
        parse_float=Number,
        object_pairs_hook=lambda pairs: Members(tuple(pairs)),
    )


def pointed(value: Any, targets: dict[str, str]) -> Any:
    """The same with what refers to a ``fullUrl`` referring to where that resource is stored."""
    if isinstance(value, list):
        return [pointed(one, targets) for one in value]
    if not isinstance(value, Members):
        return value

    def change(name: str, inner: Any) -> Any:
        if name in {"reference", "url"} and isinstance(inner, str):
            return targets.get(inner, inner)
        return pointed(inner, targets)

    return value.map(change)


def differences(source: Any, stored: Any, path: str) -> list[str]:
    """Where two written values differ."""
    if isinstance(source, Members) and isinstance(stored, Members):
        names = [name for name, _ in source.pairs], [name for name, _ in stored.pairs]
        if names[0] != names[1]:
            return [f"{path}: members {names[0]} became {names[1]}"]
        return [
            found
            for (name, one), (_, other) in zip(source.pairs, stored.pairs, strict=True)
            for found in differences(one, other, f"{path}.{name}")
        ]
    if isinstance(source, list) and isinstance(stored, list) and len(source) == len(stored):
        return [
            found
            for index, (one, other) in enumerate(zip(source, stored, strict=True))
            for found in differences(one, other, f"{path}[{index}]")
        ]
    return [] if source == stored else [f"{path}: {source!r} became {stored!r}"]


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ('{"a":5.10}', '{"a":5.1}'),
        ('{"a":1}', '{"a":1.0}'),
        ('{"a":1e2}', '{"a":100}'),
        ('{"a":-0}', '{"a":0}'),
        ('{"a":1,"b":2}', '{"b":2,"a":1}'),
        ('{"a":[1,2]}', '{"a":[1]}'),
        ('{"a":"x"}', '{"a":"y"}'),
        ('{"a":true}', '{"a":1}'),
        ('{"a":{"b":null}}', '{"a":{}}'),
    ],
)
def test_the_comparison_tells_apart_what_was_written_differently(source: str, stored: str) -> None:
    assert differences(as_written(source), as_written(stored), "") != []
    assert differences(as_written(source), as_written(source), "") == []


# --- the sources


@dataclass(frozen=True)
class Source:
    """One resource of the samples, and where the references of its Bundle lead."""

    tree: Members
    targets: dict[str, str]

    @property
    def key(self) -> str:
        return f"{self.tree.get('resourceType')}/{self.tree.get('id')}"

    def expected(self) -> Any:
        return pointed(self.tree.without("id", "meta"), self.targets)

    def meta(self) -> Members:
        """What the sender says in ``meta``, without what is the server's to say."""
        return (self.tree.get("meta") or Members(())).without("versionId", "lastUpdated")

    def after(self, before: tuple[Any, Members] | None) -> tuple[Any, Members]:
        """What is known once this is imported: labels stay where it says nothing about them."""
        meta = self.meta()
        old = before[1].pairs if before else ()
        kept = [(n, v) for n, v in old if n in {"security", "tag"} and meta.get(n) is None]
        return self.expected(), Members((*kept, *meta.pairs))


def resources_of(document: Members) -> Iterator[Source]:
    if document.get("resourceType") != "Bundle":
        yield Source(document, {})
        return
    entries = [(one.get("fullUrl"), one.get("resource")) for one in document.get("entry")]
    targets = {
        url: f"{resource.get('resourceType')}/{resource.get('id')}" for url, resource in entries
    }
    for _, resource in entries:
        yield Source(resource, targets)


def sample_files(folder: Path) -> list[Path]:
    """The files to import; of the Synthea patients the first few unless all are wanted."""
    synthea = DATA / "synthea" / "bundles.ndjson.gz"
    if not ALL:
        with gzip.open(synthea) as file:
            first = b"".join(file.readline() for _ in range(FIRST))
        synthea = folder / "synthea.ndjson"
        synthea.write_bytes(first)
    return [
        synthea,
        DATA / "inferno" / "bundles.ndjson.gz",
        *sorted((DATA / "r4-examples").glob("*.json")),
    ]


def documents_of(path: Path) -> Iterator[Members]:
    if path.suffix == ".json":
        yield as_written(path.read_bytes())
        return
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    yield from map(as_written, content.splitlines())


@dataclass(frozen=True)
class Imported:
    sources: list[Source]
    summary: dict[str, Any]
    again: dict[str, Any]
    status: tuple[int, int]
    place: Place


@pytest.fixture(scope="module", params=kinds("file"))
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    place = new_place(request.param, tmp_path_factory.mktemp("store"))
    yield place
    asyncio.run(place.drop())


@pytest.fixture(scope="module")
def imported(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("samples")
    paths = sample_files(folder)
    sources = [
        source
        for path in paths
        for document in documents_of(path)
        for source in resources_of(document)
    ]
    app = typer.Typer()
    app.command()(import_command)
    options = ["--practice", PRACTICE, "--create-practice", "Sample", "--grants", "--json"]
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("FHIR_PORTAL_")]:
            patched.delenv(name)
        for name, value in variables({"data": folder / "portal.db", **place.settings}).items():
            patched.setenv(name, value)
        first, second = (
            CliRunner().invoke(app, [*map(str, paths), *options, "--jobs", "1"]) for _ in range(2)
        )
    for result in (first, second):
        assert result.exit_code in {0, 1}, result.output
        assert result.stdout.startswith("{"), result.output
    status = first.exit_code, second.exit_code
    return Imported(sources, json.loads(first.stdout), json.loads(second.stdout), status, place)


def visible_types() -> dict[str, Visibility]:
    return {name: Visibility.of_server(name, practice=PRACTICE) for name in served_types()}


async def stored_bodies(place: Place, keys: set[str]) -> tuple[dict[str, bytes], Counter[str]]:
    """What the store holds under these keys, and how many versions of everything."""
    store = await place.open()
    try:
        visible, bodies = visible_types(), {}
        for key in sorted(keys):
            row = await store.read(ResourceKey.parse(key), visible[key.partition("/")[0]])
            if row is not None:
                bodies[key] = row.body
        page = await store.feed(visible, since=None, count=1_000_000, after=None)
        return bodies, Counter(str(row.key) for row in page.rows)
    finally:
        await store.aclose()


# --- what is asked of the import


def test_only_the_examples_with_known_faults_are_rejected(imported: Imported) -> None:
    rejected = {
        f"{one['type']}/{one['id']}": one["issues"][0]["expression"]
        for one in imported.summary["rejected"]
    }
    assert rejected == KNOWN_FAULTS
    assert imported.summary["read"] == len(imported.sources)
    assert imported.status == (1, 1)


def test_every_resource_reads_back_as_it_was_written(imported: Imported) -> None:
    """Apart from ``id``, ``meta`` and rewritten references, number text included."""
    expected = {source.key: source for source in imported.sources}
    wanted = expected.keys() - KNOWN_FAULTS.keys()
    bodies, _ = asyncio.run(stored_bodies(imported.place, set(wanted)))
    assert bodies.keys() == wanted
    found = [
        difference
        for key, body in bodies.items()
        for difference in differences(
            expected[key].expected(), as_written(body).without("id", "meta"), key
        )
    ]
    assert found == []


def test_what_the_sender_said_in_meta_is_kept(imported: Imported) -> None:
    settled: dict[str, tuple[Any, Members]] = {}
    for source in imported.sources:
        settled[source.key] = source.after(settled.get(source.key))
    wanted = {key for key, (_, meta) in settled.items() if meta.pairs} - KNOWN_FAULTS.keys()
    bodies, _ = asyncio.run(stored_bodies(imported.place, wanted))
    assert bodies
    for key, body in bodies.items():
        stored = as_written(body).get("meta").without("versionId", "lastUpdated")
        assert stored == settled[key][1], key


def test_everything_is_there_once_however_often_it_came(imported: Imported) -> None:
    """A resource has more than one version only if the samples disagree about it."""
    current: dict[str, tuple[Any, Members]] = {}
    expected: Counter[str] = Counter()
    updated = [0, 0]
    for time in range(2):
        for source in imported.sources:
            before = current.get(source.key)
            after = source.after(before)
            if source.key not in KNOWN_FAULTS and after != before:
                updated[time] += before is not None
                expected[source.key] += 1
                current[source.key] = after
    _, versions = asyncio.run(stored_bodies(imported.place, set()))
    assert versions == expected
    assert imported.summary["created"] == len(expected)
    assert [one["updated"] for one in (imported.summary, imported.again)] == updated
    assert imported.again["created"] == 0
    assert imported.again["rejected"] == imported.summary["rejected"]
