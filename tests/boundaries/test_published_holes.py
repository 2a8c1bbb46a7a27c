"""Thirteen published authorization holes of a comparable server, each a regression test here.

Source: icanbwell/fhir-server, docs/resource-authorization.md, section 12.
"""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.fhir.errors import Unauthenticated
from tests.builders import (
    DERM,
    FAMILY,
    PORTAL_TAG,
    Caller,
    Clock,
    a_bundle,
    a_client,
    a_grant,
    a_patient,
    a_person,
    a_practice,
    a_proxy,
    an_access_token,
    an_account,
    an_observation,
    assert_outcome,
    bearer_of,
    changed,
    keep,
    oneself,
    reference,
    resource,
    some_answers,
)


@pytest.fixture
async def callers(as_ehr: Caller, store: Any, clock: Clock) -> Callers:
    """Real tokens: Ada's for Kit, and her own."""
    del as_ehr
    tokens = [
        changed(
            an_access_token("mother", a_proxy("kit", "mother", grant="grant-mother")), account="ada"
        ),
        changed(an_access_token("ada", oneself("ada")), account="ada"),
    ]
    account = an_account("ada", f"{DERM}/Person/ada", f"{FAMILY}/Person/ada")
    await keep(store, a_practice(DERM), a_practice(FAMILY), a_client("app"), account, *tokens)
    return Callers(store, clock)


async def as_token(callers: Callers, as_ehr: Caller, name: str) -> Caller:
    return Caller(as_ehr.portal, await callers.of(bearer_of(name)))


async def test_01_a_patient_update_sets_no_access_tag(as_ada: Caller, as_ehr: Caller) -> None:
    for tag in (
        {"system": PORTAL_TAG, "code": "directory"},
        {"system": "https://www.icanbwell.com/access", "code": FAMILY},
    ):
        tree = some_answers("form-ada", of="ada", meta={"tag": [tag]})
        assert_outcome(await as_ada.put(tree), 403, "forbidden")
    assert "tag" not in (await as_ehr.get("QuestionnaireResponse/form-ada")).json["meta"]


async def test_02_no_link_is_followed_beyond_the_first(callers: Callers, as_ehr: Caller) -> None:
    await as_ehr.store(
        a_patient(
            "bo", family="Berg", link=[{"other": reference("Patient/kit"), "type": "seealso"}]
        ),
        a_patient("ada", link=[{"other": reference("Patient/bo"), "type": "seealso"}]),
        a_person("bo", links=["Patient/bo"]),
        a_person("ada", links=["Patient/ada", "RelatedPerson/mother", "Person/bo"]),
    )
    ada = await as_token(callers, as_ehr, "ada")
    assert await ada.everything("Patient?_include=Patient:link") == ["Patient/ada"]
    assert (await ada.get("Patient/bo")).status == 404


async def test_03_every_way_to_a_resource_asks_the_same_question(as_ada: Caller) -> None:
    hidden = "Observation/lab-bo"
    for url in (hidden, f"{hidden}/_history", f"{hidden}/_history/1"):
        assert (await as_ada.get(url)).status == 404
        for kind in ("batch", "transaction"):
            if url.endswith("_history"):
                continue
            answer = await as_ada.bundle(a_bundle(kind, ("GET", url)))
            assert b"lab-bo" not in answer.body.replace(b"lab-bo is not known", b"")
    for url in ("Observation?_id=lab-bo", "Patient?_revinclude=Observation:subject"):
        assert hidden not in await as_ada.everything(url)


async def test_04_a_person_link_is_not_a_callers_to_add(as_ada: Caller, as_ehr: Caller) -> None:
    """The refusal is the same whether the target exists or not."""
    answers = set()
    for target in ("Patient/bo", "Patient/no-such-thing", "Patient/kit"):
        for own_id in ("ada", "fresh"):
            tree = a_person(own_id, links=["Patient/ada", target])
            for answer in (await as_ada.put(tree), await as_ada.post(tree)):
                answers.add((answer.status, answer.body))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 403
    assert len((await as_ehr.get("Person/ada")).json["link"]) == 2


async def test_04b_an_ehr_links_no_patient_of_another_practice(
    callers: Callers, as_ehr: Caller, other_ehr: Caller
) -> None:
    """A link means this practice's resource of that id, or nothing."""
    await other_ehr.store(a_patient("uma"))
    await as_ehr.store(a_person("ada", links=["Patient/ada", "Patient/uma"]))
    ada = await as_token(callers, as_ehr, "ada")
    assert (await ada.get("Patient/uma")).status == 404


async def test_05_the_resource_type_gate_holds_in_bundles_and_includes(as_ada: Caller) -> None:
    narrow = as_ada.with_scope("patient/Patient.rs")
    answer = await narrow.bundle(
        a_bundle(
            "batch", ("GET", "Observation"), ("GET", "Observation/lab-ada"), ("GET", "Patient")
        )
    )
    statuses = [entry["response"]["status"][:3] for entry in answer.json["entry"]]
    assert statuses == ["403", "403", "200"]
    assert await narrow.everything("Patient?_revinclude=Observation:subject") == ["Patient/ada"]
    answer = await narrow.bundle(a_bundle("transaction", ("GET", "Observation")))
    assert answer.status == 403


async def test_06_what_is_remembered_for_one_caller_is_not_used_for_another(
    as_ada: Caller, as_mother: Caller, as_father: Caller
) -> None:
    for _ in range(3):
        assert set(await as_mother.everything("Observation")) == {
            "Observation/pulse-kit",
            "Observation/lab-kit",
        }
        assert await as_father.everything("Observation") == []
        assert await as_father.everything("Encounter") == ["Encounter/visit-kit"]
        assert await as_mother.everything("Encounter") == []
        assert await as_ada.everything("Encounter") == ["Encounter/visit-ada"]


async def test_07_an_expired_grant_conveys_nothing(
    callers: Callers, as_ehr: Caller, clock: Clock
) -> None:
    await as_ehr.store(a_grant("grant-mother", of="kit", to="mother", end="2030-03-18"))
    await as_token(callers, as_ehr, "mother")
    clock.advance(3 * 86_400)
    with pytest.raises(Unauthenticated):
        await callers.of(bearer_of("mother"))


async def test_08_a_consent_write_bites_on_the_next_request(
    callers: Callers, as_ehr: Caller
) -> None:
    mother = await as_token(callers, as_ehr, "mother")
    assert (await mother.get("Observation/lab-kit")).status == 200
    await as_ehr.store(a_grant("grant-mother", of="kit", to="mother", sections=["messages"]))
    narrowed = await as_token(callers, as_ehr, "mother")
    assert (await narrowed.get("Observation/lab-kit")).status == 404
    assert await narrowed.everything("Observation") == []
    await as_ehr.store(a_grant("grant-mother", of="kit", to="mother", status="inactive"))
    with pytest.raises(Unauthenticated):
        await callers.of(bearer_of("mother"))


async def test_09_a_group_shows_nobody_its_members(as_ada: Caller, as_ehr: Caller) -> None:
    members = [{"entity": reference(f"Patient/{one}")} for one in ("ada", "bo")]
    await as_ehr.store(resource("Group", "all", type="person", actual=True, member=members))
    for url in ("Group/all", "Group", "Group?member=Patient/ada"):
        assert (await as_ada.get(url)).status == 403
    assert await as_ada.everything("Patient?_revinclude=Group:member") == ["Patient/ada"]


async def test_10_a_foreign_thing_and_none_have_the_same_status(as_ada: Caller) -> None:
    """There is no export yet; what names things by id answers alike today."""
    for name in ("Observation", "Binary", "AuditEvent", "Consent", "Task"):
        foreign = await as_ada.get(f"{name}/lab-bo")
        absent = await as_ada.get(f"{name}/no-such-thing")
        assert foreign.status == absent.status == 404


async def test_11_a_link_nobody_proved_opens_nothing(callers: Callers, as_ehr: Caller) -> None:
    links = ["Patient/ada", "RelatedPerson/mother"]
    await as_ehr.store(a_person("ada", links=links, assurance="level1"))
    for name in ("ada", "mother"):
        with pytest.raises(Unauthenticated):
            await callers.of(bearer_of(name))


async def test_12_what_nobody_classified_is_hidden_from_proxies(
    as_ehr: Caller, as_mother: Caller, front_door: Any
) -> None:
    await as_ehr.store(
        an_observation("loose", of="kit", category=None),
        resource("Basic", "odd", code={"text": "x"}, subject=reference("Patient/kit")),
    )
    for url in ("Observation/loose", "Basic/odd"):
        assert (await as_mother.get(url)).status == 404
    assert "Observation/loose" not in await as_mother.everything("Observation")
    kit = Caller(front_door, oneself("kit"))
    assert (await kit.get("Observation/loose")).status == 200


async def test_13_a_change_at_any_depth_is_noticed(callers: Callers, as_ehr: Caller) -> None:
    """Person, RelatedPerson and Consent each end the token that rests on them."""
    changes: list[tuple[Any, Any]] = [
        (
            a_person("ada", links=["Patient/ada"]),
            a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]),
        ),
        (
            resource("RelatedPerson", "mother", patient=reference("Patient/bo")),
            resource("RelatedPerson", "mother", patient=reference("Patient/kit")),
        ),
        (
            a_grant("grant-mother", of="bo", to="mother"),
            a_grant("grant-mother", of="kit", to="mother"),
        ),
    ]
    for ending, restoring in changes:
        await callers.of(bearer_of("mother"))
        await as_ehr.store(ending)
        with pytest.raises(Unauthenticated):
            await callers.of(bearer_of("mother"))
        await as_ehr.store(restoring)
    await callers.of(bearer_of("mother"))
