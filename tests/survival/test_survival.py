"""Nothing that was acknowledged is lost, and no answer changes, whatever dies while the service is under load."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oms import embedded
from oms.db import Database, migrate
from oms.settings import Settings
from tests.survival.harness import BLOWS, SKUS, Clients, Service, back, faults_of
from tests.world import make_key, set_stock, small_network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
LONG_SECONDS = 900.0


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="oms-survival-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def survive(home: Path, *, blows: list[str], pause_seconds: float, clients: int, seed: int) -> None:
    """Shops while each blow falls, then compares."""
    chance = random.Random(seed)
    with embedded.start(Settings(home=str(home), embedded_memory_mb=64)) as running:
        await migrate(running.database_url)
        db = await Database.open(running.database_url)
        await small_network(db)
        for sku, units in SKUS.items():
            await set_stock(db, sku=sku, location="W1", quantity=units)
        key = await make_key(db, "storefront", channel="web")
        await db.close()
        with Service(running, home).started() as service:
            await service.ready()
            shoppers = Clients(service, key=key, chance=chance)
            shopping = asyncio.create_task(shoppers.run(clients))
            for blow in blows:
                await asyncio.sleep(pause_seconds)
                service.restart()
                await service.hit(blow, chance)
            await asyncio.sleep(pause_seconds)
            shoppers.ended.set()
            await shopping
            await service.ready()
            await shoppers.ask_all_again()
            await back(running.database_url)
            db = await Database.open(running.database_url)
            faults, counts = await faults_of(shoppers, db)
            await db.close()
            print(dict(counts))
            assert faults == []
            assert counts["granted"] > 50 < counts["ordered"] * 5


async def test_nothing_acknowledged_is_lost_when_each_part_is_hit_once(home: Path) -> None:
    await survive(home, blows=list(BLOWS), pause_seconds=1.5, clients=12, seed=7)


@pytest.mark.long
async def test_nothing_acknowledged_is_lost_in_a_long_run_of_blows(home: Path) -> None:
    chance = random.Random(int(time.time()))
    blows = [chance.choice(BLOWS) for _ in range(int(LONG_SECONDS / 6))]
    await survive(home, blows=blows, pause_seconds=6.0, clients=16, seed=8)
