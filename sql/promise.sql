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

-- name: cells
-- What is available of these skus at these locations, where there is any.
select k.sku_id, k.location_id, k.on_hand - k.held - k.allocated - k.safety_stock as available
  from stock k join location l using (location_id)
 where k.sku_id = any(:skus::int[]) and k.location_id = any(:locations::int[]) and l.is_on
   and k.on_hand - k.held - k.allocated - k.safety_stock > 0;
