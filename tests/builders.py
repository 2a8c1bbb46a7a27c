"""Valid defaults, so that a test states only what matters.

``a_…`` and ``an_…`` give resource JSON or values; `Caller` drives a portal as somebody.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.practice import Practice
from fhir_portal.billing.provider import PaymentProvider
from fhir_portal.consent.record import RecordAccess
from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from fhir_portal.fhir.errors import FhirError
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, interaction_at
from fhir_portal.fhir.outcome import outcome
from fhir_portal.portal import Portal
from fhir_portal.records import Record, RecordStore
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import Client
from fhir_portal.smart.keys import derive
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import AccessToken, token_hash

BASE = "http://127.0.0.1:8000/fhir"
START = 1_900_000_000.0
DERM, FAMILY = "dermatology", "family-medicine"

OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
PORTAL_TAG = "https://fhir-portal.example/ig/CodeSystem/portal-tag"
NOTE = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"

Json = dict[str, Any]

WITHHELD: Json = {"tag": [{"system": PORTAL_TAG, "code": "withheld"}]}
DIRECTORY: Json = {"tag": [{"system": PORTAL_TAG, "code": "directory"}]}
RESTRICTED: Json = {"security": [{"system": CONFIDENTIALITY, "code": "R"}]}


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Ids:
    """Resource ids in a row, the same in every run."""

    def __init__(self, prefix: str = "new") -> None:
        self.prefix = prefix
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"{self.prefix}-{self.count}"


def a_portal(
    store: PortalStore,
    clock: Callable[[], float],
    *,
    ids: Ids | None = None,
    base: str = BASE,
    payments: PaymentProvider | None = None,
) -> Portal:
    return Portal.over(
        store,
        store.log,
        clock=clock,
        base=base,
        aliases=("http://localhost:8000/fhir",),
        derive=functools.partial(derive, b"0123456789abcdef" * 2),
        new_id=ids or Ids(),
        payments=payments,
        passwords=passwords(),
    )


@functools.cache
def passwords() -> Passwords:
    """One for all tests: it has threads of its own."""
    return Passwords()


# ---------------------------------------------------------------- resources


def reference(target: str) -> Json:
    return {"reference": target}


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def resource(resource_type: str, own_id: str | None, **elements: Any) -> Json:
    tree: Json = {"resourceType": resource_type}
    if own_id is not None:
        tree["id"] = own_id
    return tree | {name: value for name, value in elements.items() if value is not None}


def a_patient(own_id: str | None = "ada", *, family: str = "Quill", **more: Any) -> Json:
    return resource(
        "Patient",
        own_id,
        **{"name": [{"family": family, "given": ["Ada"]}], "birthDate": "1984-05-12"} | more,
    )


def an_observation(
    own_id: str | None = None,
    *,
    of: str = "ada",
    category: str | None = "vital-signs",
    code: str = "8867-4",
    value: float = 72,
    on: str = "2029-03-01",
    performer: str | None = None,
    **more: Any,
) -> Json:
    """``category`` is a code of the HL7 observation categories, ``None`` for none."""
    return resource(
        "Observation",
        own_id,
        **{
            "status": "final",
            "category": [concept(OBSERVATION_CATEGORY, category)] if category else None,
            "code": concept("http://loinc.org", code),
            "subject": reference(f"Patient/{of}"),
            "effectiveDateTime": on,
            "performer": [reference(performer)] if performer else None,
            "valueQuantity": {
                "value": value,
                "unit": "/min",
                "system": "http://unitsofmeasure.org",
                "code": "/min",
            },
        }
        | more,
    )


def a_condition(
    own_id: str | None = None, *, of: str = "ada", code: str = "38341003", **more: Any
) -> Json:
    return resource(
        "Condition",
        own_id,
        code=concept("http://snomed.info/sct", code),
        subject=reference(f"Patient/{of}"),
        **more,
    )


def an_encounter(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    return resource(
        "Encounter",
        own_id,
        **{
            "status": "finished",
            "class": {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
                "code": "AMB",
            },
            "subject": reference(f"Patient/{of}"),
        }
        | more,
    )


def an_appointment(own_id: str | None = None, *, of: Sequence[str] = ("ada",), **more: Any) -> Json:
    actors = [{"actor": reference(f"Patient/{one}"), "status": "accepted"} for one in of]
    given: Json = {
        "status": "booked",
        "start": "2030-04-01T09:00:00Z",
        "end": "2030-04-01T09:20:00Z",
        "participant": actors,
    }
    return resource("Appointment", own_id, **given | more)


def an_invoice(
    own_id: str | None = None, *, of: str = "ada", total: Any = 120, **more: Any
) -> Json:
    """A bill that waits for its money; ``total`` in dollars."""
    given: Json = {
        "status": "issued",
        "subject": reference(f"Patient/{of}"),
        "totalGross": {"value": total, "currency": "USD"},
    }
    return resource("Invoice", own_id, **given | more)


def a_billing_account(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    """An Account: what its bills add up to is nowhere in it."""
    given: Json = {"status": "active", "subject": [reference(f"Patient/{of}")]}
    return resource("Account", own_id, **given | more)


def a_payment(
    own_id: str | None = None, *, of: str = "bill", amount: Any = 20, **more: Any
) -> Json:
    """Money that the practice's EHR says was paid of an Invoice, in dollars."""
    given: Json = {
        "status": "active",
        "created": "2030-03-01",
        "request": reference(f"Invoice/{of}"),
        "payment": {"display": "cash"},
        "recipient": {"display": "the desk"},
        "amount": {"value": amount, "currency": "USD"},
    }
    return resource("PaymentNotice", own_id, **given | more)


def a_document(
    own_id: str | None = None,
    *,
    of: str = "ada",
    binary: str | None = None,
    note: bool = False,
    **more: Any,
) -> Json:
    attachment = {"contentType": "application/pdf", "url": f"Binary/{binary}"}
    if binary is None:
        attachment = {"contentType": "text/plain", "data": "bm90aGluZw=="}
    return resource(
        "DocumentReference",
        own_id,
        **{
            "status": "current",
            "category": [concept(NOTE, "clinical-note")] if note else None,
            "subject": reference(f"Patient/{of}"),
            "content": [{"attachment": attachment}],
        }
        | more,
    )


def a_binary(own_id: str | None = None, *, content: str = "JVBERi0x", **more: Any) -> Json:
    return resource("Binary", own_id, contentType="application/pdf", data=content, **more)


def a_provenance(own_id: str | None = None, *, about: Sequence[str], **more: Any) -> Json:
    return resource(
        "Provenance",
        own_id,
        target=[reference(target) for target in about],
        recorded="2029-03-01T10:00:00Z",
        agent=[{"who": {"display": "the practice"}}],
        **more,
    )


def a_communication(
    own_id: str | None = None, *, of: str = "ada", sender: str | None = "Patient/ada", **more: Any
) -> Json:
    return resource(
        "Communication",
        own_id,
        status="completed",
        subject=reference(f"Patient/{of}"),
        sender=reference(sender) if sender else None,
        **{"payload": [{"contentString": "hello"}]} | more,
    )


def some_answers(
    own_id: str | None = None, *, of: str = "ada", source: str = "Patient/ada", **more: Any
) -> Json:
    return resource(
        "QuestionnaireResponse",
        own_id,
        **{
            "status": "completed",
            "questionnaire": "http://forms.example/Questionnaire/sleep",
            "subject": reference(f"Patient/{of}"),
            "source": reference(source),
        }
        | more,
    )


def a_task(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    return resource(
        "Task",
        own_id,
        **{"status": "requested", "intent": "order", "for": reference(f"Patient/{of}")} | more,
    )


def a_practitioner(own_id: str | None = None, *, family: str = "Lark", **more: Any) -> Json:
    return resource("Practitioner", own_id, name=[{"family": family}], **more)


def a_related_person(
    own_id: str | None = None, *, of: str = "kit", relationship: str = "mother", **more: Any
) -> Json:
    return resource(
        "RelatedPerson",
        own_id,
        patient=reference(f"Patient/{of}"),
        relationship=[{"text": relationship}],
        **more,
    )


def a_person(
    own_id: str | None = None,
    *,
    links: Sequence[str],
    assurance: str | None = "level3",
    **more: Any,
) -> Json:
    return resource(
        "Person",
        own_id,
        link=[
            {"target": reference(link)} | ({"assurance": assurance} if assurance else {})
            for link in links
        ],
        **more,
    )


def a_grant(
    own_id: str | None = "grant",
    *,
    of: str = "kit",
    to: str = "mother",
    sections: Sequence[str] = ("results",),
    act: Sequence[str] = (),
    start: str = "2020-01-01",
    end: str | None = "2040-01-01",
    **more: Any,
) -> Json:
    """A Consent that keeps to the proxy-grant profile. ``to`` is the RelatedPerson's id."""
    action = "http://terminology.hl7.org/CodeSystem/consentaction"
    return resource(
        "Consent",
        own_id,
        **{
            "status": "active",
            "scope": concept(
                "http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"
            ),
            "category": [
                concept("https://fhir-portal.example/ig/CodeSystem/consent-category", "proxy-grant")
            ],
            "patient": reference(f"Patient/{of}"),
            "dateTime": "2026-01-12T09:30:00Z",
            "performer": [reference(f"Patient/{of}")],
            "policyRule": concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT"),
            "provision": {
                "period": {"start": start} | ({"end": end} if end else {}),
                "actor": [
                    {
                        "role": concept(
                            "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "GRANTEE"
                        ),
                        "reference": reference(f"RelatedPerson/{to}"),
                    }
                ],
                "provision": [
                    {
                        "type": "permit",
                        "action": [concept(action, "access")]
                        + ([concept(action, "correct")] if section in act else []),
                        "code": [concept(SECTION_SYSTEM, section)],
                    }
                    for section in sections
                ],
            },
        }
        | more,
    )


def a_bundle(kind: str, *requests: tuple[str, str] | tuple[str, str, Json], **first: Any) -> Json:
    """``requests`` are (method, url) or (method, url, resource)."""
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {"request": {"method": one[0], "url": one[1]}}
            | ({"resource": one[2]} if len(one) == 3 else {})
            for one in requests
        ],
    } | first


# ---------------------------------------------------------------- callers


def an_ehr(practice: str = DERM, *permissions: str, scope: str = "system/*.cruds") -> AuthContext:
    """A backend client of one practice that may label and write grants, unless told otherwise."""
    return AuthContext(
        client=f"ehr-of-{practice}",
        context="system",
        scopes=ScopeSet.parse(scope),
        practice=practice,
        expires=START + 1e8,
        token="",
        permissions=frozenset(permissions or ("label", "grant-writing")) - {"none"},
    )


def oneself(
    patient: str = "ada",
    practice: str = DERM,
    *,
    scope: str = "openid fhirUser patient/*.cruds",
) -> AuthContext:
    """A person with a token for their own record."""
    record = RecordAccess(
        patient=f"Patient/{patient}",
        practice=practice,
        practice_name=practice,
        patient_name=patient,
        birth_date=None,
        relation="self",
        fhir_user=f"Patient/{patient}",
        grant=None,
        sections=None,
        act=frozenset(section_displays()),
        until=None,
    )
    return AuthContext(
        client="app",
        context="patient",
        scopes=ScopeSet.parse(scope),
        practice=practice,
        expires=START + 1e8,
        token="",
        record=record,
        account=f"account-of-{patient}",
    )


def a_proxy(
    patient: str = "kit",
    related_person: str = "mother",
    practice: str = DERM,
    *,
    sections: Sequence[str] = ("results",),
    act: Sequence[str] = (),
    grant: str = "grant",
    until: float | None = None,
    scope: str = "openid fhirUser patient/*.cruds",
) -> AuthContext:
    """A person with a token for somebody else's record, under a grant."""
    own = oneself(patient, practice, scope=scope)
    assert own.record is not None
    return replace(
        own,
        account=f"account-of-{related_person}",
        record=replace(
            own.record,
            relation=related_person,
            fhir_user=f"RelatedPerson/{related_person}",
            grant=f"Consent/{grant}",
            sections=frozenset(sections),
            act=frozenset(act),
            until=until,
        ),
    )


@dataclass(frozen=True)
class Answer:
    """What came back: always a status and bytes, refusals included."""

    status: int
    body: bytes
    response: FhirResponse | None = None

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def entries(self) -> list[Json]:
        return [entry.get("resource", {}) for entry in self.json.get("entry", ())]

    @property
    def ids(self) -> list[str]:
        """``Type/id`` of every entry, in order."""
        return [f"{one['resourceType']}/{one['id']}" for one in self.entries]

    @property
    def next(self) -> str | None:
        links = self.json.get("link", ())
        return next((link["url"] for link in links if link["relation"] == "next"), None)

    @property
    def words(self) -> list[str]:
        return [issue["diagnostics"] for issue in self.json["issue"]]


@dataclass(frozen=True)
class Caller:
    """Somebody at the front door: ``await as_ehr.put(a_patient())``."""

    portal: Portal
    auth: AuthContext

    def who(self, **changes: Any) -> Self:
        return replace(self, auth=replace(self.auth, **changes))

    def with_scope(self, scope: str) -> Self:
        return self.who(scopes=ScopeSet.parse(scope))

    async def ask(
        self, method: str, url: str, tree: Mapping[str, Any] | None = None, **headers: Any
    ) -> Answer:
        """``url`` is a path under the base, or a link the server gave."""
        parts = urlsplit(url.removeprefix(BASE).lstrip("/"))
        request = interaction_at(method, parts.path)
        assert request is not None, url
        return await self.perform(
            msgspec.structs.replace(
                request,
                query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
                body=b"" if tree is None else json.dumps(tree).encode(),
                **headers,
            )
        )

    async def perform(self, request: FhirRequest) -> Answer:
        try:
            response = await self.portal.perform(request, self.auth)
        except FhirError as error:
            return Answer(error.status, outcome(error.issues))
        return Answer(response.status, response.body, response)

    async def get(self, url: str, **headers: Any) -> Answer:
        return await self.ask("GET", url, **headers)

    async def put(self, tree: Mapping[str, Any], **headers: Any) -> Answer:
        url = f"{tree['resourceType']}/{tree['id']}"
        return await self.ask("PUT", url, tree, **headers)

    async def post(self, tree: Mapping[str, Any], **headers: Any) -> Answer:
        return await self.ask("POST", tree["resourceType"], tree, **headers)

    async def delete(self, url: str, **headers: Any) -> Answer:
        return await self.ask("DELETE", url, **headers)

    async def bundle(self, tree: Mapping[str, Any]) -> Answer:
        return await self.ask("POST", "", tree)

    async def store(self, *trees: Mapping[str, Any]) -> None:
        """Put resources that must be taken."""
        for tree in trees:
            answer = await self.put(tree)
            assert answer.status in {200, 201}, answer.body

    async def everything(self, url: str) -> list[str]:
        """``Type/id`` of every entry on every page."""
        found: list[str] = []
        following: str | None = url
        while following is not None:
            answer = await self.get(following)
            assert answer.status == 200, answer.body
            found += answer.ids
            following = answer.next
        return found


def assert_outcome(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["issue"][0]["code"]) == (status, code), answer.body


# ---------------------------------------------------------------- records outside FHIR


def a_practice(key: str = DERM, *, zone: str = "UTC") -> Practice:
    return Practice(key=key, name=key.replace("-", " ").title(), zone=zone)


def an_account(key: str, *persons: str, **more: Any) -> Account:
    """``persons`` are ``<practice>/Person/<id>``."""
    return Account(key=key, username=key, created=START, persons=persons, **more)


def a_client(key: str = "app", **more: Any) -> Client:
    given: Json = {
        "name": key,
        "type": "public",
        "auth_method": "none",
        "scope": "patient/*.cruds",
        "registered": START,
    }
    return Client(key=key, **given | more)


def bearer_of(name: str) -> str:
    """The bearer token that `an_access_token` of this name stands for."""
    return f"{name}-bearer-token-{'x' * 20}"


def an_access_token(name: str, auth: AuthContext, *, expires: float = START + 1e8) -> AccessToken:
    """The stored token under which ``auth`` comes in."""
    return AccessToken(
        key=token_hash(bearer_of(name)),
        expires=expires,
        issued=START,
        client_id=auth.client,
        context=auth.context,
        scope=str(auth.scopes),
        practice=auth.practice,
        family="family" if auth.account else "",
        patient=auth.record.patient if auth.record else None,
        fhir_user=auth.fhir_user,
        account=auth.account,
        grant=auth.record.grant if auth.record else None,
    )


async def keep(store: RecordStore, *records: Record) -> None:
    """Put records into a store."""

    async def work(transaction: Any) -> None:
        for record in records:
            await transaction.put(record)

    await store.transact(work)


def changed(record: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(record, **changes)
