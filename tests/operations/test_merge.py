"""``$merge`` and ``$undo-merge``: what is about access goes over, and widens nothing in silence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.invitation import (
    Invitation,
    InvitationSecrets,
    LiveInvitation,
    issue,
    issue_again,
)
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.merge import RecordMerge
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.token import TokenFamily
from tests.builders import (
    DERM,
    DIRECTORY,
    START,
    Answer,
    Caller,
    Clock,
    Json,
    a_client,
    a_grant,
    a_patient,
    a_person,
    a_practice,
    a_practitioner,
    a_proxy,
    a_related_person,
    a_task,
    an_account,
    an_ehr,
    an_observation,
    keep,
    oneself,
)
from tests.operations.holding import a_code, an_app_of, parameters, values, works
from tests.operations.invitations import FATHER, NAN, invited, staff, the_invitation
from tests.operations.test_confirm_proxy import a_contact
from tests.staff import a_member_of_staff, a_membership

MERGE = "Patient/$merge"
UNDO = "Patient/old/$undo-merge"


@pytest.fixture
async def world(store: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """One human, two Patients: Ada has an account for ``old``, Bo acts for it; ``new`` is bare."""
    await keep(
        store,
        a_practice(),
        a_practice("family-medicine"),
        a_client("app"),
        an_account("ada", f"{DERM}/Person/ada"),
        AccountPerson(key=f"{DERM}/Person/ada", account="ada"),
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        an_account("cy", f"{DERM}/Person/cy"),
    )
    await ehr.store(
        a_patient("old"),
        a_patient("new"),
        a_patient("third"),
        a_related_person("friend", of="old", relationship="friend"),
        a_grant("for-bo", of="old", to="friend", sections=["results", "messages"], act=["results"]),
        a_person("ada", links=["Patient/old"]),
        a_person("bo", links=["RelatedPerson/friend"]),
    )
    await other_ehr.store(a_patient("elsewhere"), a_patient("new"))
    return store


def asked(source: str = "old", target: str = "new", **more: Any) -> Json:
    return parameters(
        source__patient_Reference={"reference": f"Patient/{source}"},
        target__patient_Reference={"reference": f"Patient/{target}"},
        **more,
    )


async def preview(caller: Caller, source: str = "old", target: str = "new", **more: Any) -> Json:
    body = asked(source, target, preview_Boolean=True, **more)
    return values(await caller.ask("POST", MERGE, body))


async def merged(caller: Caller, source: str = "old", target: str = "new", **more: Any) -> Answer:
    """Merge as somebody who accepts what the preview says."""
    shown = await preview(caller, source, target, **more)
    accept = {"accept_String": shown["accept"]} if "accept" in shown else {}
    return await caller.ask("POST", MERGE, asked(source, target, **accept, **more))


def listed(found: Json, name: str) -> list[Json]:
    several = found.get(name, [])
    return several if isinstance(several, list) else [several]


async def seen(store: EmbeddedStore, clock: Clock) -> dict[str, set[tuple[str, str]]]:
    """What every account may use: the record, and as whom."""
    relations, found = Relations(store, clock), {}
    for account in await store.every(Account):
        records = await relations.records_of(account)
        found[account.key] = {(one.patient, one.fhir_user) for one in records}
    return found


async def everything(store: EmbeddedStore, ehr: Caller) -> dict[str, Json]:
    """Every resource of the practice without versions, and every record that is about access."""
    found: dict[str, Json] = {}
    for name in ("Patient", "Person", "RelatedPerson", "Consent", "Task"):
        for one in (await ehr.get(f"{name}?_count=200")).entries:
            found[f"{name}/{one['id']}"] = {n: v for n, v in one.items() if n != "meta"}
    for kind in (Grant, LiveInvitation, Invitation):
        for record in await store.every(kind):
            found[f"{kind.kind}/{record.key}"] = {"is": repr(record)}
    return found


# ---------------------------------------------------------------- what goes over


async def test_account_grant_and_related_person_go_over_and_the_source_is_replaced(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    found = values(await merged(ehr))
    assert await seen(world, clock) == {
        "ada": {("Patient/new", "Patient/new")},
        "bo": {("Patient/new", "RelatedPerson/friend")},
        "cy": set(),
    }
    source = (await ehr.get("Patient/old")).json
    assert source["active"] is False
    assert source["link"] == [{"other": {"reference": "Patient/new"}, "type": "replaced-by"}]
    assert found["result"]["link"] == [{"other": {"reference": "Patient/old"}, "type": "replaces"}]
    assert found["undo-until"] == "2030-03-18T17:46:40.000Z"
    changes = {one["what"]["reference"]: one["change"] for one in listed(found, "moved")}
    assert changes == {
        "Person/ada": "person",
        "RelatedPerson/friend": "related-person",
        "Consent/for-bo": "grant",
    }
    grant = await world.get(Grant, f"{DERM}/for-bo")
    assert grant is not None
    assert (grant.patient, grant.sections, grant.act) == (
        "new",
        ("messages", "results"),
        ("results",),
    )


async def test_clinical_resources_stay_where_the_ehr_put_them(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    await ehr.store(an_observation("pulse", of="old"))
    before = (await ehr.get("Observation/pulse")).body
    await merged(ehr)
    assert (await ehr.get("Observation/pulse")).body == before


async def test_staff_who_administer_may_merge_and_others_not(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    member = a_member_of_staff()
    assert member.staff is not None
    for permissions, status in (
        ({"view", "proxies", "revoke"}, 403),
        ({"administer"}, 403),  # the answer holds the surviving Patient
        ({"view", "administer"}, 200),
    ):
        staff = replace(member.staff, permissions=frozenset(permissions))
        answer = await Caller(ehr.portal, replace(member, staff=staff)).ask(
            "POST", MERGE, asked(preview_Boolean=True)
        )
        assert answer.status == status, answer.body


@pytest.mark.parametrize("name", ["ada", "bo"])
async def test_staff_do_not_merge_their_own_record_nor_that_they_act_for_into_another(
    world: EmbeddedStore, ehr: Caller, clock: Clock, name: str
) -> None:
    """Ada, whose own it is, and Bo, who acts for her, are on the staff here."""
    await ehr.store(a_patient("victim", family="Other", birthDate="1950-01-01"))
    rights = ("view", "administer")
    before = await everything(world, ehr)
    member = Caller(ehr.portal, a_member_of_staff(name, permissions=rights))
    assert (await merged(member, "old", "victim")).status == 403
    assert await everything(world, ehr) == before
    await keep(world, *(a_contact(one, "one@mail.example") for one in (name, "second")))
    second = Caller(ehr.portal, a_member_of_staff("second", permissions=rights))
    assert (await merged(second, "old", "victim")).status == 403
    assert ("Patient/victim", "Patient/victim") not in (await seen(world, clock))["ada"]
    assert await world.every(OutboxMessage) == []
    colleague = Caller(ehr.portal, a_member_of_staff("eve", permissions=rights))
    assert (await merged(colleague, "old", "victim")).status == 200


async def test_staff_who_are_invited_do_not_merge_what_they_are_invited_to(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """The RelatedPerson has the name of who would merge."""
    await ehr.store(
        a_practitioner("eve", family="Lark"),
        a_patient("kit", birthDate="2020-03-01"),
        a_patient("victim", family="Other"),
    )
    await keep(world, an_account("eve"), a_membership("eve", practitioner="eve"))
    name = a_practitioner("eve", family="Lark")["name"][0]
    telecom = {"system": "email", "value": "x@mail.example"}
    given = {"name": name, "relationship": FATHER, "telecom": telecom, "channel": "desk"}
    await invited(ehr, "kit", kind="guardian", basis="parent", **given)
    rights = ("view", "administer")
    eve, bob = (
        Caller(ehr.portal, a_member_of_staff(one, permissions=rights)) for one in "eve bob".split()
    )
    assert (await merged(eve, "kit", "victim")).status == 403
    assert (await merged(bob, "kit", "victim")).status == 200


@pytest.mark.parametrize("where", ["account", "on file"])
async def test_whose_record_somebody_will_use_is_told(
    world: EmbeddedStore, ehr: Caller, where: str
) -> None:
    """At their account; who has none, at what is on file before the merge."""
    telecom = [{"system": "email", "value": "victim@mail.example"}]
    await ehr.store(a_patient("new", telecom=telecom))
    more: dict[str, Any] = {}
    if where == "account":
        more["force__accounts_Boolean"] = True
        await ehr.store(a_person("cy", links=["Patient/new"]))
        await keep(world, AccountPerson(key=f"{DERM}/Person/cy", account="cy"))
    assert values(await merged(ehr, **more))["told"] == 1
    sent = await world.every(OutboxMessage)
    told = [one.to for one in sent if one.template == "security-proxy-added"]
    assert told == ["account:cy" if where == "account" else "mail:victim@mail.example"]


async def test_an_ehr_needs_to_be_one_that_may_write_grants(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    weak = Caller(ehr.portal, an_ehr(DERM, "label"))
    assert (await weak.ask("POST", MERGE, asked(preview_Boolean=True))).status == 403
    await merged(ehr)
    assert (await weak.ask("POST", UNDO)).status == 403


async def test_the_ehr_says_what_the_surviving_patient_is_and_labels_stay(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    await ehr.store(a_patient("new", meta={"security": [label]}))
    result = a_patient("new", family="Married", meta=DIRECTORY)
    shown = await preview(ehr)
    given = asked(accept_String=shown["accept"])
    given["parameter"].append({"name": "result-patient", "resource": result})
    found = values(await ehr.ask("POST", MERGE, given))
    assert found["result"]["name"][0]["family"] == "Married"
    assert found["result"]["meta"]["security"] == [label]
    assert "tag" not in found["result"]["meta"]


@pytest.mark.parametrize(
    ("result", "status"),
    [(a_patient("old"), 400), (a_patient("new", gender="both"), 400)],
)
async def test_a_result_that_is_no_such_patient_changes_nothing(
    world: EmbeddedStore, ehr: Caller, result: Json, status: int
) -> None:
    before = await everything(world, ehr)
    given = asked()
    given["parameter"].append({"name": "result-patient", "resource": result})
    answer = await ehr.ask("POST", MERGE, given)
    assert answer.status in {status, 422}
    assert await everything(world, ehr) == before


async def test_staff_do_not_write_what_a_patient_says(world: EmbeddedStore, ehr: Caller) -> None:
    assert world is not None
    member = a_member_of_staff()
    assert member.staff is not None
    staff = replace(member.staff, permissions=frozenset({"view", "administer"}))
    given = asked()
    given["parameter"].append({"name": "result-patient", "resource": a_patient("new")})
    answer = await Caller(ehr.portal, replace(member, staff=staff)).ask("POST", MERGE, given)
    assert answer.status == 403


# ---------------------------------------------------------------- a preview, and who gains


async def test_a_preview_changes_nothing_and_says_who_would_see_more(
    world: EmbeddedStore, ehr: Caller
) -> None:
    before = await everything(world, ehr)
    shown = await preview(ehr)
    assert await everything(world, ehr) == before
    assert not await world.every(RecordMerge)
    assert not await world.every(OutboxMessage)
    gains = {one["who"]["reference"]: one["text"] for one in listed(shown, "gains")}
    assert gains == {
        "Person/ada": "sees all of Patient/new, as the person whose record it is",
        "RelatedPerson/friend": "sees messages, results of Patient/new, and acts in results",
    }


async def test_nobody_sees_more_unless_exactly_that_was_accepted(
    world: EmbeddedStore, ehr: Caller
) -> None:
    before = await everything(world, ehr)
    assert (await ehr.ask("POST", MERGE, asked())).status == 422
    assert (await ehr.ask("POST", MERGE, asked(accept_String="x"))).status == 409
    shown = await preview(ehr)
    await ehr.store(
        a_related_person("other", of="old"),
        a_grant("late", of="old", to="other", sections=["billing"]),
    )
    answer = await ehr.ask("POST", MERGE, asked(accept_String=shown["accept"]))
    assert answer.status == 409  # one more has come since the preview
    third = await ehr.ask("POST", MERGE, asked(target="third", accept_String=shown["accept"]))
    assert third.status == 409
    left = await everything(world, ehr)
    assert {name: left[name] for name in before} == before


@pytest.mark.parametrize("force", [False, True])
async def test_whoever_sees_a_record_after_a_merge_saw_it_before_or_was_named(
    world: EmbeddedStore, ehr: Caller, clock: Clock, *, force: bool
) -> None:
    """A crowd: proxies of each, of both, an unproven link, a grant to come, one that is over."""
    await ehr.store(
        a_related_person("both-old", of="old"),
        a_related_person("both-new", of="new"),
        a_related_person("later", of="old"),
        a_related_person("over", of="old"),
        a_grant("g1", of="old", to="both-old", sections=["billing"]),
        a_grant("g2", of="new", to="both-new", sections=["results"]),
        a_grant("g3", of="old", to="later", start="2035-01-01"),
        a_grant("g4", of="old", to="over", end="2021-01-01"),
        a_person("cy", links=["RelatedPerson/both-old", "RelatedPerson/both-new"]),
        a_person("dee", links=["Patient/old"], assurance="level1"),
        a_person("eve", links=["RelatedPerson/later"]),
        a_person("fay", links=["RelatedPerson/over"]),
    )
    for one in ("dee", "eve", "fay"):
        await keep(
            world,
            an_account(one, f"{DERM}/Person/{one}"),
            AccountPerson(key=f"{DERM}/Person/{one}", account=one),
        )
    if force:
        await ehr.store(a_person("gil", links=["Patient/new"]))
        await keep(
            world,
            an_account("gil", f"{DERM}/Person/gil"),
            AccountPerson(key=f"{DERM}/Person/gil", account="gil"),
        )
    more: Json = {"force__accounts_Boolean": True} if force else {}
    before, shown = await seen(world, clock), await preview(ehr, **more)
    assert (await merged(ehr, **more)).status == 200
    named = {one["who"]["reference"] for one in listed(shown, "gains")}
    for moment in (0, 6 * 365 * 86_400):
        clock.advance(moment)
        for account, records in (await seen(world, clock)).items():
            old = {patient for patient, _ in before[account]}
            for patient, user in records:
                assert patient in old or {user, f"Person/{account}"} & named, (account, user)
    assert "RelatedPerson/both-old" not in named
    assert "Person/fay" not in named
    assert "RelatedPerson/over" not in named
    assert "Person/dee" not in named
    if force:
        assert "Person/ada" not in named


async def test_who_acts_for_both_keeps_what_the_surviving_record_gave(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(
        a_related_person("friend-new", of="new"),
        a_grant("there", of="new", to="friend-new", sections=["results"]),
        a_person("bo", links=["RelatedPerson/friend", "RelatedPerson/friend-new"]),
    )
    shown = values(await merged(ehr))
    assert [one["who"]["reference"] for one in listed(shown, "loses")] == ["RelatedPerson/friend"]
    assert (await seen(world, clock))["bo"] == {("Patient/new", "RelatedPerson/friend-new")}
    assert await world.get(Grant, f"{DERM}/for-bo") is None


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("source", "target", "status"),
    [
        ("old", "old", 422),
        ("old", "nobody", 404),
        ("nobody", "new", 404),
        ("old", "elsewhere", 404),
        ("elsewhere", "new", 404),
    ],
)
async def test_two_patients_of_this_practice_are_needed(
    world: EmbeddedStore, ehr: Caller, source: str, target: str, status: int
) -> None:
    before = await everything(world, ehr)
    answer = await ehr.ask("POST", MERGE, asked(source, target))
    assert answer.status == status
    assert await everything(world, ehr) == before


async def test_hidden_and_absent_are_answered_alike(world: EmbeddedStore, ehr: Caller) -> None:
    assert world is not None
    answers = [await ehr.ask("POST", MERGE, asked("old", x)) for x in ("nobody", "elsewhere")]
    bodies = {
        answer.body.replace(name, b"X")
        for answer, name in zip(answers, (b"nobody", b"elsewhere"), strict=True)
    }
    assert len(bodies) == 1


async def test_a_member_of_staff_in_one_record_merges_none(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    member = a_member_of_staff(patient="old")
    assert member.staff is not None
    staff = replace(member.staff, permissions=frozenset({"view", "administer"}))
    bound = Caller(ehr.portal, replace(member, staff=staff))
    assert (await bound.ask("POST", MERGE, asked(preview_Boolean=True))).status in {403, 404}


async def two_accounts(world: EmbeddedStore, ehr: Caller) -> None:
    await ehr.store(a_person("cy", links=["Patient/new"]))
    await keep(world, AccountPerson(key=f"{DERM}/Person/cy", account="cy"))


async def test_two_accounts_are_two_people_until_it_is_said_otherwise(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await two_accounts(world, ehr)
    before = await everything(world, ehr)
    answer = await ehr.ask("POST", MERGE, asked(preview_Boolean=True))
    assert answer.status == 422
    assert "force-accounts" in answer.words[0]
    assert await everything(world, ehr) == before
    shown = values(await merged(ehr, force__accounts_Boolean=True))
    assert [one["who"]["reference"] for one in listed(shown, "loses")] == ["Person/ada"]
    after = await seen(world, clock)
    assert (after["ada"], after["cy"]) == (set(), {("Patient/new", "Patient/new")})


async def test_one_account_that_has_both_is_no_second_person_and_gains_nothing(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_person("ada", links=["Patient/old", "Patient/new"]))
    shown = values(await merged(ehr))
    assert "Person/ada" not in {one["who"]["reference"] for one in listed(shown, "gains")}
    assert (await seen(world, clock))["ada"] == {("Patient/new", "Patient/new")}
    assert len((await ehr.get("Person/ada")).json["link"]) == 1


async def test_who_is_one_of_them_and_acts_for_the_other_shows_that_they_are_two(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """A mother and her child taken for one: the proxy of the source would be given her own."""
    assert world is not None
    await ehr.store(a_person("bo", links=["Patient/new", "RelatedPerson/friend"]))
    for source, target in (("old", "new"), ("new", "old")):
        body = asked(source, target, preview_Boolean=True, force__accounts_Boolean=True)
        answer = await ehr.ask("POST", MERGE, body)
        assert answer.status == 422
        assert "two people" in answer.words[0]


async def test_proxies_that_are_shut_out_are_not_let_in_by_a_merge(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    shut = parameters(reason_Code="suspected-misuse", include__proxies_Boolean=True)
    await ehr.ask("POST", "Person/ada/$account-disable", shut)
    assert (await ehr.ask("POST", MERGE, asked(preview_Boolean=True))).status == 409


async def test_an_account_that_is_disabled_here_stays_so(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.ask("POST", "Person/ada/$account-disable", parameters(reason_Code="deceased"))
    assert (await merged(ehr)).status == 200
    assert (await seen(world, clock))["ada"] == set()


async def test_chains_go_one_way_and_cycles_nowhere(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    before = await everything(world, ehr)
    assert (await merged(ehr)).status == 200
    for source, target in (("new", "old"), ("old", "third"), ("old", "new"), ("third", "old")):
        answer = await ehr.ask("POST", MERGE, asked(source, target, preview_Boolean=True))
        assert answer.status == 422, (source, target)
    assert (await merged(ehr, "new", "third")).status == 200
    assert (await seen(world, clock))["ada"] == {("Patient/third", "Patient/third")}
    assert (await ehr.ask("POST", UNDO)).status == 409  # it was merged on
    assert (await ehr.ask("POST", "Patient/new/$undo-merge")).status == 200
    assert (await ehr.ask("POST", UNDO)).status == 200  # in their order, both
    assert await everything(world, ehr) == before


async def test_of_racing_merges_one_is_carried_out(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    bodies = []
    for source, target in (("old", "new"), ("old", "third"), ("old", "new"), ("new", "old")):
        shown = await preview(ehr, source, target)
        accept = {"accept_String": shown["accept"]} if "accept" in shown else {}
        bodies.append(asked(source, target, **accept))
    answers = await asyncio.gather(*(ehr.ask("POST", MERGE, body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200, 422, 422, 422]
    assert len(await world.every(RecordMerge)) == 1
    assert len((await seen(world, clock))["ada"]) == 1


# ---------------------------------------------------------------- tokens, invitations, notices


async def test_apps_end_with_receipts_and_none_is_given_the_other_record(
    world: EmbeddedStore, ehr: Caller
) -> None:
    proxy = a_proxy("old", "friend", sections=("messages", "results"), grant="for-bo")
    own = replace(oneself("old"), account="ada")
    await an_app_of(world, "own", own)
    await an_app_of(world, "proxy", replace(proxy, account="bo"))
    await an_app_of(world, "new", replace(oneself("new"), account="cy"))
    await ehr.store(a_person("cy", links=["Patient/third"]))
    lone = a_code("lone", replace(oneself("old"), account="zed"))  # nothing was exchanged yet
    await keep(world, a_code("code", own), lone)
    found = values(await merged(ehr))
    assert found["ended-apps"] == 2
    assert not await works(ehr.portal, "own")
    alive = [one.key for one in await world.every(TokenFamily) if one.ended is None]
    assert alive == ["family-new"]
    assert not await world.every(AuthorizationCode)
    receipts = await world.every(Receipt)
    assert {(one.holder, one.patient, one.by_practice) for one in receipts} == {
        ("ada", "Patient/old", True),
        ("bo", "Patient/old", True),
    }
    told = {(one.template, one.to) for one in await world.every(OutboxMessage)}
    assert told == {
        ("app-ended-by-practice", "account:ada"),
        ("app-ended-by-practice", "account:bo"),
        ("security-record-merged", "account:ada"),
    }


async def an_invitation(world: EmbeddedStore, ehr: Caller, of: str, task: str) -> Invitation:
    await ehr.store(a_task(task, of=of))
    secrets = InvitationSecrets(ehr.portal.collaborators.derive("invitations"))
    invitation = Invitation(
        key=f"{DERM}/Task/{task}",
        practice=DERM,
        invitee=f"{DERM}/Patient/{of}",
        patients=(f"Patient/{of}",),
        persons=(f"Patient/{of}",),
        relation="self",
        channel="paper",
        created=START,
        ends=START + 3 * 86_400,
    )

    async def work(transaction: Any) -> Invitation:
        return await issue(transaction, secrets, invitation)

    return await world.transact(work)


async def test_a_live_invitation_goes_over_and_its_paper_stays_good(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("ada", links=["Patient/third"]))
    issued = await an_invitation(world, ehr, "old", "invite")
    shown = values(await merged(ehr))
    assert "Task/invite" in {one["who"]["reference"] for one in listed(shown, "gains")}
    secrets = InvitationSecrets(ehr.portal.collaborators.derive("invitations"))
    found = await secrets.by_code(world, secrets.of(issued).code)
    assert found is not None
    assert (found.invitee, found.patients, found.persons) == (
        f"{DERM}/Patient/new",
        ("Patient/new",),
        ("Patient/new",),
    )
    assert await world.get(LiveInvitation, f"{DERM}/Patient/old") is None
    assert await world.get(LiveInvitation, f"{DERM}/Patient/new") is not None
    assert (await ehr.get("Task/invite")).json["for"] == {"reference": "Patient/new"}


@pytest.mark.parametrize("because", ["account", "account-of-source", "invitation"])
async def test_an_invitation_to_what_has_an_account_or_an_invitation_ends(
    world: EmbeddedStore, ehr: Caller, because: str
) -> None:
    if because != "account-of-source":
        await ehr.store(a_person("ada", links=["Patient/third"]))
    if because == "account":
        await two_accounts(world, ehr)
    if because == "invitation":
        await an_invitation(world, ehr, "new", "theirs")
    issued = await an_invitation(world, ehr, "old", "invite")
    shown = values(await merged(ehr))
    assert "Task/invite" in {one["who"]["reference"] for one in listed(shown, "loses")}
    secrets = InvitationSecrets(ehr.portal.collaborators.derive("invitations"))
    assert await secrets.by_code(world, secrets.of(issued).code) is None
    assert (await world.get(Invitation, f"{DERM}/Task/invite")).state == "revoked"  # type: ignore[union-attr]
    assert (await ehr.get("Task/invite")).json["status"] == "cancelled"


# ---------------------------------------------------------------- undo


async def test_undo_gives_back_exactly_what_was_moved(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_person("cy", links=["Patient/third"]), a_person("zoe", links=["Patient/old"]))
    before, saw = await everything(world, ehr), await seen(world, clock)
    await merged(ehr)
    assert await everything(world, ehr) != before
    clock.advance(86_399)
    assert values(await ehr.ask("POST", UNDO)) == {"given-back": 6}
    assert await everything(world, ehr) == before
    assert await seen(world, clock) == saw
    assert (await ehr.ask("POST", UNDO)).status == 422


async def test_undo_gives_an_invitation_back_and_keeps_how_far_it_has_come(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("ada", links=["Patient/third"]))
    await an_invitation(world, ehr, "old", "invite")
    await merged(ehr)
    secrets = InvitationSecrets(ehr.portal.collaborators.derive("invitations"))

    async def again(transaction: Any) -> None:
        found = await transaction.get(Invitation, f"{DERM}/Task/invite")
        await issue_again(
            transaction, secrets, found, ends=START + 9e4, channel="paper", to="", now=START
        )

    await world.transact(again)
    assert (await ehr.ask("POST", UNDO)).status == 200
    found = await world.get(Invitation, f"{DERM}/Task/invite")
    assert found is not None
    assert (found.invitee, found.patients, found.attempt) == (
        f"{DERM}/Patient/old",
        ("Patient/old",),
        2,
    )
    assert await world.get(LiveInvitation, f"{DERM}/Patient/new") is None


@pytest.mark.parametrize("before", ["nothing", "wants none", "ended"])
async def test_whose_portal_was_ended_or_who_wants_none_stays_so_and_undo_gives_it_back(
    world: EmbeddedStore, ehr: Caller, before: str
) -> None:
    """What the practice ended outweighs what else is said; the source keeps its own mark."""
    ended = NoMoreInvitations(key=f"{DERM}/Patient/old", since=START, closed=True)
    there = NoMoreInvitations(key=f"{DERM}/Patient/new", since=START - 9, closed=before == "ended")
    await keep(world, ended, *([] if before == "nothing" else [there]))
    await merged(ehr)
    found = await world.get(NoMoreInvitations, there.key)
    assert found is not None
    assert (found.closed, found.since) == (True, START - 9 if before == "ended" else START)
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert await world.get(NoMoreInvitations, there.key) == (None if before == "nothing" else there)
    assert await world.get(NoMoreInvitations, ended.key) == ended


async def test_undo_brings_no_mark_of_an_ended_portal_back_that_went_since(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """Who came back by an invitation meanwhile has come back."""
    await keep(world, NoMoreInvitations(key=f"{DERM}/Patient/old", since=START, closed=True))
    await merged(ehr)
    newer = NoMoreInvitations(key=f"{DERM}/Patient/new", since=START + 1)
    await keep(world, newer)
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert await world.get(NoMoreInvitations, newer.key) == newer


async def test_undo_is_over_after_a_day(world: EmbeddedStore, ehr: Caller, clock: Clock) -> None:
    await merged(ehr)
    clock.advance(86_400)
    assert (await ehr.ask("POST", UNDO)).status == 422
    assert (await world.get(RecordMerge, f"{DERM}/Patient/old")).undone is None  # type: ignore[union-attr]


async def test_undo_takes_the_surviving_record_from_the_apps_of_who_came_with_the_merge(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await merged(ehr)
    await an_app_of(world, "own", replace(oneself("new"), account="ada"))
    proxy = a_proxy("new", "friend", sections=("messages", "results"), grant="for-bo")
    await an_app_of(world, "proxy", replace(proxy, account="bo"))
    await keep(world, a_code("code", replace(oneself("new"), account="ada")))
    assert await works(ehr.portal, "own")
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert not await works(ehr.portal, "own")
    assert all(one.ended is not None for one in await world.every(TokenFamily))
    assert not await world.every(AuthorizationCode)


async def test_undo_writes_over_nothing_that_was_changed_since(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await merged(ehr)
    person = (await ehr.get("Person/ada")).json
    await ehr.put(person | {"gender": "female"})
    after = await everything(world, ehr)
    answer = await ehr.ask("POST", UNDO)
    assert answer.status == 409
    assert "Person/ada" in answer.words[0]
    assert await everything(world, ehr) == after


async def test_undo_brings_no_grant_back_that_was_ended_since(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await merged(ehr)
    consent = (await ehr.get("Consent/for-bo")).json
    await ehr.put(consent | {"status": "inactive"})
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert (await seen(world, clock))["bo"] == set()
    assert not await world.every(Grant)


async def test_undo_brings_no_grant_back_whose_holder_was_shut_out_of_the_other_record(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    """The merge ended it because they had another way; that way was ended meanwhile."""
    await ehr.store(
        a_related_person("friend-new", of="new"),
        a_grant("there", of="new", to="friend-new", sections=["results"]),
        a_person("bo", links=["RelatedPerson/friend", "RelatedPerson/friend-new"]),
    )
    await merged(ehr)
    there = (await ehr.get("Consent/there")).json
    await ehr.put(there | {"status": "inactive"})
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert (await seen(world, clock))["bo"] == set()
    assert not await world.every(Grant)


async def test_undo_gives_a_grant_back_whose_holder_has_the_other_way_still(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(
        a_related_person("friend-new", of="new"),
        a_grant("there", of="new", to="friend-new", sections=["results"]),
        a_person("bo", links=["RelatedPerson/friend", "RelatedPerson/friend-new"]),
    )
    before = await everything(world, ehr)
    await merged(ehr)
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert await everything(world, ehr) == before
    assert len((await seen(world, clock))["bo"]) == 2


async def test_undo_lets_nobody_in_who_was_shut_out_since(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    """They were shut out of the surviving record; the other one would be open for them."""
    await merged(ehr)
    shut = parameters(reason_Code="suspected-misuse", include__proxies_Boolean=True)
    await ehr.ask("POST", "Person/ada/$account-disable", shut)
    answer = await ehr.ask("POST", UNDO)
    assert answer.status == 409
    assert "shut out" in answer.words[0]
    assert (await seen(world, clock))["bo"] == set()
    await ehr.ask("POST", "Person/ada/$account-enable", parameters(reason_Code="resolved"))
    assert (await ehr.ask("POST", UNDO)).status == 200
    assert (await seen(world, clock))["bo"] == {("Patient/old", "RelatedPerson/friend")}


async def test_undo_leaves_what_the_ehr_wrote_into_the_patients_since(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    await merged(ehr)
    for name in ("old", "new"):
        patient = (await ehr.get(f"Patient/{name}")).json
        await ehr.put(patient | {"gender": "female"})
    assert (await ehr.ask("POST", UNDO)).status == 200
    for name in ("old", "new"):
        patient = (await ehr.get(f"Patient/{name}")).json
        assert patient["gender"] == "female"
        assert "link" not in patient
        assert patient.get("active") is not False


async def test_of_racing_undos_one_is_carried_out(world: EmbeddedStore, ehr: Caller) -> None:
    assert world is not None
    await merged(ehr)
    answers = await asyncio.gather(*(ehr.ask("POST", UNDO) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 422, 422, 422]


async def test_another_practice_takes_nothing_back(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    await other_ehr.store(a_patient("old"))
    await merged(ehr)
    assert (await other_ehr.ask("POST", UNDO)).status == 422
    assert (await ehr.get("Patient/old")).json["active"] is False


@pytest.mark.parametrize("path", [MERGE, UNDO])
async def test_rights_are_asked_for_inside_the_transaction(
    world: EmbeddedStore, ehr: Caller, path: str
) -> None:
    if path == UNDO:
        await merged(ehr)
    before = await everything(world, ehr)
    gone = Caller(ehr.portal, replace(an_ehr(), token="no-such-token"))
    body = asked(accept_String="x") if path == MERGE else None
    assert (await gone.ask("POST", path, body)).status == 401
    assert await everything(world, ehr) == before


# ---------------------------------------------------------------- invitations to several records


@pytest.fixture
async def children(practice: EmbeddedStore, ehr: Caller) -> Json:
    """Nan is invited to Lia and to Kit; Kit has another Patient, ``kit-2``."""
    await ehr.store(a_patient("kit-2", birthDate="2020-03-01"))
    desk = staff(ehr.portal, "invite", "proxies", "administer")
    given: Json = {
        "kind": "guardian",
        "basis": "parent",
        "name": NAN,
        "relationship": FATHER,
        "sections": {"results": False},
        "channel": "desk",
        "patient": ["Patient/kit"],
    }
    assert practice is not None
    return await invited(desk, "lia", **given)


async def test_an_invitation_to_several_records_goes_over_with_its_proposed_grant(
    children: Json, practice: EmbeddedStore, ehr: Caller
) -> None:
    invitation = await the_invitation(practice, children["invitation"])
    before = await everything(practice, ehr)
    shown = values(await merged(ehr, "kit", "kit-2"))
    gains = {one["who"]["reference"] for one in listed(shown, "gains")}
    assert f"Task/{invitation.task}" in gains
    after = await the_invitation(practice, children["invitation"])
    assert after.patients == ("Patient/lia", "Patient/kit-2")
    assert after.persons == invitation.persons
    tasks = [(await ehr.get(f"Task/{one}")).json for one in (after.task, *after.tasks)]
    assert [one["for"]["reference"] for one in tasks] == ["Patient/lia", "Patient/kit-2"]
    grants = [(await ehr.get(one)).json for one in after.grants]
    assert {one["patient"]["reference"] for one in grants} == {"Patient/lia", "Patient/kit-2"}
    assert {one["status"] for one in grants} == {"proposed"}
    assert (await ehr.ask("POST", "Patient/kit/$undo-merge")).status == 200
    left = await everything(practice, ehr)
    # Read anew from the same Consent, in the zone that the fixture gave the practice afterwards.
    for one in (before, left):
        del one[f"grant/{DERM}/grant"]
    assert left == before


async def test_an_invitation_to_both_of_them_ends_with_what_it_proposed(
    children: Json, practice: EmbeddedStore, ehr: Caller
) -> None:
    await merged(ehr, "lia", "kit")
    after = await the_invitation(practice, children["invitation"])
    assert after.state == "revoked"
    assert {(await ehr.get(one)).json["status"] for one in after.grants} == {"rejected"}
    for one in (after.task, *after.tasks):
        assert (await ehr.get(f"Task/{one}")).json["status"] == "cancelled"
