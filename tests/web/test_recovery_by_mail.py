"""The whole application: what arrives in the mailbox is what its pages take."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from lxml import html

from fhir_portal.accounts.account import add_account, add_alias
from fhir_portal.accounts.contacts import Contact
from fhir_portal.app import DELIVERY_SECONDS, Application
from fhir_portal.records import RecordTransaction
from fhir_portal.settings import load
from tests.smart.world import password_hash

MAIL = "mara@people.example"


def form(page: httpx.Response, action: str) -> dict[str, str]:
    document: Any = html.document_fromstring(page.text)
    (found,) = [one for one in document.xpath("//form") if one.get("action") == action]
    return {one.get("name"): one.get("value") for one in found.xpath('.//input[@type="hidden"]')}


def files(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(one.read_text("utf-8")) for one in folder.glob("*.json")]


async def mailed(folder: Path, template: str, round_: asyncio.Event) -> list[dict[str, Any]]:
    """What lies in the outbox folder, once the rounds of delivery have brought it there."""
    async with asyncio.timeout(20):
        while not (found := [one for one in files(folder) if one["template"] == template]):
            round_.clear()
            await round_.wait()
    return found


async def test_the_code_in_the_mail_lets_the_owner_in(tmp_path: Path) -> None:
    round_ = asyncio.Event()

    async def pause(seconds: float) -> None:
        round_.set()
        await asyncio.sleep(0.01 if seconds == DELIVERY_SECONDS else seconds)

    settings = load(data=tmp_path / "portal.db")
    application = Application(settings, pause=pause)
    await application.open()
    try:
        store = application.store
        account = await add_account(
            store,
            username="mara",
            password_hash=password_hash(),
            now=0.0,
            random=secrets.token_bytes,
        )
        contact = Contact(
            key="c",
            account=account.key,
            medium="mail",
            value=MAIL,
            added=0.0,
            verified=1.0,
            recovers_from=1.0,
        )

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.insert(contact)
            await add_alias(transaction, account.key, MAIL)

        await store.transact(keep)
        transport = httpx.ASGITransport(application)
        base = "http://127.0.0.1:8000"
        async with httpx.AsyncClient(transport=transport, base_url=base) as browser:
            for want in ("username", "both"):
                begin = form(await browser.get(f"/recover?want={want}"), "/recover")
                answer = await browser.post("/recover", data={**begin, "name": MAIL})
            (letter,) = await mailed(settings.outbox_folder, "username-reminder", round_)
            assert "    mara\n" in letter["text"]
            (letter,) = await mailed(settings.outbox_folder, "one-time-code", round_)
            page = await browser.get(answer.headers["location"])
            given = {**form(page, "/recover/code"), "code": letter["code"]}
            answer = await browser.post("/recover/code", data=given)
            page = await browser.get(answer.headers["location"])
            chosen = {**form(page, "/recover/password"), "new_password": "seven quiet otters"}
            answer = await browser.post("/recover/password", data=chosen)
            assert answer.headers["location"] == "/signin"
        addressed = [one["to"] for one in files(settings.outbox_folder)]
        assert not any("nobody" in one for one in addressed)
    finally:
        await application.close()


pytestmark = pytest.mark.requirement("portal", "S0-50", "S0-52")
