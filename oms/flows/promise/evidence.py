"""What stands behind each step of an explanation: rows of the ledger, holds, work, promises, and rules with their makers."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from oms.db import Connection, Sql
from oms.domain.shape import Rule, chosen, kept_for_others
from oms.flows.promise.past import Channel, KeptRule, Moment, StockHere, promised_at

sql = Sql("promise")

MOVEMENTS_MAX = 5
"""Newest movements of a sku that are shown per location."""

TOP_MAX = 20
"""Promises that are shown per pool, and allocations per location, most units first."""

LOCATIONS_MAX = 200
"""Locations whose rows are shown: those with the most units on hand, held or allocated."""


class Sees(msgspec.Struct, frozen=True):
    """The channels and locations whose rows a caller may see; None is no limit."""

    channels: frozenset[int] | None = None
    locations: frozenset[int] | None = None


class LedgerRow(msgspec.Struct, frozen=True):
    """A movement: what it says, what it changed, and on hand after it."""

    location: str
    kind: str
    quantity: int
    effect: int
    on_hand: int
    occurred_at: datetime
    recorded_at: datetime
    message_id: str
    source: str
    absorbed_by: str | None
    reason: str | None
    who: str


class HoldRow(msgspec.Struct, frozen=True):
    """Units under a hold, and the message of the movement that it lives with."""

    location: str
    code: str
    quantity: int
    placed_at: datetime
    source: str
    message_id: str | None


class AllocatedRow(msgspec.Struct, frozen=True):
    """Work that allocates units at a location, or a pick-up that is reserved there."""

    location: str
    kind: str
    id: UUID
    channel: str
    order: str | None
    state: str
    units: int
    made_at: datetime


class Promise(msgspec.Struct, frozen=True):
    """A live reservation or an open order line."""

    kind: str
    id: UUID
    channel: str
    order: str | None
    line: str | None
    units: int
    made_at: datetime
    expires_at: datetime | None


class ReservedRow(msgspec.Struct, frozen=True):
    """What makes a pool's reserved units: how many promises, their units, and the largest."""

    pool: str
    count: int
    units: int
    top: list[Promise]


class RuleRow(msgspec.Struct, frozen=True):
    """A rule that was in force; `holds` where it is the one of its kind that counts. No code: the channel's own."""

    code: str | None
    kind: str
    channel: str | None
    sku: str | None
    units: int | None
    percent: float | None
    share_by: str | None
    days: int | None
    priority: int
    from_at: datetime | None
    until_at: datetime | None
    made_by: str | None
    agreed_by: str | None
    holds: bool


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one sku."""

    ledger: list[LedgerRow]
    holds: list[HoldRow]
    allocated: list[AllocatedRow]
    reserved: list[ReservedRow]
    rules: list[RuleRow]


class _Allocated(msgspec.Struct, frozen=True):
    location: str
    kind: str
    id: UUID
    channel: str
    order_number: str | None
    state: str
    units: int
    made_at: datetime


movements_here = sql.rows("movements_here", LedgerRow)
holds_here = sql.rows("holds_here", HoldRow)
allocated_here = sql.rows("allocated_here", _Allocated)


async def evidence(
    tx: Connection,
    moment: Moment,
    *,
    sku_id: int,
    here: Sequence[StockHere],
    sees: Sees,
    now: datetime,
    at: datetime | None,
) -> Evidence:
    """The rows behind a sku's number, as far as the caller sees them; counts and units are always of all."""
    seen = [place for place in here if sees.locations is None or place.location_id in sees.locations]
    most = sorted(seen, key=lambda p: (-abs(p.on_hand) - p.held - p.allocated, p.code))[:LOCATIONS_MAX]
    locations = [place.location_id for place in most]
    channels = None if sees.channels is None else sorted(sees.channels)
    return Evidence(
        ledger=await movements_here(tx, sku_id=sku_id, locations=locations, at=at, limit=MOVEMENTS_MAX),
        holds=await holds_here(tx, sku_id=sku_id, locations=locations, at=at),
        allocated=[
            AllocatedRow(a.location, a.kind, a.id, a.channel, a.order_number, a.state, a.units, a.made_at)
            for a in await allocated_here(
                tx, sku_id=sku_id, locations=locations, at=at, limit=TOP_MAX, channels=channels
            )
        ],
        reserved=await _reserved(tx, sku_id=sku_id, at=at, sees=sees),
        rules=rules_in_force(moment.rule, moment.channel, moment.rules, sku_id=sku_id, now=now, sees=sees),
    )  # fmt: skip


async def _reserved(tx: Connection, *, sku_id: int, at: datetime | None, sees: Sees) -> list[ReservedRow]:
    pools: dict[int, ReservedRow] = {}
    for row in await promised_at(tx, sku_id=sku_id, at=at, limit=TOP_MAX):
        pool = pools.setdefault(row.pool_id, ReservedRow(row.pool, row.count_of_all, row.units_of_all, []))
        if sees.channels is None or row.channel_id in sees.channels:
            pool.top.append(
                Promise(
                    row.kind, row.id, row.channel, row.order_number, row.line, row.units, row.made_at, row.expires_at
                )
            )
    return list(pools.values())


def rules_in_force(
    rule: Rule, channel: Channel, rules: Sequence[KeptRule], *, sku_id: int, now: datetime, sees: Sees
) -> list[RuleRow]:
    """The channel's own rules, and every other that is in force for it and a sku; which of a kind counts is marked."""
    holding = {
        found.code
        for kind in ("buffer", "cap", "limit", "preorder", "pool", "infinite")
        if (found := chosen(rule.shapes, kind, sku_id=sku_id, now=now)) is not None
    } | {keep.code for keep in kept_for_others(rule, sku_id=sku_id, now=now)}
    live = [
        r
        for r in rules
        if r.shape().is_live(now)
        and r.sku_id in (None, sku_id)
        and (r.kind == "protect" or r.channel_id in (None, rule.channel_id))
    ]
    own = []
    for kind, units, by in (
        ("buffer", channel.buffer or None, channel.buffer_by),
        ("cap", channel.cap, channel.cap_by),
    ):
        if units is not None:
            rivals = any(r.kind == kind and r.code in holding for r in live)
            own.append(
                RuleRow(None, kind, channel.code, None, units, None, None, None, 0, None, None, by, None, not rivals)
            )
    return own + [
        RuleRow(
            r.code, r.kind, r.channel, r.sku, r.units, r.percent, r.share_by, r.days, r.priority, r.from_at, r.until_at,
            r.made_by, r.agreed_by, r.code in holding,
        )
        for r in live
        if sees.channels is None or r.channel_id is None or r.channel_id in sees.channels
    ]  # fmt: skip
