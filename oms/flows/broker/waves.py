"""Waves of locations as the engine's slots, and as they stand when what was planned for them is written.

What waves take is folded from the fulfillments that are in them: nothing is counted beside those. Whoever writes holds
the lock of the location's day, so that two never fill a wave twice.
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from brokering import Slot
from oms import ledger
from oms.db import Connection, Sql
from oms.domain.network import Wave
from oms.domain.promise import DAYS_MAX, Hours, ships_on, works_on

sql = Sql("broker")
DIMENSIONS = ("orders", "items", "cents")
Key = tuple[int, date, time]
"""A wave: location, local day, and the local time at which it begins."""


class Taken(msgspec.Struct, frozen=True):
    """What a wave of a day, or the day itself (no wave), has taken."""

    day: date
    wave: time | None
    orders: int
    items: int
    cents: int


class Standing(msgspec.Struct, frozen=True):
    """A wave under the lock of its day: its limits, and what it has taken."""

    location_id: int
    day: date
    wave: time
    orders: int
    items: int
    cents: int
    capacity_orders: int | None
    capacity_items: int | None
    capacity_cents: int | None


wave_rows = sql.rows("wave_rows", Standing)


def slots_of(
    waves: Sequence[dict[str, Any]], taken: Sequence[dict[str, Any]], limits: Sequence[int | None], hours: Hours,
    now: datetime,
) -> tuple[Slot, ...]:  # fmt: skip
    """A slot for each wave of today, and of the next working day, with what it may still take.

    A wave that is over takes nothing, but keeps its place: slots are the same ones all day. What is left of a day's own
    `limits` (orders, items, cents) goes to its waves in their order, so that together they never take more.
    """
    local = now.astimezone(ZoneInfo(hours.time_zone))
    today = local.date()
    if not waves:
        return ()
    read = msgspec.convert(waves, list[Wave])
    of = {(t.day, t.wave): t for t in msgspec.convert(taken, list[Taken])}
    following = (today + timedelta(days=n) for n in range(1, DAYS_MAX))
    days = [today, next((day for day in following if works_on(hours, day)), None)]
    slots: list[Slot] = []
    for day in days:
        if day is None:
            continue
        leaves = today if day == today else ships_on(hours, now, not_before=day)
        whole = of.get((day, None))
        left = [_less(limit, whole, what) for limit, what in zip(limits, DIMENSIONS, strict=True)]
        for wave in read:
            begins = time.fromisoformat(wave.from_)
            mine = of.get((day, begins))
            asked = (wave.capacity_orders, wave.capacity_items, wave.capacity_cents)
            is_over = day == today and (time.fromisoformat(wave.until) <= local.time() or not works_on(hours, day))
            room: tuple[int | None, int | None, int | None] = (0, 0, 0)
            if not is_over:
                orders, items, cents = (
                    _least(_less(n, mine, what), d) for n, d, what in zip(asked, left, DIMENSIONS, strict=True)
                )
                room = orders, items, cents
                left = [d if d is None or r is None else d - r for d, r in zip(left, room, strict=True)]
            begun = datetime.combine(day, begins)
            slots.append(Slot(((leaves or day) - today).days, *room, begun.isoformat(timespec="minutes")))
    return tuple(slots)


def _less(limit: int | None, taken: Taken | None, what: str) -> int | None:
    return None if limit is None else max(0, limit - (getattr(taken, what) if taken is not None else 0))


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


async def standing(tx: Connection, keys: Collection[Key]) -> dict[Key, ledger.Capacity]:
    """Waves that still exist, with what they have taken; the capacity rows of their days are locked by the caller."""
    if not keys:
        return {}
    ordered = sorted(keys)
    rows = await wave_rows(
        tx, locations=[k[0] for k in ordered], days=[k[1] for k in ordered], waves=[k[2] for k in ordered]
    )
    return {
        (w.location_id, w.day, w.wave): ledger.Capacity(
            w.location_id, w.day, w.orders, w.items, w.cents, w.capacity_orders, w.capacity_items, w.capacity_cents
        )
        for w in rows
    }  # fmt: skip
