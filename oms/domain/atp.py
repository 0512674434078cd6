"""What may be promised where pools overlap: exact, in plain integers, from one availability row.

For a set S of locations, a(S) its supply and d(j) the units reserved in pool j:

    m(S)   = min over all sets J of pools of  a(S ∪ ⋃J) − Σ d(j), j in J
    ATP(S) = m(S) − m(∅)

By the theorem of maximum flow and minimum cut m(∅) is the flow from pools to locations less all that is reserved.
Both numbers share most of their terms. With C the pools that are *not* in J, and over the pools that are connected
with S alone, ATP(S) is what is left at best in all locations less what is left at best in those outside S:

    left(X) = max over C of  Σ supply of X that no pool outside C draws on − Σ d(j), j in C

A pool's own reserved units need no choice: they are taken off the answer, which is never below 0.

    layout, segment_of = Layout.build({1: {10, 11}, 2: {11}}, [10, 11])
    supply, reserved = [3, 4], [2, 0]              # by segment; by pool position
    atp_pool(layout, supply, reserved, 1)          # → 4
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import TypeVar

import msgspec

from oms.domain.matching import left_in_own, match

Plan = TypeVar("Plan")

POOLS_MAX = 62
"""Pools of a layout: the row keeps a segment's mask in 64 bits with a sign."""

ENUMERATED_MAX = 8
"""Connected pools with reserved units whose sets are all tried; of more the flow is computed."""

PLANS_MAX = 20_000
"""Plans that a layout remembers; then it forgets them all."""


def _sums_over_subsets(pools: int) -> tuple[tuple[int, int], ...]:
    """The additions (into, from) that turn units by set into units by set and all its subsets, in place."""
    sets = range(1 << pools)
    return tuple((s, s ^ 1 << bit) for bit in range(pools) for s in sets if s >> bit & 1)


_STEPS = tuple(_sums_over_subsets(pools) for pools in range(ENUMERATED_MAX + 1))


class _Group(msgspec.Struct, frozen=True):
    """Connected pools with reserved units, and where each segment counts: `free` outside S, `own` within it.

    A cell is a set of these pools, as a mask where all sets are tried, else as an index into `masks`.
    """

    pools: tuple[int, ...]
    cells: int
    masks: tuple[int, ...] | None
    free: tuple[tuple[int, int], ...]  # (cell, segment)
    own: tuple[tuple[int, int], ...]


_Split = tuple[tuple[int, ...], tuple[_Group, ...]]


class Layout(msgspec.Struct, frozen=True, dict=True):
    """How availability rows number pools and segments: `segments[i]` has bit j where pool `pools[j]` draws on it."""

    layout_id: int
    pools: tuple[int, ...]
    segments: tuple[int, ...]

    @classmethod
    def build(
        cls, memberships: Mapping[int, Collection[int]], locations: Iterable[int], *, layout_id: int = 0
    ) -> "tuple[Layout, dict[int, int]]":
        """Numbers pools (pool_id → its location_ids) and segments; also gives each location its segment.

        Locations of the same pools are one segment; those of no pool are one, too. The same network gives the same
        numbers. Raises ValueError for more pools than POOLS_MAX and for a pool that names an unknown location.
        """
        pools = tuple(sorted(memberships))
        if len(pools) > POOLS_MAX:
            raise ValueError(f"{len(pools)} pools: a layout takes {POOLS_MAX} at most; remove or merge some")
        masks = dict.fromkeys(sorted(locations), 0)
        for position, pool_id in enumerate(pools):
            unknown = sorted(set(memberships[pool_id]) - masks.keys())
            if unknown:
                raise ValueError(f"pool {pool_id} draws on unknown locations {unknown}; give them among `locations`")
            for location_id in memberships[pool_id]:
                masks[location_id] |= 1 << position
        segments = tuple(sorted(set(masks.values())))
        index = {mask: i for i, mask in enumerate(segments)}
        return cls(layout_id, pools, segments), {location_id: index[mask] for location_id, mask in masks.items()}

    @cached_property
    def _groups(self) -> dict[tuple[int, int], _Group]:
        return {}

    @cached_property
    def _splits(self) -> dict[tuple[int, int], _Split]:
        return {}

    def _reach(self, start: int, active: int, masks: Collection[int]) -> int:
        """The active pools that are connected with those of `start` by these segments, and `start`."""
        reach, before = start, -1
        while reach != before:
            before = reach
            for mask in masks:
                if mask & reach:
                    reach |= mask & active
        return reach

    def _group(self, pools: int, free: Iterable[int], own: Iterable[int]) -> _Group:
        positions = tuple(j for j in range(len(self.pools)) if pools >> j & 1)
        bit = {j: 1 << b for b, j in enumerate(positions)}
        free, own = tuple(free), tuple(own)
        narrow = {i: sum(bit[j] for j in positions if self.segments[i] >> j & 1) for i in (*free, *own)}
        masks: tuple[int, ...] | None = None
        cell, cells = narrow, 1 << len(positions)
        if len(positions) > ENUMERATED_MAX:
            masks = tuple(sorted(set(narrow.values())))
            cell, cells = {i: masks.index(mask) for i, mask in narrow.items()}, len(masks)
        return _Group(
            positions, cells, masks, tuple((cell[i], i) for i in free if narrow[i]), tuple((cell[i], i) for i in own)
        )

    def _group_of_pool(self, position: int, active: int) -> _Group:
        key = position, active
        own = 1 << position
        others = self._reach(own, active, self.segments) & ~own
        group = self._group(
            others,
            free=[i for i, mask in enumerate(self.segments) if mask & others and not mask & own],
            own=[i for i, mask in enumerate(self.segments) if mask & own],
        )
        return _remember(self._groups, key, group)

    def _group_of_segment(self, segment: int, active: int) -> _Group:
        key = ~segment, active
        pools = self._reach(self.segments[segment] & active, active, self.segments)
        group = self._group(pools, free=[i for i, mask in enumerate(self.segments) if mask & pools], own=[segment])
        return _remember(self._groups, key, group)

    def _split(self, within: int, active: int) -> _Split:
        """How m(S) falls apart: the segments within S, and groups that do not touch each other outside it."""
        outside = [i for i, mask in enumerate(self.segments) if not mask & within]
        masks = [self.segments[i] for i in outside]
        groups, left = [], active
        while left:
            pools = self._reach(left & -left, active, masks)
            groups.append(self._group(pools, free=[i for i in outside if self.segments[i] & pools], own=()))
            left &= ~pools
        inside = tuple(i for i, mask in enumerate(self.segments) if mask & within)
        return _remember(self._splits, (within, active), (inside, tuple(groups)))


def _remember(plans: dict[tuple[int, int], Plan], key: tuple[int, int], plan: Plan) -> Plan:
    if len(plans) >= PLANS_MAX:
        plans.clear()
    plans[key] = plan
    return plan


def _active(reserved: Sequence[int]) -> int:
    mask, bit = 0, 1
    for units in reserved:
        if units > 0:
            mask |= bit
        bit <<= 1
    return mask


def _gain(group: _Group, free: list[int], own: list[int], reserved: Sequence[int]) -> int:
    """ATP of the units in `own` while those in `free` serve the group's pools, too; both by cell, `free` is used up."""
    if group.masks is not None:
        return left_in_own(group.masks, free, own, need=[reserved[j] for j in group.pools])
    bit = 1
    for j in group.pools:
        free[bit] -= reserved[j]
        bit <<= 1
    everything = list(map(add, free, own))
    for into, of in _STEPS[len(group.pools)]:
        free[into] += free[of]
        everything[into] += everything[of]
    return max(everything) - max(free)


def margin(layout: Layout, supply: Sequence[int], reserved: Sequence[int], *, within: int) -> int:
    """m(S), where S is what the pools of `within` draw on, a bit mask over pool positions.

    `supply` is in units by segment, `reserved` in units by pool position; both are never negative.
    """
    active = _active(reserved)
    inside, groups = layout._splits.get((within, active)) or layout._split(within, active)
    units = sum([supply[i] for i in inside])
    for group in groups:
        free = [0] * group.cells
        for cell, i in group.free:
            free[cell] += supply[i]
        need = [reserved[j] for j in group.pools]
        units -= sum(need)
        if group.masks is not None:
            units += match(group.masks, free, need, [[0] * group.cells for _ in need])
            continue
        units += sum(free)
        for b, owed in enumerate(need):
            free[1 << b] -= owed
        for into, of in _STEPS[len(need)]:
            free[into] += free[of]
        units -= max(free)
    return units


def margin_empty(layout: Layout, supply: Sequence[int], reserved: Sequence[int]) -> int:
    """m(∅): 0 while all promises can be kept, else minus the units that cannot. No allocation may let it fall."""
    return margin(layout, supply, reserved, within=0)


def deficit(layout: Layout, supply: Sequence[int], reserved: Sequence[int]) -> int:
    """Units reserved that no way of sharing the supply can keep."""
    return -margin_empty(layout, supply, reserved)


def atp_pool(layout: Layout, supply: Sequence[int], reserved: Sequence[int], position: int) -> int:
    """Units that may be promised from the pool at this position; never negative."""
    active = _active(reserved)
    group = layout._groups.get((position, active)) or layout._group_of_pool(position, active)
    if not group.pools:
        units = -reserved[position]
        for _, i in group.own:
            units += supply[i]
        return max(0, units)
    free, own = [0] * group.cells, [0] * group.cells
    for cell, i in group.free:
        free[cell] += supply[i]
    for cell, i in group.own:
        own[cell] += supply[i]
    return max(0, _gain(group, free, own, reserved) - reserved[position])


def atp_location(
    layout: Layout, supply: Sequence[int], reserved: Sequence[int], *, segment: int, available: int
) -> int:
    """Units that may be promised from one location, a pick-up for instance: a(l) of it is `available`, in its segment.

    What it has counts as part of its segment's supply, so `available` beyond that is not believed.
    """
    available = min(available, supply[segment])
    if available <= 0:
        return 0
    active = _active(reserved)
    group = layout._groups.get((~segment, active)) or layout._group_of_segment(segment, active)
    if not group.pools:
        return available
    free, own = [0] * group.cells, [0] * group.cells
    for cell, i in group.free:
        free[cell] += supply[i]
    cell = group.own[0][0]
    free[cell] -= available
    own[cell] = available
    return _gain(group, free, own, reserved)


def may_reserve(layout: Layout, supply: Sequence[int], reserved: Sequence[int], wanted: Mapping[int, int]) -> bool:
    """Whether units by pool position may be promised together: every promise that could be kept still can be.

    For one pool it says the same as `atp_pool`.
    """
    if len(wanted) == 1:
        ((position, units),) = wanted.items()
        return units <= 0 or units <= atp_pool(layout, supply, reserved, position)
    after = [units + wanted.get(j, 0) for j, units in enumerate(reserved)]
    return margin_empty(layout, supply, after) >= margin_empty(layout, supply, reserved)


def allocation_keeps_promises(
    layout: Layout,
    supply: Sequence[int],
    reserved: Sequence[int],
    *,
    position: int,
    quantity: int,
    segment: int,
    fall: int,
) -> bool:
    """Whether `quantity` reserved in a pool may be allocated in a segment whose supply falls by `fall`.

    It may where m(∅) does not fall. `fall` is what a(l) of the location loses, clamped at 0 before and after.
    """
    left, still = list(supply), list(reserved)
    left[segment] -= fall
    still[position] -= quantity
    return margin_empty(layout, left, still) >= margin_empty(layout, supply, reserved)


def channel_atp(pool_atp: int, *, buffer: int, cap: int | None, taken: int) -> int:
    """What a channel may still sell: its pool's ATP less its buffer, within its cap less what it has taken."""
    units = pool_atp - buffer
    if cap is not None:
        units = min(units, cap - taken)
    return max(0, units)


def kit_atp(components: Iterable[tuple[int, int]]) -> int:
    """How many kits the ATP of each component allows: (atp, units per kit) of each; without components none."""
    return min((units // per_kit for units, per_kit in components), default=0)


class Step(msgspec.Struct, frozen=True):
    """What a day adds: units expected by segment (receipts, what is held until then), units due by pool position."""

    on: date
    supply: Mapping[int, int] = {}
    reserved: Mapping[int, int] = {}


def atp_by_date(
    layout: Layout,
    supply: Sequence[int],
    reserved: Sequence[int],
    position: int,
    *,
    today: date,
    steps: Iterable[Step],
) -> list[tuple[date, int]]:
    """Units that may be promised from a pool for today and for each day of `steps`, in order; they never fall.

    Two laws hold at once. Whatever is late is served first: ATP(S, t) is at most m(S) − m(∅) of supply and demand
    cumulated to any t' from t on. And what can be kept on its day is kept on its day: cumulated sums alone do not see
    that one pool's early promise took what another's later one counts on, so supply by day and demand by day are
    matched as if each day of a segment were a segment, and each day of a pool a pool. Steps up to `today` count today.
    """
    by_day = {today: (list(supply), list(reserved))}
    for step in sorted(steps, key=lambda step: step.on):
        nothing = [0] * len(supply), [0] * len(reserved)
        arriving, due = by_day.setdefault(max(today, step.on), nothing)
        for i, units in step.supply.items():
            arriving[i] += units
        for j, units in step.reserved.items():
            due[j] += units
    days = list(by_day.values())
    late = [
        atp_pool(layout, arrived, owed, position)
        for arrived, owed in accumulate(days, lambda a, b: (list(map(add, a[0], b[0])), list(map(add, a[1], b[1]))))
    ]
    on_time = _atp_on_time(layout, days, position)
    return [(on, min(units, *late[n:])) for n, (on, units) in enumerate(zip(by_day, on_time, strict=True))]


def _atp_on_time(layout: Layout, days: Sequence[tuple[list[int], list[int]]], position: int) -> Iterable[int]:
    """By day, what may be promised for that day if supply serves only demand that is due when it is there."""
    dues = [(day, j, units) for day, (_, due) in enumerate(days) for j, units in enumerate(due) if units > 0]
    need = [units for _, _, units in dues]
    arrivals = [
        (day, mask, units)
        for day, (here, _) in enumerate(days)
        for mask, units in zip(layout.segments, here, strict=True)
    ]
    masks = [
        sum(1 << b for b, (due_on, j, _) in enumerate(dues) if arrived_on <= due_on and mask >> j & 1)
        for arrived_on, mask, _ in arrivals
    ]
    for today in range(len(days)):
        own = [units if day <= today and mask >> position & 1 else 0 for day, mask, units in arrivals]
        free = [units - own[n] for n, (_, _, units) in enumerate(arrivals)]
        yield left_in_own(masks, free, own, need=need.copy())
