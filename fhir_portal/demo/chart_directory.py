"""The practice in its chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.practice_contact import COMMENT
from fhir_portal.consent.labels import PORTAL_TAG
from fhir_portal.demo import codes
from fhir_portal.demo.chart_sheet import Sheet, address, phone, reference
from fhir_portal.demo.codes import Code, concept

_DIRECTORY: Final = {"tag": [{"system": PORTAL_TAG, "code": "directory"}]}


@dataclass(slots=True)
class DirectorySheet(Sheet):
    """The practice itself: its organizations, places and people, and whom to call."""

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
            telecom=phone(own_id),
        )

    def support_line(self, name: str) -> str:
        """Whom people call about the portal, and when somebody answers."""
        telephone, text_telephone = phone(name), phone(f"{name} for text")
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
            telecom=phone(own_id),
            address=address(line),
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
            telecom=phone(own_id),
        )
        return who
