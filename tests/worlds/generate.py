"""Random worlds: one key each, with the truth beside what its sources say of it, and when each word reaches us.

A minute is the unit of time. In a world things happen at true moments; messages come late, doubled and out of order;
the quantity's owner has its own books, which lag; its snapshots speak of those books.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SNAPSHOTS = (40.0, 80.0)
SNAPSHOT_DELAY = 12.0
LAG = {"sequence": 9.0, "clock": 0.0, "window": 4.0}
"""How far the owner's books of the movement source lie behind, in minutes."""
SKEW = 3.0
WINDOW_MINUTES = 16
LEVELS = ("sequence", "clock", "window")
STEPS = ("accept", "pick", "ship", "invoice")
KINDS = ("physical", "available")


def moment(minute: float) -> datetime:
    """A minute of the worlds as a time."""
    return BEGIN + timedelta(minutes=minute)


@dataclass
class Event:
    """A movement that another source tells: happened, told and received at these minutes."""

    id: str
    kind: str
    quantity: int
    at: float
    told_at: float
    comes: list[float]
    effect: int = 0
    held: int = 0
    sequence: int = 0


@dataclass
class Ours:
    """Something that begins with us: a fulfillment's shipment, a return, a count. None: it never happens."""

    reference: str
    kind: str
    effect: int
    at: float | None  # when we record it
    quantity: int
    given_at: float | None = None
    deducted_at: float | None = None  # by the owner, on its clock; posted where it is a movement
    undone_at: float | None = None
    rejected_at: float | None = None
    ack_comes: float | None = None
    undo_comes: float | None = None
    counted: int | None = None


@dataclass
class World:
    """One key."""

    sku: str
    start: int
    events: list[Event] = field(default_factory=list)
    ours: list[Ours] = field(default_factory=list)

    def physical(self, minute: float) -> int:
        """What is truly there at a minute."""
        return (
            self.start
            + sum(e.effect for e in self.events if e.at <= minute)
            + sum(o.effect for o in self.ours if o.at is not None and o.at <= minute)
        )

    def held(self, minute: float) -> int:
        """What is truly under the hold code QI at a minute."""
        return sum(e.held for e in self.events if e.at <= minute)

    def books(self, minute: float, *, level: str, kind: str) -> int:
        """What the owner's snapshot says at a minute of its clock."""
        books = self.start + sum(e.effect for e in self.events if e.at <= minute - LAG[level])
        for o in self.ours:
            done = o.deducted_at is not None and o.deducted_at <= minute
            undone = o.undone_at is not None and o.undone_at <= minute
            books += (-o.quantity if o.kind == "fulfillment" else o.effect) if done and not undone else 0
        if kind == "available":
            books -= sum(e.held for e in self.events if e.at <= minute - LAG[level])
        return books


def make_world(number: int, *, level: str, kind: str, step: str, seed: int) -> World:
    """A world of one configuration."""
    r = random.Random(f"{seed}/{level}/{kind}/{step}/{number}")
    world = World(sku=f"{level[0]}{kind[0]}{step[0]}{number}", start=r.randint(25, 40))
    skew = r.uniform(-SKEW, SKEW) if level == "window" else 0.0
    for i in range(r.randint(0, 5)):
        at = r.uniform(1, 98)
        what = r.choice(["sale", "sale", "sale", "return", "receipt", "adjustment"])
        units = r.randint(1, 3)
        signed = {"sale": -units, "adjustment": r.choice([-1, 1]) * units}.get(what, units)
        first = at + r.choice([0.0, r.uniform(0, 30)])
        world.events.append(
            Event(f"{world.sku}-e{i}", what, abs(signed) if what != "adjustment" else signed, at, at + skew,
                  [first, *([first + r.uniform(0, 20)] if r.random() < 0.2 else [])], effect=signed)
        )  # fmt: skip
    if r.random() < 0.3:
        at, units = r.uniform(1, 90), r.randint(1, 2)
        first = at + r.choice([0.0, r.uniform(0, 25)])
        world.events.append(Event(f"{world.sku}-h", "hold", units, at, at + skew, [first], held=units))
        if r.random() < 0.6:
            later = r.uniform(at + 0.5, 97)
            # a release names what it releases, so it is told after its hold was
            world.events.append(
                Event(
                    f"{world.sku}-r",
                    "release",
                    units,
                    later,
                    later + skew,
                    [max(later, first) + r.uniform(0, 9)],
                    held=-units,
                )
            )
    for i in range(r.choice([0, 1, 1, 2])):
        world.ours.append(_fulfillment(world, i, r, step=step))
    if r.random() < 0.25:
        at = r.uniform(2, 95)
        world.ours.append(_posted(Ours(f"{world.sku}-ret", "return", 1, at, 1), r))
    if r.random() < 0.35:
        at = r.uniform(2, 95)
        lost = r.choice([-1, 0, 0, 1])
        count = Ours(f"{world.sku}-cnt", "count", lost, at, abs(lost))
        world.ours.append(_posted(count, r))
        count.counted = world.physical(at)
    return world


def _fulfillment(world: World, number: int, r: random.Random, *, step: str) -> Ours:
    """Given, accepted, picked, shipped, invoiced, or rejected on the way; the owner deducts at its step, a bit later."""
    units = r.randint(1, 2)
    given = r.uniform(1, 80)
    accepted = given + r.uniform(0.2, 6)
    picked = accepted + r.uniform(0.2, 8)
    shipped: float | None = picked + r.uniform(0.2, 10)
    rejected = None
    if r.random() < 0.3:
        rejected = r.choice([accepted, picked]) + r.uniform(0.01, 0.15)
        shipped = None
    if shipped is not None and shipped > 98:
        shipped = None
    assert accepted < picked
    invoiced = None if shipped is None else shipped + r.uniform(0.2, 12)
    reached = {"accept": accepted, "pick": picked, "ship": shipped, "invoice": invoiced}[step]
    if rejected is not None and reached is not None and reached > rejected:
        reached = None
    ours = Ours(
        f"{world.sku}-f{number}", "fulfillment", -units if shipped is not None else 0, shipped, units, given_at=given
    )
    ours.rejected_at = rejected
    if reached is not None and reached <= 98:
        ours.deducted_at = reached + r.uniform(0, 10)
        ours.ack_comes = ours.deducted_at + r.choice([0.0, r.uniform(0, 25)])
        if rejected is not None:
            ours.undone_at = max(ours.deducted_at, rejected) + r.uniform(0.1, 10)
            ours.undo_comes = max(ours.ack_comes, ours.undone_at) + r.uniform(0, 20)
    return ours


def _posted(ours: Ours, r: random.Random) -> Ours:
    assert ours.at is not None
    ours.deducted_at = ours.at + r.uniform(0, 12)
    ours.ack_comes = ours.deducted_at + r.choice([0.0, r.uniform(0, 25)])
    return ours
