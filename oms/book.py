"""What may be promised of skus whose rows are taken, while a batch is decided: read once, decided on, written once.

book = await Book.open(tx, skus=[...], keys=[(sku_id, location_id), ...])
if book.atp(sku_id, rule) >= quantity:
    book.reserve(sku_id, rule.pool_id, quantity, channel_id=rule.channel_id)
await book.write(tx)
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from oms import ledger, numbers
from oms.db import Connection
from oms.domain import atp
from oms.domain.atp import Layout
from oms.domain.shape import Coming, Rule, number

PROMISE_BROKEN = "another pool's promise would be broken"


class Units(msgspec.Struct, frozen=True):
    """Units of a sku that a reservation holds: in a pool, or allocated at a location."""

    reservation_id: UUID
    channel_id: int
    pool_id: int
    location_id: int | None
    sku_id: int
    quantity: int


class Book:
    """Rows that are taken, and what has been decided on them since; `write` makes it so."""

    def __init__(
        self,
        rows: dict[int, ledger.Availability],
        layouts: dict[int, Layout],
        segments: dict[int, dict[int, int]],
        stock: dict[tuple[int, int], ledger.Stock],
        *,
        now: datetime | None,
    ) -> None:
        self.now = now
        self.rows, self.layouts, self.segments, self.stock = rows, layouts, segments, stock
        self._supply = {sku: list(row.supply) for sku, row in rows.items()}
        self._reserved = {sku: list(row.reserved) for sku, row in rows.items()}
        self._coming: dict[int, list[Coming]] = {}
        self._taken: dict[tuple[int, int], int] = defaultdict(int)
        self._left = {key: s.on_hand - s.held - s.allocated - s.safety_stock for key, s in stock.items()}
        self._demand: dict[tuple[int, int, int | None], int] = defaultdict(int)
        self._allocated: dict[tuple[int, int], int] = defaultdict(int)

    @classmethod
    async def open(
        cls,
        tx: Connection,
        *,
        skus: Collection[int],
        keys: Collection[tuple[int, int]] = (),
        now: datetime | None = None,
    ) -> "Book":
        """Takes the skus' rows in order, then the stock rows of (sku, location) keys.

        Rules are those of `now`; of the moment when each was read, where it is not given.
        """
        rows = await ledger.lock(tx, skus)
        layouts = await ledger.layouts_of(tx, rows)
        stock = await ledger.stock(tx, keys) if keys else {}
        segments = {layout_id: await ledger.segments(tx, layout_id) for layout_id in layouts} if keys else {}
        return cls(rows, layouts, segments, stock, now=now)

    async def expect(self, tx: Connection, rules: Iterable[Rule]) -> None:
        """Reads what is expected of the skus, where one of these channels sells ahead of it."""
        ahead = [rule for rule in rules if any(s.kind == "preorder" for s in rule.shapes)]
        if ahead:
            self._coming = await numbers.read_coming(tx, self.rows, today=(self.now or ahead[0].at).date())

    def atp(self, sku_id: int, rule: Rule) -> int:
        """What the channel may still sell of a sku: the number that ATP shows."""
        row = self.rows[sku_id]
        taken = {int(c): units + self._taken[sku_id, int(c)] for c, units in row.taken.items()}
        taken[rule.channel_id] = row.taken.get(str(rule.channel_id), 0) + self._taken[sku_id, rule.channel_id]
        return number(
            rule, self.layouts[row.layout_id], self._supply[sku_id], self._reserved[sku_id], sku_id=sku_id, taken=taken,
            now=self.now or rule.at, coming=self._coming.get(sku_id, ()),
        )  # fmt: skip

    def atp_pool(self, sku_id: int, pool_id: int) -> int:
        """What may be promised of a sku from a pool; 0 where the sku's layout does not know the pool yet."""
        layout = self.layouts[self.rows[sku_id].layout_id]
        if pool_id not in layout.pools:
            return 0
        return atp.atp_pool(layout, self._supply[sku_id], self._reserved[sku_id], layout.pools.index(pool_id))

    def atp_at(self, sku_id: int, location_id: int) -> int:
        """What may be promised of a sku from one location; its stock row is taken."""
        row = self.rows[sku_id]
        segment = self.segments[row.layout_id].get(location_id)
        available = max(0, self._left[sku_id, location_id]) if self.stock[sku_id, location_id].is_on else 0
        if segment is None:
            return available
        layout = self.layouts[row.layout_id]
        return atp.atp_location(
            layout, self._supply[sku_id], self._reserved[sku_id], segment=segment, available=available
        )

    def pools_of(self, sku_id: int) -> tuple[int, ...]:
        """The pools that the layout of this sku knows."""
        return self.layouts[self.rows[sku_id].layout_id].pools

    def sells_from(self, sku_id: int, location_id: int, pool_id: int) -> bool:
        """Whether the location is in the pool, by the layout of this sku's row."""
        row = self.rows[sku_id]
        layout, segment = self.layouts[row.layout_id], self.segments[row.layout_id].get(location_id)
        return (
            segment is not None
            and pool_id in layout.pools
            and bool(layout.segments[segment] >> layout.pools.index(pool_id) & 1)
        )

    def reserve(self, sku_id: int, pool_id: int, quantity: int, *, channel_id: int) -> None:
        """Units of a sku are promised in a pool, or given back (below zero); the channel's cap counts them."""
        self.keep(sku_id, pool_id, quantity)
        self._count(sku_id, pool_id, quantity, channel_id)

    def keep(self, sku_id: int, pool_id: int, quantity: int) -> None:
        """Reserved units rise or fall, and what the channel has taken stays: they become or were allocated."""
        row = self.rows[sku_id]
        position = self.layouts[row.layout_id].pools.index(pool_id)
        self._reserved[sku_id][position] += quantity
        self._demand[sku_id, pool_id, None] += quantity

    def allocate(self, sku_id: int, location_id: int, quantity: int, *, pool_id: int, channel_id: int | None) -> None:
        """Units of a sku are promised at one location, or given back (below zero).

        With `channel_id` its cap counts them; without they were, or stay, counted.
        """
        key = sku_id, location_id
        before = max(0, self._left[key])
        self._left[key] -= quantity
        self._allocated[key] += quantity
        segment = self.segments[self.rows[sku_id].layout_id].get(location_id)
        if segment is not None and self.stock[key].is_on:
            self._supply[sku_id][segment] += max(0, self._left[key]) - before
        if channel_id is not None:
            self._count(sku_id, pool_id, quantity, channel_id)

    def may_allocate(self, sku_id: int, location_id: int, pool_id: int, quantity: int) -> str | None:
        """Whether units that a pool's line holds reserved may be allocated at a location; None, or why not.

        The location's stock must suffice, and m(∅) must not fall: stock alone does not see that only another pool's
        promises could have used that location.
        """
        if not self.stock[sku_id, location_id].is_on or self._left[sku_id, location_id] < quantity:
            return "its stock went to others"
        row = self.rows[sku_id]
        layout = self.layouts[row.layout_id]
        if not self.sells_from(sku_id, location_id, pool_id):
            return "the location is not in its pool any more"
        keeps = atp.allocation_keeps_promises(
            layout, self._supply[sku_id], self._reserved[sku_id], position=layout.pools.index(pool_id),
            quantity=quantity, segment=self.segments[row.layout_id][location_id], fall=quantity,
        )  # fmt: skip
        return None if keeps else PROMISE_BROKEN

    def give_back(self, units: Iterable[Units]) -> None:
        """What reservations held is free again."""
        for u in units:
            if u.location_id is None:
                self.reserve(u.sku_id, u.pool_id, -u.quantity, channel_id=u.channel_id)
            else:
                self.allocate(u.sku_id, u.location_id, -u.quantity, pool_id=u.pool_id, channel_id=u.channel_id)

    async def write(self, tx: Connection, *, capped: Collection[int]) -> Mapping[int, ledger.Availability]:
        """Writes what was decided, each row once. `capped` are the channels whose taken units are counted."""
        # what rises is written before what falls: a counter passes no zero that it does not stay at
        demand = sorted(
            (ledger.Demand(sku, pool, units, channel) for (sku, pool, channel), units in self._demand.items() if units),
            key=lambda d: -d.quantity,
        )
        allocations = [ledger.Allocation(*key, units) for key, units in self._allocated.items() if units]
        was = {key: self.stock[key].available for key in self._allocated}
        return await ledger.write(tx, self.rows, demand=demand, allocations=allocations, was=was, capped=capped)

    def _count(self, sku_id: int, pool_id: int, quantity: int, channel_id: int) -> None:
        self._taken[sku_id, channel_id] += quantity
        # the ledger counts what a channel takes by its demand: here it is demand that reserves nothing
        self._demand[sku_id, pool_id, channel_id] += quantity
        self._demand[sku_id, pool_id, None] -= quantity


def units_of(lines: Iterable[Units]) -> tuple[set[int], set[tuple[int, int]]]:
    """The skus whose rows, and the keys whose stock, are to be taken before these units are given back."""
    lines = list(lines)
    return {u.sku_id for u in lines}, {(u.sku_id, u.location_id) for u in lines if u.location_id is not None}
