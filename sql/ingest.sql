-- name: source_by_code
-- A source with what its feeds promise.
select source_id, code, kind, quantity_kind, order_level, window_seconds, absent_is_zero, sums_rows, gates, folder,
       stale_after_seconds, acknowledges
  from source where code = :code;

-- name: source_ids
-- Source ids by code.
select code, source_id from source where code = any(:codes::text[]);

-- name: begin_feed
-- A feed that starts to arrive.
insert into feed (source_id, kind, name, scope, as_of, watermark, state, dry_run, received_by)
values (:source_id, :kind, :name, :scope, :as_of, :watermark, :state, :dry_run, :who)
returning feed_id;

-- name: open_feed
-- The tables that hold its rows while it is loaded.
select open_feed(:feed_id);

-- name: join_feed
-- All rows have come: they are seen with those of other feeds.
select join_feed(:feed_id);

-- name: close_feed
-- Drops the rows of a feed that is done.
select close_feed(:feed_id);

-- name: same_feed
-- The same delivery taken before: same source, bytes, as-of and scope.
select feed_id from feed
 where source_id = :source_id and kind = 'baseline' and sha256 = :sha256 and as_of = :as_of and scope = :scope
   and state not in ('refused', 'staging', 'shown') and feed_id <> :feed_id
 limit 1;

-- name: refuse_feed
-- The whole feed is refused, with the reason.
update feed set state = 'refused', refused_why = :why, finished_at = clock_timestamp(), rows = :rows, sha256 = :sha256
 where feed_id = :feed_id;

-- name: refuse_rows
-- Rows that are refused: line, field, reason.
insert into feed_refusal (feed_id, line, field, reason, value)
select :feed_id, n.line, n.field, n.reason, n.value
  from unnest(:lines::bigint[], :fields::text[], :reasons::text[], :values::text[]) as n(line, field, reason, value)
on conflict do nothing;

-- name: analyze_rows
-- Statistics of the staged text, so that the joins below are planned for its size.
select analyze_feed(:feed_id);

-- name: resolve_rows
-- Sums the good rows by sku and location, in sku order; gives how many rows were good, and how many keys have units
-- under holds or more than a key may have.
with kept as (
  insert into feed_key (feed_id, sku_id, location_id, quantity, held, rows)
  select :feed_id, sku_id, location_id, least(sum(units), 1000000000)::int,
         jsonb_object_agg(hold_code, units) filter (where hold_code is not null), count(*)
    from read_rows(:feed_id, :source_id)
   where reason is null and means in ('on_hand', 'hold')
   group by sku_id, location_id order by sku_id, location_id
  returning rows, quantity, held is not null as holds
)
select coalesce(sum(rows), 0)::bigint as good, count(*) filter (where holds)::bigint as held_keys,
       count(*) filter (where rows > 1 and quantity = 1000000000)::bigint as full_keys from kept;

-- name: beside_rows
-- Good rows that are neither on hand nor held: incoming and ignored.
select count(*) from read_rows(:feed_id, :source_id) where reason is null and means in ('incoming', 'ignored');

-- name: plan_for_staging
-- Sorts in memory and joins by hash, for this transaction: the feed just came and its parts have no statistics.
select set_config('work_mem', '64MB', true), set_config('enable_nestloop', 'off', true);

-- name: index_keys
-- The staged keys in sku order.
select index_feed(:feed_id);

-- name: refuse_bad_rows
-- The rows that cannot be taken, each with its field and reason. A negative row's key shows 0; a key that another bad
-- row names keeps what we believed, but where rows are summed, one of an unknown status leaves the others to stand.
with read as materialized (
  select line, field, reason, value, sku_id, location_id from read_rows(:feed_id, :source_id) where reason is not null
), bad as (
  insert into feed_refusal (feed_id, line, field, reason, value)
  select :feed_id, line, field, reason, value from read
  on conflict do nothing
  returning line
), keys as (
  select sku_id, location_id, bool_or(reason like 'negative%') as is_negative,
         bool_or(field <> 'status' or not :sums_rows::boolean) as is_unsure
    from read where sku_id is not null and location_id is not null
   group by sku_id, location_id
), corrected as (
  update feed_key k set untouched = not n.is_negative, quantity = case when n.is_negative then 0 else k.quantity end,
         held = case when not n.is_negative then k.held end
    from keys n
   where k.feed_id = :feed_id and k.sku_id = n.sku_id and k.location_id = n.location_id
     and (n.is_negative or n.is_unsure)
  returning k.sku_id
), keyed as (
  insert into feed_key (feed_id, sku_id, location_id, quantity, rows, untouched)
  select :feed_id, sku_id, location_id, 0, 1, not is_negative
    from keys n
   where not exists (select from feed_key k
                      where k.feed_id = :feed_id and k.sku_id = n.sku_id and k.location_id = n.location_id)
   order by sku_id, location_id
)
select count(*) from bad;

-- name: refuse_doubled_keys
-- Keys that stand on several rows where the source's layout does not sum rows: none of them is believed.
with doubled as (
  select k.sku_id, k.location_id from feed_key k where k.feed_id = :feed_id and k.rows > 1
), rows as (
  select r.line, r.sku_id, r.location_id, r.sku, r.location, r.status, r.bin, r.lot,
         count(*) over same as times, min(r.line) over same as first_line
    from read_rows(:feed_id, :source_id) r join doubled d using (sku_id, location_id)
   where r.reason is null
  window same as (partition by r.sku, r.location, coalesce(r.status, ''),
                  case when :sums_rows::boolean then coalesce(r.bin, '') || chr(9) || coalesce(r.lot, '') else '' end)
), refused as (
  insert into feed_refusal (feed_id, line, field, reason, value)
  select :feed_id, line, 'sku',
         'doubled key: sku ' || sku || ' at ' || location || ' stands on ' || times || ' rows, first on line ' || first_line,
         sku
    from rows where times > 1
  on conflict do nothing
  returning line
), untouched as (
  update feed_key k set untouched = true
    from (select distinct sku_id, location_id from rows where times > 1) d
   where k.feed_id = :feed_id and k.sku_id = d.sku_id and k.location_id = d.location_id
)
select count(*) from refused;

-- name: refuse_overflow
-- Keys whose rows sum to more than a key may have: none of them is believed.
with full_key as (
  select k.sku_id, k.location_id from feed_key k
   where k.feed_id = :feed_id and k.rows > 1 and k.quantity = 1000000000 and not k.untouched
), rows as (
  select r.line, r.sku_id, r.location_id, r.sku, r.location,
         sum(r.units) over (partition by r.sku_id, r.location_id) as units
    from read_rows(:feed_id, :source_id) r join full_key using (sku_id, location_id)
   where r.reason is null and r.means in ('on_hand', 'hold')
), refused as (
  insert into feed_refusal (feed_id, line, field, reason, value)
  select :feed_id, line, 'quantity',
         'the rows of sku ' || sku || ' at ' || location || ' sum to more than 1,000,000,000 units', units::text
    from rows where units > 1000000000
  on conflict do nothing
  returning line
), untouched as (
  update feed_key k set untouched = true
    from (select distinct sku_id, location_id from rows where units > 1000000000) d
   where k.feed_id = :feed_id and k.sku_id = d.sku_id and k.location_id = d.location_id
)
select count(*) from refused;

-- name: keep_unread_keys
-- The keys of rows that could not be read, where they name one: what we believe of them stays.
with said as (
  select distinct coalesce(sa.sku_id, sk.sku_id) as sku_id, coalesce(la.location_id, lo.location_id) as location_id
    from unnest(:skus::text[], :locations::text[]) as n(sku, location)
    left join sku_alias sa on sa.source_id = :source_id and sa.code = n.sku
    left join sku sk on sa.sku_id is null and sk.code = n.sku
    left join location_alias la on la.source_id = :source_id and la.code = n.location
    left join location lo on la.location_id is null and lo.code = n.location
), known as (
  select sku_id, location_id from said where sku_id is not null and location_id is not null
), standing as (
  update feed_key k set untouched = true
    from known n where k.feed_id = :feed_id and k.sku_id = n.sku_id and k.location_id = n.location_id
)
insert into feed_key (feed_id, sku_id, location_id, quantity, rows, untouched)
select :feed_id, sku_id, location_id, 0, 1, true from known n
 where not exists (select from feed_key k
                    where k.feed_id = :feed_id and k.sku_id = n.sku_id and k.location_id = n.location_id)
 order by sku_id, location_id;

-- name: keep_absent
-- Parts of which a row that could not be read may name any key (all parts, where it may name any location).
update baseline b set keeps_absent = true
  from location l
 where b.feed_id = :feed_id and b.scope = 'full' and l.location_id = b.location_id
   and (:everywhere::boolean
        or l.location_id in (select coalesce(la.location_id, lo.location_id)
                               from unnest(:locations::text[]) as n(location)
                               left join location_alias la on la.source_id = :source_id and la.code = n.location
                               left join location lo on la.location_id is null and lo.code = n.location))
returning l.code;

-- name: sum_holds
-- Held units by code of keys that have several rows.
update feed_key k set held = h.held
  from (select sku_id, location_id, jsonb_object_agg(hold_code, units) as held
          from (select sku_id, location_id, hold_code, sum(units) as units
                  from read_rows(:feed_id, :source_id)
                 where reason is null and means = 'hold'
                 group by sku_id, location_id, hold_code) c
         group by sku_id, location_id) h
 where k.feed_id = :feed_id and k.sku_id = h.sku_id and k.location_id = h.location_id and k.rows > 1;

-- name: drop_incoming
-- What an earlier snapshot expected, of locations (a full feed's) or keys (a partial one's) that this one speaks of.
delete from incoming i using baseline p
 where p.feed_id = :feed_id and p.state = 'staged' and i.source_id = :source_id and i.reference = 'feed'
   and i.location_id = p.location_id
   and (p.scope = 'full' or exists (select from feed_key k where k.feed_id = :feed_id and k.sku_id = i.sku_id
                                       and k.location_id = i.location_id));

-- name: take_incoming
-- Rows whose status says that they are on their way are expected receipts.
insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)
select :source_id, 'feed', r.sku_id, r.location_id, 'purchase', least(sum(r.units), 1000000000)::int, (:as_of::timestamptz)::date + 1
  from read_rows(:feed_id, :source_id) r
  join baseline p on p.feed_id = :feed_id and p.location_id = r.location_id and p.state = 'staged'
 where r.reason is null and r.means = 'incoming'
 group by r.sku_id, r.location_id
on conflict (source_id, reference, sku_id, location_id)
do update set quantity = excluded.quantity, due_on = excluded.due_on;

-- name: keep_bins
-- Rows by bin and lot are kept for looking.
insert into bin_stock (location_id, sku_id, bin, lot, status, quantity, feed_id)
select location_id, sku_id, coalesce(bin, ''), coalesce(lot, ''), coalesce(status, ''), least(sum(units), 1000000000)::int, :feed_id
  from read_rows(:feed_id, :source_id) join baseline p using (location_id)
 where reason is null and (bin is not null or lot is not null) and p.feed_id = :feed_id and p.state = 'staged'
 group by location_id, sku_id, coalesce(bin, ''), coalesce(lot, ''), coalesce(status, '')
on conflict (location_id, sku_id, bin, lot, status) do update set quantity = excluded.quantity, feed_id = excluded.feed_id;

-- name: drop_old_bins
-- Bins that this full feed no longer names.
delete from bin_stock b using baseline p
 where p.feed_id = :feed_id and p.location_id = b.location_id and p.scope = 'full' and p.state = 'staged'
   and b.feed_id < :feed_id;

-- name: make_parts
-- One part per location of which the feed has a row that can be believed and whose quantities its source owns; older
-- than what is in force is superseded.
insert into baseline (feed_id, location_id, source_id, scope, as_of, order_level, window_seconds, watermark, state,
                      previous_id)
select f.feed_id, l.location_id, f.source_id, f.scope, f.as_of, s.order_level, s.window_seconds, f.watermark,
       case when b.as_of >= f.as_of then 'superseded' else 'staged' end, l.baseline_id
  from (select distinct location_id from feed_key where feed_id = :feed_id and not untouched) named
  join location l using (location_id)
  join feed f on f.feed_id = :feed_id
  join source s on s.source_id = f.source_id
  left join baseline b on b.baseline_id = l.baseline_id
 order by l.location_id;

-- name: not_owned
-- Locations of the feed whose quantities another source owns: kept for review, never applied by themselves.
select l.code, coalesce(o.code, '') as owner, l.location_id
  from (select distinct location_id from feed_key where feed_id = :feed_id) k
  join location l using (location_id)
  left join ownership w on w.location_id = l.location_id and w.fact = 'quantity'
  left join source o on o.source_id = w.source_id
 where w.source_id is distinct from :source_id
 order by l.code;

-- name: leave_locations
-- Takes locations out of the staged feed.
delete from feed_key where feed_id = :feed_id and location_id = any(:locations::int[]);

-- name: add_absent
-- Keys that a full feed leaves out: zero where the source's contract says so and every row could be read, else they
-- keep what they had.
insert into feed_key (feed_id, sku_id, location_id, quantity, rows, untouched)
select :feed_id, s.sku_id, s.location_id, 0, 0, p.keeps_absent or not :absent_is_zero::boolean
  from stock s
  join baseline p on p.feed_id = :feed_id and p.location_id = s.location_id and p.scope = 'full' and p.state = 'staged'
 where not exists (select from feed_key k
                    where k.feed_id = :feed_id and k.sku_id = s.sku_id and k.location_id = s.location_id);

-- name: weigh
-- What each part says against what is in force, for the gates.
with said as (
  select k.location_id,
         count(*) filter (where s.on_hand > 0) as keys_before,
         coalesce(sum(s.on_hand) filter (where s.on_hand > 0), 0) as units_before,
         count(*) filter (where k.rows > 0) as keys,
         sum(case when k.untouched then greatest(s.on_hand, 0) else k.quantity end) as units,
         count(*) filter (where k.rows > 0 and s.on_hand > 0) as present,
         count(*) filter (where k.quantity = 0 and not k.untouched and s.on_hand > 0) as to_zero,
         count(*) filter (where k.rows = 0 and s.on_hand <> 0) as absent
    from feed_key k left join stock s on s.sku_id = k.sku_id and s.location_id = k.location_id
   where k.feed_id = :feed_id group by k.location_id
)
select p.baseline_id, l.code, p.previous_id is null as is_first, s.keys_before, s.units_before::bigint,
       s.keys, coalesce(s.units, 0)::bigint as units, s.present, s.to_zero, s.absent,
       coalesce(u.rows, 0)::bigint as unknown_skus
  from baseline p join location l using (location_id)
  join said s using (location_id)
  left join unnest(:unknown_locations::int[], :unknown_rows::bigint[]) as u(location_id, rows) using (location_id)
 where p.feed_id = :feed_id and p.state = 'staged'
 order by l.code;

-- name: unknown_by_location
-- Rows of unknown skus, by the location that they name.
select r.location_id, count(*)::bigint as rows
  from read_rows(:feed_id, :source_id) r
 where r.reason is not null and r.sku_id is null and r.location_id is not null
 group by r.location_id;

-- name: decide_parts
-- What the gates said of each part.
update baseline b set state = n.state, numbers = n.numbers
  from unnest(:baselines::bigint[], :states::text[], :numbers::jsonb[]) as n(baseline_id, state, numbers)
 where b.baseline_id = n.baseline_id;

-- name: staged
-- The feed is complete and durable.
update feed set state = :state, sha256 = :sha256, rows = :rows, refused_rows = :refused, totals = :totals,
       finished_at = case when :state in ('superseded', 'shown') then clock_timestamp() end
 where feed_id = :feed_id;

-- name: lock_parts
-- The locations of a feed's parts: two feeds that speak of the same one begin one after the other.
select l.location_id from location l
 where l.location_id in (select location_id from baseline where feed_id = :feed_id and state in ('staged', 'applying'))
 order by l.location_id for no key update;

-- name: begin_apply
-- Its staged parts are in force from here on, key by key as the cursor passes; a part that a newer snapshot overtook
-- while it waited is superseded, and so is an older one that was not done.
with mine as (
  select b.baseline_id, b.location_id, b.scope, b.as_of, b.state, f.baseline_id as force_id,
         f.baseline_id is not null and f.baseline_id <> b.baseline_id and f.as_of >= b.as_of as is_overtaken
    from baseline b join location l using (location_id) left join baseline f on f.baseline_id = l.baseline_id
   where b.feed_id = :feed_id and b.state in ('staged', 'applying')
), begun as (
  update baseline b set state = 'applying', previous_id = m.force_id
    from mine m where b.baseline_id = m.baseline_id and m.state = 'staged' and not m.is_overtaken
  returning b.baseline_id, b.location_id, b.scope
), ended as (
  update baseline b set state = 'superseded'
    from mine m
   where (b.baseline_id = m.baseline_id and m.is_overtaken)
      or (b.location_id = m.location_id and b.state = 'applying' and b.feed_id <> :feed_id and b.as_of <= m.as_of
          and m.scope = 'full' and m.state = 'staged' and not m.is_overtaken)
), first as (
  update location l set baseline_id = b.baseline_id from begun b where b.location_id = l.location_id and b.scope = 'full'
), feed_now as (
  update feed set state = 'applying', cursor_sku = case when exists (select from begun) then 0 else cursor_sku end
   where feed_id = :feed_id
)
select count(*) from begun;

-- name: pin_untouched
-- Keys that a full feed left out or got wrong keep the snapshot that they had. They are few, and read first by
-- themselves: the feed has no statistics yet, and a join over all its keys took a quarter of a load.
with u as materialized (
  select sku_id, location_id from feed_key where feed_id = :feed_id and untouched
), k as materialized (  -- locked in order, as everybody does
  select s.sku_id, s.location_id from stock s join u using (sku_id, location_id)
   order by s.sku_id, s.location_id for update of s
)
update stock s set is_pinned = true, baseline_id = coalesce(s.baseline_id, b.previous_id)
  from k join baseline b on b.feed_id = :feed_id and b.location_id = k.location_id
 where b.state = 'applying' and b.scope = 'full'
   and s.sku_id = k.sku_id and s.location_id = k.location_id and not s.is_pinned
   -- a newer one of its own needs no pin, and with it would no longer stand against older ones
   and not exists (select from baseline own where own.baseline_id = s.baseline_id and own.as_of >= b.as_of);

-- name: pin_missing
-- Keys of refused rows that have no stock row get one, so that the snapshot is not taken to have said 0 of them.
insert into stock (sku_id, location_id, safety_stock, is_pinned, baseline_id)
select k.sku_id, k.location_id, safety_of(k.sku_id, k.location_id, l.safety_stock), true,
       case when s.absent_is_zero and not p.keeps_absent then p.baseline_id end
  from feed_key k
  join baseline b on b.feed_id = :feed_id and b.location_id = k.location_id and b.state = 'applying' and b.scope = 'full'
  join location l on l.location_id = k.location_id
  left join baseline p on p.baseline_id = b.previous_id
  left join source s on s.source_id = p.source_id
 where k.feed_id = :feed_id and k.untouched
   and not exists (select from stock x where x.sku_id = k.sku_id and x.location_id = k.location_id)
 order by k.sku_id, k.location_id
on conflict do nothing;

-- name: finish_apply
-- All chunks are done.
with done as (
  update baseline set state = 'applied', applied_at = clock_timestamp()
   where feed_id = :feed_id and state = 'applying'
  returning location_id
)
update feed set state = case when exists (select from baseline where feed_id = :feed_id and state = 'staged')
                             then 'staged' else 'applied' end,
       finished_at = clock_timestamp()
 where feed_id = :feed_id
returning (select count(*) from done)::int as parts,
  (select count(*) from baseline where feed_id = :feed_id and state in ('staged', 'parked'))::int as waiting;

-- name: count_chunk
-- What the feed has changed so far, chunk by chunk, so that a resumed load tells the whole.
update feed set totals = totals || jsonb_build_object(
         'applied_keys', coalesce((totals ->> 'applied_keys')::bigint, 0) + :keys::bigint,
         'changed', coalesce((totals ->> 'changed')::bigint, 0) + :changed::bigint,
         'negative', coalesce((totals ->> 'negative')::bigint, 0) + :negative::bigint,
         'variance_units', coalesce((totals ->> 'variance_units')::bigint, 0) + :variance_units::bigint)
 where feed_id = :feed_id;

-- name: unfinished_feeds
-- Feeds whose chunks are not all applied: a killed load goes on here.
select f.feed_id, s.code as source from feed f join source s using (source_id)
 where f.kind = 'baseline' and f.state in ('staged', 'applying') and not f.dry_run order by f.feed_id;

-- name: hold_feed
-- Whoever receives a delivery holds this until it is staged: the lock ends with its connection.
select pg_advisory_lock(feed_lock(:feed_id));

-- name: let_feed_go
-- The delivery is staged, or refused.
select pg_advisory_unlock(feed_lock(:feed_id));

-- name: abandoned_feeds
-- Deliveries that were cut off before they were complete: nothing of them was acknowledged, and nobody receives them.
with staging as materialized (
  select feed_id from feed
   where kind = 'baseline' and state = 'staging' and source_id = :source_id and feed_id <> :feed_id
)
select feed_id from staging where pg_try_advisory_xact_lock(feed_lock(feed_id));

-- name: one_of_a_kind
-- The same bytes of a source that come twice at once are looked at one after the other.
select pg_advisory_xact_lock(hashtextextended(:sha256, :source_id));

-- name: difference
-- What a feed would change, largest first.
select s.code as sku, l.code as location, r.was, r.becomes
  from rebased(:feed_id, 0, 2147483647, '{staged}') r
  join sku s using (sku_id) join location l using (location_id)
 where r.was <> r.becomes
 order by abs(r.becomes - r.was) desc, s.code, l.code
 limit :limit;

-- name: difference_totals
-- How many keys a feed would change, and by how many units.
select count(*)::bigint as keys, count(*) filter (where was <> becomes)::bigint as changed,
       coalesce(sum(greatest(becomes - was, 0)), 0)::bigint as units_up,
       coalesce(sum(greatest(was - becomes, 0)), 0)::bigint as units_down
  from rebased(:feed_id, 0, 2147483647, '{staged}');

-- name: feed_parts
-- How many parts of a feed are in each state.
select state, count(*)::int from baseline where feed_id = :feed_id group by state order by state;

-- name: feed_keys
-- How many keys of the feed are to be applied.
select count(*)::bigint from feed_key where feed_id = :feed_id and not untouched;

-- name: feed_to_apply
-- The source of a feed that waits to be applied.
select s.code from feed f join source s using (source_id)
 where f.feed_id = :feed_id and f.state in ('staged', 'applying', 'applied') for update of f;

-- name: feed_cursor_now
-- How far the chunks are; the row's lock keeps two processes from applying the same feed at once.
select cursor_sku from feed where feed_id = :feed_id for update;

-- name: part
-- A part of a feed, and whether it is in force.
select b.baseline_id, b.feed_id, b.location_id, l.code as location, s.code as source, b.source_id, b.scope, b.state, b.as_of,
       b.previous_id, l.baseline_id is not distinct from b.baseline_id as in_force, b.numbers
  from baseline b join location l using (location_id) join source s on s.source_id = b.source_id
 where b.baseline_id = :baseline_id
   for update of b;

-- name: release_part
-- A parked part may be applied: its feed is found again by whoever takes up what is unfinished.
with released as (
  update baseline set state = 'staged' where baseline_id = :baseline_id and state = 'parked' returning feed_id
)
update feed f set state = 'staged' from released r where f.feed_id = r.feed_id and f.state = 'applied';

-- name: dismiss_part
-- A parked part is given up.
update baseline set state = 'dismissed' where baseline_id = :baseline_id and state = 'parked';

-- name: end_movements
-- A file of movements is read to its end.
update feed set state = 'applied', rows = :rows, refused_rows = :refused, sha256 = :sha256, totals = :totals,
       finished_at = clock_timestamp()
 where feed_id = :feed_id;
