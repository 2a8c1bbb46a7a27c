"""One time, many who want it at once, two server processes: one has it.

Half of the requests go to each process; each is sent up to its last byte before any is completed.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.end_to_end.demo import Demo
from tests.end_to_end.processes import CAN_TELL, Reply, at_once, connections, request

pytestmark = pytest.mark.skipif(not CAN_TELL, reason="only Linux tells who holds a connection")
PARALLEL = 50
DOCTOR = {"actor": {"reference": "Practitioner/astrup"}, "status": "accepted"}


def parameters(**given: Any) -> dict[str, Any]:
    listed = [{"name": name.replace("_", "-"), **value} for name, value in given.items()]
    return {"resourceType": "Parameters", "parameter": listed}


def statuses(replies: list[Reply]) -> Counter[int]:
    return Counter(one.status for one in replies)


@pytest.mark.parametrize("slot", ["checkups-5-9", "checkups-6-11", "checkups-7-14"])
async def test_of_50_holds_and_writes_over_one_doctors_time_one_wins(demo: Demo, slot: str) -> None:
    """A slot, one of another Schedule that overlaps it, and an EHR that writes Appointments."""
    async with demo.ehr() as ehr:
        token = ehr.token["access_token"]

        async def put(tree: dict[str, Any]) -> None:
            name, own_id = tree["resourceType"], tree["id"]
            answer = await ehr.put(f"{demo.fhir}/{name}/{own_id}", json=tree)
            assert answer.status_code in {200, 201}, answer.text

        found = (await ehr.get(f"{demo.fhir}/Slot/{slot}")).json()
        begins = datetime.fromisoformat(found["start"])
        own_id = f"racer-{slot}"
        patient = {"reference": f"Patient/{own_id}"}
        part = {"actor": patient, "status": "accepted"}
        await put({"resourceType": "Patient", "id": own_id, "name": [{"family": "Racer"}]})
        await put(
            {
                "resourceType": "Schedule",
                "id": own_id,
                "actor": [{"reference": "PractitionerRole/astrup"}],
            }
        )
        await put(
            {
                "resourceType": "Slot",
                "id": own_id,
                "schedule": {"reference": f"Schedule/{own_id}"},
                "status": "free",
                "start": (begins - timedelta(minutes=10)).isoformat(),
                "end": (begins + timedelta(minutes=10)).isoformat(),
            }
        )

        def hold(of: str) -> bytes:
            tree = {
                "resourceType": "Appointment",
                "status": "proposed",
                "slot": [{"reference": f"Slot/{of}"}],
                "participant": [part],
            }
            sent = parameters(appointment_resource={"resource": tree})
            return request("POST", "/fhir/Appointment/$hold", token=token, resource=sent)

        def write(number: int) -> bytes:
            tree = {
                "resourceType": "Appointment",
                "id": f"{own_id}-{number}",
                "status": "booked",
                "start": begins.isoformat(),
                "end": (begins + timedelta(minutes=15)).isoformat(),
                "participant": [part, DOCTOR],
            }
            path = f"/fhir/Appointment/{own_id}-{number}"
            return request("PUT", path, token=token, resource=tree)

        sent = [
            write(number) if number % 5 == 0 else hold(slot if number % 2 else own_id)
            for number in range(PARALLEL)
        ]
        async with connections(demo.server, PARALLEL // demo.workers, lasting=True) as held:
            everybody = [one for turn in zip(*held.values(), strict=True) for one in turn]
            replies = await at_once(everybody, sent)
            outcome = statuses(replies)
            assert outcome[200] + outcome[201] == 1, outcome
            assert set(outcome) <= {200, 201, 404, 409}
            stored = await ehr.get(
                f"{demo.fhir}/Appointment?patient={own_id}&status=pending,booked&_count=100"
            )
            assert len(stored.json()["entry"]) == 1
            (winner,) = [one["resource"] for one in stored.json()["entry"]]
            if winner["status"] != "pending":
                await ehr.delete(f"{demo.fhir}/Appointment/{winner['id']}")
                again = await everybody[0].ask(hold(slot))
                winner = again.json()["entry"][0]["resource"]
            reference = {"valueReference": {"reference": f"Appointment/{winner['id']}"}}
            book = parameters(appointment_reference=reference)
            sent_book = request("POST", "/fhir/Appointment/$book", token=token, resource=book)
            outcome = statuses(await at_once(everybody, sent_book))
            assert outcome == {200: 1, 409: PARALLEL - 1}
