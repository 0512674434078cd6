"""The identities that hold at every moment, asked of the database: what is reserved, allocated, supplied and worked."""

from oms.db import Database

RESERVED = """
with promised as (
  select l.sku_id, r.pool_id, sum(l.quantity) as units from reservation r join reservation_line l using (reservation_id)
   where r.state = 'live' and r.location_id is null group by 1, 2
  union all
  select sku_id, pool_id, sum(open) from order_line where sku_id is not null group by 1, 2
), wanted as (
  select sku_id, pool_id, sum(units)::int as units from promised group by 1, 2
), written as (
  select a.sku_id, y.pools[i] as pool_id, a.reserved[i] as units
    from availability a join layout y using (layout_id), generate_subscripts(y.pools, 1) i
)
select s.code, coalesce(w.pool_id, p.pool_id), coalesce(w.units, 0) as written, coalesce(p.units, 0) as promised
  from written w full join wanted p using (sku_id, pool_id) join sku s using (sku_id)
 where coalesce(w.units, 0) <> coalesce(p.units, 0)
"""

ALLOCATED = """
with promised as (
  select l.sku_id, r.location_id, sum(l.quantity) as units
    from reservation r join reservation_line l using (reservation_id)
   where r.state = 'live' and r.location_id is not null group by 1, 2
  union all
  select l.sku_id, f.location_id, sum(l.quantity) from fulfillment f join fulfillment_line l using (fulfillment_id)
   where f.state in ('released', 'accepted', 'picked', 'packed', 'ready') group by 1, 2
), wanted as (
  select sku_id, location_id, sum(units)::int as units from promised group by 1, 2
)
select s.code, coalesce(t.allocated, 0) as written, coalesce(w.units, 0) as promised
  from stock t full join wanted w using (sku_id, location_id) join sku s using (sku_id)
 where coalesce(t.allocated, 0) <> coalesce(w.units, 0)
"""

GIVEN = """
select l.line_id from order_line l left join (
  select n.line_id, sum(n.quantity) as units from fulfillment_line n join fulfillment f using (fulfillment_id)
   where f.state in ('released', 'accepted', 'picked', 'packed', 'ready') group by 1) g using (line_id)
 where l.allocated <> coalesce(g.units, 0)
"""

SUPPLY = """
select a.sku_id from availability a
 where a.supply <> (select array_agg(coalesce((
         select sum(greatest(0, s.on_hand - s.held - s.allocated - s.safety_stock))
           from stock s join location l on l.location_id = s.location_id and l.is_on
           join layout_location g on g.layout_id = a.layout_id and g.location_id = s.location_id
          where s.sku_id = a.sku_id and g.segment = i - 1), 0)::int order by i)
         from generate_subscripts(a.supply, 1) i)
"""

WORK = """
select c.location_id, c.day, c.orders, c.items from capacity c left join (
  select f.location_id, f.capacity_day as day, count(distinct f.fulfillment_id)::int as orders,
         sum(n.quantity)::int as items
    from fulfillment f join fulfillment_line n using (fulfillment_id)
   where f.state not in ('rejected', 'recalled') group by 1, 2) w using (location_id, day)
 where c.orders <> coalesce(w.orders, 0) or c.items <> coalesce(w.items, 0)
"""


async def check_balance(db: Database) -> None:
    """Fails where reserved is not live reservations plus open lines, or any other fold is off."""
    async with db.connection() as connection:
        for name, query in (
            ("reserved", RESERVED), ("allocated", ALLOCATED), ("given", GIVEN), ("supply", SUPPLY), ("work", WORK),
        ):  # fmt: skip
            off = await connection.fetch(query)
            assert not off, f"{name} is off: {[tuple(row) for row in off]}"
