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

-- name: kit_parts
-- The components of each kit that is among these skus, or has one of them.
select k.kit_id, k.component_id, k.quantity
  from kit k join sku s on s.sku_id = k.kit_id and s.is_kit
 where k.kit_id = any(:skus::int[]) or k.kit_id in (select kit_id from kit where component_id = any(:skus::int[]))
 order by k.kit_id, k.component_id;

-- name: rules
-- What shapes each channel's ATP; it does not change while this transaction writes by it.
select channel_id, code, pool_id, buffer, cap from channel order by channel_id for share;

-- name: supplies
-- The availability rows of these skus.
select a.sku_id, s.code, a.version, a.layout_id, a.supply, a.reserved, a.taken
  from availability a join sku s using (sku_id)
 where a.sku_id = any(:skus::int[]) order by a.sku_id;

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

-- name: incoming_next
-- The next receipt of each sku at the locations of each channel's pool, from this day on: its date and its units.
select distinct on (i.sku_id, p.pool_id) i.sku_id, p.pool_id, i.due_on,
       sum(i.quantity) over (partition by i.sku_id, p.pool_id, i.due_on)::int as quantity
  from incoming i
  join pool_location p using (location_id)
  join location l on l.location_id = i.location_id and l.is_on
 where i.sku_id = any(:skus::int[]) and i.quantity > 0 and i.due_on >= :today
   and p.pool_id in (select pool_id from channel)
 order by i.sku_id, p.pool_id, i.due_on;
