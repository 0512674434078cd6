-- name: insert_orders
-- Makes orders whose (channel, number) is new; a known one gives no row. Sold there, also where the channel's
-- settings say `sells_itself`: its shop keeps a stock of its own and sends its orders to us.
insert into orders (channel_id, number, hash, placed_at, ship_to, method, priority, split, split_max, promise_days,
                    pickup_location_id, sold_there)
select n.channel_id, n.number, n.hash, n.placed_at, n.ship_to, n.method, n.priority, n.split, n.split_max,
       n.promise_days, n.pickup_location_id, n.sold_there or coalesce((c.settings -> 'sells_itself') = 'true', false)
  from unnest(:channels::int[], :numbers::text[], :hashes::bytea[], :placed::timestamptz[], :ship_tos::jsonb[],
                     :methods::text[], :priorities::int[], :splits::text[], :split_maxima::int[],
                     :promise_days::int[], :pickups::int[], :sold_there::boolean[])
              as n(channel_id, number, hash, placed_at, ship_to, method, priority, split, split_max, promise_days,
                   pickup_location_id, sold_there)
  join channel c using (channel_id)
 order by n.channel_id, n.number
on conflict (channel_id, number) do nothing
returning order_id, channel_id, number, hash;

-- name: known_orders
-- The orders of these (channel, number) that stand.
select o.order_id, o.channel_id, o.number, o.hash
  from orders o join unnest(:channels::int[], :numbers::text[]) as n(channel_id, number) using (channel_id, number);

-- name: take_claims
-- Takes the reservations that orders bring, in order: live ones are claimed, others are new demand.
select reservation_id, channel_id, state = 'live' as is_live
  from reservation where reservation_id = any(:ids::uuid[]) order by reservation_id for update;

-- name: claimed_lines
-- The units of live reservations that are claimed.
select r.reservation_id, r.channel_id, r.pool_id, r.location_id, l.sku_id, l.quantity
  from reservation r join reservation_line l using (reservation_id)
 where r.reservation_id = any(:ids::uuid[])
 order by r.reservation_id, l.sku_id;

-- name: claim
-- Reservations become orders.
update reservation set state = 'claimed', ended_at = clock_timestamp()
 where reservation_id = any(:ids::uuid[]) and state = 'live';

-- name: insert_lines
-- Keeps lines with where their units stand.
insert into order_line (order_id, line, part, sku_id, sku, pool_id, quantity, price_cents, open, parked, allocated, hold)
select * from unnest(:orders::uuid[], :lines::text[], :parts::int[], :sku_ids::int[], :skus::text[], :pools::int[],
                     :quantities::int[], :prices::int[], :open::int[], :parked::int[], :allocated::int[],
                     :holds::text[])
returning line_id, order_id, line, part;

-- name: insert_fulfillments
-- A fulfillment for each pick-up that is allocated.
insert into fulfillment (order_id, location_id, capacity_day)
select * from unnest(:orders::uuid[], :locations::int[], :days::date[])
returning fulfillment_id, order_id;

-- name: insert_fulfillment_lines
-- The lines of new fulfillments, each with the reference that its source acknowledges.
insert into fulfillment_line (fulfillment_id, line_id, sku_id, given, quantity, reference)
select n.fulfillment_id, n.line_id, n.sku_id, n.quantity, n.quantity, n.fulfillment_id || ':' || n.line_id
  from unnest(:fulfillments::uuid[], :lines::bigint[], :skus::int[], :quantities::int[])
       as n(fulfillment_id, line_id, sku_id, quantity);

-- name: incoming_of
-- Receipts that could still serve a sku in a pool, soonest first.
select i.sku_id, s.code as sku, i.due_on, sum(i.quantity)::int as quantity
  from incoming i
  join pool_location p on p.location_id = i.location_id and p.pool_id = :pool_id
  join sku s on s.sku_id = i.sku_id
 where i.sku_id = any(:skus::int[]) and i.quantity > 0 and i.due_on >= :today
 group by i.sku_id, s.code, i.due_on order by i.sku_id, i.due_on;

-- name: take_order
-- Takes an order, if the caller sees it: one of these channels, and at this location (null: any).
select o.order_id, o.channel_id, o.number, o.pickup_location_id
  from orders o
 where o.order_id = :id
   and (:channels::int[] is null or o.channel_id = any(:channels::int[]))
   and (:location_id::int is null or o.pickup_location_id = :location_id
        or exists (select from fulfillment f where f.order_id = o.order_id and f.location_id = :location_id))
   for update;

-- name: take_fulfillments
-- Takes an order's fulfillments.
select fulfillment_id, location_id, state, capacity_day
  from fulfillment where order_id = :id order by fulfillment_id for update;

-- name: take_lines
-- Takes an order's lines.
select line_id, line, part, sku_id, pool_id, quantity, open, parked, allocated, shipped, cancelled, hold, price_cents
  from order_line where order_id = :id order by line_id for update;

-- name: given_lines
-- What these fulfillments still have of their lines.
select fulfillment_id, line_id, sku_id, quantity
  from fulfillment_line where fulfillment_id = any(:ids::uuid[]) and quantity > 0 order by fulfillment_id, line_id;

-- name: cancel_lines
-- Units of lines that are open, parked or recalled are cancelled.
update order_line l
   set open = l.open - n.open, parked = l.parked - n.parked, allocated = l.allocated - n.allocated,
       cancelled = l.cancelled + n.open + n.parked + n.allocated, version = l.version + 1
  from unnest(:ids::bigint[], :open::int[], :parked::int[], :allocated::int[]) as n(line_id, open, parked, allocated)
 where l.line_id = n.line_id;

-- name: recall_lines
-- Lines are taken back from their fulfillments; one that has none left is recalled.
with recalled as (
  update fulfillment_line f set quantity = 0
    from unnest(:fulfillments::uuid[], :lines::bigint[]) as n(fulfillment_id, line_id)
   where f.fulfillment_id = n.fulfillment_id and f.line_id = n.line_id
)
update fulfillment set state = 'recalled', changed_at = clock_timestamp() where fulfillment_id = any(:empty::uuid[]);

-- name: hold_lines
-- Lines are held for this reason, or (null) released.
update order_line set hold = :hold, version = version + 1 where line_id = any(:ids::bigint[]);

-- name: is_shown
-- Whether the caller sees an order.
select true from orders o
 where o.order_id = :id
   and (:channels::int[] is null or o.channel_id = any(:channels::int[]))
   and (:location_id::int is null or o.pickup_location_id = :location_id
        or exists (select from fulfillment f where f.order_id = o.order_id and f.location_id = :location_id));

-- name: order_shown
-- An order with its lines (a kit's parts one by one) and who fulfills what of it, if the caller sees it: one snapshot.
select o.order_id, c.code as channel, o.number, o.placed_at, o.captured_at, o.ship_to, o.method, o.priority, o.split, o.split_max,
       o.promise_days, p.code as pickup_location,
       (select jsonb_agg(jsonb_build_object('line', l.line, 'part', l.part, 'sku', coalesce(s.code, l.sku), 'asked', l.sku,
                 'quantity', l.quantity, 'price', l.price_cents, 'open', l.open, 'parked', l.parked, 'allocated', l.allocated,
                 'shipped', l.shipped, 'cancelled', l.cancelled, 'hold', l.hold, 'promised_on', l.promised_on)
               order by l.line_id)
          from order_line l left join sku s on s.sku_id = l.sku_id where l.order_id = o.order_id) as lines,
       (select jsonb_agg(jsonb_build_object('fulfillment_id', f.fulfillment_id, 'location', g.code, 'state', f.state,
                 'made_at', f.made_at, 'changed_at', f.changed_at, 'line', l.line, 'part', l.part, 'sku', s.code,
                 'quantity', n.quantity, 'rejected', n.rejected) order by f.fulfillment_id, n.line_id)
          from fulfillment f
          join location g using (location_id)
          join fulfillment_line n using (fulfillment_id)
          join order_line l using (line_id)
          join sku s on s.sku_id = n.sku_id
         where f.order_id = o.order_id) as given
  from orders o join channel c using (channel_id) left join location p on p.location_id = o.pickup_location_id
 where o.order_id = :id
   and (:channels::int[] is null or o.channel_id = any(:channels::int[]))
   and (:location_id::int is null or o.pickup_location_id = :location_id
        or exists (select from fulfillment f where f.order_id = o.order_id and f.location_id = :location_id));

-- name: order_history
-- Every step of an order and of its fulfillments, oldest first.
select h.history_id, h.at, h.who, h.kind, h.id, h.step, h.why, h.detail
  from history h
 where h.history_id > :after
   and (h.kind = 'order' and h.id = :id::uuid::text
        or h.kind = 'fulfillment' and h.id in (select fulfillment_id::text from fulfillment where order_id = :id))
 order by h.history_id limit :limit;

-- name: parked_orders
-- Orders with a line whose unknown sku is known now, taken in order; those in other hands come next time.
select o.order_id, o.channel_id, o.number
  from orders o
 where exists (select from order_line l join channel c on c.channel_id = o.channel_id
                where l.order_id = o.order_id and l.parked > 0 and l.sku_id is null
                  and (exists (select from sku s where s.code = l.sku)
                       or exists (select from sku_alias a join source f using (source_id)
                                   where f.code = c.code and a.code = l.sku)))
   and o.order_id in (select order_id from order_line where parked > 0)
 order by o.order_id limit :limit for update skip locked;

-- name: take_parked_lines
-- Takes the parked lines of orders that are taken.
select line_id, order_id, line, sku, pool_id, parked, quantity, price_cents, hold
  from order_line where order_id = any(:orders::uuid[]) and parked > 0 and sku_id is null
 order by line_id for update;

-- name: unpark_lines
-- Parked lines become open lines of a sku; a kit's line becomes its first part.
update order_line l
   set sku_id = n.sku_id, part = n.part, quantity = n.open + (l.cancelled) * n.per, open = n.open, parked = 0,
       cancelled = l.cancelled * n.per, price_cents = n.price, version = l.version + 1
  from unnest(:ids::bigint[], :sku_ids::int[], :parts::int[], :open::int[], :pers::int[], :prices::int[])
       as n(line_id, sku_id, part, open, per, price)
 where l.line_id = n.line_id;

-- name: still_parked
-- Which of these (channel, code) still park a line.
select distinct o.channel_id, l.sku
  from order_line l join orders o using (order_id)
 where l.parked > 0 and l.sku_id is null
   and (o.channel_id, l.sku) in (select * from unnest(:channels::int[], :codes::text[]));

-- name: captured_until
-- A channel's orders are read up to here; it never goes back.
update channel set captured_until = greatest(captured_until, :until::timestamptz) where channel_id = :channel_id;
