"""``Patient/[id]/$health-cards-issue``: the vaccines of a record, signed (SMART Health Cards)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.documents.health_card import (
    CLAIMS,
    COVID,
    NotIdentified,
    cards_of,
    doses_of,
    identity_of,
    is_value_set,
    within,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.definitions import all_types
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import of_record, subject_row
from fhir_portal.operations.definition import parameter
from fhir_portal.smart.health_card import (
    LONGEST_IN_QR,
    content_of,
    issuer_of,
    length_of,
    signed,
)
from fhir_portal.smart.health_card_keys import CardKeys

_PREFIX: Final = "https://smarthealth.cards"
_TYPES_OF_OLD: Final = {"#health-card": "Patient", "#immunization": "Immunization",
                        "#laboratory": "Observation", "#covid19": "Immunization"}  # fmt: skip
_ON_A_CARD: Final = frozenset({"Patient", "Immunization"})
_CLAIM: Final = re.compile(r"Patient\.[a-z][A-Za-z]{0,40}")


async def health_cards_issue(call: Call) -> FhirResponse:
    """Return the cards, which are stored nowhere; no parameter if there is nothing for them.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
        Unprocessable: for what is no type, value set, claim or time; when name or birth date,
            which were asked for, are not known; too much for one answer.
    """
    types, value_sets = _asked_for(call)
    claims = _claims(call)
    since = _since(call)
    patient = call.request.id or ""
    subject = await subject_row(call, patient)
    rows = await of_record(call, "Immunization", patient) if types <= _ON_A_CARD else []
    trees = [json.parse(row.body) for row in rows]
    doses = within(doses_of(trees, since=since), value_sets)
    if not doses:
        return call.answer({}, *([subject] if subject is not None else ()))
    practice, now = call.auth.practice, call.server.clock()
    known = json.parse(subject.body) if subject is not None else {}
    try:
        identity = identity_of(known, claims, now=now)
    except NotIdentified:
        message = (
            "a card says whose it is, and the name or the birth date that it needs for that is "
            "not on record, or you do not see it"
        )
        raise Unprocessable(message) from None
    keys = CardKeys(call.server.store, call.collaborators.derive, call.collaborators.random)
    signer = await keys.signer(practice, now)
    issuer = issuer_of(call.collaborators.base, practice)
    rid = keys.rid(signer.kid, practice, patient)

    def content(bundle: Mapping[str, Any]) -> bytes:
        return content_of(bundle, issuer=issuer, now=now, rid=rid)

    def fits(bundle: Mapping[str, Any]) -> bool:
        return length_of(signer.kid, content(bundle)) <= LONGEST_IN_QR

    def issue() -> tuple[list[str], list[dict[str, Any]]]:
        # Who asks for several sets asks for one card with all of it.
        cards = cards_of(doses, identity, fits if len(value_sets) <= 1 else None)
        links = [
            {
                "vcIndex": number,
                "bundledResource": f"resource:{place}",
                "hostedResource": f"{call.server.base}/Immunization/{own_id}",
            }
            for number, card in enumerate(cards)
            for place, own_id in enumerate(card.sources, start=1)
        ]
        return [signed(signer, content(one.bundle)) for one in cards], links

    issued, links = await asyncio.to_thread(issue)
    ids = {one.own_id for one in doses}
    used = [row for row in rows if row.key.id in ids]
    touched = [subject, *used] if subject is not None else used
    return call.answer({"verifiableCredential": issued, "resourceLink": links}, *touched)


def _asked_for(call: Call) -> tuple[set[str], Sequence[str]]:
    """Return the resource types that cards are to have, and the value sets."""
    place = parameter("credentialType")
    types, value_sets = set(), list(call.arguments.all("credentialValueSet"))
    for given in call.arguments.all("credentialType"):
        word = given.removeprefix(_PREFIX) if given.startswith(f"{_PREFIX}#") else given
        name = _TYPES_OF_OLD.get(word, word)
        if name not in all_types():
            message = "credentialType is a resource type: Immunization is what there are cards of"
            raise Unprocessable(message, expression=place)
        types.add(name)
        if word == "#covid19":
            value_sets.append(COVID)
    if not all(map(is_value_set, value_sets)):
        message = "vaccines are not known here by this value set"
        raise Unprocessable(message, expression=parameter("credentialValueSet"))
    return types, list(dict.fromkeys(value_sets))


def _claims(call: Call) -> frozenset[str]:
    """Return what of the Patient is on the cards: all there may be, or what of it is asked for."""
    place = parameter("includeIdentityClaim")
    given = call.arguments.all("includeIdentityClaim")
    if not all(map(_CLAIM.fullmatch, given)):
        message = "includeIdentityClaim is an element such as Patient.name"
        raise Unprocessable(message, expression=place)
    claims = frozenset(CLAIMS) & frozenset(given) if given else frozenset(CLAIMS)
    if not claims:
        message = f"cards have {' and '.join(CLAIMS)}, and need one of them"
        raise Unprocessable(message, expression=place)
    return claims


def _since(call: Call) -> str | None:
    since: str | None = call.arguments.one("_since")
    try:
        if since is not None:
            period_of(since)
    except ValueError:
        message = "_since is a FHIR dateTime"
        raise Unprocessable(message, expression=parameter("_since")) from None
    return since
