"""Who signs in to the demo, and what each of them may see: the world's own statement of it.

The tests hold the server against this table; ``demo.json`` and the README print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.account import Role
from fhir_portal.accounts.levels import PERMISSIONS, READ, Permission
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.security_questions import RecoveryPolicy
from fhir_portal.consent.sections import section_displays
from fhir_portal.demo.codes import Code
from fhir_portal.records import Record

PASSWORD: Final = "demo-password"  # noqa: S105 - everybody in the demo world has this one
ZONE: Final = "America/Chicago"

MARROWBROOK: Final = Practice(
    key="marrowbrook",
    name="Marrowbrook Family Medicine",
    zone=ZONE,
    organization="Organization/marrowbrook",
    phone="+1 312 555 0110",
)
QUILLFERN: Final = Practice(
    key="quillfern",
    name="Quillfern Dermatology",
    zone=ZONE,
    organization="Organization/quillfern",
    phone="+1 312 555 0120",
)
PRACTICES: Final = (MARROWBROOK, QUILLFERN)
_SERVICES: Final = "https://demo.example/services"
CHECKUP: Final = Code(_SERVICES, "checkup", "Check-up")
NURSE_VISIT: Final = Code(_SERVICES, "nurse", "Visit to the nurse")
SKIN_CHECK: Final = Code(_SERVICES, "skin-check", "Skin check")
LIGHT_THERAPY: Final = Code(_SERVICES, "light-therapy", "Light therapy")
POLICIES: Final[tuple[Record, ...]] = (
    RecoveryPolicy(key=QUILLFERN.key, security_questions=True),
    PracticePolicy(
        key=MARROWBROOK.key,
        booking_services={CHECKUP.code: "book", NURSE_VISIT.code: "book"},
        plan_months=6,
    ),
    PracticePolicy(
        key=QUILLFERN.key, booking_services={SKIN_CHECK.code: "book", LIGHT_THERAPY.code: "view"}
    ),
)

MOTHER_SEES: Final = (
    "demographics",
    "appointments",
    "messages",
    "documents",
    "forms",
    "results",
    "medications",
    "immunizations",
    "health-summary",
    "visits",
)
MOTHER_ACTS: Final = ("messages", "forms")
FATHER_SEES: Final = ("demographics", "appointments", "results", "immunizations")
TEENAGERS_MOTHER_SEES: Final = (
    "demographics",
    "appointments",
    "results",
    "medications",
    "immunizations",
    "health-summary",
    "visits",
)
LEVELS: Final[Mapping[str, Mapping[str, tuple[Permission, ...]]]] = {
    MARROWBROOK.key: {
        "front desk": (
            "view",
            "invite",
            "proxies",
            "appointments",
            "forms",
            "messages",
            "documents",
        ),
        "nurse": ("view", "forms", "messages", "documents", "recover"),
        "billing": ("view", "billing"),
        "administrator": PERMISSIONS,
    },
    QUILLFERN.key: {"administrator": PERMISSIONS},
}
"""The access levels of each practice, beside the built-in one."""

ATTORNEY_SEES: Final = (
    "demographics",
    "insurance",
    "appointments",
    "messages",
    "documents",
    "forms",
    "results",
    "medications",
    "immunizations",
    "health-summary",
    "visits",
    "billing",
)
ATTORNEY_ACTS: Final = ("appointments", "messages", "forms", "billing")
HELPERS_SECTIONS: Final = ("appointments", "medications")
NEIGHBOURS_SECTIONS: Final = ("appointments", "messages")


@dataclass(frozen=True, slots=True)
class Sees:
    """A record an account may use, and by which relation; ``self`` sees every section."""

    patient: str
    relation: str = "self"
    sections: tuple[str, ...] = tuple(section_displays())


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """Somebody who can sign in. ``persons`` are ``<practice>/Person/<id>``, one per practice.

    ``works_as`` is ``<practice>/Practitioner/<id>`` of somebody on a practice's staff, ``level``
    their access level there.
    """

    username: str
    name: str
    role: Role
    persons: tuple[str, ...]
    records: tuple[Sees, ...]
    note: str
    works_as: str | None = None
    level: str = READ


ACCOUNTS: Final = (
    DemoAccount(
        "mara",
        "Mara Ellwick",
        "patient",
        ("marrowbrook/Person/mara",),
        (Sees("Patient/mara"), Sees("Patient/juno", "mother", MOTHER_SEES)),
        "two years of visits; acts for her child Juno in messages and forms",
    ),
    DemoAccount(
        "oskar",
        "Oskar Lindqvar",
        "guardian",
        ("marrowbrook/Person/oskar",),
        (Sees("Patient/juno", "father", FATHER_SEES),),
        "Juno's father, lives elsewhere: fewer sections, only to read",
    ),
    DemoAccount(
        "silas",
        "Silas Overmeer",
        "patient",
        ("marrowbrook/Person/silas",),
        (Sees("Patient/silas"),),
        "sixteen; one visit is labelled confidential: only he sees it and what refers to it",
    ),
    DemoAccount(
        "petra",
        "Petra Overmeer",
        "guardian",
        ("marrowbrook/Person/petra",),
        (Sees("Patient/silas", "mother", TEENAGERS_MOTHER_SEES),),
        "Silas' mother; neither the confidential visit nor what refers to it reaches her",
    ),
    DemoAccount(
        "lorcan",
        "Lorcan Marchbank",
        "proxy",
        ("marrowbrook/Person/lorcan",),
        (Sees("Patient/ottilie", "power of attorney", ATTORNEY_SEES),),
        "attorney of his aged mother Ottilie, until the power of attorney ends",
    ),
    DemoAccount(
        "teodor",
        "Teodor Brandvik",
        "patient",
        ("marrowbrook/Person/teodor", "quillfern/Person/teodor-q"),
        (Sees("Patient/teodor"), Sees("Patient/teodor-q")),
        "a patient of both practices: one account, two records",
    ),
    DemoAccount(
        "ruben",
        "Ruben Ellwick",
        "proxy",
        ("marrowbrook/Person/ruben",),
        (),
        "Mara's brother; his grant has expired",
    ),
    DemoAccount(
        "dana",
        "Dana Corvill",
        "proxy",
        ("marrowbrook/Person/dana",),
        (),
        "Mara's neighbour; Mara took the grant back",
    ),
    DemoAccount(
        "noor",
        "Noor Saffrey",
        "staff",
        (),
        (),
        "front desk of Marrowbrook: reads every record there, invites people",
        works_as="marrowbrook/Practitioner/saffrey",
        level="front desk",
    ),
    DemoAccount(
        "cyril",
        "Cyril Ondaro",
        "staff",
        (),
        (),
        "nurse at Marrowbrook: reads every record there, helps with recovery",
        works_as="marrowbrook/Practitioner/ondaro",
        level="nurse",
    ),
    DemoAccount(
        "imke",
        "Imke Vantongel",
        "staff",
        (),
        (),
        "billing at Marrowbrook: reads every record there, works on bills",
        works_as="marrowbrook/Practitioner/vantongel",
        level="billing",
    ),
    DemoAccount(
        "rosalind",
        "Rosalind Thackmoor",
        "admin",
        (),
        (),
        "administrator of Marrowbrook: every permission there is",
        works_as="marrowbrook/Practitioner/thackmoor",
        level="administrator",
    ),
    DemoAccount(
        "femi",
        "Femi Larkhill",
        "staff",
        (),
        (),
        "physician assistant at Quillfern: reads every record there",
        works_as="quillfern/Practitioner/larkhill",
    ),
    DemoAccount(
        "ignace",
        "Ignace Dunmarrow",
        "admin",
        (),
        (),
        "administrator of Quillfern: every permission there is",
        works_as="quillfern/Practitioner/dunmarrow",
        level="administrator",
    ),
)
