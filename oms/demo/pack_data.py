"""Packs the demo's real data from its published form: `python -m oms.demo.pack_data FOLDER` (needs pyarrow, zipcodes).

FOLDER holds online_retail_lines.parquet, store_locations.csv and us_postal_demand.csv; see data/README.md.
"""

import csv
import gzip
import importlib
import io
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
PRODUCT = re.compile(r"\d{5}[A-Z]{0,2}")


def write_packed(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A gzipped CSV whose bytes depend on nothing but its rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def pack_order_lines(folder: Path, into: Path) -> None:
    """One row per invoice, its stock codes in the order of its lines; and one per stock code with its median price."""
    table: Any = importlib.import_module("pyarrow.parquet").read_table(
        folder / "online_retail_lines.parquet", columns=["InvoiceNo", "StockCode", "UnitPrice"]
    )
    invoices: dict[str, list[str]] = {}
    prices: dict[str, list[float]] = defaultdict(list)
    columns = (table.column(name).to_pylist() for name in ("InvoiceNo", "StockCode", "UnitPrice"))
    for invoice, given, price in zip(*columns, strict=True):
        code = given.upper()
        if PRODUCT.fullmatch(code) and price > 0:
            invoices.setdefault(invoice, []).append(code)
            prices[code].append(price)
    write_packed(into / "order_lines.csv.gz", ("stock_codes",), ([" ".join(codes)] for codes in invoices.values()))
    write_packed(
        into / "stock_codes.csv.gz", ("stock_code", "price_cents", "lines"),
        ((code, round(statistics.median(paid) * 100), len(paid)) for code, paid in sorted(prices.items())),
    )  # fmt: skip


def pack_places(folder: Path, into: Path) -> None:
    """Sites without brand and kind; postal codes with their time zones."""
    matching: Any = importlib.import_module("zipcodes").matching
    zones: dict[str, str] = {}
    with (folder / "us_postal_demand.csv").open(newline="", encoding="utf-8") as file:
        places = sorted(csv.DictReader(file), key=lambda row: row["postal_code"])
    for place in places:
        code = place["postal_code"]
        zones[code] = next((found["timezone"] for found in matching(code) if found["timezone"]), "")
    places = [place for place in places if zones[place["postal_code"]]]
    write_packed(
        into / "postal_codes.csv.gz", ("postal_code", "lat", "lon", "population", "time_zone"),
        ((p["postal_code"], p["lat"], p["lon"], p["population"], zones[p["postal_code"]]) for p in places),
    )  # fmt: skip
    with (folder / "store_locations.csv").open(newline="", encoding="utf-8") as file:
        stores = [row for row in csv.DictReader(file) if row["lat"] and row["lon"] and row["city"] != "city"]
    write_packed(
        into / "stores.csv.gz", ("city", "state", "postal_code", "lat", "lon"),
        sorted((re.sub(r"\s*[(\d].*", "", s["city"]).replace("Ft.", "Fort"), s["state"], s["postal_code"].zfill(5), s["lat"], s["lon"]) for s in stores),
    )  # fmt: skip


def pack(folder: Path, into: Path = DATA) -> None:
    """Writes the packed files; the same input gives the same bytes."""
    into.mkdir(parents=True, exist_ok=True)
    pack_order_lines(folder, into)
    pack_places(folder, into)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m oms.demo.pack_data FOLDER (with the three published files)")
    pack(Path(sys.argv[1]))
