"""Makes the files of the demo's morning from the real data of the package; generated parts follow from a seed."""

import gzip
import io
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from oms.demo import feeds, network, orders
from oms.demo.day import Day, make_day
from oms.demo.world import Size, World, make_world


class Made(msgspec.Struct, frozen=True):
    """What was made, in counts; `rows` are those of the snapshots, `movements` are lines of files, doubles included."""

    locations: int
    skus: int
    kits: int
    orders: int
    lines: int
    orders_twice: int
    rows: dict[str, int]
    movements: dict[str, int]
    doubles: dict[str, int]
    late: dict[str, int]
    contained: dict[str, int]
    bad: int
    units: int


def make(folder: Path, *, size: Size, seed: int, now: datetime) -> Made:
    """Writes network/, feeds/, orders/, expected.json and truth.csv.gz; the same arguments give the same bytes.

    `now` has an offset from UTC; everything that happened lies before it. truth.csv.gz is what is physically there
    after all movements: each snapshot, and the movements that it does not contain, add up to it.
    """
    if now.tzinfo is None:
        raise ValueError(f"now {now.isoformat()} has no offset from UTC; give it with one")
    world = make_world(size, seed)
    day = make_day(world, size=size, seed=seed, now=now)
    for part in ("network", "orders", *(f"feeds/{source}" for source in day.movements)):
        (folder / part).mkdir(parents=True, exist_ok=True)
    network.write_network(folder / "network", world, seed=seed, today=now.date())
    erp_rows, bad = feeds.write_erp(folder / "feeds/erp", world, day, seed=seed)
    rows = {
        "erp": erp_rows,
        "sim": feeds.write_sim(folder / "feeds/sim", world, day, seed=seed),
        "wms": feeds.write_wms(folder / "feeds/wms", world, day, seed=seed),
    }
    sent = {
        source: feeds.write_movements(folder / f"feeds/{source}/movements.jsonl", world, moved, day.ids, seed=seed)
        for source, moved in day.movements.items()
    }
    written = orders.write_orders(folder / "orders/orders.jsonl", world, seed=seed, now=now)
    network.write_json(folder / "expected.json", {"refused": bad})
    write_truth(folder / "truth.csv.gz", world, day)
    return Made(
        locations=len(world.places), skus=len(world.items), kits=len(world.kits), orders=written.orders,
        lines=written.lines, orders_twice=written.twice, rows=rows,
        movements={source: part.lines for source, part in sent.items()},
        doubles={source: part.doubles for source, part in sent.items()},
        late={source: part.late for source, part in sent.items()},
        contained={source: sum(n.contained for n in moved) for source, moved in day.movements.items()},
        bad=len(bad), units=int(day.truth.sum()),
    )  # fmt: skip


def write_truth(path: Path, world: World, day: Day) -> None:
    """Units that are physically there, by our own codes; a key that is not named has none."""
    text = io.StringIO()
    text.write("sku,location,on_hand\n")
    skus, places = np.nonzero(day.truth)
    units = day.truth[skus, places]
    for sku, place, there in zip(skus.tolist(), places.tolist(), units.tolist(), strict=True):
        text.write(f"{world.items[sku].code},{world.places[place].code},{there}\n")
    path.write_bytes(gzip.compress(text.getvalue().encode(), 6, mtime=0))
