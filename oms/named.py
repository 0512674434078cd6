"""What callers' codes mean: skus (our codes first, then the shop's own), kits as their parts, locations, channels' rules."""

from collections.abc import Collection

import msgspec

from oms.db import Connection, Sql
from oms.domain.order import Named, Part
from oms.domain.shape import Rule, Shape

sql = Sql("named")


class Place(msgspec.Struct, frozen=True):
    """A location that a caller named."""

    location_id: int
    code: str
    name: str
    is_on: bool
    time_zone: str


class _Row(msgspec.Struct, frozen=True):
    channel_id: int
    code: str
    sku_id: int
    is_kit: bool
    part_id: int
    part: str
    quantity: int
    price_cents: int | None


named = sql.rows("named", _Row)
read_rules = sql.rows("rules", Rule)
read_shapes = sql.rows("shapes", Shape)
read_places = sql.rows("places", Place)
channel_named = sql.maybe("channel_named", int)


async def skus_of(tx: Connection, codes: Collection[tuple[int, str]]) -> dict[tuple[int, str], Named]:
    """What each (channel id, code) means; unknown ones are absent."""
    if not codes:
        return {}
    ordered = sorted(codes)
    parts: dict[tuple[int, str], list[_Row]] = {}
    for row in await named(tx, channels=[c for c, _ in ordered], codes=[code for _, code in ordered]):
        parts.setdefault((row.channel_id, row.code), []).append(row)
    return {
        key: Named(
            rows[0].sku_id, rows[0].is_kit, tuple(Part(r.part_id, r.part, r.quantity, r.price_cents) for r in rows)
        )
        for key, rows in parts.items()
    }


async def rules_of(
    tx: Connection, channels: Collection[int] | None, *, skus: Collection[int] | None = None
) -> dict[int, Rule]:
    """The rules of these channels (None: of all), by id; of those that speak of one sku, these skus' only."""
    if channels is not None and not channels:
        return {}
    found = await read_rules(tx, channels=None if channels is None else sorted(channels))
    shapes = await read_shapes(tx, skus=None if skus is None else sorted(skus))
    return {r.channel_id: r.shaped_by(shapes) if shapes else r for r in found}


async def rules_in_force(tx: Connection, *, version: int) -> dict[int, Rule]:
    """The rules of all channels, at least of this version: what this connection remembers, where that is new enough.

    Only for a transaction that changes no rules itself.
    """
    known: tuple[int, dict[int, Rule]] | None = tx.known.get("rules")
    if known is None or known[0] != version:
        known = tx.known["rules"] = version, await rules_of(tx, None)
    return known[1]


async def places_of(tx: Connection, codes: Collection[str]) -> dict[str, Place]:
    """The locations of these codes; unknown ones are absent."""
    return {p.code: p for p in await read_places(tx, codes=sorted(codes))} if codes else {}


def capped(rules: Collection[Rule]) -> set[int]:
    """The channels whose taken units are counted."""
    return {rule.channel_id for rule in rules if rule.counts}
