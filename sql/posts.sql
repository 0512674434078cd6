-- name: sources_posted_to
-- Sources that have something to be told, one locked by nobody else at a time.
select s.source_id, s.code, s.posts as settings
  from source s
 where s.posts <> '{}'
   and (exists (select from post_batch b where b.source_id = s.source_id and b.state = 'due')
        or exists (select from post p where p.source_id = s.source_id and p.batch_id is null
                   and p.acknowledged_at is null))
 order by s.source_id;

-- name: take_source
-- Whoever holds a source's turn makes and takes its batches.
select pg_try_advisory_xact_lock(hashtext('oms.post'), :source_id);

-- name: take_batch
-- The oldest batch that is not there yet, leased, if its time has come; each take counts as an attempt.
update post_batch b
   set attempts = b.attempts + 1, leased_until = :now::timestamptz + make_interval(secs => :lease_seconds)
 where b.batch_id = (select batch_id from post_batch where source_id = :source_id and state = 'due' order by batch_id limit 1)
   and b.not_before <= :now and (b.leased_until is null or b.leased_until <= :now)
returning b.batch_id, b.attempts, b.made_at;

-- name: make_batch
-- A batch of what waits, oldest first, where none is due.
with waiting as materialized (
  select post_id from post where source_id = :source_id and batch_id is null and acknowledged_at is null
   order by post_id limit :limit
), made as (
  insert into post_batch (source_id, not_before)
  select :source_id, :now::timestamptz where exists (select from waiting)
                      and not exists (select from post_batch where source_id = :source_id and state = 'due')
  returning batch_id
), joined as (
  update post p set batch_id = made.batch_id from made, waiting w where p.post_id = w.post_id returning 1
)
select count(*) from joined;

-- name: posts_of
-- The movements of a batch, in the source's own codes where it has some.
select p.reference as id, p.kind, coalesce(a.code, s.code) as sku, coalesce(b.code, l.code) as location, p.quantity,
       p.occurred_at, p.hold_code as hold, p.held, p.reason, p.about
  from post p
  join sku s using (sku_id)
  join location l using (location_id)
  left join lateral (select code from sku_alias where source_id = p.source_id and sku_id = p.sku_id
                      order by code limit 1) a on true
  left join lateral (select code from location_alias where source_id = p.source_id and location_id = p.location_id
                      order by code limit 1) b on true
 where p.batch_id = :batch_id order by p.post_id;

-- name: settle_batch
-- What came of an attempt, if no later attempt was begun.
update post_batch
   set state = :state, answer = :answer, not_before = :not_before, leased_until = null,
       sent_at = case when :state::text = 'sent' then :now::timestamptz end
 where batch_id = :batch_id and attempts = :attempts and state = 'due';

-- name: late_posts
-- Sources that have not acknowledged within their minutes what they were sent: how many, and since when.
select s.code as source, count(*)::int as posts, min(b.sent_at) as since,
       coalesce((s.posts ->> 'acknowledge_minutes')::int, :minutes) as minutes
  from post p
  join post_batch b on b.batch_id = p.batch_id and b.state = 'sent'
  join source s on s.source_id = p.source_id and s.posts <> '{}' and s.acknowledges
 where p.acknowledged_at is null
   and b.sent_at + make_interval(mins => coalesce((s.posts ->> 'acknowledge_minutes')::int, :minutes)) <= :now
 group by s.code, s.posts;

-- name: in_time
-- Sources of which nothing sent waits beyond its minutes any more, that were late.
select e.subject from exception e
 where e.kind = 'posts_unacknowledged' and e.state = 'open' and e.subject <> all(:sources::text[]);

-- name: posts_page
-- What sources were told and are to be told, newest first: waiting, due, sent, acknowledged, dead.
select p.post_id, s.code as source, p.reference as id, p.batch_id, k.code as sku, l.code as location, p.kind, p.quantity,
       p.hold_code as hold, p.held, p.occurred_at, p.reason, p.about,
       case when p.acknowledged_at is not null then 'acknowledged' when p.batch_id is null then 'waiting'
            else b.state end as state, b.attempts, b.answer, b.sent_at, p.acknowledged_at
  from post p
  join source s using (source_id) join sku k using (sku_id) join location l using (location_id)
  left join post_batch b using (batch_id)
 where (:source::text is null or s.code = :source) and (:sources::int[] is null or p.source_id = any(:sources))
   and (:state::text is null or :state = case when p.acknowledged_at is not null then 'acknowledged'
                                              when p.batch_id is null then 'waiting' else b.state end)
   and (:before::bigint is null or p.post_id < :before)
 order by p.post_id desc limit :limit;

-- name: posts_counted
-- How many posts of each source are in which state.
select s.code as source,
       case when p.batch_id is null then 'waiting' else b.state end as state, count(*)::int as posts
  from post p join source s using (source_id) left join post_batch b using (batch_id)
 where p.acknowledged_at is null
 group by 1, 2 order by 1, 2;

-- name: replay_batches
-- Dead batches are due again, under the same ids: one, or all of a source.
update post_batch b set state = 'due', attempts = 0, not_before = clock_timestamp(), leased_until = null
  from source s
 where s.source_id = b.source_id and b.state = 'dead' and (:batch_id::uuid is null or b.batch_id = :batch_id)
   and (:source::text is null or s.code = :source)
returning b.batch_id;

-- name: has_batch
-- Whether there is such a batch.
select exists (select from post_batch where batch_id = :batch_id);

-- name: forget_posts
-- Drops what was acknowledged before a moment; what nobody acknowledges stays.
delete from post where acknowledged_at < :before;

-- name: forget_batches
-- Drops batches that arrived before a moment and of which nothing is left.
delete from post_batch b
 where b.state = 'sent' and b.sent_at < :before and not exists (select from post p where p.batch_id = b.batch_id);
