"""A random life of orders and stores, by a seed: each step is done by the flows and by the plain truth, then all is compared.

await Machine(db, net, seed=1).run(steps=60)      # raises Found where the two differ
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from oms.access import Actor, house
from oms.db import Database
from oms.errors import Refusal
from tests.machine import demand, looked, losses, stores, supply
from tests.machine.truth import LIMIT_CENTS, LOCATIONS, RECOUNT_UNITS, SKUS, Truth
from tests.world import Net, set_stock

ZONES = {"W1": "America/Chicago", "S1": "America/New_York", "S2": "America/New_York"}
STEPS: dict[str, tuple[int, Callable[["Machine"], Awaitable[None]]]] = {
    # how often, beside the others
    "reserve": (5, demand.reserve), "reserve at once": (1, demand.reserve_at_once), "give up": (2, demand.give_up),
    "run out": (2, demand.run_out), "expire": (1, demand.expire), "capture": (8, demand.capture),
    "capture again": (1, demand.capture_again), "plan": (7, demand.plan), "apply": (7, demand.apply),
    "broker": (1, demand.broker_all), "cancel": (4, demand.cancel), "hold": (2, demand.hold), "release": (2, demand.release),
    "work": (16, stores.work), "ship twice at once": (1, stores.ship_twice), "take in hand": (2, stores.take_in_hand),
    "reject": (4, stores.reject), "pick short": (3, stores.pick_short), "collect": (3, stores.collect),
    "answer": (5, stores.answer), "answer again": (2, stores.answer_again), "relieve": (2, stores.relieve),
    "move": (4, supply.movement), "move again": (2, supply.movement_again), "receive": (3, supply.receive),
    "lift": (3, supply.lift), "transfer": (2, supply.transfer), "transfer on": (4, supply.transfer_on),
    "look": (3, losses.look), "count": (4, losses.count), "write off": (3, losses.write_off),
    "decide": (4, losses.decide), "return": (3, losses.send_back), "return on": (5, losses.return_on),
    "settle": (1, losses.settle_asked),
}  # fmt: skip


class Nothing(Exception):
    """There is nothing that a step could be done with."""


class Found(AssertionError):
    """The flows and the truth differ."""


class Machine:
    """What was made so far, on both sides."""

    def __init__(self, db: Database, net: Net, *, seed: int, often: Sequence[str] = ()) -> None:
        self.db, self.net, self.seed, self.often = db, net, seed, often
        self.random = random.Random(seed)
        self.truth = Truth()
        self.steps: list[str] = []
        self.carts: list[Any] = []
        self.news: list[Any] = []
        self.plans: list[Any] = []
        self.said: list[Any] = []
        self.told: list[Any] = []
        self.transfers: list[Any] = []
        self.counts: list[Any] = []
        self.returns: list[Any] = []

    async def run(self, *, steps: int) -> None:
        """Makes a start and takes so many steps; raises Found where something is not as it must be."""
        await self.start()
        names = list(STEPS)
        # each life has its own habits: some steps often, some hardly ever
        weights = [
            STEPS[name][0] * (10 if name in self.often else self.random.choice((0.2, 1, 1, 4))) for name in names
        ]
        try:
            while len(self.steps) < steps:
                (name,) = self.random.choices(names, weights)
                self.steps.append(name)
                try:
                    await STEPS[name][1](self)
                except Nothing:
                    self.steps.pop()
                    continue
                await looked.compare(self)
        except Exception as error:
            raise Found(f"seed {self.seed}, step {len(self.steps)}, {self.steps[-1]}: {error}") from error

    async def start(self) -> None:
        """Some stock, rules that are reached soon, and a system that runs W1."""
        async with self.db.transaction() as tx:
            await tx.execute("update source set order_level = 'clock'")
            await tx.execute(
                "update work_rule set write_off_cents_max = $1, recount_units_min = $2", LIMIT_CENTS, RECOUNT_UNITS
            )
            await tx.execute(
                "insert into fulfiller (location_id, kind, settings) values ($1, 'file', '{}')",
                self.net.locations["W1"],
            )
        for sku in SKUS:
            for location in LOCATIONS:
                units = self.random.randint(0, 5)
                await set_stock(self.db, sku=sku, location=location, quantity=units)
                self.truth.on_hand[sku, location] = units

    def pick(self, some: Any) -> Any:
        """One of these; raises Nothing where there are none, before anything is changed."""
        choices = list(some)
        if not choices:
            raise Nothing
        return self.random.choice(choices)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def day(self, location: str, now: datetime) -> Any:
        return now.astimezone(ZoneInfo(ZONES[location])).date()

    def actor(self, location: str, name: str | None = None) -> Actor:
        """A person of a store; the warehouse's work is done in the name of the house."""
        if location == "W1":
            return house
        who = name or self.random.choice(("ann", "bob"))
        return Actor(key_id=None, role="associate", person=who, who=who, location_id=self.net.locations[location])

    def person(self, name: str) -> Actor:
        return Actor(key_id=None, role="admin", person=name, who=name)

    async def same(self, doing: Awaitable[Any], expected: Any, what: Any) -> Any:
        """Does it; gives what came. It must be what is expected: a value, or the name of a refusal."""
        got = await outcome(doing)
        said = type(got).__name__ if isinstance(got, Refusal) else got
        if said != expected:
            raise Found(f"{what}: {said!r} instead of {expected!r} ({got})")
        return got


async def outcome(doing: Awaitable[Any]) -> Any:
    """What it gives; a refusal as itself."""
    try:
        return await doing
    except Refusal as refusal:
        return refusal
