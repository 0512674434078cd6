"""Any life of orders and stores is what a plain model says, step by step; and the machine finds bugs that are planted."""

from collections.abc import Sequence

import pytest

from oms.db import Database
from oms.embedded import Running
from tests.conftest import fresh_database
from tests.machine.bugs import BUGS, FIRST, OFTEN
from tests.machine.machine import Found, Machine
from tests.world import small_network

HABITS = sorted({*OFTEN.values(), ()})
STEPS = 40
BUG_SEEDS, BUG_STEPS = 20, 100
LONG_SEEDS, LONG_STEPS = 200, 400


async def live(servers: Running, template: str, *, seed: int, steps: int, often: Sequence[str]) -> int:
    """A life in a database of its own; gives its steps, raises Found."""
    async with fresh_database(servers, template) as url:
        db = await Database.open(url)
        try:
            machine = Machine(db, await small_network(db), seed=seed, often=often)
            await machine.run(steps=steps)
        finally:
            await db.close()
    return len(machine.steps)


@pytest.mark.parametrize("often", HABITS, ids=lambda often: "-".join(often) or "anything")
async def test_orders_and_stores_are_what_a_plain_model_says(
    servers: Running, template: str, often: tuple[str, ...]
) -> None:
    assert await live(servers, template, seed=len(often), steps=STEPS, often=often) == STEPS


@pytest.mark.parametrize("bug", BUGS)
async def test_the_machine_finds_each_planted_bug(
    servers: Running, template: str, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    BUGS[bug](monkeypatch)
    for seed in (FIRST.get(bug, 0), *range(BUG_SEEDS)):
        try:
            await live(servers, template, seed=seed, steps=BUG_STEPS, often=OFTEN[bug])
        except Found:
            return
    raise AssertionError(f"{bug}: not found in {BUG_SEEDS} lives of {BUG_STEPS} steps")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(LONG_SEEDS))
async def test_long_lives_are_what_a_plain_model_says(servers: Running, template: str, seed: int) -> None:
    often = HABITS[seed % len(HABITS)]
    assert await live(servers, template, seed=seed, steps=LONG_STEPS, often=often) == LONG_STEPS
