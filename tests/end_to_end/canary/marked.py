"""The demo world with a unique word in every text about people; and people without an account."""

from __future__ import annotations

import base64
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Final
from unittest import mock

import msgspec

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.security_questions import RecoveryPolicy
from fhir_portal.app import Application
from fhir_portal.demo import people, world
from fhir_portal.demo.chart import Chart
from fhir_portal.demo.codes import Json
from fhir_portal.demo.marrowbrook import marrowbrook
from fhir_portal.demo.quillfern import quillfern
from fhir_portal.records import RecordTransaction
from fhir_portal.settings import Settings
from fhir_portal.smart.client import add_client
from tests.end_to_end.canary.evidence import CALLBACK
from tests.end_to_end.canary.scan import Canaries

PRACTICE: Final = "marrowbrook"
DESK: Final = "desk"
"""An app for that practice's staff that may change things."""
_OF_THE_PRACTICE: Final = frozenset(
    {
        *("Organization", "Location", "HealthcareService", "Medication", "Questionnaire"),
        *("PractitionerRole", "Practitioner", "Consent"),
    }
)
"""What these say is about nobody who is a patient, or acts for one."""
_CONCEPTS: Final = frozenset(
    {
        *("code", "reasonCode", "bodySite", "serviceType", "vaccineCode", "manifestation"),
        *("medicationCodeableConcept", "chargeItemCodeableConcept", "valueCodeableConcept"),
        *("interpretation", "dosageInstruction"),
    }
)
_KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("description", "title", "conclusion", "valueString"), "note"),
    "contentString": "message text",
    **dict.fromkeys(("lotNumber", "subscriberId"), "identifier"),
}
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"


@dataclass
class Mint:
    """Makes canaries: the same for the same text, so that one person stays one."""

    canaries: Canaries
    chance: random.Random
    _made: dict[tuple[str, str], str] = field(default_factory=dict)
    _numbers: int = 0

    def word(self, syllables: int = 7) -> str:
        """A word that stands nowhere else."""
        return "".join(
            self.chance.choice(_CONSONANTS) + self.chance.choice(_VOWELS) for _ in range(syllables)
        )

    def fresh(self, kind: str) -> str:
        """A new word of a kind."""
        return self.canaries.add(kind, self.word())

    def name(self) -> str:
        """A new name."""
        return self.canaries.add("name", self.word().capitalize())

    def mail(self) -> str:
        """A new mail address."""
        return self.canaries.add("telecom", f"{self.word()}@people.example")

    def phone(self) -> str:
        """A new telephone number of those that are kept for fiction."""
        area, last = divmod(self._numbers, 100)
        self._numbers += 1
        area_code = (312, 415, 617, 713, 206, 303, 404, 503, 602, 702)[area]
        return self.canaries.add("telecom", f"+1{area_code}55501{last:02d}")

    def born(self) -> str:
        """A birth date of a grown-up."""
        day = date(1931, 2, 3) + timedelta(self.chance.randrange(20_000))
        return self.canaries.add("birth date", day.isoformat())

    def postal_code(self) -> str:
        """Five digits that are no port."""
        return self.canaries.add("address", f"{self.chance.randrange(70_000, 99_999)}")

    def of(self, kind: str, old: str) -> str:
        """The canary in the place of a text; with the text behind it, where it is more than one."""
        if (kind, old) not in self._made:
            if kind == "telecom":
                self._made[kind, old] = self.phone()
            elif kind == "postal code":
                self._made[kind, old] = self.postal_code()
            elif kind == "name":
                self._made[kind, old] = self.name()
            else:
                word = self.fresh(kind).capitalize()
                self._made[kind, old] = f"{word} {old}" if " " in old else word
        return self._made[kind, old]

    # --- a chart -----------------------------------------------------------------------------

    def marked(self, resource: Json) -> Json:
        """A resource with canaries for all that it says about a person."""
        if resource["resourceType"] in _OF_THE_PRACTICE:
            return resource
        if resource["resourceType"] == "Binary":
            text = base64.b64decode(resource["data"]).decode()
            data = base64.b64encode(self.of("note", text).encode()).decode()
            return {**resource, "data": data}
        return {name: self._marked(value, (name,)) for name, value in resource.items()}

    def _marked(self, node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, dict):
            return {name: self._marked(value, (*path, name)) for name, value in node.items()}
        if isinstance(node, list):
            return [self._marked(one, path) for one in node]
        return self._text(node, path) if isinstance(node, str) else node

    def _text(self, text: str, path: tuple[str, ...]) -> str:
        name, parents = path[-1], path[:-1]
        within = parents[-1] if parents else ""
        if name == "birthDate":
            return self.canaries.add("birth date", text)
        if within == "name" and name in {"family", "given"}:
            return self.of("name", text)
        if within == "address":
            if name == "postalCode":
                return self.of("postal code", text)
            return self.of("address", text) if name in {"line", "city"} else text
        if (within, name) == ("telecom", "value"):
            return self.of("telecom", text)
        if (within, name) == ("identifier", "value"):
            return self.of("identifier", text)
        if name in _KINDS:
            return self.of(_KINDS[name], text)
        if name in {"text", "display"} and _CONCEPTS & set(parents):
            return self.of("clinical text", text)
        return text


@dataclass(frozen=True)
class Newcomer:
    """A patient without an account."""

    id: str
    given: str
    family: str
    born: str
    postal_code: str
    mail: str
    phone: str
    username: str
    password: str
    resource: Json

    @property
    def who(self) -> dict[str, str]:
        """How the pages ask for birth date and postal code."""
        year, month, day = self.born.split("-")
        return {"month": month, "day": day, "year": year, "postal_code": self.postal_code}


@dataclass
class World:
    """What was built: who signs in with what, and the clients."""

    mint: Mint
    usernames: dict[str, str]
    password: str
    clients: dict[str, dict[str, Any]]
    newcomers: list[Newcomer] = field(default_factory=list)

    def newcomer(self, *, mail: bool = True, phone: bool = True) -> Newcomer:
        """Make one up: a patient that the EHR is still to send."""
        mint = self.mint
        number = len(self.newcomers)
        address, number_of = mint.mail(), mint.phone()
        given, family, born, code = mint.name(), mint.name(), mint.born(), mint.postal_code()
        telecom: list[Json] = []
        if mail:
            telecom.append({"system": "email", "value": address})
        if phone:
            telecom.append({"system": "phone", "use": "mobile", "value": number_of})
        made = Newcomer(
            id=f"newcomer-{number}",
            given=given,
            family=family,
            born=born,
            postal_code=code,
            mail=address,
            phone=number_of,
            username=mint.fresh("user name"),
            password=mint.canaries.add("password", f"{mint.word()} {mint.word(5)}"),
            resource={
                "resourceType": "Patient",
                "id": f"newcomer-{number}",
                "identifier": [
                    {"system": "https://marrowbrook.example/mrn", "value": mint.fresh("identifier")}
                ],
                "name": [{"family": family, "given": [given]}],
                "birthDate": born,
                **({"telecom": telecom} if telecom else {}),
                "address": [
                    {
                        "line": [f"{mint.fresh('address')} Lane"],
                        "city": mint.fresh("address").capitalize(),
                        "postalCode": code,
                    }
                ],
            },
        )
        self.newcomers.append(made)
        return made


async def build(settings: Settings, canaries: Canaries, *, seed: int = 1) -> World:
    """Build the marked demo world in the empty store of these settings."""
    mint = Mint(canaries, random.Random(seed))
    password = canaries.add("password", f"{mint.word()} {mint.word(4)}")
    usernames = {one.username: mint.fresh("user name") for one in people.ACCOUNTS}

    def of(chart: Any) -> Any:
        def made(day: date) -> Chart:
            found: Chart = chart(day)
            found.resources = [mint.marked(one) for one in found.resources]
            return found

        return made

    accounts = tuple(replace(one, username=usernames[one.username]) for one in people.ACCOUNTS)
    for name in usernames.values():
        canaries.add("telecom", f"{name}@people.example")
    policies = [
        made
        for practice in people.PRACTICES
        for made in (
            RecoveryPolicy(key=practice.key, security_questions=True),
            PracticePolicy(key=practice.key, country="US", invite_on_booking=True),
        )
    ]
    application = Application(settings, background=False)
    await application.open()
    try:
        with mock.patch.multiple(
            world,
            marrowbrook=of(marrowbrook),
            quillfern=of(quillfern),
            ACCOUNTS=accounts,
            POLICIES=(),
            PASSWORD=password,
        ):
            built = await world.build_world(
                application.store, clock=time.time, base=f"{settings.base_url}/fhir"
            )

        await add_client(
            application.store,
            client_id=DESK,
            name="Desk",
            type="public",
            redirect_uris=(CALLBACK,),
            scope="openid fhirUser user/*.cruds",
            approved_at=(PRACTICE,),
            now=time.time(),
            random=secrets.token_bytes,
        )

        async def decide(transaction: RecordTransaction) -> None:
            for one in policies:
                await transaction.put(one)

        await application.store.transact(decide)
    finally:
        await application.close()
    clients = {one["client_id"]: dict(one) for one in built.clients}
    for one in clients.values():
        canaries.add("client secret", one.get("client_secret"))
        canaries.add("private key", one.get("private_jwk", {}).get("d"))
    return World(mint, usernames, password, clients)


def parameters(**given: Any) -> bytes:
    """A Parameters resource: ``name_Code="x"`` is ``valueCode``."""
    found = []
    for name, value in given.items():
        code, _, kind = name.rpartition("_")
        found.append({"name": code.replace("_", "-"), f"value{kind}": value})
    return msgspec.json.encode({"resourceType": "Parameters", "parameter": found})
