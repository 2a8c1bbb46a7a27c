"""The whole show: builds the world, serves it by two processes, walks, and scans."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fhir_portal.accounts.invitation import Invitation, InvitationSecrets
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, Challenge, OneTimeCodes
from fhir_portal.app import Application
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.settings import Settings, load
from fhir_portal.web.notify import MAIL_BOUNCE, SMS_STATUS
from tests.end_to_end.canary.evidence import Evidence, gateway, logged, stored
from tests.end_to_end.canary.marked import build
from tests.end_to_end.canary.scan import Canaries, Finding, Text, scan
from tests.end_to_end.canary.walk import Walk
from tests.end_to_end.running import Running, settings_of
from tests.notify.receiver import receiving
from tests.places import Place

_PATIENCE = 60.0
_SECRET = "the gateway and this server know it"


@dataclass
class Outcome:
    """The canaries, where they were looked for, and where they were found."""

    canaries: Canaries
    texts: list[Text]
    evidence: Evidence
    found: list[Finding] = field(default_factory=list)


async def run(
    folder: Path,
    place: Place,
    *,
    say: Callable[[str], None] = lambda _: None,
    short: bool = False,
) -> Outcome:
    """Walk through a marked world at a place, and scan what that leaves."""
    canaries = Canaries()
    evidence = Evidence(canaries)
    server = Running(folder, place, workers=2)
    settings = {**settings_of(folder, place), "port": server.port}
    world = await build(load(**settings), canaries)
    with contextlib.ExitStack() as open_:
        receiver = open_.enter_context(receiving())
        evidence.mails = receiver.taken
        sms = open_.enter_context(gateway(evidence.sms))
        server.settings = {
            "log_level": "debug",
            "smtp_host": "127.0.0.1",
            "smtp_port": receiver.port,
            "smtp_tls": "none",
            "smtp_from": "no-reply@portal.example",
            "smtp_bounce_secret": canaries.add("server secret", f"bounces: {_SECRET}"),
            "sms_url": f"http://127.0.0.1:{sms}/sms",
            "sms_secret": canaries.add("server secret", _SECRET),
        }
        gateways = {
            MAIL_BOUNCE: server.settings["smtp_bounce_secret"],
            SMS_STATUS: server.settings["sms_secret"],
        }
        walking = Walk(server.base, world, evidence, say, short=short, gateways=gateways)
        try:
            await server.start()
            walking.everything()
            await _let_the_rest_arrive(place)
        finally:
            walking.close()
            server.stop()
    await _derived(load(**settings), canaries)
    store = await place.open()
    try:
        texts = [*logged(folder), *await evidence.of_messages(store), *evidence.of_exchanges()]
    finally:
        await store.aclose()
    texts += await stored(place, folder)
    outcome = Outcome(canaries, texts, evidence)
    say("scan")
    outcome.found = scan(canaries, texts)
    return outcome


async def _let_the_rest_arrive(place: Place) -> None:
    """Wait until the outbox holds nothing that is due."""
    store = await place.open()
    try:
        deadline = time.monotonic() + _PATIENCE
        while waiting := [
            one
            for one in await store.every(OutboxMessage)
            if one.state in {"waiting", "taken"} and (one.due or 0.0) <= time.time()
        ]:
            assert time.monotonic() < deadline, waiting
            await asyncio.sleep(0.1)
    finally:
        await store.aclose()


async def _derived(settings: Settings, canaries: Canaries) -> None:
    """Collect what the server derives and the walk need not have seen: codes of all attempts."""
    application = Application(settings, background=False)
    await application.open()
    try:
        derive = application.keys.derive
        secrets = InvitationSecrets(derive("invitations"))
        for invitation in await application.store.every(Invitation):
            for attempt in range(1, invitation.attempt + 1):
                own = secrets.of_attempt(invitation.key, attempt)
                canaries.add("link", own.link)
                canaries.add("security code", own.code)
                canaries.add("portal ID", own.portal_id)
                canaries.add("activation word", own.word)
        codes = OneTimeCodes(derive(KEY_PURPOSE), clock=time.time, random=lambda _: b"")
        for challenge in await application.store.every(Challenge):
            for attempt in range(1, challenge.attempt + 1):
                canaries.add("one-time code", codes.code(challenge.key, attempt))
    finally:
        await application.close()
