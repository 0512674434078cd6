-- name: stored_answers
-- What was answered under these keys already; status 0 while another kind of request is under way.
select i.key_id, i.key, i.hash, i.status, i.body
  from idempotency i join unnest(:key_ids::int[], :keys::text[]) as n(key_id, key) using (key_id, key);

-- name: store_answers
-- Keeps grants and refusals alike under the callers' keys; those that another process kept first are left out.
insert into idempotency (key_id, key, hash, status, body)
select * from unnest(:key_ids::int[], :keys::text[], :hashes::bytea[], :statuses::int[], :bodies::bytea[]) order by 1, 2
on conflict do nothing;

-- name: known_grants
-- Those of these reservations that were made already.
select reservation_id, expires_at from reservation where reservation_id = any(:ids::uuid[]);

-- name: grant
-- Makes reservations, by the database's clock; one that another process made is left out.
with made as (
  insert into reservation (reservation_id, channel_id, pool_id, location_id, expires_at)
  select n.id, n.channel_id, n.pool_id, n.location_id, clock_timestamp() + make_interval(secs => n.ttl)
    from unnest(:ids::uuid[], :channels::int[], :pools::int[], :locations::int[], :ttls::int[])
         as n(id, channel_id, pool_id, location_id, ttl)
   order by n.id
  on conflict do nothing
  returning reservation_id, expires_at
), lines as (
  insert into reservation_line (reservation_id, sku_id, quantity, atp_after)
  select * from unnest(:line_ids::uuid[], :skus::int[], :quantities::int[], :afters::int[])
  on conflict do nothing
)
select reservation_id, expires_at from made;

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
