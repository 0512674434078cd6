-- Order routings of other systems: kept as they were given.

-- name: write_routing_set
-- Keeps routings under a name; what stood there before is replaced. True where it is new.
insert into routing_set (code, given, made_by) values (:code, :given, :who)
on conflict (code) do update set given = excluded.given, made_by = excluded.made_by, made_at = clock_timestamp()
returning xmax = 0;

-- name: routing_set_of
-- Routings of a name.
select code, given, made_by, made_at from routing_set where code = :code;

-- name: routing_sets
-- Imported routings, in order of their names.
select code, given, made_by, made_at from routing_set where code > :after order by code limit :limit;

-- name: place_codes
-- Every location by its code, with the codes of its pools.
select l.code, l.location_id,
       array(select p.code from pool_location m join pool p using (pool_id) where m.location_id = l.location_id
              order by p.code) as groups
  from location l order by l.code;

-- name: asked_by_routings
-- What filters of routings ask of these orders.
select o.order_id::text, c.code as channel, o.method, null::text as queue,
       extract(epoch from o.placed_at)::float8 as placed
  from orders o join channel c using (channel_id)
 where o.order_id = any(:orders::uuid[]) order by o.order_id;
