"""Real PostgreSQL and Valkey for every test: one pair of servers per test process, a fresh database per test."""

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from oms import embedded
from oms.cache import Cache
from oms.db import Database, migrate
from oms.embedded import Running
from oms.embedded.locks import try_lock
from oms.settings import Settings

_numbers = itertools.count(1)
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2_000_000_000
"""Where memory has a folder with this much room, tests keep their servers there: a fresh database in a tenth of the time."""


def room_for_servers() -> str | None:
    """The folder in memory, or None for the usual folder of temporary files."""
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    return str(MEMORY) if is_there and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN else None


def clear_killed_runs(folder: Path) -> None:
    """Removes what a killed test process left; a home in use has a lock on it before its keeper's file is there."""
    for home in folder.glob("oms-tests-*"):
        with contextlib.suppress(OSError):
            if home.stat().st_uid == os.geteuid() and (home / "run" / "keeper").exists():
                with try_lock(home / "run" / "users") as unused:
                    if unused:
                        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Running]:
    """Embedded servers of this test process, in a folder of its own; they are gone when it ends."""
    clear_killed_runs(Path(room_for_servers() or tempfile.gettempdir()))
    home = Path(tempfile.mkdtemp(prefix="oms-tests-", dir=room_for_servers()))
    home.chmod(0o755)
    running = embedded.start(Settings(home=str(home), embedded_fsync=False, embedded_memory_mb=128))
    yield running
    running.stop()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(servers: Running) -> str:
    """The name of a migrated database that tests are copied from."""

    async def make() -> None:
        connection = await asyncpg.connect(servers.database_url)
        await connection.execute("create database template_oms")
        await connection.close()
        await migrate(named(servers.database_url, "template_oms"))

    asyncio.run(make())
    return "template_oms"


def named(url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return url.replace("/postgres?", f"/{database}?")


@asynccontextmanager
async def fresh_database(servers: Running, template: str) -> AsyncIterator[str]:
    """The URL of a fresh migrated database, dropped at the end."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(f"create database {name} template {template} strategy file_copy")
    yield named(servers.database_url, name)
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


@pytest.fixture
async def database_url(servers: Running, template: str) -> AsyncIterator[str]:
    """A fresh migrated database; dropped after the test."""
    async with fresh_database(servers, template) as url:
        yield url


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A door to a fresh database."""
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
async def redis_url(servers: Running) -> str:
    """An empty Valkey database."""
    import redis.asyncio

    client = redis.asyncio.from_url(servers.redis_url)
    await client.flushall()
    await client.aclose()
    return servers.redis_url


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    """A door to an empty Redis."""
    opened = await Cache.open(redis_url)
    yield opened
    await opened.close()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of a process that uses this test's servers."""
    return Settings(database_url=database_url, redis_url=redis_url)
