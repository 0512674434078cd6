import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest

from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import BadInput, Conflict, KeyReused, NotFound, OutOfStock, Refusal
from oms.flows.reserve import Cart, Granted, Key, Replayed, expire_due, extend, release, reserve_many
from oms.settle import Settle, settle_batch
from tests.balance import check_balance
from tests.world import Net, make_key, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


def cart(net: Net, *lines: tuple[str, int], channel: str = "web", **more: object) -> Cart:
    return Cart(
        reservation_id=uuid4(), channel_id=net.channels[channel],
        lines=tuple(CartLine(sku, quantity) for sku, quantity in lines), **more,
    )  # fmt: skip


def render(answer: Granted | Refusal) -> tuple[int, bytes]:
    if isinstance(answer, Refusal):
        return 409, answer.detail.encode()
    return 201, msgspec.json.encode(answer)


async def reserve(db: Database, *carts: Cart) -> list[object]:
    return await settle_batch(db, reserve_many, carts)


async def one(db: Database, wish: Cart) -> object:
    return (await reserve(db, wish))[0]


async def make_due(db: Database, granted: object) -> None:
    assert isinstance(granted, Granted)
    async with db.transaction() as tx:
        await tx.execute(
            "update reservation set expires_at = clock_timestamp() - interval '1 second' where reservation_id = $1",
            granted.id,
        )


async def afters(db: Database, granted: object) -> list[int]:
    assert isinstance(granted, Granted)
    async with db.connection() as connection:
        rows = await connection.fetch(
            "select atp_after from reservation_line where reservation_id = $1 order by sku_id", granted.id
        )
    return [row[0] for row in rows]


async def test_two_shoppers_cannot_take_the_last_unit(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    both = await asyncio.gather(one(db, cart(net, ("A", 1))), one(db, cart(net, ("A", 1))))
    assert sorted(type(answer).__name__ for answer in both) == ["Granted", "OutOfStock"]


async def test_n_carts_for_m_units_sell_exactly_m_over_several_queues(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=23)
    await set_stock(db, sku="A", location="S1", quantity=14)
    queues = [Settle(db, reserve_many, batch_max=7) for _ in range(4)]

    async def try_one(number: int) -> bool:
        try:
            await queues[number % 4].ask(cart(net, ("A", 1)))
        except OutOfStock:
            return False
        return True

    sold = await asyncio.gather(*(try_one(number) for number in range(150)))
    await asyncio.gather(*(queue.close() for queue in queues))
    assert sum(sold) == 37


async def test_overlapping_pools_and_a_pickup_sell_exactly_what_there_is(db: Database, net: Net) -> None:
    """W1 serves web, S2 serves local, S1 both; pick-ups take from S1. The total is the exact maximum: everything."""
    for location, quantity in (("W1", 5), ("S1", 6), ("S2", 4)):
        await set_stock(db, sku="A", location=location, quantity=quantity)
    queues = [Settle(db, reserve_many, batch_max=5) for _ in range(3)]
    kinds = [
        {"channel": "web"},
        {"channel": "local"},
        {"channel": "local", "location": "S1"},
    ]

    async def try_one(number: int) -> str | None:
        try:
            await queues[number % 3].ask(cart(net, ("A", 1), **kinds[(number * 7) % 3]))
        except OutOfStock:
            return None
        return "sold"

    sold = await asyncio.gather(*(try_one(number) for number in range(90)))
    await asyncio.gather(*(queue.close() for queue in queues))
    assert sum(answer is not None for answer in sold) == 15


async def test_a_cart_is_reserved_whole_or_not_at_all_and_the_refusal_says_what_was_short(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    await set_stock(db, sku="B", location="W1", quantity=1)
    refusal = await one(db, cart(net, ("A", 2), ("B", 3)))
    assert isinstance(refusal, OutOfStock)
    assert refusal.items == [{"sku": "B", "quantity": 3, "atp": 1}]
    granted = await one(db, cart(net, ("A", 5), ("B", 1)))
    assert await afters(db, granted) == [0, 0]


async def test_the_same_sku_on_two_lines_is_summed_before_it_is_checked(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    assert isinstance(await one(db, cart(net, ("A", 2), ("A", 2))), OutOfStock)
    granted = await one(db, cart(net, ("A", 2), ("A", 1)))
    assert isinstance(granted, Granted)
    assert granted.lines == [CartLine("A", 3)]


async def test_a_kit_reserves_its_parts_and_shares_them_with_plain_lines(db: Database, net: Net) -> None:
    await make_kit(db, net, "K", A=2, B=1)
    await set_stock(db, sku="A", location="W1", quantity=5)
    await set_stock(db, sku="B", location="W1", quantity=9)
    refusal = await one(db, cart(net, ("K", 2), ("A", 2)))
    assert isinstance(refusal, OutOfStock)
    assert {item["sku"] for item in refusal.items} == {"K", "A"}
    assert isinstance(await one(db, cart(net, ("K", 2), ("A", 1))), Granted)
    async with db.connection() as connection:
        held = await connection.fetch("select sku_id, sum(quantity) from reservation_line group by 1 order by 1")
    assert [tuple(row) for row in held] == [(net.skus["A"], 5), (net.skus["B"], 2)]


async def make_kit(db: Database, net: Net, code: str, **parts: int) -> None:
    async with db.transaction() as tx:
        kit_id = await tx.fetchval("insert into sku (code, is_kit) values ($1, true) returning sku_id", code)
        await tx.executemany(
            "insert into kit values ($1, $2, $3)", [(kit_id, net.skus[part], units) for part, units in parts.items()]
        )


async def test_a_pickup_is_allocated_there_at_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    await set_stock(db, sku="A", location="W1", quantity=9)
    granted = await one(db, cart(net, ("A", 2), location="S1"))
    assert await afters(db, granted) == [0]
    refusal = await one(db, cart(net, ("A", 1), location="S1"))
    assert isinstance(refusal, OutOfStock)
    assert isinstance(await one(db, cart(net, ("A", 9))), Granted)
    assert isinstance(granted, Granted)
    assert await release(db, reservation_id=granted.id)
    assert isinstance(await one(db, cart(net, ("A", 1), location="S1")), Granted)


async def test_a_pickup_does_not_take_what_another_pool_was_promised(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    assert isinstance(await one(db, cart(net, ("A", 2), channel="local")), Granted)
    assert isinstance(await one(db, cart(net, ("A", 1), location="S1")), OutOfStock)


async def test_a_pickup_outside_the_channels_pool_is_refused(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    assert isinstance(await one(db, cart(net, ("A", 1), channel="local", location="W1")), Conflict)


async def test_buffer_and_cap_of_a_channel_decide_as_they_show(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=10)
    await set_rule(db, net, buffer=2, cap=5)
    assert isinstance(await one(db, cart(net, ("A", 6))), OutOfStock)
    five = await one(db, cart(net, ("A", 5)))
    assert isinstance(five, Granted)
    assert isinstance(await one(db, cart(net, ("A", 1))), OutOfStock)
    assert await release(db, reservation_id=five.id)
    await set_rule(db, net, buffer=2, cap=None)
    assert isinstance(await one(db, cart(net, ("A", 9))), OutOfStock)
    assert isinstance(await one(db, cart(net, ("A", 8))), Granted)


async def test_a_cap_counts_pickups_too(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    await set_rule(db, net, buffer=0, cap=3)
    assert isinstance(await one(db, cart(net, ("A", 2), location="S1")), Granted)
    assert isinstance(await one(db, cart(net, ("A", 2))), OutOfStock)
    assert isinstance(await one(db, cart(net, ("A", 1))), Granted)


async def set_rule(db: Database, net: Net, *, buffer: int, cap: int | None) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "update channel set buffer = $1, cap = $2 where channel_id = $3", buffer, cap, net.channels["web"]
        )


async def test_nobody_is_refused_for_the_sake_of_the_dead(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    await set_stock(db, sku="B", location="S1", quantity=1)
    await make_due(db, await one(db, cart(net, ("A", 2))))
    await make_due(db, await one(db, cart(net, ("B", 1), location="S1")))
    assert isinstance(await one(db, cart(net, ("A", 2), ("B", 1))), Granted)


async def test_a_due_reservation_that_is_being_claimed_is_left_to_its_claimer(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    granted = await one(db, cart(net, ("A", 1)))
    await make_due(db, granted)
    assert isinstance(granted, Granted)
    async with db.transaction() as claimer:
        await claimer.execute("select from reservation where reservation_id = $1 for update", granted.id)
        assert isinstance(await one(db, cart(net, ("A", 1))), OutOfStock)
        assert await expire_due(db) == 0
    assert isinstance(await one(db, cart(net, ("A", 1))), Granted)


async def test_the_job_expires_what_is_due_in_batches_and_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    answers = [await one(db, cart(net, ("A", 1))) for _ in range(5)]
    for answer in answers[:4]:
        await make_due(db, answer)
    counts = await asyncio.gather(expire_due(db, batch=2), expire_due(db, batch=2))
    assert sum(counts) + await expire_due(db) == 4
    assert isinstance(await one(db, cart(net, ("A", 8))), Granted)


async def test_release_is_idempotent_and_frees_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    granted = await one(db, cart(net, ("A", 1)))
    assert isinstance(granted, Granted)
    assert not await release(db, reservation_id=granted.id, channels=[net.channels["local"]])
    freed = await asyncio.gather(*(release(db, reservation_id=granted.id) for _ in range(3)))
    assert sorted(freed) == [False, False, True]
    assert not await release(db, reservation_id=uuid4())
    assert isinstance(await one(db, cart(net, ("A", 1))), Granted)


async def test_an_extended_reservation_outlives_its_time_and_an_ended_one_cannot(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    granted = await one(db, cart(net, ("A", 1)))
    await make_due(db, granted)
    assert isinstance(granted, Granted)
    await extend(db, reservation_id=granted.id, ttl_seconds=60)
    assert await expire_due(db) == 0
    await release(db, reservation_id=granted.id)
    with pytest.raises(NotFound):
        await extend(db, reservation_id=granted.id, ttl_seconds=60)


async def keyed(db: Database, net: Net, key: str, *lines: tuple[str, int], body: bytes = b"1") -> Cart:
    async with db.connection() as connection:
        key_id = await connection.fetchval("select key_id from api_key limit 1")
    if key_id is None:
        await make_key(db, "admin")
        return await keyed(db, net, key, *lines, body=body)
    return cart(net, *lines, key=Key(key_id, key, body, render))


async def test_the_same_key_gets_its_first_answer_again_grants_and_refusals_alike(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    granted = await one(db, await keyed(db, net, "k1", ("A", 1)))
    refused = await one(db, await keyed(db, net, "k2", ("A", 1)))
    assert isinstance(granted, Granted)
    assert isinstance(refused, OutOfStock)
    await set_stock(db, sku="A", location="W1", quantity=9)
    assert await one(db, await keyed(db, net, "k1", ("A", 1))) == Replayed(201, msgspec.json.encode(granted))
    assert await one(db, await keyed(db, net, "k2", ("A", 1))) == Replayed(409, refused.detail.encode())
    assert isinstance(await one(db, await keyed(db, net, "k1", ("A", 2), body=b"2")), KeyReused)


async def test_one_key_asked_at_the_same_moment_reserves_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    carts = [await keyed(db, net, "k", ("A", 1)) for _ in range(6)]
    answers = await reserve(db, *carts[:2])
    answers += [await a for a in asyncio.as_completed([one(db, c) for c in carts[2:]])]
    bodies = {msgspec.json.encode(a) if isinstance(a, Granted) else a.body for a in answers}  # type: ignore[attr-defined]
    assert len(bodies) == 1
    async with db.connection() as connection:
        assert await connection.fetchval("select count(*) from reservation") == 1


async def test_one_new_key_in_several_processes_reserves_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    await set_stock(db, sku="B", location="W1", quantity=9)
    carts = [await keyed(db, net, "k", ("A", 1)) for _ in range(6)]
    answers = await asyncio.gather(*(one(db, c) for c in carts))
    assert sum(isinstance(a, Granted) for a in answers) == 1
    assert sum(isinstance(a, Replayed) for a in answers) == 5
    async with db.connection() as connection:
        assert await connection.fetchval("select count(*) from reservation") == 1


async def test_the_same_reservation_id_again_is_the_same_reservation(db: Database, net: Net) -> None:
    """What a lost connection in commit leads to: the same request is settled twice."""
    await set_stock(db, sku="A", location="W1", quantity=9)
    wish = cart(net, ("A", 2))
    assert await one(db, wish) == await one(db, wish)
    async with db.connection() as connection:
        assert await connection.fetchval("select sum(quantity) from reservation_line") == 2


async def test_a_cart_that_cannot_be_read_is_refused_with_its_places(db: Database, net: Net) -> None:
    refusal = await one(db, cart(net, ("A", 1), ("nope", 1), ("B", 0)))
    assert isinstance(refusal, BadInput)
    assert [item["field"] for item in refusal.items] == ["lines[2].quantity", "lines[1].sku"]
    assert isinstance(await one(db, cart(net, ("A", 1), location="nope")), NotFound)


async def test_a_broken_promise_elsewhere_leaves_other_pools_selling(db: Database, net: Net) -> None:
    """A walk-in takes what local was promised; web still sells what is its own."""
    await set_stock(db, sku="A", location="S2", quantity=3)
    await set_stock(db, sku="A", location="W1", quantity=2)
    assert isinstance(await one(db, cart(net, ("A", 3), channel="local")), Granted)
    await set_stock(db, sku="A", location="S2", quantity=0)
    assert isinstance(await one(db, cart(net, ("A", 3))), OutOfStock)
    assert isinstance(await one(db, cart(net, ("A", 2))), Granted)
