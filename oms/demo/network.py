"""The network's files of the demo: what `oms load` reads."""

import csv
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from oms.demo.world import World

ERP_ALIAS_EVERY = 10
WMS_ALIAS_EVERY = 5
STOCK_FACTS = ("quantity", "receipt", "shipment", "transfer", "adjustment", "count", "hold")
SHARED_GATES = {
    "keys_present_min_share": 0.8, "units_change_max_share": 0.5, "to_zero_max_share": 0.2,
    "unknown_skus_max_share": 0.1, "keys_min": 20,
}  # fmt: skip
STATUSES = {
    "erp": {"available": None, "quality": "QI", "damaged": "DMG"},
    "sim": {"available": None, "quality": "QI"},
    "wms": {"AVL": None, "QI": "QI", "DMG": "DMG"},
}
"""What each source calls stock: a hold code, or None for what may be sold."""


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """A CSV with a header; gives how many rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        number = 0
        for number, row in enumerate(rows, 1):  # noqa: B007
            writer.writerow(row)
    return number


def write_json(path: Path, value: Any) -> None:
    """JSON that people can read."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_network(folder: Path, world: World, *, seed: int, today: date) -> None:
    """Writes network/: locations, pools, channels, sources, skus and what belongs to them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(
        folder / "locations.csv",
        ("code", "name", "kind", "lat", "lon", "country", "postal_code", "time_zone", "capacity_orders",
         "safety_stock", "on"),
        ((p.code, p.name, p.kind, p.lat, p.lon, "US", p.postal_code, p.time_zone, p.capacity_orders, p.safety_stock,
          "true") for p in world.places),
    )  # fmt: skip
    write_csv(folder / "pools.csv", ("code", "location"), pools(world))
    write_json(folder / "channels.json", channels())
    write_json(folder / "sources.json", sources(world))
    write_csv(
        folder / "skus.csv", ("code", "name", "price_cents", "value_cents", "weight_grams", "barcodes"),
        [(i.code, i.name, i.price_cents, i.value_cents, i.weight_grams, i.barcode) for i in world.items]
        + [(k.code, f"Kit of {len(k.parts)}, {k.code}", k.price_cents, k.price_cents * 6 // 10,
            sum(world.items[p].weight_grams for p in k.parts), "") for k in world.kits],
    )  # fmt: skip
    write_csv(
        folder / "kits.csv", ("kit", "component", "quantity"),
        ((kit.code, world.items[part].code, 1) for kit in world.kits for part in kit.parts),
    )  # fmt: skip
    write_csv(
        folder / "units.csv", ("sku", "uom", "quantity"), ((world.items[s].code, "CASE", 12) for s in world.cased)
    )
    write_csv(folder / "sku_aliases.csv", ("source", "code", "sku"), sku_aliases(world))
    write_csv(folder / "location_aliases.csv", ("source", "code", "location"), location_aliases(world))
    write_csv(
        folder / "incoming.csv", ("source", "reference", "sku", "location", "kind", "quantity", "due_on"),
        incoming(world, seed, today),
    )  # fmt: skip


def pools(world: World) -> Iterable[tuple[str, str]]:
    """Three pools that overlap: everything, what the marketplace may sell from, and stores for pick-up."""
    yield from (("web", place.code) for place in world.places)
    for k, place in enumerate(world.places):
        if place.kind == "warehouse" or (place.kind == "store" and k % 2 == 0):
            yield "marketplace", place.code
    yield from (("pickup", place.code) for place in world.places if place.kind == "store")


def channels() -> list[dict[str, Any]]:
    """A web shop by delta and a marketplace by reset; where they are reached is settled by who runs the demo."""
    shop = {"code": "shop", "name": "Web shop", "pool": "web", "kind": "webhook", "mode": "delta", "buffer": 0,
            "reset_minutes": 60}  # fmt: skip
    market = {"code": "market", "name": "Marketplace", "pool": "marketplace", "kind": "file", "mode": "reset",
              "buffer": 1, "reset_minutes": 60}  # fmt: skip
    return [shop, market]


def sources(world: World) -> list[dict[str, Any]]:
    """Who tells about stock, and what each owns where."""
    owned = {s: [p.code for p in world.places if p.owner == s] for s in ("erp", "sim", "wms")}
    stock = {s: {"facts": list(STOCK_FACTS), "locations": codes} for s, codes in owned.items()}
    stores = [p.code for p in world.places if p.kind == "store"]
    about = {"facts": ["cost", "attributes"], "locations": [p.code for p in world.places]}
    return [
        {"code": "erp", "name": "ERP", "kind": "erp", "quantity_kind": "physical", "order_level": "sequence",
         "deducts_at": "ship", "absent_is_zero": True, "sums_rows": False, "gates": SHARED_GATES, "folder": None,
         "owns": [stock["erp"], about], "status_map": status_map("erp")},
        {"code": "sim", "name": "Store inventory", "kind": "sim", "quantity_kind": "available", "order_level": "clock",
         "deducts_at": "accept", "absent_is_zero": False, "sums_rows": False, "gates": SHARED_GATES, "folder": None,
         "owns": [stock["sim"]], "status_map": status_map("sim")},
        {"code": "wms", "name": "Warehouse system", "kind": "wms", "quantity_kind": "available",
         "order_level": "sequence", "deducts_at": "pick", "absent_is_zero": False, "sums_rows": True,
         "gates": SHARED_GATES, "folder": None, "owns": [stock["wms"]], "status_map": status_map("wms")},
        {"code": "pos", "name": "Tills", "kind": "pos", "quantity_kind": "physical", "order_level": "sequence",
         "deducts_at": "ship", "absent_is_zero": False, "sums_rows": False, "gates": {}, "folder": None,
         "owns": [{"facts": ["sale", "return"], "locations": stores}], "status_map": []},
    ]  # fmt: skip


def status_map(source: str) -> list[dict[str, Any]]:
    """A source's words for stock, as the network keeps them."""
    rows: list[dict[str, Any]] = [
        {"field": "status", "value": value, "means": "hold" if code else "on_hand", "hold_code": code}
        for value, code in STATUSES[source].items()
    ]
    if source == "erp":
        rows.append({"field": "status", "value": "in_transit", "means": "incoming", "hold_code": None})
    return rows


def erp_code(world: World, sku: int) -> str:
    """A sku as the ERP says it: part of them by a code of its own."""
    code = world.items[sku].code
    return f"E-{code}" if sku % ERP_ALIAS_EVERY == 0 else code


def wms_code(world: World, sku: int) -> str:
    """A sku as the WMS says it."""
    return f"W{sku:06d}" if sku % WMS_ALIAS_EVERY == 0 else world.items[sku].code


def twin(world: World) -> int:
    """The warehouse of the ERP that it keeps under two codes."""
    return next(k for k, p in enumerate(world.places) if p.kind == "warehouse" and p.owner == "erp")


def sku_aliases(world: World) -> Iterable[tuple[str, str, str]]:
    """Codes of the ERP and the WMS for skus."""
    for k, item in enumerate(world.items):
        for source, code in (("erp", erp_code(world, k)), ("wms", wms_code(world, k))):
            if code != item.code:
                yield source, code, item.code


def location_aliases(world: World) -> Iterable[tuple[str, str, str]]:
    """Two codes of the ERP for one warehouse: its main hall and its overflow."""
    code = world.places[twin(world)].code
    return [("erp", f"{code}-MAIN", code), ("erp", f"{code}-OVER", code)]


def incoming(world: World, seed: int, today: date) -> Iterable[tuple[object, ...]]:
    """Purchases that are on their way to warehouses."""
    rng = np.random.default_rng([seed, 3])
    warehouses = world.at("warehouse")
    for k, sku in enumerate(rng.permutation(len(world.items))[: max(30, len(world.items) // 50)].tolist()):
        place = world.places[int(rng.choice(warehouses))]
        due_on = today + timedelta(days=int(rng.integers(1, 22)))
        yield (place.owner, f"PO-{today:%y%m%d}-{k + 1:04d}", world.items[sku].code, place.code, "purchase",
               int(rng.integers(1, 9)) * 12, due_on.isoformat())  # fmt: skip
