"""Steps of stock: movements told by sources, receipts and their holds, transfers."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from connectors.feeds.message import Message
from oms.flows.ingest import holds, messages
from oms.flows.stock import receive as receiving
from oms.flows.stock import transfer as transfers
from tests.machine.truth import (
    LOCATIONS,
    RECEIPT_HOLD,
    SKUS,
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
