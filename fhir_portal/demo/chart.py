"""A practice's chart, written down resource by resource.

Every date is counted from the day the world is built, every value follows from its id: the same
day gives the same world.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fhir_portal.accounts.practice_contact import COMMENT
from fhir_portal.consent.grant import CATEGORY as GRANT_CATEGORY
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import PORTAL_TAG, WITHHELD
from fhir_portal.consent.sections import SECTION_SYSTEM
from fhir_portal.demo import codes
from fhir_portal.demo.codes import Code, Json, Test, coding, concept
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.operations.message_thread import (
    ANSWER_BY,
    LAST_MESSAGE,
    TOPIC,
    category_of_message,
    category_of_thread,
)
from fhir_portal.resources.forms.request import FORM_TASK
from fhir_portal.resources.proposal import SYSTEM as PROPOSED

_PROFILE: Final = f"{IG}/StructureDefinition/proxy-grant"
_DIRECTORY: Final = {"tag": [{"system": PORTAL_TAG, "code": "directory"}]}
_INTERPRETATION: Final = f"{codes.TERMINOLOGY}/v3-ObservationInterpretation"
_CLINICAL: Final = f"{codes.TERMINOLOGY}/condition-clinical"
_VERIFIED: Final = f"{codes.TERMINOLOGY}/condition-ver-status"

_WEEKS_OPEN: Final = 4
_WEEKEND: Final = (5, 6)


def reference(to: str, display: str | None = None) -> Json:
    """A Reference to a resource of this server."""
    return {"reference": to} | ({"display": display} if display else {})


def stray(name: str) -> float:
    """A number from -1 to 1 that follows from a name."""
    return zlib.crc32(name.encode()) / 2**31 - 1


@dataclass(slots=True)
class Chart:
    """The resources of one practice, in the order they are written."""

    practice: str
    name: str
    zone: str
    day: date
    resources: list[Json] = field(default_factory=list)

    # --- time ----------------------------------------------------------------------------------

    def on(self, days: int) -> str:
        """The date so many days after the day of building (negative: before)."""
        return (self.day + timedelta(days)).isoformat()

    def at(self, days: int, hour: int = 9, minute: int = 0) -> str:
        """An instant on such a day, in the practice's zone."""
        moment = datetime.combine(
            self.day + timedelta(days), time(hour, minute), ZoneInfo(self.zone)
        )
        return moment.isoformat()

    def years_ago(self, years: int, days: int = 0) -> str:
        """A date of birth: so many years and days before the day of building."""
        return _years_before(self.day, years, days).isoformat()

    # --- writing down --------------------------------------------------------------------------

    def add(self, kind: str, own_id: str, /, **elements: object) -> str:
        """Write a resource down and return its reference; ``None`` is no element."""
        given = {name.rstrip("_"): value for name, value in elements.items() if value is not None}
        self.resources.append({"resourceType": kind, "id": own_id, **given})
        return f"{kind}/{own_id}"

    def organization(self, own_id: str, name: str, kind: str, *, listed: bool) -> str:
        """An organization; the directory lists the practice itself, not those it works with."""
        system = f"{codes.TERMINOLOGY}/organization-type"
        words = {"prov": "Healthcare Provider", "pay": "Payer", "other": "Other"}
        return self.add(
            "Organization",
            own_id,
            meta=_DIRECTORY if listed else None,
            active=True,
            type=[concept(Code(system, kind, words[kind]))],
            name=name,
            telecom=_phone(own_id),
        )

    def support_line(self, name: str) -> str:
        """Whom people call about the portal, and when somebody answers."""
        telephone, text_telephone = _phone(name), _phone(f"{name} for text")
        words = "Text telephone (TTY)"
        return self.add(
            "HealthcareService",
            f"{self.practice}-help",
            meta=_DIRECTORY,
            active=True,
            providedBy=reference(f"Organization/{self.practice}", self.name),
            name=name,
            telecom=[
                *telephone,
                *(
                    {**one, "extension": [{"url": COMMENT, "valueString": words}]}
                    for one in text_telephone
                ),
            ],
            availableTime=[
                {
                    "daysOfWeek": ["mon", "tue", "wed", "thu", "fri"],
                    "availableStartTime": "08:00:00",
                    "availableEndTime": "17:30:00",
                }
            ],
            notAvailable=[{"description": "Public holidays"}],
        )

    def location(self, own_id: str, name: str, line: str) -> str:
        """Where the practice sees people."""
        return self.add(
            "Location",
            own_id,
            meta=_DIRECTORY,
            status="active",
            name=name,
            telecom=_phone(own_id),
            address=_address(line),
            managingOrganization=reference(f"Organization/{self.practice}", self.name),
        )

    def practitioner(
        self, own_id: str, given: str, family: str, role: Code, *, listed: bool = True
    ) -> str:
        """Somebody who works here, with the role they have; listed in the directory or not."""
        meta = _DIRECTORY if listed else None
        who = self.add(
            "Practitioner",
            own_id,
            meta=meta,
            identifier=[
                {"system": f"https://{self.practice}.example/staff", "value": own_id.upper()}
            ],
            active=listed,
            name=[{"use": "official", "family": family, "given": [given]}],
        )
        self.add(
            "PractitionerRole",
            own_id,
            meta=meta,
            active=listed,
            practitioner=reference(who, f"{given} {family}"),
            organization=reference(f"Organization/{self.practice}", self.name),
            code=[concept(role)],
            location=[reference(f"Location/{self.practice}")],
            telecom=_phone(own_id),
        )
        return who

    def patient(
        self, own_id: str, given: str, family: str, gender: str, born: str, line: str
    ) -> str:
        """A patient of the practice."""
        return self.add(
            "Patient",
            own_id,
            identifier=[
                {
                    "use": "usual",
                    "type": concept(
                        Code(f"{codes.TERMINOLOGY}/v2-0203", "MR", "Medical record number")
                    ),
                    "system": f"https://{self.practice}.example/mrn",
                    "value": f"{zlib.crc32(own_id.encode()) % 10**7:07}",
                }
            ],
            active=True,
            name=[{"use": "official", "family": family, "given": [given]}],
            telecom=_phone(own_id),
            gender=gender,
            birthDate=born,
            address=[_address(line)],
            communication=[
                {
                    "language": concept(Code("urn:ietf:bcp:47", "en", "English")),
                    "preferred": True,
                }
            ],
            managingOrganization=reference(f"Organization/{self.practice}", self.name),
        )

    def related_person(
        self, own_id: str, patient: str, given: str, family: str, relation: Code
    ) -> str:
        """Somebody who may come to act for a patient, seen from that patient's record."""
        return self.add(
            "RelatedPerson",
            own_id,
            active=True,
            patient=reference(patient),
            relationship=[concept(relation)],
            name=[{"use": "official", "family": family, "given": [given]}],
            telecom=_phone(own_id),
        )

    def person(self, own_id: str, given: str, family: str, *links: str) -> str:
        """A human as this practice knows them: their own record and those they stand in for."""
        return self.add(
            "Person",
            own_id,
            name=[{"use": "official", "family": family, "given": [given]}],
            managingOrganization=reference(f"Organization/{self.practice}", self.name),
            active=True,
            link=[{"target": reference(link), "assurance": "level3"} for link in links],
        )

    def grant(
        self,
        own_id: str,
        patient: str,
        related_person: str,
        sections: Iterable[str],
        *,
        act: Iterable[str] = (),
        start: int,
        end: str | None,
        by: str,
        evidence: str | None = None,
    ) -> Json:
        """A proxy grant of the ``proxy-grant`` profile, active."""
        acting = set(act)
        access = Code(f"{codes.TERMINOLOGY}/consentaction", "access", "Access")
        correct = Code(f"{codes.TERMINOLOGY}/consentaction", "correct", "Correct")
        self.add(
            "Consent",
            own_id,
            meta={"profile": [_PROFILE]},
            status="active",
            scope=_plain(f"{codes.TERMINOLOGY}/consentscope", "patient-privacy"),
            category=[_plain(*GRANT_CATEGORY)],
            patient=reference(patient),
            dateTime=self.at(start, 10, 30),
            performer=[reference(by)],
            sourceReference=reference(evidence) if evidence else None,
            policyRule=_plain(codes.ACT_CODE, "OPTOUT"),
            provision={
                "period": {"start": self.on(start)} | ({"end": end} if end else {}),
                "actor": [
                    {
                        "role": _plain(codes.ROLE_CODE, "GRANTEE"),
                        "reference": reference(related_person),
                    }
                ],
                "provision": [
                    {
                        "type": "permit",
                        "action": [
                            _plain(action.system, action.code)
                            for action in ((access, correct) if one in acting else (access,))
                        ],
                        "code": [_plain(SECTION_SYSTEM, one)],
                    }
                    for one in sections
                ],
            },
        )
        return self.resources[-1]

    def visit(
        self,
        own_id: str,
        patient: str,
        days: int,
        kind: Code,
        reason: Code,
        who: str,
        note: str,
        *,
        hour: int = 9,
        security: Sequence[Code] = (),
        appointment: str | None = None,
    ) -> str:
        """A visit with its note, and where the note came from; labels are the Encounter's alone."""
        encounter = self.add(
            "Encounter",
            own_id,
            meta=_labels(security),
            status="finished",
            class_=coding(codes.AMBULATORY),
            type=[concept(kind)],
            subject=reference(patient),
            participant=[{"individual": reference(who)}],
            period={"start": self.at(days, hour), "end": self.at(days, hour, 25)},
            reasonCode=[concept(reason)],
            location=[{"location": reference(f"Location/{self.practice}")}],
            serviceProvider=reference(f"Organization/{self.practice}", self.name),
            appointment=[reference(appointment)] if appointment else None,
        )
        self.document(
            f"{own_id}-note",
            patient,
            days,
            codes.PROGRESS_NOTE,
            f"Visit note: {reason.display}",
            note,
            who,
            encounter=encounter,
        )
        return encounter

    def document(
        self,
        own_id: str,
        patient: str,
        days: int,
        kind: Code,
        title: str,
        text: str,
        who: str,
        *,
        encounter: str | None = None,
    ) -> str:
        """A document, its content and its Provenance. Notes about a visit name the visit."""
        data = f"{title}\n{self.name}, {self.on(days)}\n\n{text}\n".encode()
        binary = self.add(
            "Binary",
            own_id,
            contentType="text/plain; charset=utf-8",
            data=base64.b64encode(data).decode(),
        )
        document = self.add(
            "DocumentReference",
            own_id,
            status="current",
            docStatus="final",
            type=concept(kind),
            category=[concept(codes.CLINICAL_NOTE)] if encounter else None,
            subject=reference(patient),
            date=self.at(days, 12),
            author=[reference(who)],
            custodian=reference(f"Organization/{self.practice}", self.name),
            description=title,
            content=[
                {
                    "attachment": {
                        "contentType": "text/plain; charset=utf-8",
                        "language": "en",
                        "url": binary,
                        "size": len(data),
                        "title": title,
                        "creation": self.at(days, 12),
                    }
                }
            ],
            context={"encounter": [reference(encounter)]} if encounter else None,
        )
        self.add(
            "Provenance",
            own_id,
            target=[reference(document)],
            recorded=self.at(days, 12, 1),
            activity=concept(Code(f"{codes.TERMINOLOGY}/v3-DataOperation", "CREATE", "create")),
            agent=[
                {
                    "type": concept(
                        Code(f"{codes.TERMINOLOGY}/provenance-participant-type", "author", "Author")
                    ),
                    "who": reference(who),
                    "onBehalfOf": reference(f"Organization/{self.practice}", self.name),
                }
            ],
        )
        return document

    def measured(
        self,
        own_id: str,
        patient: str,
        test: Test,
        days: int,
        category: Code,
        *,
        encounter: str | None = None,
        performer: str | None = None,
        value: float | None = None,
        withheld: bool = False,
    ) -> str:
        """One measured value; without ``value`` one near the usual."""
        number = test.usual + test.spread * stray(own_id) if value is None else value
        return self.add(
            "Observation",
            own_id,
            meta={"tag": [{"system": PORTAL_TAG, "code": WITHHELD}]} if withheld else None,
            status="final",
            category=[concept(category)],
            code=concept(Code(codes.LOINC, test.code, test.name)),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            effectiveDateTime=self.at(days, 8 if category is codes.LABORATORY else 9, 10),
            issued=self.at(days, 16 if category is codes.LABORATORY else 9, 20),
            performer=[reference(performer)] if performer else None,
            **_value(test, number),
        )

    def vitals(
        self,
        own_id: str,
        patient: str,
        days: int,
        encounter: str,
        who: str,
        tests: Sequence[Test] = codes.VITALS,
        pressures: Sequence[Test] = codes.PRESSURES,
    ) -> list[str]:
        """What is measured at each visit: heart and breath, temperature, weight, blood pressure."""
        found = [
            self.measured(
                f"{own_id}-{test.code}",
                patient,
                test,
                days,
                codes.VITAL_SIGNS,
                encounter=encounter,
                performer=who,
            )
            for test in tests
        ]
        components = []
        for test in pressures:
            number = test.usual + test.spread * stray(f"{own_id}-{test.code}")
            component = _value(test, number)
            component.pop("referenceRange", None)
            components.append(
                {"code": concept(Code(codes.LOINC, test.code, test.name)), **component}
            )
        pressure = self.add(
            "Observation",
            f"{own_id}-85354-9",
            status="final",
            category=[concept(codes.VITAL_SIGNS)],
            code=concept(codes.BLOOD_PRESSURE, text="Blood pressure"),
            subject=reference(patient),
            encounter=reference(encounter),
            effectiveDateTime=self.at(days, 9, 10),
            issued=self.at(days, 9, 20),
            performer=[reference(who)],
            component=components,
        )
        return [*found, pressure]

    def report(
        self,
        own_id: str,
        patient: str,
        panel: Code,
        tests: Sequence[Test],
        days: int,
        laboratory: str,
    ) -> str:
        """A laboratory report and its results."""
        results = [
            self.measured(
                f"{own_id}-{test.code}",
                patient,
                test,
                days,
                codes.LABORATORY,
                performer=laboratory,
            )
            for test in tests
        ]
        return self.add(
            "DiagnosticReport",
            own_id,
            status="final",
            category=[concept(codes.LAB_REPORT)],
            code=concept(panel),
            subject=reference(patient),
            effectiveDateTime=self.at(days, 8, 10),
            issued=self.at(days, 16),
            performer=[reference(laboratory)],
            result=[reference(result) for result in results],
        )

    def answered(
        self, own_id: str, patient: str, question: Code, category: Code, days: int, answer: Json
    ) -> str:
        """An answer of the patient that is kept as an Observation."""
        return self.add(
            "Observation",
            own_id,
            status="final",
            category=[concept(category)],
            code=concept(question),
            subject=reference(patient),
            effectiveDateTime=self.at(days, 9, 5),
            performer=[reference(patient)],
            **answer,
        )

    def condition(
        self,
        own_id: str,
        patient: str,
        problem: Sequence[Code],
        since: int,
        *,
        ended: int | None = None,
        encounter: str | None = None,
    ) -> str:
        """A health problem, active or over."""
        state = "active" if ended is None else "resolved"
        return self.add(
            "Condition",
            own_id,
            clinicalStatus=_plain(_CLINICAL, state),
            verificationStatus=_plain(_VERIFIED, "confirmed"),
            category=[
                concept(
                    Code(
                        f"{codes.TERMINOLOGY}/condition-category",
                        "problem-list-item",
                        "Problem List Item",
                    )
                )
            ],
            code=concept(*problem),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            onsetDateTime=self.on(since),
            abatementDateTime=self.on(ended) if ended is not None else None,
            recordedDate=self.on(since),
        )

    def allergy(self, own_id: str, patient: str, substance: Code, reaction: str, days: int) -> str:
        """An allergy."""
        system = f"{codes.TERMINOLOGY}/allergyintolerance"
        return self.add(
            "AllergyIntolerance",
            own_id,
            clinicalStatus=_plain(f"{system}-clinical", "active"),
            verificationStatus=_plain(f"{system}-verification", "confirmed"),
            type="allergy",
            code=concept(substance),
            patient=reference(patient),
            recordedDate=self.on(days),
            reaction=[{"manifestation": [{"text": reaction}], "severity": "moderate"}],
        )

    def prescription(
        self,
        own_id: str,
        patient: str,
        medicine: Code | str,
        dose: str,
        days: int,
        who: str,
        *,
        stopped: bool = False,
        encounter: str | None = None,
    ) -> str:
        """A prescription of a coded medicine, or of a Medication by reference."""
        coded = (
            {"medicationCodeableConcept": concept(medicine)} if isinstance(medicine, Code) else {}
        )
        return self.add(
            "MedicationRequest",
            own_id,
            status="stopped" if stopped else "active",
            intent="order",
            **(coded or {"medicationReference": reference(str(medicine))}),
            subject=reference(patient),
            encounter=reference(encounter) if encounter else None,
            authoredOn=self.at(days, 9, 20),
            requester=reference(who),
            dosageInstruction=[{"text": dose}],
        )

    def vaccine(self, own_id: str, patient: str, vaccine: Code, days: int, who: str) -> str:
        """A vaccine that was given."""
        return self.add(
            "Immunization",
            own_id,
            status="completed",
            vaccineCode=concept(vaccine),
            patient=reference(patient),
            occurrenceDateTime=self.on(days),
            primarySource=True,
            lotNumber=f"LOT{zlib.crc32(own_id.encode()) % 10**5:05}",
            performer=[{"actor": reference(who)}],
        )

    def appointment(
        self, own_id: str, patient: str, days: int, hour: int, words: str, who: str, status: str
    ) -> str:
        """An appointment of a patient with somebody at the practice."""
        participants = (patient, who, f"Location/{self.practice}")
        return self.add(
            "Appointment",
            own_id,
            status=status,
            serviceType=[{"text": words}],
            description=words,
            start=self.at(days, hour),
            end=self.at(days, hour, 30),
            minutesDuration=30,
            created=self.at(min(days, 0) - 14, 11),
            participant=[
                {"actor": reference(one), "required": "required", "status": "accepted"}
                for one in participants
            ],
        )

    def open_times(
        self, own_id: str, who: str, name: str, service: Code, *, hours: Sequence[int]
    ) -> None:
        """Free times of somebody here on the working days of the weeks to come."""
        schedule = self.add(
            "Schedule",
            own_id,
            active=True,
            serviceType=[concept(service)],
            actor=[reference(who, name), reference(f"Location/{self.practice}", self.name)],
        )
        coming = range(1, _WEEKS_OPEN * 7 + 1)
        working = [n for n in coming if (self.day + timedelta(n)).weekday() not in _WEEKEND]
        for number, days in enumerate(working, 1):
            for hour in hours:
                self.add(
                    "Slot",
                    f"{own_id}-{number}-{hour}",
                    schedule=reference(schedule),
                    status="free",
                    start=self.at(days, hour),
                    end=self.at(days, hour, 30),
                )

    def conversation(
        self,
        own_id: str,
        patient: str,
        subject: str,
        topic: tuple[str, str],
        *messages: tuple[str, str, str, int, int, str],
    ) -> str:
        """A thread and its messages: of each the id, sender, recipient, day, hour and words.

        It waits for an answer if the practice did not write last. ``topic`` is a code and its name.
        """
        _, begun_by, answering, *_ = messages[0]
        _, last_by, _, days, hour, _ = messages[-1]
        waits = last_by.startswith(("Patient/", "RelatedPerson/"))
        last = self.at(days, hour, 12)
        extensions = [{"url": LAST_MESSAGE, "valueInstant": last}]
        if waits:
            due = self.at(days + 2, hour, 12)
            extensions.append({"url": ANSWER_BY, "valueDateTime": due})
        about = {
            "coding": [{"system": TOPIC, "code": topic[0], "display": topic[1]}],
            "text": topic[1],
        }
        thread = self.add(
            "Communication",
            own_id,
            extension=extensions,
            status="in-progress" if waits else "on-hold",
            category=category_of_thread(),
            topic=about,
            subject=reference(patient),
            sent=self.at(messages[0][3], messages[0][4], 12),
            recipient=[reference(answering)],
            sender=reference(begun_by),
            payload=[{"contentString": subject}],
        )
        before = None
        for message, sender, recipient, days, hour, text in messages:
            written = self.add(
                "Communication",
                message,
                partOf=[reference(thread)],
                inResponseTo=[reference(before)] if before else None,
                status="completed",
                category=category_of_message(),
                topic=about,
                subject=reference(patient),
                sent=self.at(days, hour, 12),
                recipient=[reference(recipient)],
                sender=reference(sender),
                payload=[{"contentString": text}],
            )
            before = written
        return thread

    def form(self, name: str) -> str:
        """One of the forms that come with the server."""
        tree = ig_resource("Questionnaire", name)
        return self.add(tree.pop("resourceType"), tree.pop("id"), **tree)

    def form_due(
        self, own_id: str, patient: str, questionnaire: str, canonical: str, title: str, days: int
    ) -> str:
        """A form that a patient, or who acts for them, is asked to fill in."""
        kind = concept(Code(FORM_TASK, "complete-questionnaire", "Fill in a form"))
        asked = concept(Code(FORM_TASK, "questionnaire", "Questionnaire"))
        return self.add(
            "Task",
            own_id,
            status="requested",
            intent="order",
            code=kind,
            description=title,
            for_=reference(patient),
            authoredOn=self.at(-3, 10),
            restriction={
                "repetitions": 1,
                "period": {"end": (self.day + timedelta(days)).isoformat()},
            },
            input=[
                {"type": asked, "valueCanonical": canonical},
                {"type": asked, "valueReference": reference(questionnaire)},
            ],
        )

    def proposed_number(self, own_id: str, patient: str, number: str) -> str:
        """Another telephone that a patient asks the practice to write down."""
        (there,) = [
            one for one in self.resources if f"{one['resourceType']}/{one['id']}" == patient
        ]
        old = [dict(one) for one in there.get("telecom", ())]
        new = [{**one, "value": number} if one.get("system") == "phone" else one for one in old]
        kind = concept(Code(PROPOSED, "propose-demographics", "Proposed personal details"))
        proposal = concept(Code(FORM_TASK, "proposal", "Proposal"))
        before = concept(Code(FORM_TASK, "before", "Before"))
        structures = f"{IG}/StructureDefinition"
        base = {"reference": f"{patient}/_history/1"}
        return self.add(
            "Task",
            own_id,
            contained=[
                {"resourceType": "Patient", "id": "p1", "telecom": new},
                {"resourceType": "Patient", "id": "b1", "telecom": old},
            ],
            status="requested",
            intent="proposal",
            code=kind,
            for_=reference(patient),
            authoredOn=self.at(-1, 19),
            requester=reference(patient),
            input=[
                {
                    "extension": [
                        {"url": f"{structures}/proposal-base", "valueReference": base},
                        {"url": f"{structures}/proposal-field", "valueString": "telecom"},
                    ],
                    "type": proposal,
                    "valueReference": {"reference": "#p1"},
                },
                {"type": before, "valueReference": {"reference": "#b1"}},
            ],
        )

    def coverage(self, own_id: str, patient: str, payor: str, since: int) -> str:
        """A health plan that covers a patient."""
        return self.add(
            "Coverage",
            own_id,
            status="active",
            type=concept(Code(codes.ACT_CODE, "EHCPOL", "extended healthcare")),
            subscriberId=f"S{zlib.crc32(own_id.encode()) % 10**8:08}",
            beneficiary=reference(patient),
            period={"start": self.on(since)},
            payor=[reference(payor)],
        )

    def bill(
        self, own_id: str, patient: str, days: int, words: str, amount: float, paid: str
    ) -> str:
        """A bill; ``paid`` is the status of the Invoice."""
        money = {"value": amount, "currency": "USD"}
        return self.add(
            "Invoice",
            own_id,
            status=paid,
            subject=reference(patient),
            date=self.at(days, 17),
            issuer=reference(f"Organization/{self.practice}", self.name),
            lineItem=[
                {
                    "sequence": 1,
                    "chargeItemCodeableConcept": {"text": words},
                    "priceComponent": [{"type": "base", "amount": money}],
                }
            ],
            totalGross=money,
        )

    def bill_for_visit(
        self, own_id: str, patient: str, days: int, words: str, amount: float, visit: str
    ) -> str:
        """A bill whose only line is a ChargeItem of a visit."""
        money = {"value": amount, "currency": "USD"}
        charge = self.add(
            "ChargeItem",
            own_id,
            status="billed",
            code={"text": words},
            subject=reference(patient),
            context=reference(visit),
            occurrenceDateTime=self.at(days, 17),
        )
        return self.add(
            "Invoice",
            own_id,
            status="balanced",
            subject=reference(patient),
            date=self.at(days, 18),
            issuer=reference(f"Organization/{self.practice}", self.name),
            lineItem=[
                {
                    "sequence": 1,
                    "chargeItemReference": reference(charge),
                    "priceComponent": [{"type": "base", "amount": money}],
                }
            ],
            totalGross=money,
        )


def _years_before(day: date, years: int, days: int) -> date:
    then = day - timedelta(days)
    try:
        return then.replace(year=then.year - years)
    except ValueError:  # 29 February
        return then.replace(year=then.year - years, day=28)


def _value(test: Test, number: float) -> Json:
    """The value with its interpretation and reference range."""
    value = round(number, test.digits) if test.digits else round(number)
    unit = {"system": codes.UCUM, "code": test.unit}
    found: Json = {"valueQuantity": {"value": value, "unit": test.unit, **unit}}
    bounds = {
        side: {"value": bound, "unit": test.unit, **unit}
        for side, bound in (("low", test.low), ("high", test.high))
        if bound is not None
    }
    if not bounds:
        return found
    code, words = "N", "Normal"
    if test.low is not None and value < test.low:
        code, words = "L", "Low"
    if test.high is not None and value > test.high:
        code, words = "H", "High"
    return {
        **found,
        "interpretation": [concept(Code(_INTERPRETATION, code, words))],
        "referenceRange": [bounds],
    }


def _plain(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def _labels(security: Sequence[Code]) -> Json | None:
    return {"security": [coding(label) for label in security]} if security else None


def _phone(name: str) -> list[Json]:
    """A telephone number of the block that is kept free for invented people."""
    return [{"system": "phone", "value": f"+1 555 555 01{zlib.crc32(name.encode()) % 100:02}"}]


def _address(line: str) -> Json:
    return {"line": [line], "city": "Fernhollow", "postalCode": "00000", "country": "US"}
