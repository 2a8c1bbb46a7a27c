"""openid-client from npm, a certified OpenID Connect client, in node: what an app's backend does.

It checks by itself ``state``, ``nonce``, ``iss`` (RFC 9207) and the id_token, its signature too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.end_to_end.browser import missing
from tests.end_to_end.demo import CALLBACK, CONFIDENTIAL, PUBLIC, Demo
from tests.end_to_end.node import Script, Thrown
from tests.end_to_end.person import Person, parameters_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
People = Callable[[str], Person]


@pytest.fixture
def client() -> Iterator[Script]:
    """The library, and no server or client id yet."""
    with Script.running("openid_client") as script:
        yield script


@pytest.fixture
def sample(client: Script, demo: Demo) -> Script:
    """The library as the demo world's public client."""
    client("discover", issuer=demo.server.base, client_id=PUBLIC)
    return client


def an_app(method: str, **more: Any) -> dict[str, Any]:
    """Client metadata (RFC 7591 §2)."""
    return {
        "client_name": "Heart diary",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "scope": SCOPE,
        **more,
    }


def registered(client: Script, demo: Demo, method: str, alg: str = "", **more: Any) -> str:
    """Have the client discover the server and register itself; return its id."""
    if alg:
        more["jwks"] = {"keys": [client("key", alg=alg)]}
    told = client("register", issuer=demo.server.base, metadata=an_app(method, **more))
    assert told["token_endpoint_auth_method"] == method
    return str(told["client_id"])


def sent(client: Script, demo: Demo, *, par: bool = False, **more: str) -> str:
    """The address to which the client sends somebody."""
    parameters = {"redirect_uri": CALLBACK, "scope": SCOPE, "aud": demo.fhir, **more}
    return str(client("authorize", parameters=parameters, par=par))


def authorized(
    client: Script, demo: Demo, person: Person, record: str = "Patient/mara", **more: Any
) -> dict[str, Any]:
    """Get a token by way of the pages; return what the token endpoint told."""
    address = sent(client, demo, **more)
    back = person.visit(address, back_to=CALLBACK, record=record)
    told: dict[str, Any] = client("callback", address=back)
    return told


def status(client: Script, demo: Demo, what: str, **how: Any) -> int:
    return int(client("read", address=f"{demo.fhir}/{what}", **how)["status"])


def test_discovery_is_taken_as_it_is(client: Script, demo: Demo) -> None:
    """The library insists that ``issuer`` is what it was asked for."""
    told = client("discover", issuer=demo.server.base, client_id=PUBLIC)
    assert told["issuer"] == demo.server.base
    assert told["authorization_response_iss_parameter_supported"] is True
    elsewhere = f"http://localhost:{demo.server.port}"  # the same server, by another name
    with pytest.raises(Thrown) as refused:
        client("discover", issuer=elsewhere, client_id=PUBLIC)
    assert refused.value.code == "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED"


@pytest.mark.parametrize("way", ["query", "pushed"])
@pytest.mark.parametrize(
    ("method", "alg"),
    [
        ("none", ""),
        ("client_secret_basic", ""),
        ("client_secret_post", ""),
        ("private_key_jwt", "ES384"),
        ("private_key_jwt", "RS384"),
    ],
)
def test_an_app_that_registered_itself_gets_through_the_life_of_its_tokens(
    client: Script, demo: Demo, person: People, method: str, alg: str, way: str
) -> None:
    client_id = registered(client, demo, method, alg)
    told = authorized(client, demo, person("mara"), "Patient/juno", par=way == "pushed")
    assert told["patient"] == "juno"
    assert set(told["scope"].split()) == set(SCOPE.split())
    assert told["claims"]["iss"] == demo.server.base
    assert told["claims"]["aud"] in (client_id, [client_id])
    assert told["claims"]["fhirUser"].startswith(f"{demo.fhir}/RelatedPerson/")
    assert status(client, demo, "Patient/juno") == 200
    assert status(client, demo, "Patient/mara") == 404

    renewed = client("refresh")
    assert renewed["access_token"] != told["access_token"]
    assert renewed["refresh_token"] != told["refresh_token"]
    assert status(client, demo, "Patient/juno") == 200

    if method != "none":  # who has no secret may not ask
        introspected = client("introspect", kind="access_token")
        assert introspected["active"] is True
        assert introspected["client_id"] == client_id
        assert introspected["patient"] == "juno"
    client("revoke", kind="refresh_token")
    assert status_after_the_end(client, demo) == 401
    with pytest.raises(Thrown) as refused:
        client("refresh")
    assert refused.value.error == "invalid_grant"
    if method != "none":
        assert client("introspect", kind="access_token") == {"active": False}


def status_after_the_end(client: Script, demo: Demo) -> int:
    return status(client, demo, "Patient/juno", bound=False)


def test_what_was_pushed_is_not_in_the_address(client: Script, demo: Demo) -> None:
    client_id = registered(client, demo, "client_secret_basic")
    asked = dict(parse_qsl(urlsplit(sent(client, demo, par=True)).query))
    assert asked.keys() == {"client_id", "request_uri"}
    assert asked["client_id"] == client_id
    assert asked["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")


def test_who_said_to_push_is_let_in_by_nothing_else(
    client: Script, demo: Demo, person: People
) -> None:
    registered(client, demo, "client_secret_basic", require_pushed_authorization_requests=True)
    assert httpx.get(sent(client, demo)).status_code == 400  # a page, and no way back to the app
    assert authorized(client, demo, person("mara"), par=True)["patient"] == "mara"


def test_a_push_without_authentication_is_refused(client: Script, demo: Demo) -> None:
    client(
        "discover",
        issuer=demo.server.base,
        client_id=CONFIDENTIAL,
        method="client_secret_basic",
        secret="somebody else's",
    )
    with pytest.raises(Thrown) as refused:
        sent(client, demo, par=True)
    assert refused.value.status == 401
    assert refused.value.code == "OAUTH_WWW_AUTHENTICATE_CHALLENGE"


@pytest.mark.parametrize("way", ["query", "pushed"])
@pytest.mark.parametrize("alg", ["ES256", "PS256", "Ed25519"])
def test_a_token_bound_to_a_key_is_of_no_use_without_it(
    sample: Script, demo: Demo, person: People, alg: str, way: str
) -> None:
    """RFC 9449: code, access token and refresh token of a public client belong to its key."""
    sample("bind", alg=alg)
    told = authorized(sample, demo, person("mara"), par=way == "pushed")
    assert told["token_type"].lower() == "dpop"
    assert status(sample, demo, "Patient/mara") == 200
    assert status(sample, demo, "Patient/mara", bound=False) == 401
    assert sample("refresh")["token_type"].lower() == "dpop"
    assert status(sample, demo, "Observation?_count=1") == 200
    sample("bind", alg=alg)  # another key
    with pytest.raises(Thrown):
        sample("refresh")
    with pytest.raises(Thrown) as refused:
        sample("read", address=f"{demo.fhir}/Patient/mara")
    assert refused.value.status == 401


def test_nonces_of_the_server_are_sent_back(
    client: Script, development: Demo, person: People
) -> None:
    """RFC 9449 §8 and §9: the library is told ``use_dpop_nonce`` and tries again."""
    registered(client, development, "none", dpop_bound_access_tokens=True)
    client("bind", alg="ES256")
    assert authorized(client, development, person("mara"), par=True)["patient"] == "mara"
    assert status(client, development, "Patient/mara") == 200
    client("refresh")
    assert status(client, development, "Patient/mara") == 200


@pytest.mark.parametrize("instead", ["", "https://elsewhere.example"])
def test_an_answer_of_another_issuer_is_not_taken(
    sample: Script, demo: Demo, person: People, instead: str
) -> None:
    """Mix-up (RFC 9207): the server always says who answers, so an answer without is refused."""
    back = person("mara").visit(sent(sample, demo), back_to=CALLBACK, record="Patient/mara")
    told = parameters_of(back)
    assert told.pop("iss") == demo.server.base
    changed = {**told, "iss": instead} if instead else told
    with pytest.raises(Thrown) as refused:
        sample("callback", address=f"{CALLBACK}?{urlencode(changed)}")
    assert "iss" in refused.value.message
    assert sample("callback", address=back)["patient"] == "mara"


def test_the_id_token_says_when_somebody_signed_in(
    sample: Script, demo: Demo, person: People
) -> None:
    """With ``max_age`` the library insists on ``auth_time``, and judges it."""
    claims = authorized(sample, demo, person("mara"), max_age="3600")["claims"]
    assert claims["auth_time"] <= claims["iat"]


def test_nobody_is_asked_where_nothing_may_be_shown(
    sample: Script, demo: Demo, person: People
) -> None:
    stranger = person("mara")
    back = stranger.visit(sent(sample, demo, prompt="none"), back_to=CALLBACK)
    assert stranger.pages == []
    with pytest.raises(Thrown) as refused:
        sample("callback", address=back)
    assert refused.value.error == "login_required"


def test_a_no_of_the_person_reaches_the_app(sample: Script, demo: Demo, person: People) -> None:
    back = person("mara").visit(
        sent(sample, demo), back_to=CALLBACK, record="Patient/mara", decision="deny"
    )
    with pytest.raises(Thrown) as refused:
        sample("callback", address=back)
    assert refused.value.error == "access_denied"


def test_metadata_that_cannot_be_registered_is_refused_by_name(client: Script, demo: Demo) -> None:
    for metadata, error in (
        (an_app("none", redirect_uris=["http://app.example/callback"]), "invalid_redirect_uri"),
        (an_app("none", grant_types=["implicit"]), "invalid_client_metadata"),
        (an_app("none", software_statement="e30.e30."), "invalid_software_statement"),
    ):
        with pytest.raises(Thrown) as refused:
            client("register", issuer=demo.server.base, metadata=metadata)
        assert (refused.value.error, refused.value.status) == (error, 400)


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
def test_a_backend_that_an_operator_added_reads_its_practice(
    client: Script, demo: Demo, tmp_path: Path, alg: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [client("key", alg=alg)]}))
    client_id = f"node-{alg.lower()}"
    demo.command(
        *("client", "add", "A backend", "--client-id", client_id, "--type", "backend"),
        *("--practice", "marrowbrook", "--scope", "system/*.rs", "--jwks", str(file)),
    )
    client("discover", issuer=demo.server.base, client_id=client_id, method="private_key_jwt")
    told = client("credentials", scope="system/Patient.rs")
    assert told["scope"] == "system/Patient.rs"
    assert "refresh_token" not in told
    assert status(client, demo, "Patient/teodor") == 200
    assert client("credentials", scope="system/Patient.cruds")["scope"] == "system/Patient.rs"
    with pytest.raises(Thrown) as refused:
        client("credentials", scope="patient/Patient.rs")
    assert refused.value.error == "invalid_scope"
