"""The house is opened: settings read, servers started or joined, schema up to date; and its parts run as processes."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import msgspec

from oms import embedded, logs
from oms.cache import Cache
from oms.db import START_SECONDS_MAX, Database, migrate, patiently
from oms.embedded import CannotStart
from oms.settings import Settings

READY_SECONDS_MAX = 60
PARENT = "COMMONPOOL_PARENT_PID"
"""Tells a part which process to end with; no setting."""
STOP_SECONDS_MAX = 20
BACKLOG = 4096
CONNECTIONS_MAX = 16_384
"""Connections that one API process answers side by side; what it cannot take it says itself (503), and never by silence."""


class House(msgspec.Struct, frozen=True):
    """An open house: its doors to PostgreSQL and Redis, and the settings with what was started filled in."""

    db: Database
    cache: Cache
    settings: Settings


@asynccontextmanager
async def opened(environ: Mapping[str, str]) -> AsyncIterator[House]:
    """Everything that a command needs, and closed after it. Brings the schema up to date first."""
    settings = Settings.read(environ)
    logs.configure(settings.log_level)
    running = await asyncio.to_thread(embedded.start, settings)
    try:
        await up_to_date(running.database_url)
        db = await Database.open(running.database_url, connections_max=running.settings.database_connections_max)
        cache = await Cache.open(running.redis_url)
        try:
            yield House(db, cache, running.settings)
        finally:
            await cache.close()
            await db.close()
    finally:
        await asyncio.to_thread(running.stop)


async def up_to_date(url: str, *, patience_seconds: float = 0.0) -> list[str]:
    """Brings the schema up to date; names what was applied. Raises CannotStart where the database cannot be used.

    One that is away, or only starting, is asked again for so long.
    """
    try:
        return await patiently(lambda: migrate(url), seconds=patience_seconds)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        parts = urlsplit(url)
        where = f"{parts.hostname or 'this machine'}:{parts.port or 5432}{parts.path}"
        raise CannotStart(
            f"The database at {where} cannot be used: {error or type(error).__name__}. Check that it runs, and OMS_DATABASE_URL."
        ) from error


def migrated(environ: Mapping[str, str]) -> list[str]:
    """Brings the schema up to date; names what was applied."""
    with embedded.start(Settings.read(environ)) as running:
        return asyncio.run(up_to_date(running.database_url))


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process these settings."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("OMS_")}
    defaults = Settings()
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if value != getattr(defaults, name) or name == "home":
            given[f"OMS_{name.upper()}"] = str(value)
    return given


def api(environ: Mapping[str, str]) -> None:
    """The API, until it is told to stop."""
    with embedded.start(Settings.read(environ)) as running:
        asyncio.run(up_to_date(running.database_url, patience_seconds=START_SECONDS_MAX))
        os.environ.update({k: v for k, v in environment(running.settings).items() if k.startswith("OMS_")})
        from granian import Granian
        from granian.constants import Interfaces
        from granian.log import LogLevels

        settings = running.settings
        quiet = settings.log_level == "info" and PARENT in os.environ  # who started it says where it listens
        _stop_with_parent()
        Granian(
            "oms.app:from_environment", address=settings.host, port=settings.port, workers=settings.workers,
            interface=Interfaces.ASGI, factory=True, websockets=False,
            log_level=LogLevels("warning" if quiet else settings.log_level), backlog=BACKLOG, backpressure=CONNECTIONS_MAX,
        ).serve()  # fmt: skip


def worker(environ: Mapping[str, str]) -> None:
    """The job worker, until it is told to stop."""
    settings = Settings.read(environ)
    logs.configure(settings.log_level)
    with embedded.start(settings) as running:
        asyncio.run(up_to_date(running.database_url, patience_seconds=START_SECONDS_MAX))
        _stop_with_parent()

        async def work() -> None:
            from oms.worker import run

            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await run(running.settings)

        asyncio.run(work())


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM end this process in good order, also where it was started with them ignored."""

    def stop(number: int, frame: object) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # it ends already
        raise KeyboardInterrupt

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)


def _stop_with_parent() -> None:
    """A part that `oms up` started ends when that is gone, however it ended."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def free_port(host: str) -> int:
    """A port that nobody uses now."""
    with socket.socket() as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


class Parts:
    """The API and the worker as child processes."""

    def __init__(self, settings: Settings) -> None:
        port = settings.port or free_port(settings.host)
        self.settings = msgspec.structs.replace(settings, port=port)
        self.url = f"http://{settings.host}:{port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts both and waits until the API is ready. Raises CannotStart."""
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((self.settings.host, self.settings.port))
            except OSError:
                raise CannotStart(
                    f"Port {self.settings.port} is in use. Choose another with --port, or 0 for a free one."
                ) from None
        env = environment(self.settings) | {PARENT: str(os.getpid())}
        for name in ("api", "worker"):
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", f"from oms.house import part; part({name!r})"], env=env,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < until:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise CannotStart(f"The {name} ended with {process.returncode} while it started.")
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"{self.url}/health/ready", timeout=2),
            ):
                return
            time.sleep(0.1)
        raise CannotStart(f"The API did not become ready in {READY_SECONDS_MAX} s.")

    def wait(self) -> int:
        """Returns when a part has ended: its exit code."""
        while True:
            for process in self.processes.values():
                if process.poll() is not None:
                    return process.returncode or 1
            time.sleep(0.3)

    def stop(self) -> None:
        """Ends both."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def part(name: str) -> None:
    """One part of `oms up`, as its own process."""
    api(os.environ) if name == "api" else worker(os.environ)


def up(environ: Mapping[str, str], *, port: int | None, workers: int | None) -> int:
    """API and worker until Ctrl-C; gives the exit code."""
    settings = Settings.read(environ)
    changes = {name: v for name, v in (("port", port), ("workers", workers)) if v is not None}
    with embedded.start(msgspec.structs.replace(settings, **changes)) as running:
        asyncio.run(up_to_date(running.database_url))
        parts = Parts(running.settings)
        stop_on_signals()
        try:
            parts.start()
            print(f"API {parts.url}   docs {parts.url}/docs   Ctrl-C ends it", flush=True)
            return parts.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            parts.stop()
