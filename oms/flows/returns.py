"""What customers send back: expected or blind, received under a hold, inspected, sent on by rule, refunded once."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.calendar import local_day
from oms.domain.codes import CodeUnreadable, read_code
from oms.domain.counting import VALUE_CENTS_DEFAULT
from oms.domain.places import distance_km
from oms.domain.returns import CONDITIONS, ReturnRule, rule_for
from oms.errors import BadInput, Conflict, NotFound

sql = Sql("returns")
stock_sql = Sql("stock")

HOLD = "to_inspect"
"""What came back is not sold before somebody looked at it."""


class Sent(msgspec.Struct, frozen=True):
    """Units that a customer sends back: of an order's line, or of a scanned code where the order is not known."""

    quantity: int
    reason: str
    line: str | None = None
    code: str | None = None


class Came(msgspec.Struct, frozen=True):
    """Units of a return's line that are here."""

    number: int
    quantity: int


class Found(msgspec.Struct, frozen=True):
    """What was found of units of a return's line."""

    number: int
    quantity: int
    condition: str


class OrderOf(msgspec.Struct, frozen=True):
    """The order that a return is of."""

    order_id: UUID
    channel_id: int


class Returnable(msgspec.Struct, frozen=True):
    """A line of an order, and how many units of it may still come back."""

    line_id: int
    line: str
    sku_id: int
    sku: str
    price_cents: int
    left: int


class Taken(msgspec.Struct, frozen=True):
    """A return whose row is taken."""

    return_id: UUID
    order_id: UUID | None
    channel_id: int | None
    location_id: int
    location: str
    state: str
    is_blind: bool


class Line(msgspec.Struct, frozen=True):
    """A line of a return; `out` is how many units of its order's line are with the customer."""

    number: int
    line_id: int | None
    sku_id: int
    sku: str
    reason: str
    price_cents: int | None
    expected: int
    received: int
    inspected: int
    refunded: int
    value_cents: int | None
    out: int | None


class Where(msgspec.Struct, frozen=True):
    """Where a location is."""

    location_id: int
    code: str
    kind: str
    lat: float | None
    lon: float | None
    time_zone: str


class Return(msgspec.Struct, frozen=True):
    """A return as it stands."""

    id: UUID
    channel: str | None
    number: str | None
    order_id: UUID | None
    location: str
    is_blind: bool
    state: str
    made_by: str
    made_at: datetime
    received_at: datetime | None
    done_at: datetime | None
    lines: list[dict[str, Any]] | None
    inspections: list[dict[str, Any]]


class Meant(msgspec.Struct, frozen=True):
    """A sku that a code may mean."""

    k: int
    sku_id: int
    sku: str
    is_kit: bool
    value_cents: int | None


class RuleShown(msgspec.Struct, frozen=True):
    """Where what comes back goes, with locations by code."""

    code: str
    rank: int
    reason: str | None
    condition: str | None
    location: str | None
    outcome: str
    hold_code: str | None
    to_location: str | None
    km_max: float | None
    refunds: bool


take_order_of_return = sql.maybe("take_order_of_return", OrderOf)
returnable = sql.rows("returnable", Returnable)
make_return = sql.run("make_return")
order_of_return = sql.rows("order_of_return", UUID)
take_return = sql.maybe("take_return", Taken)
return_lines = sql.rows("return_lines", Line)
returned_units = sql.run("returned_units")
received_lines = sql.run("received_lines")
inspected_lines = sql.run("inspected_lines")
keep_inspections = sql.run("keep_inspections")
inspections_before = sql.one("inspections_before", int)
return_done = sql.run("return_done")
return_rules = sql.rows("return_rules", ReturnRule)
rules_shown = sql.rows("rules_shown", RuleShown)
write_rule = sql.run("write_rule")
where_is = sql.rows("where_is", Where)
send_on = sql.run("send_on")
ask_write_off = sql.run("ask_write_off")
returns_of = sql.rows("returns_of", Return)
meant = stock_sql.rows("meant", Meant)


async def announce(
    db: Database,
    *,
    location_id: int,
    lines: Sequence[Sent],
    actor: Actor,
    now: datetime,
    order_id: UUID | None = None,
    channel: str | None = None,
    number: str | None = None,
    channels: Collection[int] | None = None,
    device: str | None = None,
) -> UUID:
    """A return is to come to a location: of an order's lines, or blind where nobody knows the order.

    `channels` are those whose orders the caller sees. Raises NotFound for the order, BadInput where a line cannot come
    back in this number.
    """
    is_blind = order_id is None and number is None
    if not lines or any(n.quantity < 1 or (n.code is None) != (not is_blind) for n in lines):
        what = "a code" if is_blind else "a line of the order"
        raise BadInput(f"lines: each names {what}, 1 or more units, and a reason")
    return_id = uuid4()
    async with db.transaction() as tx:
        order = None
        rows: list[tuple[int, int | None, int, str, int | None, int]]
        if is_blind:
            rows = [(k, None, sku_id, n.reason, None, n.quantity)
                    for k, (sku_id, n) in enumerate(zip(await _skus(tx, lines), lines, strict=True), start=1)]  # fmt: skip
        else:
            order = await take_order_of_return(
                tx, id=order_id, channel=channel, number=number, channels=None if channels is None else sorted(channels)
            )
            if order is None:
                raise NotFound("There is no such order.")
            rows = await _of_order(tx, order.order_id, lines)
        await make_return(
            tx, id=return_id, channel_id=order.channel_id if order else None, order_id=order.order_id if order else None,
            location_id=location_id, is_blind=is_blind, who=actor.who, at=now, numbers=[r[0] for r in rows],
            lines=[r[1] for r in rows], skus=[r[2] for r in rows], reasons=[r[3] for r in rows],
            prices=[r[4] for r in rows], expecteds=[r[5] for r in rows],
        )  # fmt: skip
        await _keep(tx, return_id, order.order_id if order else None, "return expected", actor, device, {})
    return return_id


async def _of_order(
    tx: Connection, order_id: UUID, lines: Sequence[Sent]
) -> list[tuple[int, int | None, int, str, int | None, int]]:
    there: dict[str, list[Returnable]] = {}
    for part in await returnable(tx, id=order_id):
        there.setdefault(part.line, []).append(part)
    left = {part.line_id: part.left for parts in there.values() for part in parts}
    rows: list[tuple[int, int | None, int, str, int | None, int]] = []
    faults = []
    for index, n in enumerate(lines):
        parts = there.get(n.line or "", [])
        if len(parts) > 1:
            parts = [p for p in parts if left[p.line_id] >= n.quantity] or parts
        if not parts or left[parts[0].line_id] < n.quantity:
            most = left[parts[0].line_id] if parts else 0
            reason = f"{most} units of line {n.line!r} can come back"
            faults.append({"index": index, "field": "quantity", "line": n.line, "reason": reason})
            continue
        left[parts[0].line_id] -= n.quantity
        rows.append((len(rows) + 1, parts[0].line_id, parts[0].sku_id, n.reason, parts[0].price_cents, n.quantity))
    if faults:
        raise BadInput("More than was shipped cannot come back; nothing was applied.", items=faults)
    return rows


async def _skus(tx: Connection, lines: Sequence[Sent]) -> list[int]:
    candidates: list[tuple[int, str]] = []
    for k, n in enumerate(lines):
        try:
            candidates += [(k, code) for code in read_code(n.code or "").candidates]
        except CodeUnreadable as error:
            raise BadInput(f"lines[{k}].code: {error}") from None
    found: dict[int, set[int]] = {}
    for row in await meant(tx, ks=[k for k, _ in candidates], codes=[code for _, code in candidates]):
        if not row.is_kit:
            found.setdefault(row.k, set()).add(row.sku_id)
    faults = [
        {"index": k, "field": "code", "reason": f"{n.code!r} is no sku, or more than one; nothing was applied"}
        for k, n in enumerate(lines) if len(found.get(k, ())) != 1
    ]  # fmt: skip
    if faults:
        raise BadInput("Codes that cannot be taken.", items=faults)
    return [next(iter(found[k])) for k in range(len(lines))]


async def _take(tx: Connection, return_id: UUID) -> tuple[Taken, dict[int, Line]]:
    await order_of_return(tx, id=return_id)
    found = await take_return(tx, id=return_id)
    if found is None:
        raise NotFound(f"There is no return {return_id}.")
    return found, {n.number: n for n in await return_lines(tx, id=return_id)}


async def receive(
    db: Database,
    *,
    return_id: UUID,
    location_id: int,
    lines: Sequence[Came] | None,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """Units of a return are here, at any location, all or these: on hand, and held until they are inspected.

    Raises NotFound, BadInput where more comes than is out, Conflict.
    """
    async with db.transaction() as tx:
        found, standing = await _take(tx, return_id)
        if found.state == "done":
            raise Conflict(f"Return {return_id} is done; what comes now is a return of its own.")
        if found.state == "received" and found.location_id != location_id:
            raise Conflict(f"Return {return_id} is at {found.location}; what comes elsewhere is a return of its own.")
        if lines is None:
            lines = [Came(n.number, n.expected - n.received) for n in standing.values() if n.expected > n.received]
        units: dict[int, int] = {}
        for n in lines:
            units[n.number] = units.get(n.number, 0) + n.quantity
        out: dict[int, int] = {}
        for k, quantity in units.items():
            line_id = standing[k].line_id if k in standing else None
            if line_id is not None:
                out[line_id] = out.get(line_id, 0) + quantity
        faults = [
            {"number": k, "reason": "is no line of this return, or more units than are with the customer"}
            for k, quantity in units.items()
            if k not in standing or quantity < 1
            or (standing[k].out is not None and out[standing[k].line_id or 0] > (standing[k].out or 0))
        ]  # fmt: skip
        if faults or not units:
            raise BadInput("Name lines of this return, each with units that can have come.", items=faults)
        locked = await ledger.lock(tx, {standing[k].sku_id for k in units})
        await ledger.stock(tx, [(standing[k].sku_id, location_id) for k in units])
        moves = [
            ledger.Move(
                sku_id=standing[k].sku_id, location_id=location_id, source_id=ledger.HOUSE, kind="return",
                message_id=f"return:{return_id}:{k}:{standing[k].received}", quantity=quantity, effect=quantity,
                occurred_at=now, reason=standing[k].reason, reference=str(return_id), hold_code=HOLD, held=quantity,
                is_ours=True,
            )
            for k, quantity in sorted(units.items())
        ]  # fmt: skip
        await ledger.move(tx, moves, feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum={m.sku_id for m in moves})
        await received_lines(
            tx, id=return_id, location_id=location_id, at=now, numbers=list(units), quantities=list(units.values())
        )
        await returned_units(tx, lines=list(out), quantities=list(out.values()))
        await _keep(tx, return_id, found.order_id, "returned", actor, device, {str(k): q for k, q in units.items()})
    if cache is not None:
        await cache.wake("project")
    return "received"


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
        taken, standing = await _take(tx, return_id)
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
        after = await return_lines(tx, id=return_id)
        if all(n.inspected == n.received and (is_final or n.received >= n.expected) for n in after):
            await return_done(tx, id=return_id, at=now)
        said = [{"number": f.number, "quantity": f.quantity, "condition": f.condition, "outcome": r.outcome, "rule": r.code}
                for f, r in chosen]  # fmt: skip
        await _keep(tx, return_id, taken.order_id, "inspected", actor, device, {"found": said})
    if cache is not None:
        for flow in ("broker", "project", "stock"):
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


async def _keep(
    tx: Connection, return_id: UUID, order_id: UUID | None, step: str, actor: Actor, device: str | None,
    detail: dict[str, Any],
) -> None:  # fmt: skip
    told = {"return": str(return_id), **detail, **({"device": device} if device else {})}
    steps = [record.Step("return", str(return_id), step, detail=told)]
    if order_id is not None:
        steps.append(record.Step("order", str(order_id), step, detail=told))
    await record.keep(tx, who=actor.who, steps=steps)


async def listed(
    db: Database, *, locations: list[int] | None, channels: list[int] | None, state: str | None, before: UUID | None,
    limit: int, return_id: UUID | None = None,
) -> list[Return]:  # fmt: skip
    """Returns at these locations or of these channels, newest first."""
    async with db.connection() as tx:
        return await returns_of(
            tx, locations=locations, channels=channels, state=state, id=return_id, before=before, limit=limit
        )  # fmt: skip


async def shown_rules(db: Database) -> list[RuleShown]:
    """Where what comes back goes."""
    async with db.connection() as tx:
        return await rules_shown(tx)


async def set_rule(db: Database, *, rule: ReturnRule, who: str) -> None:
    """A rule for what comes back is in force. Raises BadInput where its outcome needs what it does not say."""
    if rule.condition is not None and rule.condition not in CONDITIONS:
        raise BadInput(f"condition: {rule.condition!r} is none of {', '.join(CONDITIONS)}")
    if (rule.outcome == "hold") != (rule.hold_code is not None) or (rule.outcome == "transfer") != (
        rule.to_id is not None
    ):
        raise BadInput("outcome: hold needs hold_code, transfer needs a location to go to, and no other has them")
    async with db.transaction() as tx:
        await write_rule(tx, **msgspec.structs.asdict(rule))
        await record.keep(
            tx, who=who, steps=[record.Step("return rule", rule.code, "set", detail=msgspec.to_builtins(rule))]
        )
