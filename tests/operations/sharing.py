"""Making links, and opening them as whoever got one."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.operations.open_share import Opened, Shares
from fhir_portal.portal import Portal
from fhir_portal.smart.sharing import ShareLink, stored_under
from tests.builders import (
    Answer,
    Caller,
    Json,
    a_proxy,
    an_access_token,
    bearer_of,
    keep,
    oneself,
    passwords,
)

SCOPE = "patient/*.cruds"


HERE = "192.0.2.1"
"""The network address that links are opened from, where a test does not care."""


def shares_of(portal: Portal) -> Shares:
    collaborators = portal.collaborators
    return Shares(
        portal.server.store,
        portal,
        passwords(),
        collaborators.derive,
        clock=portal.server.clock,
        random=os.urandom,
    )


async def signed_in(portal: Portal, auth: AuthContext, name: str = "ada", **more: Any) -> Caller:
    """Somebody with a token that is stored, as an app has it."""
    token = msgspec.structs.replace(an_access_token(name, auth), **more)
    await keep(portal.server.store, token)
    return Caller(portal, await portal.callers.of(bearer_of(name)))


async def as_ada(portal: Portal, *, scope: str = SCOPE) -> Caller:
    """Ada, in her own record; her token is of no app's authorization, as on our own pages."""
    return await signed_in(portal, replace(oneself(scope=scope), account="ada"), "ada", family="")


async def as_mother(portal: Portal, *, name: str = "mother") -> Caller:
    """Ada in the record of her child, by her grant."""
    auth = replace(a_proxy("kit", scope=SCOPE), account="ada")
    return await signed_in(portal, auth, name, family="")


async def ask(
    caller: Caller, code: str, of: str = "ada", *given: Json, get: bool = False
) -> Answer:
    tree = {"resourceType": "Parameters", "parameter": list(given)}
    body = json.dumps(tree).encode() if given else b""
    return await caller.perform(
        FhirRequest("operation", "Patient", of, operation=code, body=body, is_get=get)
    )


def sections(*codes: str) -> list[Json]:
    return [{"name": "section", "valueCode": code} for code in codes]


def documents(*ids: str) -> list[Json]:
    return [
        {"name": "document", "valueReference": {"reference": f"DocumentReference/{one}"}}
        for one in ids
    ]


class Link:
    """What the answer of ``$share-link`` gave."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200, answer.body
        found = {one["name"]: value_of(one) for one in answer.json["parameter"]}
        self.id, self.passcode, self.expires = found["id"], found["passcode"], found["expires"]
        self.shlink, self.link = found["shlink"], found["link"]
        text = self.shlink.removeprefix("shlink:/")
        self.payload = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        self.handle = self.payload["url"].split("/")[-2]

    @property
    def key(self) -> str:
        found = stored_under(self.handle)
        assert found is not None
        return found

    def read(self, jwe: str) -> Json:
        """Decrypt a file as whoever has the link does."""
        header, _, nonce, content, tag = jwe.split(".")
        assert json.loads(_raw(header)) == {
            "alg": "dir",
            "enc": "A256GCM",
            "cty": "application/fhir+json",
        }
        cipher = AESGCM(_raw(self.payload["key"]))
        found: Json = json.loads(
            cipher.decrypt(_raw(nonce), _raw(content) + _raw(tag), header.encode())
        )
        return found


async def a_link(caller: Caller, of: str = "ada", *given: Json) -> Link:
    return Link(await ask(caller, "share-link", of, *given))


async def opened(portal: Portal, link: Link, *, recipient: str = "Dr. Abel") -> Opened:
    return await shares_of(portal).open(
        link.handle, link.passcode, recipient=recipient, way="page", address=HERE
    )


async def stored(portal: Portal, link: Link) -> ShareLink:
    found = await portal.server.store.get(ShareLink, link.key)
    assert found is not None
    return found


def value_of(one: Json) -> Any:
    return next(value for name, value in one.items() if name.startswith("value"))


def parts(answer: Answer, name: str) -> list[Json]:
    """The parts of each parameter of a name; of those that repeat the last value."""
    assert answer.status == 200, answer.body
    return [
        {part["name"]: value_of(part) for part in one["part"]}
        for one in answer.json.get("parameter", ())
        if one["name"] == name
    ]


def keys_in(bundle: Json, but: Sequence[str] = ("Composition", "Organization")) -> set[str]:
    return {
        f"{one['resource']['resourceType']}/{one['resource']['id']}"
        for one in bundle["entry"]
        if one["resource"]["resourceType"] not in but
    }


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
