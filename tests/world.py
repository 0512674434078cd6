"""A small network for tests: three locations, two pools that overlap in one store, and stock set by real movements.

net = await small_network(db)
await set_stock(db, sku="A", location="S1", quantity=4)
"""

from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from oms import access, ledger
from oms.db import Database

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Net(msgspec.Struct, frozen=True):
    """Ids by code. Pool `web` = W1 + S1, pool `local` = S1 + S2: they share S1."""

    locations: dict[str, int]
    pools: dict[str, int]
    channels: dict[str, int]
    sources: dict[str, int]
    skus: dict[str, int]


LOCATIONS = [
    ("W1", "warehouse", 41.88, -87.63, "60601", "America/Chicago"),
    ("S1", "store", 40.75, -73.99, "10001", "America/New_York"),
    ("S2", "store", 42.36, -71.06, "02108", "America/New_York"),
]
POOLS = {"web": ["W1", "S1"], "local": ["S1", "S2"]}
CHANNELS = {"web": "web", "local": "local"}
SKUS = ["A", "B", "C", "D", "E"]


async def small_network(db: Database) -> Net:
    """Makes locations W1, S1, S2; pools and channels web, local; sources erp, pos, wms; skus A to E without stock."""
    async with db.transaction() as tx:
        locations = {
            code: await tx.fetchval(
                "insert into location (code, name, kind, lat, lon, postal_code, time_zone)"
                " values ($1, $1, $2, $3, $4, $5, $6) returning location_id", code, *rest,
            )
            for code, *rest in LOCATIONS
        }  # fmt: skip
        pools = {
            code: await tx.fetchval("insert into pool (code, name) values ($1, $1) returning pool_id", code)
            for code in POOLS
        }
        await tx.executemany(
            "insert into pool_location values ($1, $2)",
            [(pools[pool], locations[member]) for pool, members in POOLS.items() for member in members],
        )
        masks = {
            code: sum(1 << position for position, pool in enumerate(POOLS) if code in POOLS[pool]) for code in locations
        }
        segments = sorted(set(masks.values()))
        layout_id = await tx.fetchval(
            "insert into layout (pools, segments) values ($1, $2) returning layout_id", list(pools.values()), segments
        )
        await tx.executemany(
            "insert into layout_location values ($1, $2, $3)",
            [(layout_id, locations[code], segments.index(mask)) for code, mask in masks.items()],
        )
        channels = {
            code: await tx.fetchval(
                "insert into channel (code, name, pool_id) values ($1, $1, $2) returning channel_id", code, pools[pool]
            )
            for code, pool in CHANNELS.items()
        }
        sources = {
            code: await tx.fetchval(
                "insert into source (code, name, kind, order_level) values ($1, $1, $1, 'sequence')"
                " returning source_id", code,
            )
            for code in ("erp", "pos", "wms")
        }  # fmt: skip
        await tx.executemany(
            "insert into ownership values ($1, $2, $3)",
            [(location, "quantity", sources["erp"]) for location in locations.values()]
            + [(locations[code], fact, sources["pos"]) for code in ("S1", "S2") for fact in ("sale", "return")]
            + [(locations["W1"], fact, sources["wms"]) for fact in ("shipment", "receipt", "adjustment")],
        )
        skus = {
            code: await tx.fetchval(
                "insert into sku (code, name, price_cents, value_cents, weight_grams)"
                " values ($1, 'sku ' || $1, 1000, 600, 200) returning sku_id", code,
            )
            for code in SKUS
        }  # fmt: skip
    return Net(locations=locations, pools=pools, channels=channels, sources=sources, skus=skus)


async def set_stock(db: Database, *, sku: str, location: str, quantity: int, at: datetime = LONG_AGO) -> None:
    """Makes on hand this quantity by an adjustment through the ledger, as the erp would have told it."""
    async with db.transaction() as tx:
        sku_id = await tx.fetchval("select sku_id from sku where code = $1", sku)
        location_id = await tx.fetchval("select location_id from location where code = $1", location)
        source_id = await tx.fetchval("select source_id from source where code = 'erp'")
        locked = await ledger.lock(tx, [sku_id])
        row = (await ledger.stock(tx, [(sku_id, location_id)]))[sku_id, location_id]
        change = quantity - row.on_hand
        move = ledger.Move(
            sku_id=sku_id, location_id=location_id, source_id=source_id, message_id=f"set-{uuid4()}",
            kind="adjustment", quantity=change, effect=change, occurred_at=at,
        )  # fmt: skip
        await ledger.move(tx, [move], feed_id=None, who="test")
        await ledger.write(tx, locked, resum=[sku_id])


async def make_key(db: Database, role: str, **bound: str) -> str:
    """A key of this role, bound as given: `channel`, `location`, `source`, `person`."""
    async with db.transaction() as tx:
        return await access.make_key(tx, role=role, **bound)


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}
