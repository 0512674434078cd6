-- name: take_touched
-- The oldest changes that nobody else is projecting, and what shops sold themselves; each sku and channel once.
with oldest as (
  select touched_id, sku_id from touched order by touched_id limit :rows for update skip locked
), chosen as (
  select array_agg(touched_id) as ids
    from (select touched_id, dense_rank() over (order by sku_id) as nth from oldest) o where nth <= :skus
), taken as (
  delete from touched where touched_id = any(array(select unnest(ids) from chosen))
  returning sku_id, channel_id, sold
)
select sku_id, channel_id, coalesce(sum(sold), 0)::int as sold, count(*)::int as rows
  from taken group by sku_id, channel_id order by sku_id, channel_id;

-- name: last_touched
-- The last change that is committed and not projected; 0 where there is none.
select coalesce(max(touched_id), 0) from touched;

-- name: touched_before
-- Whether a change up to this one is still to be projected.
select exists (select from touched where touched_id <= :last::bigint);

-- name: kits_of
-- The kits that have one of these skus.
select distinct k.kit_id from kit k join sku s on s.sku_id = k.kit_id and s.is_kit
 where k.component_id = any(:skus::int[]) order by k.kit_id;

-- name: hold_rules
-- What shapes numbers does not change while this transaction writes by it.
select from channel order by channel_id for share;

-- name: write_current
-- What each channel may sell, by the version that it was computed from: an older one never overwrites a newer one.
with written as (
  insert into channel_stock as c (channel_id, sku_id, current, version)
  select * from unnest(:channels::int[], :skus::int[], :currents::int[], :versions::bigint[])
    as n(channel_id, sku_id, current, version)
   order by n.channel_id, n.sku_id
  on conflict (channel_id, sku_id) do update set current = excluded.current, version = excluded.version
   where c.version <= excluded.version
  returning c.channel_id, c.sku_id, old.current is distinct from new.current as is_changed
)
select count(*) filter (where is_changed) as changed,
       coalesce(array_agg(distinct channel_id) filter (where is_changed), '{}') as channels,
       coalesce(array_agg(distinct sku_id), '{}') as skus from written;

-- name: tell_sold
-- What a shop sold itself it has deducted: it shows that much less. Below zero nobody knows what it shows.
update channel_stock c set pushed = case when c.pushed >= n.sold then c.pushed - n.sold end
  from unnest(:channels::int[], :skus::int[], :solds::int[]) as n(channel_id, sku_id, sold)
 where c.channel_id = n.channel_id and c.sku_id = n.sku_id;

-- name: negative_stock
-- Where these skus are below zero, with the last messages that changed them.
select k.code as sku, l.code as location, s.on_hand,
       array(select m.message_id from movement m
              where m.sku_id = s.sku_id and m.location_id = s.location_id
              order by m.version desc limit 3) as messages
  from stock s join sku k using (sku_id) join location l using (location_id)
 where s.on_hand < 0 and s.sku_id = any(:skus::int[])
 order by k.code, l.code;

-- name: open_troubles
-- The open exceptions that the projector keeps, of these sku codes.
select kind, subject, (payload ->> 'units')::int as units from exception
 where state = 'open'
   and (kind = 'pool_deficit' and subject = any(:codes::text[])
        or kind = 'negative_stock' and payload ->> 'sku' = any(:codes::text[]));
