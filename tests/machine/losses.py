"""Steps of what is missing and what comes back: counts, write-offs by two, returns and inspections."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from oms.flows.returns.expect import Sent, announce
from oms.flows.returns.inspect import Found, inspect
from oms.flows.returns.receive import receive as take_in_return
from oms.flows.stock import count as counting
from oms.flows.stock import plan, writeoff
from tests.machine.truth import (
    LIMIT_CENTS,
    LOCATIONS,
    RECOUNT_UNITS,
    SKUS,
    VALUE_CENTS,
    Loss,
)  # fmt: skip

if TYPE_CHECKING:
    from tests.machine.machine import Machine

PEOPLE = ("ann", "bob", "cy")


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
