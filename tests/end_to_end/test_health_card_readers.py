"""kill-the-clipboard and jsQR from npm, in node: whether others can read and verify our cards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fhir_portal.documents.health_card_print import drawn
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.health_card import card_file, issuer_of, qr_parts
from fhir_portal.smart.health_card_keys import CardKeys, jwks_of, keys_of, revocation_list
from tests.builders import DERM, Caller, a_patient, a_portal, an_ehr
from tests.charts import CVX, an_immunization
from tests.end_to_end.browser import missing
from tests.end_to_end.demo import Demo
from tests.end_to_end.node import Script, Thrown
from tests.health_cards import codes_on

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
NOW = 1_790_000_000.0  # the reader knows what time it is


@pytest.fixture
def reader() -> Iterator[Script]:
    with Script.running("health_card") as script:
        yield script


class Issued:
    """Cards of a practice, made through the operation, and what is published of its keys."""

    def __init__(self, doses: int) -> None:
        self.cards: list[str] = []
        self.crl: dict[str, Any] = {}
        asyncio.run(self._issue(doses))

    async def _issue(self, doses: int) -> None:
        store = EmbeddedStore.open(":memory:", clock=lambda: NOW)
        portal = a_portal(store, lambda: NOW)
        ehr = Caller(portal, an_ehr())
        await ehr.store(
            a_patient("ada"),
            *(
                an_immunization(
                    f"shot-{n}",
                    vaccineCode={"coding": [{"system": CVX, "code": str(n + 100)}]},
                    occurrenceDateTime=f"20{n:02}-01-07",
                    lotNumber=str(n**9),
                )
                for n in range(doses)
            ),
        )
        answer = await ehr.get("Patient/ada/$health-cards-issue?credentialType=Immunization")
        self.cards = [
            one["valueString"]
            for one in answer.json["parameter"]
            if one["name"] == "verifiableCredential"
        ]
        collaborators = portal.collaborators
        self.issuer = issuer_of(collaborators.base, DERM)
        keys = CardKeys(store, collaborators.derive, collaborators.random)
        self.keys = jwks_of(await keys_of(store, DERM))["keys"]
        await keys.revoke(DERM, "ada", now=NOW + 1)
        found = revocation_list(await keys_of(store, DERM), self.keys[0]["kid"])
        assert found is not None
        self.crl = dict(found)
        store.close()

    def directory(self, *lists: dict[str, Any]) -> dict[str, Any]:
        one = {"issuer": {"iss": self.issuer}, "keys": self.keys, "crls": list(lists)}
        return {"issuerInfo": [one]}


def test_a_reader_finds_the_keys_at_the_issuer_and_verifies(
    reader: Script, demo: Demo, patient_token: str
) -> None:
    asked = f"{demo.fhir}/Patient/mara/$health-cards-issue"
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "credentialType", "valueUri": "Immunization"}],
    }
    headers = {"Authorization": f"Bearer {patient_token}"}
    answer = httpx.post(asked, json=body, headers=headers).raise_for_status().json()
    cards = [
        one["valueString"] for one in answer["parameter"] if one["name"] == "verifiableCredential"
    ]
    assert cards
    for card in cards:
        told = reader("card", jws=card)
        assert told["kinds"][0] == "Patient"
        assert told["codes"] == codes_on([card])


def test_a_file_and_each_card_of_it_are_read(reader: Script) -> None:
    issued = Issued(60)
    assert len(issued.cards) > 1
    told = reader("file", content=card_file(issued.cards).decode(), key=issued.keys[0])
    assert told["jws"] == issued.cards[0]
    for card in issued.cards:
        told = reader("card", jws=card, key=issued.keys[0])
        assert told["codes"] == codes_on([card])


def test_the_picture_of_the_fullest_code_is_read(reader: Script) -> None:
    """In two segments, bytes and digits, of version 22 at most."""
    issued = Issued(60)
    card = max(issued.cards, key=len)
    parts = qr_parts(card)
    assert parts is not None
    picture = drawn(parts).matrix_iter(scale=3, border=4)
    rows = [[int(one) for one in row] for row in picture]
    told = reader("code", rows=rows, key=issued.keys[0])
    assert told["text"].startswith("shc:/")
    assert told["segments"] == ["byte", "numeric"]
    assert told["version"] <= 22
    assert told["jws"] == card


def test_one_that_was_changed_or_revoked_is_refused(reader: Script) -> None:
    """Planted fault: the list names another ``rid`` than the card has."""
    issued, others = Issued(3), Issued(3)
    (card,) = issued.cards
    key = issued.keys[0]
    with pytest.raises(Thrown):
        reader("card", jws=card, key=others.keys[0])
    head, body, _ = card.split(".")
    with pytest.raises(Thrown):
        reader("card", jws=f"{head}.{body}.{others.cards[0].split('.')[2]}", key=key)
    assert reader("card", jws=card, key=key, directory=issued.directory())["codes"]
    with pytest.raises(Thrown, match="revoked"):
        reader("card", jws=card, key=key, directory=issued.directory(issued.crl))
