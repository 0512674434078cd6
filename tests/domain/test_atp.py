"""What may be promised, against a search for places unit by unit that knows nothing of segments, masks or margins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms.domain import atp
from oms.domain.atp import Layout, Step

TODAY = date(2026, 11, 23)

many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class World(NamedTuple):
    """Units available by location, the locations of each pool, and the units reserved in it."""

    available: list[int]
    pools: list[set[int]]
    reserved: list[int]

    def row(self) -> tuple[Layout, list[int], list[int], dict[int, int]]:
        layout, segment_of = Layout.build(dict(enumerate(self.pools)), range(len(self.available)))
        supply = [0] * len(layout.segments)
        for location, units in enumerate(self.available):
            supply[segment_of[location]] += units
        return layout, supply, list(self.reserved), segment_of


@st.composite
def worlds(draw: st.DrawFn, *, pools: tuple[int, int] = (1, 5), reserved: tuple[int, int] = (0, 6)) -> World:
    available = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    places = st.sets(st.integers(0, len(available) - 1), max_size=4)
    members = draw(st.lists(places, min_size=pools[0], max_size=pools[1]))
    units = draw(st.lists(st.integers(*reserved), min_size=len(members), max_size=len(members)))
    return World(available, members, units)


class Places:
    """Units of demand in places, as many as can be kept: each new one may push others to other places."""

    def __init__(self, room: Sequence[int]) -> None:
        self.room = list(room)
        self.guests: list[list[frozenset[int]]] = [[] for _ in room]
        self.kept = 0

    def take(self, wanted: Iterable[int]) -> bool:
        """Finds a place for one more unit of demand that any of `wanted` would do for; none that is kept is lost."""
        found = self._seat(frozenset(wanted), set())
        self.kept += found
        return found

    def take_all(self, demand: Iterable[tuple[Iterable[int], int]]) -> "Places":
        for wanted, units in demand:
            for _ in range(units):
                self.take(wanted)
        return self

    def take_more(self, wanted: Iterable[int]) -> int:
        """How many more units can be kept."""
        wanted = frozenset(wanted)
        more = 0
        while self.take(wanted):
            more += 1
        return more

    def _seat(self, wanted: frozenset[int], tried: set[int]) -> bool:
        for place in wanted - tried:
            tried.add(place)
            if len(self.guests[place]) < self.room[place]:
                self.guests[place].append(wanted)
                return True
            for n, guest in enumerate(self.guests[place]):
                if self._seat(guest, tried):
                    self.guests[place][n] = wanted
                    return True
        return False


def kept(world: World) -> Places:
    return Places(world.available).take_all(zip(world.pools, world.reserved, strict=True))


def margin_by_definition(world: World, within: set[int]) -> int:
    """m(S), every set of pools tried."""
    here = [sum(1 << location for location in pool) for pool in world.pools]
    units = [0] * (1 << len(world.available))
    for places in range(1, len(units)):
        units[places] = units[places & places - 1] + world.available[(places & -places).bit_length() - 1]
    unions, owed = [sum(1 << location for location in within)], [0]
    for pool, reserved in zip(here, world.reserved, strict=True):
        unions += [union | pool for union in unions]
        owed += [o + reserved for o in owed]
    return min(units[union] - o for union, o in zip(unions, owed, strict=True))


@many
@given(worlds())
def test_a_pool_promises_all_that_leaves_every_keepable_promise_kept_and_not_one_unit_more(world: World) -> None:
    layout, supply, reserved, _ = world.row()
    for position, pool in enumerate(world.pools):
        assert atp.atp_pool(layout, supply, reserved, position) == kept(world).take_more(pool)


@many
@given(worlds())
def test_a_pick_up_is_promised_where_the_store_can_spare_it(world: World) -> None:
    layout, supply, reserved, segment_of = world.row()
    for location, available in enumerate(world.available):
        found = atp.atp_location(layout, supply, reserved, segment=segment_of[location], available=available)
        assert found == kept(world).take_more([location])


@many
@given(worlds())
def test_the_deficit_is_what_no_way_of_sharing_can_keep(world: World) -> None:
    layout, supply, reserved, _ = world.row()
    short = sum(reserved) - kept(world).kept
    assert atp.deficit(layout, supply, reserved) == short
    assert atp.margin_empty(layout, supply, reserved) == -short


@many
@given(worlds(), st.integers(0, 31))
def test_a_margin_is_what_its_definition_says(world: World, within: int) -> None:
    layout, supply, reserved, _ = world.row()
    within &= (1 << len(world.pools)) - 1
    places = set().union(*(pool for j, pool in enumerate(world.pools) if within >> j & 1))
    assert atp.margin(layout, supply, reserved, within=within) == margin_by_definition(world, places)


@many
@given(worlds(pools=(9, 12), reserved=(1, 4)))
def test_many_pools_that_hang_together_are_decided_as_if_every_set_had_been_tried(world: World) -> None:
    world = world._replace(pools=[pool | {0} for pool in world.pools])
    layout, supply, reserved, segment_of = world.row()
    least = margin_by_definition(world, set())
    assert atp.margin_empty(layout, supply, reserved) == least
    for position in (0, len(world.pools) - 1):
        expected = margin_by_definition(world, world.pools[position]) - least
        assert atp.atp_pool(layout, supply, reserved, position) == expected
    here = atp.atp_location(layout, supply, reserved, segment=segment_of[0], available=world.available[0])
    assert here == margin_by_definition(world, {0}) - least


@many
@given(worlds())
def test_trying_all_sets_and_matching_say_the_same(world: World) -> None:
    layout, supply, reserved, segment_of = world.row()
    tried = [atp.atp_pool(layout, supply, reserved, position) for position in range(len(reserved))]
    here = atp.atp_location(layout, supply, reserved, segment=segment_of[0], available=world.available[0])
    least = atp.margin_empty(layout, supply, reserved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atp, "ENUMERATED_MAX", 0)
        layout, *_ = world.row()
        assert [atp.atp_pool(layout, supply, reserved, position) for position in range(len(reserved))] == tried
        assert atp.atp_location(layout, supply, reserved, segment=segment_of[0], available=world.available[0]) == here
        assert atp.margin_empty(layout, supply, reserved) == least


carts = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 3)), max_size=12)


@many
@given(worlds(), carts)
def test_a_day_of_carts_breaks_no_promise_and_refuses_nobody_wrongly(world: World, day: list) -> None:
    layout, supply, reserved, segment_of = world.row()
    left, places = list(world.available), kept(world)
    for n, is_pick_up, units in day:
        if is_pick_up:
            location = n % len(left)
            available = left[location]
            may = units <= atp.atp_location(layout, supply, reserved, segment=segment_of[location], available=available)
            wanted = {location}
        else:
            position = n % len(reserved)
            may = atp.may_reserve(layout, supply, reserved, {position: units})
            wanted = world.pools[position]
        before = places.kept
        trial = Places(world.available)
        for guests in places.guests:
            for guest in guests:
                trial.take(guest)
        found = sum(trial.take(wanted) for _ in range(units))
        assert trial.kept == before + found
        assert may == (found == units)
        if may and is_pick_up:
            left[location] -= units
            supply[segment_of[location]] -= units
        elif may:
            reserved[position] += units
        places = trial if may else places
    assert atp.deficit(layout, supply, reserved) == atp.deficit(*world.row()[:3])


@many
@given(worlds(), st.data())
def test_several_pools_are_reserved_together_only_if_all_can_be_kept(world: World, data: st.DataObject) -> None:
    layout, supply, reserved, _ = world.row()
    positions = st.integers(0, len(reserved) - 1)
    wanted = data.draw(st.dictionaries(positions, st.integers(0, 3), max_size=3))
    places = kept(world)
    found = sum(places.take(world.pools[j]) for j, units in wanted.items() for _ in range(units))
    assert atp.may_reserve(layout, supply, reserved, wanted) == (found == sum(wanted.values()))


@many
@given(worlds(), st.data())
def test_an_allocation_is_refused_exactly_when_it_takes_what_another_promise_needs(
    world: World, data: st.DataObject
) -> None:
    layout, supply, reserved, segment_of = world.row()
    position = data.draw(st.integers(0, len(reserved) - 1))
    location = data.draw(st.integers(0, len(world.available) - 1))
    quantity = data.draw(st.integers(0, reserved[position]))
    fall = min(quantity, world.available[location])
    after = World(list(world.available), world.pools, list(world.reserved))
    after.available[location] -= fall
    after.reserved[position] -= quantity
    short, short_after = (sum(w.reserved) - kept(w).kept for w in (world, after))
    keeps = atp.allocation_keeps_promises(
        layout, supply, reserved, position=position, quantity=quantity, segment=segment_of[location], fall=fall
    )
    assert keeps == (short_after <= short)
    assert supply == world.row()[1]
    assert reserved == world.reserved


@many
@given(worlds())
def test_what_can_be_kept_can_be_allocated_unit_by_unit_until_nothing_is_left_to_keep(world: World) -> None:
    layout, supply, reserved, segment_of = world.row()
    left, allocated = list(world.available), 0
    while choices := [
        (position, location)
        for position, pool in enumerate(world.pools)
        for location in sorted(pool)
        if reserved[position] and left[location]
        and atp.allocation_keeps_promises(
            layout, supply, reserved, position=position, quantity=1, segment=segment_of[location], fall=1
        )
    ]:  # fmt: skip
        position, location = choices[0]
        left[location] -= 1
        supply[segment_of[location]] -= 1
        reserved[position] -= 1
        allocated += 1
    assert allocated == kept(world).kept


def test_a_line_is_not_allocated_from_what_only_another_pools_promise_can_use() -> None:
    # pool 0 sells from both locations, pool 1 from location 1 alone
    layout, supply, reserved, segment_of = World([1, 1], [{0, 1}, {1}], [1, 1]).row()
    take = {"position": 0, "quantity": 1, "fall": 1}
    assert atp.allocation_keeps_promises(layout, supply, reserved, segment=segment_of[0], **take)
    assert not atp.allocation_keeps_promises(layout, supply, reserved, segment=segment_of[1], **take)


def test_a_broken_promise_of_one_pool_leaves_the_others_what_is_truly_theirs() -> None:
    # two units were promised from an empty store; the other store sells on
    layout, supply, reserved, _ = World([0, 4], [{0}, {1}, {0, 1}], [2, 1, 0]).row()
    assert atp.deficit(layout, supply, reserved) == 2
    assert [atp.atp_pool(layout, supply, reserved, position) for position in range(3)] == [0, 3, 3]


def test_a_store_promises_no_more_than_its_segment_has() -> None:
    layout, supply, reserved, segment_of = World([3, 0], [{0}], [1]).row()
    assert atp.atp_location(layout, supply, reserved, segment=segment_of[0], available=9) == 2
    assert atp.atp_location(layout, supply, reserved, segment=segment_of[0], available=-1) == 0


def test_a_location_of_no_pool_promises_what_it_has() -> None:
    layout, supply, reserved, segment_of = World([5, 2], [{0}], [4]).row()
    assert atp.atp_location(layout, supply, reserved, segment=segment_of[1], available=2) == 2


def test_a_channel_sells_less_its_buffer_and_within_its_cap() -> None:
    assert atp.channel_atp(10, buffer=0, cap=None, taken=0) == 10
    assert atp.channel_atp(10, buffer=3, cap=None, taken=99) == 7
    assert atp.channel_atp(10, buffer=3, cap=8, taken=6) == 2
    assert atp.channel_atp(10, buffer=3, cap=8, taken=9) == 0
    assert atp.channel_atp(2, buffer=3, cap=8, taken=0) == 0


def test_a_kit_is_as_available_as_its_scarcest_component() -> None:
    assert atp.kit_atp([(10, 1), (7, 2), (99, 4)]) == 3
    assert atp.kit_atp([(10, 1), (1, 2)]) == 0
    assert atp.kit_atp([]) == 0


@many
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=5))
def test_the_components_of_a_kit_suffice_for_its_number_and_for_no_more(components: list[tuple[int, int]]) -> None:
    kits = atp.kit_atp(components)
    assert all(kits * per_kit <= units for units, per_kit in components)
    assert not all((kits + 1) * per_kit <= units for units, per_kit in components)


class Later(NamedTuple):
    """A day's receipts (location, units) and what is due then (pool, units)."""

    days: int
    receipts: list[tuple[int, int]]
    due: list[tuple[int, int]]


@st.composite
def dated_worlds(draw: st.DrawFn) -> tuple[World, list[Later]]:
    """Few places and little of everything, so that the days meet."""
    locations, some = draw(st.integers(1, 3)), st.integers(0, 2)
    places = st.integers(0, locations - 1)
    available = draw(st.lists(some, min_size=locations, max_size=locations))
    members = draw(st.lists(st.sets(places, min_size=1), min_size=1, max_size=3))
    reserved = draw(st.lists(some, min_size=len(members), max_size=len(members)))
    receipts = st.lists(st.tuples(places, st.integers(1, 3)), max_size=2)
    due = st.lists(st.tuples(st.integers(0, len(members) - 1), st.integers(1, 2)), max_size=2)
    later = st.lists(st.builds(Later, days=st.integers(-1, 3), receipts=receipts, due=due), min_size=1, max_size=4)
    return World(available, members, reserved), draw(later)


def steps_of(later: list[Later], segment_of: dict[int, int]) -> list[Step]:
    steps = []
    for day in later:
        arriving: Counter[int] = Counter()
        due: Counter[int] = Counter()
        for location, units in day.receipts:
            arriving[segment_of[location]] += units
        for position, units in day.due:
            due[position] += units
        steps.append(Step(on=TODAY + timedelta(days=day.days), supply=arriving, reserved=due))
    return steps


def dated_by_search(world: World, later: list[Later], position: int) -> list[tuple[date, int]]:
    """Each unit of supply and of demand with its day; what is on time, and what is late, searched apart."""
    supply = [(0, location, units) for location, units in enumerate(world.available)]
    supply += [(max(0, day.days), location, units) for day in later for location, units in day.receipts]
    demand = [(0, pool, units) for pool, units in enumerate(world.reserved)]
    demand += [(max(0, day.days), pool, units) for day in later for pool, units in day.due]

    def wanted(pool: int, until: int) -> list[int]:
        return [n for n, (day, location, _) in enumerate(supply) if day <= until and location in world.pools[pool]]

    room = [units for *_, units in supply]
    days = sorted({0, *(max(0, day.days) for day in later)})
    late = {
        until: Places(room)
        .take_all((wanted(pool, until), units) for day, pool, units in demand if day <= until)
        .take_more(wanted(position, until))
        for until in days
    }
    return [
        (
            TODAY + timedelta(days=day),
            min(
                Places(room)
                .take_all((wanted(pool, due), units) for due, pool, units in demand)
                .take_more(wanted(position, day)),
                *(late[until] for until in days if until >= day),
            ),
        )
        for day in days
    ]


@many
@given(dated_worlds())
def test_a_promise_for_a_day_breaks_none_of_any_day(dated: tuple[World, list[Later]]) -> None:
    world, later = dated
    layout, supply, reserved, segment_of = world.row()
    steps = steps_of(later, segment_of)
    for position in range(len(reserved)):
        found = atp.atp_by_date(layout, supply, reserved, position, today=TODAY, steps=steps)
        assert found == dated_by_search(world, later, position)
        assert found == sorted(found, key=lambda promise: promise[1])


def day(n: int) -> date:
    return TODAY + timedelta(days=n)


def test_a_receipt_may_be_promised_from_its_day_on() -> None:
    layout, supply, reserved, segment_of = World([2], [{0}], [1]).row()
    steps = [Step(on=day(3), supply={segment_of[0]: 5})]
    found = atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=steps)
    assert found == [(TODAY, 1), (day(3), 6)]


def test_what_is_due_later_is_kept_back_today_unless_a_receipt_comes_before() -> None:
    layout, supply, reserved, segment_of = World([3], [{0}], [0]).row()
    due, receipt = Step(on=day(5), reserved={0: 2}), Step(on=day(4), supply={segment_of[0]: 2})
    assert atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=[due])[0] == (TODAY, 1)
    assert atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=[due, receipt])[0] == (TODAY, 3)


def test_a_receipt_first_serves_those_who_wait_for_it() -> None:
    layout, supply, reserved, segment_of = World([1], [{0}], [4]).row()
    steps = [Step(on=day(2), supply={segment_of[0]: 5})]
    found = atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=steps)
    assert found == [(TODAY, 0), (day(2), 2)]


def test_who_waits_already_and_who_is_due_later_both_come_before_a_new_promise() -> None:
    # two wait since today and are late whatever happens; three come on day 1, of which one is due on day 2
    layout, supply, reserved, segment_of = World([0], [{0}], [2]).row()
    steps = [Step(on=day(1), supply={segment_of[0]: 3}), Step(on=day(2), reserved={0: 1})]
    found = atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=steps)
    assert found == [(TODAY, 0), (day(1), 0), (day(2), 0)]


def test_a_later_receipt_for_one_pool_does_not_hide_that_its_early_promise_takes_the_others_unit() -> None:
    # Pool 0 draws on locations 0 and 2, pool 1 on 1 and 2. The one unit of location 2 is promised to pool 1 for
    # tomorrow; location 1 has its own only in five days, too late for that. Pool 0 has nothing to promise, although
    # the sums up to day 5 look as if the two pools could change places.
    layout, supply, reserved, segment_of = World([0, 0, 1], [{0, 2}, {1, 2}], [0, 0]).row()
    steps = [
        Step(on=day(1), reserved={1: 1}),
        Step(on=day(5), supply={segment_of[1]: 1}),
        Step(on=day(7), supply={segment_of[0]: 1}),
    ]
    found = atp.atp_by_date(layout, supply, reserved, 0, today=TODAY, steps=steps)
    assert found == [(TODAY, 0), (day(1), 0), (day(5), 0), (day(7), 1)]
    cumulated = [1 if i in (segment_of[1], segment_of[2]) else 0 for i in range(len(supply))]
    assert atp.atp_pool(layout, cumulated, [0, 1], 0) == 1


def test_the_same_network_is_numbered_the_same_however_it_is_listed() -> None:
    one = Layout.build({7: [3, 1, 2], 5: [2]}, [1, 2, 3, 4], layout_id=9)
    assert one == Layout.build({5: {2}, 7: {1, 2, 3}}, [4, 3, 2, 1], layout_id=9)
    layout, segment_of = one
    assert layout == Layout(layout_id=9, pools=(5, 7), segments=(0b00, 0b10, 0b11))
    assert segment_of == {1: 1, 2: 2, 3: 1, 4: 0}


def test_a_layout_with_nothing_in_it_promises_nothing() -> None:
    layout, segment_of = Layout.build({}, [])
    assert (layout.pools, layout.segments, segment_of) == ((), (), {})
    assert atp.deficit(layout, [], []) == 0


def test_a_pool_of_an_unknown_location_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"pool 5 draws on unknown locations \[8, 9\]"):
        Layout.build({5: {1, 9, 8}}, [1])


def test_more_pools_than_a_row_can_number_are_refused() -> None:
    Layout.build({pool: {1} for pool in range(atp.POOLS_MAX)}, [1])
    with pytest.raises(ValueError, match="63 pools: a layout takes 62 at most"):
        Layout.build({pool: {1} for pool in range(63)}, [1])


def test_a_layout_that_has_forgotten_its_plans_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atp, "PLANS_MAX", 1)
    layout, supply, reserved, _ = World([3, 4, 2], [{0, 1}, {1, 2}, {2}], [1, 2, 0]).row()
    answers = [[atp.atp_pool(layout, supply, reserved, position) for position in range(3)] for _ in range(3)]
    assert answers == [[6, 4, 2]] * 3
