"""Where what comes back goes, and what a count says: decided without a database."""

from typing import Any

import pytest

from oms.domain.counting import after_count, needs_two, variance_of
from oms.domain.returns import KEEP, ReturnRule, rule_for

HERE, NEAR, FAR = 1, 2, 3
KM: dict[int, float | None] = {HERE: 0.0, NEAR: 40.0, FAR: 900.0, 9: None}


def rule(code: str, rank: int, outcome: str, **more: Any) -> ReturnRule:
    fields: dict[str, Any] = {
        "reason": None, "condition": None, "location_id": None, "hold_code": None, "to_id": None, "km_max": None,
        "refunds": True,
    }  # fmt: skip
    return ReturnRule(code=code, rank=rank, outcome=outcome, **(fields | more))


RULES = [
    rule("wrong", 1, "hold", condition="wrong_item", hold_code="fraud", refunds=False),
    rule("faulty", 2, "write_off", reason="faulty", condition="used"),
    rule("unknown place", 3, "transfer", condition="new", to_id=9, km_max=100.0),
    rule("outlet", 4, "transfer", condition="new", to_id=FAR, km_max=100.0),
    rule("hub", 5, "transfer", condition="new", to_id=NEAR, km_max=100.0),
    rule("shelf", 6, "stock", condition="new"),
]


@pytest.mark.parametrize(
    ("reason", "condition", "at", "expected"),
    [
        ("fits not", "new", HERE, "hub"), ("fits not", "new", NEAR, "shelf"), ("faulty", "used", HERE, "faulty"),
        ("fits not", "used", HERE, KEEP.code), ("x", "wrong_item", HERE, "wrong"),
    ],
)  # fmt: skip
def test_the_first_rule_that_fits_by_reason_condition_and_distance_decides(
    reason: str, condition: str, at: int, expected: str
) -> None:
    assert rule_for(RULES, reason=reason, condition=condition, location_id=at, km=KM).code == expected


def test_a_unit_picked_and_not_yet_shipped_is_not_missing() -> None:
    assert variance_of(counted=7, in_hands=3, moved_after=0, on_hand=10) == 0
    assert variance_of(counted=7, in_hands=3, moved_after=-2, on_hand=8) == 0


def test_a_first_count_that_is_far_off_is_recounted_and_a_recount_stands() -> None:
    assert [after_count(s, variance=-3, recount_units_min=3) for s in ("due", "recount")] == ["recount", "apply"]
    assert after_count("due", variance=2, recount_units_min=3) == "apply"


def test_small_losses_of_a_day_add_up_to_one_that_needs_two() -> None:
    assert [needs_two(lost_today_cents=c, cents=600, limit_cents=1000) for c in (0, 400, 401)] == [False, False, True]
    assert not needs_two(lost_today_cents=5000, cents=0, limit_cents=1000)
