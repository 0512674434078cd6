"""The morning takes what lies complete in a source's folder, wholly or not at all, and says what waits there."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.feeds.stream import Source
from connectors.feeds.tabular import Reader
from oms import morning
from oms.cache import Cache
from oms.db import Database
from oms.demo.summary import report_lines
from oms.flows.ingest import stage
from oms.settings import Settings
from tests.feeding import NINE, NOW, ask, at, baseline, change, check, on_hand
from tests.world import Net, small_network

HEADER = "sku,location,quantity\n"


@pytest.fixture
async def net(db: Database, tmp_path: Path) -> AsyncIterator[Net]:
    net = await small_network(db)
    await change(db, "update source set folder = $1 where code = 'erp'", str(tmp_path))
    yield net
    await check(db)


def put(folder: Path, name: str, content: str, *, age_seconds: float = 60.0, **sidecar: Any) -> Path:
    path = folder / name
    path.write_text(content)
    os.utime(path, (time.time() - age_seconds,) * 2)
    if sidecar:
        (folder / f"{name.split('.', maxsplit=1)[0]}.json").write_text(json.dumps(sidecar))
    return path


async def take(db: Database, *, now: datetime = NOW) -> list[morning.Taken]:
    return await morning.take_feeds(db, who="test", clock=lambda: now, source=None)


async def test_a_snapshot_with_fewer_rows_than_announced_is_refused_and_stays(
    db: Database, net: Net, tmp_path: Path
) -> None:
    path = put(tmp_path, "baseline.csv", HEADER + "A,S1,5\nB,S1,5\n", as_of=NINE.isoformat(), rows=3)
    [taken] = await take(db)
    assert "holds 2 rows where 3 were announced" in (taken.trouble or "")
    assert (path.exists(), await on_hand(db, "A", "S1")) == (True, 0)
    put(tmp_path, "baseline.csv", HEADER + "A,S1,5\nB,S1,5\n", as_of=NINE.isoformat(), rows=2)
    [taken] = await take(db)
    assert (taken.trouble, path.exists(), await on_hand(db, "A", "S1")) == (None, False, 5)


async def test_movements_with_fewer_rows_than_announced_act_once_and_the_file_stays_until_it_is_whole(
    db: Database, net: Net, tmp_path: Path
) -> None:
    await baseline(db, "erp", "A,S2,9")
    lines = ["id,sku,location,kind,quantity,occurred_at"]
    lines += [f"m{n},A,S2,adjustment,-1,{at(60 + n).isoformat()}" for n in (1, 2)]
    path = put(tmp_path, "movements.csv", "\n".join(lines[:2]), rows=2)
    [taken] = await take(db)
    assert "holds 1 rows where 2 were announced" in (taken.trouble or "")
    assert (path.exists(), await on_hand(db, "A", "S2")) == (True, 8)
    assert await ask(db, "select state from feed where kind = 'movements'") == "refused"
    put(tmp_path, "movements.csv", "\n".join(lines), rows=2)
    [taken] = await take(db)
    assert (taken.outcomes, path.exists()) == ({"duplicate": 1, "applied": 1}, False)
    assert await on_hand(db, "A", "S2") == 7


async def test_what_a_snapshot_from_the_future_has_posted_is_not_taken_either(
    db: Database, net: Net, tmp_path: Path
) -> None:
    put(tmp_path, "baseline.csv", HEADER + "A,S1,5\n", as_of=at(60 * 24 * 365).isoformat(), posted=["x"])
    [taken] = await take(db)
    assert "lies in the future" in (taken.trouble or "")
    assert await ask(db, "select count(*) from feed") == 0


@pytest.mark.parametrize(("age_seconds", "needs"), [(60, False), (7200, True)])
async def test_a_morning_tells_which_files_wait_and_asks_for_a_person_only_after_an_hour(
    db: Database, net: Net, cache: Cache, tmp_path: Path, age_seconds: float, needs: bool
) -> None:
    put(tmp_path, "baseline.csv", HEADER + "A,S1,5\n", age_seconds=age_seconds)
    settings = Settings(database_url="", redis_url="", broker_seconds=1.0)
    report = await morning.morning(db, cache, settings, who="test", clock=lambda: NOW)
    [sentence] = report.waiting
    assert sentence.startswith("erp: baseline.csv waits, baseline.json with as_of is missing")
    assert (report.needs_a_person, f"  {sentence}" in report_lines(report)) == (needs, True)


async def test_two_snapshots_of_one_source_may_arrive_at_once(db: Database, net: Net) -> None:
    first_is_read, second_is_done = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly() -> Any:
        yield HEADER.encode() + b"A,S1,1\n"
        loop.call_soon_threadsafe(first_is_read.set)
        asyncio.run_coroutine_threadsafe(second_is_done.wait(), loop).result()
        yield b"B,S1,1\n"

    async def slow() -> stage.Staged:
        return await stage.receive(
            db, source="erp", reader=Reader(Source(slowly(), name="slow.csv")), name="slow.csv", as_of=NINE,
            scope="full", watermark={}, who="test", now=NOW,
        )  # fmt: skip

    async def quick() -> stage.Staged:
        await first_is_read.wait()
        try:
            return await baseline(db, "erp", "A,S1,2", as_of=at(10))
        finally:
            second_is_done.set()

    first, second = await asyncio.gather(slow(), quick())
    assert (first.parts, second.parts) == ({"superseded": 1}, {"staged": 1})
    assert await on_hand(db, "A", "S1") == 2


async def test_the_same_snapshot_twice_at_once_is_taken_once(db: Database, net: Net) -> None:
    done = await asyncio.gather(*(baseline(db, "erp", "A,S1,5\nB,S1,5") for _ in range(4)))
    assert sorted(d.state for d in done) == ["same", "same", "same", "staged"]
    assert await ask(db, "select count(*) from baseline") == 1


async def test_an_order_that_cannot_be_read_is_kept_whole_and_holds_up_no_other(
    db: Database, net: Net, cache: Cache, tmp_path: Path
) -> None:
    good = {
        "number": "7", "placed_at": NINE.isoformat(), "ship_to": {"postal_code": "10001"}, "method": "standard",
        "lines": [{"line": "1", "sku": "A", "quantity": 1}],
    }  # fmt: skip
    bad = [
        "{", "[1]", json.dumps(good | {"number": "8", "lines": [{"line": "1", "sku": "A", "quantity": "two"}]}),
        json.dumps({k: v for k, v in good.items() if k != "placed_at"} | {"number": "9"}),
    ]  # fmt: skip
    folder = tmp_path / "orders"
    folder.mkdir()
    put(folder, "orders.jsonl", "\n".join([*bad, json.dumps(good)]))
    await change(db, "update channel set settings = $1 where code = 'web'", {"orders_folder": str(folder)})
    settings = Settings(database_url="", redis_url="", broker_seconds=1.0)
    report = await morning.morning(db, cache, settings, who="test", clock=lambda: NOW)
    assert (report.captured["web"].new, report.captured["web"].refused, report.needs_a_person) == (1, 4, True)
    async with db.connection() as tx:
        told = await tx.fetch("select subject, detail from exception where kind = 'order_refused' order by detail")
    details = " ".join(row["detail"] for row in told)
    assert len(told) == 4
    assert all(
        w in details for w in ("order '8' of web", "$[0].quantity", "order '9' of web", "`placed_at`", "on line 1")
    )


async def test_a_delivery_that_breaks_us_hurts_only_itself(
    db: Database, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "baseline.csv", HEADER + "A,S1,5\n", as_of=NINE.isoformat())
    put(tmp_path, "movements.csv", f"id,sku,location,kind,quantity,occurred_at\nm,A,S2,receipt,3,{NINE.isoformat()}\n")

    async def breaks(*given: Any, **named: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(stage, "receive", breaks)
    first, second = await take(db)
    assert first.trouble == "failed: ZeroDivisionError: of ours"
    assert (path.exists(), second.trouble, second.outcomes) == (True, None, {"applied": 1})
