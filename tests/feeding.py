"""What a source does, in a line: sends a snapshot, sends movements; and what we believe after it.

await baseline(db, "erp", "A,S1,5\\nB,S1,2", as_of=NINE)
await say(db, "pos", sale("m1", "A", "S1", 1, at=NINE))
assert await on_hand(db, "A", "S1") == 4
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.feeds.message import Message
from connectors.feeds.stream import Source
from connectors.feeds.tabular import Reader
from oms.db import Database
from oms.flows import reconcile
from oms.flows.ingest import apply, messages, stage
from tests.balance import check_balance

NINE = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """So many minutes after nine."""
    return NINE + timedelta(minutes=minutes)


async def staged(
    db: Database,
    source: str,
    rows: str | bytes,
    *,
    as_of: datetime = NINE,
    scope: Any = "full",
    watermark: dict[str, int] | None = None,
    dry_run: bool = False,
    header: str = "sku,location,quantity",
    now: datetime = NOW,
) -> stage.Staged:
    """A snapshot up to the point where it is staged."""
    body = rows if isinstance(rows, bytes) else f"{header}\n{rows}\n".encode()
    return await stage.receive(
        db, source=source, reader=Reader(Source([body], name="test.csv")), name="test.csv", as_of=as_of, scope=scope,
        watermark=watermark or {}, who="test", now=now, dry_run=dry_run,
    )  # fmt: skip


async def baseline(db: Database, source: str, rows: str | bytes, **given: Any) -> stage.Staged:
    """A snapshot that is in force when this returns, as far as its gates let it."""
    done = await staged(db, source, rows, **given)
    if done.state == "staged":
        await apply.apply(db, feed_id=done.feed_id, who="test")
    return done


def message(id: str, kind: str, sku: str, location: str, quantity: int, *, at: datetime = NINE, **more: Any) -> Message:
    """A movement as a source tells it."""
    return Message(id=id, sku=sku, location=location, kind=kind, quantity=quantity, occurred_at=at, **more)


def sale(id: str, sku: str, location: str, quantity: int, **more: Any) -> Message:
    """A sale."""
    return message(id, "sale", sku, location, quantity, **more)


async def say(db: Database, source: str, *said: Message) -> list[str]:
    """Sends movements; gives what became of each."""
    return [r.outcome for r in await messages.take(db, source=source, messages=said, who="test")]


async def stock(db: Database, sku: str, location: str, column: str = "on_hand") -> int:
    """A number of a stock row; 0 where there is none."""
    async with db.connection() as tx:
        found = await tx.fetchval(
            f"select {column} from stock join sku s using (sku_id) join location l using (location_id)"
            " where s.code = $1 and l.code = $2", sku, location,
        )  # fmt: skip
    return int(found or 0)


async def on_hand(db: Database, sku: str, location: str) -> int:
    """Units that we believe to be there."""
    return await stock(db, sku, location)


async def ask(db: Database, query: str, *values: Any) -> Any:
    """One value of the database."""
    async with db.connection() as tx:
        return await tx.fetchval(query, *values)


async def change(db: Database, statement: str, *values: Any) -> None:
    """A change of the network that a test needs."""
    async with db.transaction() as tx:
        await tx.execute(statement, *values)


async def exceptions(db: Database) -> list[tuple[str, str]]:
    """The open exceptions: kind and subject."""
    async with db.connection() as tx:
        return [
            tuple(r) for r in await tx.fetch("select kind, subject from exception where state = 'open' order by 1, 2")
        ]


async def check(db: Database) -> None:
    """The ledger explains the stock, and every identity holds."""
    _, differences = await reconcile.verify(db)
    assert not differences, differences
    await check_balance(db)
