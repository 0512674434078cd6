-- name: before
-- What a batch must know at first: the moment, the version of the rules, whether some of it was answered before, and
-- whether reservations are due at all.
select clock_timestamp() as now, (select version from rulebook) as rules,
       -- counted: where one would do, the planner reads the whole table for it
       (select count(*) from idempotency i join unnest(:key_ids::int[], :keys::text[]) as n(key_id, key)
         using (key_id, key)) + (select count(*) from reservation where reservation_id = any(:ids::uuid[])) as known,
       coalesce((select min(expires_at) from reservation where state = 'live') <= clock_timestamp(), false) as is_due;

-- name: stored_answers
-- What was answered under these keys already; status 0 while another kind of request is under way.
select i.key_id, i.key, i.hash, i.status, i.body
  from idempotency i join unnest(:key_ids::int[], :keys::text[]) as n(key_id, key) using (key_id, key);

-- name: known_grants
-- Those of these reservations that were made already.
select reservation_id, expires_at from reservation where reservation_id = any(:ids::uuid[]);

-- name: settle
-- Makes reservations, and keeps grants and refusals alike under the callers' keys. How many of each: those that another
-- process made first are left out.
with kept as (
  insert into idempotency (key_id, key, hash, status, body)
  select * from unnest(:key_ids::int[], :keys::text[], :hashes::bytea[], :statuses::int[], :bodies::bytea[]) order by 1, 2
  on conflict do nothing
  returning 1
), made as (
  insert into reservation (reservation_id, channel_id, pool_id, location_id, expires_at)
  select n.id, n.channel_id, n.pool_id, n.location_id, n.expires_at
    from unnest(:ids::uuid[], :channels::int[], :pools::int[], :locations::int[], :ends::timestamptz[])
         as n(id, channel_id, pool_id, location_id, expires_at)
   order by n.id
  on conflict do nothing
  returning 1
), lines as (
  insert into reservation_line (reservation_id, sku_id, quantity, atp_after)
  select * from unnest(:line_ids::uuid[], :skus::int[], :quantities::int[], :afters::int[])
  on conflict do nothing
)
select (select count(*) from kept) as kept, (select count(*) from made) as made;

-- name: take_due_on
-- Takes live reservations on these skus whose time is over; one that is being claimed is left to its claimer.
select r.reservation_id from reservation r
 where r.state = 'live' and r.expires_at <= (select clock_timestamp())
   and exists (select from reservation_line l where l.reservation_id = r.reservation_id and l.sku_id = any(:skus::int[]))
 order by r.expires_at limit :limit for update skip locked;

-- name: take_due
-- Takes live reservations whose time is over, oldest first.
select reservation_id from reservation
 where state = 'live' and expires_at <= (select clock_timestamp())
 order by expires_at limit :limit for update skip locked;

-- name: take_live
-- Takes one reservation of these channels (null: of any) if it is live.
select reservation_id from reservation
 where reservation_id = :id and state = 'live' and (:channels::int[] is null or channel_id = any(:channels::int[])) for update;

-- name: lines_of
-- The units of reservations that are taken.
select r.reservation_id, r.channel_id, r.pool_id, r.location_id, l.sku_id, l.quantity
  from reservation r join reservation_line l using (reservation_id)
 where r.reservation_id = any(:ids::uuid[])
 order by r.reservation_id, l.sku_id;

-- name: end_all
-- Live reservations that are taken end so.
update reservation set state = :state, ended_at = clock_timestamp()
 where reservation_id = any(:ids::uuid[]) and state = 'live';

-- name: extend
-- A live reservation lasts this much longer from now; its units were never free, so nothing is decided.
update reservation set expires_at = greatest(expires_at, clock_timestamp() + make_interval(secs => :ttl))
 where reservation_id = :id and state = 'live' and (:channels::int[] is null or channel_id = any(:channels::int[]))
returning expires_at;
