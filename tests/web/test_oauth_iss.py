"""``iss`` in every authorization response, RFC 9207: an app that talks to several servers can tell.

A mix-up attack has an honest server's answer taken to a dishonest server's token endpoint; the
app sees by ``iss`` whose answer it holds. Each test names the fault it was seen to fail on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.smart.errors import InvalidRedirectUri
from fhir_portal.smart.redirect import check_registrable
from tests.smart.world import BASE, REDIRECT, World, query_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def test_discovery_promises_it_and_names_the_same_issuer(world: World) -> None:
    """Planted fault: the flag is left out of the documents."""
    for document in (world.server.smart_configuration(), world.server.openid_configuration()):
        assert document["authorization_response_iss_parameter_supported"] is True
        assert document["issuer"] == BASE


@pytest.mark.parametrize("decision", ["approve", "deny"])
@pytest.mark.parametrize("redirect", [REDIRECT, f"{REDIRECT}?tenant=7"])
@pytest.mark.requirement("attacks", "mix-up")
async def test_a_persons_answer_names_the_issuer(
    world: World, decision: str, redirect: str
) -> None:
    """Planted faults: a code, or a refusal, is sent without ``iss``."""
    app = await world.public_app(redirect_uris=[redirect])
    browser = world.browser()
    await browser.authorize(app, redirect_uri=redirect)
    await browser.sign_in()
    await browser.submit({"decision": decision, "scope": browser.boxes(ticked=True)})
    location = browser.page.headers["location"]
    assert location.startswith(redirect)
    assert query_of(location)["iss"] == BASE


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"prompt": "none"}, "login_required"),
    ],
)
@pytest.mark.requirement("attacks", "mix-up")
async def test_an_error_names_the_issuer(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    """Planted fault: errors are sent without ``iss``."""
    app = await world.public_app()
    response = await world.browser().authorize(app, **changes)
    query = query_of(response.headers["location"])
    assert (query["error"], query["iss"]) == (error, BASE)


async def test_a_consent_given_before_names_the_issuer(world: World) -> None:
    """No page is shown. Planted fault: a code is sent without ``iss``."""
    app = await world.confidential_app()
    await app.tokens(scope="launch/patient offline_access patient/Goal.rs")
    browser = world.browser()
    await browser.open("/signin")
    await browser.sign_in()
    scope = "launch/patient offline_access patient/Goal.rs"
    await browser.authorize(app, scope=scope, prompt="none")
    assert query_of(browser.page.headers["location"])["iss"] == BASE


async def test_at_an_alias_the_issuer_is_still_the_base(world: World) -> None:
    """Planted fault: the issuer is made from the Host header."""
    app = await world.public_app()
    async with world.http(headers={"Host": "localhost:8000"}) as http:
        response = await http.get(
            "/oauth/authorize", params=app.parameters(scope="nonsense"), follow_redirects=False
        )
    assert query_of(response.headers["location"])["iss"] == BASE


@pytest.mark.parametrize("name", ["iss", "code", "state", "error"])
def test_no_app_registers_an_answer_of_its_own(name: str) -> None:
    """Planted fault: ``iss`` in a registered redirect URI is let through, and found first."""
    with pytest.raises(InvalidRedirectUri):
        check_registrable(f"{REDIRECT}?{name}=https://evil.example")
