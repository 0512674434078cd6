"""The demo's files: the same from the same seed, whole in their references, and true in their sums."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from connectors.feeds.movements import read_movements
from connectors.feeds.stream import Source
from connectors.feeds.tabular import Reader
from oms.api.orders import OrderBody
from oms.demo.make import Made, make
from oms.demo.real import DATA
from oms.domain.network import KINDS
from oms.domain.rows import read_rows

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
REDUCING = {"sale", "shipment", "transfer"}
ADDING = {"return", "receipt", "adjustment"}


class Files(NamedTuple):
    """The small morning as it was made."""

    folder: Path
    made: Made

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        if ".json" in path.name:
            lines = text.splitlines() if path.suffix == ".jsonl" else []
            return [json.loads(line) for line in lines] if lines else json.loads(text)
        return list(csv.DictReader(io.StringIO(text)))

    def codes(self, name: str, column: str = "code") -> set[str]:
        return {row[column] for row in self.rows(f"network/{name}")}

    def aliases(self, kind: str, source: str) -> dict[str, str]:
        """Codes as a source says them, to ours."""
        own = {code: code for code in self.codes("skus.csv" if kind == "sku" else "locations.csv")}
        named = {r["code"]: r[kind] for r in self.rows(f"network/{kind}_aliases.csv") if r["source"] == source}
        return own | named


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("made")
    return Files(folder, make(folder, size="small", seed=1, now=NOW))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def good_rows(files: Files, source: str, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a snapshot that speak of stock and are not to be refused."""
    bad = {b["line"] for b in json.loads((files.folder / "expected.json").read_text())["refused"]}
    for line, row in enumerate(files.rows(f"feeds/{source}/{name}"), 2):
        if source != "erp" or (line not in bad and row["status"] != "in_transit"):
            yield row


SNAPSHOTS = {"erp": "baseline.csv.gz", "sim": "baseline.jsonl", "wms": "baseline.csv"}


def test_the_same_seed_and_moment_give_the_same_bytes(files: Files, tmp_path: Path) -> None:
    again = make(tmp_path, size="small", seed=1, now=NOW)
    assert again == files.made
    assert contents(tmp_path) == contents(files.folder)


def test_another_seed_gives_another_morning(files: Files, tmp_path: Path) -> None:
    make(tmp_path, size="small", seed=2, now=NOW)
    other, first = contents(tmp_path), contents(files.folder)
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in ("truth.csv.gz", "orders/orders.jsonl", "network/locations.csv"))


def test_the_real_data_are_under_five_megabytes() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 5_000_000


def test_a_moment_without_an_offset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="offset"):
        make(tmp_path, size="small", seed=1, now=NOW.replace(tzinfo=None))


def test_the_small_morning_has_its_size(files: Files) -> None:
    made = files.made
    assert (made.locations, made.skus, made.orders) == (60, 3000, 5000)
    kinds = Counter(row["kind"] for row in files.rows("network/locations.csv"))
    assert kinds == {"store": 55, "warehouse": 3, "third_party": 2}
    orders = files.rows("orders/orders.jsonl")
    assert len({order["number"] for order in orders}) == made.orders == len(orders) - made.orders_twice
    assert max(len(order["lines"]) for order in orders) <= 6


@pytest.mark.parametrize("kind", [
    "locations", "pools", "channels", "sources", "skus", "kits", "units", "sku_aliases", "location_aliases", "incoming",
])  # fmt: skip
def test_every_row_of_the_network_can_be_read(files: Files, kind: str) -> None:
    path = next((files.folder / "network").glob(f"{kind}.*"))
    given, refused = read_rows(KINDS[kind], files.rows(f"network/{path.name}"))
    assert given and not refused


def test_every_code_that_the_network_names_exists(files: Files) -> None:
    skus, locations = files.codes("skus.csv"), files.codes("locations.csv")
    sources, pools = files.codes("sources.json"), files.codes("pools.csv")
    for name, column, known in (
        ("pools.csv", "location", locations), ("channels.json", "pool", pools), ("kits.csv", "kit", skus),
        ("kits.csv", "component", skus), ("units.csv", "sku", skus), ("sku_aliases.csv", "source", sources),
        ("sku_aliases.csv", "sku", skus), ("location_aliases.csv", "location", locations),
        ("incoming.csv", "source", sources), ("incoming.csv", "sku", skus), ("incoming.csv", "location", locations),
    ):  # fmt: skip
        assert files.codes(name, column) <= known, (name, column)


def test_each_fact_at_a_location_has_one_owner_and_each_quantity_has_one(files: Files) -> None:
    owners = Counter(
        (location, fact)
        for source in files.rows("network/sources.json") for part in source["owns"]
        for location in part["locations"] for fact in part["facts"]
    )  # fmt: skip
    assert set(owners.values()) == {1}
    assert {location for location, fact in owners if fact == "quantity"} == files.codes("locations.csv")


def test_every_order_is_a_body_that_the_api_takes_and_names_what_exists(files: Files) -> None:
    skus, channels = files.codes("skus.csv"), files.codes("channels.json")
    seen: dict[str, bytes] = {}
    for line in (files.folder / "orders/orders.jsonl").read_bytes().splitlines():
        order = msgspec.json.decode(line, type=OrderBody)
        assert order.channel in channels and order.placed_at < NOW
        assert {part.sku for part in order.lines} <= skus
        assert seen.setdefault(order.number, line) == line


def test_movements_are_messages_of_their_owners_in_known_codes(files: Files) -> None:
    owns = {
        (source["code"], location, fact)
        for source in files.rows("network/sources.json") for part in source["owns"]
        for location in part["locations"] for fact in part["facts"]
    }  # fmt: skip
    for source, expected in files.made.movements.items():
        path = files.folder / f"feeds/{source}/movements.jsonl"
        skus, locations = files.aliases("sku", source), files.aliases("location", source)
        batches = list(read_movements(Source(path)))
        assert not any(batch.refused for batch in batches)
        messages = [message for batch in batches for message in batch.messages]
        assert len(messages) == expected
        for message in messages:
            assert message.sku in skus and (message.to is None or message.to in locations)
            assert (source, locations[message.location], message.kind) in owns
            assert message.occurred_at < NOW
        numbers = sorted({message.sequence or 0 for message in messages})
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no number is missing"


def test_demand_is_covered_as_a_whole_and_warehouses_hold_less_than_stores_and_partners(files: Files) -> None:
    kinds = {row["code"]: row["kind"] for row in files.rows("network/locations.csv")}
    units: Counter[str] = Counter()
    for row in files.rows("truth.csv.gz"):
        units[kinds[row["location"]]] += int(row["on_hand"])
    orders = {order["number"]: order for order in files.rows("orders/orders.jsonl")}.values()
    wanted = sum(line["quantity"] for order in orders for line in order["lines"])
    assert 3.5 < units.total() / wanted < 4.5
    assert 0.40 < units["warehouse"] / units.total() < 0.50


def test_some_messages_come_twice_and_some_come_late(files: Files) -> None:
    numbers = [row["sequence"] for row in files.rows("feeds/pos/movements.jsonl")]
    assert len(numbers) - len(set(numbers)) == files.made.doubles["pos"] > 0
    assert any(after < before for before, after in pairwise(numbers))
    assert files.made.late["pos"] > 0
    assert all(0 < part < files.made.movements[source] for source, part in files.made.contained.items())


def test_each_snapshot_can_be_read_and_says_how_many_rows_it_has(files: Files) -> None:
    for source, name in SNAPSHOTS.items():
        reader = Reader(Source(files.folder / f"feeds/{source}/{name}"))
        assert sum(batch.rows + len(batch.refused) for batch in reader) == files.made.rows[source]
        sidecar = json.loads((files.folder / f"feeds/{source}/baseline.json").read_text())
        assert sidecar["rows"] == files.made.rows[source] and datetime.fromisoformat(sidecar["as_of"]) < NOW


def test_bad_rows_stand_on_the_lines_that_are_named_and_hide_no_stock(files: Files) -> None:
    text = gzip.decompress((files.folder / "feeds/erp/baseline.csv.gz").read_bytes()).decode().splitlines()
    listed = json.loads((files.folder / "expected.json").read_text())["refused"]
    assert len(listed) == files.made.bad
    assert {bad["why"] for bad in listed} >= {
        "negative", "not whole", "unknown sku", "unknown location", "overflow", "unknown unit", "doubled key",
    }  # fmt: skip
    truth = {(row["sku"], row["location"]) for row in files.rows("truth.csv.gz")}
    skus, locations = files.aliases("sku", "erp"), files.aliases("location", "erp")
    signs = {"negative": ",-", "not whole": ",2.5,", "overflow": ",99999999999,", "unknown unit": ",PALLET"}
    for bad in listed:
        row = text[bad["line"] - 1]
        assert signs.get(bad["why"], "") in row
        sku, location = row.split(",")[:2]
        if bad["field"] != "row":
            assert (skus.get(sku), locations.get(location)) not in truth


def test_snapshots_and_the_movements_that_they_do_not_contain_add_up_to_the_truth(files: Files) -> None:
    units = {(row["sku"], row["uom"]): int(row["quantity"]) for row in files.rows("network/units.csv")}
    owner: dict[str, str] = {}
    total: Counter[tuple[str, str]] = Counter()
    for source, name in SNAPSHOTS.items():
        skus, locations = files.aliases("sku", source), files.aliases("location", source)
        for row in good_rows(files, source, name):
            sku, location = skus[row["sku"]], locations[row["location"]]
            assert owner.setdefault(location, source) == source
            total[sku, location] += int(row["quantity"]) * units.get((sku, row.get("uom", "EA")), 1)
    sidecars = {s: json.loads((files.folder / f"feeds/{s}/baseline.json").read_text()) for s in SNAPSHOTS}
    for source in files.made.movements:
        skus, locations = files.aliases("sku", source), files.aliases("location", source)
        once = {row["id"]: row for row in files.rows(f"feeds/{source}/movements.jsonl")}
        for row in once.values():
            key = sku, location = skus[row["sku"]], locations[row["location"]]
            says = sidecars[owner[location]]
            mark = says["watermark"].get(source)
            if mark is None:
                is_in = datetime.fromisoformat(row["occurred_at"]) <= datetime.fromisoformat(says["as_of"])
            else:
                is_in = row["sequence"] <= mark
            moved = row["quantity"] * units.get((sku, row.get("uom", "EA")), 1)
            if not is_in and row["kind"] == "count":
                total[key] = moved
            elif not is_in and row["kind"] in REDUCING | ADDING:
                total[key] += -moved if row["kind"] in REDUCING else moved
    truth = {(row["sku"], row["location"]): int(row["on_hand"]) for row in files.rows("truth.csv.gz")}
    assert {key: there for key, there in total.items() if there} == truth
    assert sum(truth.values()) == files.made.units
