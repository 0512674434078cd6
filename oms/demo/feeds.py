"""The feeds' files of the demo: snapshots with their sidecars, bad rows among them, and the day's movements."""

import gzip
import io
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from connectors.feeds.message import Message
from oms.demo.day import CASE, Day, Numbered
from oms.demo.network import erp_code, twin, wms_code, write_json
from oms.demo.world import World

DOUBLED_SHARE = 0.01
LATE_SHARE = 0.01
LATE_ROWS_MAX = 400
BINS = 40
ON_ITS_WAY_EVERY = 97
"""Every so many skus the ERP's snapshot has a row of what is on its way to a warehouse."""
ERP_HEADER = "sku,location,quantity,status,uom\n"
WMS_HEADER = "sku,location,bin,lot,status,quantity,uom\n"


class Bad(msgspec.Struct, frozen=True):
    """A row that is to be refused: where, and what is wrong with it."""

    file: str
    line: int
    field: str
    why: str


class Sent(msgspec.Struct, frozen=True):
    """What a file of movements holds: lines in all, doubled ones, late ones."""

    lines: int
    doubles: int
    late: int


def holdings(world: World, day: Day, owner: str, rng: np.random.Generator) -> Iterator[tuple[int, int, int, int, int]]:
    """(sku, place, sellable, in inspection, damaged) of an owner's snapshot, by location and sku; zeros where moved."""
    for place, row in enumerate(world.places):
        if row.owner != owner:
            continue
        units = day.snapshot[:, place]
        chance = rng.random(len(units))
        named = {sku for sku, at in day.moved_keys if at == place} | set(np.nonzero(units)[0].tolist())
        for sku in sorted(named):
            there = int(units[sku])
            inspected = min(there, 1) if chance[sku] < 0.02 else 0
            damaged = min(there - inspected, 1) if 0.015 < chance[sku] < 0.025 else 0
            yield sku, place, there - inspected - damaged, inspected, damaged


def write_erp(folder: Path, world: World, day: Day, *, seed: int) -> tuple[int, list[Bad]]:
    """The ERP's snapshot, gzipped CSV with bad rows of every kind; gives its rows and which of them are bad."""
    rng = np.random.default_rng([seed, 4])
    both = twin(world)
    rows: list[str] = []
    for sku, place, sellable, inspected, damaged in holdings(world, day, "erp", rng):
        code, at = erp_code(world, sku), world.places[place].code
        if place == both:
            # the overflow hall has a third of every third sku: two rows that are one location
            over = sellable // 3 if sku % 3 == 0 else 0
            if over:
                rows.append(f"{code},{at}-OVER,{over},available,EA")
            sellable, at = sellable - over, f"{at}-MAIN"
            rows += [f"{code},{at},{CASE},in_transit,EA"] if sku % ON_ITS_WAY_EVERY == 0 else []
        if sku in world.cased and sellable and sellable % CASE == 0:
            rows.append(f"{code},{at},{sellable // CASE},available,CASE")
        else:
            rows.append(f"{code},{at},{sellable},available,EA")
        rows += [f"{code},{at},{inspected},quality,EA"] if inspected else []
        rows += [f"{code},{at},{damaged},damaged,EA"] if damaged else []
    bad = bad_rows(world, day, rng)
    places = np.sort(rng.choice(len(rows), size=len(bad), replace=False))
    listed = []
    for k, (place, (text, field, why)) in enumerate(zip(places.tolist(), bad, strict=True)):
        rows.insert(place + k, text)
        listed.append(Bad("feeds/erp/baseline.csv.gz", place + k + 2, field, why))
    packed = gzip.compress((ERP_HEADER + "\n".join(rows) + "\n").encode(), 6, mtime=0)
    (folder / "baseline.csv.gz").write_bytes(packed)
    write_sidecar(folder, day, "erp", len(rows))
    return len(rows), listed


def bad_rows(world: World, day: Day, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Rows of every fault, on keys that have nothing, so that what is refused hides no stock."""
    stores = [k for k, place in enumerate(world.places) if place.kind == "store" and place.owner == "erp"]
    empty = (
        (int(sku), int(place))
        for sku, place in zip(rng.integers(0, len(world.items), 10_000), rng.choice(stores, 10_000), strict=True)
        if not world.stock[sku, place] and (int(sku), int(place)) not in day.moved_keys
    )
    keys: set[tuple[int, int]] = set()
    while len(keys) < 9:
        keys.add(next(empty))
    codes = [f"{erp_code(world, sku)},{world.places[place].code}" for sku, place in sorted(keys)]
    return [
        (f"{codes[0]},-3,available,EA", "quantity", "negative"),
        (f"{codes[1]},-1,available,EA", "quantity", "negative"),
        (f"{codes[2]},2.5,available,EA", "quantity", "not whole"),
        (f"{codes[3]},n/a,available,EA", "quantity", "not a number"),
        (f"{codes[4]},99999999999,available,EA", "quantity", "overflow"),
        (f"{codes[5]},,available,EA", "quantity", "missing"),
        (f"{codes[6]},4,quarantined,EA", "status", "unknown status"),
        (f"{codes[8]},1,available,PALLET", "uom", "unknown unit"),
        (f"{codes[7]},5,available,EA", "sku", "doubled key"),
        (f"{codes[7]},6,available,EA", "sku", "doubled key"),
        (f"NOSUCHSKU,{world.places[stores[0]].code},7,available,EA", "sku", "unknown sku"),
        (f"{world.items[0].code},S999X,7,available,EA", "location", "unknown location"),
        (f"{codes[0].split(',')[0]},{world.places[stores[0]].code},7", "row", "fields missing"),
    ]


def write_sim(folder: Path, world: World, day: Day, *, seed: int) -> int:
    """The stores' own snapshot, JSON Lines."""
    rng = np.random.default_rng([seed, 5])
    lines: list[bytes] = []
    for sku, place, sellable, inspected, damaged in holdings(world, day, "sim", rng):
        for status, units in (("available", sellable + damaged), ("quality", inspected)):
            if units or status == "available":
                row = {"sku": world.items[sku].code, "location": world.places[place].code, "quantity": units}
                lines.append(msgspec.json.encode({**row, "status": status}))
    (folder / "baseline.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    write_sidecar(folder, day, "sim", len(lines))
    return len(lines)


def write_wms(folder: Path, world: World, day: Day, *, seed: int) -> int:
    """A warehouse's snapshot by bin and lot, with cases; its rows are summed."""
    rng = np.random.default_rng([seed, 6])
    rows: list[str] = []
    for sku, place, sellable, inspected, damaged in holdings(world, day, "wms", rng):
        start = f"{wms_code(world, sku)},{world.places[place].code}"
        cell, lot = int(rng.integers(0, BINS)), int(rng.integers(1, 5))
        cases, loose = divmod(sellable, CASE) if sku in world.cased else (0, sellable)
        front = loose if loose < 8 else loose // 2
        parts = [("P", front, "AVL", "EA"), ("R", loose - front, "AVL", "EA"), ("R", cases, "AVL", "CASE"),
                 ("Q", inspected, "QI", "EA"), ("Q", damaged, "DMG", "EA")]  # fmt: skip
        for k, (aisle, units, status, uom) in enumerate(parts):
            if units or k == 0:
                rows.append(f"{start},{aisle}{cell:02d}-{sku % 100:02d},L{lot + k % 2},{status},{units},{uom}")
    (folder / "baseline.csv").write_text(WMS_HEADER + "\n".join(rows) + "\n", encoding="utf-8", newline="")
    write_sidecar(folder, day, "wms", len(rows))
    return len(rows)


def write_sidecar(folder: Path, day: Day, source: str, rows: int) -> None:
    """What the snapshot says of itself."""
    write_json(
        folder / "baseline.json",
        {"as_of": day.as_of[source].astimezone(UTC), "scope": "full", "watermark": day.watermark[source], "posted": [],
         "complete": True, "rows": rows},
    )  # fmt: skip


def message(world: World, numbered: Numbered, ids: dict[int, str]) -> Message:
    """A movement in its source's own codes."""
    moved = numbered.moved
    codes: dict[str, Any] = {"erp": erp_code, "wms": wms_code}
    code = codes[moved.source](world, moved.sku) if moved.source in codes else world.items[moved.sku].code
    at = world.places[moved.place].code
    if moved.source == "erp" and moved.place == twin(world):
        at += "-MAIN"
    return Message(
        id=numbered.id, sku=code, location=at, kind=moved.kind, quantity=moved.quantity,
        occurred_at=moved.occurred_at.astimezone(UTC), sequence=numbered.sequence, reason=moved.reason,
        reference=None if moved.about is None else ids[moved.about],
        to=None if moved.to is None else world.places[moved.to].code, hold=moved.hold, uom=moved.uom,
    )  # fmt: skip


def write_movements(path: Path, world: World, movements: list[Numbered], ids: dict[int, str], *, seed: int) -> Sent:
    """A day's messages as they arrived: most in order, one in a hundred twice, one in a hundred late."""
    rng = np.random.default_rng([seed, 7, len(path.parent.name), ord(path.parent.name[0])])
    due: list[tuple[float, bytes]] = []
    doubles = late = 0
    for k, numbered in enumerate(movements):
        line, chance = msgspec.json.encode(message(world, numbered, ids)), rng.random()
        later = k + float(rng.integers(2, LATE_ROWS_MAX)) + 0.5
        if chance < LATE_SHARE and k + 2 < len(movements):
            late += 1
            due.append((later, line))
            continue
        due.append((float(k), line))
        if chance < LATE_SHARE + DOUBLED_SHARE:
            doubles += 1
            due.append((later, line))
    due.sort(key=lambda part: part[0])
    out = io.BytesIO()
    for _, line in due:
        out.write(line + b"\n")
    path.write_bytes(out.getvalue())
    path.with_name("movements.complete").touch()
    return Sent(len(due), doubles, late)
