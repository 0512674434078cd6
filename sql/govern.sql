-- name: exceptions
-- Exceptions of a state, newest first, of those that the caller may see: all, or those of its location, channel or
-- source.
select e.exception_id as id, e.kind, e.subject, e.detail, e.payload, e.owner, e.state, e.count, e.opened_at, e.due_at,
       e.escalated_at, e.resolved_at, e.resolved_by, e.resolution
  from exception e
 where (:state::text is null or e.state = :state) and (:kind::text is null or e.kind = :kind)
   and (:before::uuid is null or e.exception_id < :before)
   and (:exception_id::uuid is null or e.exception_id = :exception_id)
   and (:location_id::int is null or e.payload ->> 'location' in (
         select code from location where location_id = :location_id
         union all
         select a.code from location_alias a join source s using (source_id)
          where a.location_id = :location_id and s.code = split_part(e.subject, ':', 1)))
   and (:channel_id::int is null or e.payload ->> 'channel' = (select code from channel where channel_id = :channel_id))
   and (:source_id::int is null or coalesce(e.payload ->> 'source', split_part(e.subject, ':', 1))
         = (select code from source where source_id = :source_id))
 order by e.exception_id desc limit :limit;

-- name: resolve
-- Closes an open exception and announces it; null when it is not open.
with closed as (
  update exception
     set state = 'resolved', resolved_at = clock_timestamp(), resolved_by = :who, resolution = :resolution
   where exception_id = :exception_id and state = 'open'
  returning exception_id
), told as (
  insert into announcement (listener_id, exception_id, step)
  select listener_id, exception_id, 'resolved' from closed, listener where is_on
  on conflict do nothing
)
select exception_id from closed;

-- name: escalate
-- Open exceptions past their due time become the admins', once, and are announced again.
with late as (
  select exception_id from exception
   where state = 'open' and escalated_at is null and due_at <= :now
   order by due_at limit :limit for update skip locked
), moved as (
  update exception e set escalated_at = :now, owner = 'admin' from late where e.exception_id = late.exception_id
  returning e.exception_id, old.owner as was
), told as (
  insert into announcement (listener_id, exception_id, step)
  select listener_id, exception_id, 'escalated' from moved, listener where is_on
  on conflict do nothing
)
select exception_id, was from moved;

-- name: take_announcements
-- Announcements that are due, leased; each take counts as an attempt and is the fence of what follows.
with due as (
  select announcement_id from announcement
   where state = 'due' and not_before <= :now and (leased_until is null or leased_until <= :now)
   order by not_before limit :limit for update skip locked
), taken as (
  update announcement a set attempts = a.attempts + 1, leased_until = :now + make_interval(secs => :lease_seconds)
    from due where a.announcement_id = due.announcement_id
  returning a.announcement_id, a.listener_id, a.exception_id, a.step, a.attempts
)
select t.announcement_id, t.step, t.attempts, uuid_extract_timestamp(t.announcement_id) as made_at,
       i.url, i.secrets, i.is_on, e.exception_id, e.kind, e.subject, e.detail, e.owner, e.state, e.count, e.opened_at,
       e.due_at
  from taken t join listener i using (listener_id) join exception e using (exception_id)
 order by t.announcement_id;

-- name: settle_announcement
-- What came of an attempt, if no later attempt was begun.
update announcement
   set state = :state, answer = :answer, not_before = :not_before, leased_until = null
 where announcement_id = :announcement_id and attempts = :attempts and state = 'due';

-- name: forget_answers
-- Answers under idempotency keys that nobody will repeat any more.
delete from idempotency where recorded_at < :before;

-- name: reviewed
-- The message that an exception keeps for review, in our words, locked; what cannot be resolved is null.
select m.source_id, m.message_id, m.payload, k.sku_id, l.location_id,
       case when m.payload ->> 'uom' is null or m.payload ->> 'uom' in ('each', 'EA', 'ea') then 1
            else u.quantity end as per,
       coalesce((select i.is_kit from sku i where i.sku_id = k.sku_id), false) as is_kit
  from message m
  left join lateral (
    select coalesce((select a.sku_id from sku_alias a where a.source_id = m.source_id and a.code = m.payload ->> 'sku'),
                    (select s.sku_id from sku s where s.code = m.payload ->> 'sku')) as sku_id) k on true
  left join lateral (
    select coalesce((select a.location_id from location_alias a
                      where a.source_id = m.source_id and a.code = m.payload ->> 'location'),
                    (select n.location_id from location n where n.code = m.payload ->> 'location')) as location_id) l
         on true
  left join unit u on u.sku_id = k.sku_id and u.uom = m.payload ->> 'uom'
 where m.exception_id = :exception_id and m.outcome = 'review'
 order by m.source_id, m.message_id for update of m;

-- name: review_done
-- A message under review has acted.
update message set outcome = 'applied', detail = :detail, payload = null
 where source_id = :source_id and message_id = :message_id and outcome = 'review';
