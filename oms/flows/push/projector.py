"""Touched skus become what each channel may sell: `channel_stock` and, beside it, Redis.

Each step is ordered by versions: a sku's is that of its availability row; a kit's is the sum of its own and its
components', which never falls.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

import msgspec

from oms import ledger
from oms.cache import Atp, Cache
from oms.db import Connection, Database, Sql
from oms.domain import atp
from oms.domain.atp import Layout
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


class _Part(msgspec.Struct, frozen=True):
    kit_id: int
    component_id: int
    quantity: int


class _Rule(msgspec.Struct, frozen=True):
    channel_id: int
    code: str
    pool_id: int
    buffer: int
    cap: int | None


class _Supply(msgspec.Struct, frozen=True):
    sku_id: int
    code: str
    version: int
    layout_id: int
    supply: list[int]
    reserved: list[int]
    taken: dict[str, int]


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


class _Next(msgspec.Struct, frozen=True):
    sku_id: int
    pool_id: int
    due_on: date
    quantity: int


class Current(msgspec.Struct, frozen=True):
    """What a channel may sell of a sku, as of a version."""

    channel_id: int
    sku_id: int
    atp: int
    version: int


take_touched = sql.rows("take_touched", _Touched)
kit_parts = sql.rows("kit_parts", _Part)
read_rules = sql.rows("rules", _Rule)
read_supplies = sql.rows("supplies", _Supply)
write_current = sql.one("write_current", _Written)
tell_sold = sql.run("tell_sold")
negative_stock = sql.rows("negative_stock", _Negative)
open_troubles = sql.rows("open_troubles", _Open)
incoming_next = sql.rows("incoming_next", _Next)


async def project(db: Database, cache: Cache, *, now: datetime, limit: int = SKUS_MAX) -> Projected:
    """Takes the touched rows of up to `limit` skus and makes what the channels may sell follow; no rows: none is left.

    Redis is written before the commit: a crash between the two leaves the rows touched, and they are taken again.
    """
    epoch = await cache.epoch()
    async with db.transaction() as tx:
        touched = await take_touched(tx, rows=limit * ROWS_PER_SKU, skus=limit)
        if not touched:
            return Projected(0, 0, 0, 0)
        parts = await kit_parts(tx, skus=list({t.sku_id for t in touched}))
        skus = sorted({t.sku_id for t in touched} | {p.kit_id for p in parts})
        rules = await read_rules(tx)
        supplies = {
            s.sku_id: s for s in await read_supplies(tx, skus=sorted({*skus, *(p.component_id for p in parts)}))
        }
        layouts = {k: await ledger.layout(tx, k) for k in {s.layout_id for s in supplies.values()}}
        currents = compute(skus, supplies=supplies, layouts=layouts, rules=rules, parts=parts)
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
            s.code: units
            for s in supplies.values()
            if s.sku_id in newest and (units := atp.deficit(layouts[s.layout_id], s.supply, s.reserved))
        }
        await keep_troubles(tx, skus=newest, codes=[supplies[s].code for s in newest], short=short)
        nexts = await incoming_next(tx, skus=skus, today=now.date()) if rules else []
        await cache.put_atp(shown(currents, supplies=supplies, rules=rules, nexts=nexts), epoch=epoch)
    for rule in rules:
        if rule.channel_id in written.channels:
            await cache.wake(f"push:{rule.code}")
    return Projected(sum(t.rows for t in touched), len(skus), written.changed, len(short))


def compute(
    skus: Iterable[int],
    *,
    supplies: Mapping[int, _Supply],
    layouts: Mapping[int, Layout],
    rules: Sequence[_Rule],
    parts: Sequence[_Part],
) -> list[Current]:
    """What each channel may sell of each sku; of a kit, what its scarcest component allows."""
    components: dict[int, list[_Part]] = {}
    for part in parts:
        components.setdefault(part.kit_id, []).append(part)
    seen: dict[tuple[int, int], int] = {}

    def of(sku_id: int, rule: _Rule) -> int:
        key = sku_id, rule.channel_id
        if key not in seen:
            row = supplies[sku_id]
            layout = layouts[row.layout_id]
            in_pool = 0
            if rule.pool_id in layout.pools:
                in_pool = atp.atp_pool(layout, row.supply, row.reserved, layout.pools.index(rule.pool_id))
            taken = row.taken.get(str(rule.channel_id), 0)
            seen[key] = atp.channel_atp(in_pool, buffer=rule.buffer, cap=rule.cap, taken=taken)
        return seen[key]

    currents = []
    for sku_id in skus:
        made_of = components.get(sku_id)
        version = supplies[sku_id].version + sum(supplies[p.component_id].version for p in made_of or ())
        for rule in rules:
            if made_of:
                units = atp.kit_atp((of(p.component_id, rule), p.quantity) for p in made_of)
            else:
                units = of(sku_id, rule)
            currents.append(Current(rule.channel_id, sku_id, units, version))
    return currents


def shown(
    currents: Iterable[Current], *, supplies: Mapping[int, _Supply], rules: Sequence[_Rule], nexts: Iterable[_Next]
) -> list[Atp]:
    """The projections as readers see them."""
    channels = {rule.channel_id: rule for rule in rules}
    due = {(n.sku_id, n.pool_id): n for n in nexts}
    rows = []
    for c in currents:
        rule = channels[c.channel_id]
        n = due.get((c.sku_id, rule.pool_id))
        on, units = (n.due_on, n.quantity) if n else (None, 0)
        rows.append(Atp(rule.code, supplies[c.sku_id].code, c.atp, c.version, on, units))
    return rows


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
