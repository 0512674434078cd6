"""Steps of locations: work by hand and by a system, doubled, late and out of order; rejections, pick-ups, relief."""

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from connectors.fulfillers import Said, SaidLine
from oms.flows import fulfill
from oms.flows.fulfill import answers, claim, handover, short
from oms.flows.fulfill import collect as collections
from oms.flows.fulfill.handoff import Runner
from oms.flows.fulfill.together import Asked, advance_many
from oms.settle import settle_batch
from tests.machine.truth import STEPS, UNPICKED, WORKING, Work

if TYPE_CHECKING:
    from tests.machine.machine import Machine

SYSTEM = "system of W1"
NAMES = tuple(STEPS)


def some_work(m: "Machine", *, at: tuple[str, ...] = ("W1", "S1", "S2"), alive: float = 0.85) -> tuple[UUID, Work]:
    """Some work, mostly such that is not done."""
    works = [(i, w) for i, w in m.truth.works.items() if w.location in at]
    doing = [(i, w) for i, w in works if w.state in WORKING]
    found: tuple[UUID, Work] = m.pick(doing if doing and m.random.random() < alive else works)
    return found


def next_step(m: "Machine", work: Work) -> Any:
    """Mostly the step that comes next, sometimes any."""
    following = {"released": "accept", "accepted": "pick", "picked": "pack", "packed": "ship", "ready": "ship"}
    return following[work.state] if work.state in following and m.random.random() < 0.8 else m.pick(NAMES)


async def work(m: "Machine") -> None:
    """A step, and sometimes the same once more."""
    work_id, doing = some_work(m)
    step, actor = next_step(m, doing), m.actor(doing.location)
    for _ in range(m.random.choice((1, 1, 2))):
        now = m.now()
        expected = m.truth.step(work_id, step, who=actor.person, now=now)
        await m.same(advanced(m, work_id, step, actor, now), expected, f"{step} of {doing}")


async def advanced(m: "Machine", work_id: UUID, step: Any, actor: Any, now: Any) -> Any:
    """The state after a step, taken alone or in the transaction that people share."""
    if m.random.random() < 0.5:
        return (await fulfill.advance(m.db, fulfillments=[work_id], step=step, actor=actor, now=now))[work_id]
    asked = Asked(fulfillment=work_id, step=step, actor=actor, now=now)
    (answer,) = await settle_batch(m.db, advance_many, [asked])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def ship_twice(m: "Machine") -> None:
    """Two devices say at the same moment that it has left: it leaves once."""
    work_id = m.pick(i for i, w in m.truth.works.items() if w.state in ("picked", "packed", "ready"))
    doing, now = m.truth.works[work_id], m.now()
    expected = m.truth.step(work_id, "ship", who=None, now=now)
    actor = m.actor(doing.location, "ann")
    both = [m.same(advanced(m, work_id, "ship", actor, now), expected, "ship at once") for _ in range(2)]
    await asyncio.gather(*both)


async def take_in_hand(m: "Machine") -> None:
    work_id, doing = some_work(m, at=("S1", "S2"))
    actor = m.actor(doing.location)
    expected = "PickList"
    if doing.state not in UNPICKED or doing.picker is not None:
        expected = "Conflict"
    else:
        doing.state, doing.picker = "accepted", actor.person

    async def claimed() -> str:
        made = await claim.claim(
            m.db, location_id=m.net.locations[doing.location], fulfillments=[work_id], limit=1, actor=actor, now=m.now()
        )
        return type(made).__name__

    await m.same(claimed(), expected, f"{actor.who} takes {doing}")


def some_units(m: "Machine", doing: Work) -> dict[str, int]:
    """Units of some of its lines."""
    there = {name: part.quantity for name, part in doing.lines.items() if part.quantity}
    names = m.random.sample(sorted(there), m.random.randint(1, len(there))) if there else []
    return {name: m.random.randint(1, there[name]) for name in names}


async def reject(m: "Machine") -> None:
    work_id, doing = some_work(m)
    truth, now, actor = m.truth, m.now(), m.actor(doing.location)
    stock, others = m.pick(("keep", "deduct", "zero")), m.random.random() < 0.3
    units = some_units(m, doing)
    expected = "Conflict"
    if doing.state in WORKING:
        skus = {truth.orders[doing.order].lines[name].sku for name in units}
        expected = truth.take_back(work_id, units, stock=stock, who=actor.who, now=now)
        if others:
            truth.resting |= {(sku, doing.location) for sku in skus}
            for other_id, other in truth.works.items():
                if other_id != work_id and other.location == doing.location and other.state in UNPICKED:
                    theirs = {
                        name: part.quantity for name, part in other.lines.items()
                        if part.quantity and truth.orders[other.order].lines[name].sku in skus
                    }  # fmt: skip
                    if theirs:
                        truth.take_back(other_id, theirs, stock="keep", who=actor.who, now=now)
    said = fulfill.reject(
        m.db, fulfillment=work_id, stock=stock, actor=actor, now=now, others=others,
        lines=[fulfill.Rejected(line=name, quantity=n, reason="not found") for name, n in units.items()],
    )  # fmt: skip
    await m.same(said, expected, f"reject {units} of {doing}, {stock}")


async def pick_short(m: "Machine") -> None:
    works = m.truth.works.items()
    work_id = m.pick(i for i, w in works if w.state == "accepted" and w.location != "W1")
    doing, now = m.truth.works[work_id], m.now()
    actor, units, stock = m.actor(doing.location), some_units(m, doing), m.pick(("keep", "deduct", "zero"))
    expected = "Conflict"
    if doing.picker in (None, actor.person):
        expected = m.truth.take_back(work_id, units, stock=stock, who=actor.who, now=now)
        if expected != "rejected":
            expected = m.truth.step(work_id, "pick", who=actor.person, now=now)
    said = short.pick_short(
        m.db, fulfillment=work_id, stock=stock, actor=actor, now=now,
        missing=[fulfill.Rejected(line=name, quantity=n, reason="not found") for name, n in units.items()],
    )  # fmt: skip
    await m.same(said, expected, f"pick short {units} of {doing}, {stock}")


async def collect(m: "Machine") -> None:
    """A customer comes, with the code or a wrong one, or does not come."""
    truth, works = m.truth, m.truth.works.items()
    work_id = m.pick(i for i, w in works if w.state in ("ready", "handed_over") and truth.orders[w.order].pickup)
    doing, now = truth.works[work_id], m.now()
    actor = m.actor(doing.location)
    if m.random.random() < 0.4:
        expected = "Conflict"
        if doing.state == "ready":
            expected, doing.state, doing.picker = "not_collected", "recalled", None
            for name, part in doing.lines.items():
                line = truth.orders[doing.order].lines[name]
                line.allocated, line.cancelled = line.allocated - part.quantity, line.cancelled + part.quantity
                line.version += part.quantity > 0
                part.quantity = part.picked = 0
            truth.refunds.add(str(work_id))
        for _ in range(2):
            said = collections.not_collected(m.db, fulfillment=work_id, why="nobody came", actor=actor, now=now)
            await m.same(said, expected, f"not collected {doing}")
        return
    async with m.db.connection() as tx:
        code = await tx.fetchval("select code from collection where fulfillment_id = $1", work_id)
    is_right = m.random.random() < 0.7
    expected = "handed_over"
    if doing.state == "ready":
        expected = truth.step(work_id, "ship", who=None, now=now) if is_right else "BadInput"
    said = handover.hand_over(
        m.db, fulfillment=work_id, kind="code", proof=code if is_right else "0", actor=actor, now=now
    )
    await m.same(said, expected, f"hand over {doing}")


async def answer(m: "Machine") -> None:
    """The system of W1 answers; of work that was taken back meanwhile, too."""
    work_id, doing = some_work(m, at=("W1",), alive=0.7)
    event = m.pick(("taken_over", "picked", "picked", "packed", "shipped", "shipped", "rejected", "recalled"))
    units = some_units(m, doing) if event in ("picked", "rejected") and m.random.random() < 0.5 else {}
    if doing.state not in WORKING:
        units = {}
    said = Said(
        id=uuid4().hex, fulfillment=str(work_id), event=event, stock=m.pick(("keep", "zero")) if event == "rejected" else "keep",
        lines=[SaidLine(name, quantity) for name, quantity in units.items()],
    )  # fmt: skip
    m.told.append(said)
    await tell(m, said, "applied")


async def answer_again(m: "Machine") -> None:
    """An answer comes once more: as it was, with other content, or as a late one under a new id."""
    said = m.pick(m.told)
    how = m.random.choice(("duplicate", "changed"))
    again = Said(id=said.id, fulfillment=said.fulfillment, event=said.event, stock=said.stock, lines=said.lines)
    if how == "changed":
        again = Said(id=said.id, fulfillment=said.fulfillment, event=said.event, reason="other")
    await tell(m, again, how)


async def tell(m: "Machine", said: Said, expected: str) -> None:
    now, work_id = m.now(), UUID(said.fulfillment)
    if expected == "applied":
        _apply(m, m.truth.works[work_id], work_id, said, now)
    runner = Runner(m.net.locations["W1"], "W1", "file", {}, 15, True)
    await m.same(answers.take_in(m.db, runner=runner, said=[said], now=now), [expected], f"W1 says {said}")


def _apply(m: "Machine", doing: Work, work_id: UUID, said: Said, now: Any) -> None:
    truth = m.truth
    if doing.state in ("recalled", "rejected"):
        if said.event == "shipped" and not doing.has_left:
            doing.has_left = True
            for name, part in doing.lines.items():
                truth.move((truth.orders[doing.order].lines[name].sku, doing.location), -part.given, now)
        return
    if doing.state not in WORKING or said.event == "recalled":
        return
    there = {name: part.quantity for name, part in doing.lines.items() if part.quantity}
    named = {n.line: n.quantity for n in said.lines}
    if said.event == "rejected":
        truth.take_back(work_id, named or there, stock=said.stock, who=SYSTEM, now=now)
        return
    rest = {name: n - named.get(name, 0) for name, n in there.items() if n > named.get(name, 0)}
    if named and rest:
        truth.take_back(work_id, rest, stock="keep", who=SYSTEM, now=now)
    steps = {"taken_over": 1, "picked": 2, "packed": 3, "shipped": 4}[said.event]
    for step in NAMES[:steps]:
        truth.step(work_id, step, who=None, now=now)


async def relieve(m: "Machine") -> None:
    """What stock cannot fill goes back: unpicked, the latest first."""
    truth, now = m.truth, m.now()
    keys = [
        (sku, location) for sku in sorted(m.net.skus) for location in ("W1", "S1", "S2")
        if any(p.quantity for p in truth.parts((sku, location), UNPICKED))
        and truth.allocated((sku, location)) > max(0, truth.on_hand[sku, location])
    ]  # fmt: skip
    made = await made_order(m)
    relieved = 0
    for key in keys:
        for work_id in sorted(truth.works, key=lambda i: made[i], reverse=True):
            doing = truth.works[work_id]
            if doing.location != key[1] or doing.state not in UNPICKED:
                continue
            missing = truth.allocated(key) - max(0, truth.on_hand[key])
            units = {}
            for name, part in doing.lines.items():
                if truth.orders[doing.order].lines[name].sku == key[0] and part.quantity and missing > 0:
                    units[name] = min(part.quantity, missing)
                    missing -= units[name]
            if units:
                truth.take_back(work_id, units, stock="keep", who="test", now=now)
                relieved += 1
    await m.same(fulfill.relieve(m.db, who="test", now=now), relieved, "relieve")


async def made_order(m: "Machine") -> dict[UUID, Any]:
    async with m.db.connection() as tx:
        return {r[0]: (r[1], r[0]) for r in await tx.fetch("select fulfillment_id, made_at from fulfillment")}
