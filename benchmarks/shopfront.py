"""A shop's side of the service: the service over HTTP with its controls, a retailer with stock, and load on it."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from benchmarks.frame import STOP_SECONDS_MAX, Child, Missing, environment, servers
from benchmarks.generator import Load, Report
from benchmarks.retailer import LOCATIONS, open_retailer
from connectors.feeds.stream import Source
from connectors.feeds.tabular import Reader
from oms.cache import Cache
from oms.db import Database
from oms.embedded import Running
from oms.flows.govern import create_key
from oms.flows.ingest import apply, stage
from oms.flows.push.projector import project
from oms.house import free_port

HOT = "S000000"
HOT_UNITS = 900_000_000
START_SECONDS_MAX = 60
GENERATOR_CPU_MAX = 0.9
"""A run in which the generator took more of a core than this says nothing of the server."""
WARM_SECONDS = 1.5
TICKS = os.sysconf("SC_CLK_TCK")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A report, and the server's CPU per request in microseconds."""

    report: Report
    cpu_us: float


class Shopfront:
    """The service on a port of its own, and a generator beside it."""

    def __init__(
        self, running: Running, *, url: str, key: str, port: int, server: subprocess.Popen[bytes], generator: Child
    ) -> None:
        self.running, self.url, self.key, self.port = running, url, key, port
        self._server, self._generator = server, generator

    def get(self, path: str) -> str:
        """A request as it goes over the wire."""
        return f"GET {path} HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {self.key}\r\n\r\n"

    def post(self, path: str, body: Any, *, key: str | None = None) -> str:
        """A request with a body, and an Idempotency-Key where one is given."""
        text = msgspec.json.encode(body).decode()
        head = f"idempotency-key: {key}\r\n" if key else ""
        return (
            f"POST {path} HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {self.key}\r\n{head}"
            f"content-type: application/json\r\ncontent-length: {len(text.encode())}\r\n\r\n{text}"
        )

    def load(
        self,
        requests: Sequence[str],
        *,
        connections: int,
        seconds: float,
        per_second: float | None = None,
        times: int | None = None,
    ) -> Measured:
        """Sends for so long. Raises Missing where the generator, not the server, is what was measured."""
        order = Load(
            host="127.0.0.1", port=self.port, requests=list(requests), connections=connections, seconds=seconds,
            per_second=per_second, times=times,
        )  # fmt: skip
        before = self.cpu_seconds()
        report = msgspec.convert(self._generator.ask(order, seconds_max=seconds + 60), Report)
        used = self.cpu_seconds() - before
        if report.cpu_share > GENERATOR_CPU_MAX:
            raise Missing(f"the generator took {report.cpu_share:.0%} of a core: the run is void")
        return Measured(report=report, cpu_us=1e6 * used / max(1, report.answers))

    def each_once(self, requests: Sequence[str], *, connections: int, seconds_max: float) -> Report:
        """Sends each request until it is answered otherwise than 503; no figure of speed."""
        order = Load(
            host="127.0.0.1", port=self.port, requests=list(requests), connections=connections, seconds=seconds_max,
            times=len(requests), again=True,
        )  # fmt: skip
        return msgspec.convert(self._generator.ask(order, seconds_max=seconds_max + 60), Report)

    def pids(self) -> list[int]:
        """The server's processes."""
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        return [self._server.pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """What the server's processes have used."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def memory_mb(self) -> float:
        """The most memory that one of the server's workers has had."""
        peaks = []
        for pid in self.pids()[1:]:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peaks.append(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)
        return max(peaks)


def rates(found: Sequence[Measured]) -> float:
    """The median of the answers per second."""
    return median(m.report.per_second for m in found)


@contextmanager
def shopfront(
    *, skus: int, workers: int = 1, role: str = "storefront", locations: int = LOCATIONS
) -> Iterator[Shopfront]:
    """The service and its worker with a retailer's stock, projected, and a key of a role; gone afterwards."""
    with servers() as running:
        feeds = Path(running.settings.home) / "feeds"
        url, key = asyncio.run(_open(running, feeds=feeds, skus=skus, role=role, locations=locations))
        port = free_port("127.0.0.1")
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.served", url, running.redis_url, str(port), str(workers)],
            env=environment(), start_new_session=True,
        )  # fmt: skip
        told = environment() | {"OMS_DATABASE_URL": url, "OMS_REDIS_URL": running.redis_url}
        worker = subprocess.Popen(
            [sys.executable, "-c", "from oms.house import part; part('worker')"], env=told, start_new_session=True
        )
        try:
            await_ready(server, port)
            with Child("benchmarks.generator") as generator:
                generator.said()
                yield Shopfront(running, url=url, key=key, port=port, server=server, generator=generator)
        finally:
            for process in (server, worker):
                process.terminate()
            for process in (server, worker):
                try:
                    process.wait(STOP_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


async def _open(running: Running, *, feeds: Path, skus: int, role: str, locations: int) -> tuple[str, str]:
    retailer = await open_retailer(running.database_url, name="shopfront", folder=feeds, skus=skus, locations=locations)
    morning = await asyncio.to_thread(retailer.snapshot, changed_share=1.0)
    hot = feeds / "hot.csv"
    hot.write_text(f"sku,location,quantity\n{HOT},L000,{HOT_UNITS}\n")
    db, cache = await Database.open(retailer.url), await Cache.open(running.redis_url)
    try:
        for file, scope in ((morning.file, "full"), (hot, "partial")):
            await take(db, file, scope=scope)
        while (await project(db, cache, now=datetime.now(UTC))).rows:
            pass
        key = await create_key(db, role=role, channel="web" if role == "storefront" else None, who="benchmark")
        async with db.connection() as tx:
            await tx.execute("vacuum analyze sku, stock, availability, channel_stock, movement, location, channel")
    finally:
        await cache.close()
        await db.close()
    return retailer.url, key


async def take(db: Database, file: Path, *, scope: Literal["full", "partial"]) -> None:
    """A snapshot of the ERP, from its file to what is there."""
    now = datetime.now(UTC)
    staged = await stage.receive(
        db, source="erp", reader=Reader(Source(file)), name=file.name, as_of=now, scope=scope, watermark={},
        who="benchmark", now=now,
    )  # fmt: skip
    await apply.apply(db, feed_id=staged.feed_id, who="benchmark")


def await_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """Waits until a service is ready. Raises Missing where it ends, or is not ready in time."""
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if server.poll() is not None:
            raise Missing(f"the service ended with {server.returncode} while it started")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2):
            return
        time.sleep(0.1)
    raise Missing(f"the service was not ready in {START_SECONDS_MAX} s")
