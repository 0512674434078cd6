-- name: store
-- A location as its own people ask.
select location_id, code, name, lat, lon, is_on from location where location_id = :location_id;

-- name: channels_of
-- The channels that sell from a location and are on; and whether one is marked as its endless aisle.
select c.channel_id, c.code, coalesce(c.settings -> 'endless_aisle' = 'true', false) as is_aisle
  from channel c join pool_location p using (pool_id)
 where p.location_id = :location_id and c.is_on order by c.code;

-- name: exact
-- Skus that a code names, ours first, then barcodes, then what sources call them.
with hit as (
  select sku_id, 1 as rank, 'code' as found_by from sku where code = any(:codes::text[])
  union all
  select sku_id, 2, 'barcode' from sku_barcode where barcode = any(:barcodes::text[])
  union all
  select sku_id, 3, 'alias' from sku_alias where code = any(:codes::text[])
)
select s.sku_id, s.code, s.name, s.price_cents, h.found_by
  from (select distinct on (sku_id) * from hit order by sku_id, rank) h join sku s using (sku_id)
 order by h.rank, s.code limit :limit;

-- name: by_words
-- Skus that bear all of these words, or words that begin so; the best of the first that are met.
select n.sku_id, n.code, n.name, n.price_cents, 'words' as found_by
  from (select s.sku_id, s.code, s.name, s.price_cents from sku s
         where sku_words(s.name, s.code) @@ to_tsquery('simple', :words) limit :met) n
 order by ts_rank(sku_words(n.name, n.code), to_tsquery('simple', :words)) desc, length(n.name), n.code
 limit :limit;

-- name: beside
-- What else an associate sees of skus: barcodes, a kit's components, and the bin in the store.
select s.sku_id,
       coalesce((select array_agg(b.barcode order by b.barcode) from sku_barcode b where b.sku_id = s.sku_id), '{}') as barcodes,
       (select jsonb_agg(jsonb_build_object('sku', c.code, 'quantity', k.quantity) order by c.code)
          from kit k join sku c on c.sku_id = k.component_id where k.kit_id = s.sku_id) as parts,
       (select min(b.bin) from bin_stock b
         where b.location_id = :location_id and b.sku_id = s.sku_id and b.quantity > 0 and b.bin <> '') as bin
  from sku s where s.sku_id = any(:skus::int[]);

-- name: prices
-- What skus cost, by list.
select sku_id, price_cents from sku where sku_id = any(:skus::int[]);

-- name: insert_baskets
-- Baskets that are reserved in this transaction; one that is there already stays.
insert into basket (basket_id, channel_id, location_id, lines, ship_to, ship_method, who, why)
select n.basket_id, n.channel_id, n.location_id, n.says -> 'lines', n.ship_to, n.ship_method, n.who, n.why
  from unnest(:ids::uuid[], :channels::int[], :locations::int[], :says::jsonb[], :ship_tos::jsonb[], :ship_methods::text[],
              :whos::text[], :whys::text[])
       as n(basket_id, channel_id, location_id, says, ship_to, ship_method, who, why)
on conflict (basket_id) do nothing
returning basket_id;

-- name: insert_parts
-- The parts of baskets, each with what it reserved.
insert into basket_part (basket_id, place, method, location_id, reservation_id)
select n.basket_id, n.place, n.method, l.location_id, n.reservation_id
  from unnest(:baskets::uuid[], :places::int[], :methods::text[], :locations::text[], :reservations::uuid[])
       as n(basket_id, place, method, code, reservation_id)
  left join location l on l.code = n.code
on conflict (basket_id, place) do nothing;

-- name: basket_shown
-- A basket as it stands now, if it is of this location and channel (null: any).
select b.basket_id, c.code as channel, l.code as location,
       case when o.basket_id is not null then 'ordered'
            when r.live < r.parts and r.released > 0 then 'released'
            when r.live < r.parts or r.expires_at <= clock_timestamp() then 'expired' else 'reserved' end as state,
       r.expires_at,
       case when o.basket_id is not null or r.live < r.parts then 0
            else greatest(0, ceil(extract(epoch from r.expires_at - clock_timestamp())))::int end as seconds_left,
       b.lines, b.ship_to, b.ship_method, b.who, b.why, b.made_at, o.number, r.orders
  from basket b
  join channel c using (channel_id)
  join location l on l.location_id = b.location_id
  left join basket_order o on o.basket_id = b.basket_id
  cross join lateral (
    select min(v.expires_at) as expires_at, count(*) as parts, count(*) filter (where v.state = 'live') as live,
           count(*) filter (where v.state = 'released') as released,
           coalesce(array_agg(p.order_id order by p.place) filter (where p.order_id is not null), '{}') as orders
      from basket_part p join reservation v using (reservation_id) where p.basket_id = b.basket_id) r
 where b.basket_id = :id and (:location_id::int is null or b.location_id = :location_id)
   and (:channel_id::int is null or b.channel_id = :channel_id);

-- name: take_basket
-- Takes a basket, if it is of this location and channel (null: any).
select basket_id from basket
 where basket_id = :id and (:location_id::int is null or location_id = :location_id)
   and (:channel_id::int is null or channel_id = :channel_id) for update;

-- name: take_held
-- Takes what a basket's parts reserved, in order; `is_live`: it is held, and its time is not over.
select v.reservation_id, v.state = 'live' as is_held, v.state = 'live' and v.expires_at > clock_timestamp() as is_live
  from reservation v
 where v.reservation_id in (select reservation_id from basket_part where basket_id = :id)
 order by v.reservation_id for update;

-- name: extend_held
-- What a basket holds lasts this much longer from now, all of it up to one moment.
update reservation v set expires_at = greatest(v.expires_at, n.until)
  from (select clock_timestamp() + make_interval(secs => :ttl) as until) n
 where v.reservation_id = any(:ids::uuid[]) and v.state = 'live';

-- name: take_for_order
-- Takes a basket that is to be ordered, with the store's address, if it is of this location and channel (null: any).
select b.basket_id, b.channel_id, c.code as channel, l.code as location, b.lines, b.ship_to, b.ship_method, l.postal_code,
       l.country, l.lat, l.lon
  from basket b join channel c using (channel_id) join location l on l.location_id = b.location_id
 where b.basket_id = :id and (:location_id::int is null or b.location_id = :location_id)
   and (:channel_id::int is null or b.channel_id = :channel_id) for update of b;

-- name: parts_to_order
-- The parts of a basket, and the orders that they became.
select p.place, p.method, l.code as location, p.reservation_id, p.order_id
  from basket_part p left join location l using (location_id) where p.basket_id = :id order by p.place;

-- name: give_number
-- A basket is ordered under this number; the number that it has, where it has one, and no row where another has this.
with made as (
  insert into basket_order (channel_id, number, basket_id, who, why)
  select :channel_id, :number, :id, :who, :why
   where not exists (select from basket_order where basket_id = :id)
  on conflict (channel_id, number) do nothing
  returning number, who, true as is_new
)
select number, who, is_new from made
union all
select number, who, false from basket_order where basket_id = :id;

-- name: part_is_ordered
-- Parts of a basket become orders.
update basket_part p set order_id = n.order_id
  from unnest(:places::int[], :orders::uuid[]) as n(place, order_id)
 where p.basket_id = :id and p.place = n.place;

-- name: lapsed
-- Parts of a basket that an order did not claim while their time was not over.
select p.method from basket_part p join reservation v using (reservation_id)
 where p.basket_id = :id and not (v.state = 'claimed' and v.ended_at <= v.expires_at) order by p.place;

-- name: not_there
-- Lines of orders that are not allocated at all.
select line, sku from order_line where order_id = any(:orders::uuid[]) and allocated + shipped < quantity order by line_id;

-- name: to_take_away
-- The work of orders that are taken away as they are placed.
select fulfillment_id from fulfillment where order_id = any(:orders::uuid[]) order by fulfillment_id;

-- name: in_customers_hands
-- All units of work are in hand, and no system is told of it any more: they leave now.
with told as (
  update handoff set state = 'dropped', answer = 'taken away at the till'
   where fulfillment_id = any(:ids::uuid[]) and act = 'release' and state = 'due' and attempts = 0
)
update fulfillment_line set picked = quantity, packed = quantity where fulfillment_id = any(:ids::uuid[]);

-- name: has_left
-- What is taken away of these orders has left.
update basket_part set left_at = :at where order_id = any(:orders::uuid[]) and method = 'take_away' and left_at is null;

-- name: stays
-- Orders that were placed before a moment and whose units to take away have not left, oldest first.
select p.order_id from basket_part p join orders o using (order_id)
 where p.method = 'take_away' and p.left_at is null and o.captured_at < :before order by o.captured_at limit :limit;

-- name: sold_here
-- What was taken away, each with the reference that a till's message about it bears.
select n.line, s.code as sku, g.quantity, g.reference
  from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
 where g.fulfillment_id = any(:ids::uuid[]) and g.quantity > 0 order by g.line_id;
