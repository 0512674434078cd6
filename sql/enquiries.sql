-- name: keep_promises
-- Keeps promises that were given.
insert into promise_log (at, channel_id, rules, asked, said, stock)
select * from unnest(:ats::timestamptz[], :channels::int[], :rules::bigint[], :asked::jsonb[], :said::jsonb[],
                     :stock::jsonb[]);

-- name: keep_refusals
-- Keeps what was refused of carts.
insert into refusal_log (at, channel_id, location, sku, quantity, atp, versions, rules)
select n.at, n.channel_id, n.location, n.sku, n.quantity, n.atp, n.versions::bigint[], n.rules
  from unnest(:ats::timestamptz[], :channels::int[], :locations::text[], :skus::text[], :quantities::int[],
              :numbers::int[], :versions::text[], :rules::bigint[])
       as n(at, channel_id, location, sku, quantity, atp, versions, rules);

-- name: count_reads
-- Counts numbers that were given, by the minute; several processes count the same.
insert into read_log as r (minute, channel_id, sku, atp, count)
select * from unnest(:minutes::timestamptz[], :channels::int[], :skus::text[], :numbers::int[], :counts::int[])
 order by 1, 2, 3, 4
on conflict (minute, channel_id, sku, atp) do update set count = r.count + excluded.count;

-- name: promises_page
-- Promises that were given, newest first.
select p.promise_id as id, p.at, c.code as channel, p.rules, p.asked, p.said, p.stock
  from promise_log p join channel c using (channel_id)
 where (:channel::text is null or c.code = :channel) and (:sku::text is null or p.stock ? :sku)
   and (:before::uuid is null or p.promise_id < :before)
 order by p.promise_id desc limit :limit;

-- name: refusals_page
-- What was refused of carts, newest first.
select r.refusal_id as id, r.at, c.code as channel, r.location, r.sku, r.quantity, r.atp, r.versions, r.rules
  from refusal_log r join channel c using (channel_id)
 where (:channel::text is null or c.code = :channel) and (:sku::text is null or r.sku = :sku)
   and (:before::bigint is null or r.refusal_id < :before)
 order by r.refusal_id desc limit :limit;

-- name: reads_page
-- How often which number was given of a channel's sku, newest minute first.
select r.minute, c.code as channel, r.sku, r.atp, r.count
  from read_log r join channel c using (channel_id)
 where (:channel::text is null or c.code = :channel) and (:sku::text is null or r.sku = :sku)
   and (:until::timestamptz is null or r.minute < :until)
 order by r.minute desc, c.code, r.sku, r.atp limit :limit;

-- name: forget_enquiries
-- Drops what was asked before a moment.
with promises as (delete from promise_log where at < :before), refusals as (delete from refusal_log where at < :before)
delete from read_log where minute < :before;
