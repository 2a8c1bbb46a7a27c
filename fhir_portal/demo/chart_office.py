"""Times, messages, forms and bills of a chart."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fhir_portal.consent.grant import IG
from fhir_portal.demo import codes
from fhir_portal.demo.chart_sheet import Sheet, reference
from fhir_portal.demo.codes import Code, concept
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

_WEEKS_OPEN: Final = 4
_WEEKEND: Final = (5, 6)


@dataclass(slots=True)
class OfficeSheet(Sheet):
    """What patients and the front office have with each other: times, messages, forms, bills."""

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
