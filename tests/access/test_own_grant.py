"""Who acts for a patient sees the own grant, however it was made, and no other Consent."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.portal import Portal
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_document,
    a_grant,
    a_patient,
    a_provenance,
    a_proxy,
    a_related_person,
    assert_outcome,
    resource,
)

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
VERY = {"security": [{"system": CONFIDENTIALITY, "code": "V"}]}
SENSITIVE = {
    "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SDV"}]
}


@pytest.fixture
async def mother(portal: Portal, ehr: Caller) -> Caller:
    """Both parents have a grant as ``$portal-invite`` makes it: restricted."""
    await ehr.store(
        a_patient("kit"),
        a_patient("bo"),
        a_related_person("mother", of="kit"),
        a_related_person("father", of="kit"),
        a_document("court-order", of="kit"),
        a_grant("grant", of="kit", to="mother", meta=RESTRICTED,
                sourceReference={"reference": "DocumentReference/court-order"}),
        a_grant("of-father", of="kit", to="father", meta=RESTRICTED),
        a_grant("open", of="kit", to="father"),
        a_grant("elsewhere", of="bo", to="mother", meta=RESTRICTED),
        resource("Consent", "study", **{n: v for n, v in a_grant(of="kit").items()
                                         if n not in {"resourceType", "id", "category"}},
                 category=[{"text": "a study"}], meta=RESTRICTED),
        a_provenance("why", about=["Consent/grant"]),
    )  # fmt: skip
    return Caller(portal, a_proxy("kit", "mother", scope="patient/*.rs"))


async def test_the_own_grant_is_read_and_found(mother: Caller) -> None:
    found = await mother.get("Consent/grant")
    assert found.status == 200, found.body
    assert found.json["provision"]["provision"]
    for query in ("Consent", "Consent?patient=Patient/kit", "Consent?_id=grant,open,of-father"):
        assert (await mother.get(query)).ids == ["Consent/grant"], query
    assert (await mother.get("Consent?_summary=count")).json["total"] == 1


@pytest.mark.parametrize("own_id", ["of-father", "open", "elsewhere", "study", "nothing"])
async def test_every_other_consent_is_as_absent(mother: Caller, own_id: str) -> None:
    answer = await mother.get(f"Consent/{own_id}")
    assert_outcome(answer, 404, "not-found")
    unknown = (await mother.get("Consent/unknown")).body
    assert answer.body.replace(own_id.encode(), b"unknown") == unknown


async def test_what_belongs_to_it_is_not_told_with_it(mother: Caller) -> None:
    """Neither its evidence, nor who wrote it and why."""
    query = "Consent?_include=Consent:source-reference&_revinclude=Provenance:target"
    assert (await mother.get(query)).ids == ["Consent/grant"]
    assert (await mother.get("Provenance/why")).status == 404
    assert (await mother.get("DocumentReference/court-order")).status == 404


async def test_earlier_versions_of_it_are_not_shown(mother: Caller, ehr: Caller) -> None:
    await ehr.store(
        a_grant("grant", of="kit", to="mother", meta=RESTRICTED, sections=["documents"])
    )
    assert (await mother.get("Consent/grant/_history/1")).status == 404
    history = await mother.get("Consent/grant/_history")
    versions = [one["resource"]["meta"]["versionId"] for one in history.json.get("entry", [])]
    assert versions in ([], ["2"])


@pytest.mark.parametrize("meta", [VERY, SENSITIVE, WITHHELD, RESTRICTED | WITHHELD])
async def test_any_other_label_hides_it(mother: Caller, ehr: Caller, meta: Json) -> None:
    await ehr.store(a_grant("grant", of="kit", to="mother", meta=meta))
    assert (await mother.get("Consent/grant")).status == 404
    assert (await mother.get("Consent")).ids == []


async def test_without_the_scope_there_is_none(portal: Portal, mother: Caller) -> None:
    assert mother is not None
    narrow = Caller(portal, a_proxy("kit", "mother", scope="patient/Observation.rs"))
    assert (await narrow.get("Consent/grant")).status == 403
    nobodys: Any = a_proxy("kit", "father", scope="patient/*.rs", grant="of-father")
    assert (await Caller(portal, nobodys).get("Consent/grant")).status == 404
