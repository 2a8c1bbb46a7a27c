"""``$health-cards-issue``: what is signed, for whom, and no more than may be seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.exceptions import InvalidSignature

from fhir_portal.portal import Portal
from fhir_portal.smart.health_card_keys import HealthCardKey, jwks_of, keys_of
from tests.builders import (
    BASE,
    DERM,
    RESTRICTED,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    a_patient,
    oneself,
    resource,
)
from tests.charts import CVX, SNOMED, an_immunization
from tests.health_cards import LONGEST, cards_in, codes_on, packed, resources_on, unpacked, verified
from tests.operations.charted import aunt, narrowed, record, refused
from tests.staff import a_member_of_staff

__all__ = ["aunt", "record"]

pytestmark = pytest.mark.usefixtures("record")

ISSUE = "Patient/ada/$health-cards-issue"
VACCINES = f"{ISSUE}?credentialType=Immunization"
SETS = "https://terminology.smarthealth.cards/ValueSet"


async def asked(caller: Caller, *given: tuple[str, str]) -> Answer:
    pairs = [("credentialType", "Immunization"), *given]
    return await caller.get(f"{ISSUE}?{urlencode(pairs)}")


async def jwks(portal: Portal, practice: str = DERM) -> dict[str, Any]:
    return jwks_of(await keys_of(portal.server.store, practice))


def coded(code: str, system: str = CVX, **more: Any) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": "A vaccine"}], **more}


# ---------------------------------------------------------------- what is on it


@pytest.mark.requirement("portal", "S2-10")
async def test_a_verifier_accepts_it_with_the_published_key(
    ada: Caller, portal: Portal, clock: Clock
) -> None:
    (card,) = cards_in(await ada.get(VACCINES))
    claims = verified(card, await jwks(portal))
    assert claims["iss"] == f"{BASE.removesuffix('/fhir')}/health-cards/{DERM}"
    assert claims["nbf"] == int(clock())
    assert set(claims) == {"iss", "nbf", "vc"}
    assert set(claims["vc"]) == {"type", "credentialSubject", "rid"}
    assert set(claims["vc"]["credentialSubject"]) == {"fhirVersion", "fhirBundle"}


@pytest.mark.requirement("portal", "S2-10")
async def test_it_holds_name_birth_date_and_what_was_given_and_no_more(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(
        a_patient(
            "ada", gender="female", telecom=[{"system": "phone", "value": "+1 555"}],
            address=[{"city": "Elm"}], identifier=[{"system": "urn:x", "value": "MRN"}],
            name=[{"use": "old", "family": "Before"},
                  {"use": "official", "family": "Quill", "given": ["Ada", "May"],
                   "prefix": ["Dr"]}],
        ),
        an_immunization(
            "flu", occurrenceDateTime="2028-10-02T23:30:00-05:00", lotNumber="A17",
            vaccineCode=coded("140", text="Influenza"), note=[{"text": "cried"}],
            performer=[{"actor": {"reference": "Practitioner/lark", "display": "Dr. Lark"}},
                       {"actor": {"reference": "Organization/derm", "display": "Hillside"}}],
            encounter={"reference": "Encounter/e"}, site={"text": "arm"},
        ),
    )  # fmt: skip
    cards = cards_in(await ada.get(VACCINES))
    assert resources_on(cards, "Patient") == [
        {
            "resourceType": "Patient",
            "name": [{"family": "Quill", "given": ["Ada", "May"]}],
            "birthDate": "1984-05-12",
        }
    ]
    assert resources_on(cards, "Immunization") == [
        {
            "resourceType": "Immunization",
            "status": "completed",
            "vaccineCode": {"coding": [{"system": CVX, "code": "140"}]},
            "patient": {"reference": "resource:0"},
            "occurrenceDateTime": "2028-10-02",
            "lotNumber": "A17",
            "performer": [{"actor": {"display": "Hillside"}}],
        }
    ]


async def test_only_what_was_given_and_has_a_code_and_a_time_is_on_it(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(
        an_immunization("no", status="not-done", vaccineCode=coded("3")),
        an_immunization("wrong", status="entered-in-error", vaccineCode=coded("18")),
        an_immunization("words", vaccineCode={"text": "Cholera"}),
        an_immunization("abroad", vaccineCode=coded("26"), primarySource=False,
                        occurrenceDateTime="2020"),
        an_immunization("weak", vaccineCode=coded("88"), isSubpotent=True,
                        occurrenceDateTime="2019-03"),
    )  # fmt: skip
    found = resources_on(cards_in(await ada.get(VACCINES)), "Immunization")
    assert [one["vaccineCode"]["coding"][0]["code"] for one in found] == ["140", "26", "88"]
    assert [one.get("primarySource") for one in found] == [None, False, None]
    assert [one.get("isSubpotent") for one in found] == [None, None, True]


async def test_what_a_card_could_not_say_rightly_is_on_none(ada: Caller, ehr: Caller) -> None:
    """Planted faults: a modifier is left out of it; a code that says it is not known is signed."""
    terms = "http://terminology.hl7.org/CodeSystem"
    await ehr.store(
        an_immunization("flu", modifierExtension=[{"url": "urn:refuted", "valueBoolean": True}]),
        an_immunization("rules", vaccineCode=coded("3"), implicitRules="urn:rules"),
        an_immunization("who", vaccineCode=coded("18"), performer=[
            {"actor": {"reference": "Organization/derm", "display": "Hillside"},
             "modifierExtension": [{"url": "urn:not-by", "valueBoolean": True}]}]),
        an_immunization("unknown", vaccineCode=coded("unknown", f"{terms}/data-absent-reason")),
        an_immunization("null", vaccineCode=coded("UNK", f"{terms}/v3-NullFlavor")),
    )  # fmt: skip
    found = resources_on(cards_in(await ada.get(VACCINES)), "Immunization")
    assert [one["vaccineCode"]["coding"][0]["code"] for one in found] == ["18"]
    assert "performer" not in found[0]


async def test_what_is_taken_back_is_on_no_card_made_later(ada: Caller, ehr: Caller) -> None:
    assert codes_on(cards_in(await ada.get(VACCINES))) == ["140"]
    await ehr.store(an_immunization("flu", status="entered-in-error"))
    assert (await ada.get(VACCINES)).json == {"resourceType": "Parameters"}


async def test_of_several_codes_those_of_vaccines_stand_there(ada: Caller, ehr: Caller) -> None:
    codings = [("urn:local", "F1"), (CVX, "140"), (CVX, "141"), (SNOMED, "1181000221105")]
    concept = {"coding": [{"system": system, "code": code} for system, code in codings]}
    await ehr.store(
        an_immunization("flu", vaccineCode=concept),
        an_immunization("own", vaccineCode=coded("F2", "urn:local"), occurrenceDateTime="2020"),
    )
    found = resources_on(cards_in(await ada.get(VACCINES)), "Immunization")
    assert [one["vaccineCode"]["coding"] for one in found] == [
        [{"system": CVX, "code": "140"}, {"system": SNOMED, "code": "1181000221105"}],
        [{"system": "urn:local", "code": "F2"}],
    ]


async def test_each_resource_on_a_card_is_linked_to_the_stored_one(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(
        *(an_immunization(f"shot-{n}", vaccineCode=coded(str(n + 50)), lotNumber=f"{n**7}",
                          occurrenceDateTime=f"20{n:02}-01-07") for n in range(40))
    )  # fmt: skip
    answer = await ada.get(VACCINES)
    cards = cards_in(answer)
    links = {}
    for one in answer.json["parameter"]:
        if one["name"] == "resourceLink":
            held = {part["name"]: part for part in one["part"]}
            place = (held["vcIndex"]["valueInteger"], held["bundledResource"]["valueUri"])
            links[place] = held["hostedResource"]["valueUri"]
    assert len(links) == 41
    for number, card in enumerate(cards):
        for index, tree in enumerate(resources_on([card], "Immunization"), start=1):
            stored = links[number, f"resource:{index}"].removeprefix(f"{BASE}/")
            kept = (await ada.get(stored)).json
            assert (
                kept["vaccineCode"]["coding"][0]["code"]
                == (tree["vaccineCode"]["coding"][0]["code"])
            )


async def test_each_card_fits_one_code_and_together_they_have_it_all(
    ada: Caller, ehr: Caller, portal: Portal
) -> None:
    """Planted fault: everything goes on one card, or what does not fit the first is left out."""
    await ehr.store(
        *(an_immunization(f"shot-{n}", vaccineCode=coded(str(n + 1000)), lotNumber=f"{n**9}",
                          occurrenceDateTime=f"20{n:02}-01-07") for n in range(60))
    )  # fmt: skip
    cards = cards_in(await ada.get(VACCINES))
    published = await jwks(portal)
    assert len(cards) > 1
    assert all(len(card) <= LONGEST for card in cards)
    assert all(verified(card, published) for card in cards)
    days = [one["occurrenceDateTime"] for one in resources_on(cards, "Immunization")]
    assert len(days) == 61
    assert days == sorted(days, reverse=True)
    assert len(resources_on(cards, "Patient")) == len(cards)


async def test_one_vaccine_too_long_for_a_code_is_a_card_all_the_same(
    ada: Caller, ehr: Caller, portal: Portal
) -> None:
    lot = "".join(f"{n**5 % 9973:04}" for n in range(900))
    await ehr.store(an_immunization("flu", lotNumber=lot))
    (card,) = cards_in(await ada.get(VACCINES))
    assert len(card) > LONGEST
    assert verified(card, await jwks(portal))


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    "word",
    ["Immunization", "#immunization", "https://smarthealth.cards#immunization",
     "https://smarthealth.cards#health-card"],
)  # fmt: skip
async def test_the_type_has_several_names(ada: Caller, word: str) -> None:
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "credentialType", "valueUri": word}],
    }
    assert codes_on(cards_in(await ada.ask("POST", ISSUE, body))) == ["140"]


@pytest.mark.parametrize("other", ["Observation", "#laboratory", "Coverage"])
async def test_there_are_no_cards_of_another_type_nor_of_both(ada: Caller, other: str) -> None:
    """Several types are wanted together (logical AND)."""
    empty = {"resourceType": "Parameters"}
    assert (await ada.get(f"{ISSUE}?{urlencode({'credentialType': other})}")).json == empty
    assert (await asked(ada, ("credentialType", other))).json == empty
    assert codes_on(cards_in(await asked(ada, ("credentialType", "Patient")))) == ["140"]


async def test_value_sets_narrow_it(ada: Caller, ehr: Caller, portal: Portal) -> None:
    await ehr.store(
        an_immunization("covid", vaccineCode=coded("207"), occurrenceDateTime="2021-05-04"),
        an_immunization("pox", vaccineCode=coded("206"), occurrenceDateTime="2022-08-01"),
        an_immunization("snomed", vaccineCode=coded("1119305005", SNOMED)),
    )

    async def of(*names: str) -> list[list[str]]:
        sets = [("credentialValueSet", f"{SETS}/{name}") for name in names]
        return [codes_on([card]) for card in cards_in(await asked(ada, *sets))]

    assert await of("immunization-covid-all") == [["207"]]
    assert await of("immunization-orthopoxvirus-all") == [["206"]]
    assert await of("immunization-all-snomed|1.0.0") == [["1119305005"]]
    assert await of("immunization-all-icd11") == []
    assert await of("immunization-covid-cvx", "immunization-orthopoxvirus-cvx") == [["206", "207"]]
    assert await of("immunization-covid-cvx", "immunization-all-icd11") == []
    of_old = await ada.get(f"{ISSUE}?{urlencode({'credentialType': '#covid19'})}")
    assert codes_on(cards_in(of_old)) == ["207"]
    assert verified(cards_in(of_old)[0], await jwks(portal))


@pytest.mark.parametrize(
    ("since", "codes"),
    [("2021-05", ["140", "207"]), ("2021-05-05", ["140"]), ("2029", []),
     ("2021-05-04T12:00:00Z", ["140", "207"])],
)  # fmt: skip
async def test_what_was_given_before_a_time_can_be_left_out(
    ada: Caller, ehr: Caller, since: str, codes: list[str]
) -> None:
    await ehr.store(
        an_immunization("covid", vaccineCode=coded("207"), occurrenceDateTime="2021-05-04"),
    )
    assert codes_on(cards_in(await asked(ada, ("_since", since)))) == codes


async def test_who_it_is_can_be_told_in_part(ada: Caller) -> None:
    claim = "includeIdentityClaim"
    name = await asked(ada, (claim, "Patient.name"), (claim, "Patient.telecom"))
    (patient,) = resources_on(cards_in(name), "Patient")
    assert set(patient) == {"resourceType", "name"}
    (patient,) = resources_on(cards_in(await asked(ada, (claim, "Patient.birthDate"))), "Patient")
    assert set(patient) == {"resourceType", "birthDate"}
    both = [(claim, "Patient.birthDate"), (claim, "Patient.name"), (claim, "Patient.name")]
    (patient,) = resources_on(cards_in(await asked(ada, *both)), "Patient")
    assert set(patient) == {"resourceType", "name", "birthDate"}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", ""),
        ("credentialType=", ""),
        ("credentialType=Vaccine", "credentialType"),
        ("credentialType=immunization", "credentialType"),
        ("credentialType=https://example.org%23immunization", "credentialType"),
        ("credentialType=Immunization&credentialType=Nothing", "credentialType"),
        ("credentialType=Immunization&credentialValueSet=urn:x", "credentialValueSet"),
        (f"credentialType=Immunization&credentialValueSet={SETS}/no", "credentialValueSet"),
        ("credentialType=Immunization&includeIdentityClaim=name", "includeIdentityClaim"),
        ("credentialType=Immunization&includeIdentityClaim=Patient.telecom",
         "includeIdentityClaim"),
        ("credentialType=Immunization&_since=yesterday", ""),
        ("credentialType=Immunization&_since=2021-02-30", ""),
        ("credentialType=Immunization&_since=2021&_since=2022", ""),
        ("credentialType=Immunization&format=pdf", ""),
    ],
)  # fmt: skip
async def test_what_is_not_understood_is_refused_by_name(
    ada: Caller, portal: Portal, query: str, named: str
) -> None:
    answer = await ada.get(f"{ISSUE}?{query}")
    assert answer.status in {400, 422, 501}
    assert answer.json["resourceType"] == "OperationOutcome"
    assert named in json.dumps(answer.json["issue"][0].get("expression", []))
    assert await portal.server.store.every(HealthCardKey) == []


async def test_without_name_or_birth_date_there_is_no_card(ada: Caller, ehr: Caller) -> None:
    await ehr.store(resource("Patient", "ada", name=[{"family": "Quill", "given": ["Ada"]}]))
    answer = await ada.get(VACCINES)
    assert answer.status == 422
    assert b"Quill" not in answer.body
    named = await asked(ada, ("includeIdentityClaim", "Patient.name"))
    assert len(cards_in(named)) == 1
    await ehr.store(resource("Patient", "ada", birthDate="1984-05-12", name=[{"use": "old"}]))
    assert (await ada.get(VACCINES)).status == 422
    await ehr.store(resource("Patient", "ada", birthDate="1984-05-12", name=[{"text": "Ada Q"}]))
    (patient,) = resources_on(cards_in(await ada.get(VACCINES)), "Patient")
    assert patient["name"] == [{"text": "Ada Q"}]


MAIDEN = {"use": "maiden", "family": "Rook", "given": ["Ada"]}
ENDED = {"use": "official", "family": "Rook", "given": ["Ada"], "period": {"end": "2020-05"}}
PSEUDONYM = {"use": "anonymous", "family": "Rook"}
NOW_CALLED = {"family": "Quill", "given": ["Ada"]}


@pytest.mark.parametrize(
    "other",
    [MAIDEN, ENDED, PSEUDONYM, {"use": "nickname", "text": "Rook"}, {"use": "temp", "text": "R"}],
)
async def test_it_is_the_name_that_somebody_has(
    ada: Caller, ehr: Caller, other: dict[str, Any]
) -> None:
    """Planted fault: of names neither official nor usual, the first that is not ``old``."""
    await ehr.store(resource("Patient", "ada", birthDate="1984-05-12", name=[other, NOW_CALLED]))
    (patient,) = resources_on(cards_in(await ada.get(VACCINES)), "Patient")
    assert patient["name"] == [{"family": "Quill", "given": ["Ada"]}]


@pytest.mark.parametrize("only", [MAIDEN, ENDED, PSEUDONYM])
async def test_a_name_that_somebody_does_not_have_is_on_no_card(
    ada: Caller, ehr: Caller, only: dict[str, Any]
) -> None:
    await ehr.store(resource("Patient", "ada", birthDate="1984-05-12", name=[only]))
    answer = await ada.get(VACCINES)
    assert answer.status == 422
    assert b"Rook" not in answer.body


async def test_a_name_is_had_until_the_last_day_of_it(
    ada: Caller, ehr: Caller, clock: Clock
) -> None:
    today = datetime.fromtimestamp(clock(), UTC).date().isoformat()
    name = {**ENDED, "period": {"end": today}}
    await ehr.store(resource("Patient", "ada", birthDate="1984-05-12", name=[name, NOW_CALLED]))
    (patient,) = resources_on(cards_in(await ada.get(VACCINES)), "Patient")
    assert patient["name"] == [{"family": "Rook", "given": ["Ada"]}]


# ---------------------------------------------------------------- for whom


async def test_who_does_not_see_the_name_gets_no_card(aunt: Caller) -> None:
    answer = await narrowed(aunt, "immunizations").get(VACCINES)
    assert answer.status == 422
    assert b"eyJ" not in answer.body
    assert codes_on(cards_in(await narrowed(aunt, "immunizations", "demographics").get(VACCINES)))


async def test_staff_and_the_ehr_issue_it_too(portal: Portal, ehr: Caller) -> None:
    desk = Caller(portal, a_member_of_staff("nurse", permissions=("view",)))
    for caller in (desk, ehr):
        assert codes_on(cards_in(await caller.get(VACCINES))) == ["140"]


async def test_whoever_lacks_one_thing_is_refused(
    aunt: Caller, ada: Caller, portal: Portal
) -> None:
    """Expired, grant over, no section, scopes for another type, for a part, of another context."""
    callers = [*refused(aunt.auth, "results", "demographics"), *refused(ada.auth)[:2]]
    callers += [oneself(scope="patient/Patient.r"), oneself(scope="patient/Immunization.rs")]
    for auth in callers:
        answer = await Caller(portal, auth).get(VACCINES)
        assert answer.status in {403, 404}, auth
        assert b"verifiableCredential" not in answer.body
    assert await portal.server.store.every(HealthCardKey) == []


async def test_the_record_of_somebody_else_is_not_there(portal: Portal) -> None:
    answers = []
    for whose in ("ada", "nobody"):
        answer = await Caller(portal, oneself("bo")).get(VACCINES.replace("ada", whose))
        answers.append((answer.status, answer.body.replace(whose.encode(), b"X")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_labelled_leaves_it_as_it_is_for_a_proxy(
    aunt: Caller, ehr: Caller, meta: dict[str, object]
) -> None:
    before = cards_in(await aunt.get(VACCINES))
    secret = an_immunization("secret", vaccineCode=coded("26"), meta=meta)
    await ehr.store(secret)
    answer = await aunt.get(VACCINES)
    payloads = [[card.split(".")[1] for card in some] for some in (before, cards_in(answer))]
    assert payloads[0] == payloads[1]
    assert b"secret" not in answer.body
    await ehr.store(an_immunization("flu", meta=meta))
    assert (await aunt.get(VACCINES)).json == {"resourceType": "Parameters"}
    assert (await narrowed(aunt, "forms").get(VACCINES)).status == 403


async def test_a_patient_who_is_hidden_from_a_proxy_is_on_no_card(
    aunt: Caller, ehr: Caller
) -> None:
    await ehr.store(a_patient("ada", meta=WITHHELD))
    answer = await aunt.get(VACCINES)
    assert answer.status in {404, 422}
    assert b"Quill" not in answer.body


async def test_the_access_is_in_the_log_and_names_nobody(ada: Caller, ehr: Caller) -> None:
    await ada.get(VACCINES)
    log = await ehr.ask("GET", "AuditEvent?entity=Patient/ada&_count=50")
    told = [one["resource"] for one in log.json["entry"]]
    codes = [code["code"] for one in told for code in one.get("subtype", ())]
    assert codes.count("health-cards-issue") == 1
    assert codes.count("download") >= 1
    assert not any(word in json.dumps(told) for word in ("eyJ", "Quill"))


# ---------------------------------------------------------------- what others do with it


async def test_a_card_that_was_changed_is_no_card(ada: Caller, portal: Portal) -> None:
    (card,) = cards_in(await ada.get(VACCINES))
    published = await jwks(portal)
    head, body, signature = card.split(".")
    changed = bytearray(unpacked(signature))
    changed[10] ^= 1
    for forged in (
        f"{head}.{body[:-2]}{'AA' if body[-2:] != 'AA' else 'BB'}.{signature}",
        f"{head}.{body}.{packed(bytes(changed))}",
    ):
        with pytest.raises(InvalidSignature):
            verified(forged, published)


async def test_another_practice_signs_with_keys_of_its_own(
    ada: Caller, other_ehr: Caller, portal: Portal
) -> None:
    await other_ehr.store(a_patient("fay"), an_immunization("shot", of="fay"))
    (own,) = cards_in(await ada.get(VACCINES))
    (others,) = cards_in(await other_ehr.get(VACCINES.replace("ada", "fay")))
    kids = {
        json.loads(unpacked(card.split(".")[0]))["kid"]: verified(card, await jwks(portal, key))
        for card, key in ((own, DERM), (others, "family-medicine"))
    }
    assert len(kids) == 2
    assert {claims["iss"].rpartition("/")[2] for claims in kids.values()} == {
        DERM,
        "family-medicine",
    }
    with pytest.raises(ValueError, match="not enough values"):
        verified(own, await jwks(portal, "family-medicine"))
