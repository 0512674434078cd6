"""Bugs of the kinds that others shipped (reliability.md), one change of a function or of a statement each."""

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from oms import ledger
from oms.book import Book
from oms.db import Sql
from oms.domain import atp
from oms.flows import reserve
from oms.flows.broker import allocate
from oms.flows.fulfill import answers, hands, steps
from oms.flows.stock import count, writeoff

reject = importlib.import_module("oms.flows.fulfill.reject")  # the package has a function of that name
Plant = Callable[[pytest.MonkeyPatch], None]


def statement(file: str, name: str, *changes: tuple[str, str]) -> Plant:
    """A statement with some of its text changed, wherever it is bound."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        found = [s for s in Sql.bound if (s.file, s.block.name) == (file, name)]
        assert found, f"there is no statement {file}.{name}"
        for one in found:
            text = one.block.text
            for old, new in changes:
                assert old in text, f"{file}.{name} has no {old!r}"
                text = text.replace(old, new)
            patch.setattr(one, "block", msgspec.structs.replace(one.block, text=text))

    return plant


def function(where: Any, name: str, other: Any) -> Plant:
    """Another function in the place of one that is there."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        assert hasattr(where, name)
        patch.setattr(where, name, other)

    return plant


async def nothing(*_: Any, **__: Any) -> list[Any]:
    """As if there were none."""
    return []


async def zero(*_: Any, **__: Any) -> int:
    """As if nothing had happened."""
    return 0


def last_of(lines: Any) -> dict[str, int]:
    """Units by code, of the last line that names it."""
    return {line.sku: line.quantity for line in lines}


def each_for_itself(book: Book, sku_id: int, pool_id: int) -> int:
    """What a pool could sell if it were the only one."""
    row = book.rows[sku_id]
    layout = book.layouts[row.layout_id]
    place = layout.pools.index(pool_id)
    mine = [n for n, mask in zip(book._supply[sku_id], layout.segments, strict=True) if mask >> place & 1]
    return max(0, sum(mine) - book._reserved[sku_id][place])


def unheld(original: Any) -> Any:
    """The ledger's names, with movements that place no hold."""

    def move(**given: Any) -> ledger.Move:
        return original.Move(**given | {"hold_code": None, "held": 0})

    return SimpleNamespace(**{**vars(original), "Move": move})


def _sellable_at_once(patch: pytest.MonkeyPatch) -> None:
    from oms.flows.returns.receive import receive

    patch.setitem(receive.__globals__, "ledger", unheld(ledger))


def _changed_is_written(patch: pytest.MonkeyPatch) -> None:
    """Neither a line's version nor its hold is looked at when it is allocated."""
    fits = allocate._fits

    def fits_anyhow(book: Book, w: Any, line: Any, places: Any) -> Any:
        read = msgspec.structs.replace(line, version=w.version, hold=None) if line is not None else None
        return fits(book, w, read, places)

    patch.setattr(allocate, "_fits", fits_anyhow)


def _settle_as_agreed(patch: pytest.MonkeyPatch) -> None:
    settle = writeoff._settle

    async def settle_all(tx: Any, found: Any, *, agrees: bool, who: str, now: Any) -> None:
        await settle(tx, found, agrees=True, who=who, now=now)

    patch.setattr(writeoff, "_settle", settle_all)


async def nothing_moved(*_: Any) -> dict[int, int]:
    """No movement came since."""
    return {}


BUGS: dict[str, Plant] = {
    "a lock that is skipped for speed": statement("ledger", "lock_skus", ("for update", "")),
    "check and allocation apart": function(Book, "may_allocate", lambda *_, **__: None),
    "pools that are added up each by itself": function(
        Book, "atp", lambda book, sku_id, rule: each_for_itself(book, sku_id, rule.pool_id)
    ),
    "an allocation that breaks another pool's promise": function(
        atp, "allocation_keeps_promises", lambda *_, **__: True
    ),
    "the same sku on two lines counted once": function(reserve, "summed", last_of),
    "a compensation for what never happened": statement("reserve", "take_live", ("and state = 'live' ", "")),
    "payment after expiry gives the units back twice": statement(
        "order", "take_claims", ("state = 'live' as is_live", "true as is_live")
    ),
    "a held order is brokered": _changed_is_written,
    "a capacity that never falls": statement(
        "ledger", "use_capacity",
        ("c.orders + n.orders", "c.orders + greatest(n.orders, 0)"), ("c.items + n.items", "c.items + greatest(n.items, 0)"),
    ),
    "a rejecting location is asked again": function(reject, "not_again", zero),
    "a rejection that empties the shelf takes what is in hands": function(reject, "in_hands", nothing),
    "a count that calls picks in progress missing": function(count, "in_hands_at", nothing),
    "a count that calls what was sold since missing": function(count.ledger, "moved_after", nothing_moved),
    "a step that is done twice acts twice": function(
        steps, "after_step", lambda state, step, **_: {"ship": "shipped"}.get(step) or state
    ),
    "what is shipped stays promised": statement(
        "ledger", "allocate_stock", ("s.allocated + n.quantity", "s.allocated + greatest(n.quantity, 0)")
    ),
    "two people pick the same": function(hands, "check_holder", lambda *_: None),
    "an answer that is doubled acts twice": statement(
        "handoff", "take_said", ("on conflict do nothing", "on conflict (location_id, message_id) do update set hash = excluded.hash")
    ),
    "a late answer is lost": function(answers, "_left_all_the_same", zero),
    "a message that comes again acts again": statement(
        "messages", "take_messages",
        ("on conflict do nothing", "on conflict (source_id, message_id) do update set hash = excluded.hash"),
    ),
    "a recall that the location keeps": statement(
        "order", "recall_lines", ("state = 'recalled'", "state = state")
    ),
    "what comes back is sold before anybody looked": _sellable_at_once,
    "more comes back than was sold": statement("returns", "returnable", ("- n.returned - coalesce(r.expected, 0)", "")),
    "a limit that small write-offs pass": function(count, "lost_today", zero),
    "a refused write-off is gone all the same": _settle_as_agreed,
    "a transfer that stays expected": statement("stock", "came", ("greatest(0, i.quantity - coalesce(n.quantity, 0))", "i.quantity")),
    "stock below zero counts when it comes back": function(
        ledger.Stock, "available", property(lambda s: s.on_hand - s.held - s.allocated - s.safety_stock)
    ),
}  # fmt: skip

CARTS = ("reserve", "reserve at once", "capture")
SOLD = ("capture", "plan", "apply")
OFTEN: dict[str, tuple[str, ...]] = {
    "a lock that is skipped for speed": ("reserve at once", "give up"),
    "check and allocation apart": SOLD,
    "pools that are added up each by itself": CARTS,
    "an allocation that breaks another pool's promise": (*CARTS, *SOLD),
    "the same sku on two lines counted once": CARTS,
    "a compensation for what never happened": ("reserve", "give up"),
    "payment after expiry gives the units back twice": (*CARTS, "run out", "expire"),
    "a held order is brokered": (*SOLD, "hold"),
    "a capacity that never falls": (*SOLD, "cancel"),
    "a rejecting location is asked again": ("capture", "plan", "reject", "broker"),
    "a rejection that empties the shelf takes what is in hands": (*SOLD, "work", "reject"),
    "a count that calls picks in progress missing": (*SOLD, "work", "look", "count"),
    "a count that calls what was sold since missing": ("move", "look", "count"),
    "a step that is done twice acts twice": (*SOLD, "work"),
    "what is shipped stays promised": (*SOLD, "work"),
    "two people pick the same": (*SOLD, "take in hand", "work"),
    "an answer that is doubled acts twice": (*SOLD, "answer", "answer again"),
    "a late answer is lost": (*SOLD, "cancel", "answer"),
    "a message that comes again acts again": ("move", "move again"),
    "a recall that the location keeps": (*SOLD, "cancel"),
    "what comes back is sold before anybody looked": (*SOLD, "work", "return", "return on"),
    "more comes back than was sold": (*SOLD, "work", "return", "return on"),
    "a limit that small write-offs pass": ("write off", "receive"),
    "a refused write-off is gone all the same": ("write off", "decide", "receive"),
    "a transfer that stays expected": ("receive", "transfer", "transfer on"),
    "stock below zero counts when it comes back": ("move", "relieve"),
}
"""What a life does often in which a bug shows soon."""
FIRST = {
    "an allocation that breaks another pool's promise": 2, "a held order is brokered": 2,
    "a rejection that empties the shelf takes what is in hands": 7, "two people pick the same": 2,
    "a late answer is lost": 3, "more comes back than was sold": 1, "a refused write-off is gone all the same": 1,
}  # fmt: skip
"""The life in which a bug was first seen, where it is not the first: it is tried before the others."""
