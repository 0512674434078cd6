"""The baseline against the truth, in random worlds: late, doubled, reordered words; every level, kind and step."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from connectors.feeds import RowRefused
from connectors.feeds.message import Message
from connectors.feeds.tabular import Batch
from oms import ledger
from oms.access import house
from oms.book import Book
from oms.db import Database
from oms.flows import fulfill, reconcile
from oms.flows.fulfill import Rejected
from oms.flows.ingest import acknowledge, apply, messages, stage
from tests.worlds.generate import (
    KINDS,
    LEVELS,
    SNAPSHOT_DELAY,
    SNAPSHOTS,
    STEPS,
    WINDOW_MINUTES,
    World,
    make_world,
    moment,
)  # fmt: skip

END = 200.0
CONFIGURATIONS = list(itertools.product(LEVELS, KINDS, STEPS))


class Snapshot:
    """A snapshot as a reader gives it."""

    def __init__(self, rows: list[tuple[str, str, int]], name: str) -> None:
        self.rows, self.sha256 = rows, name

    def __iter__(self) -> Iterator[Batch]:
        lines = [f"{n}\t{s}\t{at}\t{q}\t\\N\t\\N\t\\N\t\\N\n" for n, (s, at, q) in enumerate(self.rows, 2)]
        refused: list[RowRefused] = []
        yield Batch("".join(lines).encode(), len(lines), refused, 0, None)


async def play(db: Database, worlds: dict[tuple[str, str, str], list[World]]) -> None:
    """Lets every word of all worlds come in the order in which it reaches us."""
    await build(db, worlds)
    queue: list[tuple[float, int, str, Any]] = []
    for configuration, some in worlds.items():
        number(some)
        code = "-".join(configuration)
        queue.append((0.5, 0, "snapshot", (configuration, some, 0.0)))
        for at in SNAPSHOTS:
            queue.append((at + SNAPSHOT_DELAY, 0, "snapshot", (configuration, some, at)))
        for w in some:
            for e in w.events:
                queue += [(minute, 1, "message", (f"pos-{code}", code, w, e)) for minute in e.comes]
            for o in w.ours:
                if o.given_at is not None:
                    queue.append((o.given_at, 2, "give", (code, w, o)))
                if o.at is not None:
                    queue.append((o.at, 3, "ours", (code, w, o)))
                if o.rejected_at is not None:
                    queue.append((o.rejected_at, 3, "reject", (code, w, o)))
                if o.ack_comes is not None:
                    queue.append((o.ack_comes, 4, "ack", (code, w, o, "")))
                if o.undo_comes is not None:
                    queue.append((o.undo_comes, 5, "ack", (code, w, o, acknowledge.UNDONE)))
    queue.sort(key=lambda q: q[:2])
    given: dict[str, tuple[UUID, str]] = {}
    for (_, what), words in itertools.groupby(queue, key=lambda q: (int(q[0] * 2), q[2])):
        await act(db, what, [w[3] for w in words], given)


async def act(db: Database, what: str, words: list[Any], given: dict[str, tuple[UUID, str]]) -> None:
    """Words of one kind and half a minute."""
    if what == "snapshot":
        for configuration, some, at in words:
            await snapshot(db, configuration, some, at)
    elif what == "message":
        by_source: dict[str, list[Message]] = defaultdict(list)
        for source, location, w, e in words:
            by_source[source].append(
                Message(id=e.id, sku=w.sku, location=location, kind=e.kind, quantity=e.quantity,
                        occurred_at=moment(e.told_at), sequence=e.sequence if "sequence" in source else None,
                        hold="QI" if e.held else None)
            )  # fmt: skip
        for source, some_messages in by_source.items():
            results = await messages.take(db, source=source, messages=some_messages, who="test")
            assert {r.outcome for r in results} <= {"applied", "absorbed", "duplicate"}, results
    elif what == "give":
        await give(db, words, given)
    elif what == "ours":
        await ours(db, words, given)
    elif what == "reject":
        for _, _, o in words:
            await fulfill.reject(db, fulfillment=given[o.reference][0], lines=[Rejected("1", o.quantity, "broken")],
                                 stock="keep", actor=house, now=moment(o.rejected_at))  # fmt: skip
    else:
        for code, _, o, end in words:
            at = o.undone_at if end else o.deducted_at
            reference = given[o.reference][1] if o.reference in given else o.reference
            await acknowledge.posted(db, source=code, references=[reference + end], at=moment(at), who="test")


def number(some: list[World]) -> None:
    """The movement source numbers its messages in the order in which they happened."""
    events = sorted((e for w in some for e in w.events), key=lambda e: e.at)
    for n, e in enumerate(events, 1):
        e.sequence = n


async def build(db: Database, worlds: dict[tuple[str, str, str], list[World]]) -> None:
    """A location, an owner and a movement source for each configuration."""
    async with db.transaction() as tx:
        await tx.execute("insert into pool (code) values ('all')")
        await tx.execute("insert into layout (pools, segments) select array[pool_id], '{1}' from pool")
        for (level, kind, step), some in worlds.items():
            code = f"{level}-{kind}-{step}"
            place = await tx.fetchval(
                "insert into location (code, kind) values ($1, 'store') returning location_id", code
            )
            await tx.execute("insert into layout_location select max(layout_id), $1, 0 from layout", place)
            await tx.execute("insert into pool_location select pool_id, $1 from pool", place)
            owner = await tx.fetchval(
                "insert into source (code, kind, quantity_kind, order_level, window_seconds, deducts_at, absent_is_zero,"
                " deducted_holds, gates) values ($1, 'erp', $2, $3, $4, $5, true, $6, $7) returning source_id",
                code, kind, level, WINDOW_MINUTES * 60 if level == "window" else 0, step,
                ["QI"] if kind == "available" else [],
                {"keys_present_min_share": None, "units_change_max_share": None, "to_zero_max_share": None},
            )  # fmt: skip
            pos = await tx.fetchval(
                "insert into source (code, kind, order_level, window_seconds, additions) values ($1, 'pos', $2, $3, $4)"
                " returning source_id",
                f"pos-{code}", level, WINDOW_MINUTES * 60 if level == "window" else 0,
                {"receipt": "at_once", "return": "at_once", "adjustment": "at_once"},
            )  # fmt: skip
            await tx.execute("insert into ownership values ($1, 'quantity', $2)", place, owner)
            await tx.executemany(
                "insert into ownership values ($1, $2, $3)",
                [(place, fact, pos) for fact in ("sale", "return", "receipt", "adjustment", "count", "hold")],
            )
            await tx.executemany("insert into sku (code) values ($1)", [(w.sku,) for w in some])
        await tx.execute("insert into channel (code, pool_id) select 'web', pool_id from pool")


async def snapshot(db: Database, configuration: tuple[str, str, str], some: list[World], at: float) -> None:
    """The owner's snapshot of a minute, with the watermark and posted list that its level gives."""
    level, kind, _ = configuration
    code = "-".join(configuration)
    rows = [(w.sku, code, max(0, w.books(at, level=level, kind=kind))) for w in some]
    watermark = {}
    if level == "sequence":
        lag = 9.0
        watermark = {f"pos-{code}": max((e.sequence for w in some for e in w.events if e.at <= at - lag), default=0)}
    staged = await stage.receive(
        db, source=code, reader=Snapshot(rows, f"{code}-{at}"), name="snapshot", as_of=moment(at), scope="full",  # type: ignore[arg-type]
        watermark=watermark, who="test", now=moment(END),
    )  # fmt: skip
    assert staged.refused == 0 and staged.parts == {"staged": 1}, staged
    await apply.apply(db, feed_id=staged.feed_id, who="test")


async def give(db: Database, words: list[Any], given: dict[str, tuple[UUID, str]]) -> None:
    """Fulfillments as brokering writes them: allocated, whatever the stock says."""
    async with db.transaction() as tx:
        channel, pool = await tx.fetchrow("select channel_id, pool_id from channel")
        ids = dict(await tx.fetch("select code, sku_id from sku where code = any($1)", [w.sku for _, w, _ in words]))
        places = dict(await tx.fetch("select code, location_id from location"))
        book = await Book.open(tx, skus=set(ids.values()), keys={(ids[w.sku], places[code]) for code, w, _ in words})
        for code, w, o in words:
            order = await tx.fetchval(
                "insert into orders (channel_id, number, hash, placed_at, ship_to, method)"
                " values ($1, $2, '', now(), '{}', 'ship') returning order_id", channel, o.reference,
            )  # fmt: skip
            line = await tx.fetchval(
                "insert into order_line (order_id, line, sku_id, sku, pool_id, quantity, allocated)"
                " values ($1, '1', $2, $3, $4, $5, $5) returning line_id", order, ids[w.sku], w.sku, pool, o.quantity,
            )  # fmt: skip
            place = places[code]
            fulfillment = await tx.fetchval(
                "insert into fulfillment (order_id, location_id, capacity_day) values ($1, $2, '2026-01-01')"
                " returning fulfillment_id", order, place,
            )  # fmt: skip
            reference = f"{fulfillment}:{line}"
            await tx.execute(
                "insert into fulfillment_line (fulfillment_id, line_id, sku_id, given, quantity, reference)"
                " values ($1, $2, $3, $4, $4, $5)", fulfillment, line, ids[w.sku], o.quantity, reference,
            )  # fmt: skip
            await tx.execute(
                "insert into capacity (location_id, day, orders, items) values ($1, '2026-01-01', 1, $2)"
                " on conflict (location_id, day) do update set orders = capacity.orders + 1, items = capacity.items + $2",
                place, o.quantity,
            )  # fmt: skip
            book.allocate(ids[w.sku], place, o.quantity, pool_id=pool, channel_id=None)
            given[o.reference] = (fulfillment, reference)
        await book.write(tx, capped=())


async def ours(db: Database, words: list[Any], given: dict[str, tuple[UUID, str]]) -> None:
    """Shipments through the fulfillment's steps; returns and counts of ours straight into the ledger."""
    for code, w, o in words:
        if o.kind == "fulfillment":
            for step in ("accept", "pick", "ship"):
                await fulfill.advance(
                    db, fulfillments=[given[o.reference][0]], step=step, actor=house, now=moment(o.at)
                )  # type: ignore[arg-type]
            continue
        async with db.transaction() as tx:
            sku_id = await tx.fetchval("select sku_id from sku where code = $1", w.sku)
            place = await tx.fetchval("select location_id from location where code = $1", code)
            locked = await ledger.lock(tx, [sku_id])
            stock = (await ledger.stock(tx, [(sku_id, place)]))[sku_id, place]
            effect = o.effect if o.kind == "return" else o.counted - stock.on_hand
            move = ledger.Move(
                sku_id=sku_id, location_id=place, source_id=ledger.HOUSE, message_id=o.reference, kind=o.kind,
                quantity=effect, effect=effect, occurred_at=moment(o.at), is_ours=True,
            )  # fmt: skip
            await ledger.move(tx, [move], feed_id=None, who="test")
            await ledger.write(tx, locked, resum=[sku_id])


async def differences(db: Database, worlds: dict[tuple[str, str, str], list[World]]) -> dict[str, list[Any]]:
    """Level → (sku, ours, truth) where what we believe is available is not what there is."""
    believed = {
        row[0]: (row[1], row[2])
        for row in await db.pool.fetch("select s.code, k.on_hand, k.held from stock k join sku s using (sku_id)")
    }
    found: dict[str, list[Any]] = defaultdict(list)
    for (level, _, _), some in worlds.items():
        for w in some:
            on_hand, held = believed.get(w.sku, (0, 0))
            truth = w.physical(END), w.held(END)
            if (on_hand, held) != truth:
                found[level].append((w.sku, (on_hand, held), truth, w))
    return found


async def run(db: Database, *, seed: int, each: int) -> None:
    worlds = {
        (level, kind, step): [make_world(n, level=level, kind=kind, step=step, seed=seed) for n in range(each)]
        for level, kind, step in CONFIGURATIONS
    }
    await play(db, worlds)
    found = await differences(db, worlds)
    assert not found["sequence"], found["sequence"][:3]
    assert not found["clock"], found["clock"][:3]
    too_high = [f for f in found["window"] if f[1][0] - f[1][1] > f[2][0] - f[2][1]]
    assert not too_high, too_high[:3]
    _, wrong = await reconcile.verify(db)
    assert not wrong, wrong[:5]


async def test_baselines_are_right_in_random_worlds_and_never_too_high_where_clocks_differ(db: Database) -> None:
    await run(db, seed=1, each=20)


@pytest.mark.long
async def test_baselines_are_right_in_a_hundred_thousand_worlds(db: Database) -> None:
    await run(db, seed=2, each=100_000 // len(CONFIGURATIONS) + 1)
