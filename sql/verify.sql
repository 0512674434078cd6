-- name: stock_differs
-- Keys whose stock is not the fold of the ledger, or whose held and allocated units are not what holds and work say.
with folded as (
  select sku_id, location_id, sum(effect)::bigint as on_hand, max(version) as version, count(*) as count
    from movement group by sku_id, location_id
), held as (
  select sku_id, location_id, sum(quantity)::bigint as held from hold
   where lifted_at is null and (not exists (select from rule where kind = 'hold') or not is_sellable(code, sku_id, location_id))
   group by sku_id, location_id
), allocated as (
  select sku_id, location_id, sum(quantity)::bigint as allocated
    from (select g.sku_id, f.location_id, g.quantity
            from fulfillment f join fulfillment_line g using (fulfillment_id)
           where f.state in ('released', 'accepted', 'picked', 'packed', 'ready')
          union all
          select n.sku_id, r.location_id, n.quantity
            from reservation r join reservation_line n using (reservation_id)
           where r.state = 'live' and r.location_id is not null) a
   group by sku_id, location_id
)
select 'stock' as what, s.code || ' at ' || l.code as subject,
       format('on_hand %s version %s held %s allocated %s', k.on_hand, k.version, k.held, k.allocated) as kept,
       format('on_hand %s version %s held %s allocated %s', coalesce(f.on_hand, 0), coalesce(f.version, 0),
              coalesce(h.held, 0), coalesce(a.allocated, 0)) as folded
  from stock k
  join sku s using (sku_id) join location l using (location_id)
  left join folded f using (sku_id, location_id)
  left join held h using (sku_id, location_id)
  left join allocated a using (sku_id, location_id)
 where k.on_hand <> coalesce(f.on_hand, 0) or k.version <> coalesce(f.version, 0) or k.version <> coalesce(f.count, 0)
    or k.held <> coalesce(h.held, 0) or k.allocated <> coalesce(a.allocated, 0)
union all
select 'stock', f.sku_id || ' at ' || f.location_id, 'no row', 'on_hand ' || f.on_hand
  from folded f where not exists (select from stock k where k.sku_id = f.sku_id and k.location_id = f.location_id)
 limit 1000;

-- name: availability_differs
-- Skus whose supply is not the sum of their stock, or whose reserved units are not reservations and open lines.
with supply as (
  select a.sku_id, g.segment, coalesce(sum(greatest(0, s.on_hand - s.held - s.allocated - s.safety_stock)), 0) as units
    from availability a
    join stock s using (sku_id)
    join location l on l.location_id = s.location_id and l.is_on
    join layout_location g on g.layout_id = a.layout_id and g.location_id = s.location_id
   group by a.sku_id, g.segment
), supply_differs as (
  select a.sku_id, format('supply of segment %s is %s', n.segment - 1, n.units) as kept, coalesce(x.units, 0)::text as folded
    from availability a
    cross join unnest(a.supply) with ordinality as n(units, segment)
    left join supply x on x.sku_id = a.sku_id and x.segment = n.segment - 1
   where n.units <> coalesce(x.units, 0)
), promised as (
  select sku_id, pool_id, sum(units) as units
    from (select n.sku_id, r.pool_id, n.quantity as units
            from reservation r join reservation_line n using (reservation_id)
           where r.state = 'live' and r.location_id is null
          union all
          select sku_id, pool_id, open from order_line where open > 0 and sku_id is not null) p
   group by sku_id, pool_id
), reserved as (
  select a.sku_id, p.pool_id, a.reserved[p.place] as units
    from availability a join layout y using (layout_id) cross join unnest(y.pools) with ordinality as p(pool_id, place)
), reserved_differs as (
  select coalesce(r.sku_id, p.sku_id) as sku_id, format('reserved in pool %s is %s', coalesce(r.pool_id, p.pool_id), r.units) as kept,
         coalesce(p.units, 0)::text as folded
    from reserved r full join promised p using (sku_id, pool_id)
   where coalesce(r.units, 0) <> coalesce(p.units, 0)
)
select 'availability' as what, s.code as subject, d.kept, d.folded
  from (select * from supply_differs union all select * from reserved_differs) d join sku s using (sku_id)
 order by 2 limit 1000;

-- name: capacity_differs
-- Days whose used capacity is not what their fulfillments say.
with worked as (
  select f.location_id, f.capacity_day as day, count(distinct f.fulfillment_id) as orders, sum(g.quantity) as items,
         sum(g.quantity * coalesce(n.price_cents, 0)::bigint) as cents
    from fulfillment f join fulfillment_line g using (fulfillment_id) join order_line n using (line_id)
   where g.quantity > 0 and f.state not in ('rejected', 'recalled')
   group by f.location_id, f.capacity_day
)
select 'capacity' as what, l.code || ' on ' || coalesce(c.day, w.day) as subject,
       format('orders %s items %s cents %s', coalesce(c.orders, 0), coalesce(c.items, 0), coalesce(c.cents, 0)) as kept,
       format('orders %s items %s cents %s', coalesce(w.orders, 0), coalesce(w.items, 0), coalesce(w.cents, 0)) as folded
  from capacity c full join worked w on w.location_id = c.location_id and w.day = c.day
  join location l on l.location_id = coalesce(c.location_id, w.location_id)
 where (coalesce(c.orders, 0), coalesce(c.items, 0), coalesce(c.cents, 0))
    <> (coalesce(w.orders, 0), coalesce(w.items, 0), coalesce(w.cents, 0))
 order by 2 limit 1000;

-- name: lines_differ
-- Order lines whose allocated units are not with fulfillments.
with given as (
  select g.line_id,
         sum(g.quantity) filter (where f.state in ('released', 'accepted', 'picked', 'packed', 'ready')) as allocated,
         sum(g.quantity) filter (where f.state in ('shipped', 'handed_over')) as shipped
    from fulfillment f join fulfillment_line g using (fulfillment_id) group by g.line_id
)
select 'order line' as what, o.number || ' line ' || n.line as subject,
       format('allocated %s shipped %s', n.allocated, n.shipped) as kept,
       format('allocated %s shipped %s', coalesce(g.allocated, 0), coalesce(g.shipped, 0)) as folded
  from order_line n join orders o using (order_id) left join given g using (line_id)
 where n.allocated <> coalesce(g.allocated, 0) or n.shipped <> coalesce(g.shipped, 0)
 order by 2 limit 1000;

-- name: settlements_differ
-- What is owed that is not what left, not what came back, or without its entry; and closed periods that have changed.
select 'owed' as what, o.reference as subject, o.quantity::text as kept, g.quantity::text as folded
  from owed o join fulfillment_line g using (reference) where o.kind = 'sale' and o.quantity <> g.quantity
union all
select 'given back', o.reference, (-sum(b.quantity))::text, o.quantity::text
  from owed b join owed o on o.owed_id = b.of_id where b.kind = 'return'
 group by o.reference, o.quantity having -sum(b.quantity) > o.quantity
union all
select 'entry', o.reference, o.state, case when e.settlement_id is null then 'no entry' else 'an entry' end
  from owed o left join settlement e using (owed_id) where (o.state = 'made') <> (e.settlement_id is not null)
union all
select 'settlement period', p.period, t.cents || ' cents in ' || t.entries, e.cents || ' cents in ' || e.entries
  from settlement_period p
  cross join lateral (select coalesce(sum((n ->> 'cents')::bigint), 0) as cents,
                             coalesce(sum((n ->> 'entries')::bigint), 0) as entries
                        from jsonb_array_elements(p.totals) n) t
  cross join lateral (select coalesce(sum(cents), 0) as cents, count(*) as entries
                        from settlement where period = p.period) e
 where p.state = 'closed' and (t.cents, t.entries) <> (e.cents, e.entries);

-- name: counts
-- How much was verified.
select (select count(*) from movement)::bigint as movements, (select count(*) from stock)::bigint as stock,
       (select count(*) from availability)::bigint as availability, (select count(*) from order_line)::bigint as lines;

-- name: source_known
-- A source by its code.
select source_id from source where code = :code;

-- name: counted
-- A counted quantity beside ours.
select s.code as sku, l.code as location, n.quantity as counted, coalesce(k.on_hand, 0) as on_hand
  from unnest(:skus::text[], :locations::text[], :quantities::int[]) as n(sku, location, quantity)
  left join source o on o.code = :source
  left join sku_alias sa on sa.source_id = o.source_id and sa.code = n.sku
  left join location_alias la on la.source_id = o.source_id and la.code = n.location
  join sku s on s.sku_id = sa.sku_id or (sa.sku_id is null and s.code = n.sku)
  join location l on l.location_id = la.location_id or (la.location_id is null and l.code = n.location)
  left join stock k on k.sku_id = s.sku_id and k.location_id = l.location_id;
