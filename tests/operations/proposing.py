"""Calls about proposals, said in a line: ``await proposed(ada, details(telecom=[…]))``."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from tests.builders import Answer, Caller, Json, reference, resource

OLD: Json = {"system": "phone", "use": "mobile", "value": "+1 312 555 0142"}
NEW: Json = {"system": "phone", "use": "mobile", "value": "+1 312 555 0143"}
MAIL: Json = {"system": "email", "value": "ada@mail.example"}
HOME: Json = {"use": "home", "line": ["12 Elm"], "city": "Chicago", "postalCode": "60614"}


def details(**elements: Any) -> Json:
    return {"name": "patient", "resource": resource("Patient", None, **elements)}


def version(number: int) -> Json:
    return {"name": "version", "valueString": str(number)}


def cleared(field: str) -> Json:
    return {"name": "clear", "valueCode": field}


def part(name: str, **values: Any) -> Json:
    """A parameter of parts: ``target_Reference=…``; ``coverage=…`` is a resource."""
    parts: list[Json] = []
    for key, value in values.items():
        own, _, kind = key.partition("_")
        listed = value if isinstance(value, list) else [value]
        member = f"value{kind}" if kind else "resource"
        parts += [{"name": own, member: one} for one in listed]
    return {"name": name, "part": parts}


def not_taken(target: str, **more: Any) -> Json:
    return part("not-taken", target_Reference=reference(target), **more)


def decision(proposal: str, action: str, *fields: str, **more: Any) -> Json:
    given: dict[str, Any] = {"proposal_String": proposal, "action_Code": action, **more}
    if fields:
        given["field_String"] = list(fields)
    return part("decision", **given)


def a_picture(side: int = 40, *, camera: bool = False, kind: str = "JPEG") -> bytes:
    held = io.BytesIO()
    exif = Image.Exif()
    if camera:
        exif[0x010F] = "Tell-Tale Cameras"
        exif.get_ifd(0x8825)[1] = "N"
    picture = Image.new("RGB", (side, side), "teal")
    picture.save(held, kind, **({"exif": exif} if camera else {}))
    return held.getvalue()


def attached(content: bytes, content_type: str = "image/jpeg") -> Json:
    return {"contentType": content_type, "data": base64.b64encode(content).decode()}


async def call(caller: Caller, target: str, operation: str, *given: Json) -> Answer:
    tree = {"resourceType": "Parameters", "parameter": list(given)} if given else None
    return await caller.ask("POST", f"{target}/${operation}", tree)


async def proposed(caller: Caller, *given: Json, of: str = "ada") -> Answer:
    return await call(caller, f"Patient/{of}", "propose-update", *given)


async def task_of(caller: Caller, answer: Answer) -> Json:
    """The one Task that a proposal became, as somebody sees it."""
    assert answer.status == 200, answer.body
    named = [one for one in answer.json["parameter"] if one["name"] == "task"]
    assert len(named) == 1, named
    return (await caller.get(named[0]["valueReference"]["reference"])).json


def inside(task: Json, name: str) -> Json:
    (found,) = [one for one in task["contained"] if one["id"] == name]
    return {n: v for n, v in found.items() if n not in {"resourceType", "id"}}


async def reviewed(desk: Caller, task: Json, *decisions: Json) -> Answer:
    return await call(desk, f"Task/{task['id']}", "review-proposal", *decisions)


def outcomes(task: Json) -> list[tuple[str, str, str]]:
    """What the Task says of each decision: accepted or refused, the field, why."""
    found = []
    for one in task.get("output", ()):
        told = {e["url"].rpartition("-")[2]: e["valueString"] for e in one.get("extension", ())}
        code = one["type"]["coding"][0]["code"]
        found.append((code, told.get("field", ""), told.get("reason", "")))
    return found
