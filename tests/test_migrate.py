"""Migrations: once each, by whoever comes first, wholly or not at all, and never another text under an old name."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from oms import db
from oms.db import MigrationChanged, migrate, sql_folder
from oms.embedded import Running
from tests.conftest import named

FILES = sorted(path.name for path in sql_folder().glob("[0-9]*.sql"))
PROGRAM = "import asyncio, sys; from oms.db import migrate; print(','.join(asyncio.run(migrate(sys.argv[1]))))"


@pytest.fixture
async def empty(servers: Running) -> AsyncIterator[str]:
    """The URL of a database without anything in it."""
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("create database empty_oms")
    yield named(servers.database_url, "empty_oms")
    await connection.execute("drop database empty_oms with (force)")
    await connection.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of migrations of our own."""
    monkeypatch.setattr(db, "sql_folder", lambda: tmp_path)
    (tmp_path / "0001_first.sql").write_text("create table first (a int);")
    return tmp_path


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        return {row[0] for row in await connection.fetch("select tablename from pg_tables where schemaname = 'public'")}
    finally:
        await connection.close()


async def test_processes_that_migrate_at_once_apply_each_file_once(empty: str) -> None:
    command = [sys.executable, "-c", PROGRAM, empty]
    done = await asyncio.gather(
        *(asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False) for _ in range(4))
    )
    assert [d.returncode for d in done] == [0] * 4, [d.stderr for d in done]
    applied = [name for d in done for name in d.stdout.strip().split(",") if name]
    assert sorted(applied) == FILES
    assert {"stock", "movement", "availability", "order_line"} <= await tables(empty)


async def test_again_changes_nothing(empty: str) -> None:
    assert await migrate(empty) == FILES
    before = await tables(empty)
    assert (await migrate(empty), await tables(empty)) == ([], before)


async def test_a_file_that_fails_leaves_nothing_of_it_and_those_before_it_stay(empty: str, folder: Path) -> None:
    broken = folder / "0002_second.sql"
    broken.write_text("create table second (a int); insert into second values ('x');")
    with pytest.raises(asyncpg.DataError):
        await migrate(empty)
    assert await tables(empty) == {"migration", "first"}
    broken.write_text("create table second (a int);")
    assert await migrate(empty) == ["0002_second.sql"]
    assert await tables(empty) == {"migration", "first", "second"}


async def test_an_applied_migration_with_another_text_is_refused_and_nothing_new_is_applied(
    empty: str, folder: Path
) -> None:
    await migrate(empty)
    (folder / "0001_first.sql").write_text("create table first (a bigint);")
    (folder / "0002_second.sql").write_text("create table second (a int);")
    with pytest.raises(MigrationChanged, match=r"0001_first.sql was applied with another text .* add a new one"):
        await migrate(empty)
    assert await tables(empty) == {"migration", "first"}


async def test_older_code_on_a_newer_schema_goes_on(empty: str, folder: Path) -> None:
    newer = folder / "0002_second.sql"
    newer.write_text("create table second (a int);")
    await migrate(empty)
    newer.unlink()
    assert await migrate(empty) == []
