"""The real data that the package carries: what is bought together, where stores stand, where people live."""

import csv
import gzip
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

DATA = Path(__file__).parent / "data"
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
EARTH_RADIUS_KM = 6371.0


class Site(msgspec.Struct, frozen=True):
    """Where a store stood."""

    city: str
    state: str
    postal_code: str


class Real(msgspec.Struct, frozen=True):
    """Lines as two arrays (invoice, place in `stock_codes`); sites and postal codes with arrays of lat and lon."""

    stock_codes: list[str]
    price_cents: Ints
    popularity: Ints
    invoice: Ints
    stock: Ints
    sites: list[Site]
    sites_at: Floats
    postal_codes: list[str]
    time_zones: list[str]
    postal_at: Floats
    population: Floats


def packed(name: str) -> Iterator[dict[str, str]]:
    """The rows of a packed file."""
    with gzip.open(DATA / name, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


@cache
def real() -> Real:
    """The real data, read once."""
    codes = list(packed("stock_codes.csv.gz"))
    place = {row["stock_code"]: k for k, row in enumerate(codes)}
    invoices = [row["stock_codes"].split(" ") for row in packed("order_lines.csv.gz")]
    stores = list(packed("stores.csv.gz"))
    postal = list(packed("postal_codes.csv.gz"))
    return Real(
        stock_codes=[row["stock_code"] for row in codes],
        price_cents=np.array([int(row["price_cents"]) for row in codes]),
        popularity=np.array([int(row["lines"]) for row in codes]),
        invoice=np.repeat(np.arange(len(invoices)), [len(lines) for lines in invoices]),
        stock=np.array([place[code] for lines in invoices for code in lines]),
        sites=[Site(row["city"], row["state"], row["postal_code"]) for row in stores],
        sites_at=np.array([(float(row["lat"]), float(row["lon"])) for row in stores]),
        postal_codes=[row["postal_code"] for row in postal],
        time_zones=[row["time_zone"] for row in postal],
        postal_at=np.array([(float(row["lat"]), float(row["lon"])) for row in postal]),
        population=np.array([float(row["population"]) for row in postal]),
    )


def distances_km(a: Floats, b: Floats) -> Floats:
    """Great-circle distances between two lists of (lat, lon), by the haversine formula."""
    p, q = np.radians(a)[:, None], np.radians(b)[None]
    chord = np.sin((p - q) / 2) ** 2
    h = chord[..., 0] + np.cos(p[..., 0]) * np.cos(q[..., 0]) * chord[..., 1]
    distances: Floats = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
    return distances
