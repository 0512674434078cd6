"""One day of the retailer: what moved, what each snapshot had seen of it, and what is there in truth at its end."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from oms.demo.real import Ints
from oms.demo.world import SCALES, Size, World

DAY = timedelta(hours=15)
SNAPSHOT_AGE = {"erp": timedelta(minutes=90), "sim": timedelta(minutes=70), "wms": timedelta(minutes=60)}
"""How long before now each source took its snapshot."""
OFFLINE_SHARE = 0.02
"""Sales of tills that were offline: numbered and posted up to two hours later."""
CASE = 12


class Moved(msgspec.Struct, frozen=True):
    """A movement: `effect` on the units at its key; `posted_at` is when its source numbered it."""

    source: str
    kind: str
    sku: int
    place: int
    quantity: int
    effect: int
    occurred_at: datetime
    posted_at: datetime
    uom: str | None = None
    to: int | None = None
    about: int | None = None
    reason: str | None = None
    hold: str | None = None


class Numbered(msgspec.Struct, frozen=True):
    """A movement under its source's number and id, and whether its key's snapshot contains it."""

    id: str
    sequence: int
    moved: Moved
    contained: bool


class Day(msgspec.Struct, frozen=True):
    """Movements by source in the order of their numbers; `snapshot` and `truth` are units by (sku, location)."""

    movements: dict[str, list[Numbered]]
    as_of: dict[str, datetime]
    watermark: dict[str, dict[str, int]]
    snapshot: Ints
    truth: Ints
    moved_keys: set[tuple[int, int]]
    ids: dict[int, str]


class _Doing:
    """The day while it is made: what is still there to be taken, and which keys are somebody's alone."""

    def __init__(self, world: World, size: Size, seed: int, now: datetime) -> None:
        self.world, self.scale, self.now = world, SCALES[size], now
        self.rng = np.random.default_rng([seed, 2])
        self.left = world.stock.copy()
        self.moved: list[Moved] = []
        self.counted: set[tuple[int, int]] = set()
        self.touched: set[tuple[int, int]] = set()

    def moment(self) -> datetime:
        seconds = int(self.rng.integers(300, int(DAY.total_seconds())))
        return self.now - timedelta(seconds=seconds)

    def keys(self, places: list[int], least: int = 1) -> list[tuple[int, int]]:
        """Keys of these places with stock, in random order."""
        skus, at = np.nonzero(self.world.stock[:, places] >= least)
        mixed = self.rng.permutation(len(skus))
        return list(zip(skus[mixed].tolist(), np.array(places)[at[mixed]].tolist(), strict=True))

    def add(self, source: str, kind: str, key: tuple[int, int], quantity: int, effect: int, **more: Any) -> int | None:
        """Notes a movement unless it would take what is not there; gives its place."""
        if key in self.counted or self.left[key] + min(effect, 0) < 0:
            return None
        self.left[key] += min(effect, 0)
        self.touched.add(key)
        at = more.pop("at", None) or self.moment()
        posted_at = more.pop("posted_at", at)
        self.moved.append(Moved(source, kind, key[0], key[1], quantity, effect, at, posted_at, **more))
        return len(self.moved) - 1


def make_day(world: World, *, size: Size, seed: int, now: datetime) -> Day:
    """The same world, seed and moment give the same day."""
    doing = _Doing(world, size, seed, now)
    owned = {
        source: [k for k, place in enumerate(world.places) if place.owner == source] for source in ("erp", "sim", "wms")
    }
    for source, units in (("erp", doing.scale.erp), ("sim", doing.scale.sim), ("wms", doing.scale.wms)):
        back_office(doing, source, owned[source], units)
    sell(doing, doing.scale.sales)
    return close(doing)


def back_office(doing: _Doing, source: str, places: list[int], number: int) -> None:
    """Counts, corrections, receipts, shipments and transfers of a source where it owns the stock."""
    rng, world = doing.rng, doing.world
    stores = [k for k in places if world.places[k].kind == "store"]
    central = [k for k in places if world.places[k].kind != "store"]
    for key in doing.keys(places, least=2)[: number // 10]:
        # a count names what is there: alone on its key that day, so that its clock need not be compared with others
        there = max(0, int(world.stock[key]) + int(rng.choice([0, 0, -1, -2, 1])))
        doing.add(source, "count", key, there, there - int(world.stock[key]), reason="cycle count")
        doing.counted.add(key)
    for key in doing.keys(places)[: number // 4]:
        change = int(rng.choice([-1, -1, -2, 1]))
        doing.add(source, "adjustment", key, change, change, reason="damaged" if change < 0 else "found")
    for key in doing.keys(central or stores)[: number // 4]:
        is_case = key[0] in world.cased
        quantity = int(rng.integers(1, 4)) if is_case else int(rng.integers(6, 49))
        effect = quantity * (CASE if is_case else 1)
        doing.add(source, "receipt", key, quantity, effect, uom="CASE" if is_case else None)
    for key in doing.keys(places, least=3)[: number // 25]:
        doing.add(source, "hold", key, 1, 0, hold="QI", reason="inspection", at=doing.now - timedelta(minutes=20))
    for key in doing.keys(central, least=2)[: number // 5] if central else []:
        quantity = int(rng.integers(1, 3))
        doing.add(source, "shipment", key, quantity, -quantity, reason="wholesale")
    for key in doing.keys(central, least=4)[: number // 5] if central and stores else []:
        quantity, to = int(rng.integers(1, 4)), int(rng.choice(stores))
        sent = doing.add(source, "transfer", key, quantity, -quantity, to=to)
        if sent is not None and rng.random() < 0.5:
            arrived = doing.moved[sent].occurred_at + timedelta(minutes=int(rng.integers(30, 180)))
            if arrived < doing.now - timedelta(minutes=2):
                doing.add(source, "receipt", (key[0], to), quantity, quantity, at=arrived, about=sent)


def sell(doing: _Doing, number: int) -> None:
    """Sales and returns at the tills of all stores, the more the more a store has of a sku."""
    rng, world = doing.rng, doing.world
    stores = world.at("store")
    keys = doing.keys(stores)
    units = np.array([world.stock[key] for key in keys], np.float64)
    for k in rng.choice(len(keys), size=number, p=units / units.sum()).tolist():
        key, at = keys[k], doing.moment()
        if rng.random() < 0.04:
            doing.add("pos", "return", key, 1, 1, at=at, reason="changed mind")
            continue
        quantity = int(rng.choice([1, 2], p=[0.9, 0.1]))
        # only where snapshots are ordered by number: a source with one clock posts when it happens
        offline = world.places[key[1]].owner == "erp" and rng.random() < OFFLINE_SHARE
        posted_at = at + timedelta(minutes=int(rng.integers(10, 120))) if offline else at
        posted_at = min(posted_at, doing.now - timedelta(minutes=2))
        doing.add("pos", "sale", key, quantity, -quantity, at=at, posted_at=max(at, posted_at))


def close(doing: _Doing) -> Day:
    """Numbers the day's movements and says which of them each snapshot has seen."""
    now, world = doing.now, doing.world
    as_of = {source: now - age for source, age in SNAPSHOT_AGE.items()}
    first = (now.date() - now.date().replace(year=2020, month=1, day=1)).days * 1_000_000
    numbers: list[tuple[str, int]] = [("", 0)] * len(doing.moved)
    highest: dict[tuple[str, str], int] = {}
    order = sorted(range(len(doing.moved)), key=lambda k: (doing.moved[k].posted_at, k))
    last: dict[str, int] = {}
    for k in order:
        moved = doing.moved[k]
        last[moved.source] = sequence = last.get(moved.source, first) + 1
        numbers[k] = (f"{moved.source.upper()}-{now:%Y%m%d%H%M}-{sequence - first:06d}", sequence)
        for owner in ("erp", "wms"):
            if moved.posted_at <= as_of[owner]:
                highest[owner, moved.source] = sequence
    speakers = {"erp": ("erp", "pos"), "sim": (), "wms": ("wms",)}
    watermark = {
        owner: {source: highest.get((owner, source), first) for source in sources}
        for owner, sources in speakers.items()
    }
    truth, snapshot = world.stock.copy(), world.stock.copy()
    movements: dict[str, list[Numbered]] = {"erp": [], "pos": [], "sim": [], "wms": []}
    for k in order:
        moved, (name, sequence) = doing.moved[k], numbers[k]
        owner = world.places[moved.place].owner
        mark = watermark[owner].get(moved.source)
        contained = moved.occurred_at <= as_of[owner] if mark is None else sequence <= mark
        truth[moved.sku, moved.place] += moved.effect
        if contained:
            snapshot[moved.sku, moved.place] += moved.effect
        movements[moved.source].append(Numbered(name, sequence, moved, contained))
    assert (truth >= 0).all() and (snapshot >= 0).all()
    return Day(
        movements, as_of, watermark, snapshot, truth, doing.touched, {k: name for k, (name, _) in enumerate(numbers)}
    )
