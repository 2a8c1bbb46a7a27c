"""The people of a chart."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fhir_portal.consent.grant import CATEGORY as GRANT_CATEGORY
from fhir_portal.consent.grant import IG
from fhir_portal.consent.sections import SECTION_SYSTEM
from fhir_portal.demo import codes
from fhir_portal.demo.chart_sheet import Sheet, address, coded, phone, reference
from fhir_portal.demo.codes import Code, Json, concept

_PROFILE: Final = f"{IG}/StructureDefinition/proxy-grant"


@dataclass(slots=True)
class PeopleSheet(Sheet):
    """Patients, those who act for them, and what these may see and do."""

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
            telecom=phone(own_id),
            gender=gender,
            birthDate=born,
            address=[address(line)],
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
            telecom=phone(own_id),
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
            scope=coded(f"{codes.TERMINOLOGY}/consentscope", "patient-privacy"),
            category=[coded(*GRANT_CATEGORY)],
            patient=reference(patient),
            dateTime=self.at(start, 10, 30),
            performer=[reference(by)],
            sourceReference=reference(evidence) if evidence else None,
            policyRule=coded(codes.ACT_CODE, "OPTOUT"),
            provision={
                "period": {"start": self.on(start)} | ({"end": end} if end else {}),
                "actor": [
                    {
                        "role": coded(codes.ROLE_CODE, "GRANTEE"),
                        "reference": reference(related_person),
                    }
                ],
                "provision": [
                    {
                        "type": "permit",
                        "action": [
                            coded(action.system, action.code)
                            for action in ((access, correct) if one in acting else (access,))
                        ],
                        "code": [coded(SECTION_SYSTEM, one)],
                    }
                    for one in sections
                ],
            },
        )
        return self.resources[-1]
