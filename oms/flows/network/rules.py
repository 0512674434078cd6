"""Rules that shape what channels may sell: shares that are computed, dates that begin and end, and the second person.

Readers and reservations apply them at once; what is pushed to channels follows within the sweep's time.
"""

from datetime import datetime

import msgspec

from oms import ledger, numbers
from oms.cache import Cache
from oms.db import Database, Sql
from oms.errors import Conflict
from oms.record import Step, keep, settle_exceptions

sql = Sql("network")


class _Edge(msgspec.Struct, frozen=True):
    kind: str
    sku_id: int | None
    location_id: int | None
    followed: dict[str, int | None] | None


class _Key(msgspec.Struct, frozen=True):
    sku_id: int
    location_id: int


share_rules = sql.run("share_rules")
rules_at_edge = sql.rows("rules_at_edge", _Edge)
touch_every_sku = sql.run("touch_every_sku")
approve_rule = sql.maybe("approve_rule", int)
restock_locations = sql.run("restock_locations")
hold_rules_behind = sql.rows("hold_rules_behind", int)
held_differs = sql.rows("held_differs", _Key)


async def follow(db: Database, *, now: datetime) -> int:
    """Has stock, and what channels are told, follow the rules that began, ended or changed; gives how many did.

    What is kept back at whole locations is followed in chunks afterwards (`network.follow`).
    """
    async with db.transaction() as tx:
        edges = await rules_at_edge(tx, now=now)
        numbers_of = [e.sku_id for e in edges if e.kind not in ("safety", "hold")]
        if None in numbers_of:
            await touch_every_sku(tx)
        else:
            await ledger.touch(tx, [sku_id for sku_id in numbers_of if sku_id is not None])
        kept_back = {(e.sku_id, e.location_id) for e in edges if e.kind == "safety"}
        kept_back |= {(e.followed["sku"], e.followed["location"]) for e in edges if e.followed is not None}
        wide = {location_id for sku_id, location_id in kept_back if sku_id is None}
        if wide:
            await restock_locations(tx, locations=None if None in wide else sorted(k for k in wide if k is not None))
        await ledger.restock_skus(tx, {sku_id for sku_id, _ in kept_back if sku_id is not None})
    return len(edges) + await follow_holds(db, every=any(e.kind == "hold" for e in edges))


async def follow_holds(db: Database, *, every: bool = False, chunk: int = 1_000) -> int:
    """Has stock follow the hold codes that may be sold or no longer may; gives how many keys changed.

    A rule turns in one transaction with the first of its keys; a hold that was being placed meanwhile is found by the
    next call. `every`: a rule may have spoken of another code before.
    """
    changed = 0
    while True:
        async with db.transaction() as tx:
            every = bool(await hold_rules_behind(tx)) or every
            keys = [(k.sku_id, k.location_id) for k in await held_differs(tx, every=every, limit=chunk)]
            await ledger.refold(tx, keys)
        changed += len(keys)
        if len(keys) < chunk:
            return changed


async def share(db: Database, cache: Cache, *, now: datetime) -> int:
    """Computes the shares of channels anew; gives how many changed."""
    async with db.transaction() as tx:
        changed = await share_rules(tx, now=now)
    if changed:
        await publish(db, cache)
    return changed


async def publish(db: Database, cache: Cache) -> None:
    """Tells every reader that the rules it remembers are not those in force."""
    async with db.connection() as connection:
        await cache.rules_are(await numbers.rulebook_version(connection))


async def approve(db: Database, cache: Cache, *, code: str, who: str, now: datetime) -> None:
    """A second person agrees: the rule is in force. Raises Conflict for who made it."""
    async with db.transaction() as tx:
        if await approve_rule(tx, code=code, who=who) is None:
            raise Conflict(f"rule {code!r} does not wait, or waits for somebody else than who made it")
        await keep(tx, who=who, steps=[Step("rule", code, "approved")])
        await settle_exceptions(tx, who=who, resolution=f"Approved by {who}.", of=[("rule_waiting", code)])
    await follow(db, now=now)
    await publish(db, cache)
