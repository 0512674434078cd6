"""Channels are told what they may sell: once in effect, whatever is lost, doubled, refused or slow."""

import asyncio
import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from connectors.channels import Answer, Delivered, Push, Refused, SlowDown, Unknown
from oms.cache import Cache
from oms.db import Database
from oms.errors import Conflict, NotFound
from oms.flows.push import outbox, sender
from oms.flows.push.outbox import Target
from oms.flows.push.projector import project
from oms.flows.push.sender import Pushed, push_all
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
DELIVERED = Delivered("200")


class Shop:
    """A channel in this process: it keeps stock, forgets doubled pushes, and answers as it is told to."""

    def __init__(self, *, max_batch: int = 100, has_guard: bool = True) -> None:
        self.max_batch, self.has_guard = max_batch, has_guard
        self.stock: dict[str, int] = {}
        self.sold: list[tuple[datetime, str, int]] = []
        self.seen: dict[str, Push] = {}
        self.calls: list[tuple[str, str, dict[str, int]]] = []
        self.script: list[Callable[[Push], Answer | None]] = []
        self.seconds = 0.0

    async def push(self, push: Push) -> Answer:
        await asyncio.sleep(self.seconds)
        self.calls.append((push.id, push.mode, {n.sku: n.quantity if n.delta is None else n.delta for n in push.lines}))
        if push.id in self.seen:
            assert self.seen[push.id] == push, "the same id came with another body"
        scripted = self.script.pop(0)(push) if self.script else None
        if scripted is not None:
            return scripted
        self.take(push)
        return DELIVERED

    def take(self, push: Push) -> None:
        if push.id in self.seen and self.has_guard:
            return
        self.seen[push.id] = push
        for line in push.lines:
            assert line.quantity >= 0
            if line.delta is None:
                since = [q for at, sku, q in self.sold if sku == line.sku and push.as_of and at > push.as_of]
                self.stock[line.sku] = line.quantity - sum(since)
            else:
                self.stock[line.sku] += line.delta

    def sell(self, sku: str, quantity: int, *, at: datetime) -> None:
        self.stock[sku] -= quantity
        self.sold.append((at, sku, quantity))

    async def close(self) -> None:
        pass


def drops_the_answer(shop: Shop) -> Callable[[Push], Answer]:
    def act(push: Push) -> Answer:
        shop.take(push)
        return Unknown("the connection was reset")

    return act


def always(answer: Answer) -> Callable[[Push], Answer]:
    return lambda push: answer


SILENT = always(Unknown("as told"))
GONE = always(Refused("410 gone", is_content=False))


def slow(seconds: float) -> Callable[[Push], Answer]:
    return always(SlowDown(seconds, "429"))


@pytest_asyncio.fixture(loop_scope="session")
async def net(db: Database) -> Net:
    net = await small_network(db)
    await run(db, "update channel set kind = 'webhook', mode = 'delta'")
    await run(db, "delete from push")
    for sku in net.skus:
        await set_stock(db, sku=sku, location="W1", quantity=5)
    return net


@pytest.fixture
def shops(monkeypatch: pytest.MonkeyPatch) -> dict[str, Shop]:
    shops = {"web": Shop(), "local": Shop()}
    monkeypatch.setattr(sender, "connector_of", lambda target: shops[target.code])
    monkeypatch.setattr(outbox, "BREAKS_AT", 1000)
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.02)
    return shops


async def run(db: Database, statement: str, *arguments: Any) -> Any:
    async with db.transaction() as tx:
        return await tx.fetch(statement, *arguments)


async def push(db: Database, cache: Cache, **more: Any) -> dict[str, Pushed]:
    return {p.channel: p for p in await push_all(db, cache, now=more.pop("now", NOW), **more)}


async def ours(db: Database, channel: str = "web") -> dict[str, int]:
    return dict(
        await run(
            db,
            "select k.code, c.current from channel_stock c join sku k using (sku_id)"
            " join channel using (channel_id) where channel.code = $1",
            channel,
        )
    )


async def order(
    db: Database, net: Net, sku: str, quantity: int, *, placed_at: datetime, sold_there: bool = True
) -> None:
    """An order of the web shop, as capturing writes it: open lines, and reserved in the pool."""
    from oms import ledger

    async with db.transaction() as tx:
        order_id = await tx.fetchval(
            "insert into orders (channel_id, number, hash, placed_at, ship_to, method, sold_there)"
            " values ($1, $2, '', $3, '{}', 'standard', $4) returning order_id",
            net.channels["web"], uuid4().hex, placed_at, sold_there,
        )  # fmt: skip
        await tx.execute(
            "insert into order_line (order_id, line, sku_id, sku, pool_id, quantity, open)"
            " values ($1, '1', $2, $3, $4, $5, $5)",
            order_id, net.skus[sku], sku, net.pools["web"], quantity,
        )  # fmt: skip
        rows = await ledger.lock(tx, [net.skus[sku]])
        await ledger.write(tx, rows, demand=[ledger.Demand(net.skus[sku], net.pools["web"], quantity)])


async def test_the_first_push_is_a_reset_and_then_only_differences_are_told(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    assert shops["web"].stock == await ours(db) == dict.fromkeys("ABCDE", 5)
    assert [mode for _, mode, _ in shops["web"].calls] == ["reset"]
    await set_stock(db, sku="A", location="W1", quantity=3)
    await push(db, cache)
    assert shops["web"].calls[1][1:] == ("delta", {"A": -2})
    assert shops["web"].stock == await ours(db)


async def test_a_burst_of_changes_is_one_call_with_the_last_value(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    for quantity in (4, 3, 9, 2, 1, 7):
        await set_stock(db, sku="A", location="W1", quantity=quantity)
    done = await push(db, cache)
    assert shops["web"].calls[1:] == [(shops["web"].calls[1][0], "delta", {"A": 2})]
    assert (done["web"].calls, done["web"].skus) == (1, 1)
    assert (await push(db, cache))["web"].calls == 0


async def test_what_changes_while_a_push_is_under_way_is_told_after_it(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    await set_stock(db, sku="A", location="W1", quantity=4)
    shops["web"].script = [slow(0.05)]
    assert (await push(db, cache, patience_seconds=0))["web"].waiting == 1
    await set_stock(db, sku="A", location="W1", quantity=2)
    await push(db, cache)
    assert [said for _, _, said in shops["web"].calls[1:]] == [{"A": -1}, {"A": -1}, {"A": -2}]
    assert shops["web"].calls[1][0] == shops["web"].calls[2][0] != shops["web"].calls[3][0]
    assert shops["web"].stock["A"] == 2


async def test_batches_are_no_larger_than_the_channel_takes(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].max_batch = 2
    done = await push(db, cache)
    assert sorted(len(said) for _, _, said in shops["web"].calls) == [1, 2, 2]
    assert shops["web"].stock == await ours(db)
    assert (done["web"].pushes, done["web"].skus) == (3, 5)


async def test_a_dropped_answer_is_settled_by_the_same_push_and_acts_once(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    await set_stock(db, sku="A", location="W1", quantity=2)
    shops["web"].script = [drops_the_answer(shops["web"])] * 3
    done = await push(db, cache)
    assert {call[0] for call in shops["web"].calls[1:]} == {shops["web"].calls[1][0]}
    assert shops["web"].stock == await ours(db)
    assert (done["web"].unanswered, done["web"].pushes, done["web"].calls) == (3, 1, 4)


async def test_a_channel_without_a_guard_is_told_absolute_values_only(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].has_guard = False
    await push(db, cache)
    await set_stock(db, sku="A", location="W1", quantity=2)
    shops["web"].script = [drops_the_answer(shops["web"])]
    await push(db, cache)
    assert [call[1:] for call in shops["web"].calls[1:]] == [("reset", {"A": 2})] * 2
    assert shops["web"].stock == await ours(db)


async def test_a_channel_in_reset_mode_is_told_everything_every_so_many_minutes(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await run(db, "update channel set mode = 'reset', reset_minutes = 30")
    await push(db, cache)
    await set_stock(db, sku="A", location="W1", quantity=2)
    await push(db, cache, now=NOW + timedelta(minutes=29))
    assert shops["web"].stock["A"] == 5
    await push(db, cache, now=NOW + timedelta(minutes=30))
    assert shops["web"].stock == await ours(db)
    assert [(mode, len(said)) for _, mode, said in shops["web"].calls] == [("reset", 5)] * 2


async def test_a_change_of_mode_starts_with_a_reset(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await run(db, "update channel set mode = 'reset'")
    await push(db, cache)
    await run(db, "update channel set mode = 'delta'")
    await push(db, cache)
    assert [(mode, len(said)) for _, mode, said in shops["web"].calls] == [("reset", 5)] * 2


async def test_a_reset_never_gives_back_what_the_shop_has_sold_since(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    shop = shops["web"]
    shop.sell("A", 1, at=NOW - timedelta(minutes=10))
    shop.sell("A", 2, at=NOW - timedelta(minutes=5))
    await order(db, net, "A", 1, placed_at=NOW - timedelta(minutes=10))
    await run(db, "update channel set captured_until = $1 where code = 'web'", NOW - timedelta(minutes=8))
    await push(db, cache, reset=True)
    assert (await ours(db))["A"] == 4
    assert shop.stock["A"] == 2, "the two that are sold and not captured yet are still deducted"
    await order(db, net, "A", 2, placed_at=NOW - timedelta(minutes=5))
    await push(db, cache)
    assert shop.stock["A"] == 2 == (await ours(db))["A"]


async def test_an_order_that_is_known_before_its_moment_is_not_deducted_twice_by_a_reset(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await run(db, "update channel set captured_until = $1 where code = 'web'", NOW - timedelta(minutes=8))
    await push(db, cache)
    shops["web"].sell("A", 2, at=NOW - timedelta(minutes=5))
    await order(db, net, "A", 2, placed_at=NOW - timedelta(minutes=5))
    await push(db, cache, reset=True)
    assert shops["web"].stock["A"] == 3 == (await ours(db))["A"]


async def test_what_a_shop_sold_itself_is_not_deducted_again_by_a_difference(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    shops["web"].sell("A", 2, at=NOW)
    await order(db, net, "A", 2, placed_at=NOW)
    done = await push(db, cache)
    assert done["web"].calls == 0
    assert shops["web"].stock["A"] == 3 == (await ours(db))["A"]
    await set_stock(db, sku="A", location="W1", quantity=8)
    await push(db, cache)
    assert shops["web"].stock["A"] == 6 == (await ours(db))["A"]


async def test_an_order_that_was_placed_with_us_is_deducted_from_the_shop_by_a_difference(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await run(db, "update channel set captured_until = $1 where code = 'web'", NOW)
    await push(db, cache)
    await order(db, net, "A", 2, placed_at=NOW + timedelta(minutes=1), sold_there=False)
    await push(db, cache)
    assert shops["web"].stock["A"] == 3 == (await ours(db))["A"]
    await push(db, cache, reset=True)
    assert shops["web"].stock["A"] == 3 == (await ours(db))["A"]


async def test_a_kit_that_a_shop_sold_itself_is_not_deducted_again(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await run(db, "update sku set is_kit = true where code = 'E'")
    await run(
        db, "insert into kit select e.sku_id, c.sku_id, 2 from sku e, sku c where e.code = 'E' and c.code in ('A', 'B')"
    )
    source = await run(db, "insert into source (code, kind) values ('web', 'shop') returning source_id")
    await run(db, "insert into sku_alias values ($1, 'KIT-E', $2)", source[0][0], net.skus["E"])
    await push(db, cache)
    shop = shops["web"]
    assert shop.stock["KIT-E"] == 2
    shop.sell("KIT-E", 1, at=NOW)
    from oms import ledger

    async with db.transaction() as tx:
        order_id = await tx.fetchval(
            "insert into orders (channel_id, number, hash, placed_at, ship_to, method, sold_there)"
            " values ($1, '1', '', $2, '{}', 'standard', true) returning order_id",
            net.channels["web"], NOW,
        )  # fmt: skip
        await tx.execute(
            "insert into order_line (order_id, line, part, sku_id, sku, pool_id, quantity, open)"
            " values ($1, '1', 1, $2, 'KIT-E', $4, 2, 2), ($1, '1', 2, $3, 'KIT-E', $4, 2, 2)",
            order_id, net.skus["A"], net.skus["B"], net.pools["web"],
        )  # fmt: skip
        both = [net.skus["A"], net.skus["B"]]
        rows = await ledger.lock(tx, both)
        await ledger.write(tx, rows, demand=[ledger.Demand(sku, net.pools["web"], 2) for sku in both])
    await push(db, cache)
    assert shop.stock["KIT-E"] == 1 == (await ours(db))["E"]
    assert (shop.stock["A"], shop.stock["B"]) == (3, 3)


async def test_sales_in_the_shop_and_changes_here_end_at_the_same_number(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    """Whatever is lost, and in whatever order it comes: when all is captured and told, shop and house agree."""
    chance = random.Random(7)
    shop = shops["web"]
    at = (NOW + timedelta(seconds=s) for s in itertools.count())
    waiting: list[tuple[datetime, str, int]] = []
    await push(db, cache)
    for _ in range(60):
        sku = chance.choice("ABCDE")
        match chance.randrange(5):
            case 0:
                await set_stock(db, sku=sku, location="W1", quantity=chance.randrange(20, 40))
            case 1 if shop.stock[sku] > 0:
                moment = next(at)
                shop.sell(sku, 1, at=moment)
                waiting.append((moment, sku, 1))
            case 2:
                for moment, sold, quantity in waiting:
                    await order(db, net, sold, quantity, placed_at=moment)
                waiting.clear()
                await run(db, "update channel set captured_until = $1 where code = 'web'", next(at))
            case 3:
                shop.script = [
                    chance.choice([drops_the_answer(shop), SILENT, slow(0.01)]) for _ in range(chance.randrange(3))
                ]
                await push(db, cache, patience_seconds=0, reset=chance.random() < 0.2)
            case _:
                await push(db, cache, patience_seconds=0)
    for moment, sold, quantity in waiting:
        await order(db, net, sold, quantity, placed_at=moment)
    shop.script = []
    done = await push(db, cache)
    assert done["web"].waiting == 0
    assert shop.stock == await ours(db)
    assert len({call[0] for call in shop.calls}) == len(shop.seen)


async def test_a_sender_that_is_killed_after_its_push_was_committed_loses_nothing(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    while (await project(db, cache, now=NOW)).rows:
        pass
    [channel] = await outbox.channels_of(db, ["web"])
    made = await outbox.prepare(db, channel_id=channel.channel_id, batch_max=100, has_guard=True, now=NOW)
    taken = await outbox.take(db, channel_id=channel.channel_id)
    assert taken is not None and taken[0].push_id == made[0]
    # the sender dies here: its lease holds others off, and then ends
    assert await outbox.take(db, channel_id=channel.channel_id) is None
    await run(db, "update push set leased_until = clock_timestamp() - interval '1 second'")
    await push(db, cache)
    assert [call[0] for call in shops["web"].calls] == [str(push_id) for push_id in made]
    assert shops["web"].stock == await ours(db)


async def test_a_late_sender_whose_lease_ended_does_not_postpone_what_another_took_up(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    while (await project(db, cache, now=NOW)).rows:
        pass
    [channel] = await outbox.channels_of(db, ["web"])
    await outbox.prepare(db, channel_id=channel.channel_id, batch_max=100, has_guard=True, now=NOW)
    late = await outbox.take(db, channel_id=channel.channel_id)
    await run(db, "update push set leased_until = clock_timestamp() - interval '1 second'")
    second = await outbox.take(db, channel_id=channel.channel_id)
    assert late is not None and second is not None and late[0].push_id == second[0].push_id
    assert not await outbox.refused(db, late[0], channel="web", reason="x", skus=5, is_content=True)
    await outbox.unanswered(db, late[0], channel="web", reason="late")
    [[leased, state]] = await run(db, "select leased_until is not null, state from push")
    assert leased and state == "due"
    await outbox.delivered(db, second[0], answer="200")
    assert await run(db, "select from channel_stock where channel_id = $1 and push_id is not null",
                     channel.channel_id) == []  # fmt: skip


async def test_two_senders_at_once_tell_each_thing_once(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].max_batch = 1
    await asyncio.gather(*(push(db, cache) for _ in range(4)))
    assert len(shops["web"].calls) == 5
    assert shops["web"].stock == await ours(db)


async def test_who_waits_for_the_push_of_another_sender_does_not_wait_out_its_lease(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 600.0)
    shops["web"].seconds = 0.3
    async with asyncio.timeout(60):
        done = await asyncio.gather(*(push(db, cache, channels=["web"], patience_seconds=1000.0) for _ in range(2)))
    assert sorted(d["web"].calls for d in done) == [0, 1]
    assert shops["web"].stock == await ours(db)


async def test_one_sku_that_is_refused_holds_up_no_other(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shop = shops["web"]
    shop.script = [
        lambda push: Refused("422 no sku C", is_content=True) if "C" in {n.sku for n in push.lines} else None
    ] * 20
    done = await push(db, cache)
    assert shop.stock == dict.fromkeys("ABDE", 5)
    assert done["web"].dead == 1
    [[push_id, sku]] = await run(
        db, "select push_id, k.code from push join push_item using (push_id) join sku k using (sku_id)"
        " where state = 'dead'",
    )  # fmt: skip
    assert sku == "C"
    assert await subjects(db) == [(f"push {push_id}", "open")]
    shop.script = []
    await set_stock(db, sku="C", location="W1", quantity=9)
    await push(db, cache)
    assert "C" not in shop.stock, "what is dead waits for its replay"
    assert await outbox.replay(db, push_id=push_id, who="olivia") == "web"
    assert await subjects(db) == [(f"push {push_id}", "resolved")]
    await push(db, cache)
    assert str(push_id) in shop.seen
    assert shop.stock == await ours(db)


async def subjects(db: Database) -> list[tuple[str, str]]:
    return [tuple(r) for r in await run(db, "select subject, state from exception where kind = 'push_dead'")]


async def test_a_shop_that_knows_us_no_more_makes_one_dead_push_each_and_a_reset_overtakes_them(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].script = [GONE]
    done = await push(db, cache)
    assert (done["web"].calls, done["web"].dead, done["local"].dead) == (1, 1, 0)
    [[push_id]] = await run(db, "select push_id from push where state = 'dead'")
    await push(db, cache, reset=True)
    assert shops["web"].stock == await ours(db)
    assert await subjects(db) == [(f"push {push_id}", "resolved")]
    with pytest.raises(Conflict):
        await outbox.replay(db, push_id=push_id, who="olivia")
    with pytest.raises(NotFound):
        await outbox.replay(db, push_id=uuid4(), who="olivia")


async def test_a_push_that_is_never_answered_dies_after_many_attempts_and_days(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].script = [SILENT] * 2
    await run(db, "update channel set is_on = false where code = 'local'")
    assert (await push(db, cache, patience_seconds=0))["web"].dead == 0
    await run(db, "update push set attempts = 40, not_before = now()")
    shops["web"].script = [SILENT]
    assert (await push(db, cache, patience_seconds=0))["web"].dead == 0, "many attempts in a short time are no reason"
    await run(db, "update push set made_at = now() - interval '8 days', not_before = now()")
    shops["web"].script = [SILENT]
    assert (await push(db, cache, patience_seconds=0))["web"].dead == 1


async def test_attempts_come_less_and_less_often(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 1.0)
    while (await project(db, cache, now=NOW)).rows:
        pass
    [channel] = await outbox.channels_of(db, ["web"])
    await outbox.prepare(db, channel_id=channel.channel_id, batch_max=100, has_guard=True, now=NOW)
    waits = []
    for _ in range(15):
        await run(db, "update push set not_before = now() - interval '1 s'")
        await run(db, "update channel set paused_until = null")
        taken = await outbox.take(db, channel_id=channel.channel_id)
        assert taken is not None
        await outbox.unanswered(db, taken[0], channel="web", reason="silence", chance=lambda: 1.0)
        [[seconds]] = await run(db, "select extract(epoch from not_before - clock_timestamp())::float8 from push")
        waits.append(round(seconds))
    assert waits == [min(2**n, 3600) for n in range(15)]


async def test_a_slow_or_broken_channel_hurts_itself_only(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(push: Push) -> Answer:
        await asyncio.sleep(3600)
        return DELIVERED

    monkeypatch.setattr(shops["web"], "push", hangs)
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(outbox, "ANSWER_SECONDS_MAX", 0.2)
    done = await push(db, cache, patience_seconds=0)
    assert shops["local"].stock == await ours(db, "local")
    assert (done["web"].unanswered, done["web"].waiting) == (1, 1)

    def breaks(target: Target) -> Shop:
        if target.code == "web":
            raise RuntimeError("a bug in a connector")
        return shops[target.code]

    monkeypatch.setattr(sender, "connector_of", breaks)
    await set_stock(db, sku="A", location="S1", quantity=2)
    done = await push(db, cache, patience_seconds=0)
    assert "a bug" in (done["web"].trouble or "")
    assert shops["local"].stock == await ours(db, "local")


async def test_a_channel_that_keeps_failing_is_left_alone_for_a_while(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BREAKS_AT", 3)
    shops["web"].max_batch = 1
    shops["web"].script = [SILENT] * 5
    monkeypatch.setattr(random, "random", lambda: 1.0)
    monkeypatch.setattr(sender, "send", sender.send)
    [channel] = await outbox.channels_of(db, ["web"])
    while (await project(db, cache, now=NOW)).rows:
        pass
    done = await sender.deliver(db, channel=channel, now=NOW, wire=sender.Wire(), chance=lambda: 1.0)
    assert (done.calls, done.waiting) == (3, 5)
    shops["web"].script = []
    await run(db, "update channel set paused_until = now()")
    await run(db, "update push set not_before = now()")
    done = await sender.deliver(db, channel=channel, now=NOW, wire=sender.Wire())
    assert (done.pushes, done.waiting) == (5, 0)
    assert [tuple(r) for r in await run(db, "select failures, paused_until from channel where code = 'web'")] == [
        (0, None)
    ]


async def test_a_pace_that_a_channel_asks_for_is_kept_by_all_who_push(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    shops["web"].max_batch = 1
    shops["web"].script = [slow(30.0)]
    done = await push(db, cache, patience_seconds=0)
    assert (done["web"].calls, done["web"].slowed, done["web"].waiting) == (1, 1, 5)
    assert done["web"].last_reason
    assert (await push(db, cache, patience_seconds=0))["web"].calls == 0
    await run(db, "update channel set paused_until = null")
    await run(db, "update push set not_before = now()")
    await push(db, cache)
    assert shops["web"].stock == await ours(db)


async def test_what_is_short_is_told_as_nothing_and_never_as_less(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=-4)
    await push(db, cache)
    assert shops["web"].stock["A"] == 0
    await set_stock(db, sku="A", location="W1", quantity=-9)
    await push(db, cache)
    assert len(shops["web"].calls) == 1


async def test_without_redis_channels_are_told_all_the_same(db: Database, net: Net, shops: dict[str, Shop]) -> None:
    gone = Cache("redis://127.0.0.1:1/0")
    await push(db, gone)
    assert shops["web"].stock == await ours(db)
    await gone.close()


async def test_a_channel_is_followed_when_it_is_woken(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    clock = lambda: datetime.now(UTC)  # noqa: E731
    loops = [
        asyncio.create_task(sender.follow(db, cache, channel="web", clock=clock)),
        asyncio.create_task(sender.follow_touched(db, cache, clock=clock)),
    ]
    try:
        await cache.wake("project")
        await until(lambda: shops["web"].stock == dict.fromkeys("ABCDE", 5))
        await set_stock(db, sku="A", location="W1", quantity=1)
        await cache.wake("project")
        await until(lambda: shops["web"].stock["A"] == 1)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_old_pushes_are_forgotten_and_what_is_owed_is_not(
    db: Database, net: Net, cache: Cache, shops: dict[str, Shop]
) -> None:
    await push(db, cache)
    shops["web"].script = [GONE]
    await set_stock(db, sku="A", location="W1", quantity=1)
    await push(db, cache)
    assert await outbox.prune(db, before=datetime.now(UTC) + timedelta(hours=1)) == 2
    assert [tuple(r) for r in await run(db, "select state, mode from push")] == [("dead", "delta")]


async def test_an_unknown_channel_is_named(db: Database, net: Net, cache: Cache, shops: dict[str, Shop]) -> None:
    with pytest.raises(NotFound, match="moon"):
        await push_all(db, cache, now=NOW, channels=["web", "moon"])
    assert shops["web"].calls == []
