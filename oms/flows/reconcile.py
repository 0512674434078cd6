"""The ledger explains the stock: it is folded again and compared, row by row; counts are compared with stock."""

from collections.abc import Sequence

import msgspec

from oms import record
from oms.db import Database, Sql
from oms.errors import NotFound

sql = Sql("verify")

DIFFERENCES_TOLD_MAX = 100


class Difference(msgspec.Struct, frozen=True):
    """A row that is not what the ledger says."""

    what: str
    subject: str
    kept: str
    folded: str


class Counts(msgspec.Struct, frozen=True):
    """How much was verified."""

    movements: int
    stock: int
    availability: int
    lines: int


class Drift(msgspec.Struct, frozen=True):
    """A counted quantity beside ours."""

    sku: str
    location: str
    counted: int
    on_hand: int


checks = tuple(
    sql.rows(name, Difference)
    for name in ("stock_differs", "availability_differs", "capacity_differs", "lines_differ", "settlements_differ")
)
counts = sql.one("counts", Counts)
source_known = sql.maybe("source_known", int)
counted = sql.rows("counted", Drift)


async def verify(db: Database) -> tuple[Counts, list[Difference]]:
    """Folds the ledger, commitments, capacity and settlements anew in one snapshot; gives what differs (empty is right)."""
    async with db.pool.acquire() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        return await counts(tx), [row for check in checks for row in await check(tx)]


async def watch(db: Database) -> int:
    """Verifies; what differs becomes exceptions, for an admin within the hour. Gives how many differ."""
    _, differences = await verify(db)
    if differences:
        async with db.transaction() as tx:
            await record.raise_exceptions(
                tx,
                [
                    record.Trouble(
                        kind="ledger_differs", subject=f"{d.what}:{d.subject}", owner="admin", due_hours=1,
                        detail=f"{d.what} {d.subject} is kept as {d.kept}; the ledger says {d.folded}. Run `oms verify`.",
                    )
                    for d in differences[:DIFFERENCES_TOLD_MAX]
                ],
            )  # fmt: skip
    return len(differences)


async def drift(db: Database, *, source: str, rows: Sequence[tuple[str, str, int]]) -> list[Drift]:
    """Counted (sku, location, quantity) rows beside our stock, changing nothing. Raises NotFound for the source."""
    async with db.connection() as tx:
        if await source_known(tx, code=source) is None:
            raise NotFound(f"There is no source {source!r}. Load it first: oms load sources FILE.")
        return await counted(
            tx,
            source=source,
            skus=[r[0] for r in rows],
            locations=[r[1] for r in rows],
            quantities=[r[2] for r in rows],
        )
