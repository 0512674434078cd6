"""Rules that shape what channels may sell: shares that are computed, dates that begin and end, and the second person.

Readers and reservations apply them at once; what is pushed to channels follows within the sweep's time.
"""

from datetime import datetime

from oms import ledger, numbers
from oms.cache import Cache
from oms.db import Database, Sql
from oms.errors import Conflict
from oms.record import Step, keep, settle_exceptions

sql = Sql("network")

share_rules = sql.run("share_rules")
rules_at_edge = sql.rows("rules_at_edge", int)
touch_every_sku = sql.run("touch_every_sku")
approve_rule = sql.maybe("approve_rule", int)


async def follow(db: Database, *, now: datetime) -> int:
    """Has what channels are told follow the rules that began, ended or changed; gives how many did."""
    async with db.transaction() as tx:
        skus = await rules_at_edge(tx, now=now)
        if 0 in skus:
            await touch_every_sku(tx)
        else:
            await ledger.touch(tx, skus)
    return len(skus)


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
