"""ATP as channels ask for it: from the projection in Redis, with PostgreSQL behind it."""

from collections.abc import Collection, Sequence
from datetime import date

import msgspec

from oms import ledger, named
from oms.cache import Atp, Cache
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain.atp import Layout
from oms.domain.order import Named
from oms.named import Rule

sql = Sql("promise")

SKUS_MAX = 1_000


class Found(msgspec.Struct, frozen=True):
    """Numbers in the order of the question, and the codes that nobody knows."""

    items: list[Atp]
    unknown: list[str]


class Supply(msgspec.Struct, frozen=True):
    """A sku's availability row as it is read, not taken."""

    sku_id: int
    code: str
    version: int
    layout_id: int
    supply: list[int]
    reserved: list[int]
    taken: dict[str, int]


class _Next(msgspec.Struct, frozen=True):
    sku_id: int
    due_on: date
    quantity: int


supplies_of = sql.rows("supplies", Supply)
incoming_next = sql.rows("incoming_next", _Next)


async def atp(db: Database, cache: Cache, *, channel: str, channel_id: int, skus: Sequence[str], today: date) -> Found:
    """What a channel may sell of each sku, and when more comes. A kit is what its scarcest component allows.

    A number that Redis has is at most as old as the last projection; what it has not is read and filled.
    """
    asked = list(dict.fromkeys(skus))
    seen = await cache.get_atp(channel, asked)
    absent = [code for code in asked if code not in seen.atp]
    read: dict[str, Atp] = {}
    if absent:
        async with db.connection() as connection:
            read = await read_atp(connection, channel_id=channel_id, skus=absent, today=today)
        fills = {row.sku: row for row in read.values()}
        await cache.put_atp(list(fills.values()), epoch=seen.epoch, fills=True)
    items: list[Atp] = []
    unknown = []
    for code in asked:
        found = seen.atp.get(code) or read.get(code)
        if found is None:
            unknown.append(code)
        else:
            items.append(found if found.sku == code else msgspec.structs.replace(found, sku=code))
    return Found(items, unknown)


async def read_atp(tx: Connection, *, channel_id: int, skus: Collection[str], today: date) -> dict[str, Atp]:
    """The numbers from PostgreSQL, by the code that was asked; unknown codes are absent. Rows bear our codes."""
    names = await named.skus_of(tx, {(channel_id, code) for code in skus})
    if not names:
        return {}
    rule = (await named.rules_of(tx, [channel_id]))[channel_id]
    ids = {name.sku_id for name in names.values()} | {part.sku_id for name in names.values() for part in name.parts}
    rows = {row.sku_id: row for row in await supplies_of(tx, skus=sorted(ids))}
    layouts = {layout_id: await ledger.layout(tx, layout_id) for layout_id in {r.layout_id for r in rows.values()}}
    nexts = {n.sku_id: n for n in await incoming_next(tx, skus=sorted(ids), pool_id=rule.pool_id, today=today)}
    found = {}
    for (_, code), name in names.items():
        row, coming = rows[name.sku_id], nexts.get(name.sku_id)
        version = row.version + (sum(rows[p.sku_id].version for p in name.parts) if name.is_kit else 0)
        found[code] = Atp(
            rule.code, row.code, number_of(name, rows, layouts, rule), version, coming.due_on if coming else None,
            coming.quantity if coming else 0,
        )  # fmt: skip
    return found


def number_of(name: Named, rows: dict[int, Supply], layouts: dict[int, Layout], rule: Rule) -> int:
    """What a channel may sell of a sku or kit."""
    if name.is_kit:
        return law.kit_atp([(channel_number(rows[p.sku_id], layouts, rule), p.quantity) for p in name.parts])
    return channel_number(rows[name.sku_id], layouts, rule)


def channel_number(row: Supply, layouts: dict[int, Layout], rule: Rule) -> int:
    """What a channel may sell of a sku that is no kit."""
    layout = layouts[row.layout_id]
    units = 0
    if rule.pool_id in layout.pools:
        units = law.atp_pool(layout, row.supply, row.reserved, layout.pools.index(rule.pool_id))
    taken = row.taken.get(str(rule.channel_id), 0)
    return law.channel_atp(units, buffer=rule.buffer, cap=rule.cap, taken=taken)
