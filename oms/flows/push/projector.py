"""Touched skus become what each channel may sell: `channel_stock` and, beside it, Redis.

Each step is ordered by versions: a sku's is that of its availability row; a kit's is the sum of its own and its
components', which never falls.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from oms import named, numbers
from oms.cache import Cache, Projection
from oms.db import Connection, Database, Sql
from oms.domain import atp
from oms.domain.atp import Layout
from oms.domain.shape import Rule, chosen
from oms.numbers import Shelf
from oms.record import Trouble, raise_exceptions, settle_exceptions

sql = Sql("project")

SKUS_MAX = 5_000
"""Skus of one transaction."""
ROWS_PER_SKU = 10
"""Touched rows that are looked at for each of them: a hot sku is computed once."""


class Projected(msgspec.Struct, frozen=True):
    """What one batch did: touched rows taken, skus computed, channels' figures that changed, skus in deficit."""

    rows: int
    skus: int
    changed: int
    deficits: int


class _Touched(msgspec.Struct, frozen=True):
    sku_id: int
    channel_id: int | None
    sold: int
    rows: int


class _Written(msgspec.Struct, frozen=True):
    changed: int
    channels: list[int]
    skus: list[int]


class _Negative(msgspec.Struct, frozen=True):
    sku: str
    location: str
    on_hand: int
    messages: list[str]


class _Open(msgspec.Struct, frozen=True):
    kind: str
    subject: str
    units: int | None


class Current(msgspec.Struct, frozen=True):
    """What a channel may sell of a sku, as of a version."""

    channel_id: int
    sku_id: int
    atp: int
    version: int


take_touched = sql.rows("take_touched", _Touched)
last_touched = sql.one("last_touched", int)
touched_before = sql.one("touched_before", bool)
kits_of = sql.rows("kits_of", int)
hold_rules = sql.run("hold_rules")
write_current = sql.one("write_current", _Written)
tell_sold = sql.run("tell_sold")
negative_stock = sql.rows("negative_stock", _Negative)
open_troubles = sql.rows("open_troubles", _Open)


async def project(db: Database, cache: Cache, *, now: datetime, limit: int = SKUS_MAX) -> Projected:
    """Takes the touched rows of up to `limit` skus and makes what the channels may sell follow; no rows: none is left.

    Redis is written before the commit: a crash between the two leaves the rows touched, and they are taken again.
    """
    epoch, began = await cache.epoch(), time.time()
    async with db.connection() as connection:
        last = await last_touched(connection)
    async with db.transaction() as tx:
        touched = await take_touched(tx, rows=limit * ROWS_PER_SKU, skus=limit)
        await hold_rules(tx)
        version = await numbers.rulebook_version(tx)
        if touched:
            rules = list((await named.rules_of(tx, None)).values())
            written = await _follow(tx, cache, touched, rules=rules, epoch=epoch, now=now)
    await cache.rules_are(version)
    async with db.connection() as connection:
        # those that another projector has taken are seen until it has committed
        if not await touched_before(connection, last=last):
            await cache.projected_upto(began)
    if not touched:
        return Projected(0, 0, 0, 0)
    for rule in rules:
        if rule.channel_id in written.channels:
            await cache.wake(f"push:{rule.code}")
    return Projected(sum(t.rows for t in touched), written.skus, written.changed, written.deficits)


class _Followed(msgspec.Struct, frozen=True):
    skus: int
    changed: int
    channels: list[int]
    deficits: int


async def _follow(
    tx: Connection,
    cache: Cache,
    touched: Sequence[_Touched],
    *,
    rules: Sequence[Rule],
    epoch: str | None,
    now: datetime,
) -> _Followed:
    changed = {t.sku_id for t in touched}
    skus = sorted(changed | set(await kits_of(tx, skus=sorted(changed))))
    read = await numbers.read(tx, skus, today=now.date())
    currents = compute(skus, read=read, rules=rules, now=now)
    written = await write_current(
        tx, channels=[c.channel_id for c in currents], skus=[c.sku_id for c in currents],
        currents=[c.atp for c in currents], versions=[c.version for c in currents],
    )  # fmt: skip
    sold = [t for t in touched if t.channel_id is not None and t.sold]
    if sold:
        await tell_sold(
            tx, channels=[t.channel_id for t in sold], skus=[t.sku_id for t in sold], solds=[t.sold for t in sold]
        )
    # where a newer version is written already, its projector has seen what is short now
    newest = set(written.skus) if rules else set(skus)
    short = {
        code: units
        for code, row in read.rows.items()
        if row.sku_id in newest and (units := deficit(row, read.layouts[row.layout_id], rules, now=now))
    }
    await keep_troubles(tx, skus=newest, codes=[read.codes[s] for s in newest], short=short)
    await cache.put(read.rows, epoch=epoch)
    return _Followed(len(skus), written.changed, written.channels, len(short))


def compute(skus: Iterable[int], *, read: Shelf, rules: Sequence[Rule], now: datetime) -> list[Current]:
    """What each channel may sell of each sku; of a kit, what its scarcest component allows."""
    return [
        Current(rule.channel_id, sku_id, read.number(code, rule, now=now), read.version(code))
        for sku_id, code in ((sku_id, read.codes[sku_id]) for sku_id in skus)
        for rule in rules
    ]


def deficit(row: Projection, layout: Layout, rules: Sequence[Rule], *, now: datetime) -> int:
    """Units promised beyond what there is, and beyond what is expected where a channel sells ahead of it.

    What is sold whatever there is breaks no promise.
    """
    if any(chosen(r.shapes, "infinite", sku_id=row.sku_id, now=now) for r in rules):
        return 0
    units = atp.deficit(layout, row.supply, row.reserved)
    if units and row.coming and any(chosen(r.shapes, "preorder", sku_id=row.sku_id, now=now) for r in rules):
        there = list(row.supply)
        for c in row.coming:
            if c.day(now.date()) is not None:
                there[c.segment] += c.units
        units = atp.deficit(layout, there, row.reserved)
    return units


async def keep_troubles(tx: Connection, *, skus: Iterable[int], codes: Sequence[str], short: Mapping[str, int]) -> None:
    """Opens and closes what a person must know of these skus: broken promises, and stock below zero."""
    found: dict[tuple[str, str], Trouble] = {}
    for code, units in short.items():
        found["pool_deficit", code] = Trouble(
            kind="pool_deficit", subject=code, payload={"sku": code, "units": units},
            detail=f"Sku {code} is promised {units} units beyond what there is. Broker again, find stock or cancel.",
        )  # fmt: skip
    for row in await negative_stock(tx, skus=list(skus)):
        subject = f"{row.sku} at {row.location}"
        found["negative_stock", subject] = Trouble(
            kind="negative_stock", subject=subject,
            payload={"sku": row.sku, "location": row.location, "units": row.on_hand, "messages": row.messages},
            detail=f"On hand of {subject} is {row.on_hand} after {', '.join(row.messages)}. Its availability shows 0; "
            "a receipt that was not told, or a count, clears it.",
        )  # fmt: skip
    is_open = {(t.kind, t.subject): t.units for t in await open_troubles(tx, codes=codes)}
    await raise_exceptions(tx, [t for key, t in found.items() if is_open.get(key) != t.payload["units"]])
    cured = [key for key in is_open if key not in found]
    await settle_exceptions(tx, who="oms", resolution="The stock came back.", of=cured)
