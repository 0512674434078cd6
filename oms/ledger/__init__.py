"""The moves of quantities; the only caller of sql/ledger.sql.

Whoever changes a sku's stock or reservations first takes its availability row (`lock`), then writes stock
(`move`, `lift`, `place`), and ends with one `write` per transaction, which updates each row once.
"""

from oms.ledger.availability import (
    Allocation,
    Availability,
    Demand,
    Segment,
    layout,
    layouts_of,
    lock,
    relayout,
    segments,
    touch,
    write,
)
from oms.ledger.baseline import (
    InForce,
    acknowledge,
    correct_count,
    correct_late,
    counts_of,
    deduct,
    keys_in_force,
    moved_after,
    plan_for_chunks,
    plan_for_lookups,
    rebase,
    revert,
    undo_deductions,
)
from oms.ledger.days import Capacity, Work, capacity, work
from oms.ledger.moves import HOUSE, Hold, Move, Stock, holds_to_lift, lift, move, refold, restock, restock_skus, stock
from oms.ledger.statements import sql

__all__ = [
    "HOUSE",
    "Allocation",
    "Availability",
    "Capacity",
    "Demand",
    "Hold",
    "InForce",
    "Move",
    "Segment",
    "Stock",
    "Work",
    "acknowledge",
    "capacity",
    "correct_count",
    "correct_late",
    "counts_of",
    "deduct",
    "holds_to_lift",
    "keys_in_force",
    "layout",
    "layouts_of",
    "lift",
    "lock",
    "move",
    "moved_after",
    "plan_for_chunks",
    "plan_for_lookups",
    "rebase",
    "refold",
    "relayout",
    "restock",
    "restock_skus",
    "revert",
    "segments",
    "sql",
    "stock",
    "touch",
    "undo_deductions",
    "work",
    "write",
]
