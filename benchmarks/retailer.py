"""A retailer by numbers: skus × locations, two pools and channels, and an ERP whose snapshot comes every morning."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import numpy as np

from oms.db import Database, migrate
from oms.flows.network import load

LOCATIONS = 100
UNITS_MAX = 50
CHANNELS: tuple[dict[str, Any], ...] = ({"code": "web", "pool": "web"}, {"code": "market", "pool": "market"})
"""One sells from everywhere, one from a half; neither is told anything."""


class Morning(msgspec.Struct, frozen=True):
    """A snapshot in the ERP's folder: its file, its rows, and the share of keys that differ from the one before."""

    file: Path
    rows: int
    changed_share: float


class Retailer:
    """One database with its network, and the quantities that its ERP last told."""

    def __init__(self, *, url: str, folder: Path, skus: int, locations: int = LOCATIONS, seed: int = 1) -> None:
        self.url, self.folder, self.skus = url, folder, skus
        self._random = np.random.default_rng(seed)
        self._units = self._random.integers(0, UNITS_MAX, skus * locations)
        self._keys = [f"S{k:06d},L{n:03d}," for n in range(locations) for k in range(skus)]
        self._mornings = 0

    @property
    def rows(self) -> int:
        """Rows of each snapshot."""
        return len(self._keys)

    def snapshot(self, *, changed_share: float) -> Morning:
        """Writes the next snapshot, with this share of its keys changed since the last, location by location."""
        if self._mornings:
            self._units = self._units + (self._random.random(len(self._units)) < changed_share)
        self._mornings += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"baseline-{self._mornings:03d}.csv"
        with file.open("w", encoding="utf-8") as out:
            out.write("sku,location,quantity\n")
            out.writelines(f"{key}{units}\n" for key, units in zip(self._keys, self._units.tolist(), strict=True))
        file.with_suffix(".json").write_bytes(
            msgspec.json.encode({"as_of": datetime.now(UTC), "scope": "full", "bytes": file.stat().st_size})
        )
        return Morning(file, self.rows, changed_share)


async def open_retailer(
    url: str,
    *,
    name: str,
    folder: Path,
    skus: int,
    channels: Sequence[dict[str, Any]] = CHANNELS,
    locations: int = LOCATIONS,
) -> Retailer:
    """Makes the database and its network; no stock yet. Pools: web is everywhere, market every second location.

    The locations lie anywhere between the coasts of the United States.
    """
    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {name}")
    await connection.close()
    url = url.replace("/postgres?", f"/{name}?")
    await migrate(url)
    codes = [f"L{n:03d}" for n in range(locations)]
    chance = np.random.default_rng(3)
    owned = {"facts": ["quantity", "sale"], "locations": codes}
    rows: dict[str, list[dict[str, Any]]] = {
        "locations": [
            {"code": code, "kind": "store", "lat": chance.uniform(30, 48), "lon": chance.uniform(-120, -75)}
            for code in codes
        ],
        "pools": [{"code": "web", "locations": codes}, {"code": "market", "locations": codes[::2]}],
        "channels": list(channels),
        "sources": [{"code": "erp", "kind": "erp", "order_level": "sequence", "absent_is_zero": True,
                     "folder": str(folder), "owns": [owned]}],
        "skus": [{"code": f"S{k:06d}"} for k in range(skus)],
    }  # fmt: skip
    db = await Database.open(url)
    try:
        for what, given in rows.items():
            loaded = await load(db, kind=what, rows=given, who="benchmark", now=datetime.now(UTC))
            assert not loaded.refused, loaded.refused[:3]
    finally:
        await db.close()
    return await asyncio.to_thread(Retailer, url=url, folder=folder, skus=skus, locations=locations)
