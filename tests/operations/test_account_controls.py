"""``$require-credential-renewal``, ``$end-session``, ``$revoke-app``, and what an account shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.at_practice import SIGN_OUTS_A_DAY
from fhir_portal.accounts.devices import RememberedDevice
from fhir_portal.accounts.invitation import Invitation, InvitationSecrets, issue
from fhir_portal.accounts.sessions import LatestSignIn, Session
from fhir_portal.accounts.staff import StaffMember
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.token import AccessToken, TokenFamily, base64url
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_grant,
    a_person,
    a_proxy,
    a_related_person,
    an_account,
    an_ehr,
    assert_outcome,
    keep,
    oneself,
)
from tests.operations.holding import a_session, an_app_of, parameters, values, works
from tests.staff import a_chart_app, a_member_of_staff, records_of_staff

SHOW = "Person/ada/$portal-account"


def as_ada(auth: Any) -> Any:
    return replace(auth, account="ada")


@pytest.fixture
async def world(accounts: EmbeddedStore) -> EmbeddedStore:
    """Ada is signed in twice, and uses an app at each of two practices."""
    await keep(
        accounts,
        a_session("phone", "ada", seen=START - 60),
        a_session("laptop", "ada"),
        a_session("bos", "bo"),
        RememberedDevice(
            key="d", expires=START + 9e6, account="ada", device="x", added=START, used=START
        ),
    )
    await an_app_of(accounts, "own", as_ada(oneself("ada")))
    await an_app_of(accounts, "elsewhere", as_ada(oneself("ada-f", FAMILY)))
    return accounts


def staff_with(ehr: Caller, *permissions: str) -> Caller:
    member = a_member_of_staff()
    assert member.staff is not None
    staff = replace(member.staff, permissions=frozenset(permissions))
    return Caller(ehr.portal, replace(member, staff=staff))


async def told(store: EmbeddedStore) -> list[tuple[str, str, str]]:
    found = await store.every(OutboxMessage)
    return sorted((one.template, one.to, one.practice) for one in found)


# ---------------------------------------------------------------- renewal


@pytest.mark.requirement("portal", "S4-13")
async def test_a_renewal_signs_out_everywhere_and_leaves_the_password_as_it_is(
    world: EmbeddedStore, ehr: Caller
) -> None:
    before = await world.get(Account, "ada")
    body = parameters(reason_Code="suspected-compromise")
    for _ in range(2):
        answer = await ehr.ask("POST", "Person/ada/$require-credential-renewal", body)
        assert values(answer) == {"renewal": "suspected-compromise"}
    after = await world.get(Account, "ada")
    assert before is not None
    assert after is not None
    assert (after.renewal, after.password_hash) == ("suspected-compromise", before.password_hash)
    assert [one.key for one in await world.every(Session)] == ["bos"]
    assert not await world.every(RememberedDevice)
    assert await told(world) == [("security-renewal-required", "account:ada", DERM)]
    assert values(await ehr.get(SHOW))["renewal"] == "suspected-compromise"


@pytest.mark.parametrize("reason", ["assisted-recovery", "ninety-days", ""])
async def test_a_renewal_is_never_by_the_calendar_nor_for_a_reason_of_the_server(
    world: EmbeddedStore, ehr: Caller, reason: str
) -> None:
    body = parameters(reason_Code=reason)
    answer = await ehr.ask("POST", "Person/ada/$require-credential-renewal", body)
    assert answer.status in {400, 422}
    assert len(await world.every(Session)) == 3


# ---------------------------------------------------------------- sessions


async def test_one_session_ends_by_the_name_that_the_account_shows(
    world: EmbeddedStore, ehr: Caller
) -> None:
    first, second = values(await ehr.get(SHOW))["session"]
    assert first["device"] == "Firefox on Linux"
    body = parameters(session_String=second["id"])
    assert values(await ehr.ask("POST", "Person/ada/$end-session", body)) == {"ended": 1}
    assert [one.key for one in await world.every(Session)] == ["bos", "laptop"]
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 422
    assert await told(world) == [("security-sessions-ended", "account:ada", DERM)]


async def test_a_name_of_a_session_opens_nothing(world: EmbeddedStore, ehr: Caller) -> None:
    shown = (await ehr.get(SHOW)).body
    for session in await world.every(Session):
        assert session.key.encode() not in shown
        assert session.browser.encode() not in shown


async def test_all_sessions_end_at_once(world: EmbeddedStore, ehr: Caller) -> None:
    body = parameters(all_Boolean=True)
    assert values(await ehr.ask("POST", "Person/ada/$end-session", body)) == {"ended": 2}
    assert [one.key for one in await world.every(Session)] == ["bos"]
    assert not await world.every(RememberedDevice)


async def test_work_on_another_practices_staff_goes_on_after_the_next_sign_in(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """The cookie is gone, there too; the membership and what an app holds for that work are not."""
    work = as_ada(a_member_of_staff("far", FAMILY))
    await keep(world, a_chart_app(), *records_of_staff(("far", work)))
    await an_app_of(world, "far", work)
    before = [await world.every(kind) for kind in (StaffMember, AccessToken, TokenFamily)]
    body = parameters(all_Boolean=True)
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 200
    renewal = parameters(reason_Code="suspected-compromise")
    await ehr.ask("POST", "Person/ada/$require-credential-renewal", renewal)
    assert [await world.every(k) for k in (StaffMember, AccessToken, TokenFamily)] == before


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_nobody_is_kept_from_their_work_by_being_signed_out_again_and_again(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller, clock: Clock, *, elsewhere: bool
) -> None:
    """Five times a day, be the account known elsewhere or not; another one counts for itself."""
    if not elsewhere:
        await keep(world, an_account("ada", f"{DERM}/Person/ada"))
    body, renewal = parameters(all_Boolean=True), parameters(reason_Code="staff-request")
    ways = (("$end-session", body), ("$require-credential-renewal", renewal))
    for number in range(SIGN_OUTS_A_DAY):
        path, given = ways[number % 2]
        assert (await ehr.ask("POST", f"Person/ada/{path}", given)).status == 200
    await keep(world, a_session("new", "ada"))
    for path, given in ways:
        refused = await ehr.ask("POST", f"Person/ada/{path}", given)
        assert_outcome(refused, 429, "throttled")
    assert await world.get(Session, "new") is not None
    if elsewhere:
        assert (await other_ehr.ask("POST", "Person/ada/$end-session", body)).status == 200
    clock.advance(86_400)
    ehr = Caller(ehr.portal, replace(an_ehr(), expires=START + 1e8))
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 200


async def test_a_call_that_is_refused_is_not_counted(world: EmbeddedStore, ehr: Caller) -> None:
    assert len(await world.every(Session)) == 3
    wrong = parameters(session_String="no-such")
    for _ in range(SIGN_OUTS_A_DAY + 1):
        assert (await ehr.ask("POST", "Person/ada/$end-session", wrong)).status == 422
    body = parameters(all_Boolean=True)
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 200


async def test_another_accounts_session_is_none_of_this_one_and_nothing_ends(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(world, an_account("bo", f"{DERM}/Person/bo"))
    own = values(await ehr.get(SHOW))["session"][0]["id"]
    session = await world.get(Session, "bos")
    assert session is not None

    derived = ehr.portal.collaborators.derive("session-name", session.browser.encode())
    body = parameters(session_String=[own, base64url(derived)[:22]])
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 422
    assert len(await world.every(Session)) == 3


@pytest.mark.parametrize("body", [None, parameters(all_Boolean=False)])
async def test_what_is_to_end_has_to_be_said(world: EmbeddedStore, ehr: Caller, body: Any) -> None:
    assert (await ehr.ask("POST", "Person/ada/$end-session", body)).status == 400
    assert len(await world.every(Session)) == 3


# ---------------------------------------------------------------- apps


async def test_an_app_is_named_to_staff_and_to_no_ehr(world: EmbeddedStore, ehr: Caller) -> None:
    assert world is not None
    app = values(await ehr.get(SHOW))["app"]  # one: the other practice's is not shown
    assert "name" not in app
    assert app["since"] == "2030-03-17T17:46:40.000Z"
    shown = values(await staff_with(ehr, "view").get(SHOW))["app"]
    assert shown == app | {"name": "app"}


async def test_the_latest_use_of_an_app_is_told(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    assert world is not None
    clock.advance(5)
    await Caller(ehr.portal, as_ada(oneself("ada"))).get("Patient/ada")
    assert values(await ehr.get(SHOW))["app"]["used"] == "2030-03-17T17:46:45.000Z"


async def test_an_apps_access_ends_with_a_receipt_of_the_owners(
    world: EmbeddedStore, ehr: Caller
) -> None:
    app = values(await ehr.get(SHOW))["app"]
    body = parameters(app_String=app["id"])
    first = values(await staff_with(ehr, "revoke").ask("POST", "Person/ada/$revoke-app", body))
    again = values(await ehr.ask("POST", "Person/ada/$revoke-app", body))
    assert first == again
    assert not await works(ehr.portal, "own")
    assert await works(ehr.portal, "elsewhere")
    (receipt,) = await world.every(Receipt)
    assert (receipt.key, receipt.account, receipt.by_practice) == (first["receipt"], "ada", True)
    assert await told(world) == [("app-ended-by-practice", "account:ada", DERM)]
    assert "app" not in values(await ehr.get(SHOW))


async def test_an_app_at_another_practice_is_none_here(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    there = values(await other_ehr.get(SHOW))["app"]["id"]
    body = parameters(app_String=there)
    assert (await ehr.ask("POST", "Person/ada/$revoke-app", body)).status == 422
    assert await works(ehr.portal, "elsewhere")
    await other_ehr.ask("POST", "Person/ada/$revoke-app", body)
    # Its receipt is not told here either.
    assert (await ehr.ask("POST", "Person/ada/$revoke-app", body)).status == 422
    assert len(await world.every(Receipt)) == 1


async def test_what_staff_work_with_is_neither_shown_nor_ended(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    work = a_member_of_staff("desk", account="ada")
    await keep(accounts, a_chart_app(), *records_of_staff(("work", work)))
    await an_app_of(accounts, "work", work)
    assert "app" not in values(await ehr.get(SHOW))


async def test_an_app_that_a_proxy_connected_is_shown_with_the_record_it_is_for(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(
        a_related_person("friend", of="ada"),
        a_grant("for-bo", of="ada", to="friend", sections=["demographics"]),
        a_person("bo", links=["Patient/bo", "RelatedPerson/friend"]),
    )
    await keep(world, an_account("bo", f"{DERM}/Person/bo"))
    proxy = a_proxy("ada", "friend", sections=("demographics",), grant="for-bo")
    await an_app_of(world, "for-ada", replace(proxy, account="bo"))
    shown = {one["by-proxy"]: one["id"] for one in values(await ehr.get(SHOW))["app"]}
    body = parameters(app_String=shown[True])
    assert (await ehr.ask("POST", "Person/ada/$revoke-app", body)).status == 200
    ended = [one.key for one in await world.every(TokenFamily) if one.ended is not None]
    assert ended == ["family-for-ada"]
    assert {to for _, to, _ in await told(world)} == {"account:ada", "account:bo"}


async def test_who_is_acted_for_finds_that_an_app_lost_their_record(
    world: EmbeddedStore, ehr: Caller
) -> None:
    proxy = as_ada(a_proxy("kit", "mother", sections=("results", "messages"), grant="grant"))
    await an_app_of(world, "for-kit", proxy)
    apps = values(await ehr.get(SHOW))["app"]
    for one in apps:
        body = parameters(app_String=one["id"])
        assert (await ehr.ask("POST", "Person/ada/$revoke-app", body)).status == 200
    for patient, times in (("kit", 1), ("ada", 2), ("bo", 0)):
        events = (await Caller(ehr.portal, oneself(patient)).get("AuditEvent")).entries
        codes = [one["subtype"][-1]["code"] for one in events]
        assert codes.count("revoke-app") == times


async def test_rights_that_ended_meanwhile_end_no_app(world: EmbeddedStore, ehr: Caller) -> None:
    app = values(await ehr.get(SHOW))["app"]["id"]
    gone = Caller(ehr.portal, replace(an_ehr(), token="no-such-token"))
    answer = await gone.ask("POST", "Person/ada/$revoke-app", parameters(app_String=app))
    assert answer.status == 401
    assert await works(ehr.portal, "own")
    assert not await world.every(Receipt)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("account-disable", parameters(reason_Code="other")),
        ("account-enable", parameters(reason_Code="other")),
        ("require-credential-renewal", parameters(reason_Code="staff-request")),
        ("end-session", parameters(all_Boolean=True)),
    ],
)
async def test_rights_are_asked_for_inside_the_transaction(
    world: EmbeddedStore, ehr: Caller, operation: str, body: Any
) -> None:
    gone = Caller(ehr.portal, replace(an_ehr(), token="no-such-token"))
    assert (await gone.ask("POST", f"Person/ada/${operation}", body)).status == 401
    assert len(await world.every(Session)) == 3


# ---------------------------------------------------------------- what is shown


async def test_live_invitations_are_shown_and_no_secret_of_theirs(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    secrets = InvitationSecrets(ehr.portal.collaborators.derive("invitations"))
    invitation = Invitation(
        key=f"{DERM}/Task/t",
        practice=DERM,
        invitee=f"{DERM}/Patient/bo",
        patients=("Patient/bo",),
        persons=("Patient/bo",),
        relation="self",
        channel="mail",
        created=START,
        ends=START + 3600,
        to="bo@mail.example",
    )

    async def work(transaction: Any) -> Invitation:
        return await issue(transaction, secrets, invitation)

    issued = await world.transact(work)
    answer = await ehr.get("Person/bo/$portal-account")
    assert values(answer) == {
        "status": "none",
        "invitation": {
            "task": {"reference": "Task/t"},
            "state": "queued",
            "channel": "mail",
            "since": "2030-03-17T17:46:40.000Z",
            "until": "2030-03-17T18:46:40.000Z",
        },
    }
    made = secrets.of(issued)
    for secret in (made.link, made.code, made.portal_id, made.word, "bo@mail.example"):
        assert secret.encode() not in answer.body


async def test_the_latest_sign_in_is_known_when_its_session_is_gone(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await keep(accounts, LatestSignIn(key="ada", at=START - 100))
    assert values(await ehr.get(SHOW))["signed-in"] == "2030-03-17T17:45:00.000Z"


async def test_an_account_that_another_practice_helped_to_recover_is_not_proved_here(
    accounts: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    persons = (f"{DERM}/Person/ada", f"{FAMILY}/Person/ada")
    await keep(accounts, an_account("ada", *persons, closed_at=(DERM,)))
    assert values(await ehr.get(SHOW))["at-practice"] == "unproved"
    assert values(await other_ehr.get(SHOW))["at-practice"] == "enabled"
