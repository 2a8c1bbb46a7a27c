"""``Patient/[id]/$share-link``: what a link shows is what its maker may see, then and there."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.spoken_code import SIGNS
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import FhirError
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations import open_share
from fhir_portal.operations.open_share import NoName, NotShared, WrongPasscode
from fhir_portal.operations.shared_files import content_of, health_file, health_files, listed
from fhir_portal.portal import Portal
from fhir_portal.smart.revocation import (
    disable_account,
    revoke_at_practice,
    revoke_family,
    revoke_from_record,
    revoke_where,
)
from fhir_portal.smart.sharing import (
    DAY,
    TICKET_SECONDS,
    TRIES,
    TRIES_ANYWHERE,
    TRIES_IN_ALL,
    ShareLink,
    ShareView,
    end_shares,
)
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    a_binary,
    a_client,
    a_document,
    a_grant,
    a_patient,
    a_practice,
    a_proxy,
    an_observation,
    assert_outcome,
    changed,
    keep,
    oneself,
)
from tests.charts import an_allergy, an_immunization
from tests.operations.charted import record
from tests.operations.sharing import (
    HERE,
    SCOPE,
    Link,
    a_link,
    as_ada,
    as_mother,
    ask,
    documents,
    keys_in,
    opened,
    parts,
    sections,
    shares_of,
    signed_in,
    stored,
)

__all__ = ["record"]

pytestmark = [
    pytest.mark.usefixtures("record"),
    pytest.mark.requirement("portal", "S2-15"),
]

SHARED_SECTIONS = ["results", "health-summary", "documents", "demographics", "immunizations"]


@pytest.fixture
async def mother(portal: Portal, ehr: Caller) -> Caller:
    """Ada in Kit's record, who may act in the documents of it and see a few sections more."""
    await ehr.store(
        a_grant("grant", of="kit", to="mother", sections=SHARED_SECTIONS, act=["documents"]),
        an_immunization("kit-flu", of="kit"),
        an_allergy("kit-nuts", of="kit"),
        an_observation("kit-pulse", of="kit"),
    )
    return await as_mother(portal)


async def summary_of(portal: Portal, link: Link) -> set[str]:
    """The keys of what the summary of a link holds now."""
    found = await opened(portal, link)
    body = await health_file(found.link, "summary/fhir", found.perform)
    assert body is not None
    return keys_in(json.loads(body))


async def is_over(portal: Portal, link: Link) -> bool:
    try:
        await opened(portal, link)
    except NotShared:
        return True
    return False


# --- what it is ----------------------------------------------------------------------------------


async def test_the_link_is_a_smart_health_link(portal: Portal) -> None:
    label = {"name": "label", "valueString": "For the skin clinic"}
    link = await a_link(await as_ada(portal), "ada", label)
    assert set(link.payload) == {"url", "key", "exp", "flag", "label", "v"}
    assert (link.payload["v"], link.payload["flag"]) == (1, "LP")
    assert link.payload["label"] == "For the skin clinic"
    assert link.payload["exp"] == START + 30 * DAY
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", link.payload["key"])
    assert len(link.payload["url"]) <= 128
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", link.handle)  # 256 bits
    assert link.link == f"{link.payload['url'].removesuffix('/manifest')}#{link.shlink}"


async def test_nothing_that_opens_it_is_stored(portal: Portal, store: EmbeddedStore) -> None:
    link = await a_link(await as_ada(portal))
    kept = [*await store.every(ShareLink), *await store.every(AccessToken)]
    text = repr(kept)
    for secret in (link.handle, link.payload["key"], link.passcode, link.passcode.replace("-", "")):
        assert secret not in text
    assert (await stored(portal, link)).passcode_hash.startswith("$argon2id$")


async def test_two_links_have_nothing_in_common(portal: Portal) -> None:
    ada = await as_ada(portal)
    one, other = await a_link(ada), await a_link(ada)
    assert one.handle != other.handle
    assert one.payload["key"] != other.payload["key"]
    assert one.passcode != other.passcode
    with pytest.raises(WrongPasscode):
        await shares_of(portal).open(
            one.handle, other.passcode, recipient="x", way="app", address=HERE
        )


async def test_the_token_of_a_link_opens_nothing_from_outside(portal: Portal) -> None:
    """Neither its key nor the link's own address is a bearer token."""
    link = await a_link(await as_ada(portal))
    token = (await stored(portal, link)).token
    for bearer in (token, link.handle, link.id):
        with pytest.raises(FhirError):
            await portal.callers.of(bearer)
    with pytest.raises(FhirError):
        await portal.callers.held(token)


# --- what it shows -------------------------------------------------------------------------------


async def test_it_shows_what_ada_sees(portal: Portal) -> None:
    link = await a_link(await as_ada(portal))
    found = await summary_of(portal, link)
    assert {"Patient/ada", "AllergyIntolerance/nuts", "Observation/pulse"} <= found
    shown = await opened(portal, link)
    names = [one.name for one in await listed(shown.link, shown.perform)]
    assert names == ["summary/html", "summary/pdf", "summary/fhir", "record/ccda"]
    for name, beginning in (
        ("summary/html", b"<!doctype html>"),
        ("summary/pdf", b"%PDF"),
        ("summary/fhir", b"{"),
        ("record/ccda", b"<?xml"),
    ):
        content = await content_of(shown.link, name, shown.perform)
        assert content is not None
        assert content[1].lower().startswith(beginning.lower()), name


async def test_sections_bound_it(portal: Portal) -> None:
    ada = await as_ada(portal)
    link = await a_link(ada, "ada", *sections("immunizations", "demographics"))
    assert await summary_of(portal, link) == {"Patient/ada", "Immunization/flu"}
    link = await a_link(ada, "ada", *sections("immunizations"))
    shown = await opened(portal, link)
    body = await health_file(shown.link, "summary/fhir", shown.perform)
    assert body is not None
    assert b"Quill" not in body  # who she is was not shared
    ccda = await content_of(shown.link, "record/ccda", shown.perform)
    assert ccda is not None
    assert b"Eczema" not in ccda[1]
    assert b"Influenza, preservative free" in ccda[1]


async def test_days_bound_it(portal: Portal) -> None:
    days = [
        {"name": "start", "valueDate": "2029-01-01"},
        {"name": "end", "valueDate": "2029-02-01"},
    ]
    link = await a_link(await as_ada(portal), "ada", *days)
    found = await summary_of(portal, link)
    assert "MedicationRequest/cream" in found
    assert not {"Observation/pulse", "Immunization/flu", "Procedure/biopsy"} & found


async def test_documents_are_shown_with_their_content(portal: Portal, ehr: Caller) -> None:
    await ehr.store(a_binary("letter"), a_document("letter", binary="letter"), a_document("other"))
    link = await a_link(await as_ada(portal), "ada", *documents("letter"))
    shown = await opened(portal, link)
    assert [one.name for one in await listed(shown.link, shown.perform)][-1] == "document/letter/0"
    assert await content_of(shown.link, "document/letter/0", shown.perform) == (
        "application/pdf",
        b"%PDF-1",
    )
    names = await health_files(shown.link, shown.perform)
    assert names == ["summary/fhir", "summary/page", "whole/letter"]
    body = await health_file(shown.link, "whole/letter", shown.perform)
    assert body is not None
    attachment = json.loads(body)["content"][0]["attachment"]
    assert (attachment["data"], attachment.get("url")) == ("JVBERi0x", None)
    for name in ("document/other/0", "document/letter/1", "document/letter/-1", "whole/other",
                 "summary/", "document/letter/²", "record/", "", "document//0"):  # fmt: skip
        if name != "record/":
            assert await content_of(shown.link, name, shown.perform) is None, name


async def test_without_the_summary_only_documents_are_shown(portal: Portal, ehr: Caller) -> None:
    await ehr.store(a_document("letter"))
    no = {"name": "summary", "valueBoolean": False}
    link = await a_link(await as_ada(portal), "ada", no, *documents("letter"))
    shown = await opened(portal, link)
    assert await health_files(shown.link, shown.perform) == ["whole/letter"]
    for name in ("summary/html", "summary/fhir", "record/ccda"):
        assert await content_of(shown.link, name, shown.perform) is None
    assert await health_file(shown.link, "summary/fhir", shown.perform) is None


async def test_a_label_that_is_put_later_narrows_it(portal: Portal, ehr: Caller) -> None:
    """Withheld by the practice: neither in the summary nor as a document, at the next use."""
    await ehr.store(a_document("letter"))
    link = await a_link(await as_ada(portal), "ada", *documents("letter"))
    before = await opened(portal, link)
    assert "AllergyIntolerance/nuts" in await summary_of(portal, link)
    await ehr.store(an_allergy(meta=WITHHELD), a_document("letter", meta=WITHHELD))
    assert "AllergyIntolerance/nuts" not in await summary_of(portal, link)
    for shown in (before, await opened(portal, link)):  # what was open already too
        assert await content_of(shown.link, "document/letter/0", shown.perform) is None
        assert await health_files(shown.link, shown.perform) == ["summary/fhir", "summary/page"]


# --- by whom -------------------------------------------------------------------------------------


async def test_a_proxy_shares_what_the_grant_shows(portal: Portal, mother: Caller) -> None:
    link = await a_link(mother, "kit")
    found = await summary_of(portal, link)
    assert {"Patient/kit", "Immunization/kit-flu", "AllergyIntolerance/kit-nuts"} <= found
    assert await summary_of(portal, await a_link(mother, "kit", *sections("immunizations"))) == {
        "Patient/kit",
        "Immunization/kit-flu",
    }


async def test_a_proxy_shares_no_more_than_the_grant_shows(portal: Portal, mother: Caller) -> None:
    for code in ("medications", "sharing", "nonsense"):
        answer = await ask(mother, "share-link", "kit", *sections(code))
        assert_outcome(answer, 422, "processing")
        assert answer.json["issue"][0]["expression"] == [
            "Parameters.parameter.where(name='section')"
        ]
    await ask_nothing_kept(portal)


async def ask_nothing_kept(portal: Portal) -> None:
    store: Any = portal.server.store
    assert await store.every(ShareLink) == []


async def test_a_proxy_never_shares_what_is_labelled(
    portal: Portal, ehr: Caller, mother: Caller
) -> None:
    link = await a_link(mother, "kit")
    await ehr.store(an_allergy("kit-nuts", of="kit", meta=RESTRICTED))
    assert "AllergyIntolerance/kit-nuts" not in await summary_of(portal, link)


@pytest.mark.parametrize("act", [["documents"], []])
async def test_a_grant_that_gets_narrower_narrows_the_link(
    portal: Portal, ehr: Caller, mother: Caller, act: list[str]
) -> None:
    """Fewer sections show less; who may no longer act in the documents shows nothing."""
    link = await a_link(mother, "kit")
    fewer = ["immunizations", "documents"]
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=fewer, act=act))
    if act:
        assert await summary_of(portal, link) == {"Patient/kit", "Immunization/kit-flu"}
    else:
        assert await is_over(portal, link)


@pytest.mark.parametrize(
    "change",
    [
        {"sections": ("results",), "act": ("results",)},
        {"sections": ("documents",), "act": ()},
        {"sections": ("documents",), "act": ("documents",), "until": START},
    ],
)
async def test_a_proxy_needs_to_act_in_the_documents(portal: Portal, change: Any) -> None:
    caller = Caller(portal, replace(a_proxy("kit", scope=SCOPE, **change), account="ada"))
    for code in ("share-link", "end-share"):
        given = [{"name": "id", "valueString": "x"}] if code == "end-share" else []
        assert (await ask(caller, code, "kit", *given)).status == 403


async def test_who_only_reads_does_not_share(portal: Portal) -> None:
    for scope in ("patient/*.rs", "patient/Patient.r patient/DocumentReference.cr?type=a|b"):
        caller = Caller(portal, replace(oneself(scope=scope), account="ada"))
        assert (await ask(caller, "share-link")).status == 403


async def test_an_expired_token_shares_nothing(portal: Portal) -> None:
    caller = Caller(portal, replace(oneself(), expires=START))
    assert (await ask(caller, "share-link")).status == 403


async def test_of_another_record_and_none_the_answer_is_one(portal: Portal, ehr: Caller) -> None:
    ada = await as_ada(portal)
    await ehr.store(a_document("bos", of="bo"), a_document("hidden", meta=WITHHELD))
    for code in ("share-link", "share-links"):
        answers = {(await ask(ada, code, own_id)).status for own_id in ("bo", "nobody", "ada-f")}
        assert answers == {404}
    words = []
    for own_id in ("bos", "hidden", "none"):
        answer = await ask(ada, "share-link", "ada", *documents(own_id))
        assert_outcome(answer, 404, "not-found")
        words.append(answer.body.replace(own_id.encode(), b"X"))
    assert len(set(words)) == 1
    await ask_nothing_kept(portal)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ([{"name": "start", "valueDate": "2029-02-02"}, {"name": "end", "valueDate": "2029-02-01"}],
         "end"),
        ([{"name": "summary", "valueBoolean": False}], "summary"),
        ([{"name": "expires", "valueDateTime": "2020-01-01"}], "expires"),
        ([{"name": "expires", "valueDateTime": "2999-01-01"}], "expires"),
        ([{"name": "label", "valueString": "x" * 81}], "label"),
        ([{"name": "label", "valueString": "a\nb"}], "label"),
        ([{"name": "document", "valueReference": {"reference": "Patient/ada"}}], "document"),
        ([{"name": "document", "valueReference": {"reference": "https://x.example/DocumentReference/1"}}],
         "document"),
        ([{"name": "document", "valueReference": {"display": "that one"}}], "document"),
        (documents(*(f"d{n}" for n in range(21))), "document"),
        (sections("documents; drop"), "section"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_by_name(
    portal: Portal, given: list[Any], name: str
) -> None:
    answer = await ask(await as_ada(portal), "share-link", "ada", *given)
    assert answer.status in {400, 422}, answer.body
    assert name in answer.json["issue"][0]["expression"][0]
    await ask_nothing_kept(portal)


async def test_a_document_outside_of_what_was_chosen_is_refused(
    portal: Portal, ehr: Caller
) -> None:
    await ehr.store(a_document("letter", date="2029-05-05T10:00:00Z"))
    ada = await as_ada(portal)
    for narrower in (sections("results"), [{"name": "end", "valueDate": "2029-05-04"}]):
        answer = await ask(ada, "share-link", "ada", *documents("letter"), *narrower)
        assert answer.status == 422
    await a_link(ada, "ada", *documents("letter"), {"name": "start", "valueDate": "2029-05-05"})


@pytest.mark.parametrize(
    ("zone", "day"), [("America/Chicago", "2029-05-05"), ("UTC", "2029-05-06")]
)
async def test_the_days_of_a_link_are_the_practices(
    portal: Portal, accounts: EmbeddedStore, ehr: Caller, zone: str, day: str
) -> None:
    """An evening there is the next day by UTC."""
    await keep(accounts, changed(a_practice(zone=zone), organization="Organization/derm"))
    evening = "2029-05-06T02:30:00Z"
    await ehr.store(
        a_document("letter", date=evening),
        an_observation("evening", effectiveDateTime=evening),
    )
    ada = await as_ada(portal)
    for other in ("2029-05-04", "2029-05-07", "2029-05-05" if zone == "UTC" else "2029-05-06"):
        days = [{"name": "start", "valueDate": other}, {"name": "end", "valueDate": other}]
        assert (await ask(ada, "share-link", "ada", *documents("letter"), *days)).status == 422
        assert "Observation/evening" not in await summary_of(
            portal, await a_link(ada, "ada", *days)
        )
    days = [{"name": "start", "valueDate": day}, {"name": "end", "valueDate": day}]
    link = await a_link(ada, "ada", *documents("letter"), *days)
    assert "Observation/evening" in await summary_of(portal, link)
    found = await opened(portal, link)
    assert "whole/letter" in await health_files(found.link, found.perform)


async def test_a_link_ends_at_the_practices_midnight(
    portal: Portal, accounts: EmbeddedStore
) -> None:
    await keep(accounts, a_practice(zone="America/Chicago"))
    ada = await as_ada(portal)
    link = await a_link(ada, "ada", {"name": "expires", "valueDateTime": "2030-03-30"})
    assert link.expires == "2030-03-30T05:00:00.000Z"


async def test_so_many_links_a_day_and_no_more(portal: Portal, clock: Clock) -> None:
    ada = await as_ada(portal)
    for _ in range(20):
        await a_link(ada)
    assert (await ask(ada, "share-link")).status == 409
    clock.advance(DAY + 1)
    await a_link(ada)


async def test_a_practice_can_switch_it_off(portal: Portal, store: EmbeddedStore) -> None:
    """Links that there are show nothing meanwhile."""
    ada = await as_ada(portal)
    link = await a_link(ada)
    await keep(store, PracticePolicy(key=DERM, sharing=False))
    assert_outcome(await ask(ada, "share-link"), 400, "not-supported")
    assert await is_over(portal, link)
    await keep(store, PracticePolicy(key=DERM, share_days=7))
    assert not await is_over(portal, link)
    answer = await ask(
        ada, "share-link", "ada", {"name": "expires", "valueDateTime": "2030-03-30T00:00:00Z"}
    )
    assert answer.status == 422
    assert (await a_link(ada)).payload["exp"] == START + 7 * DAY


# --- the passcode --------------------------------------------------------------------------------


async def test_a_passcode_is_taken_however_it_is_typed(portal: Portal) -> None:
    link = await a_link(await as_ada(portal))
    for typed in (link.passcode.lower(), link.passcode.replace("-", " "), f" {link.passcode} "):
        await shares_of(portal).open(
            link.handle,
            typed,
            recipient="x",
            way="app",
            address=HERE,
        )


async def test_wrong_passcodes_make_a_network_wait_and_end_nothing(
    portal: Portal, clock: Clock
) -> None:
    """Whoever has the address alone does not take the link from who was meant to have it."""
    link = await a_link(await as_ada(portal))
    left = []
    for _ in range(TRIES):
        with pytest.raises(WrongPasscode) as refused:
            await shares_of(portal).open(
                link.handle, "22222222", recipient="x", way="app", address=HERE
            )
        left.append(refused.value.remaining)
    assert left == list(range(TRIES - 1, -1, -1))
    for typed in ("22222222", link.passcode, ""):  # the right one waits, too: it would tell
        with pytest.raises(TooManyAttempts) as waits:
            await shares_of(portal).open(
                link.handle,
                typed,
                recipient="x",
                way="app",
                address=HERE,
            )
        assert 0 < waits.value.retry_after <= 3600
    await shares_of(portal).open(
        link.handle, link.passcode, recipient="x", way="app", address="198.51.100.7"
    )
    clock.advance(3600)
    await opened(portal, link)
    (told,) = parts(await ask(await as_ada(portal), "share-links", get=True), "link")
    assert (told["status"], told["wrong-tries"]) == ("active", TRIES)


async def test_all_networks_together_try_so_often_and_then_wait(
    portal: Portal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_share, "TRIES_ANYWHERE", 15)
    link, shares = await a_link(await as_ada(portal)), shares_of(portal)
    other = await a_link(await as_ada(portal))
    for number in range(15):
        with pytest.raises(WrongPasscode):
            await shares.open(
                link.handle, "22222222", recipient="x", way="app", address=f"198.51.100.{number}"
            )
    for of, waits in ((link, True), (other, False)):
        try:
            await shares.open(of.handle, of.passcode, recipient="x", way="app", address=HERE)
        except TooManyAttempts:
            assert waits
        else:
            assert not waits
    clock.advance(3600)
    await opened(portal, link)


async def test_a_network_guesses_no_faster_on_many_links(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_share, "_ALL_LINKS", "15 per hour")
    ada, shares = await as_ada(portal), shares_of(portal)
    links = [await a_link(ada) for _ in range(3)]
    for number in range(15):
        with pytest.raises(WrongPasscode):
            await shares.open(
                links[number // 10].handle, "22222222", recipient="x", way="app", address=HERE
            )
    with pytest.raises(TooManyAttempts):
        await shares.open(
            links[-1].handle, links[-1].passcode, recipient="x", way="app", address=HERE
        )


async def test_a_link_takes_so_many_in_all_its_life(
    portal: Portal, store: EmbeddedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMART Health Links: a total lifetime count of wrong passcodes, however slowly they come."""
    monkeypatch.setattr(open_share, "TRIES_IN_ALL", 25)
    link, shares = await a_link(await as_ada(portal)), shares_of(portal)
    for number in range(25):
        await opened(portal, link)
        with pytest.raises(WrongPasscode):
            await shares.open(link.handle, "22222222", recipient="x", way="app", address=HERE)
        if number % TRIES == TRIES - 1:
            clock.advance(3600)
    assert await is_over(portal, link)
    found = await stored(portal, link)
    assert (found.state(clock()), found.because, found.failed) == ("ended", "guessed", 25)
    assert await store.get(AccessToken, found.token) is None
    (told,) = parts(await ask(await as_ada(portal), "share-links", get=True), "link")
    assert (told["status"], told["wrong-tries"]) == ("ended", 25)


def test_guessing_is_hopeless() -> None:
    assert TRIES_IN_ALL / len(SIGNS) ** 8 < 1 / 6_000_000
    assert TRIES_IN_ALL >= 100 * TRIES_ANYWHERE, "it takes days to take a link from somebody"


async def test_a_missing_passcode_is_no_try(portal: Portal) -> None:
    link = await a_link(await as_ada(portal))
    for typed in ("", "   ", "-"):
        with pytest.raises(WrongPasscode) as refused:
            await shares_of(portal).open(
                link.handle,
                typed,
                recipient="x",
                way="app",
                address=HERE,
            )
        assert refused.value.remaining == TRIES
    assert (await stored(portal, link)).failed == 0


async def test_a_right_passcode_gives_its_try_back(portal: Portal) -> None:
    link = await a_link(await as_ada(portal))
    for _ in range(TRIES + 5):
        await opened(portal, link)
    found = await stored(portal, link)
    assert (found.failed, found.views) == (0, TRIES + 5)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "Dr. \x07", "a\u202eb"])
async def test_who_opens_it_says_who_they_are(portal: Portal, name: str) -> None:
    link = await a_link(await as_ada(portal))
    with pytest.raises(NoName):
        await shares_of(portal).open(
            link.handle, link.passcode, recipient=name, way="app", address=HERE
        )


@pytest.mark.parametrize("handle", ["", "x", "A" * 43, "../" * 14 + "A", "é" * 43])
async def test_an_address_that_is_none_is_answered_like_one_that_is_over(
    portal: Portal, handle: str
) -> None:
    with pytest.raises(NotShared):
        await shares_of(portal).open(
            handle,
            "22222222",
            recipient="x",
            way="app",
            address=HERE,
        )


# --- who sees that it was used -------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-45")
async def test_views_are_counted_and_told(portal: Portal, clock: Clock) -> None:
    ada = await as_ada(portal)
    link = await a_link(ada, "ada", {"name": "label", "valueString": "Clinic"})
    await opened(portal, link, recipient="Dr. Abel")
    clock.advance(60)
    await opened(portal, link, recipient="  Dr.   Berg ")
    answer = await ask(ada, "share-links", get=True)
    (told,) = parts(answer, "link")
    assert (told["id"], told["label"], told["status"]) == (link.id, "Clinic", "active")
    assert (told["views"], told["wrong-tries"]) == (2, 0)
    views = parts(answer, "view")
    assert [one["recipient"] for one in views] == ["Dr. Berg", "Dr. Abel"]
    assert {one["link"] for one in views} == {link.id}
    assert link.handle.encode() not in answer.body
    assert b"argon2" not in answer.body


async def test_uses_of_a_day_by_one_name_are_one_line(portal: Portal, clock: Clock) -> None:
    ada = await as_ada(portal)
    link = await a_link(ada)
    for name, seconds in (("Dr. Abel", 60), ("Dr. Abel", 60), ("Dr. Berg", 60), ("Dr. Abel", DAY)):
        clock.advance(seconds)
        await opened(portal, link, recipient=name)
    (told,) = parts(answer := await ask(ada, "share-links", get=True), "link")
    assert told["views"] == 4
    found = [(one["recipient"], one["times"]) for one in parts(answer, "view")]
    assert found == [("Dr. Abel", 1), ("Dr. Berg", 1), ("Dr. Abel", 2)]


async def test_many_names_make_the_list_no_longer(
    portal: Portal, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the passcode cannot fill the store; each use is counted all the same."""
    monkeypatch.setattr(open_share, "MOST_NAMED", 3)
    ada = await as_ada(portal)
    link = await a_link(ada)
    for number in range(20):
        await opened(portal, link, recipient=f"Dr. {number}")
    await opened(portal, link, recipient="Dr. 1")
    answer = await ask(ada, "share-links", get=True)
    assert parts(answer, "link")[0]["views"] == 21
    found = {one.get("recipient", ""): one["times"] for one in parts(answer, "view")}
    assert found == {"Dr. 0": 1, "Dr. 1": 2, "Dr. 2": 1, "": 17}
    assert len(await store.every(ShareView)) == 4


async def test_each_access_is_in_the_log_with_who_it_was(portal: Portal, ada: Caller) -> None:
    link = await a_link(await as_ada(portal))
    shown = await opened(portal, link, recipient="Dr. Abel")
    await content_of(shown.link, "summary/pdf", shown.perform)
    events = (await ada.get("AuditEvent?subtype=summary")).entries
    assert len(events) == 1
    agents = events[0]["agent"]
    (recipient,) = [one for one in agents if one.get("name") == "Dr. Abel"]
    assert recipient == {"type": {"text": "share link"}, "name": "Dr. Abel", "requestor": True}
    assert [one["requestor"] for one in agents].count(True) == 1
    assert {"reference": "Patient/ada"} in [one.get("who") for one in agents]
    made = (await ada.get("AuditEvent?subtype=share-link")).entries
    assert len(made) == 1
    assert all("name" not in one for one in made[0]["agent"])


async def test_a_proxy_is_told_of_own_links_alone(portal: Portal, mother: Caller) -> None:
    """Whose record it is is told of all, and may end all."""
    link = await a_link(mother, "kit")
    own = Caller(portal, replace(oneself("kit", scope=SCOPE), account="kits"))
    other = Caller(
        portal,
        replace(
            a_proxy("kit", "aunt", sections=("documents",), act=("documents",), scope=SCOPE),
            account="aunts",
        ),
    )
    assert [one["id"] for one in parts(await ask(own, "share-links", "kit"), "link")] == [link.id]
    assert [one["id"] for one in parts(await ask(mother, "share-links", "kit"), "link")] == [
        link.id
    ]
    assert parts(await ask(other, "share-links", "kit"), "link") == []
    given = {"name": "id", "valueString": link.id}
    refused = await ask(other, "end-share", "kit", given)
    nothing = await ask(other, "end-share", "kit", {"name": "id", "valueString": "nothing"})
    assert refused.status == 422
    assert refused.body == nothing.body
    assert not await is_over(portal, link)
    assert (await ask(own, "end-share", "kit", given)).status == 200
    assert await is_over(portal, link)


@pytest.mark.parametrize(("born", "told"), [("1960-02-01", 1), (None, 1), ("2028-01-01", 0)])
async def test_an_adult_is_told_that_somebody_shares_their_record(
    portal: Portal, ehr: Caller, store: EmbeddedStore, mother: Caller, born: str | None, told: int
) -> None:
    """As they are of an app: by a message that says nothing else, once. A child is not."""
    del mother
    await ehr.store(a_patient("kit", **({} if born is None else {"birthDate": born})))
    caller = await as_mother(portal, name="again")
    await a_link(caller, "kit")
    found = await store.every(OutboxMessage)
    assert [(one.to, one.template, one.values, one.link_for) for one in found] == [
        (f"record:{caller.auth.practice}/Patient/kit", "record-shared-by-proxy", {}, None)
    ] * told


async def test_of_what_they_share_themselves_nobody_is_told(
    portal: Portal, store: EmbeddedStore
) -> None:
    await a_link(await as_ada(portal))
    assert await store.every(OutboxMessage) == []


# --- its end -------------------------------------------------------------------------------------


async def test_it_ends_when_it_is_ended(portal: Portal) -> None:
    """At once: what was opened before shows nothing more. Ended again, nothing changes."""
    ada = await as_ada(portal)
    link = await a_link(ada)
    shares, shown = shares_of(portal), await opened(portal, link)
    tickets = [await shares.ticket(shown, "summary/html", sealed=one) for one in (True, False)]
    given = {"name": "id", "valueString": link.id}
    first = await ask(ada, "end-share", "ada", given)
    assert first.body == (await ask(ada, "end-share", "ada", given)).body
    assert await is_over(portal, link)
    for ticket in tickets:
        with pytest.raises(NotShared):
            await shares.redeem(ticket)
    with pytest.raises(FhirError):
        await content_of(shown.link, "summary/html", shown.perform)
    (told,) = parts(await ask(ada, "share-links"), "link")
    assert told["status"] == "ended"


async def test_it_ends_when_its_time_is_over(portal: Portal, clock: Clock) -> None:
    expires = {"name": "expires", "valueDateTime": "2030-03-20T00:00:00Z"}
    link = await a_link(await as_ada(portal), "ada", expires)
    clock.now = link.payload["exp"] - 1
    assert not await is_over(portal, link)
    clock.advance(1)
    assert await is_over(portal, link)


async def test_a_link_by_a_grant_lasts_no_longer_than_the_grant(
    portal: Portal, ehr: Caller, mother: Caller
) -> None:
    await ehr.store(
        a_grant(
            "grant",
            of="kit",
            to="mother",
            sections=SHARED_SECTIONS,
            act=["documents"],
            end="2030-03-25",
        )
    )
    link = await a_link(await as_mother(portal, name="again"), "kit")
    assert link.payload["exp"] < START + 30 * DAY
    del mother


async def test_tickets_last_a_while_and_those_of_apps_are_used_once(
    portal: Portal, clock: Clock
) -> None:
    link = await a_link(await as_ada(portal))
    shares, shown = shares_of(portal), await opened(portal, link)
    once = await shares.ticket(shown, "summary/fhir", sealed=True)
    often = await shares.ticket(shown, "summary/html", sealed=False)
    await shares.redeem(once)
    for _ in range(3):
        await shares.redeem(often)
    with pytest.raises(NotShared):
        await shares.redeem(once)
    assert TICKET_SECONDS <= 3600
    clock.advance(TICKET_SECONDS)
    with pytest.raises(NotShared):
        await shares.redeem(often)


def an_authorization(**more: Any) -> TokenFamily:
    given = {
        "key": "family",
        "expires": START + 90 * DAY,
        "issued": START,
        "rotated": START,
        "client_id": "app",
        "account": "ada",
        "patient": "Patient/ada",
        "practice": DERM,
        "fhir_user": "Patient/ada",
        "grant": None,
        "scope": f"offline_access {SCOPE}",
    }
    return TokenFamily(**given | more)  # type: ignore[arg-type]


ENDS = {
    "client": lambda one: revoke_where(one, "client_id", "app", now=START, because="x"),
    "account": lambda one: revoke_where(one, "account", "ada", now=START, because="x"),
    "record": lambda one: revoke_where(
        one, "patient", "Patient/ada", now=START, because="x", practice=DERM
    ),
    "practice": lambda one: revoke_at_practice(one, "ada", DERM, now=START, because="x"),
    "account at record": lambda one: revoke_from_record(
        one, "ada", DERM, "Patient/ada", now=START, because="x"
    ),
}


@pytest.mark.requirement("portal", "S4-20")
@pytest.mark.parametrize("way", ENDS)
async def test_it_ends_with_the_access_of_who_made_it(
    portal: Portal, store: EmbeddedStore, way: str
) -> None:
    """For good: when the account is let in again, the link stays over."""
    ada = await as_ada(portal)
    link = await a_link(ada)
    await store.transact(ENDS[way])
    assert await is_over(portal, link)
    assert (await stored(portal, link)).state(START) == "ended"


@pytest.mark.requirement("portal", "S4-20")
async def test_it_ends_with_the_account(portal: Portal, store: EmbeddedStore) -> None:
    link = await a_link(await as_ada(portal))
    await disable_account(store, "ada", now=START)
    assert await is_over(portal, link)
    account = await store.get(Account, "ada")
    assert account is not None
    await keep(store, changed(account, disabled=False))
    assert await is_over(portal, link)


async def test_other_links_stay(portal: Portal, store: EmbeddedStore, mother: Caller) -> None:
    """What she has at one record ends there, and not at another; of another practice neither."""
    own, kits = await a_link(await as_ada(portal)), await a_link(mother, "kit")
    await store.transact(
        lambda one: revoke_where(
            one, "grant", "Consent/grant", now=START, because="x", practice=DERM
        )
    )
    assert await is_over(portal, kits)
    assert not await is_over(portal, own)
    await store.transact(
        lambda one: revoke_at_practice(one, "ada", "family-medicine", now=START, because="x")
    )
    assert not await is_over(portal, own)


async def test_a_grant_that_is_ended_ends_it_for_good(
    portal: Portal, ehr: Caller, mother: Caller
) -> None:
    link = await a_link(mother, "kit")
    shown = await opened(portal, link)
    grant = a_grant("grant", of="kit", to="mother", sections=SHARED_SECTIONS, act=["documents"])
    await ehr.store(grant | {"status": "inactive"})
    assert await is_over(portal, link)
    with pytest.raises(FhirError):
        await content_of(shown.link, "summary/html", shown.perform)
    await ehr.store(grant)
    assert await is_over(portal, link)


async def test_a_link_that_an_app_made_ends_with_the_app(
    portal: Portal, store: EmbeddedStore
) -> None:
    await keep(store, an_authorization())
    auth = replace(oneself(scope=SCOPE), account="ada")
    app = await signed_in(portal, auth, "app", family="family")
    link = await a_link(app)
    assert not await is_over(portal, link)
    # A refresh deletes access tokens: the link is none of those.
    await store.transact(lambda one: one.delete(AccessToken, app.auth.token))
    assert not await is_over(portal, link)
    await store.transact(lambda one: revoke_family(one, "family", now=START, because="by-client"))
    assert await is_over(portal, link)


async def test_it_shows_no_more_than_the_app_may_see_now(
    portal: Portal, store: EmbeddedStore
) -> None:
    await keep(store, an_authorization())
    few = "patient/Patient.r patient/DocumentReference.cr patient/Immunization.rs"
    auth = replace(oneself(scope=few), account="ada")
    app = await signed_in(portal, auth, "app", family="family", scope=few)
    link = await a_link(app)
    assert await summary_of(portal, link) == {"Patient/ada", "Immunization/flu"}
    await keep(store, an_authorization(scope="offline_access patient/Patient.rs"))
    assert await summary_of(portal, link) == {"Patient/ada"}


@pytest.mark.parametrize(
    "change", [{"ended": START}, {"expires": START}, {"until": START}, {"scope": "patient/A.r"}]
)
async def test_it_does_not_outlive_the_authorization(
    portal: Portal, store: EmbeddedStore, clock: Clock, change: dict[str, Any]
) -> None:
    """However that came to its end. Without a right to read the record nothing is shown."""
    await keep(store, an_authorization())
    auth = replace(oneself(scope=SCOPE), account="ada")
    link = await a_link(await signed_in(portal, auth, "app", family="family"))
    await keep(store, an_authorization(**change))
    if "scope" in change:
        shown = await opened(portal, link)
        with pytest.raises(FhirError):
            await health_file(shown.link, "summary/fhir", shown.perform)
    else:
        assert await is_over(portal, link)
    del clock


async def test_an_app_that_may_not_stay_makes_links_that_do_not(
    portal: Portal, store: EmbeddedStore
) -> None:
    await keep(store, an_authorization(scope=SCOPE))
    auth = replace(oneself(scope=SCOPE), account="ada")
    app = await signed_in(portal, auth, "app", family="family", expires=START + 3600)
    assert (await a_link(app)).payload["exp"] == START + 3600


async def test_a_client_that_is_shut_out_takes_its_links_along(
    portal: Portal, store: EmbeddedStore
) -> None:
    link = await a_link(await as_ada(portal))
    await keep(store, a_client("app", disabled=True))
    assert await is_over(portal, link)


async def test_links_of_a_kind_are_counted_when_they_end(
    portal: Portal, store: EmbeddedStore
) -> None:
    ada = await as_ada(portal)
    await a_link(ada)
    await a_link(ada)

    async def end(transaction: Any) -> int:
        return await end_shares(transaction, "account", "ada", now=START, because="x")

    assert await store.transact(end) == 2
    assert await store.transact(end) == 0


async def test_a_record_that_is_no_more_shows_nothing(portal: Portal, ehr: Caller) -> None:
    link = await a_link(await as_ada(portal))
    await ehr.store(a_patient("ada") | {"active": False})
    assert not await is_over(portal, link)
    person = (await ehr.get("Person/ada")).json
    del person["link"]
    await ehr.store(person)
    assert await is_over(portal, link)


async def test_tries_at_the_same_moment_are_all_counted(portal: Portal) -> None:
    """However many come at once, no more are looked at than are left."""
    link = await a_link(await as_ada(portal))
    shares, looked = shares_of(portal), 0

    async def guess(number: int) -> str:
        nonlocal looked
        try:
            await shares.open(
                link.handle, f"2222222{number % 8 + 2}", recipient="x", way="app", address=HERE
            )
        except WrongPasscode:
            looked += 1
            return "wrong"
        except TooManyAttempts:
            return "waits"
        return "open"

    answers = await asyncio.gather(*(guess(number) for number in range(3 * TRIES)))
    assert answers.count("wrong") == looked == TRIES
    assert answers.count("waits") == 2 * TRIES
    assert (await stored(portal, link)).failed == TRIES
