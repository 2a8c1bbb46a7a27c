"""What accounts hold: token families with their access tokens, sessions, codes."""

from __future__ import annotations

from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.sessions import Session
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.portal import Portal
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.token import TokenFamily
from tests.builders import START, Answer, Caller, Json, an_access_token, bearer_of, changed, keep


def values(answer: Answer) -> Json:
    """What an operation answered, by name; of what is there several times, a list."""
    assert answer.status == 200, answer.body
    return _values(answer.json.get("parameter", []))


def _values(listed: list[Json]) -> Json:
    found: Json = {}
    for one in listed:
        value = next(value for name, value in one.items() if name != "name")
        if "part" in one:
            value = _values(one["part"])
        if one["name"] in found:
            before = found[one["name"]]
            found[one["name"]] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[one["name"]] = value
    return found


def parameters(**given: Any) -> Json:
    """Parameters by ``name_valueType``; ``-`` in a name is written ``__``."""
    listed: list[Json] = []
    for name, value in given.items():
        code, _, kind = name.rpartition("_")
        several = value if isinstance(value, list) else [value]
        listed += [{"name": code.replace("__", "-"), f"value{kind}": one} for one in several]
    return {"resourceType": "Parameters", "parameter": listed}


async def an_app_of(store: EmbeddedStore, name: str, auth: AuthContext, **more: Any) -> None:
    """A family and an access token by which an app uses what ``auth`` may."""
    record = auth.record
    family: Json = {
        "expires": START + 1e7,
        "issued": START,
        "rotated": START,
        "client_id": auth.client,
        "account": auth.account,
        "patient": record.patient if record else "",
        "practice": auth.practice,
        "fhir_user": auth.fhir_user,
        "grant": record.grant if record else None,
        "scope": f"{auth.scopes} offline_access",
        "context": auth.context,
    }
    await keep(
        store,
        TokenFamily(key=f"family-{name}", **family | more),
        changed(an_access_token(name, auth), family=f"family-{name}"),
    )


def a_code(name: str, auth: AuthContext, **more: Any) -> AuthorizationCode:
    assert auth.record is not None
    given: Json = {
        "good_until": START + 60,
        "client_id": auth.client,
        "redirect_uri": "https://app.example/",
        "code_challenge": "x",
        "scope": str(auth.scopes),
        "account": auth.account,
        "practice": auth.practice,
        "patient": auth.record.patient,
        "fhir_user": auth.fhir_user,
        "grant": auth.record.grant,
        "nonce": None,
        "auth_time": START,
    }
    return AuthorizationCode(key=name, **given | more)


def a_session(key: str, account: str, **more: Any) -> Session:
    given: Json = {
        "expires": START + 900,
        "browser": f"browser-{key}",
        "created": START,
        "seen": START,
        "auth_time": START,
        "device": "Firefox on Linux",
    }
    return Session(key=key, account=account, **given | more)


async def works(portal: Portal, name: str) -> bool:
    """Whether the token of this name is still taken by the FHIR API."""

    try:
        auth = await portal.callers.of(bearer_of(name))
    except Unauthenticated:
        return False
    path = "Patient" if auth.record is None else auth.record.patient
    answer = await Caller(portal, auth).get(path)
    assert answer.status == 200, answer.body
    return True
