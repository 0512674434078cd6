"""From rows of availability to what a channel may sell: projections of skus, and the rules that shape a channel's number.

A projection is a sku's availability; a channel's rules apply when it is read. So a change of rules is in force at once,
for every sku, and is gone the moment that its time is over.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime

import msgspec

from oms import ledger, named
from oms.cache import KitPart, Projection
from oms.db import Connection, Sql
from oms.domain import atp as law
from oms.domain.atp import Layout
from oms.domain.shape import Coming, Rule, Shaped, number, shaped

sql = Sql("numbers")


class Supply(msgspec.Struct, frozen=True):
    """A sku's availability row as it is read, not taken."""

    sku_id: int
    code: str
    is_kit: bool
    version: int
    layout_id: int
    supply: list[int]
    reserved: list[int]
    taken: dict[str, int]


class _Part(msgspec.Struct, frozen=True):
    kit_id: int
    component_id: int
    code: str
    quantity: int


class _Coming(msgspec.Struct, frozen=True):
    sku_id: int
    due_on: date
    segment: int
    quantity: int
    until_on: date


class Shelf(msgspec.Struct, frozen=True):
    """Projections as they are read at one moment, by sku code, with their layouts; kits come with their components."""

    rows: dict[str, Projection]
    layouts: Mapping[int, Layout]
    codes: Mapping[int, str] = {}
    """By sku id, where they were read from PostgreSQL."""

    def shaped(self, sku: str, rule: Rule, *, now: datetime) -> Shaped:
        """The number of a sku that is no kit, and how it comes about."""
        row = self.rows[sku]
        return shaped(
            rule, self.layouts[row.layout_id], row.supply, row.reserved, sku_id=row.sku_id, taken=row.taken, now=now,
            coming=row.coming,
        )  # fmt: skip

    def number(self, sku: str, rule: Rule, *, now: datetime) -> int:
        """What a channel may sell of a sku; of a kit, what its scarcest component allows."""
        row = self.rows[sku]
        if row.parts:
            return law.kit_atp((self.number(part.sku, rule, now=now), part.quantity) for part in row.parts)
        return number(
            rule, self.layouts[row.layout_id], row.supply, row.reserved, sku_id=row.sku_id, taken=row.taken, now=now,
            coming=row.coming,
        )  # fmt: skip

    def version(self, sku: str) -> int:
        """The version of a sku's number: a kit's is the sum of its own and its components', which never falls."""
        row = self.rows[sku]
        return row.version + sum([self.rows[part.sku].version for part in row.parts])

    def next(self, sku: str, rule: Rule, *, today: date) -> tuple[date, int] | None:
        """When more of a sku is expected at the channel's pool, and how much."""
        row = self.rows[sku]
        if not row.coming:
            return None
        layout = self.layouts[row.layout_id]
        if rule.pool_id not in layout.pools:
            return None
        bit = 1 << layout.pools.index(rule.pool_id)
        here = [(c.day(today), c.units) for c in row.coming if layout.segments[c.segment] & bit]
        first = min((day for day, _ in here if day is not None), default=None)
        return None if first is None else (first, sum(units for day, units in here if day == first))


class RuleBook(msgspec.Struct, frozen=True):
    """The rules of all channels, by code, as of a version."""

    version: int
    channels: dict[str, Rule]


supplies_of = sql.rows("supplies", Supply)
parts_of = sql.rows("parts_of", _Part)
coming_of = sql.rows("coming", _Coming)
rulebook_version = sql.one("rulebook_version", int)


async def read(tx: Connection, skus: Collection[int], *, today: date) -> Shelf:
    """The projections of these skus, and of the components of those that are kits."""
    parts: dict[int, list[_Part]] = {}
    for part in await parts_of(tx, skus=sorted(skus)):
        parts.setdefault(part.kit_id, []).append(part)
    every = sorted({*skus, *(p.component_id for made_of in parts.values() for p in made_of)})
    supplies = await supplies_of(tx, skus=every)
    layouts = {k: await ledger.layout(tx, k) for k in {s.layout_id for s in supplies}}
    coming = await read_coming(tx, every, today=today)
    return Shelf(
        {
            s.code: Projection(
                version=s.version, sku_id=s.sku_id, layout_id=s.layout_id, supply=s.supply, reserved=s.reserved,
                taken={int(channel): units for channel, units in s.taken.items() if units},
                coming=coming.get(s.sku_id, []),
                parts=[KitPart(p.code, p.quantity) for p in parts.get(s.sku_id, ())],
            )
            for s in supplies
        },
        layouts,
        {s.sku_id: s.code for s in supplies},
    )  # fmt: skip


async def read_coming(tx: Connection, skus: Collection[int], *, today: date) -> dict[int, list[Coming]]:
    """What is expected of skus from this day on, by day and segment."""
    coming: dict[int, list[Coming]] = {}
    for c in await coming_of(tx, skus=sorted(skus), today=today):
        coming.setdefault(c.sku_id, []).append(Coming(c.due_on, c.segment, c.quantity, c.until_on))
    return coming


async def read_rules(tx: Connection) -> RuleBook:
    """The rules in force."""
    version = await rulebook_version(tx)
    return RuleBook(version, {rule.code: rule for rule in (await named.rules_of(tx, None)).values()})
