-- name: write_history
-- Keeps steps, in the caller's transaction.
insert into history (who, kind, id, step, why, detail)
select :who, n.kind, n.id, n.step, n.why, n.detail
  from unnest(:kinds::text[], :ids::text[], :steps::text[], :whys::text[], :details::jsonb[])
       as n(kind, id, step, why, detail);

-- name: open_exceptions
-- Opens one exception per kind and subject, or counts it again; a new one is announced to every listener.
with given as (
  select distinct on (n.kind, n.subject) n.*
    from unnest(:kinds::text[], :subjects::text[], :details::text[], :payloads::jsonb[], :owners::text[],
                :due_hours::int[]) as n(kind, subject, detail, payload, owner, due_hours)
), opened as (
  insert into exception as e (kind, subject, detail, payload, owner, due_at)
  select kind, subject, detail, payload, owner, clock_timestamp() + make_interval(hours => due_hours) from given
   order by kind, subject
  on conflict (kind, subject) where state = 'open'
  do update set count = e.count + 1, detail = excluded.detail, payload = excluded.payload
  returning exception_id, kind, subject, count
), told as (
  insert into announcement (listener_id, exception_id, step)
  select listener_id, exception_id, 'opened' from opened, listener where is_on and opened.count = 1
  on conflict do nothing
)
select kind, subject, exception_id from opened;

-- name: resolve_exceptions
-- Closes open exceptions by kind and subject, and announces it; those that are not open are left.
with closed as (
  update exception e
     set state = 'resolved', resolved_at = clock_timestamp(), resolved_by = :who, resolution = :resolution
    from unnest(:kinds::text[], :subjects::text[]) as n(kind, subject)
   where e.kind = n.kind and e.subject = n.subject and e.state = 'open'
  returning exception_id
), told as (
  insert into announcement (listener_id, exception_id, step)
  select listener_id, exception_id, 'resolved' from closed, listener where is_on
  on conflict do nothing
)
select exception_id from closed;

-- name: history_of
-- The steps of one object, oldest first.
select history_id, at, who, step, why, detail
  from history where kind = :kind and id = :id and history_id > :after
 order by history_id limit :limit;

-- name: end_approvals
-- A request that expired, or that asked for something else, no longer waits.
delete from approval
 where act = :act and subject = :subject and approved_by is null
   and (expires_at <= clock_timestamp() or payload_hash <> :payload_hash);

-- name: agree
-- A second person's yes closes what another asked for, bound to the same payload; a first yes asks.
with agreed as (
  update approval set approved_by = :who, approved_at = clock_timestamp()
   where act = :act and subject = :subject and payload_hash = :payload_hash and approved_by is null
     and requested_by <> :who and expires_at > clock_timestamp()
  returning approval_id
), asked as (
  insert into approval (act, subject, payload_hash, requested_by, expires_at)
  select :act, :subject, :payload_hash, :who, clock_timestamp() + make_interval(hours => :hours)
   where not exists (select from agreed)
     and not exists (select from approval where act = :act and subject = :subject and approved_by is null
                        and payload_hash = :payload_hash and expires_at > clock_timestamp())
  returning approval_id
)
select exists (select from agreed);
