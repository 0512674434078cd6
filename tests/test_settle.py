import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from oms.db import Connection, Database
from oms.errors import Busy, OutOfStock, Refusal
from oms.settle import Again, Settle, close_all, settle_batch, shared


@pytest.fixture
async def notes(db: Database) -> Database:
    async with db.transaction() as tx:
        await tx.execute("create table note (id int primary key, batch int not null)")
    return db


class Notes:
    """Keeps numbers in a table, once each; some numbers are refused, some raise."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, tx: Connection, requests: Sequence[int]) -> list[int | Refusal]:
        self.batches.append(list(requests))
        answers: list[int | Refusal] = []
        for number in requests:
            if number < 0:
                raise ZeroDivisionError(f"poison {number}")
            if number % 100 == 99:
                answers.append(OutOfStock(f"no {number}"))
                continue
            await tx.execute("insert into note values ($1, $2) on conflict do nothing", number, len(self.batches))
            answers.append(number)
        return answers


async def kept(db: Database) -> list[int]:
    async with db.connection() as connection:
        return [row[0] for row in await connection.fetch("select id from note order by id")]


async def test_requests_that_arrive_during_a_commit_share_the_next_transaction(notes: Database) -> None:
    many = Notes()
    queue: Settle[int, int] = Settle(notes, many, batch_max=64)
    answers = await asyncio.gather(*(queue.ask(number) for number in range(50)))
    assert answers == list(range(50))
    assert len(many.batches) < 10
    assert await kept(notes) == list(range(50))
    await queue.close()


async def test_a_refusal_is_one_callers_and_the_others_are_kept(notes: Database) -> None:
    queue: Settle[int, int] = Settle(notes, Notes())
    answers = await asyncio.gather(*(queue.ask(number) for number in (1, 99, 2)), return_exceptions=True)
    assert answers[0] == 1
    assert answers[2] == 2
    assert isinstance(answers[1], OutOfStock)
    await queue.close()


async def test_a_poison_request_is_found_by_halving_and_alone_gets_its_error(notes: Database) -> None:
    many = Notes()
    answers = await settle_batch(notes, many, [1, 2, 3, -4, 5, 6, 7])
    assert isinstance(answers[3], ZeroDivisionError)
    assert [a for a in answers if isinstance(a, int)] == [1, 2, 3, 5, 6, 7]
    assert await kept(notes) == [1, 2, 3, 5, 6, 7]


async def test_a_full_queue_says_busy_and_when_to_come_again(notes: Database) -> None:
    gate = asyncio.Event()

    async def slow(tx: Connection, requests: Sequence[int]) -> list[int]:
        await gate.wait()
        return list(requests)

    queue: Settle[int, int] = Settle(notes, slow, batch_max=1, queue_max=2)
    first = asyncio.create_task(queue.ask(1))
    while queue._waiting or not first.done():
        await asyncio.sleep(0)
        if queue._worker is not None and not queue._waiting:
            break
    waiting = [asyncio.create_task(queue.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as busy:
        await queue.ask(4)
    assert busy.value.extra["retry_after_seconds"] == 1
    gate.set()
    assert await asyncio.gather(first, *waiting) == [1, 2, 3]
    await queue.close()


async def test_a_connection_lost_in_commit_is_asked_again_and_acts_once(notes: Database) -> None:
    """The first transaction commits, and nobody hears of it."""
    lost = 0

    async def many(tx: Connection, requests: Sequence[int]) -> list[int]:
        nonlocal lost
        for number in requests:
            await tx.execute("insert into note values ($1, 1) on conflict do nothing", number)
        if lost == 0:
            lost += 1
            await tx.execute("commit")
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return list(requests)

    assert await settle_batch(notes, many, [1, 2]) == [1, 2]
    assert await kept(notes) == [1, 2]


async def test_a_killed_backend_is_survived(notes: Database) -> None:
    killed = False

    async def many(tx: Connection, requests: Sequence[int]) -> list[int]:
        nonlocal killed
        await tx.execute("insert into note select n, 1 from unnest($1::int[]) n on conflict do nothing", list(requests))
        if not killed:
            killed = True
            await tx.execute("select pg_terminate_backend(pg_backend_pid())")
        return list(requests)

    assert await settle_batch(notes, many, [1, 2, 3]) == [1, 2, 3]
    assert await kept(notes) == [1, 2, 3]


async def test_who_was_overtaken_by_another_process_starts_again(notes: Database) -> None:
    tries = 0

    async def many(tx: Connection, requests: Sequence[int]) -> list[int]:
        nonlocal tries
        tries += 1
        await tx.execute("insert into note values ($1, 1)", requests[0])
        if tries == 1:
            raise Again
        return list(requests)

    assert await settle_batch(notes, many, [5]) == [5]
    assert await kept(notes) == [5]


async def test_a_caller_that_went_away_does_not_disturb_the_rest(notes: Database) -> None:
    queue: Settle[int, int] = Settle(notes, Notes())
    tasks = [asyncio.create_task(queue.ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [a for a in answers if isinstance(a, int)] == [0, 1, 3, 4]
    await queue.close()


async def test_closing_settles_what_waits_and_takes_nothing_new(notes: Database) -> None:
    many = Notes()
    queue = shared(notes, many)
    assert shared(notes, many) is queue
    tasks = [asyncio.create_task(queue.ask(number)) for number in range(20)]
    await asyncio.sleep(0)
    await close_all(notes)
    assert await asyncio.gather(*tasks) == list(range(20))
    with pytest.raises(Busy):
        await queue.ask(21)


async def test_what_follows_a_commit_is_told_once_per_batch_and_may_fail(notes: Database) -> None:
    told = 0

    async def after() -> None:
        nonlocal told
        told += 1
        raise RuntimeError("redis is gone")

    many = Notes()
    queue: Settle[int, int] = Settle(notes, many, after=after)
    await asyncio.gather(*(queue.ask(number) for number in range(30)))
    await queue.close()
    assert told == len(many.batches)
