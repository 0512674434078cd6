"""What customers send back: to any location, sellable only after inspection, sent on by rule, refunded once."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from oms import access
from oms.db import Database
from oms.domain.returns import ReturnRule
from oms.errors import BadInput, Conflict, NotFound
from oms.flows import returns
from oms.flows.stock import receive, transfer, writeoff
from tests.demand import Work, allocated, ship
from tests.feeding import NOW, ask, check, exceptions, on_hand, stock
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=20)
    yield net
    await check(db)


def person(net: Net, name: str = "eve", *, location: str = "S2") -> access.Actor:
    return access.Actor(key_id=None, role="associate", person=name, who=name, location_id=net.locations[location])


async def bought(db: Database, net: Net, units: int = 3) -> Work:
    work = await allocated(db, net, "N1", ("A", units, "W1"))
    await ship(db, work)
    return work


async def announced(db: Database, net: Net, work: Work, units: int, *, reason: str = "fits not") -> UUID:
    return await returns.announce(
        db, location_id=net.locations["S1"], order_id=work.order_id, lines=[returns.Sent(units, reason, line="1")],
        actor=person(net), now=NOW,
    )  # fmt: skip


async def here(db: Database, net: Net, made: UUID, *, location: str = "S2") -> str:
    return await returns.receive(
        db,
        return_id=made,
        location_id=net.locations[location],
        lines=None,
        actor=person(net, location=location),
        now=NOW,
    )


async def looked(db: Database, net: Net, made: UUID, units: int, condition: str, *, location: str = "S2") -> str:
    (said,) = await returns.inspect(
        db, return_id=made, found_units=[returns.Found(1, units, condition)], actor=person(net, location=location), now=NOW,
        device="phone",
    )  # fmt: skip
    return str(said["outcome"])


async def refunds(db: Database) -> list[tuple[int, int]]:
    async with db.connection() as tx:
        rows = await tx.fetch("select body from notice where kind = 'refund_due'")
    return [(r[0]["cents"], r[0]["lines"][0]["refunded"]) for r in rows]


async def test_a_return_may_come_anywhere_and_is_sold_again_only_after_it_was_inspected(db: Database, net: Net) -> None:
    work = await bought(db, net)
    made = await announced(db, net, work, 2)
    assert await here(db, net, made) == "received"
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (2, 2)
    assert await refunds(db) == []
    assert await looked(db, net, made, 1, "new") == "stock"
    assert (await stock(db, "A", "S2", "held"), await refunds(db)) == (1, [])
    assert await looked(db, net, made, 1, "opened") == "hold"
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (2, 1)
    assert await refunds(db) == [(2000, 2)]
    assert await ask(db, "select returned from order_line") == 2
    steps = await ask(db, "select array_agg(step order by history_id) from history where kind = 'order'")
    assert steps[-5:] == ["return expected", "returned", "inspected", "inspected", "refund due"]


async def test_more_than_was_shipped_does_not_come_back(db: Database, net: Net) -> None:
    work = await bought(db, net)
    await announced(db, net, work, 2)
    for units, line in ((2, "1"), (1, "9")):
        with pytest.raises(BadInput) as refused:
            await returns.announce(
                db, location_id=net.locations["S1"], order_id=work.order_id, actor=person(net), now=NOW,
                lines=[returns.Sent(units, "x", line=line)],
            )  # fmt: skip
        assert refused.value.items[0]["line"] == line
    with pytest.raises(NotFound):
        await returns.announce(
            db, location_id=net.locations["S1"], channel="web", number="nothing", actor=person(net), now=NOW,
            lines=[returns.Sent(1, "x", line="1")],
        )  # fmt: skip


async def test_a_blind_return_is_known_by_its_codes_alone(db: Database, net: Net) -> None:
    made = await returns.announce(
        db, location_id=net.locations["S2"], lines=[returns.Sent(1, "unknown", code="A")], actor=person(net), now=NOW
    )
    await here(db, net, made)
    with pytest.raises(NotFound):
        await looked(db, net, made, 1, "new", location="S1")
    with pytest.raises(BadInput):
        await looked(db, net, made, 2, "new")
    await looked(db, net, made, 1, "new")
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (1, 0)
    with pytest.raises(Conflict):
        await here(db, net, made)
    with pytest.raises(BadInput):
        await returns.announce(
            db,
            location_id=net.locations["S2"],
            lines=[returns.Sent(1, "x", code="nonsense")],
            actor=person(net),
            now=NOW,
        )


async def test_damaged_units_are_written_off_and_above_the_limit_by_two_people(db: Database, net: Net) -> None:
    work = await bought(db, net, 19)
    made = await announced(db, net, work, 19)
    await here(db, net, made)
    assert await looked(db, net, made, 2, "damaged") == "write_off"
    assert await looked(db, net, made, 17, "damaged") == "write_off"
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (19, 19)
    assert [await writeoff.settle_asked(db, now=NOW) for _ in range(2)] == [2, 0]
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (17, 17)
    ((kind, subject),) = await exceptions(db)
    boss = access.Actor(key_id=None, role="approver", person="boss", who="boss")
    await writeoff.decide(db, write_off_id=UUID(subject), agrees=True, actor=boss, now=NOW)
    assert (kind, await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == ("write_off_waiting", 0, 0)
    assert await refunds(db) == [(19000, 19)]


async def test_a_rule_sends_units_on_to_a_location_that_is_near_enough(db: Database, net: Net) -> None:
    for code, rank, km in (("too far", 1, 10.0), ("hub", 2, 500.0)):
        rule = ReturnRule(code, rank, None, "new", None, "transfer", None, net.locations["S1"], km, True)
        await returns.set_rule(db, rule=rule, who="x")
    work = await bought(db, net)
    made = await announced(db, net, work, 2)
    await here(db, net, made)
    assert await looked(db, net, made, 2, "new") == "transfer"
    assert await ask(db, "select rule from inspection") == "hub"
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (2, 2)
    sent_on = await ask(db, "select transfer_id from transfer")
    await transfer.send(db, transfer_id=sent_on, actor=person(net), now=NOW)
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (0, 0)
    await receive.receive(
        db, location_id=net.locations["S1"], reference=str(sent_on), is_final=True, now=NOW,
        lines=[receive.Came("A", 2)], actor=person(net, location="S1"),
    )  # fmt: skip
    assert await on_hand(db, "A", "S1") == 2
    with pytest.raises(BadInput):
        await returns.set_rule(db, rule=ReturnRule("x", 1, None, None, None, "hold", None, None, None, True), who="x")


async def test_fewer_than_announced_come_and_the_refund_is_for_those(db: Database, net: Net) -> None:
    work = await bought(db, net)
    made = await announced(db, net, work, 3)
    await returns.receive(
        db, return_id=made, location_id=net.locations["S2"], lines=[returns.Came(1, 1)], actor=person(net), now=NOW
    )
    with pytest.raises(BadInput):
        await returns.receive(
            db, return_id=made, location_id=net.locations["S2"], lines=[returns.Came(1, 3)], actor=person(net), now=NOW
        )
    with pytest.raises(Conflict):
        await here(db, net, made, location="S1")
    await returns.inspect(
        db, return_id=made, found_units=[returns.Found(1, 1, "new")], is_final=True, actor=person(net), now=NOW
    )
    assert await refunds(db) == [(1000, 1)]
