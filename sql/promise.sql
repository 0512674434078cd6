-- name: supplies
-- The availability rows of these skus as of now, without taking them.
select a.sku_id, s.code, a.version, a.layout_id, a.supply, a.reserved, a.taken
  from availability a join sku s using (sku_id) where a.sku_id = any(:skus::int[]);

-- name: incoming_next
-- The next receipt of each sku at the locations of a pool, from this day on: its date, and what comes on it.
select distinct on (i.sku_id) i.sku_id, i.due_on, sum(i.quantity) over (partition by i.sku_id, i.due_on)::int as quantity
  from incoming i
  join pool_location p on p.location_id = i.location_id and p.pool_id = :pool_id
  join location l on l.location_id = i.location_id and l.is_on
 where i.sku_id = any(:skus::int[]) and i.quantity > 0 and i.due_on >= :today
 order by i.sku_id, i.due_on;

-- name: incoming_here
-- The next receipt of each of these skus at each location, from this day on.
select distinct on (sku_id, location_id) sku_id, location_id, due_on
  from incoming
 where sku_id = any(:skus::int[]) and quantity > 0 and due_on >= :today
 order by sku_id, location_id, due_on;

-- name: stock_by_location
-- Every location of a layout with its stock of a sku, and its segment.
select l.location_id, l.code, l.name, l.kind, l.is_on, l.lat, l.lon, g.segment,
       coalesce(s.on_hand, 0) as on_hand, coalesce(s.held, 0) as held, coalesce(s.allocated, 0) as allocated,
       coalesce(s.safety_stock, 0) as safety_stock
  from layout_location g
  join location l using (location_id)
  left join stock s on s.location_id = l.location_id and s.sku_id = :sku_id
 where g.layout_id = :layout_id
 order by l.code;

-- name: pool_codes
-- The codes of these pools.
select pool_id, code from pool where pool_id = any(:pools::int[]);
