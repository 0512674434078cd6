-- name: lock_skus
-- Takes the rows of these skus in sku order: whoever holds them may change stock and reservations.
select sku_id, version, layout_id, supply, reserved, taken
  from availability where sku_id = any(:skus::int[]) order by sku_id for update;

-- name: layout
-- How pools and segments of a layout are numbered.
select layout_id, pools, segments from layout where layout_id = :layout_id;

-- name: layout_segments
-- The segment of each location in a layout.
select location_id, segment from layout_location where layout_id = :layout_id;

-- name: write_availability
-- One update per sku: reservations, counters and supply as given; null leaves what is there.
with written as (
  update availability v
     set version = v.version + 1,
         reserved = coalesce(n.reserved::int[], v.reserved),
         taken = coalesce(n.taken, v.taken),
         supply = coalesce(n.supply::int[], v.supply)
    from unnest(:skus::int[], :reserved::text[], :taken::jsonb[], :supply::text[]) as n(sku_id, reserved, taken, supply)
   where v.sku_id = n.sku_id
  returning v.sku_id, v.version, v.layout_id, v.supply, v.reserved, v.taken
), told as (
  insert into touched (sku_id) select sku_id from written order by sku_id
)
select * from written;

-- name: sum_supply
-- The supply of these skus by segment, summed over all of their stock.
with anew as materialized (
  select sku_id, layout_id, cardinality(supply) as segments from availability where sku_id = any(:skus::int[])
), here as materialized (  -- joined once, so that each stock row meets one join
  select g.layout_id, g.location_id, g.segment
    from layout_location g join location l using (location_id)
   where l.is_on and g.layout_id in (select layout_id from anew)
), there as materialized (  -- a range of the key per sku: few rows as they look to the planner, many as they are
  select sku_id, location_id, on_hand - held - allocated - safety_stock as units
    from stock where sku_id = any(:skus::int[]) and on_hand - held - allocated - safety_stock > 0
), units as (
  select s.sku_id, g.segment, sum(s.units) as units
    from anew a
    join there s on s.sku_id = a.sku_id
    join here g on g.layout_id = a.layout_id and g.location_id = s.location_id
   group by s.sku_id, g.segment
)
select a.sku_id, array_agg(least(coalesce(u.units, 0), 2147483647)::int order by g.segment) as supply
  from anew a cross join lateral generate_series(0, a.segments - 1) g(segment)
  left join units u on u.sku_id = a.sku_id and u.segment = g.segment
 group by a.sku_id;

-- name: available_now
-- What may be promised from each of these keys; nothing where the location is off.
select s.sku_id, s.location_id, case when l.is_on then greatest(0, s.on_hand - s.held - s.allocated - s.safety_stock) else 0 end
  from stock s join location l using (location_id)
 where (s.sku_id, s.location_id) in (select * from unnest(:skus::int[], :locations::int[]));

-- name: ensure_stock
-- A stock row for each key that has none. Where its location's snapshot says nothing of absent keys, none is in force.
insert into stock (sku_id, location_id, safety_stock, is_pinned)
select distinct n.sku_id, l.location_id, 
       case when exists (select from rule where kind = 'safety')
            then safety_of(n.sku_id, l.location_id, l.safety_stock) else l.safety_stock end,
       coalesce(not o.absent_is_zero or b.keeps_absent or b.scope = 'partial', false)
  from unnest(:skus::int[], :locations::int[]) as n(sku_id, location_id)
  join location l on l.location_id = n.location_id
  left join baseline b on b.baseline_id = l.baseline_id
  left join source o on o.source_id = b.source_id
 order by n.sku_id, l.location_id
on conflict do nothing;

-- name: lock_stock
-- The stock rows of these keys, locked in order.
select s.sku_id, s.location_id, s.on_hand, s.held, s.allocated, s.safety_stock, l.is_on
  from stock s join location l using (location_id)
 where (s.sku_id, s.location_id) in (select * from unnest(:skus::int[], :locations::int[]))
 order by s.sku_id, s.location_id for update of s;

-- name: allocate_stock
-- Allocated units rise or fall by these amounts; what may be promised from there then.
update stock s set allocated = s.allocated + n.quantity
  from (select sku_id, location_id, sum(quantity)::int as quantity
          from unnest(:skus::int[], :locations::int[], :quantities::int[]) as n(sku_id, location_id, quantity)
         group by sku_id, location_id) n
  join location l using (location_id)
 where s.sku_id = n.sku_id and s.location_id = n.location_id
returning s.sku_id, s.location_id,
          case when l.is_on then greatest(0, s.on_hand - s.held - s.allocated - s.safety_stock) else 0 end;

-- name: write_movements
-- Extends the ledger, in the given order, with its fold, its postings and the holds that live with it.
with m as (
  select n.*, row_number() over key as nth, sum(n.effect) over key as run
    from unnest(:skus::int[], :locations::int[], :sources::int[], :messages::text[], :kinds::text[],
                :quantities::int[], :effects::int[], :sequences::bigint[], :occurred::timestamptz[],
                :absorbed::text[], :reasons::text[], :reference_ids::text[], :hold_codes::text[], :held::int[],
                :ours::boolean[], :acked_sequences::bigint[], :acked_at::timestamptz[], :contained::bigint[])
         with ordinality as n(sku_id, location_id, source_id, message_id, kind, quantity, effect, sequence,
                occurred_at, absorbed_by, reason, reference, hold_code, held, is_ours, acked_sequence, acked_at,
                contained_in, k)
  window key as (partition by n.sku_id, n.location_id order by n.k)
), folded as (
  update stock s
     set on_hand = s.on_hand + t.effect, version = s.version + t.count,
         counted_at = case when t.counted_at is null then s.counted_at else greatest(s.counted_at, t.counted_at) end,
         is_ambiguous = s.is_ambiguous and t.counted_at is null
    from (select sku_id, location_id, sum(effect)::int as effect, count(*) as count,
                 max(occurred_at) filter (where kind = 'count' and absorbed_by is null) as counted_at
            from m group by sku_id, location_id) t
   where s.sku_id = t.sku_id and s.location_id = t.location_id
  returning s.sku_id, s.location_id, old.on_hand as was, old.version as from_version
), kept as (
  insert into movement (sku_id, location_id, version, source_id, message_id, kind, quantity, effect, on_hand,
                        sequence, occurred_at, absorbed_by, reason, reference, feed_id, who)
  select m.sku_id, m.location_id, f.from_version + m.nth, m.source_id, m.message_id, m.kind, m.quantity, m.effect,
         (f.was + m.run)::int, m.sequence, m.occurred_at, m.absorbed_by, m.reason, m.reference, :feed_id, :who
    from m join folded f using (sku_id, location_id)
   order by m.k
), posted as (
  insert into posting (sku_id, location_id, version, source_id, kind, sequence, occurred_at, quantity, hold_code,
                       held, is_ours, acked_sequence, acked_at, contained_in)
  select m.sku_id, m.location_id, f.from_version + m.nth, m.source_id, m.kind, m.sequence, m.occurred_at, m.quantity,
         m.hold_code, m.held, m.is_ours, m.acked_sequence, m.acked_at, m.contained_in
    from m join folded f using (sku_id, location_id)
   where m.kind <> 'baseline'
), holding as (
  insert into hold (sku_id, location_id, code, quantity, version, source_id, placed_at)
  select m.sku_id, m.location_id, m.hold_code, m.held, f.from_version + m.nth, m.source_id, m.occurred_at
    from m join folded f using (sku_id, location_id)
   where m.held > 0
)
select m.sku_id, m.location_id, f.from_version + m.nth as version from m join folded f using (sku_id, location_id)
 order by m.k;

-- name: open_holds
-- Holds in force on these keys, oldest first.
select hold_id, sku_id, location_id, code, quantity, version, source_id, placed_at
  from hold
 where lifted_at is null and (sku_id, location_id) in (select * from unnest(:skus::int[], :locations::int[]))
 order by sku_id, location_id, code, hold_id;

-- name: lift_holds
-- Ends holds; one that is lifted in part leaves its remainder in force, still living with its movement.
with n as (
  select * from unnest(:holds::bigint[], :quantities::int[]) as n(hold_id, quantity)
), lifted as (
  update hold h set lifted_at = coalesce(:at, clock_timestamp()), lifted_by = :who, quantity = n.quantity
    from n where h.hold_id = n.hold_id and h.lifted_at is null
  returning h.sku_id, h.location_id, h.code, h.version, h.source_id, h.placed_at, old.quantity - n.quantity as rest
)
insert into hold (sku_id, location_id, code, quantity, version, source_id, placed_at)
select sku_id, location_id, code, rest, version, source_id, placed_at from lifted where rest > 0;

-- name: place_holds
-- Holds that live with no movement: what a source reports.
insert into hold (sku_id, location_id, code, quantity, source_id, placed_at)
select n.sku_id, n.location_id, n.code, n.quantity, :source_id, :at
  from unnest(:skus::int[], :locations::int[], :codes::text[], :quantities::int[]) as n(sku_id, location_id, code, quantity);

-- name: fold_held
-- Held units of these keys, summed anew from the holds in force.
update stock s set held = n.held
  from (select k.sku_id, k.location_id, 
               coalesce(sum(h.quantity) filter (where not exists (select from rule where kind = 'hold')
                            or not is_sellable(h.code, k.sku_id, k.location_id)), 0)::int as held
          from (select distinct * from unnest(:skus::int[], :locations::int[])) as k(sku_id, location_id)
          left join hold h on h.sku_id = k.sku_id and h.location_id = k.location_id and h.lifted_at is null
         group by k.sku_id, k.location_id) n
 where s.sku_id = n.sku_id and s.location_id = n.location_id and s.held <> n.held;

-- name: ensure_capacity
-- A row for each location and day.
insert into capacity (location_id, day)
select distinct * from unnest(:locations::int[], :days::date[]) order by 1, 2
on conflict do nothing;

-- name: read_capacity
-- The capacity rows with their limits, locked in order, last of all locks.
select c.location_id, c.day, c.orders, c.items, c.cents, l.capacity_orders, l.capacity_items, l.capacity_cents
  from capacity c join location l using (location_id)
 where (c.location_id, c.day) in (select * from unnest(:locations::int[], :days::date[]))
 order by c.location_id, c.day for update of c;

-- name: use_capacity
-- Work at a location on a day rises or falls.
update capacity c set orders = c.orders + n.orders, items = c.items + n.items, cents = c.cents + n.cents
  from (select location_id, day, sum(orders)::int as orders, sum(items)::int as items, sum(cents)::bigint as cents
          from unnest(:locations::int[], :days::date[], :orders::int[], :items::int[], :cents::bigint[])
               as n(location_id, day, orders, items, cents)
         group by location_id, day) n
 where c.location_id = n.location_id and c.day = n.day;

-- name: chunk_skus
-- The skus of the next chunk: about this many keys, whole skus, in order.
select sku_id from (
  select sku_id, sum(count(*)) over (order by sku_id) - count(*) as before
    from (select k.sku_id from feed_key k
           where k.feed_id = :feed_id and k.sku_id > :after order by k.sku_id limit :keys + 1) n
   group by sku_id) s
 where before < :keys order by sku_id;

-- name: rebase_chunk
-- Resets the keys of a chunk to what the snapshot says, each at once: new rows, changed rows and their movements.
with r as materialized (
  select * from rebased(:feed_id, :after, :upto, '{applying}')
), made as (
  insert into stock (sku_id, location_id, on_hand, safety_stock, version, baseline_id, is_ambiguous)
  select r.sku_id, r.location_id, r.becomes,
         case when exists (select from rule where kind = 'safety')
              then safety_of(r.sku_id, r.location_id, l.safety_stock) else l.safety_stock end, (r.becomes <> 0)::int,
         case when r.scope = 'partial' then r.baseline_id end, r.is_ambiguous
    from r join location l using (location_id) where r.is_new
   order by r.sku_id, r.location_id
), changed as (
  update stock s
     set on_hand = r.becomes, version = s.version + (r.becomes <> r.was)::int,
         baseline_id = case when r.scope = 'partial' then r.baseline_id end,
         is_pinned = false, is_ambiguous = r.is_ambiguous
    from r
   where s.sku_id = r.sku_id and s.location_id = r.location_id and s.sku_id > :after and s.sku_id <= :upto
     and not r.is_new and (r.becomes <> r.was or r.marked)
  returning s.sku_id, s.location_id, s.version
), kept as (
  insert into movement (sku_id, location_id, version, source_id, message_id, kind, quantity, effect, on_hand,
                        occurred_at, feed_id, who)
  select r.sku_id, r.location_id, coalesce(c.version, 1), r.source_id, 'baseline:' || r.baseline_id, 'baseline',
         r.becomes - r.was, r.becomes - r.was, r.becomes, r.as_of, :feed_id, :who
    from r left join changed c on c.sku_id = r.sku_id and c.location_id = r.location_id
   where r.becomes <> r.was
   order by r.sku_id, r.location_id
)
select r.sku_id, count(*)::int as keys, count(*) filter (where r.becomes <> r.was)::int as changed,
       count(*) filter (where r.becomes < 0)::int as negative,
       sum(abs(r.becomes::bigint - r.was))::bigint as variance_units
  from r group by r.sku_id;

-- name: contain_chunk
-- Movements of the chunk that the snapshot contains are marked so.
with k as (
  select k.sku_id, k.location_id, b.baseline_id, b.order_level, b.window_seconds, b.as_of, b.watermark, b.source_id,
         s.acknowledges
    from feed_key k
    join baseline b on b.feed_id = k.feed_id and b.location_id = k.location_id and b.state = 'applying'
    join source s on s.source_id = b.source_id
    join stock st on st.sku_id = k.sku_id and st.location_id = k.location_id
    left join baseline own on own.baseline_id = st.baseline_id and not st.is_pinned
   where k.feed_id = :feed_id and k.sku_id > :after and k.sku_id <= :upto and not k.untouched
     and st.sku_id > :after and st.sku_id <= :upto
     and (own.baseline_id is null or own.as_of < b.as_of or own.baseline_id = b.baseline_id)
     and (st.counted_at is null or st.counted_at <= b.as_of)
), added_back as (
  update deduction d set counted_in = k.baseline_id
    from k
   where d.sku_id = k.sku_id and d.location_id = k.location_id and not d.shipped
     and d.sku_id > :after and d.sku_id <= :upto
     and is_deducted(d, k.order_level, k.window_seconds, k.as_of, k.watermark, k.source_id, k.acknowledges)
)
update posting p set contained_in = k.baseline_id
  from k
 where p.sku_id = k.sku_id and p.location_id = k.location_id and p.contained_in is null
   and p.sku_id > :after and p.sku_id <= :upto
   and is_contained(p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at, p.acked_sequence,
                    p.acked_at, k.order_level, k.window_seconds, k.as_of, k.watermark, k.source_id, k.acknowledges);

-- name: lift_contained_holds
-- A hold that lived with a movement which a baseline now contains holds nothing, unless its code is one that the
-- baseline's source does not know.
update hold h set lifted_at = clock_timestamp(), lifted_by = 'baseline:' || b.baseline_id
  from posting p join baseline b on b.baseline_id = p.contained_in
 where b.feed_id = :feed_id and b.state = 'applying' and p.held > 0
   and p.sku_id > :after and p.sku_id <= :upto
   and h.sku_id = p.sku_id and h.location_id = p.location_id and h.version = p.version and h.lifted_at is null
   and h.sku_id > :after and h.sku_id <= :upto
   and (h.code in ('until_baseline', 'until_released')
        or h.code in (select hold_code from status_map m where m.source_id = b.source_id))
returning h.sku_id, h.location_id;

-- name: replace_reported_holds
-- The hold codes that the source reports become what it reports, less releases that it does not contain.
with k as materialized (
  select r.* from rebased_holds(:feed_id, :after, :upto) r
), lifted as (
  update hold h set lifted_at = clock_timestamp(), lifted_by = 'baseline:' || k.baseline_id
    from k where h.hold_id = any(k.hold_ids) and k.becomes <> k.was
), placed as (
  insert into hold (sku_id, location_id, code, quantity, source_id, placed_at)
  select sku_id, location_id, code, becomes, source_id, as_of from k where becomes > 0 and becomes <> was
)
select sku_id, location_id from k where becomes <> was;

-- name: move_cursor
-- The chunk is done.
update feed set cursor_sku = :upto where feed_id = :feed_id;

-- name: revert_effects
-- What taking a baseline back does to each of its keys: its own change undone, and what it absorbed counted again
-- unless the snapshot before it contains that too.
with b as (
  select b.*, p.baseline_id as before_id, p.order_level as p_level, p.window_seconds as p_window, p.as_of as p_as_of,
         p.watermark as p_watermark, p.source_id as p_source, s.acknowledges as p_acknowledges
    from baseline b left join baseline p on p.baseline_id = b.previous_id
    left join source s on s.source_id = p.source_id
   where b.baseline_id = :baseline_id
), undone as (
  select m.sku_id, -sum(m.effect)::int as effect
    from movement m, b
   where m.feed_id = b.feed_id and m.location_id = b.location_id and m.kind = 'baseline'
     and m.message_id in ('baseline:' || b.baseline_id, 'late:' || b.baseline_id)
   group by m.sku_id
), absorbed as (
  select p.sku_id, sum(p.quantity)::int as effect
    from posting p join movement m using (sku_id, location_id, version), b
   where p.contained_in = b.baseline_id and m.absorbed_by = 'baseline:' || b.baseline_id
     and not coalesce(is_contained(p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at,
                                   p.acked_sequence, p.acked_at, b.p_level, b.p_window, b.p_as_of, b.p_watermark,
                                   b.p_source, b.p_acknowledges), false)
   group by p.sku_id
)
select sku_id, sum(effect)::int as effect
  from (select * from undone union all select * from absorbed
        union all select s.sku_id, 0 from stock s where s.baseline_id = :baseline_id
        union all select p.sku_id, 0 from posting p where p.contained_in = :baseline_id) e
 group by sku_id order by sku_id;

-- name: uncontain
-- The movements of a reverted baseline count as the snapshot before it says.
update posting p set contained_in = case when is_contained(
         p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at, p.acked_sequence, p.acked_at,
         f.order_level, f.window_seconds, f.as_of, f.watermark, f.source_id, s.acknowledges)
       and m.absorbed_by is not null then f.baseline_id end
  from baseline b
  left join baseline f on f.baseline_id = b.previous_id
  left join source s on s.source_id = f.source_id
  cross join movement m
 where b.baseline_id = :baseline_id and p.contained_in = b.baseline_id
   and m.sku_id = p.sku_id and m.location_id = p.location_id and m.version = p.version;

-- name: uncount_deductions
-- Deductions that a reverted baseline added back are no longer added.
update deduction set counted_in = null where counted_in = :baseline_id;

-- name: restore_holds
-- Holds that a reverted baseline lifted are in force again; those that it placed end.
with back as (
  update hold set lifted_at = null, lifted_by = null
   where lifted_by = 'baseline:' || :baseline_id::bigint and location_id = :location_id
  returning sku_id, location_id
), ended as (
  update hold h set lifted_at = clock_timestamp(), lifted_by = 'revert:' || :baseline_id::bigint
    from baseline b
   where b.baseline_id = :baseline_id and h.location_id = b.location_id and h.version is null
     and h.source_id = b.source_id and h.placed_at = b.as_of and h.lifted_at is null
  returning h.sku_id, h.location_id
)
select sku_id, location_id from back union select sku_id, location_id from ended;

-- name: put_back
-- The snapshot before it is in force.
with undone as (
  update baseline set state = 'reverted' where baseline_id = :baseline_id returning previous_id, location_id, scope
), own as (
  update stock set baseline_id = null where baseline_id = :baseline_id
)
update location l set baseline_id = u.previous_id from undone u
 where l.location_id = u.location_id and u.scope = 'full';

-- name: keys_in_force
-- For each message: the snapshot in force of its key, whether that contains it, and the counts that came after it.
select n.k::int, f.baseline_id, f.as_of, f.applied_at,
       coalesce(is_contained(n.quantity, n.held, false, :source_id, n.sequence, n.occurred_at, null, null,
                             f.order_level, f.window_seconds, f.as_of, f.watermark, f.source_id, s.acknowledges),
                false) as is_in,
       st.counted_at,
       coalesce(h.codes, '{}') as reported_holds,
       case when s.quantity_kind = 'available' then s.deducted_holds else '{}' end as deducted_holds
  from unnest(:ks::int[], :skus::int[], :locations::int[], :quantities::int[], :held::int[], :sequences::bigint[],
              :occurred::timestamptz[]) as n(k, sku_id, location_id, quantity, held, sequence, occurred_at)
  left join stock st on st.sku_id = n.sku_id and st.location_id = n.location_id
  -- as `in_force` says of one key, for many at once
  join location l on l.location_id = n.location_id
  left join baseline own on own.baseline_id = st.baseline_id
  left join baseline full_one on full_one.baseline_id = l.baseline_id
  left join feed on feed.feed_id = full_one.feed_id
  left join baseline b on b.baseline_id =
    case when full_one.state = 'applying' and n.sku_id > feed.cursor_sku then full_one.previous_id
         else full_one.baseline_id end
  left join baseline f on f.baseline_id =
    case when st.is_pinned then st.baseline_id
         when own.as_of is not null and (b.as_of is null or own.as_of > b.as_of) then own.baseline_id
         else b.baseline_id end
  left join source s on s.source_id = f.source_id
  left join (select source_id, array_agg(distinct hold_code) as codes from status_map
              where means = 'hold' group by source_id) h on h.source_id = f.source_id;

-- name: counts_of
-- The counts of these keys, oldest first.
select p.sku_id, p.location_id, p.version, p.source_id, p.sequence, p.occurred_at, p.contained_in is null as is_open,
       m.recorded_at
  from posting p
  join unnest(:skus::int[], :locations::int[]) as n(sku_id, location_id) using (sku_id, location_id)
  join movement m using (sku_id, location_id, version)
 where p.kind = 'count' and m.absorbed_by is null
 order by p.occurred_at, p.version;

-- name: moved_after
-- Units that movements after a count have changed already, per key: the count does not see them.
select n.k::int, coalesce(sum(m.effect) filter (where m.kind <> 'baseline'), 0)::int as units
  from unnest(:ks::int[], :skus::int[], :locations::int[], :sequences::bigint[], :occurred::timestamptz[])
       as n(k, sku_id, location_id, sequence, occurred_at)
  left join posting p on p.sku_id = n.sku_id and p.location_id = n.location_id and p.kind <> 'count'
   and case when p.source_id = :source_id and p.sequence is not null and n.sequence is not null
            then p.sequence > n.sequence else p.occurred_at > n.occurred_at end
  left join movement m on m.sku_id = p.sku_id and m.location_id = p.location_id and m.version = p.version
 group by n.k;

-- name: correct_count
-- A movement from before a count came after it: the count's variance is that much smaller.
update posting p set quantity = p.quantity - n.quantity
  from (select sku_id, location_id, version, sum(quantity)::int as quantity
          from unnest(:skus::int[], :locations::int[], :versions::bigint[], :quantities::int[])
               as n(sku_id, location_id, version, quantity)
         group by sku_id, location_id, version) n
 where p.sku_id = n.sku_id and p.location_id = n.location_id and p.version = n.version;

-- name: acknowledge
-- A source says that it has posted these of our movements, at its moment and sequence; the first word stands.
update posting p
   set acked_sequence = coalesce(p.acked_sequence, n.sequence), acked_at = coalesce(p.acked_at, n.at)
  from unnest(:messages::text[], :sequences::bigint[], :at::timestamptz[]) as n(message_id, sequence, at)
  join movement m on m.source_id = 1 and m.message_id = n.message_id and m.kind <> 'baseline'
  join ownership o on o.location_id = m.location_id and o.fact = 'quantity' and o.source_id = :source_id
 where p.sku_id = m.sku_id and p.location_id = m.location_id and p.version = m.version
returning n.message_id, p.sku_id, p.location_id, p.version;

-- name: deduct
-- A source says that it has deducted these fulfillment lines at its step.
insert into deduction (reference, source_id, sku_id, location_id, quantity, acked_sequence, acked_at)
select l.reference, :source_id, l.sku_id, f.location_id,
       coalesce((select -p.quantity from post p where p.source_id = :source_id and p.reference = l.reference
                                                  and p.sku_id = l.sku_id and p.location_id = f.location_id), l.given),
       n.sequence, n.at
  from unnest(:messages::text[], :sequences::bigint[], :at::timestamptz[]) as n(reference, sequence, at)
  join fulfillment_line l on l.reference = n.reference
  join fulfillment f using (fulfillment_id)
 where f.state not in ('shipped', 'handed_over')
on conflict (reference) do update
  set acked_sequence = coalesce(deduction.acked_sequence, excluded.acked_sequence),
      acked_at = coalesce(deduction.acked_at, excluded.acked_at)
returning reference, sku_id, location_id;

-- name: undo_deductions
-- A source says that it has given these fulfillment lines back.
update deduction d
   set undone_sequence = coalesce(d.undone_sequence, n.sequence), undone_at = coalesce(d.undone_at, n.at)
  from unnest(:messages::text[], :sequences::bigint[], :at::timestamptz[]) as n(reference, sequence, at)
 where d.reference = n.reference
returning d.reference, d.sku_id, d.location_id;

-- name: late_acknowledgements
-- What the snapshot in force turns out to contain of ours (it was applied again over it), and deductions that turn out
-- to be in it (or not): the difference to what was believed, per key.
with keys as (
  select * from unnest(:skus::int[], :locations::int[]) as k(sku_id, location_id)
), force as (
  select k.*, b.baseline_id, b.feed_id, b.order_level, b.window_seconds, b.as_of, b.watermark, b.source_id,
         s.acknowledges, st.counted_at
    from keys k
    join baseline b on b.baseline_id = in_force(k.sku_id, k.location_id)
    join source s on s.source_id = b.source_id
    join stock st on st.sku_id = k.sku_id and st.location_id = k.location_id
), shipped as (
  select f.*, p.version, -p.quantity as effect
    from force f
    join posting p on p.sku_id = f.sku_id and p.location_id = f.location_id and p.contained_in is null and p.is_ours
   where is_contained(p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at, p.acked_sequence,
                      p.acked_at, f.order_level, f.window_seconds, f.as_of, f.watermark, f.source_id, f.acknowledges)
), marked as (
  update posting p set contained_in = s.baseline_id
    from shipped s where p.sku_id = s.sku_id and p.location_id = s.location_id and p.version = s.version
), held as (
  select f.*, d.reference, d.quantity,
         is_deducted(d, f.order_level, f.window_seconds, f.as_of, f.watermark, f.source_id, f.acknowledges) as is_in,
         d.counted_in is not distinct from f.baseline_id as was_in
    from force f
    join deduction d on d.sku_id = f.sku_id and d.location_id = f.location_id and not d.shipped
), counted as (
  update deduction d set counted_in = case when h.is_in then h.baseline_id end
    from held h where d.reference = h.reference and h.is_in <> h.was_in
), both_kinds as (
  select sku_id, location_id, baseline_id, feed_id, source_id, as_of, counted_at, effect from shipped
  union all
  select sku_id, location_id, baseline_id, feed_id, source_id, as_of, counted_at,
         case when is_in then quantity else -quantity end from held where is_in <> was_in
)
select sku_id, location_id, baseline_id, feed_id, source_id, as_of, counted_at, sum(effect)::int as effect
  from both_kinds group by sku_id, location_id, baseline_id, feed_id, source_id, as_of, counted_at
 order by sku_id, location_id;

-- name: hold_of_message
-- The holds that live with the movement of a message.
select h.hold_id, h.sku_id, h.location_id, h.code, h.quantity, h.version, h.source_id, h.placed_at
  from movement m
  join hold h on h.sku_id = m.sku_id and h.location_id = m.location_id and h.version = m.version and h.lifted_at is null
 where m.source_id = :source_id and m.message_id = :message_id and m.kind <> 'baseline';

-- name: baseline_moment
-- The moment that a snapshot speaks of.
select as_of from baseline where baseline_id = :baseline_id;

-- name: plan_for_chunks
-- A chunk is a range of skus in every table: its joins are by hash over ranges of an index, planned for what they meet
-- (a plan that was kept from when a table was empty scanned it whole for every chunk, and nested loops over parts without
-- statistics ran many times slower). Its commit keeps no row locked for the disk: a crash of the server takes the last
-- chunks back with their cursor, and who commits after a chunk, the end of the load too, has made it durable.
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_nestloop', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('synchronous_commit', 'off', true);

-- name: plan_for_lookups
-- Back to lookups by index.
select set_config('enable_nestloop', 'on', true), set_config('enable_seqscan', 'on', true);

-- name: touch_skus
-- What is told of these skus is looked at again.
insert into touched (sku_id) select n from unnest(:skus::int[]) as n order by n;

-- name: skus_behind
-- The next skus, in order, whose row has an older layout.
select sku_id from availability
 where layout_id < :layout_id and sku_id > :after order by sku_id limit :limit;

-- name: move_layout
-- Rows that are locked go over to a newer layout: supply summed anew by its segments, reserved by its pools.
with n as (
  select * from layout where layout_id = :layout_id
), units as (
  select s.sku_id, g.segment,
         least(sum(greatest(0, s.on_hand - s.held - s.allocated - s.safety_stock)), 2147483647)::int as units
    from stock s
    join location l on l.location_id = s.location_id and l.is_on
    join layout_location g on g.layout_id = :layout_id and g.location_id = s.location_id
   where s.sku_id = any(:skus::int[])
   group by s.sku_id, g.segment
), summed as (
  select k.sku_id, array_agg(coalesce(u.units, 0) order by g.segment) as supply
    from unnest(:skus::int[]) as k(sku_id)
    cross join n cross join generate_series(0, cardinality(n.segments) - 1) as g(segment)
    left join units u on u.sku_id = k.sku_id and u.segment = g.segment
   group by k.sku_id
), moved as (
  update availability v
     set version = v.version + 1, layout_id = n.layout_id,
         supply = coalesce((select x.supply from summed x where x.sku_id = v.sku_id), '{}'),
         reserved = coalesce((select array_agg(coalesce(v.reserved[array_position(o.pools, t.pool)], 0) order by t.k)
                                from unnest(n.pools) with ordinality as t(pool, k)), '{}')
    from n, layout o
   where v.sku_id = any(:skus::int[]) and o.layout_id = v.layout_id and v.layout_id < n.layout_id
  returning v.sku_id
)
insert into touched (sku_id) select sku_id from moved order by sku_id;

-- name: keys_of_location
-- The next skus with a stock row at a location.
select sku_id from stock where location_id = :location_id and sku_id > :after order by sku_id limit :limit;

-- name: lock_location
-- How far the stock of a location follows its rules; locked until this chunk is written.
select rewrite_after from location where location_id = :location_id for no key update;

-- name: follow_location
-- Stock rows take over what is kept back at their location, by its rules.
update stock s set safety_stock = safety_of(s.sku_id, l.location_id, l.safety_stock)
  from location l
 where (:location_id::int is null or l.location_id = :location_id) and s.location_id = l.location_id
   and s.sku_id = any(:skus::int[]) and s.safety_stock <> safety_of(s.sku_id, l.location_id, l.safety_stock);

-- name: follow_upto
-- The chunk is done; null when it was the last.
update location set rewrite_after = :upto where location_id = :location_id;
