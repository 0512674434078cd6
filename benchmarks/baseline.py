"""A snapshot of a million rows, file to published availability, beside a bare COPY and upsert of the same file.

Both sides in turn on one server, vacuumed and checkpointed before each. The load runs in a process of its own
(benchmarks/loading.py), as `oms morning` takes it; the bare side fills a plain table with two codes as its key, which
holds all the rows already. Reservations run in a third process (benchmarks/shopping.py).
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import asyncpg
import msgspec

from benchmarks.frame import Child, Row, percentile, row, servers
from benchmarks.loading import Loaded, bare
from benchmarks.retailer import LOCATIONS, Morning, Retailer, open_retailer
from oms.embedded import Running

USUAL_SHARE = 0.10
RATIO_MAX = 2.5
LOCK_MS_MAX = 50.0
P99_RATIO_MAX = 3.0
MEMORY_MB_MAX = 300.0
GROWTH_MAX = 1.15


class Plan(msgspec.Struct, frozen=True):
    """How much is measured: skus, rounds of each kind, how many times the rows of the larger snapshot, and carts."""

    skus: int
    usual_rounds: int
    all_rounds: int
    shopped_rounds: int
    large_rounds: int
    large_times: int
    per_second: float
    alone_seconds: float


FULL = Plan(10_000, 3, 3, 3, 2, 4, 40.0, 15.0)
QUICK = Plan(1_000, 2, 1, 1, 1, 2, 40.0, 2.0)


class Side(msgspec.Struct, frozen=True):
    """One round: the load and the bare upsert of the same file."""

    load: Loaded
    bare_seconds: float


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    plan = QUICK if quick else FULL
    with servers() as running:
        feeds = Path(running.settings.home) / "feeds"
        one = asyncio.run(open_retailer(running.database_url, name="one", folder=feeds / "one", skus=plan.skus))
        first = beside(running, one, share=0.0)
        usual = [beside(running, one, share=USUAL_SHARE) for _ in range(plan.usual_rounds)]
        full = [beside(running, one, share=1.0) for _ in range(plan.all_rounds)]
        shopped = [shop_beside(running, one, plan=plan) for _ in range(plan.shopped_rounds)]
        large = asyncio.run(
            open_retailer(running.database_url, name="large", folder=feeds / "large", skus=plan.skus * plan.large_times)
        )
        taken(running, large, large.snapshot(changed_share=0.0))
        sizes = [
            (
                taken(running, one, one.snapshot(changed_share=USUAL_SHARE)),
                taken(running, large, large.snapshot(changed_share=USUAL_SHARE)),
            )
            for _ in range(plan.large_rounds)
        ]
    millions = f"{one.rows:,} rows ({plan.skus:,} skus × {LOCATIONS} locations)"
    rows = [
        ratio_row(f"{millions}, {USUAL_SHARE:.0%} of the keys changed", usual),
        ratio_row(f"{one.rows:,} rows, all keys changed", full),
        ratio_row(f"{one.rows:,} rows, the first load, into a bare table that is empty, too", [first], reach=None),
    ]
    rows += shop_rows(shopped)
    larger = [large_one for _, large_one in sizes]
    everyone = [first.load, *(side.load for side in (*usual, *full)), *larger]
    memory = max(load.memory_mb for load in everyone)
    small_mb = max(side.load.memory_mb for side in (first, *usual))
    large_mb = max(load.memory_mb for load in larger)
    rows.append(
        row("peak memory of the loading process, worst of all loads", memory, "MB",
            against=f"{one.rows:,} rows: {small_mb:.0f} MB; {large.rows:,} rows: {large_mb:.0f} MB",
            ratio=large_mb / small_mb, reach=f"≤ {MEMORY_MB_MAX:g} MB", ok=memory <= MEMORY_MB_MAX)
    )  # fmt: skip
    seconds, base = median(x.seconds for x in larger), median(x.seconds for x, _ in sizes)
    growth = median(x.seconds / y.seconds for y, x in sizes) / plan.large_times
    rows.append(
        row(f"{large.rows:,} rows, {USUAL_SHARE:.0%} changed", seconds, "s",
            against=f"{plan.large_times} × {base:.2f} s of {one.rows:,} rows, {len(sizes)} rounds", ratio=growth,
            reach=f"≤ {GROWTH_MAX:g} × linear", ok=growth <= GROWTH_MAX)
    )  # fmt: skip
    return rows


def beside(running: Running, retailer: Retailer, *, share: float) -> Side:
    """The next snapshot by both, the bare one first."""
    morning = retailer.snapshot(changed_share=share)
    asyncio.run(settle(retailer.url))
    bare_seconds = asyncio.run(bare(retailer.url, str(morning.file)))
    return Side(taken(running, retailer, morning), bare_seconds)


def taken(running: Running, retailer: Retailer, morning: Morning) -> Loaded:
    """Loads a snapshot in a process of its own; its file is gone afterwards."""
    asyncio.run(settle(retailer.url))
    with Child("benchmarks.loading", retailer.url, running.redis_url) as child:
        loaded = msgspec.convert(child.said(), Loaded)
    assert loaded.rows == morning.rows, f"{loaded.rows} of {morning.rows} rows were taken"
    for file in (retailer.folder / "done").iterdir():
        file.unlink()
    return loaded


async def settle(url: str) -> None:
    """What happens between mornings: dead rows are cleared, pages are written."""
    connection = await asyncpg.connect(url, command_timeout=600)
    await connection.execute("vacuum")
    await connection.execute("checkpoint")
    await connection.close()


def ratio_row(what: str, sides: Sequence[Side], *, reach: float | None = RATIO_MAX) -> Row:
    """File to published availability against the bare upsert, medians of the rounds."""
    ours, plain = median(s.load.seconds for s in sides), median(s.bare_seconds for s in sides)
    ratio = median(s.load.seconds / s.bare_seconds for s in sides)
    return row(
        f"baseline of {what}", ours, "s", against=f"{plain:.2f} s bare COPY + upsert, {len(sides)} rounds", ratio=ratio,
        reach="" if reach is None else f"≤ {reach:g} ×", ok=None if reach is None else ratio <= reach,
    )  # fmt: skip


class Shopped(msgspec.Struct, frozen=True):
    """A load while carts are reserved: seconds of carts alone and during it."""

    load: Loaded
    alone: list[float]
    during: list[float]


def shop_beside(running: Running, retailer: Retailer, *, plan: Plan) -> Shopped:
    """Carts alone, during a usual load, and alone again."""
    morning = retailer.snapshot(changed_share=USUAL_SHARE)
    asyncio.run(settle(retailer.url))
    with Child(
        "benchmarks.shopping", retailer.url, running.redis_url, str(retailer.skus), str(plan.per_second)
    ) as shopper:
        shopper.said()
        asyncio.run(asyncio.sleep(plan.alone_seconds))
        load = taken_beside(running, retailer, morning)
        asyncio.run(asyncio.sleep(plan.alone_seconds))
        carts: list[list[float]] = shopper.finish()
    began = carts[0][0] + 1.0  # connections open and plans are made in the first second
    during = [seconds for at, seconds in carts if load.began_at <= at <= load.ended_at]
    # a process that starts or ends is no part of either
    alone = [s for at, s in carts if began <= at < load.began_at - 1.5 or at > load.ended_at + 1.5]
    return Shopped(load, alone, during)


def taken_beside(running: Running, retailer: Retailer, morning: Morning) -> Loaded:
    """As `taken`, with no vacuum in between."""
    with Child("benchmarks.loading", retailer.url, running.redis_url) as child:
        loaded = msgspec.convert(child.said(), Loaded)
    assert loaded.rows == morning.rows, f"{loaded.rows} of {morning.rows} rows were taken"
    return loaded


def shop_rows(shopped: Sequence[Shopped]) -> list[Row]:
    """Locks and reservations while a usual snapshot is loaded."""
    locks = [1000 * seconds for s in shopped for seconds in s.load.locks_seconds]
    longest = max(locks)
    alone = 1000 * percentile([x for s in shopped for x in s.alone], 0.99)
    during_all = [x for s in shopped for x in s.during]
    during = 1000 * percentile(during_all, 0.99)
    return [
        row("longest lock of a chunk, carts beside it", longest, "ms",
            against=f"median {median(locks):.1f} ms, p99 {percentile(locks, 0.99):.1f} ms of {len(locks)} chunks",
            reach=f"≤ {LOCK_MS_MAX:g} ms", ok=longest <= LOCK_MS_MAX),
        row(f"p99 of {len(during_all):,} reservations during the load", during, "ms", against=f"{alone:.2f} ms alone",
            ratio=during / alone, reach=f"≤ {P99_RATIO_MAX:g} ×", ok=during <= P99_RATIO_MAX * alone),
    ]  # fmt: skip
