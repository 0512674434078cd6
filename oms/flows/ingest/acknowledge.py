"""A source says what of ours it has posted: movements, and fulfillments that it has deducted at its own step."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from connectors.feeds.message import Message
from oms import ledger, record
from oms.db import Connection, Database, Sql
from oms.errors import NotFound

sql = Sql("messages")

UNDONE = "/undone"
"""What follows a fulfillment line's reference when the source has given it back."""


class Ours(msgspec.Struct, frozen=True):
    """A movement or fulfillment line of ours that a source names."""

    reference: str
    sku_id: int
    location_id: int
    quantity: int

    def mismatch(self, message: Message) -> record.Trouble | None:
        """An echo that speaks of another quantity."""
        if abs(message.quantity) == self.quantity or message.uom not in (None, "each", "EA", "ea"):
            return None
        return record.Trouble(
            kind="echo_mismatch", subject=self.reference,
            detail=f"{self.reference} is {self.quantity} units with us and {message.quantity} in message {message.id}. "
            "It was taken as the acknowledgement; find out which is right and send an adjustment.",
            payload=msgspec.to_builtins(message),
        )  # fmt: skip


class Said(msgspec.Struct, frozen=True):
    """A reference of ours that a source has posted: its number and moment, by its own clock, where it gives them."""

    reference: str
    sequence: int | None
    at: datetime


class Unposted(msgspec.Struct, frozen=True):
    """A movement of ours that the owner of the quantity has not acknowledged; `held` is its change of a hold code."""

    id: str
    sku: str
    location: str
    kind: str
    quantity: int
    hold: str | None
    held: int
    occurred_at: datetime


ours = sql.rows("ours", Ours)
acknowledge_posts = sql.run("acknowledge_posts")
unposted = sql.rows("unposted", Unposted)
source_id_of = sql.maybe("source_id_of", int)


async def echoes(tx: Connection, *, source_id: int, messages: Sequence[Message]) -> dict[str, Ours]:
    """By message id: the messages that bear a reference of ours; they acknowledge, and are no second movement."""
    referring = [m for m in messages if m.reference is not None]
    if not referring:
        return {}
    found = {row.reference: row for row in await ours(tx, message_refs=list({m.reference for m in referring}))}
    return {m.id: found[m.reference] for m in referring if m.reference in found}


async def take(
    tx: Connection, *, source_id: int, keys: Collection[tuple[int, int]], said: Sequence[Said], who: str
) -> set[int]:
    """Marks what a source has posted, and corrects keys whose snapshot turns out to contain it.

    The skus of `keys` are locked; gives those that the caller must sum again.
    """
    if not said:
        return set()
    given = {
        "messages": [s.reference for s in said], "sequences": [s.sequence for s in said], "at": [s.at for s in said],
    }  # fmt: skip
    await ledger.acknowledge(tx, source_id=source_id, **given)
    await acknowledge_posts(tx, source_id=source_id, message_refs=given["messages"])
    await ledger.deduct(tx, source_id=source_id, **given)
    undone = [s for s in said if s.reference.endswith(UNDONE)]
    if undone:
        await ledger.undo_deductions(
            tx, messages=[s.reference.removesuffix(UNDONE) for s in undone], sequences=[s.sequence for s in undone],
            at=[s.at for s in undone],
        )  # fmt: skip
    return await ledger.correct_late(tx, keys, who=who)


async def posted(db: Database, *, source: str, references: Sequence[str], at: datetime, who: str) -> dict[str, int]:
    """Takes a source's list of what it has posted of ours by `at` (its clock); gives {posted, unknown}."""
    known = 0
    for start in range(0, len(references), 1000):
        page = list(dict.fromkeys(references[start : start + 1000]))
        async with db.transaction() as tx:
            source_id = await source_id_of(tx, code=source)
            if source_id is None:
                raise NotFound(f"There is no source {source!r}. Load it first: oms load sources FILE.")
            found = await ours(tx, message_refs=page)
            locked = await ledger.lock(tx, {f.sku_id for f in found})
            corrected = await take(
                tx, source_id=source_id, keys={(f.sku_id, f.location_id) for f in found},
                said=[Said(reference, None, at) for reference in page], who=f"{source} by {who}",
            )  # fmt: skip
            await ledger.write(tx, locked, resum=corrected)
            known += len({f.reference for f in found})
    return {"posted": known, "unknown": len(set(references)) - known}


async def waiting(db: Database, *, source_id: int, after: tuple[datetime, str] | None, limit: int) -> list[Unposted]:
    """What of ours a source has not acknowledged, oldest first: it stands over that source's snapshots."""
    async with db.connection() as tx:
        return await unposted(
            tx, source_id=source_id, after_at=after[0] if after else None, after_id=after[1] if after else "",
            limit=limit,
        )  # fmt: skip


async def source_id_named(db: Database, code: str) -> int | None:
    """The id of a source, or None."""
    async with db.connection() as tx:
        return await source_id_of(tx, code=code)
