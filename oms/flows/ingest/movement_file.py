"""The record of a file of movements: that it came, what of it could not be read, and what became of the rest."""

from collections.abc import Mapping, Sequence

from connectors.feeds import RowRefused
from oms.db import Database, Sql
from oms.flows.ingest.stage import begin_feed, find_source, keep_refused, refuse_feed

sql = Sql("ingest")

end_movements = sql.run("end_movements")


async def begin(db: Database, *, source: str, name: str, who: str) -> int:
    """A file of movements starts to be read; gives its feed. Raises NotFound for an unknown source."""
    async with db.transaction() as tx:
        found = await find_source(tx, source)
        return await begin_feed(
            tx, source_id=found.source_id, kind="movements", name=name, scope=None, as_of=None, watermark={},
            state="applying", dry_run=False, who=who,
        )  # fmt: skip


async def keep_refusals(db: Database, *, feed_id: int, faults: Sequence[RowRefused]) -> None:
    """Keeps rows that cannot be understood: line, field, reason."""
    if faults:
        async with db.transaction() as tx:
            await keep_refused(tx, feed_id=feed_id, faults=faults)


async def end(
    db: Database, *, feed_id: int, rows: int, refused: int, sha256: str, totals: Mapping[str, int]
) -> None:  # fmt: skip
    """A file of movements is read to its end."""
    async with db.transaction() as tx:
        await end_movements(tx, feed_id=feed_id, rows=rows, refused=refused, sha256=sha256, totals=dict(totals))


async def refuse(db: Database, *, feed_id: int, why: str, rows: int) -> None:
    """A file cannot be read to its end: the messages that were read have acted, each once, and it may come again."""
    async with db.transaction() as tx:
        await refuse_feed(tx, feed_id=feed_id, why=why, rows=rows, sha256=None)
