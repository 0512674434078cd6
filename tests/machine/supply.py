"""Steps of stock: movements told by sources, receipts, transfers, counts, write-offs by two, returns and inspections."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from connectors.feeds.message import Message
from oms.flows.ingest import holds, messages
from oms.flows.returns.expect import Sent, announce
from oms.flows.returns.inspect import Found, inspect
from oms.flows.returns.receive import receive as take_in_return
from oms.flows.stock import count as counting
from oms.flows.stock import plan, writeoff
from oms.flows.stock import receive as receiving
from oms.flows.stock import transfer as transfers
from tests.machine.truth import (
    LIMIT_CENTS,
    LOCATIONS,
    RECEIPT_HOLD,
    RECOUNT_UNITS,
    SKUS,
    VALUE_CENTS,
    Loss,
)  # fmt: skip

if TYPE_CHECKING:
    from tests.machine.machine import Machine

PEOPLE = ("ann", "bob", "cy")


# what sources tell


async def movement(m: "Machine") -> None:
    """A sale, a return, a receipt or an adjustment; some told late, after a count that has seen them."""
    source, location, kind = m.pick((("pos", "S1", "sale"), ("pos", "S2", "sale"), ("pos", "S1", "return"),
                                     ("wms", "W1", "receipt"), ("wms", "W1", "adjustment")))  # fmt: skip
    quantity = m.random.randint(1, 2) * (m.pick((1, -1)) if kind == "adjustment" else 1)
    at = m.now() - timedelta(seconds=m.pick((0, 0, 0.2)))
    said = Message(
        id=f"m{len(m.said)}", sku=m.pick(SKUS), location=location, kind=kind, quantity=quantity, occurred_at=at
    )
    m.said.append((source, said))
    key, units = (said.sku, location), -quantity if kind == "sale" else quantity
    expected = "absorbed" if key in m.truth.counted_at and at <= m.truth.counted_at[key] else "applied"
    if expected == "applied":
        m.truth.move(key, units, at)
        if units > 0:
            m.truth.holds[*key, RECEIPT_HOLD[location]] += units
    await m.same(tell(m, source, said), [expected], said)


async def movement_again(m: "Machine") -> None:
    chosen = m.pick(m.said)
    source, said = chosen
    expected = m.pick(("duplicate", "changed"))
    if expected == "changed":
        said = msgspec.structs.replace(said, quantity=said.quantity + 1)
    await m.same(tell(m, source, said), [expected], f"again {said}")


async def tell(m: "Machine", source: str, said: Message) -> list[str]:
    return [r.outcome for r in await messages.take(m.db, source=source, messages=[said], who="test")]


# receipts, holds, transfers


async def receive(m: "Machine") -> None:
    """A purchase is expected and comes: less, more, some of it damaged."""
    location, sku, reference = m.pick(LOCATIONS), m.pick(SKUS), f"PO{len(m.steps)}"
    expected, quantity = m.random.randint(1, 4), m.random.randint(1, 4)
    damaged, is_final = m.random.randint(0, min(1, quantity)), m.random.random() < 0.5
    async with m.db.transaction() as tx:
        await tx.execute(
            "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
            " values ($1, $2, $3, $4, 'purchase', $5, '2030-01-01')",
            m.net.sources["erp"], reference, m.net.skus[sku], m.net.locations[location], expected,
        )  # fmt: skip
    m.truth.expected[reference, sku, location] = expected
    await came(m, reference, location, {sku: (quantity, damaged)}, is_final=is_final)


async def came(
    m: "Machine", reference: str, location: str, units: dict[str, tuple[int, int]], *, is_final: bool
) -> Any:
    truth, now = m.truth, m.now()
    for sku, (quantity, damaged) in units.items():
        key = sku, location
        truth.move(key, quantity, now)
        truth.holds[*key, RECEIPT_HOLD[location]] += quantity - damaged
        truth.holds[*key, "damaged"] += damaged
        truth.resting.discard(key)
    for name in [k for k in truth.expected if k[0] == reference]:
        left = truth.expected[name] - units.get(name[1], (0, 0))[0]
        truth.expected[name] = 0 if is_final else max(0, left)
    await receiving.receive(
        m.db, location_id=m.net.locations[location], reference=reference, is_final=is_final, now=now,
        lines=[receiving.Came(sku, *both) for sku, both in units.items()], actor=m.actor(location),
    )  # fmt: skip


async def lift(m: "Machine") -> None:
    """Units under a hold may be sold again, some or all."""
    async with m.db.connection() as tx:
        rows = await tx.fetch(
            "select h.hold_id, s.code, l.code, h.code, h.quantity from hold h join sku s using (sku_id)"
            " join location l using (location_id) where h.lifted_at is null"
            " and h.code in ('until_baseline', 'until_released', 'damaged', 'returns', 'opened') order by 1"
        )
    found = m.pick(rows)
    hold_id, sku, location, code, quantity = found
    units = m.random.randint(1, quantity)
    m.truth.holds[sku, location, code] -= units
    doing = holds.release(m.db, hold_id=hold_id, actor=m.person("boss"), why="fine", now=m.now(), quantity=units)
    await m.same(doing, units, f"lift {units} of {code}")


async def transfer(m: "Machine") -> None:
    start, end = m.random.sample(LOCATIONS, 2)
    sku, quantity = m.pick(SKUS), m.random.randint(1, 3)
    made = await transfers.ask(
        m.db, from_id=m.net.locations[start], to_id=m.net.locations[end], lines=[transfers.Wanted(sku, quantity)],
        actor=m.person("boss"), now=m.now(),
    )  # fmt: skip
    m.transfers.append({"id": made, "from": start, "to": end, "sku": sku, "quantity": quantity, "state": "asked"})


async def transfer_on(m: "Machine") -> None:
    """It leaves, comes, or is cancelled; sometimes once more."""
    t = m.pick(m.transfers[-4:])
    key, reference = (t["sku"], t["from"]), str(t["id"])
    how = m.pick(("send", "send", "come", "come", "cancel"))
    if how == "send":
        expected = {"cancelled": "Conflict"}.get(t["state"], t["state"])
        if t["state"] == "asked":
            expected = "Conflict"
            if m.truth.atp(t["sku"], frozenset([t["from"]])) >= t["quantity"]:
                expected = t["state"] = "sent"
                m.truth.move(key, -t["quantity"], m.now())
                m.truth.expected[reference, t["sku"], t["to"]] = t["quantity"]
        doing = transfers.send(m.db, transfer_id=t["id"], actor=m.actor(t["from"]), now=m.now())
        await m.same(doing, expected, f"send {t}")
    elif how == "come":
        quantity = m.random.randint(1, t["quantity"])
        units = {t["sku"]: (quantity, 0)}
        if t["state"] != "sent":
            line = [receiving.Came(t["sku"], quantity)]
            doing = receiving.receive(
                m.db, location_id=m.net.locations[t["to"]], reference=reference, is_final=False, now=m.now(), lines=line,
                actor=m.actor(t["to"]),
            )  # fmt: skip
            await m.same(doing, "Conflict", f"come {t}")
            return
        is_final = m.random.random() < 0.5
        await came(m, reference, t["to"], units, is_final=is_final)
        if is_final or not m.truth.expected[reference, t["sku"], t["to"]]:
            t["state"] = "received"
    else:
        expected = "cancelled" if t["state"] in ("asked", "cancelled") else "Conflict"
        t["state"] = "cancelled" if t["state"] == "asked" else t["state"]
        await m.same(
            transfers.cancel(m.db, transfer_id=t["id"], actor=m.person("boss"), why="x"), expected, f"cancel {t}"
        )


# counts and write-offs


async def look(m: "Machine") -> None:
    """Somebody looks at a shelf: what is in hands is not there. The numbers are entered later."""
    location, sku = m.pick(LOCATIONS), m.pick(SKUS)
    made = await plan.make(
        m.db,
        location_id=m.net.locations[location],
        kind="cycle",
        codes=[sku],
        why=None,
        actor=m.person("boss"),
        now=m.now(),
    )
    m.counts.append(
        {"id": made, "location": location, "sku": sku, "state": "due", "who": None, **seen(m, (sku, location))}
    )


def seen(m: "Machine", key: tuple[str, str]) -> dict[str, Any]:
    hands = m.truth.hands(key)
    off = m.pick((0, 0, 1, -1, -2, 3, -3, -4))
    return {"hands": hands, "shelf": max(0, m.truth.on_hand[key] - hands + off), "at": m.now()}


async def count(m: "Machine") -> None:
    """What was seen is entered; from some units off by another person once more; above a limit it waits for a second."""
    c = m.pick(c for c in m.counts if c["state"] in ("due", "recount"))
    truth, key = m.truth, (c["sku"], c["location"])
    if c["state"] == "recount":
        c |= seen(m, key)
    actor, now = m.person(m.pick(PEOPLE)), m.now()
    seen_now = [counting.Seen(c["sku"], c["shelf"], "why")]
    doing = counting.enter(m.db, count_id=c["id"], lines=seen_now, actor=actor, now=now, at=c["at"])
    if c["state"] == "recount" and c["who"] == actor.who:
        await m.same(doing, "Conflict", f"recount {c}")
        return
    variance, state = verdict(m, c)
    if state == "applied" and c["state"] == "due" and abs(variance) >= RECOUNT_UNITS:
        state = "recount"
    day, cents = m.day(c["location"], now), max(0, -variance) * VALUE_CENTS
    if state == "applied":
        if cents and truth.lost(c["location"], day, actor.who) + cents > LIMIT_CENTS:
            state = "waiting"
        else:
            counted(m, c, variance)
    c |= {"state": state, "who": actor.who}
    got = await doing
    said = [(v.variance, v.state) for v in got]
    assert said == [(variance, state)], f"count {c}: {said} instead of {(variance, state)}"
    if cents and state in ("applied", "waiting"):
        async with m.db.connection() as tx:
            loss = await tx.fetchval("select write_off_id from write_off where reference = $1", str(c["id"]))
        truth.losses[loss] = Loss(c["location"], day, actor.who, cents, state, of_count=c["id"])


def verdict(m: "Machine", c: dict[str, Any]) -> tuple[int, str]:
    """The variance of what was seen, and whether it still counts."""
    key = c["sku"], c["location"]
    variance = c["shelf"] + c["hands"] + m.truth.moved_after(key, c["at"]) - m.truth.on_hand[key]
    is_old = key in m.truth.counted_at and m.truth.counted_at[key] >= c["at"]
    return variance, "superseded" if is_old else "applied"


def counted(m: "Machine", c: dict[str, Any], variance: int) -> None:
    key = c["sku"], c["location"]
    m.truth.on_hand[key] += variance
    m.truth.counted_at[key] = c["at"]


async def write_off(m: "Machine") -> None:
    location, sku, quantity, who = m.pick(LOCATIONS), m.pick(SKUS), m.random.randint(1, 2), m.pick(PEOPLE)
    truth, now, key = m.truth, m.now(), (sku, location)
    cents, day = quantity * VALUE_CENTS, m.day(location, now)
    doing = writeoff.ask(
        m.db, location_id=m.net.locations[location], lines=[writeoff.Gone(sku, quantity, "broken")], actor=m.person(who),
        now=now,
    )  # fmt: skip
    if quantity > truth.on_hand[key]:
        await m.same(doing, "BadInput", f"write off {quantity} of {key}")
        return
    state = "waiting" if truth.lost(location, day, who) + cents > LIMIT_CENTS else "applied"
    truth.losses[await doing] = Loss(location, day, who, cents, state, {sku: quantity})
    if state == "waiting":
        truth.holds[*key, "write_off"] += quantity
    else:
        truth.move(key, -quantity, now)


async def decide(m: "Machine") -> None:
    """A second person agrees or refuses; the first one may not."""
    waiting = [i for i, n in m.truth.losses.items() if n.state == "waiting"]
    loss_id = m.pick(waiting if m.random.random() < 0.8 else [i for i, n in m.truth.losses.items() if n.units])
    loss, who, agrees = m.truth.losses[loss_id], m.pick(PEOPLE), m.random.random() < 0.6
    state = "applied" if agrees else "refused"
    expected = state
    if loss.state != state and (loss.state != "waiting" or (agrees and who == loss.who)):
        expected = "Conflict"
    elif loss.state != state:
        settle(m, loss, state)
    doing = writeoff.decide(m.db, write_off_id=loss_id, agrees=agrees, actor=m.person(who), now=m.now())
    await m.same(doing, expected, f"{who} says {agrees} to {loss}")


def settle(m: "Machine", loss: Loss, state: str) -> None:
    loss.state = state
    if loss.of_count is not None:
        (c,) = [c for c in m.counts if c["id"] == loss.of_count]
        variance, now_state = verdict(m, c)
        c["state"] = "refused" if state == "refused" else now_state
        if c["state"] == "applied":
            counted(m, c, variance)
        return
    for sku, quantity in loss.units.items():
        m.truth.holds[sku, loss.location, "write_off"] -= quantity
        if state == "applied":
            m.truth.move((sku, loss.location), -quantity, m.now())


# returns


async def send_back(m: "Machine") -> None:
    truth = m.truth
    out = [(i, name) for i, o in truth.orders.items() for name, n in o.lines.items() if returnable(m, i, name) > 0]
    chosen = m.pick(out)
    order_id, name = chosen
    quantity, location = m.random.randint(1, returnable(m, order_id, name) + 1), m.pick(LOCATIONS)
    doing = announce(
        m.db, location_id=m.net.locations[location], lines=[Sent(quantity, "too big", line=name)],
        actor=m.person("boss"), now=m.now(), order_id=order_id,
    )  # fmt: skip
    if quantity > returnable(m, order_id, name):
        await m.same(doing, "BadInput", "return too many")
        return
    m.returns.append({"id": await doing, "order": order_id, "line": name, "expected": quantity, "received": 0,
                      "inspected": 0, "at": location, "state": "expected"})  # fmt: skip


def returnable(m: "Machine", order_id: UUID, name: str) -> int:
    line = m.truth.orders[order_id].lines[name]
    coming = [r for r in m.returns if (r["order"], r["line"], r["state"]) == (order_id, name, "expected")]
    return line.shipped - line.returned - sum(r["expected"] for r in coming)


async def return_on(m: "Machine") -> None:
    """It comes, to any location; then somebody looks at it, some or all."""
    r = m.pick(r for r in m.returns if r["state"] != "done")
    truth, now = m.truth, m.now()
    line = truth.orders[r["order"]].lines[r["line"]]
    if r["state"] == "expected":
        r |= {"at": m.pick(LOCATIONS), "state": "received", "received": r["expected"]}
        key = line.sku, r["at"]
        truth.move(key, r["received"], now)
        truth.holds[*key, "to_inspect"] += r["received"]
        line.returned += r["received"]
        doing = take_in_return(
            m.db, return_id=r["id"], location_id=m.net.locations[r["at"]], lines=None, actor=m.actor(r["at"]), now=now
        )
        await m.same(doing, "received", f"return {r}")
        return
    units, condition = m.random.randint(1, r["received"] - r["inspected"]), m.pick(("new", "opened", "damaged", "used"))
    actor, key = m.actor(r["at"]), (line.sku, r["at"])
    truth.holds[*key, "to_inspect"] -= units
    code = {"new": None, "opened": "opened", "damaged": "write_off", "used": "returns"}[condition]
    if code is not None:
        truth.holds[*key, code] += units
    await inspect(m.db, return_id=r["id"], found_units=[Found(1, units, condition)], actor=actor, now=now)
    r["inspected"] += units
    if r["inspected"] == r["received"]:
        r["state"] = "done"
        truth.refunds.add(str(r["id"]))
    if condition == "damaged":
        async with m.db.connection() as tx:
            loss = await tx.fetchval(
                "select write_off_id from write_off where reference = $1 order by requested_at desc limit 1",
                str(r["id"]),
            )
        cents = units * VALUE_CENTS
        truth.losses[loss] = Loss(r["at"], m.day(r["at"], now), actor.who, cents, "asked", {line.sku: units})


async def settle_asked(m: "Machine") -> None:
    """What inspections found damaged is written off, or waits for a second person."""
    asked = [n for n in m.truth.losses.values() if n.state == "asked"]
    for loss in asked:
        if m.truth.lost(loss.location, loss.day, loss.who) + loss.cents > LIMIT_CENTS:
            loss.state = "waiting"
        else:
            settle(m, loss, "applied")
    await m.same(writeoff.settle_asked(m.db, now=m.now()), len(asked), "settle")
