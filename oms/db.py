"""The door to PostgreSQL: SQL files in, structs out.

    sql = Sql("broker")
    open_lines = sql.rows("open_lines", Line)      # await open_lines(tx, run_id=...) -> list[Line]

A block in `sql/broker.sql` starts with `-- name: open_lines`, followed by a comment that is its promise.
Parameters are written `:name` and bound by keyword.
"""

import asyncio
import hashlib
import re
import time
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec

Row = TypeVar("Row")

MIGRATE_LOCK = 0x0C0330
"""Advisory lock under which one process at a time migrates."""


class Connection(asyncpg.Connection):
    """A connection of the door, and what it remembers of rows that never change."""

    __slots__ = ("known",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: dict[Any, Any] = {}


def sql_folder() -> Path:
    """The folder of SQL files: beside the package in a clone, inside it in an installed wheel."""
    inside = Path(__file__).parent / "_sql"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "sql"


class Block(msgspec.Struct, frozen=True):
    """One named statement: its text with `$n`, and the parameter names in that order."""

    name: str
    promise: str
    text: str
    parameters: tuple[str, ...]


_NAME = re.compile(r"^-- name: (\w+)\s*$", re.M)
_PARAMETER = re.compile(r"'(?:[^']|'')*'|(?<![:\w]):([a-z_][a-z0-9_]*)")


def parse_blocks(text: str) -> dict[str, Block]:
    """Split a file of named statements into its blocks."""
    blocks: dict[str, Block] = {}
    marks = list(_NAME.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        lines = body.strip().splitlines()
        comment = 0
        while comment < len(lines) and lines[comment].startswith("--"):
            comment += 1
        promise = " ".join(line.removeprefix("--").strip() for line in lines[:comment])
        order: list[str] = []

        def place(found: re.Match[str], order: list[str] = order) -> str:
            word = found.group(1)
            if word is None:
                return found.group(0)
            if word not in order:
                order.append(word)
            return f"${order.index(word) + 1}"

        statement = _PARAMETER.sub(place, "\n".join(re.sub(r"--.*$", "", line) for line in lines[comment:]))
        name = mark.group(1)
        assert name not in blocks, f"block {name} stands twice"
        blocks[name] = Block(name, promise, statement.strip().rstrip(";"), tuple(order))
    return blocks


class Statement:
    """A block bound to how many rows it gives and what they become."""

    def __init__(self, file: str, block: Block, shape: str, row: Any) -> None:
        self.file, self.block, self.shape, self.row = file, block, shape, row

    def arguments(self, given: dict[str, Any]) -> list[Any]:
        """The parameters in the statement's order; a wrong name is a bug."""
        assert given.keys() == set(self.block.parameters), (
            f"{self.file}.{self.block.name} takes {self.block.parameters}, was given {tuple(given)}"
        )
        return [given[name] for name in self.block.parameters]


class Sql:
    """One file of named statements. Each use binds a name, how many rows, and the row type."""

    bound: typing.ClassVar[list[Statement]] = []

    def __init__(self, file: str) -> None:
        self.file = file
        self.blocks = parse_blocks((sql_folder() / f"{file}.sql").read_text(encoding="utf-8"))

    def _bind(self, name: str, shape: str, row: Any) -> Statement:
        statement = Statement(self.file, self.blocks[name], shape, row)
        Sql.bound.append(statement)
        return statement

    def rows(self, name: str, row: type[Row]) -> Callable[..., Awaitable[list[Row]]]:
        """Zero or more rows, each a struct of the row's columns in order (or a plain value of one column)."""
        statement = self._bind(name, "rows", row)
        make = _maker(row)

        async def fetch(tx: Connection, **given: Any) -> list[Row]:
            return [make(record) for record in await tx.fetch(statement.block.text, *statement.arguments(given))]

        return fetch

    def maybe(self, name: str, row: type[Row]) -> Callable[..., Awaitable[Row | None]]:
        """One row or None."""
        statement = self._bind(name, "maybe", row)
        make = _maker(row)

        async def fetch(tx: Connection, **given: Any) -> Row | None:
            record = await tx.fetchrow(statement.block.text, *statement.arguments(given))
            return None if record is None else make(record)

        return fetch

    def one(self, name: str, row: type[Row]) -> Callable[..., Awaitable[Row]]:
        """Exactly one row; none is a bug."""
        fetch_maybe = self.maybe(name, row)

        async def fetch(tx: Connection, **given: Any) -> Row:
            found = await fetch_maybe(tx, **given)
            assert found is not None, f"{self.file}.{name} gave no row for {given}"
            return found

        return fetch

    def run(self, name: str) -> Callable[..., Awaitable[int]]:
        """Executes; gives the number of rows that it touched."""
        statement = self._bind(name, "run", None)

        async def execute(tx: Connection, **given: Any) -> int:
            status = await tx.execute(statement.block.text, *statement.arguments(given))
            last = status.rsplit(" ", 1)[-1]
            return int(last) if last.isdigit() else 0

        return execute


def _maker(row: Any) -> Callable[[asyncpg.Record], Any]:
    if isinstance(row, type) and issubclass(row, msgspec.Struct):
        return lambda record: row(*record)
    if row is tuple:
        return tuple
    assert isinstance(row, type | types.GenericAlias) or row is Any
    return lambda record: record[0]


_news: dict[Any, list[Any]] = {}


def tell(tx: Connection, news: Iterable[Any]) -> None:
    """Says something to the listeners of the transaction's door; they hear it when it is committed, or never."""
    _news.setdefault(tx, []).extend(news)


LANE: ContextVar[str | None] = ContextVar("lane", default=None)
"""Whose connections what runs in this context takes: those of a lane, where the door has such."""


async def _as_it_is(connection: Connection) -> None:
    """A transaction leaves nothing behind in its connection: one round trip less for each."""


class Database:
    """Connections to one PostgreSQL database: a pool, and pools for lanes that wait for nobody else's."""

    def __init__(self, pool: asyncpg.Pool, url: str, lanes: Mapping[str, asyncpg.Pool] | None = None) -> None:
        self._pool, self.url, self._lanes = pool, url, dict(lanes or {})
        self.listeners: list[Callable[[list[Any]], None]] = []
        """Told what transactions of this door have said by `tell`, as soon as they are committed."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        connections_max: int = 10,
        lanes: Mapping[str, float] | None = None,
        patience_seconds: float = 0.0,
    ) -> "Database":
        """Connects; raises what asyncpg raises when the server cannot be reached, also not within the patience.

        `lanes` are shares of the connections that a lane has for itself, two at least; the rest is everybody's.
        """

        async def connect(connections_max: int) -> asyncpg.Pool:
            return await asyncpg.create_pool(
                url, min_size=1, max_size=connections_max, init=prepare_connection, reset=_as_it_is, command_timeout=600,
                connection_class=Connection, server_settings={"timezone": "UTC", "jit": "off"},
            )  # fmt: skip

        sizes = {name: max(2, round(share * connections_max)) for name, share in (lanes or {}).items()}
        rest = max(2, connections_max - sum(sizes.values()))
        pool = await patiently(lambda: connect(rest), seconds=patience_seconds)
        return cls(pool, url, {name: await connect(size) for name, size in sizes.items()})

    @property
    def pool(self) -> asyncpg.Pool:
        """The pool of the lane that this context is in."""
        return self._lanes.get(LANE.get() or "", self._pool)

    async def close(self) -> None:
        """Closes the connections; those in use are ended after 5 s."""
        for pool in (self._pool, *self._lanes.values()):
            try:
                await asyncio.wait_for(pool.close(), 5)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction, for reads and for locks of a session, which end with it."""
        async with self.pool.acquire() as connection:
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.reset()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for statements that leave nothing behind in its session: a round trip less than `connection`."""
        async with self.pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction; rolled back when the block raises."""
        async with self.pool.acquire() as connection:
            try:
                async with connection.transaction():
                    yield connection
                for hear in self.listeners:
                    hear(_news.get(connection, []))
            finally:
                _news.pop(connection, None)


async def prepare_connection(connection: Connection) -> None:
    """Gives a connection our codecs: jsonb as Python values."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", format="text",
            encoder=lambda value: msgspec.json.encode(value).decode(), decoder=msgspec.json.decode,
        )  # fmt: skip


START_SECONDS_MAX = 60.0
"""How long a part that starts waits for PostgreSQL, which may be starting, too."""


async def patiently(connect: Callable[[], Awaitable[Row]], *, seconds: float) -> Row:
    """What `connect` gives; a server that is away, or only starting, is asked again for so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await connect()
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            if time.monotonic() >= end:
                raise
        await asyncio.sleep(0.3)


class MigrationChanged(Exception):
    """A migration that is already applied has another text than then."""


async def migrate(url: str) -> list[str]:
    """Brings the schema up to date and names what was applied; two processes at once are safe.

    Each file `sql/NNNN_name.sql` is one transaction, under one advisory lock, remembered with its checksum.
    """
    connection = await asyncpg.connect(url, command_timeout=600)
    applied: list[str] = []
    try:
        await connection.execute("select pg_advisory_lock($1)", MIGRATE_LOCK)
        await connection.execute(
            "create table if not exists migration (name text primary key, checksum text not null,"
            " applied_at timestamptz not null default clock_timestamp())"
        )
        known = dict(await connection.fetch("select name, checksum from migration"))
        for path in sorted(sql_folder().glob("[0-9][0-9][0-9][0-9]_*.sql")):
            text = path.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            if path.name in known:
                if known[path.name] != checksum:
                    raise MigrationChanged(
                        f"{path.name} was applied with another text (checksum {known[path.name][:12]}…, now "
                        f"{checksum[:12]}…). Never edit an applied migration: add a new one."
                    )
                continue
            async with connection.transaction():
                await connection.execute(text)
                await connection.execute("insert into migration values ($1, $2)", path.name, checksum)
            applied.append(path.name)
        # no ANALYZE here: of an empty table it would record 0 rows, and plans kept from that scan it whole for ever;
        # what loads analyzes what it loaded
    finally:
        await connection.close()
    return applied
