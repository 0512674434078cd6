"""A comparison as people read it: locations by code, orders by channel and number."""

from collections.abc import Mapping
from typing import Any

import msgspec

from brokering.compare import Comparison, Figures, Moved, Moves
from brokering.trail import Routed, sentences
from oms.db import Database, Sql

sql = Sql("what_if")
broker_sql = Sql("broker")

order_names = sql.rows("order_names", tuple)
location_codes = broker_sql.rows("location_codes", tuple)


async def tell(db: Database, found: Comparison, *, summaries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """`{base, plans: [{name, figures}], moves: [{to, orders, cents_more, why, shown}]}`, with codes instead of ids."""
    ids = sorted({m.order_id for moves in found.moves.values() for m in moves.shown})
    async with db.pool.acquire() as tx, tx.transaction(readonly=True):
        codes: dict[int, str] = dict(await location_codes(tx))
        names = {order_id: (channel, number) for order_id, channel, number in await order_names(tx, orders=ids)}
    return {
        "base": found.base,
        "plans": [{"name": name, **_figures(f, codes, summaries.get(name, {}))} for name, f in found.plans.items()],
        "moves": [{"to": name, **_moves(m, codes, names)} for name, m in found.moves.items()],
    }


async def tell_routed(
    db: Database, found: Comparison, routed: Mapping[str, Routed], *, left_out: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Of each of the routings: what its rules did, hints, and the trail of each order that is shown as moving."""
    async with db.connection() as tx:
        codes: dict[int, str] = dict(await location_codes(tx))
    told = []
    for name, r in routed.items():
        moves = found.moves.values() if name == found.base else [found.moves[name]]
        shown = {m.order_id for some in moves for m in some.shown}
        told.append({
            "name": name, "rules": msgspec.to_builtins(r.rules), "hints": [*left_out[name], *r.hints],
            "trails": {t.order_id: sentences(t, codes) for t in r.trails if t.order_id in shown},
        })  # fmt: skip
    return told


def _figures(figures: Figures, codes: Mapping[int, str], summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(figures),
        "load": [{"location": _code(codes, x.location_id), "packages": x.packages, "units": x.units} for x in figures.load],
        **{name: summary[name] for name in ("bound_cents", "gap") if name in summary},
    }  # fmt: skip


def _moves(moves: Moves, codes: Mapping[int, str], names: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {
        "orders": moves.orders, "cents_more": moves.cents_more, "why": moves.why,
        "shown": [_moved(m, codes, names) for m in moves.shown],
    }  # fmt: skip


def _moved(moved: Moved, codes: Mapping[int, str], names: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    channel, number = names.get(moved.order_id, (None, None))
    return {
        "order_id": moved.order_id, "channel": channel, "number": number,
        "was": {_code(codes, n): units for n, units in moved.was.items()},
        "becomes": {_code(codes, n): units for n, units in moved.becomes.items()},
        "cents_was": moved.cents_was, "cents_becomes": moved.cents_becomes, "cents_more": moved.cents_more,
        "why": [
            {"location": None if r.location_id is None else _code(codes, r.location_id), "why": r.why} for r in moved.why
        ],
    }  # fmt: skip


def _code(codes: Mapping[int, str], location_id: int) -> str:
    return codes.get(location_id, str(location_id))
