"""What staff are asked before an app may use a practice's records, and who chooses a visit.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.relation import Relations, works
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.practice import Practice as PracticeRow
from fhir_portal.accounts.staff import add_staff
from fhir_portal.fhir.errors import FhirError, Unauthenticated
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.revocation import remove_staff
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import TokenFamily, token_hash
from fhir_portal.web.pages.apps import APPS, apps_router
from fhir_portal.web.site import take_in
from tests.builders import changed, keep
from tests.smart.launching import (
    AT_FAMILY,
    AT_SKIN,
    KIT,
    MARA,
    PATIENT_SCOPE,
    ROWAN,
    USER_SCOPE,
    Practice,
    approved,
    patient_app,
    put,
    staff_app,
    visit,
)
from tests.smart.world import (
    PASSWORD,
    App,
    Browser,
    assert_redirect_error,
    childs_record,
    own_record,
    query_of,
)
from tests.staff import a_level, a_membership
from tests.web.signing_in import submit

STANDALONE = "openid fhirUser offline_access user/Patient.rs user/Observation.rs"
VISIT_SCOPE = "launch/patient launch/encounter patient/Patient.rs patient/Encounter.rs"


@pytest.fixture
async def practice() -> AsyncIterator[Practice]:
    practice = await Practice.begin()
    world = practice.world
    take_in(
        world.app,
        apps_router(
            server=world.server,
            sessions=world.sessions,
            store=world.store,
            directory=world.directory,
            log=world.store.log,
            clock=world.clock,
            random=world.random,
        ),
    )
    yield practice
    world.close()


async def standalone(practice: Practice, **changes: Any) -> Browser:
    return await practice.opened(None, **{"scope": STANDALONE, **changes})


async def tokens_of(app: App, browser: Browser, **answer: Any) -> dict[str, Any]:
    response = await app.exchange(await approved(browser, **answer))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


# --- staff: consent ----------------------------------------------------------------------------


async def test_staff_are_told_whose_access_the_app_gets_and_what_it_was_opened_on(
    practice: Practice,
) -> None:
    browser = await practice.opened(await practice.launch())
    assert browser.heading == "Allow Heart Diary to use the records of Hillside Dermatology?"
    assert "Rowan Vale, staff of Hillside Dermatology" in browser.text
    (patient,) = browser.document.xpath('//dt[text()="Patient"]/following-sibling::dd')
    assert "Mara Quill" in patient.text_content()
    assert "/oauth/record?" not in browser.page.text


async def test_a_launch_with_patient_scopes_says_that_it_is_one_record(practice: Practice) -> None:
    app = await patient_app(practice.world)
    browser = await practice.opened(await practice.launch(), app=app, scope=PATIENT_SCOPE)
    assert browser.heading == "Allow Heart Diary to use the record of Mara Quill?"
    assert "You use it as staff. The app gets this record and no other." in browser.text
    assert "/oauth/record?" not in browser.page.text


async def test_staff_untick_limit_and_end_what_an_app_gets(practice: Practice) -> None:
    """Planted fault: ``decide`` drops the end that was chosen."""
    browser = await practice.opened(await practice.launch())
    tokens = await tokens_of(
        practice.app,
        browser,
        drop=("user/Patient.rs", "offline_access"),
        until="2030-03-17",
        data_from="2029-01-01",
    )
    assert "refresh_token" not in tokens
    scope = ScopeSet.parse(tokens["scope"])
    assert [str(one) for one in scope.resource] == [
        "user/Observation.rs?date=ge2029-01-01",
        "user/Encounter.rs?date=ge2029-01-01",
    ]
    (ends,) = tokens["fhirContext"]
    assert ends["identifier"]["value"] == "2030-03-18T00:00:00Z"
    assert (await practice.world.only_family()).until is not None


async def test_a_scope_that_was_not_offered_cannot_be_ticked(practice: Practice) -> None:
    browser = await practice.opened(await practice.launch(), scope="launch user/Patient.cruds")
    assert browser.boxes() == ["user/Patient.rus"]  # u is for `$merge`, and for nothing else
    for bent in ("user/Patient.cruds", "patient/Patient.rs", "user/Condition.rs"):
        refused = await browser.http.post(
            "/oauth/consent", data={**hidden(browser), "decision": "approve", "scope": bent}
        )
        assert refused.status_code == 400
    assert await practice.world.store.every(AuthorizationCode) == []


def hidden(browser: Browser) -> dict[str, str]:
    found = browser.form.xpath('.//input[@type="hidden"]')
    return {one.get("name"): one.get("value") for one in found}


async def test_the_answer_is_about_what_the_page_showed(practice: Practice) -> None:
    """Planted fault: the right is left out of ``about``."""
    browser = await practice.opened(await practice.launch())
    fields = hidden(browser)
    practice.posts[practice.rowan.key] = (replace(AT_SKIN, fhir_user="Practitioner/other"),)
    response = await browser.http.post(
        "/oauth/consent", data={**fields, "decision": "approve", "scope": "user/Patient.rs"}
    )
    assert response.status_code == 400
    assert "has changed" in response.text
    assert await practice.world.store.every(AuthorizationCode) == []


@pytest.mark.parametrize("how", ["cross-site", "no token", "another form's token"])
@pytest.mark.parametrize("path", ["/oauth/consent", "/oauth/practice", "/oauth/visit"])
async def test_forms_posted_from_elsewhere_are_refused(
    practice: Practice, how: str, path: str
) -> None:
    """Planted fault: ``_picked`` does not check the form."""
    practice.posts[practice.rowan.key] = (AT_SKIN, AT_FAMILY)
    browser = await practice.opened(await practice.launch())
    fields, headers = hidden(browser), {}
    about = fields["form_token"].partition(".")[2]
    answer = {"decision": "approve", "scope": "user/Patient.rs"}
    if path == "/oauth/practice":
        browser = await standalone(practice)
        fields, answer = hidden(browser), {"practice": "skin"}
    if path == "/oauth/visit":
        fields, answer = {**fields}, {"encounter": "Encounter/visit-1"}
    if how == "cross-site":
        headers = {"Sec-Fetch-Site": "cross-site"}
    elif how == "no token":
        del fields["form_token"]
    else:
        fields["form_token"] = f"{'x' * 43}.{about}"
    response = await browser.http.post(path, data={**fields, **answer}, headers=headers)
    assert response.status_code == 403
    assert "out of date" in response.text
    assert await practice.world.store.every(AuthorizationCode) == []


async def test_nobody_is_told_of_what_staff_open(practice: Practice) -> None:
    """Planted fault: `made_by_proxy` tells of every record that is not the own."""
    app = await patient_app(practice.world)
    await practice.tokens(await practice.launch(), app=app, scope=PATIENT_SCOPE)
    await practice.tokens(await practice.launch())
    assert await practice.world.store.every(OutboxMessage) == []


# --- staff: standalone -------------------------------------------------------------------------


async def test_the_only_practice_is_taken(practice: Practice) -> None:
    browser = await standalone(practice)
    assert browser.heading == "Allow Heart Diary to use the records of Hillside Dermatology?"
    tokens = await tokens_of(practice.app, browser)
    assert tokens["scope"] == STANDALONE
    assert tokens["fhirUser"].endswith("/fhir/Practitioner/rowan")
    assert not tokens.keys() & {"patient", "encounter", "need_patient_banner", "fhirContext"}
    family = await practice.world.only_family()
    assert (family.context, family.practice, family.patient) == ("user", "skin", "")


async def test_staff_of_several_practices_choose_one(practice: Practice) -> None:
    practice.posts[practice.rowan.key] = (AT_SKIN, AT_FAMILY)
    browser = await standalone(practice)
    assert browser.heading == "Which practice?"
    radios = browser.document.xpath('//input[@name="practice"]')
    assert [one.get("value") for one in radios] == ["skin", "family"]
    assert not [one for one in radios if one.get("checked")]
    unchosen = await browser.submit()
    assert unchosen.status_code == 400
    assert "Choose a practice." in browser.text
    await browser.submit({"practice": "family"})
    assert browser.heading == "Allow Heart Diary to use the records of Brook Family Medicine?"
    await browser.open(browser.document.xpath('//a[contains(@href, "practice")]')[0].get("href"))
    assert browser.heading == "Which practice?"
    await browser.submit({"practice": "family"})
    tokens = await tokens_of(practice.app, browser)
    assert tokens["fhirUser"].endswith("/fhir/Practitioner/rv")
    assert (await practice.world.only_family()).access == ("family", "", "Practitioner/rv", None)


@pytest.mark.parametrize("posted", ["elsewhere", "family", ""])
async def test_only_an_offered_practice_can_be_chosen(practice: Practice, posted: str) -> None:
    """Planted faults: ``staff_at``, or the approval, is not asked in ``choose_practice``."""
    other = replace(AT_FAMILY, practice="third", practice_name="Third Practice")
    practice.posts[practice.rowan.key] = (AT_SKIN, AT_FAMILY, other)
    app = await staff_app(practice.world, "narrow", approved_at=["skin", "third", "elsewhere"])
    browser = await standalone(practice, app=app)
    radios = browser.document.xpath('//input[@name="practice"]')
    assert [one.get("value") for one in radios] == ["skin", "third"]
    refused = await browser.submit({"practice": posted})
    assert refused.status_code == (403 if posted else 400)
    assert await practice.world.store.every(AuthorizationCode) == []


async def test_who_is_on_no_staff_is_told_so(practice: Practice) -> None:
    browser = practice.world.browser()
    await browser.authorize(practice.app, scope=STANDALONE)
    await browser.sign_in()
    assert browser.page.status_code == 403
    assert "is not on the staff of one" in browser.text
    assert_redirect_error(await browser.submit({"decision": "deny"}), "access_denied")


async def test_an_app_that_no_practice_of_theirs_approved_gets_nothing(practice: Practice) -> None:
    """Planted fault: ``serves_staff_of`` is not asked in ``_right_of_staff``."""
    app = await staff_app(practice.world, "elsewhere", approved_at=["family"])
    browser = await standalone(practice, app=app)
    assert browser.page.status_code == 403
    assert "has not approved" in browser.text


async def test_a_patient_is_not_chosen_with_user_scopes(practice: Practice) -> None:
    """Planted fault: ``launch/patient`` is kept by ``askable`` with ``user/`` scopes."""
    browser = await standalone(practice, scope=f"launch/patient launch/encounter {STANDALONE}")
    tokens = await tokens_of(practice.app, browser)
    assert tokens["scope"] == STANDALONE
    assert "patient" not in tokens


async def test_a_practice_is_not_chosen_for_a_launch_nor_for_a_record(practice: Practice) -> None:
    """Planted fault: ``choose_practice`` and ``choose_records`` take any request."""
    practice.posts[practice.rowan.key] = (AT_SKIN, AT_FAMILY)
    picker = await standalone(practice)
    world = practice.world
    opened = await world.sessions.open()
    opened = await world.sessions.sign_in(opened.visitor.session, practice.rowan)
    launch = await practice.launch()
    for parameters in (
        practice.app.parameters(scope=USER_SCOPE, launch=launch),
        (await patient_app(world)).parameters(scope="launch/patient patient/Patient.rs"),
    ):
        handle = await world.server.begin(list(parameters.items()))
        request = await world.server.resume(handle, opened.visitor.browser)
        with pytest.raises(Exception, match="no practice to choose"):
            await world.server.choose_practice(request, opened.visitor, "family")
    request = await world.server.resume(
        await world.server.begin(
            list(practice.app.parameters(scope=USER_SCOPE, launch=launch).items())
        ),
        opened.visitor.browser,
    )
    with pytest.raises(Exception, match="no record to choose"):
        await world.server.choose_record(request, opened.visitor, MARA)
    assert picker.heading == "Which practice?"


# --- visits ------------------------------------------------------------------------------------


async def at_visit(practice: Practice, app: App, scope: str = VISIT_SCOPE, **more: Any) -> Browser:
    browser = practice.world.browser()
    await browser.authorize(app, scope=scope, **more)
    return await signed_in(browser)


async def signed_in(browser: Browser) -> Browser:
    await browser.sign_in()
    return browser


async def test_the_only_visit_is_taken_and_the_page_says_so(practice: Practice) -> None:
    app = await patient_app(practice.world)
    browser = await at_visit(practice, app)
    assert browser.heading == "Allow Heart Diary to use your record?"
    assert "1 March 2030: Skin check" in browser.text
    assert "/oauth/visit?" not in browser.page.text
    tokens = await tokens_of(app, browser)
    assert tokens["scope"] == VISIT_SCOPE
    assert (tokens["patient"], tokens["encounter"]) == ("mara", "visit-1")
    shown = (await app.post("/oauth/introspect", {"token": tokens["access_token"]})).json()
    assert shown["encounter"] == "visit-1"


async def test_of_several_visits_one_is_chosen(practice: Practice) -> None:
    await put(practice.world, "skin", visit("visit-2", "2030-03-05", "Follow-up"))
    app = await patient_app(practice.world)
    browser = await at_visit(practice, app)
    assert browser.heading == "Which visit?"
    radios = browser.document.xpath('//input[@name="encounter"]')
    assert [one.get("value") for one in radios] == ["Encounter/visit-2", "Encounter/visit-1"]
    labels = [browser.document.xpath(f'//label[@for="{one.get("id")}"]') for one in radios]
    assert [label[0].text_content().strip() for label in labels] == [
        "5 March 2030: Follow-up",
        "1 March 2030: Skin check",
    ]
    assert browser.document.xpath("//fieldset/legend")
    assert (await browser.submit()).status_code == 400
    assert browser.document.xpath('//*[@role="alert"]')
    await browser.submit({"encounter": "Encounter/visit-1"})
    assert "1 March 2030: Skin check" in browser.text
    change = browser.document.xpath('//a[contains(@href, "/oauth/visit")]')[0].get("href")
    await browser.open(change)
    assert browser.document.xpath("//input[@checked]/@value") == ["Encounter/visit-1"]
    await browser.submit({"encounter": "Encounter/visit-2"})
    assert (await tokens_of(app, browser))["encounter"] == "visit-2"


@pytest.mark.parametrize("posted", ["Encounter/kits-visit", "Encounter/nothing", "visit-1", "x"])
async def test_only_an_offered_visit_can_be_chosen(practice: Practice, posted: str) -> None:
    """Planted fault: ``choose_visit`` does not look whether it was offered."""
    await put(practice.world, "skin", visit("visit-2", "2030-03-05", "Follow-up"))
    browser = await at_visit(practice, await patient_app(practice.world))
    refused = await browser.submit({"encounter": posted})
    assert refused.status_code == 403
    assert await practice.world.store.every(AuthorizationCode) == []


async def test_a_proxy_chooses_from_what_they_may_see(practice: Practice) -> None:
    """Planted fault: neither the offer nor the search asks for the sections of the grant."""
    world = practice.world
    kits = replace(
        childs_record(),
        patient=KIT,
        practice="skin",
        patient_name="Kit Quill",
        fhir_user="RelatedPerson/mara-for-kit",
        grant="Consent/kit-to-mara",
    )
    app = await patient_app(world)
    for sections, told in ((frozenset({"demographics"}), None), (frozenset({"visits"}), "x")):
        world.directory.access[world.mara.key] = (replace(kits, sections=sections),)
        scope = "launch/patient launch/encounter patient/Patient.rs patient/Encounter.rs"
        browser = world.browser()
        await browser.authorize(app, scope=scope)
        await browser.sign_in()
        await browser.submit({"record": KIT})
        assert ("First visit" in browser.text) == (told is not None)
        if told is None:
            tokens = await tokens_of(app, browser)
            assert "encounter" not in tokens
            assert "launch/encounter" not in tokens["scope"].split()


@pytest.mark.parametrize(
    "scope",
    [
        "launch/patient launch/encounter patient/Patient.rs",
        "launch/patient launch/encounter patient/Patient.rs patient/Encounter.r",
        "launch/patient launch/encounter patient/Patient.rs patient/Encounter.s",
    ],
)
async def test_without_the_right_to_see_visits_none_is_told(practice: Practice, scope: str) -> None:
    """Planted fault: neither ``sees_visits`` nor ``decide`` asks."""
    app = await patient_app(practice.world)
    browser = await at_visit(practice, app, scope)
    tokens = await tokens_of(app, browser)
    assert "encounter" not in tokens
    assert "launch/encounter" not in tokens["scope"].split()


async def test_visits_are_those_that_a_granular_scope_lets_through(practice: Practice) -> None:
    """Planted fault: the visits are searched by ``patient/Encounter.rs`` whatever was asked."""
    planned = {**visit("planned", "2031-01-01", "Surgery"), "status": "planned"}
    await put(practice.world, "skin", planned)
    app = await patient_app(practice.world)
    scope = "launch/patient launch/encounter patient/Encounter.rs?status=planned"
    browser = await at_visit(practice, app, scope)
    assert "1 January 2031: Surgery" in browser.text
    ticked = "patient/Encounter.rs?status=planned"
    response = await browser.submit({"decision": "approve", "scope": ticked})
    code = query_of(response.headers["location"])["code"]
    assert (await app.exchange(code)).json()["encounter"] == "planned"


async def test_who_takes_visits_away_takes_the_visit_away(practice: Practice) -> None:
    """Planted fault: ``decide`` keeps the visit whatever is ticked."""
    app = await patient_app(practice.world)
    browser = await at_visit(practice, app)
    tokens = await tokens_of(app, browser, drop=("patient/Encounter.rs",))
    assert tokens["scope"] == "launch/patient patient/Patient.rs"
    assert "encounter" not in tokens


async def test_without_visits_there_is_nothing_to_choose(practice: Practice) -> None:
    world = practice.world
    await put(
        world, "skin", {"resourceType": "Patient", "id": "new", "name": [{"text": "New Quill"}]}
    )
    world.directory.access[world.mara.key] = (own_record("Patient/new", "New Quill"),)
    app = await patient_app(world)
    tokens = await tokens_of(app, await at_visit(practice, app))
    assert tokens["scope"] == "launch/patient patient/Patient.rs patient/Encounter.rs"


async def test_what_the_page_reads_is_in_the_records_log(practice: Practice) -> None:
    await at_visit(practice, await patient_app(practice.world))
    rows = await practice.world.store.log.of_record(
        "skin", "mara", agent=MARA, told=True, low=0, high=2**60, before=None, limit=10
    )
    (row,) = {one.row for one in rows}
    assert (row.interaction, row.what, row.client) == ("search-type", "Encounter", "portal")
    assert (row.context, row.account) == ("patient", practice.world.mara.key)


async def test_with_several_visits_nobody_can_be_left_unasked(practice: Practice) -> None:
    app = await patient_app(practice.world)
    scope = f"{VISIT_SCOPE} offline_access"
    browser = await at_visit(practice, app, scope=scope)
    await approved(browser)
    await app.exchange(query_of(browser.page.headers["location"])["code"])
    await browser.authorize(app, scope=scope, prompt="none")
    assert "code" in query_of(browser.page.headers["location"])
    await put(practice.world, "skin", visit("visit-2", "2030-03-05", "Follow-up"))
    await browser.authorize(app, scope=scope, prompt="none")
    assert_redirect_error(browser.page, "interaction_required")


# --- what the tokens read -----------------------------------------------------------------------


@pytest.mark.requirement("inferno", "S36", "G6", "G7", "G12")
@pytest.mark.parametrize(
    ("scope", "kits"), [(USER_SCOPE, 200), (f"{PATIENT_SCOPE} patient/Encounter.rs", 404)]
)
async def test_the_token_reads_patient_visit_and_user(
    practice: Practice, monkeypatch: pytest.MonkeyPatch, scope: str, kits: int
) -> None:
    """Planted fault: a staff's ``patient/`` token gets the context ``user``."""
    world, rowan = practice.world, practice.rowan.key
    relations = Relations(world.store, world.clock)
    for name in (
        "records_of",
        "record_of",
        "staff_of",
        "staff_at",
        "staff_record_of",
        "staff_bound_to",
    ):
        monkeypatch.setattr(world.directory, name, getattr(relations, name))

    async def begin(transaction: Any) -> None:
        await transaction.put(PracticeRow(key="skin", name="Hillside Dermatology"))
        await add_staff(
            transaction,
            account=rowan,
            practice="skin",
            practitioner="Practitioner/rowan",
            now=world.clock(),
            by=OPERATOR,
        )

    await world.store.transact(begin)
    app = practice.app if scope == USER_SCOPE else await patient_app(world)
    tokens = await practice.tokens(await practice.launch(), app=app, scope=scope)
    assert tokens["scope"] == scope
    auth = await world.portal.callers.of(tokens["access_token"])

    async def read(reference: str) -> int:
        name, _, own_id = reference.partition("/")
        try:
            return (await world.portal.perform(FhirRequest("read", name, own_id), auth)).status
        except FhirError as error:
            return error.status

    for told in (f"Patient/{tokens['patient']}", f"Encounter/{tokens['encounter']}"):
        assert await read(told) == 200
    assert await read(tokens["fhirUser"].partition("/fhir/")[2]) == 200
    assert await read(KIT) == kits
    assert await read("Patient/elsewhere") == 404
    await remove_staff(
        world.store, account=rowan, practice="skin", now=world.clock(), by=OPERATOR, works=works
    )
    with pytest.raises(Unauthenticated):
        await world.portal.callers.of(tokens["access_token"])


async def test_a_bound_token_of_staff_stands_while_their_level_lacks_view(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/fhir`, introspection and refresh agree; what an app was given conveys what the level does.

    Once they are off the staff it ends.
    """
    world, rowan = practice.world, practice.rowan.key
    relations = Relations(world.store, world.clock)
    for name in ("records_of", "record_of", "staff_of", "staff_at", "staff_record_of"):
        monkeypatch.setattr(world.directory, name, getattr(relations, name))
    monkeypatch.setattr(world.directory, "staff_bound_to", relations.staff_bound_to)
    member = a_membership(rowan, "skin", "rowan", "read")
    await keep(world.store, PracticeRow(key="skin", name="Hillside Dermatology"), member)
    await keep(world.store, a_level("blind", "invite", practice="skin"))
    app = await patient_app(world)
    scope = f"{PATIENT_SCOPE} offline_access"
    tokens = await practice.tokens(await practice.launch(), app=app, scope=scope)

    async def shown(token: str) -> Any:
        return (await app.post("/oauth/introspect", {"token": token})).json()

    async def read() -> int:
        try:
            auth = await world.portal.callers.of(tokens["access_token"])
            return (await world.portal.perform(FhirRequest("read", "Patient", "mara"), auth)).status
        except FhirError as error:
            return error.status

    for level, status in (("read", 200), ("blind", 403), ("read", 200)):
        await keep(world.store, changed(member, level=level))
        for _ in range(2):
            assert await read() == status
            for kind in ("access_token", "refresh_token"):
                assert (await shown(tokens[kind]))["active"] is True
            response = await app.refresh(tokens["refresh_token"])
            assert response.status_code == 200, response.text
            tokens = response.json()
            assert "Mara" not in response.text
    await remove_staff(
        world.store, account=rowan, practice="skin", now=world.clock(), by=OPERATOR, works=works
    )
    assert await read() == 401
    assert await shown(tokens["refresh_token"]) == {"active": False}
    assert (await app.refresh(tokens["refresh_token"])).status_code == 400


# --- the page of connected apps ----------------------------------------------------------------


async def at_apps(practice: Practice, username: str) -> Browser:
    browser = practice.world.browser()
    await browser.open(APPS)
    await submit(browser, "/signin", username=username, password=PASSWORD)
    assert browser.heading == "Connected apps", browser.text
    return browser


async def test_staff_see_and_end_what_they_connected_and_patients_do_not(
    practice: Practice,
) -> None:
    """Planted fault: families of staff are among those of others on the own record."""
    app = await patient_app(practice.world)
    of_one = await practice.tokens(await practice.launch(), app=app, scope=PATIENT_SCOPE)
    of_all = await practice.tokens(await practice.launch())
    kits = await practice.launch(patient=KIT, encounter=None)
    again = await practice.tokens(kits)
    patients = await at_apps(practice, "mara@example.org")
    assert "No app is connected to your records." in patients.text
    browser = await at_apps(practice, ROWAN)
    headings = [" ".join(one.text_content().split()) for one in browser.document.xpath("//h2")]
    assert sorted(headings) == [
        "Heart Diary as staff of skin",
        "Heart Diary for Mara Quill",
    ]
    assert "you use it as staff" in browser.text
    ends = [form.get("action") for form in browser.document.xpath("//form")]
    assert len(ends) == 2
    address = next(
        one.xpath(".//form/@action")[0]
        for one in browser.document.xpath("//section")
        if "as staff of skin" in one.text_content()
    )
    refused = await patients.http.get(address.removesuffix("/end"))
    assert refused.status_code == 404
    await submit(browser, address)
    assert browser.heading == "Receipt: access ended"
    assert "What you may see as staff" in browser.text
    world = practice.world
    assert not await world.is_alive(of_all["access_token"])
    assert not await world.is_alive(again["access_token"])
    assert await world.is_alive(of_one["access_token"])
    alive = [one for one in await world.store.every(TokenFamily) if one.ended is None]
    assert [one.client_id for one in alive] == ["diary"]


async def test_what_somebody_connected_for_themselves_is_apart_from_their_work(
    practice: Practice,
) -> None:
    """Planted fault: ``is_of_staff`` is left out of `_key_of`."""
    world, app = practice.world, await patient_app(practice.world)
    world.directory.access[practice.rowan.key] = (own_record(),)
    own = await practice.tokens(None, app=app, scope="launch/patient patient/Patient.rs")
    launch = await practice.launch(fhirUser="Practitioner/rowan")
    work = await practice.tokens(launch, app=app, scope=PATIENT_SCOPE)
    browser = await at_apps(practice, ROWAN)
    sections = [one for one in browser.document.xpath("//section") if one.xpath(".//form")]
    assert len(sections) == 2
    (address,) = [
        one.xpath(".//form/@action")[0] for one in sections if "as staff" in one.text_content()
    ]
    await submit(browser, address)
    assert await world.is_alive(own["access_token"])
    assert not await world.is_alive(work["access_token"])
    assert token_hash(own["access_token"]) != token_hash(work["access_token"])
