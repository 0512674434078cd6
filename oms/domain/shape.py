"""Rules that shape what a channel may sell of a sku, and the number that comes of them. Pure.

The steps, in this order, each from what the last one left:

    pool      what the pool may promise (domain/atp.py), incoming counted where a `preorder` rule lets it,
              units that a `protect` rule keeps for a channel of a higher class counted as reserved in that one's pool
    buffer    less what is kept back: units, or a percentage of it
    cap       at most what is left of its cap: units, or a share of its pool, less what it has taken since the baseline
    limit     at most so many, whatever there is
    infinite  no less than so many, whatever there is
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

import msgspec

from oms.domain import atp
from oms.domain.atp import Layout


class Shape(msgspec.Struct, frozen=True):
    """One rule; no channel or sku is all of them. It is in force from `from_at` and until `until_at`.

    Of a kind, that of the highest priority holds, then one of the sku before one of all skus, then the first by code.
    """

    code: str
    kind: str
    channel_id: int | None = None
    sku_id: int | None = None
    units: int | None = None
    percent: float | None = None
    days: int | None = None
    priority: int = 0
    from_at: datetime | None = None
    until_at: datetime | None = None
    of_pool_id: int | None = None
    """Of a protection: the pool that its channel sells from; of a rule of a pool: that."""

    def is_live(self, now: datetime) -> bool:
        """Whether it is in force."""
        return (self.from_at is None or self.from_at <= now) and (self.until_at is None or now < self.until_at)


class Rule(msgspec.Struct, frozen=True):
    """What shapes a channel's number: the pool that it sells from, units kept back, its cap, and rules.

    `keeps` are the protections of all channels.
    """

    channel_id: int
    code: str
    pool_id: int
    buffer: int
    cap: int | None
    is_on: bool
    at: datetime
    """When it was read, by the database's clock."""
    shapes: tuple[Shape, ...] = ()
    keeps: tuple[Shape, ...] = ()
    own_pool_id: int | None = None
    """The channel's own pool, where a rule may have it sell from another."""

    @property
    def counts(self) -> bool:
        """Whether what the channel takes is counted."""
        return (
            self.cap is not None
            or any(s.kind == "cap" for s in self.shapes)
            or any(s.channel_id == self.channel_id for s in self.keeps)
        )

    def shaped_by(self, shapes: Sequence[Shape]) -> "Rule":
        """This rule under those of these rules that concern its channel."""
        return msgspec.structs.replace(
            self,
            shapes=tuple(s for s in shapes if s.kind != "protect" and s.channel_id in (None, self.channel_id)),
            keeps=tuple(s for s in shapes if s.kind == "protect"),
            own_pool_id=self.pool_id,
        ).selling(self.at)

    def selling(self, now: datetime) -> "Rule":
        """This rule with the pool that the channel sells from at a moment."""
        other = chosen(self.shapes, "pool", sku_id=None, now=now) if self.shapes else None
        pool_id = other.of_pool_id if other is not None else self.own_pool_id
        if pool_id is None or pool_id == self.pool_id:
            return self
        return msgspec.structs.replace(self, pool_id=pool_id)


class Coming(msgspec.Struct, frozen=True, array_like=True):
    """Units that are expected on a day at the locations of a segment."""

    on: date
    segment: int
    units: int
    until: date | None = None
    """The last day on which it still backs promises: late by then, it is taken for as late as today."""

    def day(self, today: date) -> date | None:
        """The day on which it is expected, seen from today; None where it is overdue beyond its tolerance."""
        if self.on >= today:
            return self.on
        return today if self.until is not None and self.until >= today else None


class Applied(msgspec.Struct, frozen=True):
    """A step that changed the number: its kind, the rule's code (none: the channel's own), and the units that it took."""

    step: str
    units: int
    rule: str | None = None


class Shaped(msgspec.Struct, frozen=True):
    """A channel's number, what its pool may promise, and what changed it in between."""

    number: int
    pool: int
    supply: list[int]
    reserved: list[int]
    steps: list[Applied]


def chosen(shapes: Iterable[Shape], kind: str, *, sku_id: int | None, now: datetime) -> Shape | None:
    """The rule of a kind that holds for a sku."""
    live = [s for s in shapes if s.kind == kind and s.sku_id in (None, sku_id) and s.is_live(now)]
    return min(live, key=lambda s: (-s.priority, s.sku_id is None, s.code), default=None)


def number(
    rule: Rule,
    layout: Layout,
    supply: Sequence[int],
    reserved: Sequence[int],
    *,
    sku_id: int,
    taken: Mapping[int, int],
    now: datetime,
    coming: Iterable[Coming] = (),
) -> int:
    """What a channel may sell of a sku that is no kit: the number of `shaped`, in less time where no rule shapes it."""
    if rule.shapes or rule.keeps:
        return shaped(
            rule, layout, supply, reserved, sku_id=sku_id, taken=taken, now=now, coming=coming
        ).number  # fmt: skip
    if rule.pool_id not in layout.pools:
        return 0
    units = atp.atp_pool(layout, supply, reserved, layout.pools.index(rule.pool_id))
    return atp.channel_atp(units, buffer=rule.buffer, cap=rule.cap, taken=taken.get(rule.channel_id, 0))


def shaped(
    rule: Rule,
    layout: Layout,
    supply: Sequence[int],
    reserved: Sequence[int],
    *,
    sku_id: int,
    taken: Mapping[int, int],
    now: datetime,
    coming: Iterable[Coming] = (),
) -> Shaped:
    """What a channel may sell of a sku that is no kit, and how it comes about."""
    steps: list[Applied] = []
    if rule.pool_id not in layout.pools:
        return Shaped(0, 0, list(supply), list(reserved), steps)
    position = layout.pools.index(rule.pool_id)
    own = taken.get(rule.channel_id, 0)
    there, kept = list(supply), list(reserved)
    ahead = chosen(rule.shapes, "preorder", sku_id=sku_id, now=now)
    if ahead is not None:
        upto = now.date() + timedelta(days=ahead.days or 0)
        for c in coming:
            day = c.day(now.date())
            if day is not None and day <= upto:
                there[c.segment] += c.units
    units = pool = atp.atp_pool(layout, there, kept, position)
    for keep in kept_for_others(rule, sku_id=sku_id, now=now):
        if keep.of_pool_id in layout.pools and keep.channel_id is not None:
            kept[layout.pools.index(keep.of_pool_id)] += max(0, (keep.units or 0) - taken.get(keep.channel_id, 0))
    if kept != list(reserved):
        units = atp.atp_pool(layout, there, kept, position)
        if units != pool:
            steps.append(Applied("protect", units - pool))
        pool = units
    buffer = chosen(rule.shapes, "buffer", sku_id=sku_id, now=now)
    back = rule.buffer if buffer is None else _of(buffer, units)
    if back:
        steps.append(Applied("buffer", -back, buffer.code if buffer else None))
        units -= back
    cap = chosen(rule.shapes, "cap", sku_id=sku_id, now=now)
    most = rule.cap if cap is None else _of(cap, pool + own)
    if most is not None and most - own < units:
        steps.append(Applied("cap", most - own - units, cap.code if cap else None))
        units = most - own
    limit = chosen(rule.shapes, "limit", sku_id=sku_id, now=now)
    if limit is not None and limit.units is not None and limit.units < units:
        steps.append(Applied("limit", limit.units - units, limit.code))
        units = limit.units
    infinite = chosen(rule.shapes, "infinite", sku_id=sku_id, now=now)
    if infinite is not None and (infinite.units or 0) > units:
        steps.append(Applied("infinite", (infinite.units or 0) - units, infinite.code))
        units = infinite.units or 0
    return Shaped(max(0, units), pool, there, kept, steps)


def kept_for_others(rule: Rule, *, sku_id: int, now: datetime) -> list[Shape]:
    """Protections, one per channel, of a class above that of this rule's channel; the class is the rule's priority."""
    best: dict[int, Shape] = {}
    for channel_id in {s.channel_id for s in rule.keeps if s.channel_id is not None}:
        of_channel = [s for s in rule.keeps if s.channel_id == channel_id]
        keep = chosen(of_channel, "protect", sku_id=sku_id, now=now)
        if keep is not None:
            best[channel_id] = keep
    mine = best[rule.channel_id].priority if rule.channel_id in best else None
    return [
        keep
        for channel_id, keep in sorted(best.items())
        if channel_id != rule.channel_id and (mine is None or keep.priority > mine)
    ]


def _of(shape: Shape, units: int) -> int:
    return int(units * shape.percent / 100) if shape.percent is not None else shape.units or 0
