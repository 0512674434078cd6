"""The morning, from files to a shop's shelf, in processes of its own; killed at any step and run again, it ends the same."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from oms.cache import Cache
from oms.db import Database
from oms.demo import run as demo
from oms.demo import world
from oms.demo.make import make
from oms.embedded import Running
from oms.flows.reconcile import verify
from oms.house import House
from oms.settings import Settings
from tests.conftest import fresh_database

SCALE = world.Scale(12, 2, 1, 150, 1, 120, 4.0, 60, 25, 15, 20)
MADE_AT = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
STEPS, EVERY = 120, 10
"""The morning is killed at each of its first steps in a long run, at every tenth in the suite."""
DYING = Path(__file__).parent / "dying.py"
SECONDS_MAX = 120
STATE = {
    "stock": "select s.code, l.code, k.on_hand, k.held, k.allocated, k.safety_stock from stock k join sku s using "
    "(sku_id) join location l using (location_id) where (k.on_hand, k.held, k.allocated) <> (0, 0, 0)",
    "availability": "select s.code, a.supply::text, a.reserved::text from availability a join sku s using (sku_id)",
    "lines": "select o.number, n.line, n.part, n.open, n.parked, n.allocated, n.cancelled, n.hold from order_line n "
    "join orders o using (order_id)",
    "work": "select o.number, l.code, f.state, n.line, n.part, w.quantity from fulfillment f join orders o using "
    "(order_id) join location l using (location_id) join fulfillment_line w using (fulfillment_id) join order_line n "
    "using (line_id)",
    "capacity": "select l.code, sum(c.orders), sum(c.items), sum(c.cents) from capacity c join location l using "
    "(location_id) group by l.code",
    "holds": "select s.code, l.code, h.quantity, h.code from hold h join sku s using (sku_id) join location l using "
    "(location_id)",
    "channels": "select c.code, s.code, n.current from channel_stock n join channel c using (channel_id) join sku s "
    "using (sku_id)",
    "messages": "select s.code, m.message_id, m.outcome from message m join source s using (source_id) "
    "where m.outcome <> 'duplicate'",
    "exceptions": "select kind, subject, state from exception",
    "untold": "select c.code, p.state, count(*) from push p join channel c using (channel_id) where p.state <> 'done' "
    "group by c.code, p.state",
    "touched": "select sku_id from touched",
    "runs": "select state from run where state in ('reading', 'planned')",
}
"""What a morning leaves behind, by codes: nothing of it may tell that the morning was killed."""


class Retailer:
    """A small retailer on a database of its own, with a shop that runs, and what its morning is to work on."""

    def __init__(self, db: Database, settings: Settings, folder: Path, shop: demo.Shop) -> None:
        self.db, self.settings, self.folder, self.shop = db, settings, folder, shop
        self.notes = folder / "steps.txt"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs in a process of its own with this retailer's database."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OMS_")} | {
            "OMS_DATABASE_URL": self.settings.database_url,
            "OMS_REDIS_URL": self.settings.redis_url,
            "OMS_HOME": str(self.folder / "home"),
            "OMS_BROKER_SECONDS": "20",
        }
        return subprocess.run(
            [sys.executable, *command], env=environ, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
        )

    def morning(self) -> subprocess.CompletedProcess[str]:
        """`oms morning --json`."""
        return self.run("-m", "oms.cli", "morning", "--json")

    def dying_morning(self, step: int) -> list[str]:
        """A morning that is killed at a step (0: it lives); gives the steps that it came to."""
        done = self.run(DYING, str(step), self.notes, "morning")
        assert done.returncode == (-9 if step else 3), done.stderr
        return self.notes.read_text().splitlines()

    async def state(self) -> dict[str, list[Any]]:
        """What stands in the database and at the shop."""
        async with self.db.connection() as tx:
            found: dict[str, list[Any]] = {
                name: sorted(repr(tuple(row)) for row in await tx.fetch(text)) for name, text in STATE.items()
            }
        return found | {"shop": sorted(self.shop.stock().items())}


@asynccontextmanager
async def open_retailer(url: str, redis_url: str, folder: Path) -> AsyncIterator[Retailer]:
    """The retailer with its files, its network and its shop, before its morning."""
    settings = Settings(database_url=url, redis_url=redis_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(world.SCALES, "small", SCALE)
        make(folder, size="small", seed=3, now=MADE_AT)
    db, cache = await Database.open(url), await Cache.open(redis_url)
    shop = demo.Shop(demo.orders_by_channel(folder)["shop"], demo.shop_secret())
    try:
        await demo.load_network(House(db, cache, settings), folder=folder, shop=shop)
        yield Retailer(db, settings, folder, shop)
    finally:
        shop.stop()
        await cache.close()
        await db.close()


@pytest.fixture
async def retailer(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Retailer]:
    async with open_retailer(database_url, redis_url, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def undisturbed(
    servers: Running, template: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, list[Any]]]:
    """A morning that nobody disturbs: how many steps it takes, and what it leaves behind."""
    async with (
        fresh_database(servers, template) as url,
        open_retailer(url, servers.redis_url, tmp_path_factory.mktemp("undisturbed")) as made,
    ):
        return len(made.dying_morning(0)), await made.state()


async def test_a_morning_ends_with_a_shop_that_believes_what_we_may_sell(retailer: Retailer) -> None:
    done = retailer.morning()
    assert done.returncode == 3, done.stderr  # rows of its feeds are refused: a person is to look
    report = json.loads(done.stdout)
    assert [f["trouble"] for f in report["feeds"]] == [None] * 7
    refused = json.loads((retailer.folder / "expected.json").read_text())["refused"]
    assert sum(f["refused"] for f in report["feeds"]) == len(refused) > 0
    assert report["captured"]["shop"]["new"] > 0 < report["captured"]["market"]["new"]
    assert report["run"]["summary"]["assigned_lines"] > 100
    assert (await verify(retailer.db))[1] == []
    state = await retailer.state()
    assert (state["untold"], state["touched"], state["runs"]) == ([], [], [])
    ours = await demo.told(retailer.db, channel="shop")
    assert dict(state["shop"]) == ours
    assert len(ours) > 100 < sum(ours.values())


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=() if n % EVERY == 1 else pytest.mark.long) for n in range(1, STEPS)]
)
async def test_a_morning_that_was_killed_and_is_run_again_ends_as_if_nothing_had_been(
    retailer: Retailer, undisturbed: tuple[int, dict[str, list[Any]]], step: int
) -> None:
    steps, state = undisturbed
    assert steps >= STEPS
    assert len(retailer.dying_morning(step)) == step
    async with retailer.db.transaction() as tx:  # the time of the dead one's lease goes by
        await tx.execute(
            "update push set leased_until = clock_timestamp() where state = 'due' and leased_until is not null"
        )
    again = retailer.morning()
    assert again.returncode in (0, 3), again.stderr
    assert (await verify(retailer.db))[1] == []
    found = await retailer.state()
    assert {name: set(found[name]) ^ set(state[name]) for name in state if found[name] != state[name]} == {}
