"""What the house believes after the demo's feeds is what is physically there, whichever of them comes first."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors.feeds.folder import Sidecar, deliveries
from connectors.feeds.movements import read_movements
from connectors.feeds.stream import Source
from connectors.feeds.tabular import Reader
from oms.db import Database
from oms.demo.make import make
from oms.flows.ingest import apply, messages, stage
from oms.flows.network import load

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
KINDS = ("locations", "pools", "skus", "kits", "units", "sources", "sku_aliases", "location_aliases", "channels", "incoming")  # fmt: skip
LEDGER = """
select s.code, l.code, k.on_hand from stock k join sku s using (sku_id) join location l using (location_id)
 where k.on_hand <> 0
"""


async def load_network(db: Database, folder: Path) -> None:
    for kind in KINDS:
        path = next(folder.glob(f"network/{kind}.*"))
        text = path.read_text()
        rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(io.StringIO(text)))
        assert not (await load(db, kind=kind, rows=rows, who="test", now=NOW)).refused


async def take_baseline(db: Database, source: str, path: Path, says: Sidecar) -> set[int]:
    """Puts a snapshot in force; gives the lines of its refused rows."""
    assert says.as_of is not None
    taken = await stage.receive(
        db, source=source, reader=Reader(Source(path)), name=path.name, as_of=says.as_of, scope="full",
        watermark=says.watermark, who="test", now=NOW,
    )  # fmt: skip
    assert taken.parts.keys() == {"staged"}
    await apply.apply(db, feed_id=taken.feed_id, who="test")
    async with db.connection() as tx:
        rows = await tx.fetch("select line from feed_refusal where feed_id = $1", taken.feed_id)
    return {row[0] for row in rows}


@pytest.mark.parametrize("first", ["baseline", "movements"])
async def test_snapshots_and_movements_in_either_order_give_the_truth(db: Database, tmp_path: Path, first: str) -> None:
    make(tmp_path, size="small", seed=3, now=NOW)
    await load_network(db, tmp_path)
    refused: set[int] = set()
    outcomes: set[str] = set()
    found = []
    for source in ("erp", "pos", "sim", "wms"):
        ready, waiting = deliveries(tmp_path / "feeds" / source, stable_seconds=0)
        assert not waiting
        found += [(source, delivery) for delivery in ready]
    for source, delivery in sorted(found, key=lambda part: part[1].kind != first):
        if delivery.kind == "baseline":
            refused |= await take_baseline(db, source, delivery.path, delivery.sidecar)
            continue
        for batch in read_movements(Source(delivery.path)):
            results = await messages.take(db, source=source, messages=batch.messages, who="test")
            outcomes |= {result.outcome for result in results}
    assert outcomes <= {"applied", "absorbed", "duplicate"} and {"applied", "duplicate"} <= outcomes
    assert refused == {bad["line"] for bad in json.loads((tmp_path / "expected.json").read_text())["refused"]}
    text = gzip.decompress((tmp_path / "truth.csv.gz").read_bytes()).decode()
    truth = {(row["sku"], row["location"]): int(row["on_hand"]) for row in csv.DictReader(io.StringIO(text))}
    async with db.connection() as tx:
        ledger = {(row[0], row[1]): row[2] for row in await tx.fetch(LEDGER)}
    assert ledger == truth
