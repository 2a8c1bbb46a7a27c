"""The EHR launch: what an EHR says of the screen on which somebody opens an app.

SMART App Launch 2.2 §2.0.5 and §2.0.11. The EHR's backend client posts it and gets ``launch``, with
which it opens the app; the app brings ``launch`` to the authorization endpoint. Whose record it is
and what may be read there is decided then, by the rights of whoever signs in: a launch gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import quote

import jsonschema

from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.reference import ID
from fhir_portal.records import Record, RecordStore, RecordTransaction
from fhir_portal.smart.client import INITIATE_LOGIN, Client
from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.outbound import AddressRefused, check_address
from fhir_portal.smart.proxy_context import role_uris
from fhir_portal.smart.token import base64url, token_hash

LAUNCH_PATH: Final = "/oauth/launch"
LAUNCH: Final = "launch"
"""The scope, the parameter, and the permission of an EHR's client."""
LAUNCH_ENCOUNTER: Final = "launch/encounter"
LAUNCH_PATIENT: Final = "launch/patient"
LIFETIME_SECONDS: Final = 600
"""From the EHR's request until consent: there may be a sign-in in between."""

_HANDLE_BYTES: Final = 32
_IN_CONTEXT: Final = frozenset({"Patient", "Encounter"})
"""Types with parameters of their own in the launch context."""
_ABSOLUTE: Final = r"(https?://|urn:)\S+"
_URI: Final = {"type": "string", "maxLength": 500, "pattern": rf"^{_ABSOLUTE}\Z"}


def _reference(types: str = "[A-Z][A-Za-z]{1,63}") -> dict[str, str]:
    return {"type": "string", "pattern": rf"^({types})/{ID}\Z"}


SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Launch context (SMART App Launch 2.2) of an EHR launch",
    "type": "object",
    "additionalProperties": False,
    "required": ["patient"],
    "properties": {
        "patient": _reference("Patient"),
        "encounter": _reference("Encounter"),
        "intent": {
            "type": "string",
            "minLength": 1,
            "maxLength": 200,
            "pattern": r"^[^\x00-\x1f\x7f]+\Z",
        },
        "need_patient_banner": {"type": "boolean"},
        "smart_style_url": {"type": "string", "maxLength": 2000},
        "client_id": {"type": "string", "maxLength": 100},
        "fhirUser": _reference("Practitioner"),
        "fhirContext": {
            "type": "array",
            "maxItems": 20,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "anyOf": [
                    {"required": ["reference"]},
                    {"required": ["canonical"]},
                    {"required": ["identifier"]},
                ],
                "properties": {
                    "reference": _reference(),
                    "canonical": _URI,
                    "identifier": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["value"],
                        "properties": {
                            "use": {"enum": ["usual", "official", "temp", "secondary", "old"]},
                            "system": _URI,
                            "value": {"type": "string", "minLength": 1, "maxLength": 500},
                        },
                    },
                    "type": {"enum": sorted(served_types())},
                    "role": {"type": "string", "minLength": 1, "maxLength": 500},
                },
            },
        },
    },
}
"""What an EHR posts."""

_VALIDATOR: Final = jsonschema.Draft202012Validator(SCHEMA)


class Launch(Record, frozen=True, kw_only=True):
    """One launch that waits for its app; ``key`` is the hash of its handle.

    ``made_by`` is the EHR's client. ``client_id`` is the app and ``fhir_user`` the
    ``Practitioner/<id>`` that alone may use it, where the EHR named them. The code it buys deletes
    it.
    """

    kind: ClassVar[str] = "launch"

    expires: float
    issued: float
    made_by: str
    practice: str
    patient: str
    context: LaunchContext
    client_id: str | None = None
    fhir_user: str | None = None


class LaunchReader(Protocol):
    """What the EHR that asks may read, by its own rights and in its own access log."""

    async def is_known(self, reference: str, *, patient: str) -> bool:
        """Whether it may read what is referred to: of this patient alone, or of the directory."""
        ...


class Launches:
    """Keeps what EHRs say of launches. The clock gives seconds since 1970 UTC.

    With ``loopback``, for development, a style may be on this machine.
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        issuer: Issuer,
        loopback: bool,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._loopback = loopback
        self._clock = clock
        self._random = random

    async def begin(
        self, asked: Any, *, made_by: str, practice: str, reader: LaunchReader
    ) -> dict[str, Any]:
        """Keep a launch and return what the EHR is answered. Raises `errors.InvalidRequest`."""
        _check(asked, loopback=self._loopback)
        client_id = asked.get("client_id")
        client = None if client_id is None else await self._store.get(Client, client_id)
        if client_id is not None and not _may_be_launched(client):
            raise InvalidRequest("client_id is no app that can be launched")
        await _check_known(asked, reader)
        handle, now = base64url(self._random(_HANDLE_BYTES)), self._clock()
        launch = Launch(
            key=token_hash(handle),
            expires=now + LIFETIME_SECONDS,
            issued=now,
            made_by=made_by,
            practice=practice,
            patient=asked["patient"],
            client_id=client_id,
            fhir_user=asked.get("fhirUser"),
            context=LaunchContext(
                encounter=asked.get("encounter"),
                intent=asked.get("intent"),
                need_patient_banner=asked.get("need_patient_banner", True),
                smart_style_url=asked.get("smart_style_url"),
                fhir_context=tuple(asked.get("fhirContext", ())),
            ),
        )

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.insert(launch)

        await self._store.transact(keep)
        answer = {"launch": handle, "expires_in": LIFETIME_SECONDS}
        launch_url = client.metadata.get(INITIATE_LOGIN) if client is not None else None
        if launch_url:
            sign = "&" if "?" in launch_url else "?"
            iss = quote(self._issuer.fhir, safe="")
            answer["launch_url"] = f"{launch_url}{sign}iss={iss}&launch={handle}"
        return answer


async def find_launch(store: RecordStore, key: str, client: Client, *, now: float) -> Launch:
    """Return the launch of a key for this app, while the EHR that made it may make launches.

    Raises `errors.InvalidRequest`.
    """
    found = await store.get(Launch, key)
    if found is None or now >= found.expires or found.client_id not in (None, client.key):
        raise launch_over()
    ehr = await store.get(Client, found.made_by)
    if (
        ehr is None
        or not ehr.is_open
        or LAUNCH not in ehr.permissions
        or ehr.practice != found.practice
    ):
        raise launch_over()
    return found


def launch_over() -> InvalidRequest:
    """The refusal of a launch that is unknown, over, used or another app's: the same words."""
    return InvalidRequest(
        "This launch is over, was used before, or is not for this app. Launch it again from the EHR"
    )


def _check(asked: Any, *, loopback: bool) -> None:
    """Refuse what cannot be a launch context, whatever is stored."""
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(asked))
    if error is not None:
        where = ".".join(str(step) for step in error.absolute_path) or "the launch"
        if error.validator == "additionalProperties":
            raise InvalidRequest(f"{where} has members that are not known here")
        raise InvalidRequest(f"{where} is not as the launch context needs it")
    if not all(text.isprintable() for text in _texts(asked)):
        raise InvalidRequest("the launch holds text that cannot be shown")
    if "smart_style_url" in asked:
        try:
            check_address(asked["smart_style_url"], loopback=loopback)
        except AddressRefused as refused:
            raise InvalidRequest(f"smart_style_url: {refused}") from None
    for number, item in enumerate(asked.get("fhirContext", ())):
        _check_item(f"fhirContext.{number}", item)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _check_item(where: str, item: Mapping[str, Any]) -> None:
    """The rules of SMART App Launch 2.2 §2.0.11.3 that a schema does not say."""
    role = item.get("role", LAUNCH)
    if role != LAUNCH and not re.fullmatch(_ABSOLUTE, role):
        raise InvalidRequest(f"{where}.role is launch or an absolute URI")
    if role in role_uris().values():
        raise InvalidRequest(f"{where}.role is told by the portal itself")
    referred = item["reference"].partition("/")[0] if "reference" in item else None
    if referred is not None and item.get("type", referred) != referred:
        raise InvalidRequest(f"{where}.type is another than that of its reference")
    if role == LAUNCH and {referred, item.get("type")} & _IN_CONTEXT:
        raise InvalidRequest(f"{where}: patient and encounter have members of their own")


async def _check_known(asked: Mapping[str, Any], reader: LaunchReader) -> None:
    """Refuse what the EHR may not read: hidden, absent and another's in the same words."""
    patient = asked["patient"]
    named = [(name, asked[name]) for name in ("patient", "encounter", "fhirUser") if name in asked]
    named += [
        (f"fhirContext.{number}.reference", item["reference"])
        for number, item in enumerate(asked.get("fhirContext", ()))
        if "reference" in item
    ]
    for where, reference in named:
        if not await reader.is_known(reference, patient=patient):
            raise InvalidRequest(f"{where} is not known here")


def _may_be_launched(client: Client | None) -> bool:
    return client is not None and client.is_open and LAUNCH in client.may_ask_for.identity
