"""Attacks that once worked; each was seen to succeed before its fix."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.visibility import SHARED
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import FhirError
from fhir_portal.portal import Portal
from fhir_portal.smart.client import Client
from fhir_portal.smart.token import AccessToken
from tests.builders import (
    DERM,
    DIRECTORY,
    FAMILY,
    WITHHELD,
    Caller,
    Clock,
    a_binary,
    a_client,
    a_communication,
    a_document,
    a_grant,
    a_patient,
    a_person,
    a_portal,
    a_practice,
    a_practitioner,
    a_provenance,
    a_proxy,
    a_related_person,
    an_access_token,
    an_account,
    an_ehr,
    an_observation,
    bearer_of,
    keep,
    oneself,
    resource,
    some_answers,
)


@pytest.fixture
def file_store(tmp_path: Path, clock: Clock) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore.open(str(tmp_path / "portal.db"), clock=clock)
    yield store
    store.close()


async def test_a_full_disk_leaves_no_number_that_means_something_else(
    file_store: EmbeddedStore, clock: Clock
) -> None:
    """SQLite undoes the whole transaction by itself; caches of what it made must go with it."""
    portal = a_portal(file_store, clock)
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"))
    writer = file_store.database.writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 20}")
    answers = await asyncio.gather(
        asyncio.wait_for(ehr.put(an_observation("x1")), 10),
        asyncio.wait_for(ehr.put(a_binary("big", content="A" * 240_000)), 10),
        asyncio.wait_for(ehr.put(an_observation("x2", meta=WITHHELD)), 10),
    )
    assert 503 in {answer.status for answer in answers}
    assert not writer.in_transaction
    writer.execute("PRAGMA max_page_count = 1000000")
    await ehr.store(an_observation("x3"), an_observation("x4", meta=WITHHELD))
    assert "Observation/x4" not in (await ada.get("Observation")).ids
    assert "Observation/x3" in (await ada.get("Observation")).ids


async def test_what_all_practices_share_is_written_by_none_of_them(portal: Portal) -> None:
    operator = Caller(portal, an_ehr(SHARED))
    derm, family = Caller(portal, an_ehr(DERM)), Caller(portal, an_ehr(FAMILY))
    await operator.store(a_practitioner("x"), a_practitioner("y"))
    assert (await derm.delete("Practitioner/y")).status == 404
    assert (await family.get("Practitioner/y")).status == 200
    assert (await derm.put(a_practitioner("x", family="Own"))).status == 201
    assert (await family.get("Practitioner/x")).json["name"][0]["family"] != "Own"


async def test_a_practices_own_resource_stands_before_a_shared_one(portal: Portal) -> None:
    operator, derm = Caller(portal, an_ehr(SHARED)), Caller(portal, an_ehr(DERM))
    await operator.store(*(a_practitioner(f"p{n}") for n in range(6)))
    await derm.store(a_practitioner("p2", family="Own"), a_practitioner("p3", family="Own"))
    await derm.delete("Practitioner/p3")
    found = await derm.everything("Practitioner?_count=2")
    assert sorted(found) == [f"Practitioner/p{n}" for n in (0, 1, 2, 4, 5)]
    versions = (await derm.get("Practitioner/p2/_history")).entries
    assert [one["name"][0]["family"] for one in versions] == ["Own"]
    assert (await derm.get("Practitioner/p3")).status == 410


async def test_a_deleted_binary_is_nobodys_whatever_its_document_becomes(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"), a_patient("bob"), a_binary("b"))
    await ehr.store(a_document("d", of="ada", binary="b"))
    assert (await ada.get("Binary/b")).status == 200
    await ehr.delete("Binary/b")
    await ehr.store(a_document("d", of="bob", binary="b"))
    assert (await ada.get("Binary/b/_history/1")).status == 404
    assert (await ada.get("Binary/b/_history")).status == 404


async def test_provenance_does_not_keep_itself_alive(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"), an_observation("o", of="ada"))
    await ehr.store(
        a_provenance("p1", about=["Observation/o", "Provenance/p2"]),
        a_provenance("p2", about=["Provenance/p1"]),
    )
    assert (await ada.get("Provenance/p1")).status == 200
    await ehr.delete("Observation/o")
    assert (await ada.get("Provenance/p1")).status == 404
    assert (await ada.get("Provenance/p2")).status == 404


async def test_a_proxy_sees_nothing_that_is_about_another_proxys_grant(portal: Portal) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(
        a_patient("kit"),
        a_related_person("mother"),
        a_related_person("father"),
        a_binary("evidence"),
        a_grant("g1", to="mother", sections=["sharing"]),
        a_grant("g2", to="father", sections=["results"]),
        a_provenance("pg2", about=["Consent/g2"]),
        a_provenance("prp", about=["RelatedPerson/father"]),
    )
    scan = a_grant("c2", to="father")
    scan.pop("sourceReference", None)
    scan["sourceAttachment"] = {"url": "Binary/evidence", "contentType": "application/pdf"}
    assert (await ehr.put(scan)).status == 201
    mother = Caller(portal, a_proxy("kit", "mother", sections=["sharing"], grant="g1"))
    assert (await mother.get("Consent")).ids == ["Consent/g1"]
    assert (await mother.get("Provenance")).ids == []
    assert (await mother.get("Binary/evidence")).status == 404
    kit = Caller(portal, oneself("kit"))
    assert sorted((await kit.get("Provenance")).ids) == ["Provenance/pg2", "Provenance/prp"]
    assert (await kit.get("Binary/evidence")).status == 200


async def test_a_person_does_not_write_over_a_deletion(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"), some_answers("q", source="Practitioner/dr"))
    await ehr.delete("QuestionnaireResponse/q")
    assert (await ada.put(some_answers("q"))).status == 410


async def test_deleting_and_writing_again_takes_no_label_away(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    plain = Caller(portal, an_ehr(DERM, "none"))
    await ehr.store(a_patient("ada"), an_observation("o", meta=WITHHELD))
    await plain.delete("Observation/o")
    assert (await plain.put(an_observation("o"))).status == 201
    assert (await ada.get("Observation/o")).status == 404
    assert (await plain.put(an_observation("o", meta={"tag": [{"code": "x"}]}))).status == 403


async def test_saying_nothing_of_tags_releases_nothing(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"), an_observation("o", meta=WITHHELD))
    await ehr.store(an_observation("o"))
    assert (await ada.get("Observation/o")).status == 404
    await ehr.store(an_observation("o", meta={"tag": [{"system": "urn:x", "code": "seen"}]}))
    assert (await ada.get("Observation/o")).status == 200


@pytest.mark.parametrize(
    "author",
    [
        {"reference": "Patient/ada", "display": "Dr. Lark"},
        {"reference": "Patient/ada", "identifier": {"value": "npi"}},
        {"identifier": {"value": "npi"}, "display": "Dr. Lark"},
    ],
)
async def test_a_person_writes_under_no_other_name(portal: Portal, author: Any) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"))
    assert (await ada.post(some_answers(None, author=author))).status == 403
    assert (await ada.post({**a_communication(None), "sender": author})).status == 403
    assert (await ehr.get("QuestionnaireResponse")).ids == []


async def test_a_person_draws_no_binary_into_a_record(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    await ehr.store(a_patient("ada"), a_binary("b"), a_document("d", of="ada", binary="b"))
    message = {**a_communication(None), "payload": [{"contentAttachment": {"url": "Binary/b"}}]}
    assert (await ada.post(message)).status == 422


async def test_an_old_version_of_a_listed_practitioner_stays_hidden(portal: Portal) -> None:
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    home = [{"text": "a private address"}]
    await ehr.store(a_patient("ada"), resource("Practitioner", "h", address=home))
    await ehr.store(a_practitioner("h", meta=DIRECTORY))
    assert (await ada.get("Practitioner/h")).status == 200
    assert (await ada.get("Practitioner/h/_history/1")).status == 404
    assert len((await ada.get("Practitioner/h/_history")).entries) == 1


async def test_a_granular_scope_opens_no_version_it_does_not_match(portal: Portal) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("ada"), an_observation("o", category="social-history"))
    await ehr.store(an_observation("o", category="laboratory"))
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    labs = Caller(portal, oneself("ada")).with_scope(
        f"patient/Observation.rs?category={system}|laboratory"
    )
    assert (await labs.get("Observation/o")).status == 200
    assert (await labs.get("Observation/o/_history/1")).status == 404
    assert len((await labs.get("_history")).entries) == 1


@pytest.mark.parametrize("end", ["9999-12-31", "9999-12", "9999"])
async def test_a_grant_without_an_end_in_sight_is_open(
    portal: Portal, store: EmbeddedStore, end: str
) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("kit"), a_related_person("mother"), a_grant("g", end=end))
    grant = await store.get(Grant, f"{DERM}/g")
    assert grant is not None
    assert grant.end is None


async def test_a_search_with_too_many_values_is_refused_in_words(portal: Portal) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("ada"), an_observation("o"))
    for name in ("code", "code:not", "date", "_id", "_lastUpdated", "patient"):
        values = (
            ",".join(f"20{n:02}" for n in range(99)) + "," + ",".join("2001" for _ in range(99))
        )
        assert (await ehr.get(f"Observation?{name}={values}")).status == 200, name
        assert (await ehr.get(f"Observation?{name}={values},{values}")).status == 400, name


class _Suspending:
    """A store whose look-ups really wait, as a remote one's do."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.find, self.read, self.epoch = store.find, store.read, store.epoch
        self._store = store
        self.gate: asyncio.Event | None = None

    async def get(self, kind: Any, key: str) -> Any:
        found = await self._store.get(kind, key)
        if kind is Client and self.gate is not None:
            gate, self.gate = self.gate, None
            await gate.wait()
        return found


async def test_a_revocation_during_a_look_up_is_not_remembered_away(
    store: EmbeddedStore, clock: Clock
) -> None:
    token = an_access_token("ehr", an_ehr())
    await keep(store, token, a_client(token.client_id))
    slow = _Suspending(store)
    gate = slow.gate = asyncio.Event()
    callers = Callers(slow, clock)  # type: ignore[arg-type]  # the part of a store that is used
    first = asyncio.ensure_future(callers.of(bearer_of("ehr")))
    await asyncio.sleep(0)

    async def revoke(transaction: Any) -> None:
        await transaction.delete(AccessToken, token.key)

    await store.transact(revoke)
    with contextlib.suppress(FhirError):
        await callers.of("somebody-elses-token-" * 2)
    gate.set()
    with pytest.raises(FhirError):
        await first
    with pytest.raises(FhirError):
        await callers.of(bearer_of("ehr"))


async def test_a_batch_reads_nothing_after_its_token_was_revoked(
    store: EmbeddedStore, portal: Portal
) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
    account = an_account("account-of-ada", f"{DERM}/Person/ada")
    token = an_access_token("ada", oneself("ada"))
    await keep(store, a_practice(), account, a_client("app"), token)
    ada = Caller(portal, await portal.callers.of(bearer_of("ada")))
    entries = [{"request": {"method": "GET", "url": "Patient/ada"}} for _ in range(6)]
    running = asyncio.ensure_future(
        ada.bundle({"resourceType": "Bundle", "type": "batch", "entry": entries})
    )
    await asyncio.sleep(0)

    async def revoke(transaction: Any) -> None:
        await transaction.delete(AccessToken, token.key)

    await store.transact(revoke)
    statuses = [entry["response"]["status"][:3] for entry in (await running).json["entry"]]
    assert statuses[-1] == "401"
    assert statuses == sorted(statuses)


async def test_a_caller_is_asked_again_whoever_else_asks_in_between(
    store: EmbeddedStore, portal: Portal
) -> None:
    """The remembered answer of one token says nothing of another's."""
    one, two = an_access_token("one", an_ehr()), an_access_token("two", an_ehr())
    await keep(store, a_client(one.client_id), one, two)
    held = await portal.callers.of(bearer_of("one"))
    await portal.callers.confirm(held)

    async def revoke(transaction: Any) -> None:
        await transaction.delete(AccessToken, one.key)

    await store.transact(revoke)
    await portal.callers.of(bearer_of("two"))
    with pytest.raises(FhirError):
        await portal.callers.confirm(held)


async def test_a_date_nobody_can_read_is_no_condition(portal: Portal) -> None:
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("ada"))
    date = "Mon, 99999999999 Jan 2020 00:00:00 GMT"
    assert (await ehr.get("Patient/ada", if_modified_since=date)).status == 200


async def test_the_first_of_a_type_is_found_at_once(portal: Portal) -> None:
    """What was found empty before a write is looked at again after it."""
    ehr = Caller(portal, an_ehr())
    assert (await ehr.get("Observation?code=8867-4")).ids == []
    assert (await ehr.post(an_observation(None))).status == 201
    assert len((await ehr.get("Observation?code=8867-4")).ids) == 1
    patient = a_patient(None, identifier=[{"system": "urn:x", "value": "1"}])
    answers = await asyncio.gather(
        *(ehr.post(patient, if_none_exist="identifier=urn:x|1") for _ in range(3))
    )
    assert sorted(answer.status for answer in answers) == [200, 200, 201]


async def test_the_feed_passes_over_no_version_beside_a_shared_one(portal: Portal) -> None:
    operator, derm = Caller(portal, an_ehr(SHARED)), Caller(portal, an_ehr(DERM))
    await operator.store(*(a_practitioner(f"p{n}") for n in range(4)))
    await derm.store(*(a_practitioner(f"p{n}", family="Own") for n in range(4)))
    await derm.store(a_patient("ada"), an_observation("o"))
    found = await derm.everything("_history?_count=1")
    assert sorted(found) == sorted(
        [*(f"Practitioner/p{n}" for n in range(4)), "Patient/ada", "Observation/o"]
    )
