"""When something can be there: local working days, cut-offs in the location's time zone, handling, transit, and what is
expected. Pure.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from oms.domain import atp
from oms.domain.atp import Layout
from oms.domain.shape import Coming

KM_PER_MILE = 1.609344
EVERY_DAY = "1111111"
DAYS_MAX = 400
"""Nobody is closed for longer."""


class Hours(msgspec.Struct, frozen=True):
    """When a location works: its weekdays (seven of 0 and 1, Monday first), days off, and the time of its cut-off.

    What is asked after the cut-off is begun on the next working day; handling takes so many working days more.
    """

    time_zone: str
    work_days: str = EVERY_DAY
    cut_off: time | None = None
    handling_days: int = 0
    pickup_minutes: int = 0
    holidays: Collection[date] = ()


class Transit(msgspec.Struct, frozen=True):
    """A method brings a parcel over up to so many miles within so many days; `weekends`: on Saturdays and Sundays too."""

    method: str
    miles: float
    days: int
    weekends: bool = True


DEFAULT_TRANSITS = tuple(
    Transit("", miles, days)
    for miles, days in ((150, 1), (300, 2), (600, 2), (1000, 3), (1400, 4), (1800, 4), (100_000, 5))
)
"""Ground parcels by zone, where nobody has said otherwise (illustrative, as the tariff of brokering)."""


def works_on(hours: Hours, day: date) -> bool:
    """Whether a location works on a day."""
    return hours.work_days[day.weekday()] == "1" and day not in hours.holidays


def ships_on(hours: Hours, now: datetime, *, not_before: date | None = None) -> date | None:
    """The local day on which what is asked now leaves; None where the location never works."""
    local = now.astimezone(ZoneInfo(hours.time_zone))
    day = local.date()
    if hours.cut_off is not None and local.time() >= hours.cut_off and works_on(hours, day):
        day += timedelta(days=1)
    if not_before is not None and not_before > day:
        day = not_before
    left = hours.handling_days
    for _ in range(DAYS_MAX):
        if works_on(hours, day):
            if left == 0:
                return day
            left -= 1
        day += timedelta(days=1)
    return None


def ready_from(hours: Hours, now: datetime) -> datetime | date | None:
    """When what is there now may be picked up: a moment today, or the next local working day; None where there is none."""
    local = now.astimezone(ZoneInfo(hours.time_zone))
    if works_on(hours, local.date()) and (hours.cut_off is None or local.time() < hours.cut_off):
        return now + timedelta(minutes=hours.pickup_minutes)
    for days in range(1, DAYS_MAX):
        if works_on(hours, local.date() + timedelta(days=days)):
            return local.date() + timedelta(days=days)
    return None


def arrives_on(shipped: date, transits: Sequence[Transit], km: float | None) -> date | None:
    """The day on which a parcel is there; an unknown distance is as far as the farthest zone; None beyond all zones."""
    zones = sorted(transits, key=lambda zone: zone.miles)
    miles = None if km is None else km / KM_PER_MILE
    zone = zones[-1] if miles is None else next((z for z in zones if miles <= z.miles), None)
    if zone is None:
        return None
    day, left = shipped, zone.days
    while left > 0 or (not zone.weekends and day.weekday() >= 5):
        day += timedelta(days=1)
        if zone.weekends or day.weekday() < 5:
            left -= 1
    return day


THERE = date.min
"""The day of what present stock serves."""


class Waiting(msgspec.Struct, frozen=True):
    """Open units of a pool that wait to be served."""

    pool_id: int
    units: int


def short_of(layout: Layout, supply: Sequence[int], reserved: Sequence[int], lines: Sequence[Waiting]) -> list[int]:
    """Of how many units of each line present stock keeps no promise, in the order in which lines are served.

    What is reserved beyond the lines comes first.
    """
    owed = list(reserved)
    for line in lines:
        if line.pool_id in layout.pools:
            owed[layout.pools.index(line.pool_id)] -= line.units
    owed = [max(0, units) for units in owed]
    short, before = [], atp.deficit(layout, supply, owed)
    for line in lines:
        if line.pool_id not in layout.pools:
            short.append(line.units)
            continue
        owed[layout.pools.index(line.pool_id)] += line.units
        after = atp.deficit(layout, supply, owed)
        short.append(after - before)
        before = after
    return short


def days_of(
    layout: Layout,
    supply: Sequence[int],
    reserved: Sequence[int],
    coming: Iterable[Coming],
    lines: Sequence[Waiting],
    *,
    today: date,
) -> list[date | None]:
    """The day from which each line can be served, in the order in which they are served: THERE, a day, or None (unknown).

    A line is served on the first day from which on every promise before it and its own can be kept: the deficit
    (domain/atp.py) of supply and demand cumulated to each later day does not grow. What is reserved beyond the lines comes
    first.
    """
    arriving: dict[date, list[int]] = {THERE: list(supply)}
    for c in coming:
        if (day := c.day(today)) is not None:
            arriving.setdefault(day, [0] * len(supply))[c.segment] += c.units
    days = sorted(arriving)
    there: list[list[int]] = []
    for day in days:
        before = there[-1] if there else [0] * len(supply)
        there.append([a + b for a, b in zip(before, arriving[day], strict=True)])
    others = list(reserved)
    for line in lines:
        if line.pool_id in layout.pools:
            others[layout.pools.index(line.pool_id)] -= line.units
    owed = [[max(0, units) for units in others] for _ in days]
    told: list[date | None] = []
    for line in lines:
        found = None
        if line.pool_id in layout.pools:
            position = layout.pools.index(line.pool_id)
            # from the last day back: the first day from which on all can be kept
            for n in range(len(days) - 1, -1, -1):
                short = atp.deficit(layout, there[n], owed[n])
                owed[n][position] += line.units
                if atp.deficit(layout, there[n], owed[n]) > short:
                    owed[n][position] -= line.units
                    break
                found = n
        told.append(None if found is None else days[found])
    return told
