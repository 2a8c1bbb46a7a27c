"""``Communication/$message-options``: to whom and about what somebody can write."""

from __future__ import annotations

from fhir_portal.accounts.messaging import is_present, messaging_of
from fhir_portal.documents.upload import FILE_BYTES, TAKEN
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attachments import BYTES_TOGETHER, MOST_FILES
from fhir_portal.operations.call import Call
from fhir_portal.operations.care_team import care_team
from fhir_portal.operations.definition import parameter


async def message_options(call: Call) -> FhirResponse:
    """Return topics, people, and what to read first."""
    policy = await messaging_of(call.server.store, call.auth.practice)
    own = call.auth.patient or call.auth.staff_patient
    named = str(call.arguments.one("patient") or "").removeprefix("Patient/")
    if own is not None and named not in {"", own}:
        message = "this token is for another record"
        raise Forbidden(message, expression=parameter("patient"))
    patient = own or named
    people = await care_team(call.server.reader, call, patient) if patient else {}
    return call.answer(
        {
            "warning": policy.warning,
            "warning-code": policy.warning_code,
            "staff-present": await is_present(
                call.server.store, call.auth.practice, now=call.server.clock()
            ),
            "topic": [
                {"code": one.code, "name": one.name, "answer-hours": one.answer_hours}
                for one in policy.topics
            ],
            "person": [
                {"who": {"reference": who, "display": name}, "away": policy.away.get(who)}
                for who, name in people.items()
            ],
            "most-files": MOST_FILES,
            "file-bytes": FILE_BYTES,
            "bytes-together": BYTES_TOGETHER,
            "file-type": list(TAKEN),
        }
    )
