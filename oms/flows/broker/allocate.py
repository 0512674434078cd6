"""A run's decisions are written, order by order under guard; what no longer fits stays open."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import msgspec

from oms import ledger, record
from oms.book import PROMISE_BROKEN, Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.allocation import Fate, OrderPlan, Planned, bind_split
from oms.domain.calendar import local_day
from oms.flows.broker import waves
from oms.flows.broker.again import Released, released_work
from oms.flows.broker.planning import Progress

sql = Sql("broker")

ORDERS_PER_CHUNK = 200
NOT_AGAIN = timedelta(hours=1)
"""So long a line is not planned again where another pool's promise would have been broken."""


class Taken(msgspec.Struct, frozen=True):
    """A run under its lock."""

    state: str
    dry_run: bool


class OpenLine(msgspec.Struct, frozen=True):
    """A line under its lock."""

    line_id: int
    order_id: UUID
    line: str
    part: int
    sku_id: int
    pool_id: int
    open: int
    version: int
    hold: str | None
    price_cents: int


class TakenOrder(msgspec.Struct, frozen=True):
    """An order under its lock."""

    order_id: UUID
    split: str
    split_max: int | None
    channel_id: int
    there: list[int]


class Place(msgspec.Struct, frozen=True):
    """A location as allocation must know it."""

    location_id: int
    code: str
    time_zone: str
    is_on: bool


class When(NamedTuple):
    """The work of a package: where, on which local day, and in the wave that begins then, where there are waves."""

    location_id: int
    day: date
    wave: time | None


class Made(msgspec.Struct, frozen=True):
    """A new fulfillment."""

    fulfillment_id: UUID
    order_id: UUID
    location_id: int
    day: date
    wave: time | None


Room = dict[When, ledger.Capacity]
"""What days (no wave) and waves have taken, and may take."""

take_run = sql.maybe("take_run", Taken)
next_decisions = sql.rows("next_decisions", tuple)
take_released = sql.rows("take_released", UUID)
reopen_lines = sql.run("reopen_lines")
recall_work = sql.run("recall_work")
take_orders = sql.rows("take_orders", TakenOrder)
take_decisions = sql.rows("take_decisions", UUID)
take_lines = sql.rows("take_lines", OpenLine)
places_on = sql.rows("places_on", Place)
allocate_lines = sql.run("allocate_lines")
make_fulfillments = sql.rows("make_fulfillments", Made)
make_fulfillment_lines = sql.run("make_fulfillment_lines")
decided = sql.run("decided")
bar = sql.run("bar")
finish_run = sql.maybe("finish_run", dict)


async def apply(
    db: Database, *, run_id: UUID, who: str, now: datetime, cache: Cache | None = None, progress: Progress | None = None
) -> None:
    """Writes a run's decisions, a chunk of orders per transaction; each is done once, whoever does it."""
    done = 0
    while True:
        async with db.transaction() as tx:
            taken = await take_run(tx, run_id=run_id)
            if taken is None or taken.state != "planned" or taken.dry_run:
                return
            chunk = await next_decisions(tx, run_id=run_id, limit=ORDERS_PER_CHUNK)
            if not chunk:
                summary = await finish_run(tx, run_id=run_id)
                await record.keep(tx, who=who, steps=[record.Step("run", str(run_id), "applied", detail=summary)])
                break
            plans = [OrderPlan(order_id, msgspec.convert(plan, list[Planned])) for order_id, plan, _ in chunk]
            saves = {order_id: cents for order_id, _, cents in chunk if cents is not None}
            await allocate(tx, run_id=run_id, plans=plans, who=who, now=now, saves=saves)
        done += len(chunk)
        if progress:
            progress("allocate", done, None)
    if cache is not None:
        await cache.wake("project")


async def allocate(
    tx: Connection, *, run_id: UUID, plans: Sequence[OrderPlan], who: str, now: datetime,
    saves: Mapping[UUID, int] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Allocates a chunk of orders; what no longer fits, and what its split rule binds to it, stays open.

    Orders in `saves` (cents) have work that nobody has accepted: it moves whole, or stays where it is.
    """
    ids = [p.order_id for p in plans]
    orders = {o.order_id: o for o in await take_orders(tx, orders=ids)}
    mine = set(await take_decisions(tx, run_id=run_id, orders=ids))
    released = await _take_released(tx, [i for i in ids if i in saves and i in mine], now=now)
    plans = sorted((p for p in plans if p.order_id in mine), key=lambda p: p.order_id)
    lines = {n.line_id: n for n in await take_lines(tx, orders=[p.order_id for p in plans])}
    lines |= _as_if_open(lines, released)
    back = [w for work in released.values() for w in work]
    wanted = [(w, lines[w.line_id]) for p in plans for w in p.plan if w.line_id in lines]
    places = {p.location_id: p for p in await places_on(tx, locations=list({w.location_id for w, _ in wanted}))}
    days = {i: local_day(now, p.time_zone) for i, p in places.items()}

    def when(w: Planned) -> When:
        if w.wave is None:
            return When(w.location_id, days[w.location_id], None)
        return When(w.location_id, w.wave.date(), w.wave.time())

    book = await Book.open(
        tx, skus={n.sku_id for _, n in wanted} | {w.sku_id for w in back},
        keys={(n.sku_id, w.location_id) for w, n in wanted} | {(w.sku_id, w.location_id) for w in back},
    )  # fmt: skip
    packages = {when(w) for w, _ in wanted if w.location_id in places} | {
        When(w.location_id, w.day, w.wave) for w in back
    }
    room: Room = {
        When(*day, None): used
        for day, used in (await ledger.capacity(tx, {(w.location_id, w.day) for w in packages})).items()
    }
    of_waves = {(w.location_id, w.day, w.wave) for w in packages if w.wave is not None}
    room |= {When(*wave): used for wave, used in (await waves.standing(tx, of_waves)).items()}
    works: list[ledger.Work] = []
    moved: list[Released] = []
    fates: dict[UUID, tuple[list[Planned], list[Fate]]] = {}
    for p in plans:
        work = released.get(p.order_id, [])
        before = dict(room), len(works)
        if p.order_id in saves:
            _give_back(book, work, room, works)
        fate = _tried(book, p.plan, lines, places)
        kept = bind_split(
            orders[p.order_id].split,
            p.plan,
            fate,
            open_lines={n.line_id: f"{n.line}" for n in lines.values() if n.order_id == p.order_id and n.open > 0},
            there=[] if p.order_id in saves else orders[p.order_id].there,
            split_max=orders[p.order_id].split_max,
        )
        kept, more = _with_capacity(kept, lines, room, when, works, split=orders[p.order_id].split)
        if p.order_id in saves and len(kept) < len(p.plan):  # then nothing of it moves
            kept = []
            _give_back(book, work, room, works, sign=-1)
            room, works = before[0], works[: before[1]]
        elif p.order_id in saves:
            moved += work
        for w in kept:
            _put(book, w, lines[w.line_id])
        fates[p.order_id] = (kept, [*fate, *more])
    await book.write(tx, capped=())
    await ledger.work(tx, works)
    done = [(order_id, w) for order_id, (kept, _) in fates.items() for w in kept]
    await reopen_lines(tx, lines=[w.line_id for w in moved], quantities=[w.quantity for w in moved])
    await recall_work(tx, fulfillments=sorted({w.fulfillment_id for w in moved}))
    await allocate_lines(tx, lines=[w.line_id for _, w in done], quantities=[w.quantity for _, w in done])
    await _fulfillments(tx, run_id=run_id, done=done, lines=lines, when=when)
    breaking = [
        (p.order_id, lines[w.line_id].sku_id, w.location_id)
        for p in plans
        for w, fate in zip(p.plan, fates[p.order_id][1], strict=False)
        if fate.refused == PROMISE_BROKEN
    ]
    await bar(
        tx, orders=[b[0] for b in breaking], skus=[b[1] for b in breaking], locations=[b[2] for b in breaking],
        until=now + NOT_AGAIN,
    )  # fmt: skip
    await _tell_of_moves(tx, moved, saves, run_id=run_id, who=who)
    await _conclude(tx, run_id=run_id, plans=plans, fates=fates, places=places, who=who)


async def _tell_of_moves(
    tx: Connection, moved: Sequence[Released], saves: Mapping[UUID, int], *, run_id: UUID, who: str
) -> None:
    """Histories say from where work was taken back, and what that saves."""
    why = {order_id: f"run {run_id} saves {cents} cents" for order_id, cents in saves.items()}
    works = sorted({(w.fulfillment_id, w.order_id) for w in moved})
    steps = [record.Step("fulfillment", str(f), "recalled", why[o], {"order": str(o)}) for f, o in works]
    steps += [record.Step("order", str(o), "open again", why[o]) for o in sorted({o for _, o in works})]
    await record.keep(tx, who=who, steps=steps)


async def _take_released(tx: Connection, orders: Sequence[UUID], *, now: datetime) -> dict[UUID, list[Released]]:
    """What locations have of these orders and have not accepted, taken."""
    found: dict[UUID, list[Released]] = {}
    if orders:
        await take_released(tx, orders=list(orders))
        for w in await released_work(tx, orders=list(orders), now=now):
            found.setdefault(w.order_id, []).append(w)
    return found


def _as_if_open(lines: Mapping[int, OpenLine], released: Mapping[UUID, Sequence[Released]]) -> dict[int, OpenLine]:
    """Lines whose work is taken back, open again by what locations have of them."""
    again: dict[int, OpenLine] = {}
    for w in (w for work in released.values() for w in work):
        line = again.get(w.line_id) or lines[w.line_id]
        again[w.line_id] = msgspec.structs.replace(line, open=line.open + w.quantity)
    return again


def _give_back(
    book: Book, work: Sequence[Released], room: Room, works: list[ledger.Work], *, sign: int = 1
) -> None:  # fmt: skip
    """Units of work are reserved instead of allocated and its capacity is free, or (-1) as they were."""
    packages: dict[tuple[UUID, When], list[Released]] = {}
    for w in work:
        book.keep(w.sku_id, w.pool_id, sign * w.quantity)
        book.allocate(w.sku_id, w.location_id, -sign * w.quantity, pool_id=w.pool_id, channel_id=None)
        packages.setdefault((w.fulfillment_id, When(w.location_id, w.day, w.wave)), []).append(w)
    for (_, at), ws in packages.items() if sign > 0 else ():
        units, cents = sum(w.quantity for w in ws), sum(w.quantity * w.price_cents for w in ws)
        works.append(ledger.Work(at.location_id, at.day, -1, -units, -cents))
        _take(room, at, works[-1])


def _put(book: Book, w: Planned, line: OpenLine, *, sign: int = 1) -> None:
    """Reserved units of a line become allocated at its planned location, or (-1) are reserved again."""
    book.keep(line.sku_id, line.pool_id, -sign * w.quantity)
    book.allocate(line.sku_id, w.location_id, sign * w.quantity, pool_id=line.pool_id, channel_id=None)


def _tried(
    book: Book, plan: Sequence[Planned], lines: Mapping[int, OpenLine], places: Mapping[int, Place]
) -> list[Fate]:
    """Whether each part of an order's plan may be written: a line fits on what those before it leave, or takes nothing.

    The book is left as it was.
    """
    by_line: dict[str, list[int]] = {}
    for k, w in enumerate(plan):
        by_line.setdefault(lines[w.line_id].line if w.line_id in lines else f"?{w.line_id}", []).append(k)
    fates: dict[int, Fate] = {}
    taken: list[Planned] = []
    for parts in by_line.values():
        mine: list[Planned] = []
        for k in parts:
            fates[k] = _fits(book, plan[k], lines.get(plan[k].line_id), places)
            if fates[k].refused is None:
                _put(book, plan[k], lines[plan[k].line_id])
                mine.append(plan[k])
        if len(mine) < len(parts):
            for w in mine:
                _put(book, w, lines[w.line_id], sign=-1)
        else:
            taken += mine
    for w in taken:
        _put(book, w, lines[w.line_id], sign=-1)
    return [fates[k] for k in range(len(plan))]


def _fits(book: Book, w: Planned, line: OpenLine | None, places: Mapping[int, Place]) -> Fate:
    """Whether a planned line may be allocated now: open as it was read, location on, stock there, no promise broken."""
    if line is None or line.version != w.version or line.open < w.quantity or line.hold is not None:
        return Fate(w.line_id, "changed since it was read")
    place = places.get(w.location_id)
    if place is None or not place.is_on:
        return Fate(w.line_id, "the location is off")
    return Fate(w.line_id, book.may_allocate(line.sku_id, w.location_id, line.pool_id, w.quantity))


def _with_capacity(
    kept: Sequence[Planned],
    lines: Mapping[int, OpenLine],
    room: Room,
    when: Callable[[Planned], When],
    works: list[ledger.Work],
    *,
    split: str,
) -> tuple[list[Planned], list[Fate]]:
    """Takes the work of each package from its location's day and wave; packages that do not fit are dropped."""
    packages: dict[When, list[Planned]] = {}
    for w in kept:
        packages.setdefault(when(w), []).append(w)
    full: dict[When, str] = {}
    needs: dict[When, ledger.Work] = {}
    before = dict(room)
    for at, ws in packages.items():
        cents = sum(w.quantity * lines[w.line_id].price_cents for w in ws)
        need = ledger.Work(at.location_id, at.day, 1, sum(w.quantity for w in ws), cents)
        why = _no_room(room, at, need)
        if why is not None:
            full[at] = why
        else:
            needs[at] = need
            _take(room, at, need)
    if full and split in ("complete", "keep_together"):
        room.update({at: before[at] for at in room})
        full |= {at: next(iter(full.values())) for at in packages if at not in full}
        needs = {}
    works += needs.values()
    dropped = [Fate(w.line_id, why) for at, why in full.items() for w in packages[at]]
    return [w for w in kept if when(w) not in full], dropped


def _no_room(room: Room, at: When, need: ledger.Work) -> str | None:
    """Why a package's work does not fit its day or its wave, or None."""
    if not room[at._replace(wave=None)].fits(need):
        return "its location's day is full"
    if at.wave is None:
        return None
    if at not in room:
        return "its location has no such wave any more"
    return None if room[at].fits(need) else "its wave is full"


def _take(room: Room, at: When, need: ledger.Work) -> None:
    """Takes work from its day, and from its wave where it has one, or gives it back."""
    for key in {at, at._replace(wave=None)} & room.keys():
        used = room[key]
        room[key] = msgspec.structs.replace(
            used, orders=used.orders + need.orders, items=used.items + need.items, cents=used.cents + need.cents
        )


async def _fulfillments(
    tx: Connection,
    *,
    run_id: UUID,
    done: Sequence[tuple[UUID, Planned]],
    lines: Mapping[int, OpenLine],
    when: Callable[[Planned], When],
) -> None:
    """A fulfillment per order, location and wave, with its lines."""
    pairs = list(dict.fromkeys((order_id, when(w)) for order_id, w in done))
    made = {
        (f.order_id, When(f.location_id, f.day, f.wave)): f.fulfillment_id
        for f in await make_fulfillments(
            tx, run_id=run_id, orders=[o for o, _ in pairs], locations=[at.location_id for _, at in pairs],
            days=[at.day for _, at in pairs], waves=[at.wave for _, at in pairs],
        )
    }  # fmt: skip
    units: dict[tuple[UUID, int], int] = {}
    for order_id, w in done:
        key = made[order_id, when(w)], w.line_id
        units[key] = units.get(key, 0) + w.quantity
    await make_fulfillment_lines(
        tx, fulfillments=[i for i, _ in units], lines=[i for _, i in units],
        skus=[lines[i].sku_id for _, i in units], quantities=list(units.values()),
    )  # fmt: skip


async def _conclude(
    tx: Connection,
    *,
    run_id: UUID,
    plans: Sequence[OrderPlan],
    fates: Mapping[UUID, tuple[list[Planned], list[Fate]]],
    places: Mapping[int, Place],
    who: str,
) -> None:
    """Keeps what became of each decision, and the orders' history."""
    states, results, steps = [], [], []
    for p in plans:
        kept, fate = fates[p.order_id]
        why = sorted({f.refused for f in fate if f.refused})
        states.append("applied" if len(kept) == len(p.plan) else "partly" if kept else "dropped")
        results.append("; ".join(why) or (None if len(kept) == len(p.plan) else "its order's split rule"))
        if kept:
            at = sorted({places[w.location_id].code for w in kept})
            steps.append(
                record.Step("order", str(p.order_id), "allocated", why=f"run {run_id}",
                            detail={"lines": len(kept), "locations": at})
            )  # fmt: skip
    await decided(tx, run_id=run_id, orders=[p.order_id for p in plans], states=states, results=results)
    await record.keep(tx, who=who, steps=steps)
