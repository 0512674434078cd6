"""Matching needs with cells, against the smallest cut and its own accounts."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.domain.matching import left_in_own, match

NEEDS = 6

some = st.integers(0, 9)
cells = st.lists(st.tuples(st.integers(0, 2**NEEDS - 1), some, some), max_size=9)
needs = st.lists(some, min_size=NEEDS, max_size=NEEDS)


def most(masks: list[int], units: list[int], need: list[int]) -> int:
    """What can be matched at most: over every set of needs, what its cells have and the other needs want."""
    return min(
        sum(u for mask, u in zip(masks, units, strict=True) if mask & chosen)
        + sum(n for bit, n in enumerate(need) if not chosen >> bit & 1)
        for chosen in range(1 << NEEDS)
    )


def check_accounts(masks: list[int], free: list[int], need: list[int], *, left: list[int], short: list[int]) -> None:
    """`left` and `short` are what became of `free` and `need` by `match`; each unit is where it may be, once."""
    matched = [[0] * len(masks) for _ in need]
    total = match(masks, left, short, matched)
    assert total == most(masks, free, need) == sum(map(sum, matched))
    assert all(units >= 0 for row in matched for units in row)
    assert all(units == 0 or masks[c] >> bit & 1 for bit, row in enumerate(matched) for c, units in enumerate(row))
    assert [n - sum(row) for n, row in zip(need, matched, strict=True)] == short
    assert [u - sum(row[c] for row in matched) for c, u in enumerate(free)] == left


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells, needs)
def test_as_much_is_matched_as_the_smallest_cut_lets_through_and_each_unit_once(cells: list, need: list[int]) -> None:
    masks, free, _ = ([cell[n] for cell in cells] for n in range(3))
    check_accounts(masks, free, need, left=free.copy(), short=need.copy())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells, needs)
def test_what_is_left_in_own_is_the_difference_that_it_makes(cells: list, need: list[int]) -> None:
    masks, free, own = ([cell[n] for cell in cells] for n in range(3))
    everything = [f + o for f, o in zip(free, own, strict=True)]
    left = sum(own) + most(masks, free, need) - most(masks, everything, need)
    assert left_in_own(masks, free.copy(), own, need=need.copy()) == left


def test_a_need_makes_room_for_another_over_several_cells() -> None:
    # each need but the last took the cell that the next one wants; all of them move on by one
    masks = [0b0011, 0b0110, 0b1100, 0b1000]
    matched = [[0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]
    left, short = [0, 0, 0, 2], [2, 0, 0, 0]
    assert match(masks, left, short, matched) == 2
    assert matched == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]
    assert (left, short) == ([0, 0, 0, 0], [0, 0, 0, 0])


def test_no_more_moves_than_the_narrowest_step_of_the_way_allows() -> None:
    matched = [[0, 0], [1, 0]]
    left, short = [0, 5], [4, 0]
    assert match([0b11, 0b10], left, short, matched) == 1
    assert (matched, left, short) == ([[1, 0], [0, 1]], [0, 4], [3, 0])
