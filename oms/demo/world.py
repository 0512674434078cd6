"""The demo's retailer: real baskets, real places, and generated stock, all from a seed."""

from typing import Literal

import msgspec
import numpy as np

from oms.demo.real import Floats, Ints, Real, distances_km, real

Size = Literal["small", "full"]
BASKET_SIZES = (0.45, 0.24, 0.13, 0.08, 0.06, 0.04)
QUANTITIES = (0.86, 0.11, 0.03)
WAREHOUSE_SHARE = 0.45
THIRD_PARTY_SHARE = 0.05
WAREHOUSE_ONLY_SHARE = 0.1
"""Skus that no store has."""
THERE_SHARE = 0.85
"""Skus of which the shops had as much as they sold overnight; of the rest some orders are oversold."""
KITS = 10
VARIANT_SKEW = 2.2
STORES_WITH_SKU = 0.35


class Scale(msgspec.Struct, frozen=True):
    """How large a world is."""

    stores: int
    warehouses: int
    third_party: int
    stock_codes: int
    variants: int
    orders: int
    cover: float
    sales: int
    erp: int
    sim: int
    wms: int


SCALES: dict[str, Scale] = {
    "small": Scale(55, 3, 2, 3000, 1, 5000, 4.0, 1500, 200, 120, 150),
    "full": Scale(490, 6, 4, 3600, 4, 50_000, 6.0, 20_000, 2000, 1200, 1500),
}


class Place(msgspec.Struct, frozen=True):
    """A location; `owner` is the source of its quantities."""

    code: str
    name: str
    kind: Literal["store", "warehouse", "third_party"]
    lat: float
    lon: float
    postal_code: str
    time_zone: str
    capacity_orders: int
    safety_stock: int
    owner: Literal["erp", "sim", "wms"]


class Item(msgspec.Struct, frozen=True):
    """A sku."""

    code: str
    name: str
    price_cents: int
    value_cents: int
    weight_grams: int
    barcode: str


class Kit(msgspec.Struct, frozen=True):
    """A sku made of others, each once: what a real basket held."""

    code: str
    price_cents: int
    parts: list[int]


class World(msgspec.Struct, frozen=True):
    """A retailer before the day: `stock` is units by (sku, location); lines point into orders by `order`."""

    places: list[Place]
    items: list[Item]
    kits: list[Kit]
    stock: Ints
    order: Ints
    sku: Ints
    quantity: Ints
    destination: Ints
    cased: list[int]

    def at(self, *kinds: str) -> list[int]:
        """Places of these kinds."""
        return [k for k, place in enumerate(self.places) if place.kind in kinds]


def make_world(size: Size, seed: int) -> World:
    """The same size and seed give the same world."""
    scale, data, rng = SCALES[size], real(), np.random.default_rng([seed, 1])
    chosen = np.sort(np.argsort(-data.popularity, kind="stable")[: scale.stock_codes])
    items = make_items(data, chosen, scale, rng)
    order, sku, everyone = cut_baskets(data, chosen, scale, rng)
    quantity = rng.choice(3, size=len(sku), p=QUANTITIES) + 1
    destination = rng.choice(len(data.postal_codes), size=scale.orders, p=data.population / data.population.sum())
    ordered: Floats = np.bincount(sku, quantity, len(items)).astype(np.float64)
    usual = everyone * ordered.sum() / everyone.sum()
    size_of_store = np.exp(rng.normal(0, 0.7, scale.stores))
    size_of_store /= size_of_store.sum()
    stock = make_stock(ordered, (ordered + usual) / 2, scale, size_of_store, rng)
    return World(
        places=make_places(data, scale, size_of_store, rng), items=items, kits=make_kits(items, order, sku), stock=stock,
        order=order, sku=sku, quantity=quantity, destination=destination,
        cased=np.sort(np.argsort(-usual, kind="stable")[:100]).tolist(),
    )  # fmt: skip


def make_items(data: Real, chosen: Ints, scale: Scale, rng: np.random.Generator) -> list[Item]:
    """Skus with retail prices of 5 to 120 in proportion to the real trade prices; weights are generated."""
    weights = np.clip(np.exp(rng.normal(4.5, 0.8, len(chosen) * scale.variants)) * 1.2, 20, 9000)
    items = []
    for k, weight in enumerate(weights):
        base, variant = int(chosen[k // scale.variants]), k % scale.variants
        code = data.stock_codes[base] + (f"-{variant + 1}" if scale.variants > 1 else "")
        price_cents = int(np.clip(data.price_cents[base] * 6, 500, 12_000))
        items.append(Item(code, f"Item {code}", price_cents, price_cents * 6 // 10, int(weight), barcode(k)))
    return items


def barcode(k: int) -> str:
    """An EAN-13 of the range that shops number themselves (2…)."""
    digits = f"20{k:010d}"
    return digits + str(-sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(digits)) % 10)


def cut_baskets(data: Real, chosen: Ints, scale: Scale, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Orders as consecutive parts of real invoices: (order, sku) per line, each pair once; and lines by sku of all."""
    place = np.full(len(data.stock_codes), -1)
    place[chosen] = np.arange(len(chosen))
    known = place[data.stock] >= 0
    invoice, base = data.invoice[known], place[data.stock[known]]
    sizes = rng.choice(len(BASKET_SIZES), size=len(base), p=BASKET_SIZES) + 1
    cut = np.zeros(len(base), bool)
    cut[0] = True
    ends = np.cumsum(sizes)
    cut[ends[ends < len(base)]] = True
    cut[1:] |= invoice[1:] != invoice[:-1]
    basket = np.cumsum(cut) - 1
    # one taste (size, color) runs through a basket; which variant is the favorite differs by stock code
    taste = rng.random(basket[-1] + 1) ** VARIANT_SKEW * scale.variants
    sku = base * scale.variants + (taste[basket].astype(np.int64) + base) % scale.variants
    picked = rng.permutation(basket[-1] + 1)[: scale.orders]
    number = np.full(basket[-1] + 1, -1)
    number[picked] = np.arange(scale.orders)
    keep = number[basket] >= 0
    lines = np.unique(np.stack([number[basket][keep], sku[keep]], 1), axis=0)
    everyone: Floats = np.bincount(sku, minlength=len(chosen) * scale.variants).astype(np.float64)
    return lines[:, 0], lines[:, 1], everyone


def make_kits(items: list[Item], order: Ints, sku: Ints) -> list[Kit]:
    """Kits of what real baskets of two or three lines held, ten percent below the sum of their parts."""
    kits: list[Kit] = []
    used: set[int] = set()
    ends = np.searchsorted(order, np.arange(order[-1] + 2))
    for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        parts = sku[begin:end].tolist()
        if end - begin in (2, 3) and not used & set(parts) and len(kits) < KITS:
            used |= set(parts)
            kits.append(Kit(f"KIT-{len(kits) + 1:02d}", sum(items[p].price_cents for p in parts) * 9 // 10, parts))
    return kits


def make_stock(ordered: Floats, demand: Floats, scale: Scale, size_of_store: Floats, rng: np.random.Generator) -> Ints:
    """Units by (sku, location): log-normal cover, 45 % in warehouses, skewed assortments in stores."""
    skus, warehouses, others = len(demand), scale.warehouses, scale.third_party
    total = rng.poisson(demand * scale.cover * np.exp(rng.normal(0, 1.0, skus) - 0.5) + 0.3)
    least = np.where(rng.random(skus) < THERE_SHARE, ordered, 0).astype(np.int64)
    beyond = np.maximum(total - least, 0)
    wanted = demand.sum() * scale.cover - least.sum()
    total = least + rng.binomial(beyond, min(1.0, wanted / max(1, beyond.sum())))
    in_warehouse = rng.random((skus, warehouses)) < 0.8
    in_warehouse[~in_warehouse.any(axis=1)] = True
    warehouse_only = rng.random(skus) < WAREHOUSE_ONLY_SHARE
    share = (WAREHOUSE_SHARE - WAREHOUSE_ONLY_SHARE * (1 - THIRD_PARTY_SHARE)) / (1 - WAREHOUSE_ONLY_SHARE)
    split = (share, THIRD_PARTY_SHARE, 1 - share - THIRD_PARTY_SHARE)
    stock = np.zeros((skus, warehouses + others + scale.stores), np.int64)
    for k in range(skus):
        central, aside = rng.multinomial(total[k], split)[:2]
        if warehouse_only[k]:
            central = total[k] - aside
        stock[k, :warehouses] = rng.multinomial(central, in_warehouse[k] / in_warehouse[k].sum())
        stock[k, warehouses : warehouses + others] = rng.multinomial(aside, np.full(others, 1 / others))
        has = size_of_store * (rng.random(scale.stores) < STORES_WITH_SKU)
        if total[k] > central + aside and has.any():
            stock[k, warehouses + others :] = rng.multinomial(total[k] - central - aside, has / has.sum())
    return stock


def make_places(data: Real, scale: Scale, size_of_store: Floats, rng: np.random.Generator) -> list[Place]:
    """Warehouses and third parties spread by population (greedy p-median), then real store sites."""
    big = np.argsort(-data.population, kind="stable")[:3000]
    hubs = big[::30]
    hub_km, weight = distances_km(data.postal_at[big], data.postal_at[hubs]), data.population[big]
    nearest_km, spread = np.full(len(big), np.inf), []
    for _ in range(scale.warehouses + scale.third_party):
        best = int(np.argmin([(weight * np.minimum(nearest_km, hub_km[:, j])).sum() for j in range(len(hubs))]))
        nearest_km = np.minimum(nearest_km, hub_km[:, best])
        spread.append(int(hubs[best]))
    stores = rng.permutation(len(data.sites))[: scale.stores]
    shares = np.maximum(2, scale.orders * 0.94 * size_of_store * np.exp(rng.normal(0, 0.3, scale.stores)))
    nearest_site = np.argmin(distances_km(data.postal_at[spread], data.sites_at), axis=1)
    nearest_postal = [int(np.argmin(distances_km(data.sites_at[s : s + 1], data.postal_at)[0])) for s in stores]
    wms = max(1, scale.warehouses // 3)
    places: list[Place] = []
    for k, (at, near) in enumerate(zip(spread, nearest_site, strict=True)):
        site, (lat, lon) = data.sites[near], data.postal_at[at].tolist()
        first = k < scale.warehouses
        places.append(
            Place(
                code=f"W{k + 1:02d}" if first else f"T{k + 1 - scale.warehouses:02d}",
                name=f"{'Warehouse' if first else 'Partner'} {site.city} {site.state}",
                kind="warehouse" if first else "third_party", lat=lat, lon=lon, postal_code=data.postal_codes[at],
                time_zone=data.time_zones[at], safety_stock=0, owner="wms" if k < wms else "erp",
                capacity_orders=int(scale.orders * (0.62 / scale.warehouses if first else 0.06 / scale.third_party)),
            )
        )  # fmt: skip
    for k, (s, near) in enumerate(zip(stores.tolist(), nearest_postal, strict=True)):
        site, (lat, lon) = data.sites[s], data.sites_at[s].tolist()
        places.append(
            Place(
                code=f"S{k + 1:03d}", name=f"Store {site.city} {site.state}", kind="store", lat=lat, lon=lon,
                postal_code=site.postal_code, time_zone=data.time_zones[near], safety_stock=1,
                capacity_orders=int(shares[k]), owner="sim" if k % 3 == 2 else "erp",
            )
        )  # fmt: skip
    return places
