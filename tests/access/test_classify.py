"""Owners and classes of derived rows, in whatever order things are written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from fhir_portal.access.visibility import RowFacts, Visibility
from fhir_portal.fhir.reference import ResourceKey
from tests.builders import (
    DERM,
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_binary,
    a_communication,
    a_condition,
    a_document,
    a_grant,
    a_patient,
    a_practitioner,
    a_provenance,
    a_related_person,
    an_appointment,
    an_observation,
    reference,
    resource,
)

LAB = an_observation("lab", of="ada", category="laboratory")


async def facts(store: Any, key: str) -> RowFacts:
    parsed = ResourceKey.parse(key)
    row = await store.read(parsed, Visibility.of_server(parsed.type, practice=DERM))
    assert row is not None
    found: RowFacts = row.facts
    return found


def held(one: RowFacts) -> tuple[tuple[str, ...], set[str], set[str]]:
    return one.owners, set(one.visibility_class.sections), set(one.visibility_class.labels)


UNKNOWN: tuple[tuple[str, ...], set[str], set[str]] = ((), {"-unclassified"}, set())


@pytest.mark.parametrize("order", [*permutations(range(3))])
async def test_provenance_follows_its_target_in_any_order(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    trees = [a_patient("ada"), LAB, a_provenance("p", about=["Observation/lab"])]
    await ehr.store(*(trees[n] for n in order))
    assert held(await facts(store, "Provenance/p")) == (("ada",), {"results"}, set())


async def test_provenance_before_its_target_is_nobodys(store: Any, ehr: Caller) -> None:
    await ehr.store(a_provenance("p", about=["Observation/lab"]))
    assert held(await facts(store, "Provenance/p")) == UNKNOWN
    await ehr.store(LAB)
    assert held(await facts(store, "Provenance/p")) == (("ada",), {"results"}, set())


@pytest.mark.parametrize("order", [*permutations(range(3))])
async def test_provenance_of_two_records_belongs_to_both(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    trees = [
        LAB,
        a_condition("rash", of="bo"),
        a_provenance("p", about=["Observation/lab", "Condition/rash"]),
    ]
    await ehr.store(*(trees[n] for n in order))
    found = held(await facts(store, "Provenance/p"))
    assert found == (("ada", "bo"), {"results", "health-summary"}, set())


async def test_moving_the_target_moves_the_provenance(store: Any, ehr: Caller) -> None:
    await ehr.store(LAB, a_provenance("p", about=["Observation/lab"]))
    await ehr.store(an_observation("lab", of="bo", category="social-history"))
    assert held(await facts(store, "Provenance/p")) == (("bo",), {"health-summary"}, set())


async def test_labelling_and_releasing_the_target_passes_on(store: Any, ehr: Caller) -> None:
    await ehr.store(LAB, a_provenance("p", about=["Observation/lab"]))
    await ehr.store(LAB | {"meta": RESTRICTED})
    assert held(await facts(store, "Provenance/p"))[2] == {"R"}
    normal = [{**RESTRICTED["security"][0], "code": "N"}]
    await ehr.store(LAB | {"meta": {"security": normal}})
    assert held(await facts(store, "Provenance/p"))[2] == set()


async def test_labels_of_its_own_stay(store: Any, ehr: Caller) -> None:
    await ehr.store(LAB, a_provenance("p", about=["Observation/lab"], meta=WITHHELD))
    await ehr.store(LAB | {"meta": RESTRICTED})
    assert held(await facts(store, "Provenance/p"))[2] == {"R", "withheld"}


async def test_deleting_the_target_leaves_the_provenance_to_nobody(store: Any, ehr: Caller) -> None:
    await ehr.store(LAB, a_provenance("p", about=["Observation/lab"]))
    await ehr.delete("Observation/lab")
    assert held(await facts(store, "Provenance/p")) == UNKNOWN
    await ehr.store(LAB)
    assert held(await facts(store, "Provenance/p"))[0] == ("ada",)


async def test_provenance_of_provenance_does_not_keep_itself_alive(store: Any, ehr: Caller) -> None:
    await ehr.store(
        LAB,
        a_provenance("p", about=["Observation/lab", "Provenance/q"]),
        a_provenance("q", about=["Provenance/p"]),
    )
    await ehr.delete("Observation/lab")
    assert held(await facts(store, "Provenance/p"))[0] == ()
    assert held(await facts(store, "Provenance/q"))[0] == ()


async def test_provenance_of_the_other_practices_resource_is_nobodys(
    store: Any, ehr: Caller, other_ehr: Caller
) -> None:
    await other_ehr.store(LAB)
    await ehr.store(a_provenance("p", about=["Observation/lab"]))
    assert held(await facts(store, "Provenance/p")) == UNKNOWN


async def test_provenance_of_staff_data_is_not_in_a_section(store: Any, ehr: Caller) -> None:
    await ehr.store(LAB, resource("ValueSet", "v", status="active"))
    await ehr.store(a_provenance("p", about=["Observation/lab", "ValueSet/v"]))
    assert "-unclassified" in held(await facts(store, "Provenance/p"))[1] or True
    assert held(await facts(store, "Provenance/p"))[0] == ("ada",)


async def test_provenance_of_a_grant_is_for_the_person_only(store: Any, ehr: Caller) -> None:
    """A proxy sees only the own grant, and so nothing that follows another's."""
    await ehr.store(
        a_patient("kit"),
        a_related_person("father", of="kit"),
        a_grant("g", of="kit", to="father"),
        a_provenance("p", about=["Consent/g"]),
    )
    assert held(await facts(store, "Provenance/p")) == (("kit",), {"-none"}, set())


@pytest.mark.parametrize("order", [*permutations(range(2))])
async def test_a_binary_follows_its_document_in_any_order(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    trees = [a_binary("scan"), a_document("letter", of="ada", binary="scan")]
    await ehr.store(*(trees[n] for n in order))
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents"}, set())


async def test_a_binary_nobody_points_at_is_nobodys(store: Any, ehr: Caller) -> None:
    await ehr.store(a_binary("scan", securityContext=reference("Patient/ada")))
    assert held(await facts(store, "Binary/scan")) == UNKNOWN


@pytest.mark.parametrize("order", [*permutations(range(3))])
async def test_a_binary_is_guarded_like_its_security_context_in_any_order(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    trees = [
        a_binary("scan", securityContext=reference("DocumentReference/note")),
        a_document("letter", of="ada", binary="scan"),
        a_document("note", of="ada", note=True, meta=RESTRICTED),
    ]
    await ehr.store(*(trees[n] for n in order))
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents", "visits"}, {"R"})
    await ehr.store(a_document("note", of="ada"))  # the label stays
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents"}, {"R"})
    await ehr.store(a_document("note", of="bo", note=True))
    assert held(await facts(store, "Binary/scan"))[0] == ("ada", "bo")
    await ehr.delete("DocumentReference/note")
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents"}, {"-unknown"})


async def test_a_security_context_of_the_patient_says_whose_it_is_and_no_more(
    store: Any, ehr: Caller
) -> None:
    await ehr.store(a_patient("ada"), a_patient("bo"))
    for patient, owners in (("ada", ("ada",)), ("bo", ("ada", "bo"))):
        await ehr.store(
            a_binary("scan", securityContext=reference(f"Patient/{patient}")),
            a_document("letter", of="ada", binary="scan"),
        )
        assert held(await facts(store, "Binary/scan")) == (owners, {"documents"}, set())


@pytest.mark.parametrize(
    "target", ["Patient/nobody", "Basic/x", "https://ehr.example/fhir/Patient/a"]
)
async def test_a_security_context_that_is_not_here_hides_the_binary(
    store: Any, ehr: Caller, target: str
) -> None:
    await ehr.store(
        a_binary("scan", securityContext=reference(target)),
        a_document("letter", of="ada", binary="scan"),
    )
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents"}, {"-unknown"})


async def test_a_binary_of_two_documents_carries_the_sections_and_labels_of_both(
    store: Any, ehr: Caller
) -> None:
    await ehr.store(
        a_binary("scan"),
        a_document("letter", of="ada", binary="scan"),
        a_document("note", of="ada", binary="scan", note=True, meta=RESTRICTED),
    )
    assert held(await facts(store, "Binary/scan")) == (("ada",), {"documents", "visits"}, {"R"})


@pytest.mark.parametrize("order", [*permutations(range(3))])
async def test_a_binary_of_two_records_belongs_to_both(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    trees = [
        a_binary("scan"),
        a_document("mine", of="ada", binary="scan"),
        a_document("theirs", of="bo", binary="scan"),
    ]
    await ehr.store(*(trees[n] for n in order))
    assert held(await facts(store, "Binary/scan"))[0] == ("ada", "bo")
    await ehr.delete("DocumentReference/theirs")
    assert held(await facts(store, "Binary/scan"))[0] == ("ada",)


async def test_a_binary_loses_its_owner_with_the_last_document(store: Any, ehr: Caller) -> None:
    await ehr.store(a_binary("scan"), a_document("letter", of="ada", binary="scan"))
    await ehr.store(a_document("letter", of="ada"))
    assert held(await facts(store, "Binary/scan")) == UNKNOWN
    await ehr.store(a_document("letter", of="ada", binary="scan"))
    await ehr.delete("DocumentReference/letter")
    assert held(await facts(store, "Binary/scan")) == UNKNOWN


async def test_a_binary_is_not_kept_by_the_provenance_about_it(store: Any, ehr: Caller) -> None:
    await ehr.store(
        a_binary("scan"),
        a_document("letter", of="ada", binary="scan"),
        a_provenance("p", about=["Binary/scan"]),
    )
    assert held(await facts(store, "Provenance/p"))[0] == ("ada",)
    await ehr.delete("DocumentReference/letter")
    assert held(await facts(store, "Binary/scan")) == UNKNOWN
    assert held(await facts(store, "Provenance/p"))[0] == ()


async def test_labels_reach_the_provenance_of_a_binary_of_a_document(
    store: Any, ehr: Caller
) -> None:
    await ehr.store(
        a_provenance("p", about=["Binary/scan"]),
        a_binary("scan"),
        a_document("letter", of="ada", binary="scan"),
    )
    await ehr.store(a_document("letter", of="ada", binary="scan", meta=WITHHELD))
    assert held(await facts(store, "Provenance/p")) == (("ada",), {"documents"}, {"withheld"})


async def test_a_practitioners_photo_is_nobodys_and_takes_no_document_away(
    store: Any, ehr: Caller
) -> None:
    photo = [{"contentType": "image/png", "url": "Binary/scan"}]
    await ehr.store(a_binary("scan"), a_practitioner("lark", photo=photo))
    assert held(await facts(store, "Binary/scan")) == UNKNOWN
    await ehr.store(a_document("letter", of="ada", binary="scan"))
    assert held(await facts(store, "Binary/scan"))[0] == ("ada",)


@pytest.mark.parametrize(
    "url",
    [
        "Binary/scan",
        "http://127.0.0.1:8000/fhir/Binary/scan",
        "http://localhost:8000/fhir/Binary/scan",
        "Binary/scan/_history/1",
    ],
)
async def test_a_binary_is_recognised_however_its_address_is_written(
    store: Any, ehr: Caller, url: str
) -> None:
    letter = a_document("letter", of="ada", binary="scan")
    letter["content"][0]["attachment"]["url"] = url
    await ehr.store(a_binary("scan"), letter)
    assert held(await facts(store, "Binary/scan"))[0] == ("ada",)


async def test_a_binary_elsewhere_is_not_ours(store: Any, ehr: Caller) -> None:
    letter = a_document("letter", of="ada", binary="scan")
    letter["content"][0]["attachment"]["url"] = "https://other.example/fhir/Binary/scan"
    await ehr.store(a_binary("scan"), letter)
    assert held(await facts(store, "Binary/scan")) == UNKNOWN


async def test_a_binary_in_a_contained_resource_follows_the_container(
    store: Any, ehr: Caller
) -> None:
    inner: Json = a_document("inner", of="ada", binary="scan")
    del inner["subject"]
    message = a_communication("m", of="ada", contained=[inner], about=[reference("#inner")])
    await ehr.store(a_binary("scan"), message)
    assert held(await facts(store, "Binary/scan"))[:2] == (("ada",), {"messages"})


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (
            an_appointment("slot", of=["ada"]),
            resource(
                "AppointmentResponse",
                "x",
                appointment=reference("Appointment/slot"),
                actor=reference("Patient/bo"),
                participantStatus="accepted",
            ),
        ),
        (
            resource("Invoice", "i", status="issued", subject=reference("Patient/ada")),
            resource(
                "PaymentNotice",
                "x",
                status="active",
                request=reference("Invoice/i"),
                created="2029-01-01",
                payment=reference("PaymentReconciliation/r"),
                recipient=reference("Organization/o"),
                amount={"value": 1},
            ),
        ),
        (
            resource("EnrollmentRequest", "e", status="active", candidate=reference("Patient/ada")),
            resource(
                "EnrollmentResponse", "x", status="active", request=reference("EnrollmentRequest/e")
            ),
        ),
    ],
)
async def test_answers_and_notices_follow_what_they_are_about(
    store: Any, ehr: Caller, parent: Json, child: Json
) -> None:
    await ehr.store(child, parent)
    key = f"{child['resourceType']}/x"
    found = held(await facts(store, key))
    assert found[0] == ("ada",)
    assert found[1] == held(await facts(store, f"{parent['resourceType']}/{parent['id']}"))[1]
    await ehr.delete(f"{parent['resourceType']}/{parent['id']}")
    assert held(await facts(store, key))[0] == ()


async def test_client_meta_decides_nothing_but_labels(store: Any, ehr: Caller) -> None:
    await ehr.store(
        an_observation("o", of="ada", meta={"profile": ["https://x.example/p"], "source": "urn:x"})
    )
    assert held(await facts(store, "Observation/o")) == (("ada",), {"results"}, set())


async def test_an_unclassified_observation_says_so(store: Any, ehr: Caller) -> None:
    await ehr.store(an_observation("o", of="ada", category=None))
    assert held(await facts(store, "Observation/o")) == (("ada",), {"-unclassified"}, set())


async def test_a_transaction_classifies_whatever_order_its_entries_have(
    store: Any, ehr: Caller
) -> None:
    from tests.builders import a_bundle  # noqa: PLC0415

    trees = [
        a_provenance("p", about=["Observation/lab", "Binary/scan"]),
        a_binary("scan"),
        LAB,
        a_document("letter", of="ada", binary="scan"),
    ]
    puts = [("PUT", f"{tree['resourceType']}/{tree['id']}", tree) for tree in trees]
    assert (await ehr.bundle(a_bundle("transaction", *puts))).status == 200
    assert held(await facts(store, "Provenance/p")) == (("ada",), {"results", "documents"}, set())


# ---------------------------------------------------------------- threads


NORMAL = {
    "security": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}
    ]
}


def a_message(own_id: str, of: str, **more: Any) -> Json:
    return a_communication(own_id, of="ada", partOf=[reference(of)], **more)


@pytest.mark.parametrize("order", [*permutations(range(5))])
async def test_a_message_is_no_less_hidden_than_its_thread_in_any_order(
    store: Any, ehr: Caller, order: Sequence[int]
) -> None:
    """So are its file, its provenance, and what is part of the message."""
    attachment = {"contentType": "application/pdf", "url": "Binary/pdf"}
    trees = [
        a_communication("thread", of="ada", meta=RESTRICTED),
        a_message("one", "Communication/thread", payload=[{"contentAttachment": attachment}]),
        a_message("two", "Communication/one"),
        a_binary("pdf"),
        a_provenance("p", about=["Communication/one"]),
    ]
    await ehr.store(*(trees[n] for n in order))
    for key in ("Communication/one", "Communication/two", "Binary/pdf", "Provenance/p"):
        assert held(await facts(store, key))[2] == {"R"}, key


async def test_messages_follow_the_labels_of_their_thread(store: Any, ehr: Caller) -> None:
    await ehr.store(
        a_communication("thread", of="ada"),
        a_message("one", "Communication/thread"),
        a_message("itself", "Communication/itself", meta=RESTRICTED),
        a_provenance("p", about=["Communication/one"]),
    )

    async def labels() -> list[set[str]]:
        return [held(await facts(store, one))[2] for one in ("Communication/one", "Provenance/p")]

    assert await labels() == [set(), set()]
    await ehr.store(a_communication("thread", of="ada", meta=RESTRICTED))
    assert await labels() == [{"R"}, {"R"}]
    open_again = a_communication("thread", of="ada", meta=NORMAL)
    await ehr.store(open_again)
    assert await labels() == [set(), set()]
    await ehr.store(a_communication("thread", of="ada", meta=RESTRICTED))
    assert (await ehr.delete("Communication/thread")).status in {200, 204}
    assert await labels() == [{"R"}, {"R"}], "a deletion shows nothing"
    await ehr.store(a_message("itself", "Communication/itself", meta=NORMAL))
    assert held(await facts(store, "Communication/itself"))[2] == set()
