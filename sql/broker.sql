-- name: begin_run
-- A run that starts.
insert into run (dry_run, policy, policies, seconds_max, seed, asked_by, mode, state)
values (:dry_run, :policy, :policies, :seconds, :seed, :who, :mode, case :mode when 'online' then 'planned' else 'reading' end)
returning run_id;

-- name: hold_run
-- Says that this session works on a run: true once, until the session ends, however it does.
select pg_try_advisory_lock(7303, hashtext(:run_id::uuid::text));

-- name: let_run
-- The session works on a run no more.
select pg_advisory_unlock(7303, hashtext(:run_id::uuid::text));

-- name: unfinished_runs
-- Runs that are not done: some worker is at it, or it is gone.
select run_id from run
 where state in ('reading', 'planned') and not dry_run and run_id > :after order by run_id limit 10;

-- name: take_run
-- A run that is not done, until the end of this transaction nobody else's.
select state, dry_run from run where run_id = :run_id and state in ('reading', 'planned') for update;

-- name: open_orders
-- Orders with open lines that may be brokered: not held, their location on. What of an order is allocated already
-- counts for its split rule: nothing more of a single one goes from elsewhere, and packages that are made are made.
-- All of them; or these; or those whose channel says now, at a minute of the day.
select o.order_id::text, (o.ship_to ->> 'lat')::float8 as lat, (o.ship_to ->> 'lon')::float8 as lon, o.priority, o.split,
       greatest(1, o.split_max - cardinality(w.there)) as split_max, o.promise_days,
       coalesce(o.pickup_location_id, case when o.split in ('single', 'keep_together')
                                             or (o.split = 'max_packages' and o.split_max <= cardinality(w.there))
                                           then w.there[1] end) as location_id
  from orders o join channel c using (channel_id)
  cross join lateral (select coalesce(array_agg(distinct f.location_id), '{}') as there
                        from fulfillment f
                       where f.order_id = o.order_id and f.state not in ('rejected', 'recalled')
                         and exists (select from fulfillment_line n
                                      where n.fulfillment_id = f.fulfillment_id and n.quantity > 0)) w
 where exists (select from order_line l where l.order_id = o.order_id and l.open > 0 and l.hold is null)
   and (:orders::uuid[] is null or o.order_id = any(:orders))
   and (:minute::int is null or is_brokered_at(c.brokering, o.method, :minute, :every))
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

-- name: released_subjects
-- What scopes of policies ask of orders whose work may move: all of it is released and accepted by nobody, none where
-- another system runs the location (who knows what it has begun), and nothing of them is open, held or to be picked up.
-- Value is of what is allocated.
select o.order_id::text, c.code as channel, o.method, o.priority, o.promise_days,
       (select coalesce(sum(l.allocated * coalesce(l.price_cents, s.price_cents, s.value_cents, 1000)), 0)
          from order_line l join sku s using (sku_id) where l.order_id = o.order_id)::bigint as value_cents
  from orders o join channel c using (channel_id)
 where o.pickup_location_id is null
   and exists (select from fulfillment f where f.order_id = o.order_id and f.state = 'released')
   and not exists (select from fulfillment f join location n using (location_id)
                    where f.order_id = o.order_id and (f.state not in ('released', 'rejected', 'recalled')
                                                       or f.state = 'released' and (f.run_id is null or not n.is_on
                       or exists (select from fulfiller r where r.location_id = f.location_id and r.is_on))))
   and not exists (select from order_line l where l.order_id = o.order_id and (l.open > 0 or l.hold is not null))
   and not exists (select from decision d join run r using (run_id)
                    where d.order_id = o.order_id and d.state = 'planned' and r.state = 'planned' and not r.dry_run
                      and r.run_id <> :run_id)
 order by o.order_id limit :limit;

-- name: released_orders
-- These orders, as if nothing of them were anywhere.
select order_id::text, (ship_to ->> 'lat')::float8 as lat, (ship_to ->> 'lon')::float8 as lon, priority, split, split_max,
       promise_days
  from orders where order_id = any(:orders::uuid[]) order by order_id;

-- name: released_lines
-- Their allocated lines, as if they were open.
select l.line_id, l.version, l.order_id::text, l.sku_id, l.allocated as quantity, l.pool_id,
       coalesce(l.price_cents, s.price_cents, s.value_cents, 1000) as value_cents,
       coalesce(s.weight_grams, 500) as weight_grams,
       case when l.part > 0 or exists (select from order_line k where k.order_id = l.order_id and k.line = l.line and k.part <> l.part)
            then 'kit ' || l.line when o.split = 'keep_together' then 'order' end as together,
       greatest(0, extract(day from :now::timestamptz - o.captured_at))::int as days_waited
  from order_line l join orders o using (order_id) join sku s on s.sku_id = l.sku_id
 where l.allocated > 0 and l.order_id = any(:orders::uuid[])
 order by l.line_id;

-- name: released_work
-- What locations have of these orders that nobody has accepted; `is_today` where it takes of the present day.
select f.fulfillment_id, f.order_id, f.location_id, n.line_id, n.sku_id, n.quantity, l.pool_id, f.capacity_day as day,
       f.capacity_day = (:now::timestamptz at time zone g.time_zone)::date as is_today, coalesce(l.price_cents, 0) as price_cents,
       f.wave
  from fulfillment f
  join location g using (location_id)
  join fulfillment_line n using (fulfillment_id)
  join order_line l using (line_id)
 where f.order_id = any(:orders::uuid[]) and f.state = 'released' and n.quantity > 0
 order by f.fulfillment_id, n.line_id;

-- name: take_released
-- Takes the work of these orders that nobody has accepted.
select fulfillment_id from fulfillment
 where order_id = any(:orders::uuid[]) and state = 'released' order by fulfillment_id for update;

-- name: reopen_lines
-- Allocated units are open again.
update order_line l set open = l.open + n.quantity, allocated = l.allocated - n.quantity, version = l.version + 1
  from (select line_id, sum(quantity)::int as quantity
          from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) group by line_id) n
 where l.line_id = n.line_id;

-- name: recall_work
-- Work is taken back from its locations, whole.
with taken as (
  update fulfillment set state = 'recalled', changed_at = clock_timestamp()
   where fulfillment_id = any(:fulfillments::uuid[]) and state = 'released'
  returning fulfillment_id
)
update fulfillment_line set quantity = 0 where fulfillment_id in (select fulfillment_id from taken);

-- name: captured_orders
-- The orders that were captured from one id to before another, whatever became of them.
select order_id::text, (ship_to ->> 'lat')::float8 as lat, (ship_to ->> 'lon')::float8 as lon, priority, split, split_max,
       promise_days, pickup_location_id as location_id
  from orders where order_id >= :first::uuid and order_id < :last::uuid order by order_id limit :limit;

-- name: captured_lines
-- Their lines as they were ordered, but for what was cancelled.
select l.line_id, l.version, l.order_id::text, l.sku_id, l.quantity - l.cancelled as quantity, l.pool_id,
       coalesce(l.price_cents, s.price_cents, s.value_cents, 1000) as value_cents,
       coalesce(s.weight_grams, 500) as weight_grams,
       case when l.part > 0 or exists (select from order_line k where k.order_id = l.order_id and k.line = l.line and k.part <> l.part)
            then 'kit ' || l.line when o.split = 'keep_together' then 'order' end as together
  from order_line l join orders o using (order_id) join sku s on s.sku_id = l.sku_id
 where l.quantity > l.cancelled and l.order_id = any(:orders::uuid[])
 order by l.line_id;

-- name: locations
-- Locations that are on, with what their day still has room for.
select l.location_id, l.kind, l.lat, l.lon,
       case when l.capacity_orders is not null then greatest(0, l.capacity_orders - coalesce(c.orders, 0)) end as capacity_orders,
       case when l.capacity_items is not null then greatest(0, l.capacity_items - coalesce(c.items, 0)) end as capacity_items,
       case when l.capacity_cents is not null then greatest(0, l.capacity_cents - coalesce(c.cents, 0)) end as capacity_cents,
       coalesce(l.package_cents, case l.kind when 'store' then 250 else 120 end) as package_cents,
       coalesce(l.line_cents, case l.kind when 'store' then 80 else 25 end) as line_cents,
       l.time_zone, l.work_days, l.cut_off, l.handling_days, l.holidays, l.waves,
       array[l.capacity_orders, l.capacity_items, l.capacity_cents] as limits,
       case when l.waves <> '[]' then (
         select coalesce(jsonb_agg(t), '[]')
           from (select d.day, null::time as wave, d.orders, d.items, d.cents from capacity d
                  where d.location_id = l.location_id and d.day >= (:now::timestamptz at time zone l.time_zone)::date
                 union all
                 select w.day, w.wave, w.orders, w.items, w.cents
                   from in_waves(l.location_id, (:now::timestamptz at time zone l.time_zone)::date) w) t)
       else '[]' end as taken
  from location l
  left join capacity c on c.location_id = l.location_id and c.day = (:now::timestamptz at time zone l.time_zone)::date
 where l.is_on
 order by l.location_id;

-- name: wave_rows
-- These waves, where their locations still have them, with what they have taken and may take.
select k.location_id, k.day, k.wave, coalesce(w.orders, 0) as orders, coalesce(w.items, 0) as items,
       coalesce(w.cents, 0) as cents, (e.wave ->> 'capacity_orders')::int as capacity_orders,
       (e.wave ->> 'capacity_items')::int as capacity_items, (e.wave ->> 'capacity_cents')::bigint as capacity_cents
  from unnest(:locations::int[], :days::date[], :waves::time[]) as k(location_id, day, wave)
  join location l using (location_id)
  cross join lateral jsonb_array_elements(l.waves) as e(wave)
  left join lateral in_waves(k.location_id, k.day) w on w.day = k.day and w.wave = k.wave
 where (e.wave ->> 'from')::time = k.wave;

-- name: stock_of
-- What of these skus may be taken where.
select s.sku_id, s.location_id, s.on_hand - s.held - s.allocated - s.safety_stock as available
  from stock s join location l on l.location_id = s.location_id and l.is_on
 where s.sku_id = any(:skus::int[]) and s.on_hand - s.held - s.allocated - s.safety_stock > 0;

-- name: has_transfer_prices
-- Whether units cost their seller something where they are another's.
select exists (select from transfer_price);

-- name: dearer_than_own
-- What a unit of these skus costs whoever sells these lines more at a location, where it is another's, than one of its
-- own (its cost); the mean of all units where several sell them.
with sold as (
  select l.sku_id, c.division_id as buyer_id, sum(l.quantity) as units,
         sum(coalesce(l.price_cents, k.price_cents)::numeric * l.quantity) / sum(l.quantity) as price_cents
    from order_line l join orders o using (order_id) join channel c using (channel_id) join sku k using (sku_id)
   where l.line_id = any(:lines::bigint[]) and c.division_id is not null
   group by l.sku_id, c.division_id
), cell as (
  select s.sku_id, s.location_id, coalesce(a.owner_id, n.owner_id, e.owner_id, n.division_id) as owner_id
    from stock s join location n using (location_id)
    left join stock_owner a on a.sku_id = s.sku_id and a.location_id = s.location_id
    left join stock_owner e on e.sku_id = s.sku_id and e.location_id is null
   where s.sku_id in (select sku_id from sold) and s.on_hand - s.held - s.allocated - s.safety_stock > 0
), dearer as (
  select d.sku_id, d.owner_id,
         sum(b.units * case when b.buyer_id <> d.owner_id then greatest(0, coalesce(
             p.cents, p.percent / 100 * case p.percent_of when 'price' then b.price_cents else k.value_cents end)
             - k.value_cents) else 0 end) / sum(b.units) as cents
    from (select distinct sku_id, owner_id from cell where owner_id is not null) d
    join sold b using (sku_id)
    join sku k using (sku_id)
    left join lateral transfer_price_of(d.owner_id, b.buyer_id, d.sku_id, :today::date) p on true
   group by d.sku_id, d.owner_id
)
select c.sku_id, c.location_id, least(round(d.cents), 1000000000)::int as cents
  from cell c join dearer d using (sku_id, owner_id) where round(d.cents) > 0;

-- name: pool_members
-- The locations of each pool, with its code.
select pool_id, location_id, p.code from pool_location join pool p using (pool_id) order by pool_id, location_id;

-- name: subjects_of
-- What scopes of policies ask of these orders; value is of their open lines.
select o.order_id::text, c.code as channel, o.method, o.priority, o.promise_days,
       coalesce((select sum(l.open * coalesce(l.price_cents, s.price_cents, s.value_cents, 1000))
                   from order_line l join sku s using (sku_id) where l.order_id = o.order_id), 0)::bigint as value_cents
  from orders o join channel c using (channel_id)
 where o.order_id = any(:orders::uuid[]) order by o.order_id;

-- name: asked_of
-- Units that locations were asked for in 90 days and rejected: of each location, and of these skus there; of no skus
-- named, of all that were ever rejected there.
with given as (
  select f.location_id, n.sku_id, n.given, n.rejected
    from fulfillment f join fulfillment_line n using (fulfillment_id)
   where f.made_at > :now::timestamptz - interval '90 days'
)
select location_id, null::int as sku_id, sum(given)::int as asked, sum(rejected)::int as rejected
  from given group by location_id
union all
select location_id, sku_id, sum(given)::int, sum(rejected)::int
  from given where :skus::int[] is null or sku_id = any(:skus) group by location_id, sku_id
 having :skus is not null or sum(rejected) > 0;

-- name: reserved_of
-- What is promised of these skus in each pool, by everybody.
select a.sku_id, p.pool_id, a.reserved[p.place] as quantity
  from availability a
  join layout y on y.layout_id = a.layout_id
  cross join unnest(y.pools) with ordinality as p(pool_id, place)
 where a.sku_id = any(:skus::int[]) and a.reserved[p.place] > 0;

-- name: barred
-- Locations that rejected a sku, of an order or of any, and are not to be asked again yet.
select order_id::text, sku_id, location_id from rejected_before
 where until > :now and order_id = any(:orders::uuid[])
union
select n.order_id::text, r.sku_id, r.location_id from sku_rest r
  join order_line n on n.sku_id = r.sku_id and n.open + n.allocated > 0 and n.order_id = any(:orders::uuid[])
 where r.until > :now;

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
update run set state = 'planned', summary = :summary, prices = :prices,
       finished_at = case when dry_run then clock_timestamp() end
 where run_id = :run_id and state = 'reading'
returning run_id;

-- name: next_decisions
-- Decisions that are still to be done, in order, and what each saves that moves work.
select order_id, plan, (why ->> 'saves')::int from decision where run_id = :run_id and state = 'planned' order by order_id limit :limit;

-- name: take_orders
-- Takes the orders of a chunk, with the locations that have work of them.
select o.order_id, o.split, o.split_max, o.channel_id, w.there
  from orders o
  cross join lateral (select coalesce(array_agg(distinct f.location_id), '{}') as there
                        from fulfillment f
                       where f.order_id = o.order_id and f.state not in ('rejected', 'recalled')
                         and exists (select from fulfillment_line n
                                      where n.fulfillment_id = f.fulfillment_id and n.quantity > 0)) w
 where o.order_id = any(:orders::uuid[])
 order by o.order_id for update of o;

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
  from (select line_id, sum(quantity)::int as quantity  -- units of a line may come from several locations
          from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) group by line_id) n
 where l.line_id = n.line_id;

-- name: make_fulfillments
-- A fulfillment per order and location.
insert into fulfillment (order_id, location_id, capacity_day, wave, run_id)
select n.order_id, n.location_id, n.day, n.wave, :run_id
  from unnest(:orders::uuid[], :locations::int[], :days::date[], :waves::time[]) as n(order_id, location_id, day, wave)
returning fulfillment_id, order_id, location_id, capacity_day as day, wave;

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

-- name: recent_prices
-- The prices of the last runs, newest first.
select run_id, prices from run where prices is not null and (not dry_run or mode = 'prices') order by run_id desc limit :limit;

-- name: newest_priced
-- The newest run with prices.
select run_id from run where prices is not null and (not dry_run or mode = 'prices') order by run_id desc limit 1;

-- name: take_due
-- Takes reasons to decide orders, the oldest first; what another decides is left to it.
select due_id, order_id from broker_due order by due_id limit :limit for update skip locked;

-- name: count_due
-- How many reasons wait, counted up to a limit.
select count(*)::int from (select from broker_due limit :limit) as n;

-- name: newest_due
-- The newest reason to decide an order; 0 where there is none.
select coalesce(max(due_id), 0) from broker_due;

-- name: drop_planned_due
-- Reasons up to one are those of a run that has planned their orders; all of them, where it planned all that is open.
delete from broker_due d
 where d.due_id <= :upto::bigint
   and (:is_all or d.order_id in (select order_id from decision where run_id = :run_id));

-- name: drop_all_due
-- All reasons that are committed now are done.
delete from broker_due;

-- name: drop_due
-- These reasons are done.
delete from broker_due where due_id = any(:ids::bigint[]);

-- name: prices_of
-- Where one more unit would have saved most, by the prices of a run.
select s.code as sku, l.code as location, (p ->> 2)::float8 as cents
  from run r cross join jsonb_array_elements(r.prices -> 'stock') as p
  join sku s on s.sku_id = (p ->> 0)::int join location l on l.location_id = (p ->> 1)::int
 where r.run_id = :run_id order by (p ->> 2)::float8 desc limit :limit;

-- name: work_prices_of
-- Where one more order of capacity would have saved most, by the prices of a run.
select l.code as location, (p ->> 1)::float8 as order_cents, (p ->> 2)::float8 as item_cents
  from run r cross join jsonb_array_elements(r.prices -> 'work') as p
  join location l on l.location_id = (p ->> 0)::int
 where r.run_id = :run_id order by (p ->> 1)::float8 desc limit :limit;

-- name: run_row
-- A run.
select run_id as id, mode, state, dry_run, policy, policies, seconds_max, seed, asked_by, started_at, finished_at, summary
  from run where run_id = :run_id;

-- name: runs_page
-- Runs, newest first.
select run_id as id, mode, state, dry_run, policy, policies, seconds_max, seed, asked_by, started_at, finished_at, summary
  from run
 where (:before::uuid is null or run_id < :before) and mode = coalesce(:mode, mode) and (:mode::text is not null or mode <> 'online')
 order by run_id desc limit :limit;

-- name: decisions_of
-- The decisions of a run, of one order where a number is given.
select d.order_id, c.code as channel, o.number, d.state, d.plan, d.why, d.result
  from decision d join orders o using (order_id) join channel c using (channel_id)
 where d.run_id = :run_id and (:number::text is null or o.number = :number) and (:after::uuid is null or d.order_id > :after)
 order by d.order_id limit :limit;

-- name: location_codes
-- Codes of locations.
select location_id, code from location;

-- name: lines_in_turn
-- The open lines of those of these skus of which some are promised for a day, in the order in which they are served: by the day that they
-- were promised, by priority, as they came.
select l.line_id, l.sku_id, l.pool_id, l.open
  from order_line l join orders o using (order_id)
 where l.open > 0
   and l.sku_id in (select w.sku_id from order_line w
                     where w.open > 0 and w.waits and w.promised_on is not null and w.sku_id = any(:skus::int[]))
 order by l.sku_id, served_as_of(l.promised_on, l.waits, o.captured_at), o.priority desc, o.captured_at, l.line_id;
