"""The brokering engine, as a library: allocates order lines to locations at the least total cost.

from brokering import Problem, broker, audit
plan = broker(problem, seconds=60, seed=0)     # always a legal plan; better with more time
assert not audit(problem, plan)                # the law again, in plain Python, no solver
plan.cost, plan.bound, plan.unfilled           # what it costs, what nothing can beat, what stays and why
"""

from brokering.audit import RULES, audit
from brokering.baselines import nearest, one_at_a_time
from brokering.engine import broker
from brokering.online import Online
from brokering.problem import (
    Assignment,
    Barred,
    Candidate,
    CellPrice,
    Decision,
    Flip,
    Labor,
    Limit,
    Line,
    Location,
    Order,
    Plan,
    Policy,
    Problem,
    Protected,
    Shadow,
    Slot,
    Stock,
    Tariff,
    Unfilled,
    WorkPrice,
)  # fmt: skip

__all__ = [
    "RULES",
    "Assignment",
    "Barred",
    "Candidate",
    "CellPrice",
    "Decision",
    "Flip",
    "Labor",
    "Limit",
    "Line",
    "Location",
    "Online",
    "Order",
    "Plan",
    "Policy",
    "Problem",
    "Protected",
    "Shadow",
    "Slot",
    "Stock",
    "Tariff",
    "Unfilled",
    "WorkPrice",
    "audit",
    "broker",
    "nearest",
    "one_at_a_time",
]
