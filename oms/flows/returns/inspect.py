"""Somebody looks at what came back: it goes where the rules say, and when all is looked at the refund is announced."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import ledger
from oms.access import Actor, sees_location
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.calendar import local_day
from oms.domain.counting import VALUE_CENTS_DEFAULT
from oms.domain.places import distance_km
from oms.domain.returns import CONDITIONS, ReturnRule, rule_for
from oms.errors import BadInput, NotFound
from oms.flows.returns.rows import HOLD, Line, Taken, keep, return_lines, take

sql = Sql("returns")


class Found(msgspec.Struct, frozen=True):
    """What was found of units of a return's line."""

    number: int
    quantity: int
    condition: str


class Where(msgspec.Struct, frozen=True):
    """Where a location is."""

    location_id: int
    code: str
    kind: str
    lat: float | None
    lon: float | None
    time_zone: str


inspected_lines = sql.run("inspected_lines")
keep_inspections = sql.run("keep_inspections")
inspections_before = sql.one("inspections_before", int)
return_done = sql.run("return_done")
return_rules = sql.rows("return_rules", ReturnRule)
where_is = sql.rows("where_is", Where)
send_on = sql.run("send_on")
ask_write_off = sql.run("ask_write_off")


async def inspect(
    db: Database,
    *,
    return_id: UUID,
    found_units: Sequence[Found],
    actor: Actor,
    now: datetime,
    is_final: bool = False,
    device: str | None = None,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Somebody looked: units go where the rules say, and only then may they be sold; gives what became of each.

    When all was looked at, or all that came and no more is expected (`is_final`), the return is done and its refund is
    announced, once. Raises NotFound, BadInput.
    """
    async with db.transaction() as tx:
        taken, standing = await take(tx, return_id)
        if not sees_location(actor, taken.location_id):
            raise NotFound(f"There is no return {return_id}.")
        _check(found_units, standing)
        rules = await return_rules(tx)
        km, there = await _distances(tx, taken.location_id, rules)
        chosen = [
            (f, rule_for(rules, reason=standing[f.number].reason, condition=f.condition, location_id=taken.location_id, km=km))
            for f in found_units
        ]  # fmt: skip
        skus = {standing[f.number].sku_id for f in found_units}
        locked = await ledger.lock(tx, skus)
        await ledger.stock(tx, [(s, taken.location_id) for s in skus])
        nth = await inspections_before(tx, id=return_id)
        for k, (f, rule) in enumerate(chosen, start=nth + 1):
            await _go(tx, taken, standing[f.number], f, rule, there, nth=k, actor=actor, now=now)
        await ledger.write(tx, locked, resum=skus)
        await keep_inspections(
            tx, id=return_id, numbers=[f.number for f, _ in chosen], quantities=[f.quantity for f, _ in chosen],
            conditions=[f.condition for f, _ in chosen], outcomes=[r.outcome for _, r in chosen],
            holds=[r.hold_code for _, r in chosen], tos=[r.to_id for _, r in chosen],
            kms=[km.get(r.to_id) if r.to_id is not None else None for _, r in chosen],
            rules=[r.code for _, r in chosen], who=actor.who, device=device, at=now,
        )  # fmt: skip
        await inspected_lines(
            tx, id=return_id, numbers=[f.number for f, _ in chosen], quantities=[f.quantity for f, _ in chosen],
            refunds=[f.quantity if r.refunds else 0 for f, r in chosen],
        )  # fmt: skip
        said = [{"number": f.number, "quantity": f.quantity, "condition": f.condition, "outcome": r.outcome, "rule": r.code}
                for f, r in chosen]  # fmt: skip
        await keep(tx, return_id, taken.order_id, "inspected", actor, device, {"found": said})
        after = await return_lines(tx, id=return_id)
        if all(n.inspected == n.received and (is_final or n.received >= n.expected) for n in after):
            is_told = await return_done(tx, id=return_id, at=now)
            if is_told:
                await keep(tx, return_id, taken.order_id, "refund due", actor, device, {})
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return said


def _check(found_units: Sequence[Found], standing: Mapping[int, Line]) -> None:
    wanted: dict[int, int] = {}
    for f in found_units:
        wanted[f.number] = wanted.get(f.number, 0) + f.quantity
    faults = [
        {"number": k, "reason": f"{standing[k].received - standing[k].inspected if k in standing else 0} units wait"}
        for k, quantity in wanted.items()
        if k not in standing or quantity > standing[k].received - standing[k].inspected
    ]
    faults += [
        {"number": f.number, "reason": f"condition {f.condition!r} is none of {', '.join(CONDITIONS)}, or no units"}
        for f in found_units if f.condition not in CONDITIONS or f.quantity < 1
    ]  # fmt: skip
    if faults or not found_units:
        raise BadInput("Name units of this return that wait to be inspected, and their condition.", items=faults)


async def _distances(
    tx: Connection, location_id: int, rules: Sequence[ReturnRule]
) -> tuple[dict[int, float | None], Where]:
    ids = {location_id, *(r.to_id for r in rules if r.to_id is not None)}
    places = {w.location_id: w for w in await where_is(tx, ids=sorted(ids))}
    here = places[location_id]
    km: dict[int, float | None] = {}
    for i, w in places.items():
        if None in (w.lat, w.lon, here.lat, here.lon):
            km[i] = None
        else:
            km[i] = distance_km(here.lat or 0.0, here.lon or 0.0, w.lat or 0.0, w.lon or 0.0)
    return km, here


async def _go(
    tx: Connection, taken: Taken, line: Line, f: Found, rule: ReturnRule, there: Where, *, nth: int, actor: Actor,
    now: datetime,
) -> None:  # fmt: skip
    """The units leave the hold of their return: into stock, or under the hold of what becomes of them."""
    key = line.sku_id, taken.location_id
    left = f.quantity
    for hold in await ledger.holds_to_lift(tx, ledger.HOUSE, key=key, code=HOLD, reference=None):
        units = min(left, hold.quantity)
        if units:
            await ledger.lift(tx, {hold.hold_id: units}, keys=[key], who=actor.who, at=now)
            left -= units
    target = uuid4()
    code, message = None, ""
    if rule.outcome == "hold":
        code, message = rule.hold_code, f"inspected:{taken.return_id}:{nth}"
    elif rule.outcome == "transfer" and rule.to_id is not None:
        code, message = "send_on", f"send_on:{target}:{line.sku_id}"
        await send_on(
            tx, id=target, from_id=taken.location_id, to_id=rule.to_id, order_id=taken.order_id, who=actor.who, at=now,
            sku_id=line.sku_id, quantity=f.quantity,
        )  # fmt: skip
    elif rule.outcome == "write_off":
        code, message = "write_off", f"write_off:{target}:{line.sku_id}:hold"
        cents = f.quantity * (VALUE_CENTS_DEFAULT if line.value_cents is None else line.value_cents)
        gone = [{"sku_id": line.sku_id, "sku": line.sku, "quantity": f.quantity, "reason": f"returned {f.condition}",
                 "cents": cents}]  # fmt: skip
        await ask_write_off(
            tx, id=target, location_id=taken.location_id, day=local_day(now, there.time_zone), cents=cents, lines=gone,
            reference=str(taken.return_id), who=actor.who, at=now,
        )  # fmt: skip
    if code is not None:
        move = ledger.Move(
            sku_id=line.sku_id, location_id=taken.location_id, source_id=ledger.HOUSE, message_id=message, kind="hold",
            quantity=0, effect=0, occurred_at=now, reason=f"returned {f.condition}", hold_code=code, held=f.quantity,
        )  # fmt: skip
        await ledger.move(tx, [move], feed_id=None, who=actor.who)
