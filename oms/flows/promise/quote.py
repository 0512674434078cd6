"""What a customer's basket costs and when each of its lines is there, before it is reserved."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from oms import named
from oms.db import Database, Sql
from oms.domain.basket import BasketLine, ways_of
from oms.domain.order import CartLine
from oms.errors import BadInput
from oms.flows.promise.dated import Place, promise

sql = Sql("aisle")


class _Price(msgspec.Struct, frozen=True):
    sku_id: int
    price_cents: int | None


prices = sql.rows("prices", _Price)


async def quoted(
    db: Database, *, channel_id: int, lines: Sequence[BasketLine], to: Place | None, ship_method: str, now: datetime
) -> list[BasketLine]:
    """Lines with their price (the list's, where none is given) and when they are there, in the order in which they came.

    Raises BadInput for skus and locations that nobody knows, by line.
    """
    costs = await _prices(db, channel_id, lines)
    dated: dict[str, tuple[str | None, str]] = {}
    for (method, location), some in ways_of(lines).items():
        if method == "take_away":
            dated |= {n.line: (now.isoformat(), f"from the stock of {location}") for n in some}
            continue
        where = to if method == "ship" else Place(pickup=location)
        assert where is not None, "faults_of_basket asks for it"
        cart = [CartLine(n.sku, n.quantity) for n in some]
        how = ship_method if method == "ship" else method
        said = await promise(db, channel_id=channel_id, lines=cart, method=how, to=where, now=now)
        told = {line.sku: line for line in said.lines}
        for n in some:
            day = told[n.sku].arrives_on
            when = said.ready_from if method == "pickup" and said.ready_from else day.isoformat() if day else None
            dated[n.line] = when, told[n.sku].why
    return [
        msgspec.structs.replace(
            n, price_cents=costs[n.sku] if n.price_cents is None else n.price_cents,
            when=dated[n.line][0], why=dated[n.line][1],
        )
        for n in lines
    ]  # fmt: skip


async def _prices(db: Database, channel_id: int, lines: Sequence[BasketLine]) -> dict[str, int | None]:
    """The list price of each code."""
    async with db.connection() as tx:
        names = {c: n for (_, c), n in (await named.skus_of(tx, {(channel_id, n.sku) for n in lines})).items()}
        places = await named.places_of(tx, {n.location for n in lines if n.location is not None})
        costs = {p.sku_id: p.price_cents for p in await prices(tx, skus=[n.sku_id for n in names.values()])}
    faults = [
        {"field": f"lines[{place}].sku", "reason": f"no sku has the code {n.sku!r}"}
        for place, n in enumerate(lines) if n.sku not in names
    ] + [
        {"field": f"lines[{place}].location", "reason": f"no location has the code {n.location!r}"}
        for place, n in enumerate(lines) if n.location is not None and n.location not in places
    ]  # fmt: skip
    if faults:
        raise BadInput("; ".join(f"{f['field']}: {f['reason']}" for f in faults), items=faults)
    return {code: costs.get(name.sku_id) for code, name in names.items()}
