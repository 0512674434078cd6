-- name: keep_problem
-- What a run saw, once.
insert into run_problem (run_id, problem) values (:run_id, :problem) on conflict (run_id) do nothing;

-- name: kept_problem
-- What a run saw, and when the run began; nothing where it is no longer kept.
select p.problem, r.started_at, r.state from run_problem p join run r using (run_id) where p.run_id = :run_id;

-- name: forget_problems
-- What runs saw before a moment is dropped; the runs stay.
delete from run_problem where kept_at < :before;

-- name: forget_what_ifs
-- Trials that were asked for before a moment are dropped.
delete from what_if where asked_at < :before and state in ('done', 'failed');

-- name: ask_what_if
-- A trial that waits for a worker.
insert into what_if (ask, asked_by) values (:ask, :who) returning what_if_id;

-- name: waiting_what_ifs
-- Trials that no worker has finished, the oldest first.
select what_if_id from what_if where state in ('waiting', 'working') order by what_if_id limit 20;

-- name: hold_what_if
-- Says that this session works on a trial: true once, until the session ends, however it does.
select pg_try_advisory_lock(7304, hashtext(:what_if_id::uuid::text));

-- name: let_what_if
-- The session works on a trial no more.
select pg_advisory_unlock(7304, hashtext(:what_if_id::uuid::text));

-- name: begin_what_if
-- A trial is begun (once more); gives what was asked.
update what_if set state = 'working', attempts = attempts + 1
 where what_if_id = :what_if_id and state in ('waiting', 'working')
returning ask, attempts;

-- name: end_what_if
-- What a trial found, or why it failed.
update what_if set state = case when :failed::text is null then 'done' else 'failed' end, failed = :failed,
       result = :result, finished_at = clock_timestamp()
 where what_if_id = :what_if_id and state = 'working';

-- name: what_if_row
-- A trial.
select what_if_id as id, state, ask, asked_by, asked_at, finished_at, failed, result from what_if
 where what_if_id = :what_if_id;

-- name: policy_version_row
-- What a version of a policy says; without a number the newest, draft or not.
select p.code, v.version, v.body from policy p join policy_version v using (policy_id)
 where p.code = :code and (:version::int is null or v.version = :version) order by v.version desc limit 1;

-- name: decided_plans
-- Where a run sent the lines of each order, and why lines stayed.
select order_id::text, plan, why -> 'unfilled' as unfilled from decision where run_id = :run_id order by order_id;

-- name: order_names
-- Channel and number of these orders.
select o.order_id::text, c.code, o.number from orders o join channel c using (channel_id)
 where o.order_id = any(:orders::uuid[]);

-- name: knows_run
-- Whether there is such a run.
select exists (select from run where run_id = :run_id);

-- name: day_orders
-- Orders that were first captured in a time, as they came.
select o.order_id::text, (o.ship_to ->> 'lat')::float8 as lat, (o.ship_to ->> 'lon')::float8 as lon, o.priority, o.split,
       o.split_max, o.promise_days, o.pickup_location_id as location_id
  from orders o
 where o.captured_at >= :from_at and o.captured_at < :until_at
   and exists (select from order_line l where l.order_id = o.order_id and l.sku_id is not null)
 order by o.captured_at, o.order_id limit :limit;

-- name: day_arrivals
-- When these orders came, in minutes after a moment.
select order_id::text, (extract(epoch from captured_at - :from_at::timestamptz) / 60)::float8 as minute
  from orders where order_id = any (:orders::uuid[]);

-- name: day_lines
-- All that these orders wanted, a kit's parts kept together.
select l.line_id, l.version, l.order_id::text, l.sku_id, l.quantity, l.pool_id,
       coalesce(l.price_cents, s.price_cents, s.value_cents, 1000) as value_cents,
       coalesce(s.weight_grams, 500) as weight_grams,
       case when l.part > 0 or exists (select from order_line k where k.order_id = l.order_id and k.line = l.line and k.part <> l.part)
            then 'kit ' || l.line when o.split = 'keep_together' then 'order' end as together,
       0 as days_waited
  from order_line l join orders o using (order_id) join sku s on s.sku_id = l.sku_id
 where l.order_id = any(:orders::uuid[])
 order by l.line_id;

-- name: day_stock
-- What of these skus could be taken where at a moment: the ledger's last movement, and what was kept of commitments.
with was as (
  select distinct on (sku_id, location_id) sku_id, location_id, held, allocated, safety_stock from stock_past
   where sku_id = any(:skus::int[]) and until_at > :at::timestamptz order by sku_id, location_id, past_id
), had as (
  select distinct on (sku_id, location_id) sku_id, location_id, on_hand from movement
   where sku_id = any(:skus::int[]) and recorded_at <= :at::timestamptz order by sku_id, location_id, version desc
), n as (
  select h.sku_id, h.location_id, h.on_hand - coalesce(w.held, s.held) - coalesce(w.allocated, s.allocated)
                                  - coalesce(w.safety_stock, s.safety_stock) as available
    from had h join stock s using (sku_id, location_id) left join was w using (sku_id, location_id)
)
select sku_id, location_id, available from n order by sku_id, location_id;

-- name: day_changes
-- What changed of it in a time, in minutes after its beginning: the ledger without our own shipments, and what was held.
select (extract(epoch from m.recorded_at - :from_at::timestamptz) / 60)::float8 as minute, m.sku_id, m.location_id,
       m.effect as units
  from movement m
 where m.sku_id = any(:skus::int[]) and m.recorded_at > :from_at and m.recorded_at <= :until_at and m.effect <> 0
   and not (m.kind = 'shipment' and exists (select from orders o where o.order_id::text = m.reference))
union all
select (extract(epoch from p.until_at - :from_at::timestamptz) / 60)::float8, p.sku_id, p.location_id,
       p.held + p.safety_stock - p.next
  from (select q.sku_id, q.location_id, q.until_at, q.held, q.safety_stock,
               coalesce(lead(q.held + q.safety_stock) over (partition by q.sku_id, q.location_id order by q.past_id),
                        s.held + s.safety_stock) as next
          from stock_past q join stock s using (sku_id, location_id)
         where q.sku_id = any(:skus::int[]) and q.until_at > :from_at) p
 where p.until_at <= :until_at and p.held + p.safety_stock <> p.next
 order by 1, 2, 3;

-- name: day_locations
-- Locations that were on at a moment, with what of that day's capacity was left to orders that came later.
select l.location_id, l.kind, l.lat, l.lon,
       case when l.capacity_orders is not null then greatest(0, l.capacity_orders - c.orders) end as capacity_orders,
       case when l.capacity_items is not null then greatest(0, l.capacity_items - c.items) end as capacity_items,
       case when l.capacity_cents is not null then greatest(0, l.capacity_cents - c.cents) end as capacity_cents,
       coalesce(l.package_cents, case l.kind when 'store' then 250 else 120 end) as package_cents,
       coalesce(l.line_cents, case l.kind when 'store' then 80 else 25 end) as line_cents,
       l.time_zone, l.work_days, l.cut_off, l.handling_days, l.holidays
  from location l
  left join lateral (select (p.was ->> 'is_on')::boolean as is_on from past p
                      where p.relation = 'location' and p.row_id = l.location_id and p.until_at > :at::timestamptz
                      order by p.past_id limit 1) w on true
  cross join lateral (
    select count(distinct f.fulfillment_id)::int as orders, coalesce(sum(n.quantity), 0)::int as items,
           coalesce(sum(n.quantity * coalesce(k.price_cents, 0)), 0)::bigint as cents
      from fulfillment f
      join orders o using (order_id)
      join fulfillment_line n using (fulfillment_id)
      join order_line k using (line_id)
     where f.location_id = l.location_id and f.capacity_day = (:at::timestamptz at time zone l.time_zone)::date
       and o.captured_at < :at and n.quantity > 0) c
 where coalesce(w.is_on, l.is_on)
 order by l.location_id;

-- name: day_promised
-- What was promised at a moment to order lines that came before it and lay open, by sku and pool.
with was as (
  select distinct on (line_id) line_id, open from line_past
   where sku_id = any(:skus::int[]) and until_at > :at::timestamptz order by line_id, past_id
)
select l.sku_id, l.pool_id, sum(coalesce(w.open, l.open))::int as quantity
  from order_line l left join was w using (line_id)
 where l.sku_id = any(:skus::int[]) and l.made_at <= :at::timestamptz and coalesce(w.open, l.open) > 0
 group by l.sku_id, l.pool_id order by l.sku_id, l.pool_id;

-- name: day_went
-- Where the lines of these orders really went, as far as it is known.
select n.line_id, f.location_id, sum(n.quantity)::int as quantity
  from fulfillment f join fulfillment_line n using (fulfillment_id)
 where f.order_id = any(:orders::uuid[]) and f.state not in ('rejected', 'recalled') and n.quantity > 0
 group by n.line_id, f.location_id order by n.line_id, f.location_id;

-- name: prices_before
-- The prices of the last runs before a moment that were no trials, the newest first.
select prices from run where prices is not null and (not dry_run or mode = 'prices') and started_at < :at order by run_id desc limit :limit;
