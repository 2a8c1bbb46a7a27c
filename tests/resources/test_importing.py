from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fhir_portal.access.log import AccessRow
from fhir_portal.access.visibility import SHARED, RowFacts, Visibility
from fhir_portal.commands.import_ import import_command
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.hand_labels import note_by_hand
from fhir_portal.resources.importing import Summary, files_in, import_files, operator
from fhir_portal.resources.importing.preparing import prepare
from fhir_portal.resources.importing.progress import ImportProgress, ImportRejection
from fhir_portal.resources.importing.reading import Source, Stretch, in_order
from fhir_portal.resources.portal_status import SYSTEM
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceStore, Row
from fhir_portal.resources.writing import delete_in
from fhir_portal.search.request import parse_search
from tests.builders import (
    DERM,
    FAMILY,
    RESTRICTED,
    WITHHELD,
    Clock,
    Json,
    a_binary,
    a_document,
    a_grant,
    a_patient,
    a_person,
    a_portal,
    a_practice,
    a_provenance,
    an_appointment,
    an_encounter,
    an_observation,
    keep,
    reference,
)
from tests.places import Place, kinds, new_place, variables

PRACTICE, OTHER = DERM, FAMILY
LARK = "Practitioner/lark"


# --- made-up files


def patient(own_id: str | None = "p1", **more: Any) -> Json:
    return a_patient(own_id, **more)


def observation(own_id: str | None, subject: str = "Patient/p1", **more: Any) -> Json:
    return an_observation(own_id, subject=reference(subject), **more)


def document(own_id: str, url: str, subject: str = "Patient/p1") -> Json:
    content = [{"attachment": {"contentType": "application/pdf", "url": url}}]
    return a_document(own_id, content=content, subject=reference(subject))


def bundle(*entries: tuple[str | None, Json], kind: str = "transaction") -> Json:
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {
                **({"fullUrl": full_url} if full_url else {}),
                "resource": resource,
                **(
                    {"request": {"method": "POST", "url": resource["resourceType"]}}
                    if kind == "transaction"
                    else {}
                ),
            }
            for full_url, resource in entries
        ],
    }


def uuid(number: int) -> str:
    return f"urn:uuid:00000000-0000-4000-8000-{number:012}"


def lines(*documents: Json | str) -> str:
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in documents)


# --- what is in the store


@pytest.fixture
async def server(portal: Portal, store: EmbeddedStore) -> Server:
    await keep(store, a_practice(PRACTICE), a_practice(OTHER))
    return portal.server


class Files:
    """A folder to import from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, name: str, content: str | bytes | Json) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files")


async def import_into(
    server: Server, *paths: Path, practice: str = PRACTICE, grants: bool = False, **options: Any
) -> Summary:
    return await import_files(
        server, operator(practice, grants=grants), files_in(paths), jobs=0, **options
    )


async def row(server: Server, key: str, practice: str = PRACTICE) -> Row:
    name = key.partition("/")[0]
    found = await server.store.read(
        ResourceKey.parse(key), Visibility.of_server(name, practice=practice)
    )
    assert found is not None, f"{key} is not in the store"
    return found


async def body(server: Server, key: str, practice: str = PRACTICE) -> Json:
    tree: Json = json.loads((await row(server, key, practice)).body)
    return tree


async def facts(server: Server, key: str) -> RowFacts:
    return (await row(server, key)).facts


async def versions(server: Server, practice: str = PRACTICE) -> Counter[str]:
    """How many versions of each resource a practice has."""
    visible = {name: Visibility.of_server(name, practice=practice) for name in served_types()}
    page = await server.store.feed(visible, since=None, count=100_000, after=None)
    return Counter(str(one.key) for one in page.rows)


def counts(summary: Summary) -> tuple[int, int, int, int]:
    return summary.created, summary.updated, summary.unchanged, len(summary.rejected)


def places(summary: Summary) -> list[tuple[int, int | None, str | None, str | None]]:
    return [(one.line, one.index, one.type, one.id) for one in summary.rejected]


# --- what files may hold


async def test_a_file_may_hold_one_resource_written_over_many_lines(
    server: Server, files: Files
) -> None:
    path = files.write("one.json", json.dumps(patient(), indent=2))
    assert counts(await import_into(server, path)) == (1, 0, 0, 0)
    assert (await body(server, "Patient/p1"))["name"] == patient()["name"]


async def test_a_file_may_hold_resources_and_bundles_one_on_each_line(
    server: Server, files: Files
) -> None:
    content = lines(patient(), "", bundle((uuid(1), observation("o1"))), observation("o2"))
    summary = await import_into(server, files.write("many.ndjson", content))
    assert counts(summary) == (3, 0, 0, 0)
    assert set(await versions(server)) == {"Patient/p1", "Observation/o1", "Observation/o2"}


async def test_lines_are_told_by_their_content_when_the_name_does_not_tell(
    server: Server, files: Files
) -> None:
    path = files.write("export.json", lines(patient(), observation("o1")))
    assert counts(await import_into(server, path)) == (2, 0, 0, 0)


@pytest.mark.parametrize("name", ["packed.ndjson.gz", "packed.json", "packed"])
async def test_gzip_is_told_by_its_content(server: Server, files: Files, name: str) -> None:
    path = files.write(name, gzip.compress(lines(patient(), observation("o1")).encode()))
    assert counts(await import_into(server, path)) == (2, 0, 0, 0)


@pytest.mark.parametrize("kind", ["batch", "collection", "searchset", "transaction"])
async def test_these_bundles_carry_resources(server: Server, files: Files, kind: str) -> None:
    path = files.write("b.json", bundle((uuid(1), patient()), kind=kind))
    assert counts(await import_into(server, path)) == (1, 0, 0, 0)


async def test_a_history_is_refused_as_a_whole(server: Server, files: Files) -> None:
    path = files.write("h.json", bundle((uuid(1), patient()), kind="history"))
    summary = await import_into(server, path)
    assert places(summary) == [(1, None, None, None)]
    assert summary.rejected[0].issues[0]["expression"] == "Bundle.type"


async def test_a_document_bundle_is_one_resource(server: Server, files: Files) -> None:
    composition = {
        "resourceType": "Composition",
        "id": "c1",
        "status": "final",
        "type": {"text": "summary"},
        "date": "2026-01-05",
        "author": [{"display": "the practice"}],
        "title": "Summary",
    }
    whole = {
        "resourceType": "Bundle",
        "id": "doc1",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": uuid(7)},
        "type": "document",
        "timestamp": "2026-01-05T10:00:00Z",
        "entry": [{"fullUrl": uuid(1), "resource": composition}],
    }
    assert counts(await import_into(server, files.write("d.json", whole))) == (1, 0, 0, 0)
    assert set(await versions(server)) == {"Bundle/doc1"}


async def test_the_outcome_in_a_searchset_is_no_resource(server: Server, files: Files) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "x"}]}
    found = bundle((None, patient()), (None, outcome), kind="searchset")
    found["entry"][1]["search"] = {"mode": "outcome"}
    assert counts(await import_into(server, files.write("s.json", found))) == (1, 0, 0, 0)


async def test_a_folder_is_walked_and_what_is_not_fhir_is_left_out(
    server: Server, files: Files
) -> None:
    files.write("b/two.ndjson.gz", gzip.compress(lines(observation("o1")).encode()))
    files.write("a.json", patient())
    files.write("readme.txt", "not for import")
    files.write(".hidden.json", "not for import")
    files.write(".git/x.json", "not for import")
    summary = await import_into(server, files.folder)
    assert (summary.files, counts(summary)) == (2, (2, 0, 0, 0))


def test_a_folder_without_files_is_refused(files: Files) -> None:
    with pytest.raises(FileNotFoundError, match="holds no"):
        files_in([files.folder])


# --- ids and references


async def test_references_between_entries_lead_to_the_ids_that_are_stored(
    server: Server, files: Files
) -> None:
    entries = bundle(
        (uuid(2), observation("o1", subject=uuid(1).upper().replace("URN:UUID", "urn:uuid"))),
        (uuid(1), patient("kept")),
        (uuid(3), document("d1", uuid(4), subject=uuid(1))),
        (uuid(4), a_binary("b1")),
    )
    assert counts(await import_into(server, files.write("b.json", entries))) == (4, 0, 0, 0)
    assert (await body(server, "Observation/o1"))["subject"] == {"reference": "Patient/kept"}
    stored = await body(server, "DocumentReference/d1")
    assert stored["content"][0]["attachment"]["url"] == "Binary/b1"
    assert stored["subject"] == {"reference": "Patient/kept"}


async def test_absolute_addresses_of_entries_become_relative_and_others_stay(
    server: Server, files: Files
) -> None:
    theirs = "https://ehr.example/r4"
    performer = [
        {"reference": f"{theirs}/Practitioner/1"},
        {"reference": f"{server.base}/Practitioner/2"},
        {"reference": "http://localhost:8000/fhir/Practitioner/3"},
        {"reference": "Practitioner/4"},
    ]
    entries = bundle(
        (f"{theirs}/Patient/p1", patient("p1")),
        (f"{theirs}/Binary/b1", a_binary("b1")),
        (
            f"{theirs}/Observation/o1",
            observation("o1", f"{theirs}/Patient/p1") | {"performer": performer},
        ),
        (f"{theirs}/Observation/o2", observation("o2", f"{theirs}/Patient/p1/_history/3")),
        (f"{theirs}/DocumentReference/d1", document("d1", f"{theirs}/Binary/b1")),
        kind="searchset",
    )
    assert counts(await import_into(server, files.write("b.json", entries))) == (5, 0, 0, 0)
    stored = await body(server, "Observation/o1")
    assert stored["subject"] == {"reference": "Patient/p1"}
    assert [one["reference"] for one in stored["performer"]] == [
        f"{theirs}/Practitioner/1",
        "Practitioner/2",
        "Practitioner/3",
        "Practitioner/4",
    ]
    assert (await body(server, "Observation/o2"))["subject"] == {"reference": "Patient/p1"}
    attachment = (await body(server, "DocumentReference/d1"))["content"][0]["attachment"]
    assert attachment["url"] == "Binary/b1"
    assert (await facts(server, "Binary/b1")).owners == ("p1",)


async def test_an_id_is_made_from_the_full_url_when_the_resource_has_none(
    server: Server, files: Files
) -> None:
    entries = bundle(
        (uuid(1), patient(None)),
        ("https://ehr.example/r4/Observation/9", observation(None, uuid(1))),
        (uuid(3), observation("not_an_id!", uuid(1))),
    )
    path = files.write("b.json", entries)
    assert counts(await import_into(server, path)) == (3, 0, 0, 0)
    stored = set(await versions(server))
    assert f"Patient/{uuid(1).removeprefix('urn:uuid:')}" in stored
    assert f"Observation/{uuid(3).removeprefix('urn:uuid:')}" in stored
    assert counts(await import_into(server, path)) == (0, 0, 3, 0)


async def test_an_id_is_taken_from_put_before_the_full_url(server: Server, files: Files) -> None:
    entries = bundle((uuid(1), patient(None)), (uuid(2), observation("o1", uuid(1))))
    entries["entry"][0]["request"] = {"method": "PUT", "url": "Patient/from-put"}
    assert counts(await import_into(server, files.write("b.json", entries))) == (2, 0, 0, 0)
    assert (await body(server, "Observation/o1"))["subject"]["reference"] == "Patient/from-put"


async def test_what_nothing_names_is_known_by_its_content(server: Server, files: Files) -> None:
    path = files.write("x.ndjson", lines(patient(None), patient(None, active=True)))
    assert counts(await import_into(server, path)) == (2, 0, 0, 0)
    longer = lines(patient(None, active=False), patient(None), patient(None, active=True))
    assert counts(await import_into(server, files.write("x.ndjson", longer))) == (1, 0, 2, 0)


async def test_what_the_server_says_of_a_persons_account_is_no_change_of_the_file(
    server: Server, files: Files
) -> None:
    """It is set on the way in, whatever the file says of it, and compared with nothing."""
    lie, kept = {"system": SYSTEM, "code": "x"}, {"system": "urn:tag", "code": "kept"}
    for own_id, tags in (("p1", []), ("p2", [lie]), ("p3", [kept]), ("p4", [lie, kept])):
        tree: Json = {"resourceType": "Person", "id": own_id, "gender": "other"}
        tree |= {"meta": {"tag": tags}} if tags else {}
        path = files.write("p.json", tree)
        assert counts(await import_into(server, path, grants=True)) == (1, 0, 0, 0)
        said = [one for one in tags if one is kept] + [{"system": SYSTEM, "code": "none"}]
        assert (await body(server, f"Person/{own_id}"))["meta"]["tag"] == said
        assert counts(await import_into(server, path, grants=True)) == (0, 0, 1, 0)


async def test_a_malformed_id_that_nothing_stands_in_for_is_refused(
    server: Server, files: Files
) -> None:
    summary = await import_into(server, files.write("x.json", patient("not_an_id!")))
    assert [one.issues[0]["expression"] for one in summary.rejected] == ["Patient.id"]


async def test_a_reference_that_leads_to_no_entry_of_a_transaction_is_refused(
    server: Server, files: Files
) -> None:
    entries = ((uuid(1), patient("p1")), (uuid(2), observation("o1", uuid(9))))
    summary = await import_into(server, files.write("b.json", bundle(*entries)))
    assert counts(summary) == (1, 0, 0, 1)
    assert summary.rejected[0].issues[0]["expression"] == "Observation.subject"
    summary = await import_into(server, files.write("c.json", bundle(*entries, kind="collection")))
    assert counts(summary) == (1, 0, 1, 0)
    assert (await body(server, "Observation/o1"))["subject"] == {"reference": uuid(9)}


NPI = "http://hl7.org/fhir/sid/us-npi"


def clinic(own_id: str, npi: str) -> Json:
    identifier = [{"system": NPI, "value": npi}]
    return {"resourceType": "Organization", "id": own_id, "identifier": identifier}


def visit(npi: str, own_id: str = "e1") -> Json:
    provider = reference(f"Organization?identifier={NPI}|{npi}")
    return an_encounter(own_id, of="p1", serviceProvider=provider)


async def test_a_conditional_reference_leads_to_the_one_resource_it_matches(
    server: Server, files: Files
) -> None:
    first = files.write("a.json", clinic("north", "1"))
    entries = bundle(
        (uuid(1), visit("1", "e1")), (uuid(2), visit("2", "e2")), (uuid(3), clinic("south", "2"))
    )
    path = files.write("b.json", entries)
    assert counts(await import_into(server, first, path)) == (4, 0, 0, 0)
    for own_id, place in (("e1", "north"), ("e2", "south")):
        stored = await body(server, f"Encounter/{own_id}")
        assert stored["serviceProvider"] == {"reference": f"Organization/{place}"}
        search = parse_search(
            "Encounter", [("service-provider", f"Organization/{place}")], base=server.base
        )
        visible = Visibility.of_server("Encounter", practice=PRACTICE)
        page = await server.store.search(search, visible)
        assert [one.facts.id for one in page.rows] == [own_id]
    assert counts(await import_into(server, path)) == (0, 0, 3, 0)


async def test_a_conditional_reference_to_nothing_or_to_several_is_refused(
    server: Server, files: Files
) -> None:
    doubled = [clinic("north", "1"), clinic("south", "1")]
    lost = [visit("1", "e1"), visit("9", "e2")]
    entries = enumerate([*doubled, *lost, observation("o1")])
    path = files.write("b.json", bundle(*((uuid(n), one) for n, one in entries)))
    summary = await import_into(server, path)
    assert (counts(summary), places(summary)) == (
        (3, 0, 0, 2),
        [(1, 2, "Encounter", "e1"), (1, 3, "Encounter", "e2")],
    )
    for rejected, words in zip(summary.rejected, ("several", "nothing"), strict=True):
        assert rejected.issues[0]["expression"] == "Encounter.serviceProvider"
        assert words in (rejected.issues[0]["diagnostics"] or "")
    late = files.write("late.json", clinic("west", "9"))
    assert counts(await import_into(server, late, path)) == (2, 0, 3, 1)


async def test_a_conditional_reference_sees_its_own_practice_only(
    server: Server, files: Files
) -> None:
    await import_into(server, files.write("a.json", clinic("north", "1")), practice=OTHER)
    path = files.write("b.json", bundle((uuid(1), visit("1"))))
    assert counts(await import_into(server, path)) == (0, 0, 0, 1)
    await import_into(server, files.write("c.json", clinic("all", "1")), practice=SHARED)
    assert counts(await import_into(server, path)) == (1, 0, 0, 0)


async def test_a_conditional_reference_outside_a_transaction_is_refused(
    server: Server, files: Files
) -> None:
    content = lines(clinic("north", "1"), visit("1"))
    summary = await import_into(server, files.write("x.ndjson", content))
    assert counts(summary) == (1, 0, 0, 1)


# --- nothing lost, nothing doubled


async def test_importing_again_changes_only_what_has_changed(server: Server, files: Files) -> None:
    content = [patient(), observation("o1", value=1), observation("o2")]
    await import_into(server, files.write("x.ndjson", lines(*content)))
    content[1] = observation("o1", value=2)
    summary = await import_into(server, files.write("x.ndjson", lines(*content)))
    assert counts(summary) == (0, 1, 2, 0)
    assert await versions(server) == {"Patient/p1": 1, "Observation/o1": 2, "Observation/o2": 1}
    assert (await body(server, "Observation/o1"))["valueQuantity"]["value"] == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '"extension":[{"url":"urn:x:y","valueDecimal":5.1}]',
            '"extension":[{"url":"urn:x:y","valueDecimal":5.10}]',
        ),
        ('"meta":{"tag":[{"code":"a"}]}', '"meta":{"tag":[{"code":"b"}]}'),
        ('"note":[{"text":"x","time":"2026"}]', '"note":[{"time":"2026","text":"x"}]'),
    ],
)
async def test_a_digit_a_label_and_the_order_of_members_are_changes(
    server: Server, files: Files, before: str, after: str
) -> None:
    made = json.dumps(observation("o1"))[:-1]
    first, second = (
        files.write(f"{n}.json", f"{made},{text}}}") for n, text in (("a", before), ("b", after))
    )
    assert counts(await import_into(server, first)) == (1, 0, 0, 0)
    assert counts(await import_into(server, first)) == (0, 0, 1, 0)
    assert counts(await import_into(server, second)) == (0, 1, 0, 0)


async def test_a_label_by_hand_is_no_change_of_the_file(server: Server, files: Files) -> None:
    """The same file every night makes no versions of what staff labelled."""
    key = ResourceKey("Observation", "o1")
    sdv = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SDV"}
    labelled = observation("o1", meta={"security": [sdv]})
    sent = files.write("x.ndjson", lines(patient(), labelled))
    await import_into(server, sent)
    (by_hand,) = RESTRICTED["security"]
    both = observation("o1", meta={"security": [sdv, by_hand]})

    async def label(transaction: Any) -> None:
        await note_by_hand(transaction, PRACTICE, key, added=[by_hand], removed=[])

    await server.store.transact(label)
    await import_into(server, files.write("y.ndjson", lines(both)))
    assert counts(await import_into(server, sent)) == (0, 0, 2, 0)
    assert (await body(server, "Observation/o1"))["meta"]["security"] == [sdv, by_hand]
    without = files.write("z.ndjson", lines(observation("o1", meta={"security": [by_hand]})))
    assert counts(await import_into(server, without)) == (0, 1, 0, 0)
    assert counts(await import_into(server, files.write("w.ndjson", lines(observation("o1"))))) == (
        0, 0, 1, 0,
    )  # fmt: skip


async def test_version_and_time_in_the_source_are_not_changes(server: Server, files: Files) -> None:
    for number in ("1", "7"):
        meta = {
            "versionId": number,
            "lastUpdated": f"2026-01-0{number}T00:00:00Z",
            "source": "urn:x",
        }
        await import_into(server, files.write(f"{number}.json", patient(meta=meta)))
    assert await versions(server) == {"Patient/p1": 1}
    assert (await body(server, "Patient/p1"))["meta"]["source"] == "urn:x"
    assert (await body(server, "Patient/p1"))["meta"]["versionId"] == "1"


async def test_an_organization_that_comes_with_every_bundle_is_stored_once(
    server: Server, files: Files
) -> None:
    path = files.write(
        "x.ndjson",
        lines(
            bundle((uuid(1), clinic("clinic", "1")), (uuid(2), patient("p1"))),
            bundle((uuid(1), clinic("clinic", "1")), (uuid(3), patient("p2"))),
        ),
    )
    assert counts(await import_into(server, path)) == (3, 0, 1, 0)
    assert (await versions(server))["Organization/clinic"] == 1


async def test_what_was_deleted_comes_back_with_the_next_version(
    server: Server, files: Files
) -> None:
    path = files.write("x.json", patient())
    await import_into(server, path)
    visible = Visibility.of_practice("Patient", practice=PRACTICE, labels=None)
    await server.store.transact(
        lambda transaction: delete_in(
            transaction,
            server,
            operator(PRACTICE),
            visible,
            key=ResourceKey("Patient", "p1"),
            if_match=None,
        )
    )
    assert counts(await import_into(server, path)) == (1, 0, 0, 0)
    assert (await row(server, "Patient/p1")).version == 3


async def test_two_practices_may_use_one_id_and_what_is_shared_stays_as_it_is(
    server: Server, files: Files
) -> None:
    for practice in (SHARED, PRACTICE, OTHER):
        path = files.write(f"{practice}.json", clinic("clinic", "1") | {"alias": [practice]})
        assert counts(await import_into(server, path, practice=practice)) == (1, 0, 0, 0)
    for practice in (SHARED, PRACTICE, OTHER):
        stored = await body(server, "Organization/clinic", practice)
        assert (stored["alias"], stored["meta"]["versionId"]) == ([practice], "1")


# --- bad input does not stop the rest


@pytest.mark.parametrize("name", ["Appointment.ndjson", "1.Appointment.000.ndjson.gz"])
def test_files_of_appointments_come_last_in_a_folder(files: Files, name: str) -> None:
    """Whose time they take is said by PractitionerRole, Schedule, Slot, Location."""
    names = ["AppointmentResponse.ndjson", "Slot.ndjson", "Schedule.ndjson", name]
    paths = {one: files.write(f"export/{one}", "") for one in names}
    found = files_in([paths[name].parent])
    assert [one.name for one in found] == [*sorted(names[:3]), name]
    assert files_in([paths[name], paths["Slot.ndjson"]]) == [paths[name], paths["Slot.ndjson"]]


async def test_an_appointment_for_time_that_is_taken_is_rejected_by_name_and_the_rest_is_stored(
    server: Server, files: Files
) -> None:
    """The role that says whose time it is stands behind the Appointments, in the same batch."""

    def a_visit(own_id: str, actor: str) -> Json:
        tree = an_appointment(own_id, of=["p1"], status="booked")
        tree |= {"start": "2030-04-01T09:00:00Z", "end": "2030-04-01T09:20:00Z"}
        tree["participant"].append({"actor": reference(actor), "status": "accepted"})
        return tree

    role = {"resourceType": "PractitionerRole", "id": "r", "practitioner": reference(LARK)}
    content = lines(patient(), a_visit("a", "PractitionerRole/r"), a_visit("b", LARK), role)
    summary = await import_into(server, files.write("all.ndjson", content))
    assert places(summary) == [(3, None, "Appointment", "b")]
    assert summary.created == 3


async def test_bad_lines_are_listed_with_line_and_reason(server: Server, files: Files) -> None:
    content = lines(
        patient(),
        '{"resourceType":"Patient",',
        '{"resourceType":"Patient","id":"p2","gender":"male","gender":"female"}',
        '{"resourceType":"Observation","valueQuantity":{"value":NaN}}',
        "[1]",
        '{"id":"x"}',
        patient("p3"),
    )
    summary = await import_into(server, files.write("x.ndjson", content))
    assert counts(summary) == (2, 0, 0, 5)
    assert [one.line for one in summary.rejected] == [2, 3, 4, 5, 6]
    reasons = [one.issues[0]["diagnostics"] or "" for one in summary.rejected]
    for words, reason in zip(
        ("ends too early", '"gender" appears twice', "NaN", "one JSON object", "resourceType"),
        reasons,
        strict=True,
    ):
        assert words in reason


async def test_a_bad_resource_is_listed_with_its_entry_and_element(
    server: Server, files: Files
) -> None:
    entries = bundle(
        (uuid(1), patient()),
        (uuid(2), observation("bad", status="no such status")),
        (uuid(3), {"resourceType": "NoSuchType", "id": "x"}),
        (uuid(4), observation("good")),
    )
    summary = await import_into(server, files.write("b.json", entries))
    assert counts(summary) == (2, 0, 0, 2)
    assert places(summary) == [(1, 1, "Observation", "bad"), (1, 2, "NoSuchType", "x")]
    assert summary.rejected[0].issues[0]["expression"] == "Observation.status"
    assert summary.rejected[1].issues[0]["code"] == "not-supported"


async def test_an_entry_that_repeats_a_member_spoils_only_itself(
    server: Server, files: Files
) -> None:
    text = json.dumps(bundle((uuid(1), patient()), (uuid(2), observation("o1"))))
    twice = text.replace('"status": "final"', '"status": "final", "status": "final"')
    summary = await import_into(server, files.write("b.json", twice))
    assert (counts(summary), places(summary)) == ((1, 0, 0, 1), [(1, 1, None, "o1")])


async def test_a_bundle_that_repeats_a_member_is_refused_as_a_whole(
    server: Server, files: Files
) -> None:
    text = json.dumps(bundle((uuid(1), patient())))
    twice = text.replace('"entry": ', '"entry": [], "entry": ')
    summary = await import_into(server, files.write("b.json", twice))
    assert (counts(summary), places(summary)) == ((0, 0, 0, 1), [(1, None, None, None)])


@pytest.mark.parametrize("entry", ["1", "[1]", '{"resource":{}}', "null"])
async def test_a_bundle_of_the_wrong_shape_is_refused(
    server: Server, files: Files, entry: str
) -> None:
    text = f'{{"resourceType":"Bundle","type":"collection","entry":{entry}}}'
    assert counts(await import_into(server, files.write("b.json", text))) == (0, 0, 0, 1)


async def test_entries_that_ask_for_something_else_are_listed(server: Server, files: Files) -> None:
    entries = bundle((uuid(1), patient()), (None, patient("gone")), (None, patient("patched")))
    entries["entry"][1] = {"request": {"method": "DELETE", "url": "Patient/gone"}}
    entries["entry"][2]["request"] = {"method": "PATCH", "url": "Patient/patched"}
    summary = await import_into(server, files.write("b.json", entries))
    assert (counts(summary), [one.index for one in summary.rejected]) == ((1, 0, 0, 2), [1, 2])


async def test_the_line_of_a_fault_is_found_in_a_document_of_many_lines(
    server: Server, files: Files
) -> None:
    text = json.dumps(patient(), indent=2).replace('"family"', "family")
    summary = await import_into(server, files.write("one.json", text))
    assert places(summary) == [(text[: text.index("family")].count("\n") + 1, None, None, None)]


async def test_a_file_that_breaks_off_gives_what_can_be_read(server: Server, files: Files) -> None:
    packed = gzip.compress(lines(*(observation(f"o{n}") for n in range(2000))).encode())
    summary = await import_into(server, files.write("x.ndjson.gz", packed[: len(packed) // 2]))
    assert summary.created > 0
    assert [one.line for one in summary.rejected] == [summary.created + 1]
    assert "damaged" in (summary.rejected[0].issues[0]["diagnostics"] or "")


async def test_types_that_are_not_written_this_way_are_listed(server: Server, files: Files) -> None:
    path = files.write("x.ndjson", lines(a_person("x", links=["Patient/p1"]), patient()))
    summary = await import_into(server, path)
    assert (counts(summary), summary.rejected[0].issues[0]["code"]) == ((1, 0, 0, 1), "forbidden")
    assert counts(await import_into(server, path, grants=True)) == (1, 0, 1, 0)


# --- whose it is


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("batch", [1, 1000])
async def test_derived_owners_come_out_right_in_any_order(
    server: Server, files: Files, *, backwards: bool, batch: int
) -> None:
    invoice = {
        "resourceType": "Invoice",
        "id": "i1",
        "status": "issued",
        "subject": {"reference": "Patient/p1"},
    }
    notice = {
        "resourceType": "PaymentNotice",
        "id": "n1",
        "status": "active",
        "request": {"reference": "Invoice/i1"},
        "created": "2026-01-05",
        "payment": {"display": "a payment"},
        "recipient": {"display": "the practice"},
        "amount": {"value": 10, "currency": "EUR"},
    }
    made = [
        patient(),
        invoice,
        document("d1", "Binary/b1"),
        notice,
        a_binary("b1"),
        a_provenance("v1", about=["DocumentReference/d1"]),
        a_provenance("v2", about=["Binary/b1"]),
    ]
    for number, one in enumerate(reversed(made) if backwards else made):
        files.write(f"{number}.json", one)
    assert counts(await import_into(server, files.folder, batch_size=batch)) == (7, 0, 0, 0)
    derived = ("PaymentNotice/n1", "Binary/b1", "Provenance/v1", "Provenance/v2")
    for key in derived:
        assert (await facts(server, key)).owners == ("p1",), key
    sections = (await facts(server, "DocumentReference/d1")).visibility_class.sections
    assert (await facts(server, "Binary/b1")).visibility_class.sections == sections
    assert (await facts(server, "Provenance/v2")).visibility_class.sections == sections


async def test_labels_are_kept_as_sent(server: Server, files: Files) -> None:
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    await import_into(server, files.write("x.json", observation("o1", meta={"security": [label]})))
    assert (await body(server, "Observation/o1"))["meta"]["security"] == [label]
    assert (await facts(server, "Observation/o1")).visibility_class.labels == {"R"}


async def test_a_source_that_says_nothing_about_labels_leaves_them_as_they_are(
    server: Server, files: Files
) -> None:
    """What the practice withheld stays withheld when its EHR's files are imported again."""
    plain = files.write("plain.json", observation("o1"))
    await import_into(server, plain)
    await import_into(server, files.write("withheld.json", observation("o1", meta=WITHHELD)))
    assert counts(await import_into(server, plain)) == (0, 0, 1, 0)
    changed = files.write("changed.json", observation("o1", value=99))
    assert counts(await import_into(server, changed)) == (0, 1, 0, 0)
    assert (await facts(server, "Observation/o1")).visibility_class.labels == {"withheld"}
    assert (await body(server, "Observation/o1"))["meta"]["tag"] == WITHHELD["tag"]
    search = parse_search("Observation", [("_tag", "withheld")], base=server.base)
    page = await server.store.search(search, Visibility.of_server("Observation", practice=PRACTICE))
    assert [one.facts.id for one in page.rows] == ["o1"]


async def test_a_consent_grants_only_when_the_operator_says_so(
    server: Server, files: Files
) -> None:
    path = files.write("x.json", a_grant("g1"))
    assert counts(await import_into(server, path)) == (1, 0, 0, 0)
    assert await server.store.get(Grant, f"{PRACTICE}/g1") is None
    changed = files.write("y.json", a_grant("g1", sections=["messages"]))
    assert counts(await import_into(server, changed, grants=True)) == (0, 1, 0, 0)
    found = await server.store.get(Grant, f"{PRACTICE}/g1")
    assert found is not None
    assert found.sections == ("messages",)


async def test_a_standing_grant_is_not_changed_and_the_rest_of_the_batch_is_stored(
    server: Server, files: Files
) -> None:
    await import_into(server, files.write("x.json", a_grant("g1")), grants=True)
    content = lines(patient(), a_grant("g1", sections=["messages"]), observation("o1"))
    summary = await import_into(server, files.write("y.ndjson", content))
    assert counts(summary) == (2, 0, 0, 1)
    assert places(summary) == [(2, None, "Consent", "g1")]
    assert (await row(server, "Consent/g1")).version == 1


async def test_an_import_is_one_line_in_the_log_of_each_record_it_changed(
    server: Server, files: Files
) -> None:
    content = lines(patient("p1"), patient("p2"), observation("o1", "Patient/p1"))
    path = files.write("x.ndjson", content + many(300, bad=1000))
    for _ in range(2):  # the second time changes nothing
        await import_into(server, path, batch_size=1)
    for record in ("p1", "p2"):
        logged = await lines_of(server, record, told=False)
        assert [(one.client, one.interaction, one.told) for one in logged] == [
            ("import", "batch", True)
        ]


async def test_a_line_about_what_is_withheld_is_not_for_the_person(
    server: Server, files: Files
) -> None:
    await import_into(server, files.write("x.json", patient()))
    await import_into(server, files.write("y.json", observation("o1", meta=WITHHELD)))
    assert len(await lines_of(server, "p1", told=True)) == 1
    assert len(await lines_of(server, "p1", told=False)) == 2


async def lines_of(server: Server, record: str, *, told: bool) -> list[AccessRow]:
    found = await server.log.of_record(
        PRACTICE, record, agent=None, told=told, low=0, high=2**62, before=None, limit=10
    )
    return [one.row for one in found]


# --- interrupted


class Crash(Exception):
    pass


class CrashingStore:
    """A store of which the process dies at the ``at``-th transaction, before or after it."""

    def __init__(self, store: ResourceStore, at: int, *, committed: bool) -> None:
        self._store, self._left, self._committed = store, at, committed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        self._left -= 1
        if self._left:
            return await self._store.transact(work)

        async def dying(transaction: Any) -> None:
            await work(transaction)
            raise Crash

        await self._store.transact(work if self._committed else dying)
        raise Crash


async def crash(server: Server, at: int, path: Path, *, committed: bool = True) -> None:
    store: Any = CrashingStore(server.store, at, committed=committed)
    await import_into(replace(server, store=store), path, batch_size=1)


def many(number: int, *, bad: int) -> str:
    """NDJSON of which every ``bad``-th line is refused."""
    return lines(
        *(
            observation(f"o{n}", **({"status": "wrong"} if n % bad == bad - 1 else {}))
            for n in range(number)
        )
    )


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_an_interrupted_import_goes_on_where_it_stopped(
    server: Server, store: EmbeddedStore, files: Files, *, at: int, committed: bool
) -> None:
    """Three batches, and the transaction that forgets the progress."""
    path = files.write("x.ndjson", many(250, bad=50))
    with pytest.raises(Crash):
        await crash(server, at, path, committed=committed)
    done = min(at if committed else at - 1, 3) * 100
    if at == 4 and committed:
        done = 0  # all was done and forgotten: the next import starts over
    summary = await import_into(server, path, batch_size=1)
    assert summary.resumed == min(done, 250)
    if done:
        assert counts(summary) == (245, 0, 0, 5)
    assert places(summary) == [
        (line, None, "Observation", f"o{line - 1}") for line in range(50, 251, 50)
    ]
    assert await versions(server) == {f"Observation/o{n}": 1 for n in range(250) if n % 50 != 49}
    assert await store.every(ImportProgress) == []
    assert await store.every(ImportRejection) == []


async def test_an_import_interrupted_inside_a_bundle_goes_on_inside_it(
    server: Server, files: Files
) -> None:
    entries = [(uuid(1), patient("p1"))]
    entries += [(uuid(n), observation(f"o{n}", uuid(1))) for n in range(2, 252)]
    path = files.write("x.ndjson", lines(patient("p0"), bundle(*entries), patient("p2")))
    with pytest.raises(Crash):
        await crash(server, 2, path)
    summary = await import_into(server, path, batch_size=1)
    assert (summary.resumed, counts(summary)) == (200, (253, 0, 0, 0))
    assert (await body(server, "Observation/o251"))["subject"] == {"reference": "Patient/p1"}
    assert set((await versions(server)).values()) == {1}


async def test_an_interrupt_waits_for_the_batch_under_way(server: Server, files: Files) -> None:
    path = files.write("x.ndjson", many(250, bad=1000))

    class Interrupting(CrashingStore):
        async def transact(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
            async def slow(transaction: Any) -> Any:
                task.cancel()
                for _ in range(10):
                    await asyncio.sleep(0)
                return await work(transaction)

            return await self._store.transact(slow)

    store: Any = Interrupting(server.store, 0, committed=True)
    task = asyncio.ensure_future(import_into(replace(server, store=store), path, batch_size=1))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await versions(server)) == 100
    assert (await import_into(server, path)).resumed == 100


async def test_files_that_were_finished_are_passed_over(server: Server, files: Files) -> None:
    for number in range(3):
        files.write(f"{number}.json", patient(f"p{number}"))
    with pytest.raises(Crash):
        await crash(server, 3, files.folder, committed=False)
    summary = await import_into(server, files.folder)
    assert (summary.files, summary.resumed, counts(summary)) == (3, 2, (3, 0, 0, 0))


async def test_a_changed_file_starts_over(server: Server, files: Files) -> None:
    with pytest.raises(Crash):
        await crash(server, 2, files.write("x.ndjson", many(250, bad=1000)))
    summary = await import_into(server, files.write("x.ndjson", many(251, bad=1000)))
    assert (summary.resumed, counts(summary)) == (0, (51, 0, 200, 0))


async def test_an_import_given_up_a_week_ago_starts_over(
    server: Server, clock: Clock, files: Files
) -> None:
    path = files.write("x.ndjson", many(250, bad=1000))
    with pytest.raises(Crash):
        await crash(server, 2, path)
    clock.advance(8 * 86400)
    summary = await import_into(server, path)
    assert (summary.resumed, counts(summary)) == (0, (50, 0, 200, 0))


async def test_the_same_content_in_two_files_is_stored_once(server: Server, files: Files) -> None:
    for name in ("a.json", "b.json"):
        files.write(name, patient())
    summary = await import_into(server, files.folder)
    assert (summary.files, counts(summary)) == (2, (1, 0, 1, 0))


# --- the command


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "command" / "portal.db"
    for name in [name for name in os.environ if name.startswith("FHIR_PORTAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(path))
    return path


def run(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(import_command)
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.usefixtures("data")
def test_the_command_says_in_json_what_became_of_each_resource(files: Files) -> None:
    path = files.write("x.ndjson", lines(patient(), observation("o1", status="wrong"), "{"))
    result = run(path, "--practice", "new", "--create-practice", "New", "--json", "--jobs", "0")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary.pop("seconds") >= 0
    assert summary.pop("resources_per_second") >= 0
    reason = summary["rejected"][0]["issues"][0].pop("diagnostics")
    summary["rejected"][1]["issues"][0].pop("diagnostics")
    assert "value set" in reason
    assert summary == {
        "files": 1,
        "read": 3,
        "created": 1,
        "updated": 0,
        "unchanged": 0,
        "resumed": 0,
        "rejected": [
            {
                "file": str(path),
                "line": 2,
                "index": None,
                "type": "Observation",
                "id": "o1",
                "issues": [{"code": "code-invalid", "expression": "Observation.status"}],
            },
            {
                "file": str(path),
                "line": 3,
                "index": None,
                "type": None,
                "id": None,
                "issues": [{"code": "invalid", "expression": None}],
            },
        ],
    }


@pytest.mark.usefixtures("data")
def test_the_command_checks_in_a_second_process(files: Files) -> None:
    path = files.write("x.ndjson", lines(patient(), *(observation(f"o{n}") for n in range(150))))
    result = run(path, "--practice", "new", "--create-practice", "New", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "151 resources read from 1 file: 151 created" in result.stdout
    assert "importing" in result.stderr
    again = run(path, "--practice", "new", "--jobs", "1")
    assert "0 created, 0 updated, 151 unchanged, 0 rejected" in again.stdout


class Elsewhere(Executor):
    """Another process, for what it has begun with when the importing one looks."""

    def __init__(self, begins_with: int, *, ends: bool) -> None:
        self.asked = 0
        self._begins_with = begins_with
        self._ends = ends

    def submit(self, work: Any, /, *args: Any, **named: Any) -> Future[Any]:
        """Begin with the first ones, and end at once or when the last one was asked for."""
        future: Future[Any] = Future()
        self.asked += 1
        if self.asked <= self._begins_with:
            future.set_running_or_notify_cancel()
            if self._ends:
                future.set_result(work(*args, **named))
            else:
                asyncio.get_running_loop().call_later(
                    0.01, lambda: future.set_result(work(*args, **named))
                )
        return future


@pytest.mark.parametrize(
    ("begins_with", "ends", "here"), [(0, False, 4), (1, False, 3), (4, True, 0)]
)
async def test_what_no_other_process_has_begun_with_is_checked_here(
    files: Files, monkeypatch: pytest.MonkeyPatch, *, begins_with: int, ends: bool, here: int
) -> None:
    """In the order of the file, each once, wherever it was checked."""
    path = files.write("x.ndjson", lines(*(observation(f"o{n}") for n in range(350))))
    source = Source(0, str(path), path, 0, ImportProgress(key="new/x"), [])
    checked: list[int] = []

    def check(stretch: Stretch, bases: tuple[str, ...]) -> None:
        checked.append(stretch.line)
        stretch.checked = prepare(stretch.pieces, bases)

    async def found() -> AsyncIterator[Source]:
        yield source

    monkeypatch.setattr(Stretch, "check", check)
    results = [
        result.id
        async for stretch in in_order(found(), Elsewhere(begins_with, ends=ends), ahead=1, bases=())
        for result in await stretch.results(())
    ]
    assert results == [f"o{n}" for n in range(350)]
    assert len(checked) == here


def test_a_process_that_checks_does_not_load_the_server() -> None:
    """It loads the program's own file and the checks (`multiprocessing`, spawn)."""
    loaded = "import fhir_portal.__main__, fhir_portal.resources.importing.preparing, sys"
    answer = subprocess.run(
        [sys.executable, "-c", f"{loaded}; print('fhir_portal.app' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.strip() == "False"


@pytest.mark.usefixtures("data")
def test_the_command_lists_rejections_in_words(files: Files) -> None:
    path = files.write("b.json", bundle((uuid(1), observation("o1", status="wrong"))))
    result = run(path, "--practice", SHARED, "--jobs", "0")
    assert result.exit_code == 1
    assert f"{path}, line 1, entry 0: rejected Observation/o1" in result.stdout
    assert "Observation.status: " in result.stdout


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{file}", "--practice", "unknown"], "there is no practice 'unknown'"),
        (["{file}", "--practice", "No/Key", "--create-practice", "X"], "a practice key"),
        (["{file}", "--practice", "shared", "--create-practice", "X"], "no practice"),
        (["{file}.missing", "--practice", "shared"], "does not exist"),
        (["--practice", "shared"], "PATH"),
        (["{file}"], "--practice"),
    ],
)
def test_wrong_use_is_told_apart_from_rejected_resources(
    files: Files, arguments: list[str], words: str
) -> None:
    path = str(files.write("x.json", patient()))
    result = run(*(one.replace("{file}", path) for one in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


DYING = """
import os, signal, sys, typer
from fhir_portal.commands.import_ import import_command

if "FHIR_PORTAL_MONGODB_URI" in os.environ:
    from fhir_portal.mongo.store import MongoStore as Store
else:
    from fhir_portal.embedded.store import EmbeddedStore as Store

left, committed, transact = int(sys.argv.pop(1)), sys.argv.pop(1) == "after", Store.transact

async def dying_transact(self, work):
    global left
    left -= 1
    async def dying(transaction):
        await work(transaction)
        os.kill(os.getpid(), signal.SIGKILL)
    result = await transact(self, dying if not left and not committed else work)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

Store.transact = dying_transact
typer.run(import_command)
"""


@pytest.fixture
def place(
    request: pytest.FixtureRequest, data: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    place = new_place(request.param, data.parent)
    for name, value in variables(place.settings).items():
        monkeypatch.setenv(name, value)
    yield place
    asyncio.run(place.drop())


DEATHS = [(2, "before", 1), (3, "after", 0), (1, "before", 0), (1, "after", 1), (4, "before", 0)]
"""In which transaction, when, and how many processes check beside the one that writes."""


@pytest.mark.parametrize(
    ("place", "at", "moment", "jobs"),
    [
        pytest.param(*kind.values, *death, marks=kind.marks)
        for kind in kinds("file")
        for death in (DEATHS if kind.values == ("file",) else DEATHS[:2])
    ],
    indirect=["place"],
)
def test_after_kill_9_each_resource_is_there_exactly_once(
    files: Files, place: Place, *, at: int, moment: str, jobs: int
) -> None:
    """Three batches, and the transaction that forgets the progress."""
    path = files.write("x.ndjson", many(700, bad=300))
    assert (
        run(
            files.write("p.json", patient()),
            "--practice",
            "new",
            "--create-practice",
            "New",
            "--jobs",
            "0",
        ).exit_code
        == 0
    )
    command = [sys.executable, "-c", DYING, str(at), moment, str(path), "--practice", "new"]
    # Ends only when nobody holds the pipes any more: no process is left behind.
    killed = subprocess.run(
        [*command, "--jobs", str(jobs)], capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    # A database may take a minute to let go of the transaction of a process that died.
    given_up = time.monotonic() + 90
    result = run(path, "--practice", "new", "--json", "--jobs", "0")
    while not result.stdout and time.monotonic() < given_up:
        result = run(path, "--practice", "new", "--json", "--jobs", "0")
    summary = json.loads(result.stdout)
    done = {1: 300, 2: 600, 3: 700, 4: 700}[at] if moment == "after" else {1: 0, 2: 300, 4: 700}[at]
    assert summary["resumed"] == done
    assert (summary["read"], summary["created"], len(summary["rejected"])) == (700, 698, 2)

    async def stored() -> Counter[str]:
        store = await place.open()
        try:
            return await versions(a_portal(store, Clock()).server, "new")
        finally:
            await store.aclose()

    assert asyncio.run(stored()) == {
        "Patient/p1": 1,
        **{f"Observation/o{n}": 1 for n in range(700) if n % 300 != 299},
    }
