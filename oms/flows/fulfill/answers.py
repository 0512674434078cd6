"""A location's system answers: taken over, picked, shipped, rejected, recalled; each once, in whatever order it comes."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from connectors.fulfillers import Said, SaidUnreadable, read_said
from connectors.fulfillers.file import FileFulfiller, read_file
from oms import ledger, owed, record
from oms.access import Actor
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import NEXT, Rejected
from oms.errors import BadInput, NotFound, Refusal
from oms.flows.fulfill.handoff import Runner, fulfillers, hash_of
from oms.flows.fulfill.reject import rejected_units, take_back
from oms.flows.fulfill.scan import make_parcel
from oms.flows.fulfill.steps import Step, advance_in, take, take_lines

sql = Sql("handoff")

STEPS: dict[str, tuple[Step, ...]] = {
    "taken_over": ("accept",), "picked": ("accept", "pick"), "packed": ("accept", "pick", "pack"),
    "shipped": ("accept", "pick", "pack", "ship"), "handed_over": ("accept", "pick", "pack", "ship"),
    "recalled": (), "rejected": (),
}  # fmt: skip
"""What has happened when an answer says so: an answer that was lost or is late holds up none."""


class Work(msgspec.Struct, frozen=True):
    """The fulfillment that an answer names."""

    fulfillment_id: UUID
    order_id: UUID
    state: str
    number: str
    is_pickup: bool


class Given(msgspec.Struct, frozen=True):
    """What a fulfillment was given of a line, and has now."""

    line_id: int
    line: str
    sku_id: int
    sku: str
    given: int
    quantity: int
    reference: str
    has_left: int


take_said = sql.maybe("take_said", str)
said_before = sql.one("said_before", bytes)
acknowledge_handoff = sql.run("acknowledge_handoff")
drop_recall = sql.run("drop_recall")
work_of = sql.maybe("work_of", Work)
given_lines = sql.rows("given_lines", Given)


async def take_in(
    db: Database, *, runner: Runner, said: Sequence[Said], now: datetime, cache: Cache | None = None
) -> list[str]:
    """Takes answers of the system that runs a location, each in a transaction of its own; gives what became of each:
    applied, duplicate, or changed (the id came before with other content). Raises what the first one that cannot be
    taken is refused with; those before it stand."""
    outcomes = []
    for one in said:
        async with db.transaction() as tx:
            outcomes.append(await _take(tx, runner, one, now=now))
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return outcomes


async def _take(tx: Connection, runner: Runner, said: Said, *, now: datetime) -> str:
    digest = hash_of(said)
    if await take_said(tx, location_id=runner.location_id, message_id=said.id, hash=digest) is None:
        before = await said_before(tx, location_id=runner.location_id, message_id=said.id)
        if before == digest:
            return "duplicate"
        trouble = record.Trouble(
            kind="message_changed", subject=f"{runner.location}:{said.id}",
            detail=f"Answer {said.id} of {runner.location} came again with other content. The first stands; send a "
            "correction under a new id.",
            payload={"location": runner.location, "answer": msgspec.to_builtins(said)},
        )  # fmt: skip
        await record.raise_exceptions(tx, [trouble])
        return "changed"
    try:
        work = await work_of(tx, id=UUID(said.fulfillment), location_id=runner.location_id)
    except ValueError:
        work = None
    if work is None:
        raise NotFound(f"{runner.location} was never given a fulfillment {said.fulfillment}.")
    actor = Actor(
        key_id=None, role="integrator", person=None, who=f"system of {runner.location}", location_id=runner.location_id
    )
    await _apply(tx, work, said, actor=actor, now=now, location=runner.location)
    await record.settle_exceptions(
        tx, who=actor.who, resolution=f"answered: {said.event}",
        of=[("release_unacknowledged", str(work.fulfillment_id))],
    )  # fmt: skip
    return "applied"


async def _apply(tx: Connection, work: Work, said: Said, *, actor: Actor, now: datetime, location: str) -> None:
    (found,) = await take(tx, [work.fulfillment_id], actor)
    await acknowledge_handoff(tx, id=work.fulfillment_id, act="release", at=now)
    if said.event == "recalled":
        await acknowledge_handoff(tx, id=work.fulfillment_id, act="recall", at=now)
        why = "in time" if said.in_time else "too late"
        await record.keep(tx, who=actor.who, steps=[record.Step("order", str(work.order_id), "recall answered", why)])
        return
    if found.state not in NEXT:
        if said.event in ("shipped", "handed_over") and found.state in ("recalled", "rejected"):
            await _left_all_the_same(tx, work, said, actor=actor, now=now, location=location)
        return
    if said.event == "rejected":
        reason = said.reason or "rejected by its system"
        await _give_back(tx, work.fulfillment_id, said, reason=reason, actor=actor, now=now)
        return
    if said.lines and said.event in ("picked", "packed", "shipped", "handed_over"):
        left = await _give_back_rest(tx, work.fulfillment_id, said, actor=actor, now=now)
        if not left:
            return
    for step in STEPS[said.event]:
        if step == "ship" and work.is_pickup and said.event == "shipped":
            break
        await advance_in(tx, [work.fulfillment_id], step=step, actor=actor, now=said.at or now)
    for number, box in enumerate(said.parcels, start=1):
        await make_parcel(
            tx, id=work.fulfillment_id, number=number, carrier=box.carrier, tracking=box.tracking,
            weight_grams=box.weight_grams, who=actor.who,
        )  # fmt: skip


async def _give_back(
    tx: Connection, fulfillment: UUID, said: Said, *, reason: str, actor: Actor, now: datetime
) -> None:
    """Lines that the system rejects, or all of it, are open again; it needs no recall of what it said itself."""
    (found,) = await take(tx, [fulfillment], actor)
    held = await take_lines(tx, ids=[fulfillment])
    lines = [Rejected(n.line, n.quantity, reason) for n in said.lines]
    if not lines:
        lines = list({n.line: Rejected(n.line, -(-n.quantity // n.per), reason) for n in held}.values())
    units = rejected_units(held, lines)
    await take_back(
        tx, found=found, held=held, units=units, stock=said.stock, who=actor.who, now=now,
        reasons={n.line: n.reason for n in lines},
    )  # fmt: skip
    await drop_recall(tx, id=fulfillment)


async def _give_back_rest(tx: Connection, fulfillment: UUID, said: Said, *, actor: Actor, now: datetime) -> bool:
    """What an answer that names its lines does not name, its system has not; gives whether anything is left."""
    held = await take_lines(tx, ids=[fulfillment])
    has = {n.line: -(-n.quantity // n.per) for n in held}
    named: dict[str, int] = {}
    for n in said.lines:
        named[n.line] = named.get(n.line, 0) + n.quantity
    over = [{"line": n, "reason": f"{has.get(n, 0)} units are here"} for n, q in named.items() if q > has.get(n, 0)]
    if over:
        raise BadInput(f"The answer {said.id} names more than fulfillment {fulfillment} has.", items=over)
    rest = [
        {"line": line, "quantity": units - named.get(line, 0)}
        for line, units in has.items()
        if units > named.get(line, 0)
    ]
    if rest:
        short = msgspec.convert(
            {"id": said.id, "fulfillment": said.fulfillment, "event": "rejected", "lines": rest}, Said
        )
        await _give_back(tx, fulfillment, short, reason=said.reason or f"not {said.event}", actor=actor, now=now)
    return bool(sum(named.values()))


async def _left_all_the_same(
    tx: Connection, work: Work, said: Said, *, actor: Actor, now: datetime, location: str
) -> None:
    """It shipped what was taken back: the units have left, once, and a person decides what becomes of them."""
    given = await given_lines(tx, id=work.fulfillment_id)
    named = {n.line: n.quantity for n in said.lines}
    left = [(n, min(n.given - n.has_left, named.get(n.line, 0) if named else n.given)) for n in given]
    left = [(n, units) for n, units in left if units > 0]
    if not left:
        return
    locked = await ledger.lock(tx, {n.sku_id for n, _ in left})
    await ledger.stock(tx, [(n.sku_id, actor.location_id or 0) for n, _ in left])
    moves = [
        ledger.Move(
            sku_id=n.sku_id, location_id=actor.location_id or 0, source_id=ledger.HOUSE, kind="shipment",
            message_id=f"{n.reference}/late", quantity=-units, effect=-units, occurred_at=said.at or now, is_ours=True,
            reason="shipped though it was taken back", reference=str(work.order_id),
        )
        for n, units in left
    ]  # fmt: skip
    await ledger.move(tx, moves, feed_id=None, who=actor.who)
    await ledger.write(tx, locked, resum={m.sku_id for m in moves})
    gone = [owed.Left(work.fulfillment_id, n.line_id, units, f"{n.reference}/late") for n, units in left]
    await owed.shipped(tx, gone, who=actor.who, at=said.at or now)
    trouble = record.Trouble(
        kind="shipped_though_recalled", subject=str(work.fulfillment_id),
        detail=f"{location} shipped order {work.number} though it was taken back. Stop the parcel, or expect it as a "
        "return; if it went on to another location, stop that one.",
        payload={"location": location, "order": work.number, "lines": {n.line: units for n, units in left}},
    )  # fmt: skip
    await record.raise_exceptions(tx, [trouble])
    steps = [record.Step("order", str(work.order_id), "shipped though recalled", location, trouble.payload)]
    await record.keep(tx, who=actor.who, steps=steps)


async def read_folders(db: Database, *, now: datetime, cache: Cache | None = None) -> int:
    """Takes what systems answer by files; gives how many files. One that cannot be taken is set aside with its reason
    and an exception."""
    async with db.connection() as tx:
        runners = [r for r in await fulfillers(tx) if r.kind == "file" and r.is_on]
    taken = 0
    for runner in runners:
        folder = FileFulfiller.of(runner.settings)
        for path in await asyncio.to_thread(folder.answers):
            refused = None
            try:
                said = read_said(await asyncio.to_thread(read_file, path))
                await take_in(db, runner=runner, said=said, now=now, cache=cache)
            except FileNotFoundError:
                continue
            except (SaidUnreadable, Refusal, OSError) as error:
                refused = str(error)
                await _refused(db, runner, path.name, refused)
            await asyncio.to_thread(folder.set_aside, path, refused=refused)
            taken += 1
    return taken


async def _refused(db: Database, runner: Runner, name: str, why: str) -> None:
    async with db.transaction() as tx:
        trouble = record.Trouble(
            kind="answer_refused", subject=f"{runner.location}:{name}",
            detail=f"The answer file {name} of {runner.location} cannot be taken: {why} Correct it and put it back.",
            payload={"location": runner.location, "file": name},
        )  # fmt: skip
        await record.raise_exceptions(tx, [trouble])
