"""The whole server in one process, over a practice with one of everything, and who uses it.

What is asked here goes through the application as `fhir-portal serve` runs it: pages, token
endpoint and FHIR API stand on one store. Only time stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx
import msgspec
from joserfc.jwk import ECKey, Key, RSAKey

from fhir_portal.accounts.account import add_account
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import add_staff
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.settings import load
from fhir_portal.smart.client import INITIATE_LOGIN, add_client
from tests import builders as b
from tests.builders import DERM, Clock, Json
from tests.smart.world import PASSWORD, Browser, password_hash

BASE: Final = "https://portal.example"
INFERNO: Final = "https://inferno.example"
REDIRECT: Final = f"{INFERNO}/custom/smart_stu2_2/redirect"
LAUNCH: Final = f"{INFERNO}/custom/smart_stu2_2/launch"
ANNA, MOTHER, DOCTOR = "anna@example.org", "mother@example.org", "doctor@example.org"

PUBLIC, SYMMETRIC, ASYMMETRIC, BULK = "public-app", "web-app", "signing-app", "bulk-client"
CHART_APP, CHART_APP_OF_PATIENT, EHR = "chart-app", "chart-app-of-patient", "ehr"
ASKED_BY_APPS: Final = "openid fhirUser launch/patient offline_access patient/*.cruds"
ASKED_BY_STAFF: Final = "openid fhirUser launch offline_access"

CONDITION = "http://terminology.hl7.org/CodeSystem/condition-category"
US_CORE_CONDITION = "http://hl7.org/fhir/us/core/CodeSystem/condition-category"
OBSERVATION = b.OBSERVATION_CATEGORY
US_CORE = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category"


@functools.cache
def key_pair(alg: str) -> Key:
    """The client's key for an algorithm: Inferno's JWKS has one of each."""
    if alg == "RS384":
        return RSAKey.generate_key(2048, {"kid": "rs", "alg": "RS384", "use": "sig"})
    return ECKey.generate_key("P-384", {"kid": "es", "alg": "ES384", "use": "sig"})


def public_jwks() -> dict[str, Any]:
    return {"keys": [key_pair(alg).as_dict(private=False) for alg in ("ES384", "RS384")]}


# --- the chart -----------------------------------------------------------------------------------


def condition(own_id: str, system: str, category: str, **more: Any) -> Json:
    clinical = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    return b.a_condition(
        own_id,
        of="anna",
        category=[b.concept(system, category)],
        clinicalStatus=b.concept(clinical, "active"),
        **more,
    )


def observation(own_id: str, system: str, category: str, **more: Any) -> Json:
    found = b.an_observation(own_id, of="anna", category=None, **more)
    return found | {"category": [b.concept(system, category)]}


CATEGORIES: Final = (
    condition("diagnosis", CONDITION, "encounter-diagnosis"),
    condition("problem", CONDITION, "problem-list-item"),
    condition("concern", US_CORE_CONDITION, "health-concern"),
    observation("lab", OBSERVATION, "laboratory", code="718-7"),
    observation("lab-2", OBSERVATION, "laboratory", code="2339-0"),
    observation("vital", OBSERVATION, "vital-signs"),
    observation("survey", OBSERVATION, "survey", code="44250-9"),
    observation("sdoh", US_CORE, "sdoh", code="76513-1"),
    observation("social", OBSERVATION, "social-history", code="72166-2"),
    observation("clinical-test", OBSERVATION, "procedure", code="11524-6"),
)
"""Conditions and Observations by their category, which granular scopes are about."""


def chart() -> list[Json]:
    """One of each type that the certification asks for, all of Anna's."""
    anna = b.reference("Patient/anna")
    medicine = b.concept("http://www.nlm.nih.gov/research/umls/rxnorm", "1049221")
    procedure = b.concept("http://snomed.info/sct", "73761001")
    return [
        b.a_patient("anna", family="Adler", gender="female"),
        b.a_patient("ben", family="Berg"),
        b.a_patient("kit", family="Quill", birthDate="2022-02-03"),
        b.a_person("pa", links=["Patient/anna"]),
        b.a_person("pm", links=["RelatedPerson/mother"]),
        b.a_related_person("mother", of="kit"),
        b.a_grant("grant", of="kit", to="mother"),
        b.an_observation("of-kit", of="kit", category="laboratory"),
        b.resource("Organization", "clinic", name="Hillside Dermatology", active=True),
        b.resource("Location", "room", name="Room 1", status="active"),
        b.a_practitioner("doc"),
        b.resource(
            "PractitionerRole",
            "role",
            practitioner=b.reference("Practitioner/doc"),
            organization=b.reference("Organization/clinic"),
        ),
        b.resource("Medication", "medicine", code=medicine),
        b.resource(
            "AllergyIntolerance",
            "allergy",
            patient=anna,
            code=procedure,
            clinicalStatus=b.concept(
                "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active"
            ),
        ),
        b.resource(
            "CarePlan",
            "plan",
            status="active",
            intent="plan",
            subject=anna,
            category=[
                b.concept("http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "assess-plan")
            ],
        ),
        b.resource(
            "CareTeam",
            "team",
            status="active",
            subject=anna,
            participant=[{"member": b.reference("PractitionerRole/role")}],
        ),
        b.resource(
            "Coverage",
            "coverage",
            status="active",
            beneficiary=anna,
            payor=[b.reference("Organization/clinic")],
        ),
        b.resource("Device", "device", patient=anna, status="active"),
        b.resource(
            "DiagnosticReport",
            "report",
            status="final",
            subject=anna,
            code=b.concept("http://loinc.org", "58410-2"),
            category=[b.concept("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB")],
        ),
        b.a_document("note", of="anna", note=True),
        b.an_encounter(
            "visit",
            of="anna",
            location=[{"location": b.reference("Location/room")}],
            participant=[{"individual": b.reference("Practitioner/doc")}],
            serviceProvider=b.reference("Organization/clinic"),
        ),
        b.resource(
            "Goal", "goal", lifecycleStatus="active", description={"text": "walk"}, subject=anna
        ),
        b.resource(
            "Immunization",
            "shot",
            status="completed",
            vaccineCode=b.concept("http://hl7.org/fhir/sid/cvx", "207"),
            patient=anna,
            occurrenceDateTime="2029-03-01",
        ),
        b.resource(
            "MedicationRequest",
            "order",
            status="active",
            intent="order",
            medicationReference=b.reference("Medication/medicine"),
            subject=anna,
            requester=b.reference("Practitioner/doc"),
        ),
        b.resource(
            "MedicationDispense",
            "dispense",
            status="completed",
            medicationCodeableConcept=medicine,
            subject=anna,
        ),
        b.resource(
            "Procedure",
            "procedure",
            status="completed",
            code=procedure,
            subject=anna,
            performedDateTime="2029-03-01",
        ),
        b.some_answers("answers", of="anna", source="Patient/anna"),
        b.a_related_person("neighbour", of="anna", relationship="neighbour"),
        b.resource(
            "ServiceRequest",
            "referral",
            status="active",
            intent="order",
            code=procedure,
            subject=anna,
        ),
        b.resource("Specimen", "specimen", subject=anna, status="available"),
        *CATEGORIES,
        b.an_observation("bens", of="ben", category="laboratory"),
        b.a_provenance("provenance", about=["Observation/lab", "Condition/problem"]),
    ]


# --- the server ----------------------------------------------------------------------------------


class Whole:
    """The application over a store of its own. `begin` opens it, `close` ends it."""

    app: Application

    def __init__(self, folder: Path, base: str = BASE) -> None:
        self.base = base
        self.folder = folder
        self.secrets: dict[str, str] = {}
        self.clock = Clock()
        self.random = random.Random(7).randbytes

    @classmethod
    async def begin(cls, folder: Path, *, of: Path, base: str = BASE, **settings: Any) -> Self:
        """Open the server over a copy of what `prepare` has put into the folder ``of``."""
        shutil.copytree(of, folder, dirs_exist_ok=True)
        whole = cls(folder, base)
        whole.secrets = json.loads((folder / "secrets.json").read_text("utf-8"))
        await whole.open(**settings)
        return whole

    async def open(self, **settings: Any) -> None:
        given = load(
            base_url=self.base,
            data=self.folder / "portal.db",
            secret_key_file=self.folder / "secret",
            **settings,
        )
        self.app = Application(given, clock=self.clock, pause=_never)
        await self.app.open()

    async def close(self) -> None:
        await self.app.close()

    @property
    def fhir(self) -> str:
        """The FHIR base, as somebody types it into a test tool."""
        return f"{self.base}/fhir"

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client without cookies of anybody else."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=self.base, **options
        )

    def browser(self) -> Browser:
        return Browser(self, self.http())  # type: ignore[arg-type] # it keeps its world, no more


async def _never(_: float) -> None:
    """Housekeeping waits for longer than a test takes."""
    await asyncio.Event().wait()


async def prepare(folder: Path) -> None:
    """Make the store with the chart, the people and the clients, and keep the clients' secrets."""
    whole = Whole(folder)
    await whole.open()
    store = whole.app.store

    async def keep(transaction: Any) -> None:
        await transaction.insert(Practice(key=DERM, name="Hillside Dermatology"))

    await store.transact(keep)
    requests = [("PUT", f"{one['resourceType']}/{one['id']}", one) for one in chart()]
    body = msgspec.json.encode(b.a_bundle("transaction", *requests))
    await whole.app.portal.perform(FhirRequest("bundle", body=body), b.an_ehr(DERM))
    for username, persons in (
        (ANNA, (f"{DERM}/Person/pa",)),
        (MOTHER, (f"{DERM}/Person/pm",)),
        (DOCTOR, ()),
    ):
        account = await add_account(
            store,
            username=username,
            password_hash=password_hash(),
            now=whole.clock(),
            random=whole.random,
            persons=persons,
        )
    await store.transact(
        lambda transaction: add_staff(
            transaction,
            account=account.key,
            practice=DERM,
            practitioner="Practitioner/doc",
            now=whole.clock(),
            by=OPERATOR,
        )
    )
    secrets = await _add_clients(whole)
    (folder / "secrets.json").write_text(json.dumps(secrets), "utf-8")
    await whole.close()


async def _add_clients(whole: Whole) -> dict[str, str]:
    """Register Inferno as each kind of client."""
    secrets = {}
    of_people: dict[str, Any] = {"redirect_uris": [REDIRECT], "scope": ASKED_BY_APPS}
    keys = {"auth_method": "private_key_jwt", "jwks": public_jwks()}
    of_a_practice: dict[str, Any] = {"scope": "system/*.rs", "practice": DERM, "jwks": keys["jwks"]}
    of_staff: dict[str, Any] = {
        "redirect_uris": [REDIRECT],
        "approved_at": [DERM],
        "metadata": {INITIATE_LOGIN: LAUNCH},
    }
    for client_id, kind, options in (
        (PUBLIC, "public", of_people),
        (SYMMETRIC, "confidential", of_people),
        (ASYMMETRIC, "confidential", {**of_people, **keys}),
        (BULK, "backend", of_a_practice),
        (EHR, "backend", {**of_a_practice, "permissions": ["launch"]}),
        (CHART_APP, "confidential", {**of_staff, "scope": f"{ASKED_BY_STAFF} user/*.rs"}),
        (
            CHART_APP_OF_PATIENT,
            "confidential",
            {**of_staff, "scope": f"{ASKED_BY_STAFF} patient/*.rs"},
        ),
    ):
        added = await add_client(
            whole.app.store,
            client_id=client_id,
            name="Inferno",
            type=kind,  # type: ignore[arg-type] # one of the literals
            now=whole.clock(),
            random=whole.random,
            **options,
        )
        if added.secret is not None:
            secrets[client_id] = added.secret
    return secrets


async def sign_in(browser: Browser, username: str = ANNA) -> httpx.Response:
    return await browser.sign_in(username, PASSWORD)


def ids(bundle: Json) -> list[str]:
    """``Type/id`` of each match of a searchset."""
    return [
        f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        for entry in bundle.get("entry", ())
        if entry["search"]["mode"] == "match"
    ]


def of_categories(wanted: Sequence[tuple[str, str]], resource_type: str) -> set[str]:
    """What of `CATEGORIES` has one of these categories."""
    return {
        f"{one['resourceType']}/{one['id']}"
        for one in CATEGORIES
        if one["resourceType"] == resource_type
        for coding in one["category"][0]["coding"]
        if (coding["system"], coding["code"]) in wanted
    }
