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
insert into order_line (order_id, line, part, sku_id, sku, pool_id, quantity, price_cents, open, parked, allocated, hold,
                        waits)
select * from unnest(:orders::uuid[], :lines::text[], :parts::int[], :sku_ids::int[], :skus::text[], :pools::int[],
                     :quantities::int[], :prices::int[], :open::int[], :parked::int[], :allocated::int[],
                     :holds::text[], :waits::boolean[])
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
select o.order_id, o.channel_id, c.code as channel, o.number, o.pickup_location_id, o.ship_to, o.method,
       c.settings ->> 'amendments_recall_until' as recalls_until
  from orders o join channel c using (channel_id)
 where o.order_id = :id
   and (:channels::int[] is null or o.channel_id = any(:channels::int[]))
   and (:location_id::int is null or o.pickup_location_id = :location_id
        or exists (select from fulfillment f where f.order_id = o.order_id and f.location_id = :location_id))
   for update of o;

-- name: take_fulfillments
-- Takes an order's fulfillments.
select f.fulfillment_id, f.location_id, l.code as location, f.state, f.capacity_day,
       exists (select from handoff h where h.fulfillment_id = f.fulfillment_id and h.act = 'release'
                                       and (h.attempts > 0 or h.state in ('sent', 'acknowledged'))) as is_told
  from fulfillment f join location l using (location_id)
 where f.order_id = :id order by f.fulfillment_id for update of f;

-- name: take_lines
-- Takes an order's lines.
select line_id, line, part, sku_id, sku as asked, pool_id, quantity, open, parked, allocated, shipped, cancelled, hold,
       price_cents, promised_on
  from order_line where order_id = :id order by line_id for update;

-- name: given_lines
-- What these fulfillments still have of their lines.
select fulfillment_id, line_id, sku_id, quantity
  from fulfillment_line where fulfillment_id = any(:ids::uuid[]) and quantity > 0 order by fulfillment_id, line_id;

-- name: move_units
-- Units of lines change their state by so many; what a line has changes by their sum.
update order_line l
   set open = l.open + n.open, parked = l.parked + n.parked, allocated = l.allocated + n.allocated,
       cancelled = l.cancelled + n.cancelled, quantity = l.quantity + n.open + n.parked + n.allocated + n.cancelled,
       version = l.version + 1
  from unnest(:ids::bigint[], :open::int[], :parked::int[], :allocated::int[], :cancelled::int[])
       as n(line_id, open, parked, allocated, cancelled)
 where l.line_id = n.line_id;

-- name: recall_lines
-- Units of lines are taken back from their fulfillments; one that has none left is recalled.
with recalled as (
  update fulfillment_line f set quantity = f.quantity - n.quantity
    from unnest(:fulfillments::uuid[], :lines::bigint[], :quantities::int[]) as n(fulfillment_id, line_id, quantity)
   where f.fulfillment_id = n.fulfillment_id and f.line_id = n.line_id
)
update fulfillment set state = 'recalled', changed_at = clock_timestamp() where fulfillment_id = any(:empty::uuid[]);

-- name: holds_of
-- The holds of an order that are not released.
select h.line_id, l.line, h.kind, h.who, h.why, h.keeps_stock, h.at
  from line_hold h join order_line l using (line_id)
 where l.order_id = :id and h.released_at is null order by h.at, h.line_id;

-- name: place_holds
-- Lines are held for a reason of this kind; one that is held so already keeps its units, or not, from now on.
insert into line_hold (line_id, order_id, kind, who, why, keeps_stock)
select n.line_id, :id, :kind, :who, :why, :keeps_stock from unnest(:lines::bigint[]) as n(line_id)
on conflict (line_id, kind) where released_at is null
do update set keeps_stock = excluded.keeps_stock, who = excluded.who, why = excluded.why;

-- name: end_holds
-- Holds of lines are released: of all kinds (null), or of one.
update line_hold set released_at = clock_timestamp(), released_by = :who
 where line_id = any(:lines::bigint[]) and released_at is null and (:kind::text is null or kind = :kind);

-- name: show_holds
-- Lines show the kind of their newest hold, none where they have no more.
update order_line l
   set version = version + 1,
       hold = (select h.kind from line_hold h where h.line_id = l.line_id and h.released_at is null
                order by h.at desc, h.kind limit 1)
 where l.line_id = any(:lines::bigint[]);

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
                 'shipped', l.shipped, 'cancelled', l.cancelled, 'hold', l.hold, 'promised_on', l.promised_on, 'waits', l.waits,
                 'cancel_on', l.cancel_on)
               order by l.line_id)
          from order_line l left join sku s on s.sku_id = l.sku_id where l.order_id = o.order_id) as lines,
       (select jsonb_agg(jsonb_build_object('fulfillment_id', f.fulfillment_id, 'location', g.code, 'state', f.state,
                 'made_at', f.made_at, 'changed_at', f.changed_at, 'line', l.line, 'part', l.part, 'sku', s.code,
                 'quantity', n.quantity, 'rejected', n.rejected, 'day', f.capacity_day, 'wave', f.wave) order by f.fulfillment_id, n.line_id)
          from fulfillment f
          join location g using (location_id)
          join fulfillment_line n using (fulfillment_id)
          join order_line l using (line_id)
          join sku s on s.sku_id = n.sku_id
         where f.order_id = o.order_id) as given,
       (select jsonb_agg(jsonb_build_object('line_id', h.line_id, 'line', l.line, 'kind', h.kind, 'who', h.who, 'why', h.why,
                 'keeps_stock', h.keeps_stock, 'at', h.at) order by h.at, h.line_id)
          from line_hold h join order_line l using (line_id)
         where l.order_id = o.order_id and h.released_at is null) as held
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
                where l.order_id = o.order_id and l.parked > 0 and l.sku_id is null and not gave_up_stock(l.line_id)
                  and (exists (select from sku s where s.code = l.sku)
                       or exists (select from sku_alias a join source f using (source_id)
                                   where f.code = c.code and a.code = l.sku)))
   and o.order_id in (select order_id from order_line where parked > 0)
 order by o.order_id limit :limit for update skip locked;

-- name: take_parked_lines
-- Takes the parked lines of orders that are taken.
select line_id, order_id, line, sku, pool_id, parked, quantity, price_cents, hold
  from order_line where order_id = any(:orders::uuid[]) and parked > 0 and sku_id is null and not gave_up_stock(line_id)
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

-- name: write_order
-- An order goes elsewhere, or by another method.
update orders set ship_to = :ship_to, method = :method where order_id = :id;

-- name: let_wait
-- Present stock does not serve these lines: they wait for what comes.
update order_line set waits = true where line_id = any(:lines::bigint[]);

-- name: served_lines
-- The open lines of skus in the order in which they are served: by the day that they were promised, by priority, as they
-- came.
select l.line_id, l.order_id, l.sku_id, l.pool_id, l.open
  from order_line l join orders o using (order_id)
 where l.sku_id = any(:skus::int[]) and l.open > 0
 order by l.sku_id, served_as_of(l.promised_on, l.waits, o.captured_at), o.priority desc, o.captured_at, l.line_id;

-- name: substitutes_of
-- What may be sent instead of skus, the best first.
select u.sku_id, u.substitute_id, s.code from sku_substitute u join sku s on s.sku_id = u.substitute_id
 where u.sku_id = any(:skus::int[]) order by u.sku_id, u.place;

-- name: receipts_of
-- Receipts that still back promises and could serve a pool, soonest first.
select i.sku_id, o.code as source, i.reference, l.code as location, i.kind, i.quantity, i.due_on
  from incoming i
  join source o using (source_id)
  join location l on l.location_id = i.location_id and l.is_on
  join pool_location p on p.location_id = i.location_id and p.pool_id = :pool_id
 where i.sku_id = any(:skus::int[]) and i.quantity > 0 and i.due_on + o.tolerance_days >= :today
 order by i.sku_id, i.due_on, i.incoming_id;

-- name: stocked_in
-- The locations of pools that have some of skus.
select k.sku_id, p.pool_id, l.code as location, k.on_hand - k.held - k.allocated - k.safety_stock as available
  from stock k
  join location l on l.location_id = k.location_id and l.is_on
  join pool_location p on p.location_id = k.location_id
 where k.sku_id = any(:skus::int[]) and k.on_hand - k.held - k.allocated - k.safety_stock > 0
 order by k.sku_id, p.pool_id, 4 desc, l.code;

-- name: pool_codes
-- Pools by id.
select pool_id, code from pool order by pool_id;

-- name: promise_line
-- A line is promised for a day.
update order_line set promised_on = :day, waits = true where line_id = :line_id;

-- name: move_pool
-- A line is met from another pool.
update order_line set pool_id = :pool_id, waits = false, promised_on = null, version = version + 1
 where line_id = :line_id;

-- name: lines_now
-- An order's lines, without taking them.
select line_id, line, part, sku_id, sku as asked, pool_id, quantity, open, parked, allocated, shipped, cancelled, hold,
       price_cents, promised_on
  from order_line where order_id = :id order by line_id;

-- name: cancel_on
-- Lines are cancelled on a day if nothing leaves for them; each is told once.
update order_line set cancel_on = :on where line_id = any(:lines::bigint[]) and cancel_on is null returning line;

-- name: repeat_holds
-- The holds of lines hold others, too.
insert into line_hold (line_id, order_id, kind, who, why, keeps_stock, at)
select n.new_id, h.order_id, h.kind, h.who, h.why, h.keeps_stock, h.at
  from unnest(:old::bigint[], :new::bigint[]) as n(old_id, new_id)
  join line_hold h on h.line_id = n.old_id and h.released_at is null;
