"""What packages and lines cost at places, from the tables of a matrix, and where they may go at all."""

import numpy as np

from brokering.matrix import INF, Bools, Floats, Ints, Matrix, lines_of_items


def _band(m: Matrix, orders: Ints, zone: Ints, at: Ints | None) -> Ints:
    """Zone × days + the day of leaving: where `late_by_band` is read."""
    if m.days == 1:
        return zone
    leave = m.leave_day[m.service[orders]] if at is None else m.leave_day[m.service[orders][:, None], at]
    return zone.astype(np.int64) * m.days + leave


def _zone(m: Matrix, orders: Ints, at: Ints | None) -> Ints:
    return m.zone[m.destination[orders]] if at is None else m.zone[m.destination[orders][:, None], at]


def package_terms(m: Matrix, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of a package by term, [B,N] (or [B,K] at the given places [B,K]); INF beyond a hard limit."""
    zone, rows, policy = _zone(m, orders, at), orders[:, None], m.policy[orders]

    def by_place(table: Floats) -> Floats:
        return table[policy] if at is None else table[policy[:, None], at]

    terms = {
        "parcel": m.parcel_by_zone[rows, zone],
        "handling": by_place(m.handling_at),
        "lateness": m.late_by_band[rows, _band(m, orders, zone, at)],
    }
    if m.load_at.any():
        terms["load"] = by_place(m.load_at)
    if m.limits:
        terms["limit"] = limit_cents(m, orders, at)
    return terms


def limit_cents(m: Matrix, orders: Ints, at: Ints | None = None) -> Floats:
    """What dropping limits costs, [B,N] (or [B,K]); INF where a hard one would be broken. Pick-ups have none."""
    zone = _zone(m, orders, at)
    total = np.zeros(zone.shape, np.float32)
    for limit in m.limits:
        mine = np.flatnonzero((m.policy[orders] == limit.policy) & (m.only_location[orders] == -1))
        if not len(mine):
            continue
        here = None if at is None else at[mine]
        broken = np.broadcast_to(
            limit.barred if here is None else limit.barred[here], (len(mine), zone.shape[1])
        ).copy()
        to = m.destination[orders[mine]]
        if limit.too_far is not None:
            broken |= limit.too_far[to] if here is None else limit.too_far[to[:, None], here]
        if limit.late_days_max is not None:
            service = m.service[orders[mine]]
            leaves = m.leave_day[service] if here is None else m.leave_day[service[:, None], here]
            days = leaves + m.transit[limit.policy][zone[mine]] - m.promise[orders[mine], None]
            broken |= days > limit.late_days_max
        total[mine] += np.where(broken, np.float32(limit.cents), np.float32(0))
    return np.minimum(total, INF)


def line_terms(m: Matrix, lines: Ints, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of lines by term, [B,N] (or [B,K]); `orders` is the order of each line. Where it has no stock: nothing
    of what depends on stock."""
    zone, policy = _zone(m, orders, at), m.policy[orders]
    sku, take = m.line_sku[lines], m.line_quantity[lines][:, None].astype(np.float32)
    cell = m.spread(sku) if at is None else m.cell_of(sku[:, None], at)
    terms = {
        "weight": m.weight_by_zone[lines[:, None], zone],
        "line": m.line_at[policy] if at is None else m.line_at[policy[:, None], at],
        "rejection": m.cell_line[policy[:, None], cell],
    }
    return terms | {name: table[policy[:, None], cell] * take for name, table in m.cell_terms.items()}


def may(m: Matrix, lines: Ints, orders: Ints, at: Ints) -> Bools:
    """Whether lines may be served at places at all, element by element: pool, own location, known distance, not barred.

    Limits of a policy are the package's.
    """
    pool = m.line_pool[lines]
    ok = m.pool_has[pool, at] & (pool >= 0)
    only = m.only_location[orders]
    free = only == -1
    if not free.all():
        ok &= free | (only == m.location_ids[at])
    if m.strict.any():
        ok &= ~(free & m.strict[m.policy[orders]] & (m.unsited[at] | m.unknown[orders]))
    if len(m.barred):
        key = lines * m.places + at
        spot = np.minimum(np.searchsorted(m.barred, key), len(m.barred) - 1)
        ok &= m.barred[spot] != key
    return ok


def eligible(m: Matrix, lines: Ints, orders: Ints) -> Bools:
    """Which places may serve these lines at all, [B,N], hard limits included."""
    ok = may(m, lines[:, None], orders[:, None], np.arange(m.places)[None])
    if m.limits:
        ok &= limit_cents(m, orders) < INF / 2
    return ok


def order_costs(m: Matrix, orders: Ints, items: int, room: Ints | None = None) -> tuple[Floats, Floats, Floats]:
    """Package cost [B,N], item cost [B,items,N] (INF where it cannot be), and what leaving each item costs [B,items].

    `orders` have equal numbers of items. `room` [C+1] is what may still be taken, all of the stock where left out.
    """
    room = m.cell_stock if room is None else room
    zone = _zone(m, orders, None)
    policy = m.policy[orders]
    one = len(m.line_at) == 1
    rows = orders[:, None]
    package = m.parcel_by_zone[rows, zone]
    package += m.late_by_band[rows, _band(m, orders, zone, None)]
    package += (m.handling_at + m.load_at)[0 if one else policy]
    if m.limits:
        package = np.minimum(package + limit_cents(m, orders), INF)
    package[:, m.capacity[:, 0] <= 0] = INF
    flat = (m.order_first[orders][:, None] + np.arange(items)).ravel()
    cost = np.full((len(flat), m.places), INF, np.float32)
    leave = np.zeros(len(flat), np.float32)
    for nth, (has, lines) in enumerate(lines_of_items(m, flat)):
        row, at, cell = m.entries(m.line_sku[lines])
        ok = room[cell] >= m.line_quantity[lines][row]
        row, at, cell = row[ok], at[ok], cell[ok]
        ok = may(m, lines[row], m.item_order[flat[has[row]]], at)
        if not ok.all():
            row, at, cell = row[ok], at[ok], cell[ok]
        b = has[row] // items
        p = 0 if one else policy[b]
        cents = m.weight_by_zone[lines[row], zone[b, at]] + m.line_at[p, at] + m.cell_line[p, cell]
        cents += m.cell_unit[p, cell] * m.line_quantity[lines][row].astype(np.float32)
        if nth == 0:
            cost[has[row], at] = cents
        else:
            more = np.full((len(has), m.places), INF, np.float32)
            more[row, at] = cents
            cost[has] += more
        leave[has] += m.leave[lines].astype(np.float32)
    shape = (len(orders), items)
    return package, np.minimum(cost, INF).reshape(*shape, -1), leave.reshape(shape)
