-- name: channel_ids
-- The channels that are told anything: all, or the named ones.
select channel_id, code from channel
 where kind <> 'none' and is_on and (:codes::text[] is null or code = any(:codes)) order by code;

-- name: channel
-- A channel as its pushes need it.
select channel_id, code, kind, mode, reset_minutes, settings, captured_until, reset_at, reset_due
  from channel where channel_id = :channel_id;

-- name: take_channel
-- The same, taken: one prepares at a time, and no projection is half written.
select channel_id, code, kind, mode, reset_minutes, settings, captured_until, reset_at, reset_due
  from channel where channel_id = :channel_id for no key update;

-- name: ask_reset
-- The next push of these channels carries everything.
update channel set reset_due = true where code = any(:codes::text[]);

-- name: begin_reset
-- Nothing that was told counts any more: every sku is due as an absolute value, those under way after their push.
-- Pushes that were refused for good are overtaken by it.
with begun as (
  update channel set reset_at = :now, reset_due = false where channel_id = :channel_id
), overtaken as (
  update push set state = 'done', done_at = clock_timestamp(), answer = 'overtaken by a reset'
   where channel_id = :channel_id and state = 'dead'
  returning push_id
), taken as materialized (
  select sku_id from channel_stock
   where channel_id = :channel_id and (pushed is not null or push_id is not null) order by sku_id for update
), untold as (
  update channel_stock c
     set pushed = null,
         push_id = case when c.push_id in (select push_id from overtaken) then null else c.push_id end
    from taken t
   where c.channel_id = :channel_id and c.sku_id = t.sku_id
)
select push_id from overtaken;

-- name: make_pushes
-- What is due becomes pushes of at most :batch skus, and counts as told from now on. Absolute: what was never told
-- (or all that changed, where :changed); to it is added what the shop sold after :as_of and we know of already,
-- because the shop deducts all that it sold since. Else the difference to what was told.
with due as (
  select sku_id, current, pushed, version from channel_stock
   where channel_id = :channel_id and push_id is null and current is distinct from pushed
     and case when :is_absolute then pushed is null or :changed else pushed is not null end
   order by sku_id limit :limit for update
), numbered as (
  select *, (row_number() over (order by sku_id) - 1) / :batch as lot from due
), lots as materialized (
  select lot, uuidv7() as push_id from numbered group by lot
), made as (
  insert into push (push_id, channel_id, mode, as_of)
  select push_id, :channel_id, case when :is_absolute then 'reset' else 'delta' end,
         case when :is_absolute then :as_of::timestamptz end
    from lots
), sold as (
  select sku_id, sum(units)::int as units
    from (select coalesce(k.kit_id, n.sku_id) as sku_id,
                 max((n.quantity - n.cancelled) / coalesce(k.per, 1)) as units
            from orders o
            join order_line n using (order_id)
            left join lateral kit_sold(o.channel_id, n.sku, n.sku_id) k on n.part > 0
           where :is_absolute and o.channel_id = :channel_id and o.placed_at > :as_of and o.sold_there and n.sku_id is not null
           group by n.order_id, n.line, coalesce(k.kit_id, n.sku_id)) l
   group by sku_id
), items as (
  insert into push_item (push_id, sku_id, quantity, delta, version)
  select l.push_id, n.sku_id, n.current + coalesce(s.units, 0),
         case when not :is_absolute then n.current - n.pushed end, n.version
    from numbered n join lots l using (lot) left join sold s using (sku_id)
), told as (
  update channel_stock c set pushed = c.current, push_id = l.push_id
    from numbered n join lots l using (lot)
   where c.channel_id = :channel_id and c.sku_id = n.sku_id
)
select push_id from lots order by push_id;

-- name: take_push
-- The next push of a channel that may be sent, leased to the caller: if it dies, another sends the same push again.
update push p set leased_until = clock_timestamp() + make_interval(secs => :lease_seconds), attempts = p.attempts + 1
  from channel c
 where p.push_id = (select push_id from push
                     where channel_id = :channel_id and state = 'due' and not_before <= clock_timestamp()
                       and (leased_until is null or leased_until <= clock_timestamp())
                     order by push_id limit 1 for update skip locked)
   and c.channel_id = p.channel_id and c.is_on and (c.paused_until is null or c.paused_until <= clock_timestamp())
returning p.push_id, p.channel_id, p.mode, p.as_of, p.attempts, p.made_at,
          (extract(epoch from clock_timestamp() - p.made_at) / 86400)::float8 as age_days;

-- name: items
-- What a push says, by the shop's own codes where it has some, in its own order: the same at each attempt.
select coalesce((select min(a.code) from channel c join source o on o.code = c.code
                   join sku_alias a on a.source_id = o.source_id and a.sku_id = i.sku_id
                  where c.channel_id = p.channel_id), k.code) as sku,
       i.quantity, i.delta, i.version
  from push p join push_item i using (push_id) join sku k using (sku_id)
 where p.push_id = :push_id order by i.sku_id;

-- name: end_push
-- The channel has it: its skus are free for the next push. Whoever learns it first says so, once.
with ended as (
  update push set state = 'done', done_at = clock_timestamp(), leased_until = null, answer = :answer
   where push_id = :push_id and state <> 'done'
  returning push_id, channel_id
), taken as materialized (
  select c.channel_id, c.sku_id
    from ended e join push_item i using (push_id)
    join channel_stock c on c.channel_id = e.channel_id and c.sku_id = i.sku_id and c.push_id = e.push_id
   order by c.sku_id for update of c
)
update channel_stock c set push_id = null from taken t where c.channel_id = t.channel_id and c.sku_id = t.sku_id;

-- name: recovered
-- A channel that answers again is called as usual.
update channel set failures = 0, paused_until = null where channel_id = :channel_id and failures > 0;

-- name: postpone_push
-- Not now: again after :seconds with the same id, unless somebody else has taken it up meanwhile.
update push set not_before = clock_timestamp() + make_interval(secs => :seconds), leased_until = null, answer = :answer
 where push_id = :push_id and state = 'due' and attempts = :attempts;

-- name: pause_channel
-- The channel asked for quiet: nobody calls it for :seconds.
update channel set paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => :seconds))
 where channel_id = :channel_id;

-- name: count_failure
-- One more failure in a row; from :breaks_at on nobody calls the channel for a time that doubles up to a minute.
update channel
   set failures = failures + 1,
       paused_until = case when failures + 1 < :breaks_at then paused_until else
         greatest(paused_until, clock_timestamp()
                  + make_interval(secs => :jitter * least(60, power(2, least(failures + 1 - :breaks_at, 6)))))end
 where channel_id = :channel_id;

-- name: bury_push
-- Refused for good, or tried for too long: kept with its reason, its skus wait for its replay or a reset.
update push set state = 'dead', leased_until = null, answer = :answer
 where push_id = :push_id and state = 'due' and attempts = :attempts;

-- name: halve_push
-- A refused push of many skus becomes two, so that what is refused is found; the rest goes on.
with half as (
  select sku_id, row_number() over (order by sku_id) * 2 > count(*) over () as is_second
    from push_item where push_id = :push_id
), lots as materialized (
  select is_second, uuidv7() as push_id from half group by is_second
), made as (
  insert into push (push_id, channel_id, mode, as_of)
  select l.push_id, p.channel_id, p.mode, p.as_of from lots l, push p where p.push_id = :push_id
), moved as (
  insert into push_item (push_id, sku_id, quantity, delta, version)
  select l.push_id, i.sku_id, i.quantity, i.delta, i.version
    from push_item i join half using (sku_id) join lots l using (is_second) where i.push_id = :push_id
), taken as materialized (
  select c.channel_id, c.sku_id, l.push_id
    from half h join lots l using (is_second), push p, channel_stock c
   where p.push_id = :push_id and c.channel_id = p.channel_id and c.sku_id = h.sku_id and c.push_id = p.push_id
   order by c.sku_id for update of c
), bound as (
  update channel_stock c set push_id = t.push_id
    from taken t where c.channel_id = t.channel_id and c.sku_id = t.sku_id
)
update push set state = 'done', done_at = clock_timestamp(), leased_until = null, answer = :answer
 where push_id = :push_id;

-- name: take_attempt
-- Whether this attempt still is the one that decides; taken until the transaction ends.
select push_id from push where push_id = :push_id and state = 'due' and attempts = :attempts for update;

-- name: waiting
-- What a channel still owes: pushes not yet done, skus due, and the seconds until one may be sent (null: none waits).
select count(p.push_id) filter (where p.state = 'due')::int as due,
       count(p.push_id) filter (where p.state = 'dead')::int as dead,
       extract(epoch from min(greatest(p.not_before, p.leased_until, c.paused_until)) filter (where p.state = 'due')
               - clock_timestamp())::float8 as seconds
  from channel c left join push p on p.channel_id = c.channel_id and p.state in ('due', 'dead')
 where c.channel_id = :channel_id;

-- name: count_due
-- How many skus of a channel are to be told: all where a reset is due.
select count(*) from channel_stock s join channel c using (channel_id)
 where s.channel_id = :channel_id and (c.reset_due or s.push_id is not null or s.current is distinct from s.pushed);

-- name: push_of
-- Whose push it is, and its state; none where it is not of these channels.
select c.code as channel, p.state from push p join channel c using (channel_id)
 where p.push_id = :push_id and (:channels::int[] is null or p.channel_id = any(:channels));

-- name: replay_push
-- A dead push is due again, with the same id.
update push set state = 'due', not_before = clock_timestamp(), attempts = 0 where push_id = :push_id and state = 'dead';

-- name: list_pushes
-- Pushes, the newest first, before a push.
select p.push_id, c.code as channel, p.mode, p.as_of, p.state, p.attempts, p.not_before, p.made_at, p.done_at, p.answer,
       (select count(*)::int from push_item i where i.push_id = p.push_id) as skus
  from push p join channel c using (channel_id)
 where (:channel::text is null or c.code = :channel) and (:state::text is null or p.state = :state)
   and (:before::uuid is null or p.push_id < :before) and (:channels::int[] is null or p.channel_id = any(:channels))
 order by p.push_id desc limit :limit;

-- name: prune_pushes
-- Forgets pushes that were done before a moment, a number at a time.
with old as (
  select push_id from push where state = 'done' and done_at < :before order by push_id limit :limit for update skip locked
), items as (
  delete from push_item where push_id in (select push_id from old)
)
delete from push where push_id in (select push_id from old);
