"""Numbers everything in a problem, so that it can be planned as arrays."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from brokering.cents import GRAMS_PER_POUND, STOCK_OUT_MAX, parts, policies_of
from brokering.matrix import INF, UNLIMITED, Bounds, Floats, Ints, Matrix, miles
from brokering.problem import PARTS_MAX, Line, Location, Policy, Problem, Slot
from brokering.refusals import check

NOWHERE = Location(-1, "nowhere", None, None, 0)
"""Stands in no pool and takes nothing: so that a problem without locations is one like others."""
FAR_DAYS = 999


def compile_problem(problem: Problem) -> Matrix:
    """Numbers everything. Raises ValueError where the problem contradicts itself: what, and which."""
    check(problem)
    if not problem.locations:
        problem = msgspec.structs.replace(problem, locations=[NOWHERE])
    policies = policies_of(problem)
    places, place_of = _places(problem)
    location_at = {n.location_id: i for i, n in enumerate(problem.locations)}
    made = _orders_and_lines(problem)
    names, lines, quantity = made["names"], made["lines"], made["line_quantity"]
    orders = [problem.orders[i] for i in names["order_index"].tolist()]
    line_order = names["item_order"][names["line_item"]]
    skus = np.unique(np.array([n.sku_id for n in lines], np.int64))
    sku_at = {sku: i for i, sku in enumerate(skus.tolist())}
    line_sku = np.searchsorted(skus, np.array([n.sku_id for n in lines], np.int64))
    value = np.array([n.value_cents for n in lines], float)
    policy = np.array([0 if o.policy is None else o.policy + 1 for o in orders], np.int64)
    factor = np.array([1 + o.priority / 2 for o in orders])
    pickup = np.array([o.location_id is not None for o in orders], bool)
    worth = np.zeros(len(skus))
    np.maximum.at(worth, line_sku, value)
    of_line = policy[line_order] if len(lines) else np.zeros(0, np.int64)
    leave = np.maximum(_of(policies, "leave_cents_min")[of_line], _of(policies, "leave_share")[of_line] * value)
    leave = leave * quantity * (factor[line_order] if len(lines) else 1)
    leave = leave * (1 + _of(policies, "waited_share")[of_line] * np.array([n.days_waited for n in lines], float))
    pounds = np.array([n.weight_grams for n in lines], float) * quantity / GRAMS_PER_POUND
    weighs = np.array([p.tariff.pound_cents for p in policies], float)[of_line] * pounds[:, None]
    promise = np.array([FAR_DAYS if o.promise_days is None else o.promise_days for o in orders], np.int64)
    leave_day, days = _leave_days(problem, places)
    transit = np.array([p.tariff.days for p in policies], np.int64)
    arrives = (transit[:, :, None] + np.arange(days)).reshape(len(policies), -1)
    late = np.maximum(0, arrives[policy] - promise[:, None]) * (factor * _of(policies, "late_cents")[policy])[:, None]
    parcel = np.array([p.tariff.parcel_cents for p in policies], float)[policy]
    points: dict[tuple[float | None, float | None], int] = {}
    destination = np.array([points.setdefault((o.lat, o.lon), len(points)) for o in orders], np.int64)
    zone, too_far = _zones(list(points), problem, [n for n, *_ in places])
    cells = _cells(problem, sku_at, location_at, place_of, len(places), policies, worth)
    pool_at = {pool: i for i, pool in enumerate(sorted(problem.pools))}
    pool_has = np.zeros((max(1, len(pool_at)), len(problem.locations)), bool)
    for pool, members in problem.pools.items():
        pool_has[pool_at[pool], [location_at[n] for n in members if n in location_at]] = True
    sites = [problem.locations[n] for n, *_ in places]
    number = np.array([n for n, *_ in places])
    line_cents = (value * quantity).astype(np.int64)
    items = len(names["item_order"])

    def weighted(term: str, values: Floats, at: Ints | None = None) -> Floats:
        weight = np.array([p.weights.get(term, 1.0) for p in policies])
        weight = weight if at is None else weight[at]
        return np.rint(weight.reshape(-1, *[1] * (values.ndim - 1)) * values).astype(np.float32)

    def at_places(term: str, cents: list[int]) -> Floats:
        return weighted(term, np.tile(np.array(cents, float), (len(policies), 1)))

    return Matrix(
        **names, **cells,
        item_units=np.bincount(names["line_item"], quantity, items).astype(np.int64),
        item_cents=np.bincount(names["line_item"], line_cents, items).astype(np.int64),
        line_sku=line_sku, line_quantity=quantity, line_cents_of_capacity=line_cents,
        line_pool=np.array([pool_at.get(n.pool_id, -1) for n in lines], np.int64),
        leave=weighted("left", leave, of_line).astype(np.float64), sku_ids=skus,
        location_ids=np.array([n.location_id for n in sites], np.int64),
        place_slot=np.array([-1 if s is None else s for _, s, _ in places]),
        place_day=np.array([d for *_, d in places]),
        capacity=np.array([_capacity(problem.locations[n], s, d) for n, s, d in places], float).reshape(-1, 3),
        zone=zone, destination=destination, policy=policy, promise=promise, days=days, transit=transit,
        service=np.minimum(np.array([o.service for o in orders], np.int64), len(leave_day) - 1), leave_day=leave_day,
        complete=np.array([o.split == "complete" for o in orders], bool) & ~made["alone"],
        packages_max=np.where(
            made["alone"], 1, np.array([_packages_max(o.split, o.split_max) for o in orders], np.int64)
        ),
        priority=np.array([0 if problem.policy.overtaking else o.priority for o in orders], np.int64),
        only_location=np.array(
            [-1 if o.location_id is None else o.location_id if o.location_id in location_at else -2 for o in orders],
            np.int64,
        ),
        unknown=np.array([o.lat is None or o.lon is None for o in orders], bool),
        unsited=np.array([n.lat is None or n.lon is None for n in sites], bool),
        strict=np.array([p.unknown_distance == "exclude" for p in policies], bool),
        pool_has=pool_has[:, number], barred=_barred(problem, lines, place_of, len(places)),
        limits=_limits(policies, sites, too_far),
        parcel_by_zone=np.where(pickup[:, None], 0, weighted("parcel", parcel, policy)),
        late_by_band=np.where(pickup[:, None], 0, weighted("lateness", late, policy)),
        weight_by_zone=np.where(pickup[line_order][:, None], 0, weighted("weight", weighs, of_line)).astype(np.float32),
        handling_at=at_places("handling", [n.package_cents for n in sites]),
        load_at=at_places("load", [n.load_cents for n in sites]),
        line_at=at_places("line", [n.line_cents for n in sites]),
    )  # fmt: skip


def _of(policies: list[Policy], field: str) -> Floats:
    return np.array([getattr(p, field) for p in policies], float)


def _packages_max(split: str, split_max: int | None) -> int:
    if split == "single":
        return 1
    return max(1, split_max or 1) if split == "max_packages" else 10**6


def _capacity(location: Location, slot: int | None, day: int) -> list[float]:
    if day:  # it leaves on a day whose work is not of this run
        return [UNLIMITED] * 3
    given: Location | Slot = location if slot is None else location.slots[slot]
    limits = (given.capacity_orders, given.capacity_items, given.capacity_cents)
    return [UNLIMITED if c is None else max(0, c) for c in limits]


def _places(problem: Problem) -> tuple[list[tuple[int, int | None, int]], dict[tuple[int, int], list[int]]]:
    """Places as (location, slot, day of stock), and those that may take stock of a location (by id) and day."""
    places: list[tuple[int, int | None, int]] = []
    place_of: dict[tuple[int, int], list[int]] = {}
    at = {n.location_id: i for i, n in enumerate(problem.locations)}
    for i, n in enumerate(problem.locations):
        for slot in range(len(n.slots)) if n.slots else [None]:
            place_of.setdefault((n.location_id, 0), []).append(len(places))
            places.append((i, slot, 0))
    for key in sorted({(s.location_id, s.day) for s in problem.stock if s.day > 0 and s.location_id in at}):
        place_of[key] = [len(places)]
        places.append((at[key[0]], None, key[1]))
    return places, place_of


def _leave_days(problem: Problem, places: list[tuple[int, int | None, int]]) -> tuple[Ints, int]:
    services = max(1, max((len(n.leave_days) for n in problem.locations), default=1))
    table = np.zeros((services, len(places)), np.int64)
    for at, (n, slot, day) in enumerate(places):
        location = problem.locations[n]
        earliest = max(day, 0 if slot is None else location.slots[slot].day)
        for s in range(services):
            table[s, at] = max(earliest, location.leave_days[min(s, len(location.leave_days) - 1)])
    return table, int(table.max(initial=0)) + 1


def _orders_and_lines(problem: Problem) -> dict[str, Any]:
    """Lines in parts, by order; those that stay together beside each other as one item; those alone as own orders."""
    order_at = {o.order_id: i for i, o in enumerate(problem.orders)}
    splits = any(p.units_split for p in policies_of(problem))
    keys: list[tuple[int, int, str, int, int, int, int]] = []
    for i, n in enumerate(problem.lines):
        o = order_at[n.order_id]
        group = "" if n.together is None else n.together
        item = i if n.together is None else -1
        for nth, units in enumerate(parts(problem, problem.orders[o], n) if splits else (n.quantity,)):
            keys.append((o, 1 + i * PARTS_MAX + nth if n.alone else 0, group, item, nth, i, units))
    keys.sort()
    index = np.array([k[5] for k in keys], np.int64)
    lines: list[Line] = [problem.lines[i] for i in index.tolist()]
    quantity = np.array([k[6] for k in keys], np.int64)
    new_item = np.array([i == 0 or k[:5] != keys[i - 1][:5] for i, k in enumerate(keys)], bool)
    new_order = np.array([i == 0 or k[:2] != keys[i - 1][:2] for i, k in enumerate(keys)], bool)
    heads = [keys[i] for i in np.flatnonzero(new_order).tolist()]
    having = {k[0] for k in heads}
    # orders without lines come last: they cost nothing
    order_index = np.array([k[0] for k in heads] + [i for i in range(len(order_at)) if i not in having], np.int64)
    line_order = np.cumsum(new_order) - 1
    item_first = np.append(np.flatnonzero(new_item), len(keys)).astype(np.int64)
    item_order = line_order[item_first[:-1]] if keys else np.zeros(0, np.int64)
    count = np.bincount(item_order, minlength=len(order_index)) if keys else np.zeros(len(order_index), np.int64)
    names = {
        "order_index": order_index, "order_first": np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        "item_first": item_first, "item_order": item_order, "line_index": index,
        "line_item": (np.cumsum(new_item) - 1).astype(np.int64) if keys else np.zeros(0, np.int64),
    }  # fmt: skip
    alone = np.array([k[1] > 0 for k in heads] + [False] * (len(order_index) - len(heads)), bool)
    return {"names": names, "lines": lines, "line_quantity": quantity, "alone": alone}


def _cells(
    problem: Problem, sku_at: dict[int, int], location_at: dict[int, int], place_of: dict[tuple[int, int], list[int]],
    places: int, policies: list[Policy], worth: Floats,
) -> dict[str, Any]:  # fmt: skip
    """Stock of wanted skus as cells by sku, and what each costs per unit; only where there is any."""
    rows = {
        (sku_at[s.sku_id], *place_of[s.location_id, s.day]): s
        for s in problem.stock
        if s.available > 0 and s.sku_id in sku_at and s.location_id in location_at
    }
    keys = sorted(rows)
    kept = [rows[k] for k in keys]
    sku = np.array([k[0] for k in keys], np.int64)
    stock = np.array([s.available for s in kept], np.int32)
    slots = np.array([len(k) - 1 for k in keys], np.int64)
    entry_cell = np.repeat(np.arange(1, len(keys) + 1), slots).astype(np.int32)
    entry_at = np.array([at for k in keys for at in k[1:]], np.int32)
    key = sku[entry_cell - 1] * places + entry_at if keys else np.zeros(0, np.int64)
    by = np.argsort(key, kind="stable")
    entry_at, entry_cell, key = entry_at[by], entry_cell[by], key[by]
    is_store = np.array([n.kind == "store" for n in problem.locations], bool)
    rejects = np.array([n.reject_share for n in problem.locations], float)
    place = np.array([location_at[s.location_id] for s in kept], np.int64)
    risk = np.minimum(STOCK_OUT_MAX, 0.5 / np.maximum(stock, 1)) * is_store[place] if keys else np.zeros(0)
    own = [s.reject_share for s in kept]
    share = np.array([rejects[n] if r is None else r for r, n in zip(own, place.tolist(), strict=True)], float)

    def table(term: str, per_policy: list[float], raw: Floats) -> Floats:
        weight = np.array([p.weights.get(term, 1.0) for p in policies]) * per_policy
        padded = np.append(0.0, raw)
        return np.rint(weight[:, None] * padded).astype(np.float32)

    ones = [1.0] * len(policies)
    terms = {
        "stock_out": table("stock_out", [p.stock_out_share for p in policies], risk * worth[sku] if keys else risk),
        "markdown": table("markdown", ones, np.array([-s.markdown_cents for s in kept], float)),
    }
    if any(s.transfer_cents for s in kept):
        terms["transfer"] = table("transfer", ones, np.array([s.transfer_cents for s in kept], float))
    if any(s.day for s in kept):
        terms["waiting"] = table("waiting", [p.wait_cents for p in policies], np.array([s.day for s in kept], float))
    return {
        "cell_stock": np.append(0, stock).astype(np.int32), "cell_sku": np.append(0, sku),
        "cell_place": np.append(0, [k[1] for k in keys]).astype(np.int64),
        "entry_first": np.searchsorted(sku[entry_cell - 1] if keys else sku, np.arange(len(sku_at) + 1)),
        "entry_at": entry_at, "entry_cell": entry_cell, "entry_key": key,
        "cell_line": table("rejection", [p.reject_cents for p in policies], share), "cell_terms": terms,
        "cell_unit": sum(terms.values(), np.zeros((len(policies), len(keys) + 1), np.float32)),
    }  # fmt: skip


def _barred(problem: Problem, lines: list[Line], place_of: dict[tuple[int, int], list[int]], places: int) -> Ints:
    if not problem.barred:
        return np.zeros(0, np.int64)
    lines_of: dict[tuple[str, int], list[int]] = {}
    for i, n in enumerate(lines):
        lines_of.setdefault((n.order_id, n.sku_id), []).append(i)
    at_location: dict[int, list[int]] = {}
    for (location, _), at in place_of.items():
        at_location.setdefault(location, []).extend(at)
    return np.unique(
        np.array(
            [i * places + at for b in problem.barred for i in lines_of.get((b.order_id, b.sku_id), [])
             for at in at_location.get(b.location_id, [])], np.int64,
        )
    )  # fmt: skip


def _limits(policies: list[Policy], sites: list[Location], too_far: dict[int, Floats]) -> tuple[Bounds, ...]:
    found = []
    for p, policy in enumerate(policies):
        for limit in policy.limits:
            barred = [
                bool(
                    (limit.kinds and n.kind not in limit.kinds) or (limit.groups and not {*limit.groups} & {*n.groups})
                )
                for n in sites
            ]
            cents = float(INF) if limit.cents is None else round(limit.cents * policy.weights.get("limit", 1.0))
            far = None if limit.miles_max is None else too_far[limit.miles_max]
            found.append(Bounds(p, cents, np.array(barred, bool), far, limit.late_days_max))
    return tuple(found)


def _zones(
    points: list[tuple[float | None, float | None]], problem: Problem, number: list[int]
) -> tuple[NDArray[np.uint8], dict[int, Floats]]:
    """The tariff's zone from each destination to each place, the farthest where a coordinate is unknown; and what lies
    beyond the miles of limits."""
    limits = np.array(policies_of(problem)[0].tariff.miles, float)
    size = (max(1, len(points)), len(problem.locations))
    zone = np.full(size, len(limits), np.uint8)
    beyond = {n.miles_max for p in policies_of(problem) for n in p.limits if n.miles_max is not None}
    too_far = {most: np.ones(size, bool) for most in beyond}
    known = [i for i, (lat, lon) in enumerate(points) if lat is not None and lon is not None]
    sited = [i for i, n in enumerate(problem.locations) if n.lat is not None and n.lon is not None]
    if known and sited:
        to = np.array([[problem.locations[i].lat, problem.locations[i].lon] for i in sited], float)
        for start in range(0, len(known), 2000):
            some = known[start : start + 2000]
            distance = miles(np.array([points[i] for i in some], float), to)
            zone[np.ix_(some, sited)] = np.searchsorted(limits, distance).astype(np.uint8)
            for most in beyond:
                too_far[most][np.ix_(some, sited)] = distance > most
    return zone[:, number], {most: far[:, number] for most, far in too_far.items()}
