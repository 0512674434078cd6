"""Why a number is what it is: the waterfall from on hand to ATP, which always adds up to the number that ATP gives."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from oms import named, numbers
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain.atp import Layout
from oms.domain.shape import Rule
from oms.errors import NotFound
from oms.numbers import Shelf

sql = Sql("promise")


class StockHere(msgspec.Struct, frozen=True):
    """A location of a layout with its stock of a sku."""

    location_id: int
    code: str
    name: str
    kind: str
    is_on: bool
    lat: float | None
    lon: float | None
    segment: int
    on_hand: int
    held: int
    allocated: int
    safety_stock: int

    @property
    def available(self) -> int:
        """Units that may be promised from here."""
        return max(0, self.on_hand - self.held - self.allocated - self.safety_stock) if self.is_on else 0


class LocationStep(msgspec.Struct, frozen=True):
    """From on hand to available at a location of the channel's pool."""

    location: str
    on_hand: int
    held: int
    allocated: int
    safety_stock: int
    is_on: bool
    available: int


class PoolStep(msgspec.Struct, frozen=True):
    """A pool: what is reserved in it, what its locations have, and whether it is among those that bind the number."""

    pool: str
    reserved: int
    supply: int
    binds: bool


class Waterfall(msgspec.Struct, frozen=True):
    """One step: units that it adds or takes. The steps of a sku add up to its ATP."""

    step: str
    units: int
    pool: str | None = None
    rule: str | None = None


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its reasons. A kit has `parts`, and its number is what the scarcest of them allows."""

    channel: str
    sku: str
    atp: int
    version: int
    per_kit: int | None = None
    steps: list[Waterfall] = []
    locations: list[LocationStep] = []
    pools: list[PoolStep] = []
    parts: "list[Explained]" = []


class _Pool(msgspec.Struct, frozen=True):
    pool_id: int
    code: str


stock_by_location = sql.rows("stock_by_location", StockHere)
pool_codes = sql.rows("pool_codes", _Pool)


async def explain(db: Database, *, channel_id: int, sku: str, now: datetime) -> Explained:
    """The waterfall of a sku for a channel, all read at one moment; NotFound where nobody knows the sku."""
    async with db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        names = await named.skus_of(connection, {(channel_id, sku)})
        if not names:
            raise NotFound(f"no sku has the code {sku!r}")
        name = names[channel_id, sku]
        rule = (await named.rules_of(connection, [channel_id]))[channel_id]
        ids = {name.sku_id, *(part.sku_id for part in name.parts)}
        read = await numbers.read(connection, ids, today=now.date())
        if not name.is_kit:
            return await _one(connection, rule, name.sku_id, read, now)
        parts = [
            msgspec.structs.replace(await _one(connection, rule, p.sku_id, read, now), per_kit=p.quantity)
            for p in name.parts
        ]
    code = read.codes[name.sku_id]
    return Explained(
        channel=rule.code, sku=code, atp=read.number(code, rule, now=now), parts=parts, version=read.version(code)
    )


async def _one(tx: Connection, rule: Rule, sku_id: int, read: Shelf, now: datetime) -> Explained:
    code = read.codes[sku_id]
    row = read.rows[code]
    layout = read.layouts[row.layout_id]
    found = read.shaped(code, rule, now=now)
    if rule.pool_id not in layout.pools:
        return Explained(channel=rule.code, sku=code, atp=found.number, version=row.version)
    codes = {p.pool_id: p.code for p in await pool_codes(tx, pools=list(layout.pools))}
    bit = 1 << layout.pools.index(rule.pool_id)
    here = [
        place
        for place in await stock_by_location(tx, sku_id=sku_id, layout_id=row.layout_id)
        if layout.segments[place.segment] & bit
    ]
    within, binding = binding_pools(layout, found.supply, found.reserved, within=bit)
    steps = [
        Waterfall("on_hand", sum(p.on_hand for p in here)),
        Waterfall("held", -sum(p.held for p in here)),
        Waterfall("allocated", -sum(p.allocated for p in here)),
        Waterfall("safety_stock", -sum(p.safety_stock for p in here)),
    ]
    supply = supply_of(layout, row.supply, bit)
    steps.append(Waterfall("locations_off_or_below_zero", supply - sum(s.units for s in steps)))
    ahead = supply_of(layout, found.supply, bit)
    steps.append(Waterfall("incoming", ahead - supply))
    steps.append(Waterfall("shared_pools", supply_of(layout, found.supply, within) - ahead))
    for j in binding:
        pool = codes[layout.pools[j]]
        steps.append(Waterfall("reserved", -row.reserved[j], pool))
        steps.append(Waterfall("protected", row.reserved[j] - found.reserved[j], pool))
    steps.append(Waterfall("promises_already_broken", law.deficit(layout, found.supply, found.reserved)))
    steps.append(Waterfall("pool_never_below_zero", found.pool - sum(s.units for s in steps)))
    steps += [Waterfall(a.step, a.units, rule=a.rule) for a in found.steps if a.step != "protect"]
    steps.append(Waterfall("never_below_zero", found.number - sum(s.units for s in steps)))
    return Explained(
        channel=rule.code, sku=code, atp=found.number, version=row.version, steps=[s for s in steps if s.units],
        locations=[
            LocationStep(p.code, p.on_hand, p.held, p.allocated, p.safety_stock, p.is_on, p.available) for p in here
        ],
        pools=[
            PoolStep(codes[pool], row.reserved[j], supply_of(layout, row.supply, 1 << j), j in binding)
            for j, pool in enumerate(layout.pools)
        ],
    )  # fmt: skip


def supply_of(layout: Layout, supply: Sequence[int], pools: int) -> int:
    """What all locations of these pools (a bit mask) have."""
    return sum(units for units, mask in zip(supply, layout.segments, strict=True) if mask & pools)


def binding_pools(
    layout: Layout, supply: Sequence[int], reserved: Sequence[int], *, within: int
) -> tuple[int, list[int]]:
    """The pools J at which m(S) is reached, S being what `within` draws on; also the mask of S and J together.

    A pool is in such a J when taking its locations in and its reserved units off leaves the margin as it was.
    """
    left = list(reserved)
    whole = law.margin(layout, supply, left, within=within)
    binding = []
    for j, units in enumerate(reserved):
        if not units:
            continue
        without = [*left[:j], 0, *left[j + 1 :]]
        margin = law.margin(layout, supply, without, within=within | 1 << j) - units
        if margin == whole:
            binding.append(j)
            within, left, whole = within | 1 << j, without, margin + units
    return within, binding
