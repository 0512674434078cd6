"""What a run saw is kept with it, packed, so that the same problem can be planned again later."""

import zlib
from datetime import datetime
from uuid import UUID

import msgspec

from brokering import Problem
from oms.db import Connection, Database, Sql

sql = Sql("what_if")

PACKED_LEVEL = 6


class Kept(msgspec.Struct, frozen=True):
    """A packed problem, with its run's beginning and state."""

    problem: bytes
    started_at: datetime
    state: str


keep_problem = sql.run("keep_problem")
kept_problem = sql.maybe("kept_problem", Kept)
forget_problems = sql.run("forget_problems")
forget_what_ifs = sql.run("forget_what_ifs")
_decoder = msgspec.msgpack.Decoder(Problem)


def pack(problem: Problem) -> bytes:
    """A problem in few bytes: 0.9 MB for 10,000 orders of 20,000 lines with 46,000 rows of stock, in a fifth of a second."""
    return zlib.compress(msgspec.msgpack.encode(problem), PACKED_LEVEL)


def unpack(packed: bytes) -> Problem:
    """The problem as it was packed."""
    return _decoder.decode(zlib.decompress(packed))


async def keep(tx: Connection, *, run_id: UUID, packed: bytes) -> None:
    """Keeps what a run saw, in the transaction that keeps its plan."""
    await keep_problem(tx, run_id=run_id, problem=packed)


async def forget(db: Database, *, before: datetime) -> int:
    """Drops what runs saw, and what trials found, before a moment; gives how many problems."""
    async with db.transaction() as tx:
        await forget_what_ifs(tx, before=before)
        return await forget_problems(tx, before=before)
