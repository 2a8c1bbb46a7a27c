"""What many operations and schemas are put together from."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
TEXT: Final = {"type": "string"}
URI: Final = {"type": "string", "format": "uri"}
JSON_CONTENT: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
NO_STORE: Final = {"Cache-Control": {"schema": {"const": "no-store"}, "required": True}}


def ref(name: str) -> Json:
    """A reference to a schema of the description, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def form_body(schema: Json) -> Json:
    """The body of a request that is a form."""
    return {"required": True, "content": {_FORM: {"schema": schema}}}


def json_body(schema: Json) -> Json:
    """The body of a request that is JSON."""
    return {"required": True, "content": {JSON_CONTENT: {"schema": schema}}}


def answered(description: str, schema: Json) -> Json:
    """An answer in JSON, which nobody may store."""
    return {
        "description": description,
        "headers": NO_STORE,
        "content": {JSON_CONTENT: {"schema": schema}},
    }
