-- name: begin_run
-- A run that starts; a lease says until when its worker is believed to live.
insert into run (dry_run, policy, seconds_max, seed, asked_by, leased_until)
values (:dry_run, :policy, :seconds, :seed, :who, clock_timestamp() + make_interval(secs => :lease_seconds))
returning run_id;

-- name: unfinished_runs
-- Runs whose worker is gone: their lease has ended.
select run_id, state from run
 where state in ('reading', 'planned') and not dry_run and leased_until < clock_timestamp() and run_id > :after
 order by run_id limit 10;

-- name: take_run
-- Takes a run over; one whose worker lives, or that is done, is not given.
update run set leased_until = clock_timestamp() + make_interval(secs => :lease_seconds)
 where run_id = :run_id and state in ('reading', 'planned') and (leased_until < clock_timestamp() or :mine::boolean)
returning state, seconds_max, seed, policy, dry_run, asked_by;

-- name: open_orders
-- Orders with open lines that may be brokered: not held, their location on.
select o.order_id::text, (o.ship_to ->> 'lat')::float8 as lat, (o.ship_to ->> 'lon')::float8 as lon, o.priority, o.split,
       o.split_max, o.promise_days, o.pickup_location_id as location_id
  from orders o
 where exists (select from order_line l where l.order_id = o.order_id and l.open > 0 and l.hold is null)
   and not exists (select from decision d join run r using (run_id)
                    where d.order_id = o.order_id and d.state = 'planned' and r.state = 'planned' and not r.dry_run
                      and r.run_id <> :run_id)
 order by o.order_id limit :limit;

-- name: addresses_of
-- The addresses of these orders.
select order_id::text, coalesce(ship_to ->> 'postal_code', '') as postal_code, coalesce(ship_to ->> 'country', '') as country
  from orders where order_id = any (:orders::uuid[]);

-- name: open_lines
-- The open lines of these orders, a kit's parts kept together.
select l.line_id, l.version, l.order_id::text, l.sku_id, l.open as quantity, l.pool_id,
       coalesce(l.price_cents, s.price_cents, s.value_cents, 1000) as value_cents,
       coalesce(s.weight_grams, 500) as weight_grams,
       case when l.part > 0 or exists (select from order_line k where k.order_id = l.order_id and k.line = l.line and k.part <> l.part)
            then 'kit ' || l.line when o.split = 'keep_together' then 'order' end as together,
       greatest(0, extract(day from :now::timestamptz - o.captured_at))::int as days_waited
  from order_line l join orders o using (order_id) join sku s on s.sku_id = l.sku_id
 where l.open > 0 and l.hold is null and l.order_id = any(:orders::uuid[])
 order by l.line_id;

-- name: locations
-- Locations that are on, with what their day still has room for.
select l.location_id, l.kind, l.lat, l.lon,
       case when l.capacity_orders is not null then greatest(0, l.capacity_orders - coalesce(c.orders, 0)) end as capacity_orders,
       case when l.capacity_items is not null then greatest(0, l.capacity_items - coalesce(c.items, 0)) end as capacity_items,
       case when l.capacity_cents is not null then greatest(0, l.capacity_cents - coalesce(c.cents, 0)) end as capacity_cents,
       case l.kind when 'store' then 250 else 120 end as package_cents,
       case l.kind when 'store' then 80 else 25 end as line_cents
  from location l
  left join capacity c on c.location_id = l.location_id and c.day = (:now::timestamptz at time zone l.time_zone)::date
 where l.is_on
 order by l.location_id;

-- name: stock_of
-- What of these skus may be taken where.
select s.sku_id, s.location_id, s.on_hand - s.held - s.allocated - s.safety_stock as available
  from stock s join location l on l.location_id = s.location_id and l.is_on
 where s.sku_id = any(:skus::int[]) and s.on_hand - s.held - s.allocated - s.safety_stock > 0;

-- name: pool_members
-- The locations of each pool.
select pool_id, location_id from pool_location order by pool_id, location_id;

-- name: reserved_of
-- What is promised of these skus in each pool, by everybody.
select a.sku_id, p.pool_id, a.reserved[p.place] as quantity
  from availability a
  join layout y on y.layout_id = a.layout_id
  cross join unnest(y.pools) with ordinality as p(pool_id, place)
 where a.sku_id = any(:skus::int[]) and a.reserved[p.place] > 0;

-- name: barred
-- Locations that rejected a sku of an order and are not to be asked again yet.
select order_id::text, sku_id, location_id from rejected_before
 where until > :now and order_id = any(:orders::uuid[]);

-- name: bar
-- These locations are not asked for these skus of these orders again for a while.
insert into rejected_before (order_id, sku_id, location_id, until, reason)
select distinct n.order_id, n.sku_id, n.location_id, :until::timestamptz, 'another pool''s promise'
  from unnest(:orders::uuid[], :skus::int[], :locations::int[]) as n(order_id, sku_id, location_id)
on conflict (order_id, sku_id, location_id) do update set until = greatest(rejected_before.until, excluded.until);

-- name: keep_decisions
-- What the plan says of each order, before any of it is done.
insert into decision (run_id, order_id, state, plan, why)
select :run_id, n.order_id, case when n.plan = '[]' then 'dropped' else 'planned' end, n.plan::jsonb, n.why
  from unnest(:orders::uuid[], :plans::text[], :whys::jsonb[]) as n(order_id, plan, why);

-- name: planned
-- The plan is complete.
update run set state = 'planned', summary = :summary,
       finished_at = case when dry_run then clock_timestamp() end,
       leased_until = clock_timestamp() + make_interval(secs => :lease_seconds)
 where run_id = :run_id and state = 'reading'
returning run_id;

-- name: next_decisions
-- Decisions that are still to be done, in order.
select order_id, plan from decision where run_id = :run_id and state = 'planned' order by order_id limit :limit;

-- name: take_orders
-- Takes the orders of a chunk.
select o.order_id, o.split, o.split_max, o.channel_id from orders o where o.order_id = any(:orders::uuid[])
 order by o.order_id for update;

-- name: take_decisions
-- The decisions of a chunk that nobody has done meanwhile.
select order_id from decision where run_id = :run_id and order_id = any(:orders::uuid[]) and state = 'planned'
 order by order_id for update;

-- name: take_lines
-- Takes the open lines of these orders.
select l.line_id, l.order_id, l.line, l.part, l.sku_id, l.pool_id, l.open, l.version, l.hold,
       coalesce(l.price_cents, 0) as price_cents
  from order_line l
 where l.order_id = any(:orders::uuid[]) order by l.line_id for update;

-- name: places_on
-- Locations with their zones and whether they are on.
select location_id, code, time_zone, is_on from location where location_id = any(:locations::int[]);

-- name: allocate_lines
-- Open units become allocated.
update order_line l set open = l.open - n.quantity, allocated = l.allocated + n.quantity, version = l.version + 1
  from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity)
 where l.line_id = n.line_id;

-- name: make_fulfillments
-- A fulfillment per order and location.
insert into fulfillment (order_id, location_id, capacity_day, run_id)
select n.order_id, n.location_id, n.day, :run_id
  from unnest(:orders::uuid[], :locations::int[], :days::date[]) as n(order_id, location_id, day)
returning fulfillment_id, order_id, location_id;

-- name: make_fulfillment_lines
-- Their lines, each with the reference that its source acknowledges.
insert into fulfillment_line (fulfillment_id, line_id, sku_id, given, quantity, reference)
select n.fulfillment_id, n.line_id, n.sku_id, n.quantity, n.quantity, n.fulfillment_id || ':' || n.line_id
  from unnest(:fulfillments::uuid[], :lines::bigint[], :skus::int[], :quantities::int[])
       as n(fulfillment_id, line_id, sku_id, quantity);

-- name: decided
-- What became of decisions.
update decision d set state = n.state, result = n.result
  from unnest(:orders::uuid[], :states::text[], :results::text[]) as n(order_id, state, result)
 where d.run_id = :run_id and d.order_id = n.order_id;

-- name: finish_run
-- All of the plan is done.
update run r set state = 'applied', finished_at = clock_timestamp(),
       summary = r.summary || jsonb_build_object(
         'applied', (select count(*) from decision where run_id = r.run_id and state = 'applied'),
         'partly', (select count(*) from decision where run_id = r.run_id and state = 'partly'),
         'dropped', (select count(*) from decision where run_id = r.run_id and state = 'dropped' and plan <> '[]'::jsonb))
 where r.run_id = :run_id and r.state = 'planned'
returning summary;

-- name: fail_run
-- The run cannot go on, with the reason.
update run set state = 'failed', finished_at = clock_timestamp(), summary = summary || :summary where run_id = :run_id;

-- name: run_row
-- A run.
select run_id as id, state, dry_run, policy, seconds_max, seed, asked_by, started_at, finished_at, summary
  from run where run_id = :run_id;

-- name: runs_page
-- Runs, newest first.
select run_id as id, state, dry_run, policy, seconds_max, seed, asked_by, started_at, finished_at, summary
  from run where (:before::uuid is null or run_id < :before) order by run_id desc limit :limit;

-- name: decisions_of
-- The decisions of a run, of one order where a number is given.
select d.order_id, c.code as channel, o.number, d.state, d.plan, d.why, d.result
  from decision d join orders o using (order_id) join channel c using (channel_id)
 where d.run_id = :run_id and (:number::text is null or o.number = :number) and (:after::uuid is null or d.order_id > :after)
 order by d.order_id limit :limit;

-- name: policy_body
-- What a policy says.
select body from policy where code = :code;

-- name: location_codes
-- Codes of locations.
select location_id, code from location;
