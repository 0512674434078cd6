-- name: rules
-- What shapes the number of these channels (null: of all), read now.
select channel_id, code, pool_id, buffer, cap, is_on, clock_timestamp() as at
  from channel where :channels::int[] is null or channel_id = any(:channels::int[]);

-- name: shapes
-- The rules of numbers that are or will be in force, of all skus or of these; protections with their channel's pool,
-- rules of a pool with that.
select r.code, r.kind, r.channel_id, r.sku_id, r.units, r.percent, r.days, r.priority, r.from_at, r.until_at,
       case r.kind when 'protect' then c.pool_id when 'pool' then r.pool_id end as of_pool_id
  from rule r left join channel c using (channel_id)
 where r.kind in ('buffer', 'cap', 'limit', 'preorder', 'protect', 'pool', 'infinite') and r.is_on and r.state = 'live'
   and (r.until_at is null or r.until_at > clock_timestamp())
   and (r.sku_id is null or :skus::int[] is null or r.sku_id = any(:skus::int[]))
 order by r.code;

-- name: channel_named
-- The channel of this code.
select channel_id from channel where code = :code;

-- name: named
-- What each code means to its channel (our code first, which is what the shop is told, then its own), kits as their
-- parts; unknown ones give no row.
with n as (
  select n.channel_id, n.code, coalesce(s.sku_id, a.sku_id) as sku_id
    from unnest(:channels::int[], :codes::text[]) as n(channel_id, code)
    join channel c using (channel_id)
    left join source o on o.code = c.code
    left join sku_alias a on a.source_id = o.source_id and a.code = n.code
    left join sku s on s.code = n.code
)
select n.channel_id, n.code, n.sku_id, k.kit_id is not null as is_kit, coalesce(k.component_id, n.sku_id) as part_id,
       coalesce(p.code, s.code) as part, coalesce(k.quantity, 1) as quantity,
       case when k.kit_id is null then s.price_cents else p.price_cents end
  from n
  join sku s on s.sku_id = n.sku_id
  left join kit k on k.kit_id = n.sku_id and s.is_kit
  left join sku p on p.sku_id = k.component_id
 order by n.channel_id, n.code, k.component_id;

-- name: places
-- The locations of these codes.
select location_id, code, name, is_on, time_zone from location where code = any(:codes::text[]);
