"""Who owes whom, without a database: what comes back goes home first, parts add up, and all parties net to zero."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms.domain.settlement import (
    Back,
    Came,
    Price,
    Sold,
    Sum,
    balances_of,
    cents_of,
    debts_of,
    owed_for_return,
    part_of,
)

WEB, STORES, OUTLET, CONSIGNOR = 1, 2, 3, 4


def sold(owner: int, units: int = 3, *, owed_id: int | None = 7, back: int = 0, takes_back: bool = False) -> Sold:
    return Sold(owed_id, owner, takes_back, units, back)


def came(units: int, *, to: int | None, stock_of: int | None = None) -> Came:
    return Came(units, WEB, to if stock_of is None else stock_of, to)


def test_what_comes_back_to_its_owner_takes_the_sale_back() -> None:
    assert owed_for_return(came(2, to=STORES), [sold(STORES)]) == [Back("return", STORES, WEB, -2, 7, 0)]


def test_what_comes_back_elsewhere_is_bought_by_who_took_it_back() -> None:
    assert owed_for_return(came(2, to=OUTLET), [sold(STORES, back=1)]) == [
        Back("return", STORES, WEB, -2, 7, 1), Back("bought", STORES, OUTLET, 2, 7, 1),
    ]  # fmt: skip


def test_an_owner_that_takes_back_is_owed_nothing_wherever_its_units_came_back() -> None:
    back = owed_for_return(came(1, to=OUTLET), [sold(CONSIGNOR, takes_back=True)])
    assert back == [Back("return", CONSIGNOR, WEB, -1, 7, 0)]


def test_units_that_the_seller_owned_are_bought_where_they_came_back() -> None:
    assert owed_for_return(came(1, to=WEB), [sold(WEB, owed_id=None)]) == []
    assert owed_for_return(came(1, to=OUTLET), [sold(WEB, owed_id=None)]) == [Back("bought", WEB, OUTLET, 1, None, 0)]


def test_units_go_home_first_then_those_of_the_seller_then_the_oldest() -> None:
    parts = [
        sold(STORES, 1, owed_id=5),
        sold(CONSIGNOR, 1, owed_id=6),
        sold(OUTLET, 1, owed_id=8),
        sold(WEB, 1, owed_id=None),
    ]
    back = owed_for_return(came(3, to=OUTLET), parts)
    assert [(b.kind, b.owner_id, b.buyer_id) for b in back] == [
        ("return", OUTLET, WEB), ("bought", WEB, OUTLET), ("return", STORES, WEB), ("bought", STORES, OUTLET),
    ]  # fmt: skip


def test_a_place_of_no_division_buys_in_its_owners_name_or_waits_for_one() -> None:
    vendor = 9
    (_, bought) = owed_for_return(Came(1, WEB, vendor, None), [sold(STORES)])
    assert (bought.kind, bought.buyer_id) == ("bought", vendor)
    (_, bought) = owed_for_return(Came(1, WEB, None, None), [sold(STORES)])
    assert (bought.kind, bought.buyer_id) == ("bought", None)


@pytest.mark.parametrize(
    ("price", "cents"),
    [
        (Price("p", 250, None, None, "USD"), 750),
        (Price("p", 0, None, None, "USD"), 0),
        (Price("p", None, Decimal("70"), "price", "USD"), 2100),
        (Price("p", None, Decimal("0.05"), "price", "USD"), 2),
        (Price("p", None, Decimal("110"), "cost", "USD"), 1980),
    ],
)
def test_a_price_is_cents_or_a_percent_with_the_half_cent_up(price: Price, cents: int) -> None:
    assert cents_of(price, quantity=3, price_cents=1000, cost_cents=600) == cents


def test_a_percent_of_what_nobody_knows_is_not_zero() -> None:
    half = Price("p", None, Decimal(50), "price", "USD")
    assert cents_of(half, quantity=1, price_cents=None, cost_cents=600) is None


@given(st.integers(0, 10**9), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_the_parts_of_a_sale_add_up_to_it(cents: int, parts: list[int]) -> None:
    whole = sum(parts)
    given_back = [part_of(cents, units=units, skipped=sum(parts[:k]), whole=whole) for k, units in enumerate(parts)]
    assert sum(given_back) == cents
    assert all(part >= 0 for part in given_back)


PARTY = st.sampled_from(["web", "stores", "outlet", "consignor"])
SUM = st.builds(
    Sum, owner=PARTY, buyer=PARTY, currency=st.sampled_from(["USD", "EUR"]), kind=st.sampled_from(["sale", "return"]),
    entries=st.integers(1, 9), units=st.integers(-99, 99), cents=st.integers(-(10**12), 10**12),
).filter(lambda s: s.owner != s.buyer)  # fmt: skip


@given(st.lists(SUM, max_size=20))
def test_over_all_parties_nobody_gains_and_each_pair_is_told_once(sums: list[Sum]) -> None:
    debts = debts_of(sums)
    balances = balances_of(debts)
    for currency in ("USD", "EUR"):
        assert sum(b.cents for b in balances if b.currency == currency) == 0
        for party in ("web", "stores", "outlet", "consignor"):
            gets = sum(s.cents for s in sums if s.owner == party and s.currency == currency)
            owes = sum(s.cents for s in sums if s.buyer == party and s.currency == currency)
            told = sum(b.cents for b in balances if (b.party, b.currency) == (party, currency))
            assert told == gets - owes
    assert len({(frozenset((d.debtor, d.creditor)), d.currency) for d in debts}) == len(debts)
    assert all(d.cents >= 0 and sum(k["cents"] for k in d.kinds.values()) == d.cents for d in debts)
