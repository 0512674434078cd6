"""Exceptions have an owner, a due time and an end, and those who listen are told of each step."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from oms import access
from oms.access import Actor
from oms.db import Database
from oms.domain import telling
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.flows import govern
from oms.record import Trouble, raise_exceptions
from tests.world import Net, set_stock, small_network

ANN = Actor(key_id=1, role="approver", person="ann", who="ann")
SOON = timedelta(hours=1)


async def opened(db: Database, kind: str = "oversold", subject: str = "web/1", **more: Any) -> UUID:
    async with db.transaction() as tx:
        return (await raise_exceptions(tx, [Trouble(kind, subject, "look at it", **more)]))[kind, subject]


async def values(db: Database, query: str, *arguments: Any) -> list[Any]:
    async with db.connection() as connection:
        return [tuple(row) if len(row) > 1 else row[0] for row in await connection.fetch(query, *arguments)]


async def listen(db: Database, url: str = "https://ops.example/") -> None:
    async with db.transaction() as tx:
        await tx.execute("insert into listener (url, secrets) values ($1, '{whsec_a}')", url)


class Ear:
    """A listener that answers as it is told."""

    def __init__(self, *answers: telling.Delivery) -> None:
        self.answers, self.heard = list(answers), list[dict[str, Any]]()
        self.ids: list[str] = []

    async def deliver(self, url: str, body: bytes, message_id: str, secrets: list[str]) -> telling.Delivery:
        assert secrets == ["whsec_a"]
        self.heard.append(msgspec.json.decode(body))
        self.ids.append(message_id)
        return self.answers.pop(0) if self.answers else telling.Delivery(True, "200")


def later(hours: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


async def announce(db: Database, ear: Ear, *, now: datetime) -> int:
    return await govern.announce_due(db, deliver=ear.deliver, now=now, chance=lambda: 1.0)


async def test_a_resolved_exception_says_by_whom_and_how_and_is_resolved_once(db: Database) -> None:
    one = await opened(db)
    done = await govern.resolve(db, actor=ANN, exception_id=one, why="found it")
    assert (done.state, done.resolved_by, done.resolution) == ("resolved", "ann", "found it")
    with pytest.raises(Conflict, match="by ann"):
        await govern.resolve(db, actor=ANN, exception_id=one, why="again")
    assert await values(db, "select who, why from history where kind = 'exception' and step = 'resolved'") == [
        ("ann", "found it")
    ]


async def test_lists_go_from_the_newest_back_without_gap_or_double(db: Database) -> None:
    ids = [await opened(db, subject=str(n)) for n in range(5)]
    seen: list[UUID] = []
    before = None
    while page := await govern.listed(db, actor=ANN, state="open", kind=None, before=before, limit=2):
        seen += [one.id for one in page]
        before = page[-1].id
    assert seen == ids[::-1]
    with pytest.raises(BadInput):
        await govern.listed(db, actor=ANN, state="odd", kind=None, before=None, limit=2)


async def test_what_is_overdue_goes_to_the_admins_once(db: Database) -> None:
    late = await opened(db, subject="late", due_hours=4)
    await opened(db, subject="early", due_hours=48)
    assert await govern.escalate(db, now=later(5)) == 1
    assert await govern.escalate(db, now=later(6)) == 0
    assert await values(db, "select exception_id from exception where owner = 'admin'") == [late]
    assert await values(db, "select why from history where step = 'escalated'") == ["overdue with operator"]


async def test_each_step_is_announced_once_to_each_listener(db: Database) -> None:
    await listen(db)
    one = await opened(db, due_hours=1)
    await opened(db, due_hours=1)  # it happened again: counted, not told again
    await govern.escalate(db, now=later(2))
    await govern.resolve(db, actor=ANN, exception_id=one, why="done")
    ear = Ear()
    assert await announce(db, ear, now=later()) == 3
    assert [heard["type"] for heard in ear.heard] == [
        "exception.opened", "exception.escalated", "exception.resolved",
    ]  # fmt: skip
    assert ear.heard[0]["exception"]["id"] == str(one)
    assert await announce(db, ear, now=later(50)) == 0


async def test_a_listener_that_does_not_take_it_is_asked_again_later_under_the_same_id(db: Database) -> None:
    await listen(db)
    await opened(db)
    ear = Ear(telling.Delivery(False, "503"), telling.Delivery(True, "200"))
    now = later()
    assert await announce(db, ear, now=now) == 0
    assert await announce(db, ear, now=now + timedelta(seconds=59)) == 0, "the wait is 60 s at this chance"
    assert await announce(db, ear, now=now + timedelta(seconds=61)) == 1
    assert len(set(ear.ids)) == 1
    assert len(ear.ids) == 2


async def test_a_receiver_that_names_a_time_is_left_alone_until_then(db: Database) -> None:
    await listen(db)
    await opened(db)
    ear = Ear(telling.Delivery(False, "429", retry_after_seconds=600))
    now = later()
    await announce(db, ear, now=now)
    await announce(db, ear, now=now + timedelta(seconds=599))
    assert len(ear.heard) == 1
    assert await announce(db, ear, now=now + timedelta(seconds=601)) == 1


async def test_a_dead_listener_is_given_up_after_fourteen_attempts_and_a_week(db: Database) -> None:
    await listen(db)
    await opened(db)
    ear = Ear(*[telling.Delivery(False, "500")] * 40)
    now, begun = later(), later()
    while await values(db, "select count(*) from announcement where state = 'due'") == [1]:
        (not_before,) = await values(db, "select not_before from announcement")
        now = max(now, not_before)
        await announce(db, ear, now=now)
    assert await values(db, "select state, answer from announcement") == [("dead", "500")]
    assert len(ear.heard) >= telling.ATTEMPTS_MIN
    assert now - begun >= timedelta(days=6, hours=23)


async def test_an_announcement_whose_bearer_was_killed_is_taken_up_after_its_lease(db: Database) -> None:
    await listen(db)
    await opened(db)

    class Killed(BaseException):
        """The process ends here."""

    async def killed(url: str, body: bytes, message_id: str, secrets: list[str]) -> telling.Delivery:
        raise Killed

    now = later()
    with pytest.raises(Killed):
        await govern.announce_due(db, deliver=killed, now=now, chance=lambda: 1.0)
    ear = Ear()
    assert await announce(db, ear, now=now + timedelta(seconds=30)) == 0
    assert await announce(db, ear, now=now + timedelta(seconds=telling.LEASE_SECONDS + 1)) == 1


def test_waits_double_up_to_a_day_and_chance_spreads_them_from_nothing() -> None:
    assert [telling.retry_seconds(n, 1.0) for n in (1, 2, 3)] == [60, 120, 240]
    assert telling.retry_seconds(30, 1.0) == telling.retry_seconds(300, 1.0) == 86_400
    assert telling.retry_seconds(5, 0.0) == 0


# facts under review


async def reviewed(db: Database, net: Net, *, kind: str, quantity: int, uom: str | None = None) -> UUID:
    one = await opened(db, "not_owner", "wms:m1", payload={"location": "S1"})
    payload = {"id": "m1", "sku": "A", "location": "S1", "kind": kind, "quantity": quantity, "uom": uom}
    async with db.transaction() as tx:
        await tx.execute(
            "insert into message (source_id, message_id, hash, outcome, payload, exception_id)"
            " values ($1, 'm1', 'x', 'review', $2, $3)", net.sources["wms"], payload, one,
        )  # fmt: skip
    return one


@pytest.mark.parametrize(
    ("kind", "quantity", "on_hand"), [("count", 7, 7), ("sale", 3, 7), ("return", 2, 12), ("adjustment", -4, 6)]
)
async def test_an_approver_applies_a_fact_that_its_source_does_not_own_as_our_adjustment(
    db: Database, kind: str, quantity: int, on_hand: int
) -> None:
    net = await small_network(db)
    await set_stock(db, sku="A", location="S1", quantity=10)
    one = await reviewed(db, net, kind=kind, quantity=quantity)
    assert await govern.apply_reviewed(db, actor=ANN, exception_id=one, now=later()) == 1
    assert await values(db, "select on_hand from stock where on_hand <> 0") == [on_hand]
    assert await values(db, "select kind, is_ours from posting order by version desc limit 1") == [("adjustment", True)]
    assert await values(db, "select outcome from message") == ["applied"]
    assert await values(db, "select resolved_by from exception") == ["ann"]
    with pytest.raises(Conflict):
        await govern.apply_reviewed(db, actor=ANN, exception_id=one, now=later())


async def test_a_fact_under_review_is_converted_to_each(db: Database) -> None:
    net = await small_network(db)
    async with db.transaction() as tx:
        await tx.execute("insert into unit values ($1, 'CS', 12)", net.skus["A"])
    one = await reviewed(db, net, kind="count", quantity=2, uom="CS")
    await govern.apply_reviewed(db, actor=ANN, exception_id=one, now=later())
    assert await values(db, "select on_hand from stock") == [24]


async def test_a_fact_that_cannot_be_an_adjustment_stays_under_review(db: Database) -> None:
    net = await small_network(db)
    one = await reviewed(db, net, kind="transfer", quantity=2)
    with pytest.raises(Conflict, match="transfer"):
        await govern.apply_reviewed(db, actor=ANN, exception_id=one, now=later())
    assert await values(db, "select outcome from message") == ["review"]
    assert await values(db, "select count(*) from movement") == [0]


async def test_a_key_without_a_person_approves_nothing(db: Database) -> None:
    net = await small_network(db)
    one = await reviewed(db, net, kind="count", quantity=2)
    with pytest.raises(NotAllowed):
        await govern.apply_reviewed(db, actor=access.house, exception_id=one, now=later())


async def test_the_approver_of_another_location_does_not_find_it(db: Database) -> None:
    net = await small_network(db)
    one = await reviewed(db, net, kind="count", quantity=2)
    other = Actor(key_id=2, role="approver", person="bob", who="bob", location_id=net.locations["S2"])
    with pytest.raises(NotFound):
        await govern.apply_reviewed(db, actor=other, exception_id=one, now=later())


async def test_old_answers_of_idempotency_keys_are_forgotten(db: Database) -> None:
    async with db.transaction() as tx:
        await access.make_key(tx, role="admin")
        await tx.execute("insert into idempotency values (1, 'k', '', 200, '', clock_timestamp() - interval '15 days')")
        await tx.execute("insert into idempotency values (1, 'l', '', 200, '')")
    assert await govern.forget(db, now=later()) == 1
