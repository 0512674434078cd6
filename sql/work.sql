-- name: due_work
-- What is to be done at locations, by when it must leave to keep its day, then by wave, class and age.
select f.fulfillment_id as id, l.code as location, o.number, f.state, o.method, o.priority, f.made_at, d.due_at,
       f.wave, d.due_at < :now as is_late, g.lines, g.units, g.picked, g.packed, t.step as task, t.who
  from fulfillment f
  join location l using (location_id)
  join orders o using (order_id)
  cross join lateral (select (f.capacity_day + coalesce(l.cut_off, time '23:59:59')) at time zone l.time_zone as due_at) d
  cross join lateral (select count(*)::int as lines, coalesce(sum(n.quantity), 0)::int as units,
                             coalesce(sum(n.picked), 0)::int as picked, coalesce(sum(n.packed), 0)::int as packed
                        from fulfillment_line n where n.fulfillment_id = f.fulfillment_id) g
  left join lateral (select k.step, k.who from task k
                      where k.fulfillment_id = f.fulfillment_id and k.ended_at is null limit 1) t on true
 where f.state in ('released', 'accepted', 'picked', 'packed', 'ready')
   and (:locations::int[] is null or f.location_id = any(:locations))
   and (:code::text is null or l.code = :code)
   and (:channel_id::int is null or o.channel_id = :channel_id)
 order by d.due_at, f.wave nulls first, o.priority desc, f.made_at, f.fulfillment_id limit :limit;

-- name: progress
-- How far fulfillments are in hand, and whose their open tasks are.
select f.fulfillment_id, r.scans_are_required, g.units, g.picked, g.packed,
       (select who from task where fulfillment_id = f.fulfillment_id and step = 'pick' and ended_at is null) as picker,
       (select who from task where fulfillment_id = f.fulfillment_id and step = 'pack' and ended_at is null) as packer
  from fulfillment f
  join work_rule r using (location_id)
  cross join lateral (select coalesce(sum(quantity), 0)::int as units, coalesce(sum(picked), 0)::int as picked,
                             coalesce(sum(packed), 0)::int as packed
                        from fulfillment_line n where n.fulfillment_id = f.fulfillment_id) g
 where f.fulfillment_id = any(:ids::uuid[]) order by f.fulfillment_id;

-- name: finish_lines
-- All units of fulfillments are picked (or packed).
update fulfillment_line
   set picked = quantity, packed = case when :step::text = 'pack' then quantity else packed end
 where fulfillment_id = any(:ids::uuid[]) and (picked < quantity or (:step::text = 'pack' and packed < quantity));

-- name: close_tasks
-- The open tasks of a step are done.
update task set ended_at = :at, ended_how = 'done'
 where fulfillment_id = any(:ids::uuid[]) and step = :step and ended_at is null;

-- name: open_tasks
-- A step becomes one person's task, where it is nobody's; gives the fulfillments that it was.
insert into task (fulfillment_id, step, pick_list_id, who, device, started_at)
select n, :step, :pick_list_id::uuid, :who, :device::text, :at from unnest(:ids::uuid[]) as n order by n
on conflict (fulfillment_id, step) where ended_at is null do nothing
returning fulfillment_id;

-- name: keep_tasks
-- A step that was done in one go is kept as a task, too.
insert into task (fulfillment_id, step, who, device, started_at, ended_at, ended_how)
select n, :step, :who, :device::text, :at, :at, 'done' from unnest(:ids::uuid[]) as n
 where not exists (select from task t where t.fulfillment_id = n and t.step = :step and t.ended_how = 'done');

-- name: pack_rest
-- What is in no parcel yet is in the first one, which is made where there is none.
with made as (
  insert into parcel (fulfillment_id, number, who)
  select n, 1, :who from unnest(:ids::uuid[]) as n
   where not exists (select from parcel p where p.fulfillment_id = n)
  returning parcel_id, fulfillment_id
), first as (
  select * from made
  union all
  select parcel_id, fulfillment_id from parcel where fulfillment_id = any(:ids::uuid[]) and number = 1
)
insert into parcel_line (parcel_id, line_id, quantity)
select f.parcel_id, n.line_id, n.quantity - coalesce(g.quantity, 0)
  from first f
  join fulfillment_line n using (fulfillment_id)
  left join lateral (select sum(c.quantity)::int as quantity from parcel p join parcel_line c using (parcel_id)
                      where p.fulfillment_id = f.fulfillment_id and c.line_id = n.line_id) g on true
 where n.quantity > coalesce(g.quantity, 0)
on conflict (parcel_id, line_id) do update set quantity = parcel_line.quantity + excluded.quantity;

-- name: candidates
-- Unpicked work at a location that is nobody's, most urgent first; a system's work is not for people.
select f.fulfillment_id
  from fulfillment f join location l using (location_id) join orders o using (order_id)
 where f.location_id = :location_id and f.state in ('released', 'accepted')
   and not exists (select from task t where t.fulfillment_id = f.fulfillment_id and t.step = 'pick' and t.ended_at is null)
   and not exists (select from handoff h where h.fulfillment_id = f.fulfillment_id and h.act = 'release'
                      and h.state in ('due', 'sent', 'acknowledged'))
 order by f.capacity_day, f.wave nulls first, o.priority desc, f.made_at, f.fulfillment_id limit :limit;

-- name: pick_list_head
-- A pick list: whose it is, where and since when.
select t.pick_list_id as id, l.code as location, f.location_id, t.who, t.device, min(t.started_at) as started_at
  from task t join fulfillment f using (fulfillment_id) join location l using (location_id)
 where t.pick_list_id = :id
 group by t.pick_list_id, l.code, f.location_id, t.who, t.device;

-- name: pick_list_lines
-- What is picked for a list, by bin and sku, with every barcode.
select coalesce(b.bin, '') as bin, s.code as sku, s.name, coalesce(c.barcodes, '{}') as barcodes, f.fulfillment_id,
       o.number, n.line, g.quantity, g.picked, f.state
  from task t
  join fulfillment f using (fulfillment_id)
  join orders o using (order_id)
  join fulfillment_line g using (fulfillment_id)
  join order_line n using (line_id)
  join sku s on s.sku_id = g.sku_id
  left join lateral (select min(bin) as bin from bin_stock b
                      where b.location_id = f.location_id and b.sku_id = g.sku_id and b.quantity > 0) b on true
  left join lateral (select array_agg(barcode order by barcode) as barcodes from sku_barcode k
                      where k.sku_id = g.sku_id) c on true
 where t.pick_list_id = :id and g.quantity > 0 and (t.ended_at is null or t.ended_how = 'done')
 order by 1, 2, o.number, n.line;

-- name: give_back_list
-- What of a pick list is not done is nobody's again.
update task set ended_at = :at, ended_how = 'given back' where pick_list_id = :id and ended_at is null;

-- name: give_back_tasks
-- A fulfillment's open tasks are nobody's again.
update task set ended_at = :at, ended_how = 'given back' where fulfillment_id = :id and ended_at is null;

-- name: skus_of_code
-- The skus that a code may mean: our own code, or a barcode in any of its lengths.
select s.sku_id, s.code from sku s where s.code = any(:codes::text[])
union
select s.sku_id, s.code from sku_barcode b join sku s using (sku_id) where b.barcode = any(:codes::text[])
order by sku_id;

-- name: scan_lines
-- The lines of a fulfillment with what of them is in hand.
select g.line_id, n.line, g.sku_id, s.code as sku, g.quantity, g.picked, g.packed
  from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
 where g.fulfillment_id = :id and g.quantity > 0 order by g.line_id;

-- name: serial_scans
-- Where a piece was scanned for this step and is still in hand.
select distinct c.fulfillment_id from scan c join fulfillment f using (fulfillment_id)
 where c.serial = :serial and c.step = :step and c.line_id is not null
   and f.state in ('released', 'accepted', 'picked', 'packed', 'ready');

-- name: keep_scan
-- A scan, right or wrong.
insert into scan (fulfillment_id, step, code, serial, sku_id, line_id, quantity, who, device, at)
values (:id, :step, :code, :serial::text, :sku_id::int, :line_id::bigint, :quantity, :who, :device::text, :at);

-- name: count_mispick
-- A wrong scan counts with the task in which it happened.
update task set mispicks = mispicks + 1 where fulfillment_id = :id and step = :step and ended_at is null;

-- name: in_hand
-- Units of a line are picked (or packed).
update fulfillment_line
   set picked = picked + case when :step::text = 'pick' then :quantity::int else 0 end,
       packed = packed + case when :step::text = 'pack' then :quantity::int else 0 end
 where fulfillment_id = :id and line_id = :line_id;

-- name: make_parcel
-- A parcel of a fulfillment, made or told more of.
insert into parcel (fulfillment_id, number, carrier, tracking, weight_grams, who)
values (:id, :number, :carrier::text, :tracking::text, :weight_grams::int, :who)
on conflict (fulfillment_id, number) do update
  set carrier = coalesce(excluded.carrier, parcel.carrier), tracking = coalesce(excluded.tracking, parcel.tracking),
      weight_grams = coalesce(excluded.weight_grams, parcel.weight_grams)
returning parcel_id;

-- name: put_in_parcel
-- Units are in a parcel.
insert into parcel_line (parcel_id, line_id, quantity)
select :parcel_id, n.line_id, n.quantity from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity)
on conflict (parcel_id, line_id) do update set quantity = parcel_line.quantity + excluded.quantity;

-- name: parcels_of
-- The parcels of a fulfillment and what is in them.
select p.number, p.carrier, p.tracking, p.weight_grams,
       coalesce((select jsonb_agg(jsonb_build_object('line', n.line, 'sku', s.code, 'quantity', c.quantity) order by n.line_id)
                   from parcel_line c join order_line n using (line_id) left join sku s on s.sku_id = n.sku_id
                  where c.parcel_id = p.parcel_id), '[]') as lines
  from parcel p where p.fulfillment_id = :id order by p.number;

-- name: tasks_of
-- Who did what of a fulfillment, with what, from when to when, and how often wrongly.
select step, who, device, started_at, ended_at, ended_how, mispicks from task where fulfillment_id = :id
 order by started_at, task_id;

-- name: collections_of
-- What customers collect, those that wait longest first.
select c.fulfillment_id, l.code as location, o.number, h.code as channel, c.state,
       case when f.location_id <> c.location_id then w.code end as shipped_from, c.ready_at, c.collect_by, c.reminded_at,
       c.ended_at, c.proof_kind
  from collection c
  join fulfillment f using (fulfillment_id)
  join orders o using (order_id)
  join channel h using (channel_id)
  join location l on l.location_id = c.location_id
  join location w on w.location_id = f.location_id
 where (:locations::int[] is null or c.location_id = any(:locations)) and (:code::text is null or l.code = :code)
   and (:state::text is null or c.state = :state) and (:id::uuid is null or c.fulfillment_id = :id)
 order by c.ready_at nulls last, c.fulfillment_id limit :limit;

-- name: order_of
-- Takes the order of a fulfillment.
select o.order_id from orders o
 where o.order_id = (select order_id from fulfillment where fulfillment_id = :id) for update;

-- name: take_collection
-- Takes what is to be collected of a fulfillment.
select f.fulfillment_id, f.order_id, o.channel_id, o.number, c.location_id, l.code as location, f.location_id as from_id,
       c.state, c.code, f.state as work_state, f.capacity_day
  from fulfillment f join collection c using (fulfillment_id) join orders o using (order_id)
  join location l on l.location_id = c.location_id
 where f.fulfillment_id = :id for update of f, c;

-- name: make_ready
-- Pick-ups wait for their customers, each with a code to show.
insert into collection (fulfillment_id, location_id, state, code, ready_at, remind_at, collect_by)
select f.fulfillment_id, f.location_id, 'ready', lpad((('x' || encode(substr(sha256(convert_to(f.fulfillment_id::text
         || gen_random_uuid()::text, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % 1000000)::text, 6, '0'),
       :at, :at::timestamptz + make_interval(hours => r.reminder_hours), :at::timestamptz + make_interval(days => r.collect_days)
  from fulfillment f join work_rule r using (location_id) where f.fulfillment_id = any(:ids::uuid[])
on conflict (fulfillment_id) do nothing;

-- name: expect_collections
-- What was shipped for a store is expected there.
insert into collection (fulfillment_id, location_id, state, code)
select f.fulfillment_id, l.location_id, 'expected', lpad((('x' || encode(substr(sha256(convert_to(f.fulfillment_id::text
         || gen_random_uuid()::text, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % 1000000)::text, 6, '0')
  from fulfillment f join orders o using (order_id) join location l on l.code = o.ship_to ->> 'collect_at'
 where f.fulfillment_id = any(:ids::uuid[])
on conflict (fulfillment_id) do nothing;

-- name: arrived
-- What was shipped for a store is there.
update collection c set state = 'ready', ready_at = :at, remind_at = :at::timestamptz + make_interval(hours => r.reminder_hours),
       collect_by = :at::timestamptz + make_interval(days => r.collect_days)
  from work_rule r where c.fulfillment_id = :id and r.location_id = c.location_id;

-- name: collected
-- Collections end: handed over with proof, or not collected.
update collection set state = :state, ended_at = :at, proof_kind = coalesce(:proof_kind::text, proof_kind),
       proof = coalesce(:proof::text, proof)
 where fulfillment_id = any(:ids::uuid[]) and (ended_at is null or proof_kind is null);

-- name: tell
-- A channel is to be told of collections, once per kind.
insert into notice (kind, subject, channel_id, order_id, body)
select :kind, f.fulfillment_id::text, o.channel_id, o.order_id,
       jsonb_build_object('order', o.number, 'fulfillment', f.fulfillment_id, 'location', l.code, 'code', c.code,
                          'collect_by', c.collect_by,
                          'lines', (select jsonb_agg(jsonb_build_object('line', n.line, 'quantity', g.given,
                                           'price', n.price_cents) order by n.line_id)
                                      from fulfillment_line g join order_line n using (line_id)
                                     where g.fulfillment_id = f.fulfillment_id))
  from fulfillment f join orders o using (order_id) join collection c using (fulfillment_id)
  join location l on l.location_id = c.location_id
 where f.fulfillment_id = any(:ids::uuid[]) order by f.fulfillment_id
on conflict (kind, subject) do nothing;

-- name: remind_due
-- Collections whose customers are to be reminded, or that nobody collected in time.
with due as (
  select fulfillment_id from collection
   where state = 'ready' and ((reminded_at is null and remind_at <= :now) or collect_by <= :now)
   order by remind_at limit :limit for update skip locked
), marked as (
  update collection c set reminded_at = coalesce(c.reminded_at, :now),
         collect_by = case when c.collect_by <= :now then :now::timestamptz + interval '1 day' else c.collect_by end
    from due where c.fulfillment_id = due.fulfillment_id
  returning c.fulfillment_id, c.location_id, old.collect_by <= :now as is_overdue
)
select m.fulfillment_id, l.code as location, o.number, m.is_overdue
  from marked m join location l using (location_id) join fulfillment f using (fulfillment_id) join orders o using (order_id);

-- name: left_lines
-- Units of a fulfillment that nobody collected.
select g.line_id, n.line, g.sku_id, s.code as sku, n.pool_id, g.quantity, coalesce(n.price_cents, 0) as price_cents
  from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
 where g.fulfillment_id = :id and g.quantity > 0 order by g.line_id for update of n;

-- name: undo_lines
-- Allocated units are cancelled.
update order_line l set allocated = l.allocated - n.quantity, cancelled = l.cancelled + n.quantity, version = l.version + 1
  from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) where l.line_id = n.line_id;

-- name: recall_fulfillment
-- A fulfillment has nothing any more.
with emptied as (
  update fulfillment_line set quantity = 0 where fulfillment_id = :id and quantity > 0
)
update fulfillment set state = 'recalled', changed_at = clock_timestamp() where fulfillment_id = :id;

-- name: expect_back
-- What was shipped to a store and not collected comes back there as a return.
with made as (
  insert into customer_return (channel_id, order_id, location_id, is_blind, state, made_by, made_at)
  select o.channel_id, o.order_id, :location_id, false, 'expected', :who, :at
    from fulfillment f join orders o using (order_id) where f.fulfillment_id = :id
  returning return_id
)
insert into return_line (return_id, number, line_id, sku_id, reason, price_cents, expected)
select m.return_id, row_number() over (order by g.line_id), g.line_id, g.sku_id, 'not collected', n.price_cents, g.quantity
  from made m, fulfillment_line g join order_line n using (line_id)
 where g.fulfillment_id = :id and g.quantity > 0;

-- name: rejection_rules
-- What a location's rejections may do.
select rejections_change_stock, not_again_hours, sku_rest_minutes from work_rule where location_id = :location_id;

-- name: let_rest
-- The location is not asked for these skus by any order until then.
insert into sku_rest (sku_id, location_id, until, reason)
select distinct n, :location_id::int, :until::timestamptz, :reason::text from unnest(:skus::int[]) as n order by n
on conflict (sku_id, location_id) do update set until = greatest(sku_rest.until, excluded.until), reason = excluded.reason;

-- name: others_there
-- Unpicked work of other orders at the same location on the skus of these lines (null: of all).
select distinct f.fulfillment_id
  from fulfillment mine
  join fulfillment_line m on m.fulfillment_id = mine.fulfillment_id and m.quantity > 0
  join order_line n on n.line_id = m.line_id and (:lines::text[] is null or n.line = any(:lines))
  join fulfillment f on f.location_id = mine.location_id and f.state in ('released', 'accepted')
                    and f.fulfillment_id <> mine.fulfillment_id
  join fulfillment_line g on g.fulfillment_id = f.fulfillment_id and g.sku_id = m.sku_id and g.quantity > 0
 where mine.fulfillment_id = :id order by f.fulfillment_id;

-- name: in_hands
-- Units of skus at a location that are picked and have not left.
select g.sku_id, sum(g.picked)::int as units
  from fulfillment f join fulfillment_line g using (fulfillment_id)
 where f.location_id = :location_id and f.state in ('accepted', 'picked', 'packed', 'ready') and g.picked > 0
   and g.sku_id = any(:skus::int[])
 group by g.sku_id;

-- name: note_losses
-- What a rejection takes off the stock counts with what its person writes off on that day.
insert into write_off (location_id, day, kind, state, cents, lines, reference, requested_by, requested_at)
select l.location_id, (:at::timestamptz at time zone l.time_zone)::date, 'rejection', 'applied', sum(v.cents),
       jsonb_agg(jsonb_build_object('sku_id', s.sku_id, 'sku', s.code, 'quantity', n.quantity, 'reason', :reason::text,
                                    'cents', v.cents) order by s.sku_id),
       :reference, :who, :at
  from location l
  cross join unnest(:skus::int[], :quantities::int[]) as n(sku_id, quantity)
  join sku s on s.sku_id = n.sku_id
  cross join lateral (select n.quantity::bigint * coalesce(s.value_cents, s.price_cents, 1000) as cents) v
 where l.location_id = :location_id
 group by l.location_id, l.time_zone;

-- name: work_rules
-- How a location works.
select l.code as location, r.scans_are_required, r.rejections_change_stock, r.not_again_hours, r.sku_rest_minutes,
       r.reminder_hours, r.collect_days, r.write_off_cents_max, r.recount_units_min, r.count_fast_days, r.count_slow_days,
       r.count_lines_max
  from work_rule r join location l using (location_id) where l.code = :code;

-- name: set_work_rules
-- A location works so from now on.
update work_rule r
   set scans_are_required = n.scans_are_required, rejections_change_stock = n.rejections_change_stock,
       not_again_hours = n.not_again_hours, sku_rest_minutes = n.sku_rest_minutes, reminder_hours = n.reminder_hours,
       collect_days = n.collect_days, write_off_cents_max = n.write_off_cents_max,
       recount_units_min = n.recount_units_min, count_fast_days = n.count_fast_days,
       count_slow_days = n.count_slow_days, count_lines_max = n.count_lines_max
  from jsonb_to_record(:body::jsonb) as n(scans_are_required boolean, rejections_change_stock boolean, not_again_hours int,
         sku_rest_minutes int, reminder_hours int, collect_days int, write_off_cents_max int, recount_units_min int,
         count_fast_days int, count_slow_days int, count_lines_max int)
 where r.location_id = (select location_id from location where code = :code);
