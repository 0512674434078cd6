"""Brokering problems made by seed from real order lines, store sites and postal codes.

Real: what is bought together, how often and at what price; where stores stand; where people live. Made by seed: stock,
capacity, weights, promise classes and which store holds what. Tariff and handling are the engine's illustrative ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brokering import Line, Location, Order, Problem, Protected, Stock
from brokering.matrix import miles
from oms.demo.real import real

BASKET_SHARES = (0.45, 0.24, 0.13, 0.08, 0.06, 0.04)
WAREHOUSE_SHARE = 0.45
POOL = 1
RETAIL = 6
"""The invoices are a wholesaler's: what its pieces cost a shopper, as a multiple."""
VALUES_CENTS = (500, 12_000)


@dataclass(frozen=True)
class Sources:
    """The real data as arrays: lines in the order of their invoices, store sites, postal codes."""

    invoice: NDArray[np.int64]
    sku: NDArray[np.int64]
    price_cents: NDArray[np.int64]
    sites: NDArray[np.float64]  # [S,2] degrees
    postal: NDArray[np.float64]  # [P,2] degrees
    population: NDArray[np.float64]


def sources() -> Sources:
    """What the package carries."""
    data = real()
    return Sources(
        data.invoice, data.stock, data.price_cents[data.stock], data.sites_at, data.postal_at, data.population
    )  # fmt: skip


def make(
    sources: Sources,
    *,
    orders: int,
    stores: int,
    warehouses: int = 3,
    scarcity: float = 4.0,
    capacity: float = 1.25,
    variants: int = 4,
    protected_share: float = 0.0,
    seed: int = 1,
) -> Problem:
    """A problem of `orders` orders; stock is about `scarcity` × demand, capacity `capacity` × orders."""
    random = np.random.default_rng(seed)
    order_of, sku_of = _baskets(sources, orders, variants, random)
    skus, sku_of = np.unique(sku_of, return_inverse=True)
    lines = len(sku_of)
    price = np.zeros(sources.sku.max() + 1)
    price[sources.sku] = sources.price_cents
    value = np.clip(price[skus // variants] * RETAIL, *VALUES_CENTS).astype(int)
    weights = np.exp(np.random.default_rng(7).normal(0.2, 0.8, skus.max() + 1))[skus].clip(0.2, 20) * 453.6
    quantity = random.choice([1, 2, 3], size=lines, p=[0.86, 0.11, 0.03])
    home = random.choice(len(sources.postal), size=orders, p=sources.population / sources.population.sum())
    sites = np.concatenate(
        [
            _spread_out(sources, warehouses),
            sources.sites[random.permutation(len(sources.sites))[:stores]],
        ]
    )
    is_warehouse = np.arange(len(sites)) < warehouses
    demand = np.bincount(sku_of, quantity, len(skus))
    stock, share = _stock(demand, is_warehouse, scarcity, random)
    room = np.where(is_warehouse, orders * capacity * 0.5 / warehouses, 0)
    room[~is_warehouse] = np.maximum(
        2, orders * capacity * 0.75 * share[~is_warehouse] * np.exp(random.normal(0, 0.3, (~is_warehouse).sum()))
    )
    markdown = (random.random(stock.shape) < 0.08) & ~is_warehouse
    many = np.bincount(order_of, minlength=orders) > 1
    rules: NDArray[Any] = random.choice(["free", "single", "complete"], size=orders, p=[0.75, 0.15, 0.10])
    split: list[Any] = np.where(many, rules, "free").tolist()
    priority = random.choice([0, 1, 2], size=orders, p=[0.8, 0.15, 0.05])
    promise = random.choice([2, 4, 6], size=orders, p=[0.4, 0.4, 0.2])
    held_back = np.rint(demand * protected_share).astype(int)
    return Problem(
        orders=[
            Order(f"{o:08d}", lat, lon, int(priority[o]), split[o], None, int(promise[o]))
            for o, (lat, lon) in enumerate(sources.postal[home].tolist())
        ],
        lines=[
            Line(i + 1, 1, f"{order_of[i]:08d}", int(sku_of[i]), int(quantity[i]), POOL, int(value[sku_of[i]]),
                 int(weights[sku_of[i]]))
            for i in range(lines)
        ],
        locations=[
            Location(n, "warehouse" if is_warehouse[n] else "store", lat, lon, round(room[n]),
                     package_cents=120 if is_warehouse[n] else 250, line_cents=25 if is_warehouse[n] else 80)
            for n, (lat, lon) in enumerate(sites.tolist())
        ],
        stock=[
            Stock(int(k), int(n), int(stock[k, n]), int(0.10 * value[k]) if markdown[k, n] else 0)
            for k, n in zip(*np.nonzero(stock), strict=True)
        ],
        pools={POOL: tuple(range(len(sites)))},
        protected=[Protected(int(k), POOL, int(held_back[k])) for k in np.flatnonzero(held_back)],
    )  # fmt: skip


def _baskets(
    sources: Sources, orders: int, variants: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Consecutive cuts of real invoices, one line per order and sku; cut again elsewhere until there are enough."""
    of: list[NDArray[np.int64]] = []
    what: list[NDArray[np.int64]] = []
    total = 0
    while total < orders:
        sizes = random.choice(len(BASKET_SHARES), size=len(sources.sku), p=BASKET_SHARES) + 1
        ends = np.cumsum(sizes)
        new = np.zeros(len(sources.sku), bool)
        new[0] = True
        new[ends[ends < len(new)]] = True
        new[1:] |= sources.invoice[1:] != sources.invoice[:-1]
        basket = np.cumsum(new) - 1
        taste = (basket * 2654435761 % 1000003) / 1000003.0
        variant = np.minimum((taste**2.2 * variants).astype(np.int64), variants - 1)
        of.append(basket + total)
        what.append(sources.sku * variants + (variant + sources.sku % variants) % variants)
        total += int(basket[-1]) + 1
    number = np.full(total, -1)
    number[random.permutation(total)[:orders]] = np.arange(orders)
    order_of, sku_of = number[np.concatenate(of)], np.concatenate(what)
    kept = order_of >= 0
    pairs = np.unique(np.stack([order_of[kept], sku_of[kept]], 1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _spread_out(sources: Sources, warehouses: int) -> NDArray[np.float64]:
    """Sites near most people: a greedy p-median over every thirtieth of the 3,000 largest postal codes."""
    largest = np.argsort(-sources.population, kind="stable")[:3000]
    people, weight = sources.postal[largest], sources.population[largest]
    distance = miles(people, people[::30])
    chosen: list[int] = []
    for _ in range(warehouses):
        nearest = distance[:, chosen].min(1) if chosen else np.full(len(people), np.inf)
        nearest = np.minimum(nearest, 1e9)
        chosen.append(int(np.argmin((weight[:, None] * np.minimum(nearest[:, None], distance)).sum(0))))
    return people[::30][chosen]


def _stock(
    demand: NDArray[Any], is_warehouse: NDArray[np.bool_], scarcity: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cover per sku is log-normal, 45 % of it in warehouses; stores carry skewed assortments. Also each store's share."""
    places, warehouses = len(is_warehouse), int(is_warehouse.sum())
    total = random.poisson(demand * scarcity * np.exp(random.normal(0, 1.0, len(demand)) - 0.5) + 0.3)
    size = np.exp(random.normal(0, 0.7, places))
    size[is_warehouse | (random.random(places) <= 0.15)] = 0
    share = size / size.sum()
    in_warehouse = random.random((len(demand), warehouses)) < 0.8
    only_warehouse = random.random(len(demand)) < 0.1
    stock = np.zeros((len(demand), places), np.int64)
    for k in range(len(demand)):
        central = int(total[k]) if only_warehouse[k] else random.binomial(total[k], WAREHOUSE_SHARE)
        holds = in_warehouse[k] if in_warehouse[k].any() else np.ones(warehouses, bool)
        stock[k, :warehouses] = random.multinomial(central, holds / holds.sum())
        if rest := int(total[k]) - central:
            carries = share * (random.random(places) < 0.35)
            if carries.sum() > 0:
                stock[k] += random.multinomial(rest, carries / carries.sum())
    return stock, share
