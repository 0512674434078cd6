"""`oms demo`: a retailer's whole morning on real data, from files to the shop's shelf, then the service."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from oms import embedded, logs
from oms.cache import Cache
from oms.db import Database, migrate
from oms.demo.make import Made, make
from oms.demo.summary import report_lines, timing
from oms.errors import Conflict
from oms.flows.govern import create_key
from oms.flows.network import load
from oms.flows.reconcile import verify
from oms.house import House, Parts, stop_on_signals
from oms.morning import Report, morning
from oms.progress import Bars
from oms.settings import Settings

SEED = 1
SIGN = "a demo of Commonpool: everything in it may be made anew"
NETWORK = (
    ("locations", "locations.csv"), ("pools", "pools.csv"), ("skus", "skus.csv"), ("kits", "kits.csv"),
    ("units", "units.csv"), ("sources", "sources.json"), ("sku_aliases", "sku_aliases.csv"),
    ("location_aliases", "location_aliases.csv"), ("channels", "channels.json"), ("incoming", "incoming.csv"),
)  # fmt: skip
SHOP_SECONDS_MAX = 10
BROKER_SECONDS = {"small": 8.0, "full": 60.0}
"""How long the run may plan, where OMS_BROKER_SECONDS does not say."""


class Shop:
    """The demo's shop: a small receiver in its own process."""

    def __init__(self, orders: Path, secret: str) -> None:
        self.secret = secret
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oms.demo.shop", "--port", "0", "--secret", secret, "--orders", str(orders)],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, "the shop did not start"

    def stock(self) -> dict[str, int]:
        """What the shop believes that it may sell."""
        with urllib.request.urlopen(f"{self.url}/stock", timeout=SHOP_SECONDS_MAX) as answer:
            found: dict[str, int] = json.load(answer)["stock"]
        return found

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SHOP_SECONDS_MAX)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo did, for --json."""

    made: Made
    report: Report
    differences: int
    shop_skus: int
    shop_differs: int
    seconds: dict[str, float]


def demo(*, size: Literal["small", "full"], once: bool, port: int, is_json: bool, environ: Mapping[str, str]) -> int:
    """Runs the morning; gives the exit code. Safe to run again: the demo's database is made anew."""
    began = time.perf_counter()
    settings = Settings.read({"OMS_BROKER_SECONDS": str(BROKER_SECONDS[size]), **environ})
    logs.configure(settings.log_level)
    tell = (lambda line: None) if is_json else click.echo
    tell("Commonpool demo: a retailer's morning on real order lines, real store sites and real postal codes\n")
    with embedded.start(settings) as running:
        folder = Path(settings.home) / "demo" / size
        seconds: dict[str, float] = {"start": round(time.perf_counter() - began, 2)}
        at = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        made = make(folder, size=size, seed=SEED, now=datetime.now(UTC))
        seconds["make files"] = round(time.perf_counter() - at, 2)
        shop = Shop(orders_by_channel(folder)["shop"], secret=shop_secret())
        try:
            outcome, keys = asyncio.run(inside(running.settings, folder=folder, shop=shop, made=made, seconds=seconds))
            seconds["in all"] = round(time.perf_counter() - began, 2)
            if is_json:
                click.echo(json.dumps(msgspec.to_builtins(outcome), default=str))
            else:
                for line in lines_of(outcome, folder, size):
                    tell(line)
            if outcome.differences or outcome.shop_differs:
                return 1
            if once:
                return 0
            parts = Parts(msgspec.structs.replace(running.settings, port=port))
            stop_on_signals()
            try:
                parts.start()
                tell(f"\nThe service runs: API {parts.url}/docs, metrics {parts.url}/metrics, shop {shop.url}/stock")
                for role, key in keys.items():
                    tell(f"  key of the {role}: {key}")
                sku = next(iter(shop.stock()), "")
                tell(
                    f"  try: curl -H 'Authorization: Bearer {keys['admin']}' '{parts.url}/v1/atp?channel=shop&sku={sku}'"
                )
                tell("Ctrl-C ends it.")
                return parts.wait()
            except KeyboardInterrupt:
                return 0
            finally:
                parts.stop()
        finally:
            shop.stop()


def orders_by_channel(folder: Path) -> dict[str, Path]:
    """The night's orders where each channel gives them: a file each, one order per line."""
    found: dict[str, list[bytes]] = {"shop": [], "market": []}
    for line in (folder / "orders" / "orders.jsonl").read_bytes().splitlines():
        found[json.loads(line)["channel"]].append(line)
    paths: dict[str, Path] = {}
    for code, lines in found.items():
        paths[code] = folder / "captured" / code / "orders.jsonl"
        paths[code].parent.mkdir(parents=True, exist_ok=True)
        paths[code].write_bytes(b"\n".join(lines) + b"\n")
        (paths[code].parent / "orders.complete").touch()
    return paths


def shop_secret() -> str:
    """A signing secret of this run, for the shop and us."""
    import base64
    import secrets

    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


async def inside(
    settings: Settings, *, folder: Path, shop: Shop, made: Made, seconds: dict[str, float]
) -> tuple[Outcome, dict[str, str]]:
    """Network, morning, and what came of it."""
    await begin_anew(settings)
    db = await Database.open(settings.database_url, connections_max=settings.database_connections_max)
    cache = await Cache.open(settings.redis_url)
    house = House(db, cache, settings)
    try:
        at = time.perf_counter()
        await load_network(house, folder=folder, shop=shop)
        seconds["network"] = round(time.perf_counter() - at, 2)
        with Bars() as bars:
            report = await morning(db, cache, settings, who="demo", clock=lambda: datetime.now(UTC), progress=bars.step)
        seconds.update(report.seconds)
        at = time.perf_counter()
        _, differences = await verify(db)
        seconds["verify"] = round(time.perf_counter() - at, 2)
        ours = await told(db, channel="shop")
        theirs = await asyncio.to_thread(shop.stock)
        differs = sum(theirs.get(sku, 0) != units for sku, units in ours.items()) + len(theirs.keys() - ours.keys())
        keys = {
            "admin": await create_key(db, role="admin", person="Demo Admin", who="demo"),
            "storefront": await create_key(db, role="storefront", channel="shop", who="demo"),
        }
    finally:
        await cache.close()
        await db.close()
    outcome = Outcome(
        made=made, report=report, differences=len(differences), shop_skus=len(theirs), shop_differs=differs,
        seconds=seconds,
    )  # fmt: skip
    return outcome, keys


async def begin_anew(settings: Settings) -> None:
    """An empty schema, marked as a demo's. Raises Conflict where the database holds something else."""
    import asyncpg

    connection = await asyncpg.connect(settings.database_url)
    try:
        tables = await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'")
        sign = await connection.fetchval("select obj_description('public'::regnamespace, 'pg_namespace')")
        if tables and sign != SIGN:
            skus = await connection.fetchval("select to_regclass('public.sku') is null or exists (select from sku)")
            if skus:
                raise Conflict(
                    "This database holds something that is not a demo, and stays as it is. "
                    "Set OMS_HOME to another folder (or OMS_DATABASE_URL to another database) for the demo."
                )
        await connection.execute("drop schema public cascade; create schema public")
        await connection.execute(f"comment on schema public is '{SIGN}'")
    finally:
        await connection.close()
    await migrate(settings.database_url)


async def load_network(house: House, *, folder: Path, shop: Shop) -> None:
    """Loads the demo's network; its channels and folders are those of this run."""
    from oms.commands import read_rows

    now = datetime.now(UTC)
    for kind, name in NETWORK:
        rows = read_rows(folder / "network" / name)
        if kind == "channels":
            rows = [row | {"settings": channel_settings(row["code"], folder=folder, shop=shop)} for row in rows]
        if kind == "sources":
            rows = [row | {"folder": str(folder / "feeds" / row["code"])} for row in rows]
        loaded = await load(house.db, kind=kind, rows=rows, who="demo", now=now, cache=house.cache)
        assert not loaded.refused, f"the demo's own {name} is refused: {loaded.refused[:3]}"


def channel_settings(code: str, *, folder: Path, shop: Shop) -> dict[str, Any]:
    """How the demo's channels are told, and where their orders are read."""
    if code == "shop":
        return {"url": f"{shop.url}/hook", "orders_url": f"{shop.url}/orders", "secrets": [shop.secret],
                "allow_hosts": ["127.0.0.1"]}  # fmt: skip
    drop = folder / "drop" / code
    drop.mkdir(parents=True, exist_ok=True)
    return {"folder": str(drop), "orders_folder": str(folder / "captured" / code)}


async def told(db: Database, *, channel: str) -> dict[str, int]:
    """What a channel may sell, by sku, as the API would answer."""
    async with db.connection() as tx:
        rows = await tx.fetch(
            "select s.code, n.current from channel_stock n join sku s using (sku_id) join channel c using (channel_id)"
            " where c.code = $1", channel,
        )  # fmt: skip
    return {row[0]: row[1] for row in rows}


def a_message(folder: Path) -> str:
    """The id of the last movement of the tills, to look at."""
    path = next((folder / "feeds" / "pos").rglob("movements.jsonl"))
    return str(json.loads(path.read_bytes().splitlines()[-1])["id"])


def lines_of(outcome: Outcome, folder: Path, size: str) -> list[str]:
    """The summary."""
    m, r = outcome.made, outcome.report
    lines = [
        f"Network  {m.locations:,} locations, {m.skus:,} skus ({size})",
        *report_lines(r),
        "",
        f"Ledger   {'explains every unit' if not outcome.differences else f'{outcome.differences} rows differ'}",
        f"Shop     its stock of {outcome.shop_skus:,} skus "
        + ("equals ours" if not outcome.shop_differs else f"differs in {outcome.shop_differs:,}"),
        "Seconds  " + timing(outcome.seconds.items()),
        f"Files    {folder}",
        f"Look     oms verify · oms trace pos {a_message(folder)} · oms broker --dry-run --json",
    ]
    return lines
