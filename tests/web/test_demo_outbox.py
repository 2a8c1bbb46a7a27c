"""``/demo/outbox``: there in the demo, for its own machine, and nowhere else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_portal.app import Application
from fhir_portal.settings import load

BASE = "http://127.0.0.1:8000"


def leave(folder: Path, key: str, **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    content = {
        "key": key,
        "channel": "mail",
        "to": "mail:mara@people.example",
        "template": "test",
        "created": 1_900_000_000.0,
        "subject": f"Subject {key}",
        "text": "Text",
        "link": None,
        "code": None,
    } | more
    (folder / f"{key}.json").write_text(json.dumps(content), "utf-8")


@contextlib.asynccontextmanager
async def asking(
    folder: Path, *, base: str = BASE, client: str = "127.0.0.1", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    given = {"data": folder / "portal.db", "demo_outbox": True, "worker": False} | settings
    application = Application(load(**given))
    await application.open()
    try:
        transport = httpx.ASGITransport(application, client=(client, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url=base) as asked:
            yield asked
    finally:
        await application.close()


async def test_messages_are_shown_and_their_links_lead_on(tmp_path: Path) -> None:
    link = f"{BASE}/activate/x?a=1&b=2"
    leave(tmp_path / "outbox", "m1", text=f"Open\n\n{link}\n\nnow", link=link)
    leave(tmp_path / "outbox", "m2", channel="sms", to="sms:+13125550100", subject=None, text="Hi")
    async with asking(tmp_path) as client:
        answer = await client.get("/demo/outbox")
    assert answer.status_code == 200
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    escaped = link.replace("&", "&amp;")
    assert f'Open\n\n<a href="{escaped}">{escaped}</a>\n\nnow' in answer.text
    assert "mara@people.example" in answer.text
    assert "+13125550100" in answer.text
    assert "2030-03-17 17:46:40 UTC" in answer.text


async def test_without_messages_the_page_says_so(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        assert "There is nothing yet" in (await client.get("/demo/outbox")).text


@pytest.mark.parametrize("link", ["https://elsewhere.example/", "javascript:alert(1)", 7])
async def test_other_links_are_text_and_markup_is_text(tmp_path: Path, link: Any) -> None:
    leave(tmp_path / "outbox", "m1", text=f"{link} <script>alert(1)</script>", link=link)
    async with asking(tmp_path) as client:
        page = (await client.get("/demo/outbox")).text
    assert f'href="{link}"' not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "settings",
    [
        {"demo_outbox": False},
        {"base_url": "https://portal.example.org"},
    ],
)
async def test_elsewhere_there_is_no_such_page(tmp_path: Path, settings: dict[str, Any]) -> None:
    leave(tmp_path / "outbox", "m1")
    async with asking(tmp_path, **settings) as client:
        answer = await client.get("/demo/outbox")
    assert answer.status_code == 404
    assert "Subject" not in answer.text


@pytest.mark.parametrize(
    ("base", "client"),
    [
        (BASE, "192.0.2.7"),
        ("http://rebound.example:8000", "127.0.0.1"),
        ("http://192.0.2.7:8000", "127.0.0.1"),
    ],
)
async def test_another_machine_and_another_name_get_nothing(
    tmp_path: Path, base: str, client: str
) -> None:
    leave(tmp_path / "outbox", "m1")
    async with asking(tmp_path, base=base, client=client) as asked:
        answer = await asked.get("/demo/outbox")
        through_proxy = await asked.get("/demo/outbox", headers={"X-Forwarded-For": "192.0.2.9"})
    assert answer.status_code == through_proxy.status_code == 403
    assert "Subject" not in answer.text


async def test_behind_a_proxy_it_is_whom_the_proxy_serves_that_counts(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        answer = await client.get("/demo/outbox", headers={"X-Forwarded-For": "192.0.2.9"})
    assert answer.status_code == 403
