"""The outbox and job protocols, with two workers and leases that run out."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.folder import FolderDelivery
from fhir_portal.notify.jobs import Job
from fhir_portal.notify.lease import (
    LONGEST_BACK_OFF,
    StaleLease,
    Turn,
    back_off,
    fail,
    finish,
    finish_in,
    put_off_in,
    renew,
)
from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import (
    AT_ONCE,
    PUT_OFF_SECONDS,
    AddressDown,
    OutboxMessage,
    Pause,
    Stream,
    UndeliverableMessage,
    deliver_channel,
    deliver_due,
)
from tests.builders import DERM, START, Clock, an_account, keep


async def send(store: Any, key: str = "invited-1", **more: Any) -> bool:
    given: dict[str, Any] = {
        "practice": DERM,
        "channel": "mail",
        "to": "ada@people.example",
        "template": "invitation",
        "now": START,
    }

    async def work(transaction: Any) -> bool:
        return await outbox.enqueue(transaction, key=key, **given | more)

    sent: bool = await store.transact(work)
    return sent


async def claim(
    store: Any, worker: str = "one", now: float = START, channel: outbox.Channel = "mail"
) -> Any:
    return await outbox.claim(store, channel, worker, now, lease_seconds=60)


async def send_hook(store: Any, key: str, host: str = "one.example", **more: Any) -> bool:
    return await send(store, key, channel="webhook", to=f"https://{host}/hook", **more)


# ---------------------------------------------------------------- enqueueing


async def test_a_message_is_written_with_the_change_that_causes_it_or_not_at_all(
    store: Any,
) -> None:
    async def failing(transaction: Any) -> None:
        await transaction.put(an_account("ada"))
        await outbox.enqueue(
            transaction,
            key="k",
            practice=DERM,
            channel="mail",
            to="ada@people.example",
            template="welcome",
            now=START,
        )
        raise LookupError

    with pytest.raises(LookupError):
        await store.transact(failing)
    assert await store.every(OutboxMessage) == []
    assert await store.every(Turn) == []
    assert await claim(store) is None


async def test_the_same_event_noticed_twice_is_one_message(store: Any) -> None:
    assert await send(store, "invited-1", to="first@people.example") is True
    assert await send(store, "invited-1", to="second@people.example") is False
    (message,) = await store.every(OutboxMessage)
    assert message.to == "first@people.example"
    lease = await claim(store)
    await finish(store, lease, now=START)
    assert await send(store, "invited-1") is False  # also after it was delivered
    assert await claim(store) is None


async def test_noticing_twice_at_the_same_time_is_one_message(store: Any) -> None:
    answers = await asyncio.gather(*(send(store) for _ in range(8)))
    assert answers.count(True) == 1


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "a b", "x" * 151, "a\n"])
async def test_a_key_that_could_not_be_a_file_name_is_refused(store: Any, key: str) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        await send(store, key)
    assert await store.every(OutboxMessage) == []


# ---------------------------------------------------------------- leases


async def test_what_is_due_longest_comes_first_and_what_is_not_due_does_not_come(
    store: Any,
) -> None:
    await send(store, "b", due=START - 5)
    await send(store, "a", due=START - 1)
    await send(store, "later", due=START + 100)
    assert [(await claim(store)).work.key for _ in range(2)] == ["b", "a"]
    assert await claim(store) is None
    assert (await claim(store, now=START + 100)).work.key in {"a", "b", "later"}


async def test_a_message_is_given_to_one_worker_at_a_time(store: Any) -> None:
    await send(store)
    leases = await asyncio.gather(*(claim(store, f"worker-{n}") for n in range(6)))
    held = [lease for lease in leases if lease is not None]
    assert len(held) == 1
    assert held[0].fence == 1
    (message,) = await store.every(OutboxMessage)
    assert (message.state, message.worker, message.attempts) == ("taken", held[0].work.worker, 1)


async def test_a_lease_that_runs_out_is_taken_over_under_a_higher_number(store: Any) -> None:
    await send(store)
    first = await claim(store, "one")
    assert await claim(store, "two", START + 59) is None
    second = await claim(store, "two", START + 60)
    assert second.fence > first.fence
    with pytest.raises(StaleLease):
        await finish(store, first, now=START + 61)
    with pytest.raises(StaleLease):
        await fail(store, first, retry_at=START + 61)
    with pytest.raises(StaleLease):
        await renew(store, first, now=START + 61, lease_seconds=60)
    (message,) = await store.every(OutboxMessage)
    assert (message.worker, message.state, message.fence) == ("two", "taken", second.fence)
    await finish(store, second, now=START + 62)
    with pytest.raises(StaleLease):
        await finish(store, second, now=START + 63)
    assert (await store.every(OutboxMessage))[0].state == "done"
    assert await store.every(Turn) == []


async def test_the_number_rises_with_every_claim(store: Any) -> None:
    await send(store)
    fences, now = [], START
    for _ in range(5):
        lease = await claim(store, now=now)
        fences.append(lease.fence)
        await fail(store, lease, retry_at=now + 1)
        now += 1
    assert fences == [1, 2, 3, 4, 5]


async def test_a_late_worker_may_still_finish_if_nobody_took_over(store: Any) -> None:
    await send(store)
    lease = await claim(store)
    await finish(store, lease, now=START + 3_600)
    assert (await store.every(OutboxMessage))[0].state == "done"


async def test_a_renewed_lease_is_not_taken_over(store: Any) -> None:
    await send(store)
    lease = await claim(store)
    longer = await renew(store, lease, now=START + 50, lease_seconds=60)
    assert longer.fence == lease.fence
    assert await claim(store, "two", START + 70) is None
    await finish(store, longer, now=START + 100)


async def test_a_failure_comes_back_when_it_said(store: Any) -> None:
    await send(store)
    await fail(store, await claim(store), retry_at=START + 30, fault="ConnectionRefusedError")
    assert await claim(store, now=START + 29) is None
    (message,) = await store.find(OutboxMessage, "state", "waiting")
    assert message.fault == "ConnectionRefusedError"
    assert (await claim(store, now=START + 30)).work.attempts == 2


async def test_what_is_given_up_stays_visible_and_is_not_tried_again(store: Any) -> None:
    await send(store)
    await fail(store, await claim(store), retry_at=None, fault="no such address")
    assert await claim(store, now=START + 1e9) is None
    (message,) = await store.find(OutboxMessage, "state", "failed")
    assert (message.practice, message.fault) == (DERM, "no such address")


async def test_two_processes_share_the_work(store: Any, second: Any) -> None:
    for n in range(20):
        await send(store, f"m{n}")
    held: list[Any] = []
    for _ in range(10):
        held += await asyncio.gather(claim(store, "one"), claim(second, "two"))
    keys = [lease.work.key for lease in held]
    assert sorted(keys) == sorted(f"m{n}" for n in range(20))
    assert await claim(second) is None


async def test_two_workers_send_nothing_twice_while_the_leases_hold(
    store: Any, second: Any
) -> None:
    """Each hands over slowly, several at a time, while the other looks for work."""
    sent: list[str] = []

    async def slow(message: OutboxMessage) -> None:
        sent.append(message.key)
        await asyncio.sleep(0)

    for n in range(30):
        await send(store, f"m{n:02}", channel="mail" if n % 2 else "sms")
    arrived = await asyncio.gather(
        deliver_due(store, slow, worker="one", clock=Clock()),
        deliver_due(second, slow, worker="two", clock=Clock()),
    )
    assert sorted(sent) == [f"m{n:02}" for n in range(30)]
    assert sum(arrived) == 30
    assert {one.state for one in await store.every(OutboxMessage)} == {"done"}


async def test_a_removed_message_takes_its_turn_with_it(store: Any) -> None:
    await send(store, "gone")
    await send(store, "here")

    async def remove(transaction: Any) -> None:
        await transaction.delete(OutboxMessage, "gone")

    await store.transact(remove)
    assert (await claim(store)).work.key == "here"
    assert len(await store.every(Turn)) == 1


def test_the_wait_doubles_up_to_a_limit() -> None:
    waits = [back_off(attempt) for attempt in range(1, 12)]
    assert waits[:3] == [30, 60, 120]
    assert waits == sorted(waits)
    assert waits[-1] == back_off(500) == LONGEST_BACK_OFF


# ---------------------------------------------------------------- delivery


async def derived(message: OutboxMessage) -> Letter:
    link = f"https://portal.example/activate/{message.link_for}-{message.link_attempt}-proof"
    return Letter("Hillside", "Welcome", "Text", "Short", link=link if message.link_for else None)


async def test_delivery_leaves_one_file_per_message(store: Any, tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    await send(store, "m1", link_for="Task/7", link_attempt=2)
    await send(store, "m2", channel="sms")
    delivered = await deliver_due(
        store, FolderDelivery(folder, derived), worker="one", clock=Clock()
    )
    assert delivered == 2
    assert sorted(path.name for path in folder.iterdir()) == ["m1.json", "m2.json"]
    message = json.loads((folder / "m1.json").read_text("utf-8"))
    assert message["link"] == "https://portal.example/activate/Task/7-2-proof"
    assert (message["subject"], message["text"]) == ("Welcome", "Text")
    sms = json.loads((folder / "m2.json").read_text("utf-8"))
    assert (sms["subject"], sms["text"], sms["link"]) == (None, "Short", None)
    assert stat.S_IMODE((folder / "m1.json").stat().st_mode) == 0o600


async def test_nothing_stored_holds_the_link(store: Any, tmp_path: Path) -> None:
    await send(store, "m1", link_for="Task/7")
    await deliver_due(store, FolderDelivery(tmp_path, derived), worker="one", clock=Clock())
    (message,) = await store.every(OutboxMessage)
    assert "proof" not in repr(message)


async def test_a_worker_that_dies_after_delivering_delivers_again_into_the_same_file(
    store: Any, tmp_path: Path
) -> None:
    """At least once: the key lets the addressee's side see the repetition."""
    await send(store, "m1")
    folder = tmp_path / "outbox"
    delivery = FolderDelivery(folder, derived)
    lease = await claim(store, "dies")
    await delivery(lease.work)
    late = Clock(START + 61)
    assert await deliver_due(store, delivery, worker="two", clock=late) == 1
    assert [path.name for path in folder.iterdir()] == ["m1.json"]
    (message,) = await store.every(OutboxMessage)
    assert (message.state, message.attempts, message.worker) == ("done", 2, "two")


async def test_delivery_that_fails_is_tried_again_later_and_given_up_in_the_end(
    store: Any,
) -> None:
    await send(store, "m1")
    clock, tried = Clock(), []

    async def broken(message: OutboxMessage) -> None:
        tried.append(message.attempts)
        raise ConnectionRefusedError("secret address in words")

    for _ in range(60):
        assert await deliver_due(store, broken, worker="one", clock=clock) == 0
        clock.advance(3_600)
    assert tried == list(range(1, outbox.ATTEMPTS + 1))
    (message,) = await store.find(OutboxMessage, "state", "failed")
    assert message.fault == "ConnectionRefusedError"


async def test_one_bad_message_does_not_hold_up_the_others(store: Any) -> None:
    await send(store, "bad", due=START - 10)
    await send(store, "good")
    arrived = []

    async def picky(message: OutboxMessage) -> None:
        if message.key == "bad":
            raise UndeliverableMessage("there is no such mailbox")
        arrived.append(message.key)

    assert await deliver_due(store, picky, worker="one", clock=Clock()) == 1
    assert arrived == ["good"]
    (message,) = await store.find(OutboxMessage, "state", "failed")
    assert message.fault == "there is no such mailbox"


async def test_a_worker_slower_than_its_lease_does_not_overwrite_its_successor(
    store: Any,
) -> None:
    await send(store)
    clock = Clock()

    async def slow(message: OutboxMessage) -> None:
        del message
        if clock.now == START:
            clock.advance(61)
            assert await claim(store, "two", clock.now)

    assert await deliver_due(store, slow, worker="one", clock=clock) == 0
    (message,) = await store.every(OutboxMessage)
    assert (message.worker, message.state, message.fence) == ("two", "taken", 2)


# ---------------------------------------------------------------- channels and addresses


async def test_a_channel_takes_no_turn_of_another(store: Any) -> None:
    """Planted fault: there is one queue for all of them."""
    await send_hook(store, "hook", due=START - 100)
    await send(store, "letter")
    await send(store, "text", channel="sms", due=START - 50)
    assert (await claim(store, channel="mail")).work.key == "letter"
    assert await claim(store, channel="mail") is None
    assert (await claim(store, channel="sms")).work.key == "text"
    assert (await claim(store, channel="webhook")).work.key == "hook"


async def test_a_slow_webhook_keeps_no_mail_waiting(store: Any) -> None:
    """A stranger names the host. Planted fault: the channels are delivered one after the other."""
    for n in range(2 * AT_ONCE["webhook"]):
        await send_hook(store, f"hook-{n:02}", due=START - 100)
    await send(store, "letter")
    mailed = asyncio.Event()

    async def delivery(message: OutboxMessage) -> None:
        if message.channel == "webhook":
            await mailed.wait()
        else:
            mailed.set()

    async with asyncio.timeout(10):
        arrived = await deliver_due(store, delivery, worker="one", clock=Clock())
    assert arrived == 2 * AT_ONCE["webhook"] + 1


async def test_a_few_webhooks_are_handed_over_at_once_and_each_once(store: Any) -> None:
    """Planted faults: one at a time; no bound."""
    for n in range(3 * AT_ONCE["webhook"]):
        await send_hook(store, f"hook-{n:02}", f"h{n}.example")
    going, most, seen = 0, 0, []

    async def slow(message: OutboxMessage) -> None:
        nonlocal going, most
        going += 1
        most = max(most, going)
        seen.append(message.key)
        if len(seen) <= AT_ONCE["webhook"]:
            while len(seen) < AT_ONCE["webhook"]:
                await asyncio.sleep(0)
            for _ in range(200):  # whoever may come as well has come by then
                await asyncio.sleep(0)
        going -= 1

    async with asyncio.timeout(10):
        await deliver_channel(store, "webhook", slow, worker="one", clock=Clock())
    assert most == AT_ONCE["webhook"]
    assert sorted(seen) == [f"hook-{n:02}" for n in range(3 * AT_ONCE["webhook"])]


class Web:
    """Hosts that take webhooks, or are ``down``; ``asked`` are the keys of what was handed over."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        self.asked: list[str] = []

    async def __call__(self, message: OutboxMessage) -> None:
        self.asked.append(message.key)
        await asyncio.sleep(0)
        if message.to.split("/")[2] in self.down:
            raise AddressDown("no answer")


async def hooks(store: Any, web: Any, clock: Clock, worker: str = "one") -> int:
    return await deliver_channel(store, "webhook", web, worker=worker, clock=clock)


async def test_what_waits_for_an_address_that_is_down_waits_with_it(store: Any) -> None:
    """Planted fault: each message finds out for itself, and takes its time for it."""
    for n in range(40):
        await send_hook(store, f"down-{n:02}", "down.example", due=START - 10)
    await send_hook(store, "up", "up.example")
    web, clock = Web("down.example"), Clock()
    assert await hooks(store, web, clock) == 1
    assert "up" in web.asked
    assert len(web.asked) <= AT_ONCE["webhook"] + 1
    waiting = await store.find(OutboxMessage, "state", "waiting")
    assert len(waiting) == 40
    assert min(message.due for message in waiting) >= START + 30
    untried = [message for message in waiting if message.key not in web.asked]
    assert {message.attempts for message in untried} == {0}
    (pause,) = await store.every(Pause)
    assert (pause.failures, pause.until) == (1, START + 30)  # not once for each of them


async def test_another_worker_leaves_the_address_alone_too(store: Any, second: Any) -> None:
    """Planted fault: what was found out stays in one process."""
    for n in range(20):
        await send_hook(store, f"down-{n:02}", due=START - 10)
    clock = Clock()
    await hooks(store, Web("one.example"), clock)
    await send_hook(store, "later")
    web = Web("one.example")
    assert await hooks(second, web, clock, worker="two") == 0
    assert web.asked == []


async def test_one_message_finds_out_whether_the_address_is_back(store: Any) -> None:
    """Planted fault: when the pause is over, all of them knock again."""
    for n in range(20):
        await send_hook(store, f"m-{n:02}", due=START - 10)
    web, clock = Web("one.example"), Clock()
    await hooks(store, web, clock)
    for failures, wait in ((2, 60), (3, 120), (4, 240)):
        (pause,) = await store.every(Pause)
        clock.now = pause.until + 1
        web.asked.clear()
        await hooks(store, web, clock)
        assert len(web.asked) == 1
        (pause,) = await store.every(Pause)
        assert (pause.failures, pause.until) == (failures, clock.now + wait)
    web.down.clear()
    clock.now = pause.until + 1
    web.asked.clear()
    arrived = await hooks(store, web, clock)
    clock.advance(3_600)
    assert arrived + await hooks(store, web, clock) == 20
    assert sorted(web.asked) == [f"m-{n:02}" for n in range(20)]
    assert await store.every(Pause) == []


async def test_what_waits_for_an_address_for_a_day_is_given_up(store: Any) -> None:
    """Planted fault: what was never tried waits for ever behind what was."""
    many = 2 * AT_ONCE["webhook"]
    for n in range(many):
        await send_hook(store, f"m-{n:02}")
    web, clock = Web("one.example"), Clock()
    while clock.now < START + 2 * PUT_OFF_SECONDS:
        await hooks(store, web, clock)
        clock.advance(7_200)
    assert len(await store.find(OutboxMessage, "state", "failed")) == many
    assert await store.every(Turn) == []


async def test_a_refusal_makes_nothing_else_wait(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: whatever goes wrong is taken for a host that is down."""
    monkeypatch.setattr(outbox, "AT_ONCE", {"webhook": 1})
    await send_hook(store, "bad", due=START - 10)
    await send_hook(store, "good")

    async def picky(message: OutboxMessage) -> None:
        if message.key == "bad":
            raise LookupError

    assert await hooks(store, picky, Clock()) == 1
    assert await store.every(Pause) == []


async def test_an_address_beside_it_is_served(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One host serves several. Planted fault: a stranger's path on it makes the others wait."""
    monkeypatch.setattr(outbox, "AT_ONCE", {"webhook": 1})
    await send(store, "theirs", channel="webhook", to="https://one.example/a", due=START - 10)
    await send(store, "ours", channel="webhook", to="https://one.example/b")

    async def half(message: OutboxMessage) -> None:
        if message.to.endswith("/a"):
            raise AddressDown

    assert await hooks(store, half, Clock()) == 1


async def test_mail_to_one_address_waits_for_no_other_mail(store: Any) -> None:
    await send(store, "m1", due=START - 10)
    await send(store, "m2")

    async def down(message: OutboxMessage) -> None:
        raise AddressDown(message.to)

    await deliver_due(store, down, worker="one", clock=Clock())
    assert {one.attempts for one in await store.every(OutboxMessage)} == {1}
    assert await store.every(Pause) == []


async def test_whoever_lost_a_message_that_was_put_off_cannot_say_it_is_done(store: Any) -> None:
    """Planted fault: putting off keeps the fencing number of the worker that is gone."""
    await send_hook(store, "m", due=START - 10)
    lost = await claim(store, "lost", channel="webhook")
    await keep(
        store,
        Pause(key="https://one.example/hook", since=START, until=START + 600, failures=3),
    )
    assert await claim(store, "two", START + 61, channel="webhook") is None
    with pytest.raises(StaleLease):
        await finish(store, lost, now=START + 62)
    (message,) = await store.every(OutboxMessage)
    assert (message.state, message.due) == ("waiting", START + 600)


async def test_more_than_one_transaction_looks_at_may_wait_for_one_address(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a worker stops when the first few it looks at have to wait."""
    monkeypatch.setattr("fhir_portal.notify.lease._LOOKED_AT", 3)
    for n in range(10):
        await send_hook(store, f"down-{n}", due=START - 10)
    await send_hook(store, "up", "up.example")
    await keep(
        store,
        Pause(key="https://one.example/hook", since=START, until=START + 600, failures=3),
    )
    assert (await claim(store, channel="webhook")).work.key == "up"


# ---------------------------------------------------------------- streams

STREAM = Stream("invitations.rule", a_minute=60)


async def due_of(store: Any, *keys: str) -> list[float]:
    """When messages are due, in seconds from `START`."""
    found = [await store.get(OutboxMessage, key) for key in keys]
    return [one.due - START for one in found]


async def test_a_stream_goes_out_at_its_rate_and_a_few_at_once_after_silence(store: Any) -> None:
    keys = [f"m{n:02}" for n in range(14)]
    for key in keys:
        assert await send(store, key, stream=STREAM)
    assert await due_of(store, *keys) == [0.0] * 11 + [1.0, 2.0, 3.0]
    assert await send(store, "m00", stream=STREAM) is False  # and has used no time
    assert await send(store, "later", stream=STREAM, now=START + 600)
    assert await due_of(store, "later") == [600.0]


async def test_no_stream_and_nothing_without_one_waits_for_a_stream(store: Any) -> None:
    for n in range(40):
        await send(store, f"m{n:02}", stream=STREAM)
    await send(store, "other-practice", practice="quillfern", stream=STREAM)
    await send(store, "other-stream", stream=Stream("invitations.staff", a_minute=60))
    await send(store, "other-channel", channel="sms", stream=STREAM)
    await send(store, "code")
    await send(store, "at-nine", stream=STREAM, due=START + 5)
    others = ("other-practice", "other-stream", "other-channel", "code", "at-nine")
    assert await due_of(store, *others) == [0.0, 0.0, 0.0, 0.0, 5.0]


async def test_a_code_overtakes_a_stream_that_nobody_takes(store: Any) -> None:
    """Planted fault: one queue for all; the mail server keeps each invitation for a minute."""
    many = 120  # more than one transaction looks at

    async def work(transaction: Any) -> None:
        for n in range(many):
            await outbox.enqueue(
                transaction,
                key=f"m{n:03}",
                practice=DERM,
                channel="mail",
                to="ada@people.example",
                template="invitation",
                now=START,
                stream=STREAM,
                due=START - 100,
            )

    await store.transact(work)
    await send(store, "code")
    arrived: list[str] = []
    answers = asyncio.Event()

    async def slow(message: OutboxMessage) -> None:
        if message.stream:
            await answers.wait()
        arrived.append(message.key)

    async def lane(*priorities: outbox.Priority) -> int:
        return await deliver_channel(
            store, "mail", slow, worker="one", clock=Clock(), priorities=priorities
        )

    invitations = asyncio.create_task(lane("routine"))
    await asyncio.sleep(0)
    assert await lane("urgent") == 1
    assert arrived == ["code"]
    assert len(await store.find(OutboxMessage, "state", "taken")) <= AT_ONCE["mail"]
    answers.set()
    assert await invitations == many


# ---------------------------------------------------------------- jobs


async def begin(store: Any, key: str = "expiry-2030-03-17", **more: Any) -> None:
    async def work(transaction: Any) -> None:
        given: dict[str, Any] = {"practice": DERM, "name": "expiry", "now": START}
        await jobs.enqueue(transaction, key=key, **given | more)

    await store.transact(work)


async def test_messages_and_jobs_do_not_take_each_others_turns(store: Any) -> None:
    await send(store, "same-key")
    assert await jobs.claim(store, "expiry", "one", START) is None
    await begin(store, "same-key", due=START - 5)
    job = await jobs.claim(store, "expiry", "one", START)
    assert job is not None
    assert isinstance(job.work, Job)
    assert isinstance((await claim(store)).work, OutboxMessage)
    assert await jobs.claim(store, "expiry", "one", START) is None


async def test_jobs_are_done_and_failures_put_back(store: Any) -> None:
    await begin(store, "a", arguments={"day": "1"})
    await begin(store, "b", name="breaks")
    await begin(store, "c", name="unknown here")
    done = []

    async def expiry(lease: Any) -> None:
        done.append(lease.work.arguments)

    async def breaks(_: Any) -> None:
        raise LookupError

    functions = {"expiry": expiry, "breaks": breaks}
    assert await jobs.work_off(store, functions, worker="one", clock=Clock()) == 1
    assert done == [{"day": "1"}]
    waiting = {job.key: job.fault for job in await store.find(Job, "state", "waiting")}
    assert waiting == {"b": "LookupError", "c": ""}


async def test_many_jobs_of_one_kind_keep_another_waiting_for_one_of_them(store: Any) -> None:
    """Planted fault: one queue for all, in the order of time."""
    for n in range(20):
        await begin(store, f"invite-{n}", name="invite", due=START - 50)
    await begin(store, "expiry")
    done: list[str] = []

    async def note(lease: Any) -> None:
        done.append(lease.work.name)

    functions = {"invite": note, "expiry": note}
    assert await jobs.work_off(store, functions, worker="one", clock=Clock()) == 21
    assert done == ["invite", "expiry", *["invite"] * 19]


async def test_a_job_that_is_put_off_is_not_an_attempt_however_often(store: Any) -> None:
    await begin(store)
    clock = Clock()

    async def not_yet(lease: Any) -> None:
        async def work(transaction: Any) -> None:
            await put_off_in(transaction, lease, until=clock() + 60)

        await store.transact(work)

    for _ in range(3 * jobs.ATTEMPTS):
        assert await jobs.work_off(store, {"expiry": not_yet}, worker="one", clock=clock) == 0
        clock.advance(60)
    assert await jobs.work_off(store, {"expiry": _nothing}, worker="one", clock=clock) == 1
    (job,) = await store.every(Job)
    assert (job.state, job.attempts) == ("done", 1)


async def test_what_an_earlier_release_left_in_its_one_queue_is_done(store: Any) -> None:
    await begin(store, "a")
    (turn,) = await store.every(Turn)

    async def as_it_was(transaction: Any) -> None:
        await transaction.delete(Turn, turn.key)
        await transaction.put(Turn(key=turn.key.replace("job.expiry/", "job/"), work="a"))
        await transaction.put(Turn(key="job/000000000000001/gone", work="gone"))

    await store.transact(as_it_was)
    assert await jobs.work_off(store, {"expiry": _nothing}, worker="one", clock=Clock()) == 1
    assert await store.every(Turn) == []


async def test_a_job_that_changes_the_store_ends_in_the_same_transaction(store: Any) -> None:
    await begin(store)
    clock = Clock()

    async def once(lease: Any) -> None:
        async def work(transaction: Any) -> None:
            await transaction.put(an_account(f"made-by-{lease.fence}"))
            await finish_in(transaction, lease, now=clock())

        await store.transact(work)

    assert await jobs.work_off(store, {"expiry": once}, worker="one", clock=clock) == 1
    assert (await store.every(Job))[0].state == "done"


async def test_a_worker_that_lost_its_lease_changes_nothing(store: Any) -> None:
    await begin(store)
    stale = await jobs.claim(store, "expiry", "one", START, lease_seconds=10)
    fresh = await jobs.claim(store, "expiry", "two", START + 10, lease_seconds=10)
    assert stale is not None
    assert fresh is not None

    async def work(transaction: Any) -> None:
        await transaction.put(an_account("made-by-nobody"))
        await finish_in(transaction, stale, now=START + 11)

    with pytest.raises(StaleLease):
        await store.transact(work)
    assert await store.get(type(an_account("x")), "made-by-nobody") is None
    await finish(store, fresh, now=START + 12)


async def test_done_work_expires_and_can_be_dropped(store: Any) -> None:
    await begin(store)
    await keep(store, an_account("ada"))
    assert await jobs.work_off(store, {"expiry": _nothing}, worker="one", clock=Clock()) == 1
    (job,) = await store.every(Job)
    assert job.expires is not None
    assert job.expires > START


async def _nothing(_: Any) -> None:
    return None
