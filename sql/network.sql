-- name: lock_network
-- One change of the network at a time.
select pg_advisory_xact_lock(hashtext('network'));

-- name: locations
-- Locations as their callers write them, by code.
select l.code, jsonb_build_object(
         'code', l.code, 'name', l.name, 'kind', l.kind, 'lat', l.lat, 'lon', l.lon, 'country', l.country,
         'postal_code', l.postal_code, 'time_zone', l.time_zone, 'capacity_orders', l.capacity_orders,
         'capacity_items', l.capacity_items, 'capacity_cents', l.capacity_cents, 'waves', l.waves,
         'safety_stock', l.safety_stock, 'work_days', l.work_days, 'cut_off', to_char(l.cut_off, 'HH24:MI'),
         'handling_days', l.handling_days, 'pickup_minutes', l.pickup_minutes,
         'package_cents', l.package_cents, 'line_cents', l.line_cents, 'holidays', l.holidays, 'division', d.code, 'owner', w.code,
         'on', l.is_on) as body
  from location l left join party d on d.party_id = l.division_id left join party w on w.party_id = l.owner_id
 where (:codes::text[] is null or l.code = any(:codes)) and l.code > :after
 order by l.code limit :limit::int;

-- name: write_locations
-- Makes or changes locations; where what may be sold there changes, their stock is rewritten from the first sku on.
insert into location as l (code, name, kind, lat, lon, country, postal_code, time_zone, capacity_orders,
                           capacity_items, capacity_cents, waves, safety_stock, work_days, cut_off, handling_days, pickup_minutes,
                           package_cents, line_cents, holidays, division_id, owner_id, is_on)
select code, name, kind, lat, lon, country, postal_code, time_zone, capacity_orders, capacity_items, capacity_cents,
       waves, safety_stock, work_days, cut_off, handling_days, pickup_minutes, package_cents, line_cents, holidays,
       (select party_id from party where party.code = r.division), (select party_id from party where party.code = r.owner), "on"
  from jsonb_to_recordset(:rows) as r(code text, name text, kind text, lat float8, lon float8, country text,
       postal_code text, time_zone text, capacity_orders int, capacity_items int, capacity_cents bigint, waves jsonb,
       safety_stock int, work_days text, cut_off time, handling_days int, pickup_minutes int, package_cents int,
       line_cents int, holidays date[], division text, owner text, "on" boolean)
on conflict (code) do update
  set work_days = excluded.work_days, cut_off = excluded.cut_off, handling_days = excluded.handling_days,
      pickup_minutes = excluded.pickup_minutes, package_cents = excluded.package_cents, line_cents = excluded.line_cents,
      holidays = excluded.holidays, division_id = excluded.division_id, owner_id = excluded.owner_id,
      name = excluded.name, kind = excluded.kind, lat = excluded.lat, lon = excluded.lon, country = excluded.country,
      postal_code = excluded.postal_code, time_zone = excluded.time_zone,
      capacity_orders = excluded.capacity_orders, capacity_items = excluded.capacity_items,
      capacity_cents = excluded.capacity_cents, waves = excluded.waves, safety_stock = excluded.safety_stock, is_on = excluded.is_on,
      rewrite_after = case when (l.safety_stock, l.is_on) = (excluded.safety_stock, excluded.is_on)
                           then l.rewrite_after else 0 end;

-- name: pools
-- Pools with the codes of their locations.
select p.code, jsonb_build_object('code', p.code, 'name', p.name, 'locations', coalesce((
         select jsonb_agg(l.code order by l.code collate "C") from pool_location m join location l using (location_id)
          where m.pool_id = p.pool_id), '[]')) as body
  from pool p
 where (:codes::text[] is null or p.code = any(:codes)) and p.code > :after
 order by p.code limit :limit::int;

-- name: write_pools
-- Makes or changes pools, without their members.
insert into pool (code, name)
select code, name from jsonb_to_recordset(:rows) as r(code text, name text) order by code
on conflict (code) do update set name = excluded.name;

-- name: leave_pools
-- Locations that these pools no longer list leave them.
delete from pool_location m
 using pool p, jsonb_to_recordset(:rows) as r(code text, locations jsonb), location l
 where p.code = r.code and m.pool_id = p.pool_id and l.location_id = m.location_id and not r.locations ? l.code;

-- name: join_pools
-- Locations that these pools list join them.
insert into pool_location (pool_id, location_id)
select p.pool_id, l.location_id
  from jsonb_to_recordset(:rows) as r(code text, locations jsonb)
  join pool p on p.code = r.code
  cross join lateral jsonb_array_elements_text(r.locations) as m(code)
  join location l on l.code = m.code
on conflict do nothing;

-- name: memberships
-- Every pool with the locations that it draws on.
select p.pool_id, coalesce(array_agg(m.location_id) filter (where m.location_id is not null), '{}') as locations
  from pool p left join pool_location m using (pool_id) group by p.pool_id order by p.pool_id;

-- name: insert_layout
-- A new numbering of pools and segments; it is the one that new skus are made with.
with made as (
  insert into layout (pools, segments) values (:pools, :segments) returning layout_id
), placed as (
  insert into layout_location (layout_id, location_id, segment)
  select made.layout_id, n.location_id, n.segment
    from made, unnest(:locations::int[], :places::int[]) as n(location_id, segment)
)
select layout_id from made;

-- name: newest_layout
-- The layout in force.
select layout_id, pools, segments from layout order by layout_id desc limit 1;

-- name: newest_members
-- The segment of each location in the layout in force.
select location_id, segment from layout_location where layout_id = (select max(layout_id) from layout);

-- name: channels
-- Channels as their callers write them.
select c.code, jsonb_build_object(
         'code', c.code, 'name', c.name, 'pool', p.code, 'kind', c.kind, 'mode', c.mode, 'buffer', c.buffer,
         'cap', c.cap, 'reset_minutes', c.reset_minutes, 'brokering', c.brokering, 'settings', c.settings,
         'division', d.code, 'on', c.is_on) as body
  from channel c join pool p using (pool_id) left join party d on d.party_id = c.division_id
 where (:codes::text[] is null or c.code = any(:codes)) and c.code > :after
 order by c.code limit :limit::int;

-- name: write_channels
-- Makes or changes channels; a change of mode or pool starts with a reset.
insert into channel as c (code, name, pool_id, kind, mode, buffer, cap, reset_minutes, brokering, settings, division_id,
                          is_on)
select r.code, r.name, p.pool_id, r.kind, r.mode, r.buffer, r.cap, r.reset_minutes, r.brokering, r.settings, d.party_id,
       r."on"
  from jsonb_to_recordset(:rows) as r(code text, name text, pool text, kind text, mode text, buffer int, cap int,
       reset_minutes int, brokering jsonb, settings jsonb, division text, "on" boolean)
  join pool p on p.code = r.pool left join party d on d.code = r.division
on conflict (code) do update
  set name = excluded.name, pool_id = excluded.pool_id, kind = excluded.kind, mode = excluded.mode,
      buffer = excluded.buffer, cap = excluded.cap, reset_minutes = excluded.reset_minutes,
      brokering = excluded.brokering, settings = excluded.settings, division_id = excluded.division_id,
      is_on = excluded.is_on,
      reset_due = c.reset_due or (c.kind, c.mode, c.pool_id, c.is_on)
                                 <> (excluded.kind, excluded.mode, excluded.pool_id, excluded.is_on);

-- name: sources
-- Sources with what each owns, grouped by equal facts, and its table of statuses. The house itself is not listed.
select s.code, jsonb_build_object(
         'code', s.code, 'name', s.name, 'kind', s.kind, 'quantity_kind', s.quantity_kind,
         'order_level', s.order_level, 'window_seconds', s.window_seconds, 'deducts_at', s.deducts_at,
         'acknowledges', s.acknowledges, 'absent_is_zero', s.absent_is_zero, 'sums_rows', s.sums_rows,
         'deducted_holds', s.deducted_holds, 'additions', s.additions, 'gates', s.gates, 'folder', s.folder, 'posts', s.posts,
         'morning_at', to_char(s.morning_at, 'HH24:MI'), 'time_zone', s.time_zone,
         'tolerance_days', s.tolerance_days, 'stale_after_seconds', s.stale_after_seconds,
         'owns', coalesce((
           select jsonb_agg(jsonb_build_object('locations', locations, 'facts', facts) order by facts)
             from (select facts, array_agg(code order by code collate "C") as locations
                     from (select l.code, array_agg(o.fact order by o.fact collate "C") as facts
                             from ownership o join location l using (location_id)
                            where o.source_id = s.source_id group by l.code) f
                    group by facts) g), '[]'),
         'status_map', coalesce((
           select jsonb_agg(jsonb_build_object('field', m.field, 'value', m.value, 'means', m.means,
                                               'hold_code', m.hold_code)
                            order by m.field collate "C", m.value collate "C")
             from status_map m where m.source_id = s.source_id), '[]')) as body
  from source s
 where s.kind <> 'house' and (:codes::text[] is null or s.code = any(:codes)) and s.code > :after
 order by s.code limit :limit::int;

-- name: write_sources
-- Makes or changes sources, without what they own.
insert into source (code, name, kind, quantity_kind, order_level, window_seconds, deducts_at, acknowledges,
                    absent_is_zero, sums_rows, deducted_holds, additions, gates, folder, posts, morning_at, time_zone,
                    tolerance_days, stale_after_seconds)
select code, name, kind, quantity_kind, order_level, window_seconds, deducts_at, acknowledges, absent_is_zero,
       sums_rows, deducted_holds, additions, gates, folder, posts, morning_at, time_zone, tolerance_days,
       stale_after_seconds
  from jsonb_to_recordset(:rows) as r(code text, name text, kind text, quantity_kind text, order_level text,
       window_seconds int, deducts_at text, acknowledges boolean, absent_is_zero boolean, sums_rows boolean,
       deducted_holds text[], additions jsonb, gates jsonb, folder text, posts jsonb, morning_at time, time_zone text,
       tolerance_days int, stale_after_seconds int)
on conflict (code) do update
  set name = excluded.name, kind = excluded.kind, quantity_kind = excluded.quantity_kind,
      order_level = excluded.order_level, window_seconds = excluded.window_seconds,
      deducts_at = excluded.deducts_at, acknowledges = excluded.acknowledges,
      absent_is_zero = excluded.absent_is_zero, sums_rows = excluded.sums_rows,
      deducted_holds = excluded.deducted_holds, additions = excluded.additions, gates = excluded.gates,
      folder = excluded.folder, posts = excluded.posts, morning_at = excluded.morning_at, time_zone = excluded.time_zone,
      tolerance_days = excluded.tolerance_days, stale_after_seconds = excluded.stale_after_seconds;

-- name: disown
-- What these sources no longer list is nobody's.
delete from ownership o
 using source s, jsonb_to_recordset(:rows) as r(code text)
 where s.code = r.code and o.source_id = s.source_id;

-- name: own
-- Each listed fact at each listed location is this source's from now on; says from whom it was taken.
with n as (
  select distinct l.location_id, f.fact, s.source_id, s.code as source, l.code as location
    from jsonb_to_recordset(:rows) as r(code text, owns jsonb)
    join source s on s.code = r.code
    cross join lateral jsonb_to_recordset(r.owns) as o(locations jsonb, facts jsonb)
    cross join lateral jsonb_array_elements_text(o.locations) as m(code)
    join location l on l.code = m.code
    cross join lateral jsonb_array_elements_text(o.facts) as f(fact)
), before as (
  select n.source, n.location, n.fact, b.code as was
    from n join ownership o using (location_id, fact) join source b on b.source_id = o.source_id
), written as (
  insert into ownership (location_id, fact, source_id) select location_id, fact, source_id from n
  on conflict (location_id, fact) do update set source_id = excluded.source_id
)
select source, location, fact, was from before;

-- name: forget_statuses
-- The tables of statuses of these sources, to be written anew.
delete from status_map m
 using source s, jsonb_to_recordset(:rows) as r(code text)
 where s.code = r.code and m.source_id = s.source_id;

-- name: map_statuses
-- What each status, bin type and task type of these sources is.
insert into status_map (source_id, field, value, means, hold_code)
select s.source_id, m.field, m.value, m.means, m.hold_code
  from jsonb_to_recordset(:rows) as r(code text, status_map jsonb)
  join source s on s.code = r.code
  cross join lateral jsonb_to_recordset(r.status_map) as m(field text, value text, means text, hold_code text);

-- name: skus
-- Skus with their barcodes.
select k.code, jsonb_build_object(
         'code', k.code, 'name', k.name, 'price_cents', k.price_cents, 'value_cents', k.value_cents,
         'weight_grams', k.weight_grams, 'category', k.category, 'barcodes', coalesce((
           select jsonb_agg(b.barcode order by b.barcode collate "C") from sku_barcode b where b.sku_id = k.sku_id),
         '[]'), 'substitutes', coalesce((
           select jsonb_agg(o.code order by u.place) from sku_substitute u join sku o on o.sku_id = u.substitute_id
            where u.sku_id = k.sku_id), '[]')) as body
  from sku k
 where (:codes::text[] is null or k.code = any(:codes)) and k.code > :after
 order by k.code limit :limit::int;

-- name: write_skus
-- Makes or changes skus, without their barcodes; their availability rows are made with them.
insert into sku (code, name, price_cents, value_cents, weight_grams, category)
select code, name, price_cents, value_cents, weight_grams, category
  from jsonb_to_recordset(:rows) as r(code text, name text, price_cents int, value_cents int, weight_grams int,
       category text)
on conflict (code) do update
  set name = excluded.name, category = excluded.category, price_cents = excluded.price_cents, value_cents = excluded.value_cents,
      weight_grams = excluded.weight_grams;

-- name: drop_barcodes
-- Barcodes that these skus no longer list.
delete from sku_barcode b
 using sku k, jsonb_to_recordset(:rows) as r(code text, barcodes jsonb)
 where k.code = r.code and b.sku_id = k.sku_id and not r.barcodes ? b.barcode;

-- name: add_barcodes
-- Barcodes that these skus list.
insert into sku_barcode (barcode, sku_id)
select b.barcode, k.sku_id
  from jsonb_to_recordset(:rows) as r(code text, barcodes jsonb)
  join sku k on k.code = r.code
  cross join lateral jsonb_array_elements_text(r.barcodes) as b(barcode)
on conflict do nothing;

-- name: drop_substitutes
-- What may be sent instead of these skus is listed anew.
delete from sku_substitute u using sku k, jsonb_to_recordset(:rows) as r(code text)
 where k.code = r.code and u.sku_id = k.sku_id;

-- name: add_substitutes
-- Skus that may be sent instead of these, the best first.
insert into sku_substitute (sku_id, substitute_id, place)
select k.sku_id, o.sku_id, min(n.place)
  from jsonb_to_recordset(:rows) as r(code text, substitutes jsonb)
  join sku k on k.code = r.code
  cross join lateral jsonb_array_elements_text(r.substitutes) with ordinality as n(code, place)
  join sku o on o.code = n.code
 group by k.sku_id, o.sku_id;

-- name: doubles
-- Skus that are likely the same thing: one barcode, the same name and weight, or an alias that is another's code.
with given as (
  select sku_id, code, weight_grams, regexp_replace(lower(name), '[^[:alnum:]]+', '', 'g') as name
    from sku where code = any(:codes::text[])
)
select 'barcode' as why, b.barcode as what, array_agg(k.code order by k.code) as codes
  from sku_barcode b join sku k using (sku_id)
 where b.barcode in (select barcode from sku_barcode join given using (sku_id))
 group by b.barcode having count(*) > 1
union all
select 'name', min(k.name) || ', ' || k.weight_grams || ' g', array_agg(k.code order by k.code)
  from sku k
  join (select distinct name, weight_grams from given where weight_grams is not null and length(name) > 2) g
    on g.weight_grams = k.weight_grams and g.name = regexp_replace(lower(k.name), '[^[:alnum:]]+', '', 'g')
 group by g.name, k.weight_grams having count(*) > 1
union all
select 'alias', s.code || ' says ' || a.code, array[k.code, a.code]
  from sku_alias a join source s using (source_id) join sku k using (sku_id) join sku other on other.code = a.code
 where other.sku_id <> k.sku_id and (k.code = any(:codes::text[]) or a.code = any(:codes::text[]));

-- name: kits
-- Kits with their components.
select k.code, jsonb_build_object('kit', k.code, 'components',
         jsonb_agg(jsonb_build_object('component', c.code, 'quantity', m.quantity) order by c.code collate "C")) as body
  from kit m join sku k on k.sku_id = m.kit_id join sku c on c.sku_id = m.component_id
 where (:codes::text[] is null or k.code = any(:codes)) and k.code > :after
 group by k.code order by k.code limit :limit::int;

-- name: drop_components
-- What these kits were made of.
delete from kit m using sku k where k.sku_id = m.kit_id and k.code = any(:codes::text[]);

-- name: add_components
-- What these kits are made of.
insert into kit (kit_id, component_id, quantity)
select k.sku_id, c.sku_id, m.quantity
  from jsonb_to_recordset(:rows) as r(kit text, components jsonb)
  join sku k on k.code = r.kit
  cross join lateral jsonb_to_recordset(r.components) as m(component text, quantity int)
  join sku c on c.code = m.component;

-- name: mark_kits
-- A sku with components is a kit.
update sku k set is_kit = exists (select from kit m where m.kit_id = k.sku_id) where k.code = any(:codes::text[]);

-- name: kit_components
-- Of these skus: those that are a component of a kit, and those that are a kit.
select k.code, k.is_kit, exists (select from kit m where m.component_id = k.sku_id) as is_component
  from sku k where k.code = any(:codes::text[]);

-- name: units
-- Units of measure of skus, in how many each.
select k.code || ' ' || u.uom as code,
       jsonb_build_object('sku', k.code, 'uom', u.uom, 'quantity', u.quantity) as body
  from unit u join sku k using (sku_id)
 where (:rows::jsonb is null or (k.code, u.uom) in (
         select r.sku, r.uom from jsonb_to_recordset(:rows) as r(sku text, uom text)))
   and k.code || ' ' || u.uom > :after
 order by 1 limit :limit::int;

-- name: write_units
-- Makes or changes units of measure.
insert into unit (sku_id, uom, quantity)
select k.sku_id, r.uom, r.quantity
  from jsonb_to_recordset(:rows) as r(sku text, uom text, quantity int) join sku k on k.code = r.sku
on conflict (sku_id, uom) do update set quantity = excluded.quantity;

-- name: sku_aliases
-- Codes of skus as each source says them.
select s.code || ' ' || a.code as code,
       jsonb_build_object('source', s.code, 'code', a.code, 'sku', k.code) as body
  from sku_alias a join source s using (source_id) join sku k using (sku_id)
 where (:rows::jsonb is null or (s.code, a.code) in (
         select r.source, r.code from jsonb_to_recordset(:rows) as r(source text, code text)))
   and s.code || ' ' || a.code > :after
 order by 1 limit :limit::int;

-- name: write_sku_aliases
-- Makes or changes codes of skus.
insert into sku_alias (source_id, code, sku_id)
select s.source_id, r.code, k.sku_id
  from jsonb_to_recordset(:rows) as r(source text, code text, sku text)
  join source s on s.code = r.source join sku k on k.code = r.sku
on conflict (source_id, code) do update set sku_id = excluded.sku_id;

-- name: location_aliases
-- Codes of locations as each source says them.
select s.code || ' ' || a.code as code,
       jsonb_build_object('source', s.code, 'code', a.code, 'location', l.code) as body
  from location_alias a join source s using (source_id) join location l using (location_id)
 where (:rows::jsonb is null or (s.code, a.code) in (
         select r.source, r.code from jsonb_to_recordset(:rows) as r(source text, code text)))
   and s.code || ' ' || a.code > :after
 order by 1 limit :limit::int;

-- name: write_location_aliases
-- Makes or changes codes of locations.
insert into location_alias (source_id, code, location_id)
select s.source_id, r.code, l.location_id
  from jsonb_to_recordset(:rows) as r(source text, code text, location text)
  join source s on s.code = r.source join location l on l.code = r.location
on conflict (source_id, code) do update set location_id = excluded.location_id;

-- name: incoming
-- Expected receipts.
select s.code || ' ' || i.reference || ' ' || k.code || ' ' || l.code as code, jsonb_build_object(
         'source', s.code, 'reference', i.reference, 'sku', k.code, 'location', l.code, 'kind', i.kind,
         'quantity', i.quantity, 'due_on', i.due_on) as body
  from incoming i join source s using (source_id) join sku k using (sku_id) join location l using (location_id)
 where (:rows::jsonb is null or (s.code, i.reference, k.code, l.code) in (
         select r.source, r.reference, r.sku, r.location
           from jsonb_to_recordset(:rows) as r(source text, reference text, sku text, location text)))
   and s.code || ' ' || i.reference || ' ' || k.code || ' ' || l.code > :after
 order by 1 limit :limit::int;

-- name: write_incoming
-- Makes or changes expected receipts.
insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)
select s.source_id, r.reference, k.sku_id, l.location_id, r.kind, r.quantity, r.due_on
  from jsonb_to_recordset(:rows) as r(source text, reference text, sku text, location text, kind text, quantity int,
       due_on date)
  join source s on s.code = r.source join sku k on k.code = r.sku join location l on l.code = r.location
on conflict (source_id, reference, sku_id, location_id) do update
  set kind = excluded.kind, quantity = excluded.quantity, due_on = excluded.due_on;

-- name: rules
-- Rules that shape what channels may sell.
select r.code, jsonb_build_object(
         'code', r.code, 'kind', r.kind, 'channel', c.code, 'sku', k.code, 'units', r.units,
         'percent', case when r.share_by is null then r.percent end, 'share_by', r.share_by, 'days', r.days,
         'location', l.code, 'pool', p.code, 'hold_code', r.hold_code,
         'priority', r.priority, 'from_at', r.from_at, 'until_at', r.until_at, 'on', r.is_on) as body
  from rule r left join channel c using (channel_id) left join sku k using (sku_id)
  left join location l using (location_id) left join pool p on p.pool_id = r.pool_id
 where (:codes::text[] is null or r.code = any(:codes)) and r.code > :after
 order by r.code limit :limit::int;

-- name: write_rules
-- Makes or changes rules; one above the limits waits for a second person.
insert into rule (code, kind, channel_id, sku_id, location_id, pool_id, hold_code, units, percent, share_by, days,
                  priority, from_at, until_at, is_on, state, made_by)
select r.code, r.kind, c.channel_id, k.sku_id, l.location_id, p.pool_id, r.hold_code, r.units, r.percent, r.share_by,
       r.days, r.priority, r.from_at, r.until_at, r."on", r.state, r.made_by
  from jsonb_to_recordset(:rows) as r(code text, kind text, channel text, sku text, units int,
       percent double precision, share_by text, days int, priority int, from_at timestamptz, until_at timestamptz,
       "on" boolean, state text, made_by text, location text, pool text, hold_code text)
  left join channel c on c.code = r.channel left join sku k on k.code = r.sku
  left join location l on l.code = r.location left join pool p on p.code = r.pool
on conflict (code) do update
  set kind = excluded.kind, channel_id = excluded.channel_id, sku_id = excluded.sku_id,
      location_id = excluded.location_id, pool_id = excluded.pool_id, hold_code = excluded.hold_code, units = excluded.units,
      percent = excluded.percent, share_by = excluded.share_by, days = excluded.days, priority = excluded.priority,
      from_at = excluded.from_at, until_at = excluded.until_at, is_on = excluded.is_on, state = excluded.state,
      made_by = excluded.made_by, followed_at = null;

-- name: parties
-- Who owns stock or sells.
select p.code, jsonb_build_object('code', p.code, 'name', p.name, 'kind', p.kind, 'takes_back', p.takes_back) as body
  from party p
 where (:codes::text[] is null or p.code = any(:codes)) and p.code > :after
 order by p.code limit :limit::int;

-- name: write_parties
-- Makes or changes parties.
insert into party (code, name, kind, takes_back)
select code, name, kind, takes_back
  from jsonb_to_recordset(:rows) as r(code text, name text, kind text, takes_back boolean)
on conflict (code) do update set name = excluded.name, kind = excluded.kind, takes_back = excluded.takes_back;

-- name: parties_in_use
-- Which of these parties are the division of a location or a channel.
select p.code from party p
 where p.code = any(:codes::text[])
   and (exists (select from location l where l.division_id = p.party_id)
        or exists (select from channel c where c.division_id = p.party_id));

-- name: stock_owners
-- Whose stock a sku's is, at a location or wherever no location says.
select k.code || ' ' || coalesce(l.code, '*') as code,
       jsonb_build_object('sku', k.code, 'location', coalesce(l.code, '*'), 'owner', p.code) as body
  from stock_owner o join sku k using (sku_id) left join location l using (location_id)
  left join party p on p.party_id = o.owner_id
 where (:rows::jsonb is null or (k.code, coalesce(l.code, '*')) in (
         select r.sku, r.location from jsonb_to_recordset(:rows) as r(sku text, location text)))
   and k.code || ' ' || coalesce(l.code, '*') > :after
 order by 1 limit :limit::int;

-- name: write_stock_owners
-- Says or changes whose stock it is.
insert into stock_owner (sku_id, location_id, owner_id)
select k.sku_id, l.location_id, p.party_id
  from jsonb_to_recordset(:rows) as r(sku text, location text, owner text)
  join sku k on k.code = r.sku left join location l on l.code = r.location left join party p on p.code = r.owner
on conflict (sku_id, location_id) do update set owner_id = excluded.owner_id;

-- name: transfer_prices
-- What a buyer owes an owner for a unit.
select t.code, jsonb_build_object(
         'code', t.code, 'owner', o.code, 'buyer', coalesce(b.code, '*'), 'sku', k.code, 'category', t.category,
         'cents', t.cents, 'percent', t.percent, 'percent_of', t.percent_of, 'currency', t.currency,
         'from_on', t.from_on, 'until_on', t.until_on) as body
  from transfer_price t join party o on o.party_id = t.owner_id left join party b on b.party_id = t.buyer_id
  left join sku k using (sku_id)
 where (:codes::text[] is null or t.code = any(:codes)) and t.code > :after
 order by t.code limit :limit::int;

-- name: write_transfer_prices
-- Makes or changes transfer prices; entries that were made by them stay.
insert into transfer_price (code, owner_id, buyer_id, sku_id, category, cents, percent, percent_of, currency, from_on,
                            until_on)
select r.code, o.party_id, b.party_id, k.sku_id, r.category, r.cents, r.percent, r.percent_of, r.currency, r.from_on,
       r.until_on
  from jsonb_to_recordset(:rows) as r(code text, owner text, buyer text, sku text, category text, cents bigint,
       percent numeric, percent_of text, currency text, from_on date, until_on date)
  join party o on o.code = r.owner left join party b on b.code = r.buyer left join sku k on k.code = r.sku
on conflict (code) do update
  set owner_id = excluded.owner_id, buyer_id = excluded.buyer_id, sku_id = excluded.sku_id, category = excluded.category,
      cents = excluded.cents, percent = excluded.percent, percent_of = excluded.percent_of, currency = excluded.currency,
      from_on = excluded.from_on, until_on = excluded.until_on;

-- name: share_rules
-- Shares that are computed: by what a channel ordered of its pool in 28 days, its margin, or its rank in its pool.
with sold as (
  select o.channel_id, sum(n.quantity - n.cancelled)::float8 as demand,
         sum((n.quantity - n.cancelled) * greatest(0, coalesce(n.price_cents, s.price_cents, 0)
                                                      - coalesce(s.value_cents, 0)))::float8 as margin
    from order_line n join orders o using (order_id) join sku s on s.sku_id = n.sku_id
   where o.placed_at > :now::timestamptz - interval '28 days' group by o.channel_id
), weighed as (
  select r.rule_id, c.pool_id, r.share_by,
         case r.share_by when 'demand' then coalesce(d.demand, 0) when 'margin' then coalesce(d.margin, 0)
              else 1.0 / rank() over (partition by c.pool_id, r.share_by order by r.priority desc) end as weight
    from rule r join channel c using (channel_id) left join sold d using (channel_id)
   where r.share_by is not null and r.is_on
), shared as (
  select rule_id, case when sum(weight) over w > 0 then 100 * weight / sum(weight) over w
                       else 100.0 / count(*) over w end as percent
    from weighed window w as (partition by pool_id, share_by)
)
update rule r set percent = s.percent from shared s
 where s.rule_id = r.rule_id and r.percent is distinct from s.percent;

-- name: rules_at_edge
-- Rules that began, ended or changed since what channels are told followed them; they are followed now.
with due as (
  select rule_id, followed_at from rule
   where followed_at is null or (from_at > followed_at and from_at <= :now::timestamptz)
         or (until_at > followed_at and until_at <= :now::timestamptz)
   for update skip locked
)
update rule r set followed_at = :now,
       followed = case when r.kind = 'safety' then jsonb_build_object('sku', r.sku_id, 'location', r.location_id) end
  from due where r.rule_id = due.rule_id
returning r.kind, r.sku_id, r.location_id, old.followed;

-- name: restock_locations
-- The stock of these locations (null: of all) is to follow what is kept back there.
update location set rewrite_after = 0 where :locations::int[] is null or location_id = any(:locations::int[]);

-- name: hold_rules_behind
-- Rules of hold codes by which stock is folded though they are not in force, or the other way round; they are turned.
update rule r set is_applied = not r.is_applied
 where (r.kind = 'hold' and rule_is_live(r)) <> r.is_applied
returning r.rule_id;

-- name: held_differs
-- Keys that are folded with more or less under hold than codes that may not be sold say: among the codes that rules
-- name, or among all.
select h.sku_id, h.location_id
  from hold h join stock s using (sku_id, location_id)
 where h.lifted_at is null
   and (:every::boolean or exists (select from rule r where r.kind = 'hold' and r.hold_code = h.code))
 group by h.sku_id, h.location_id, s.held
having s.held <> (select coalesce(sum(o.quantity) filter (where not is_sellable(o.code, o.sku_id, o.location_id)), 0)
                    from hold o where o.sku_id = h.sku_id and o.location_id = h.location_id and o.lifted_at is null)
 order by h.sku_id, h.location_id limit :limit;

-- name: touch_every_sku
-- What channels are told of every sku is looked at again.
insert into touched (sku_id) select sku_id from availability order by sku_id;

-- name: approve_rule
-- A rule that waited for a second person is in force.
update rule set state = 'live', followed_at = null where code = :code and state = 'waiting' and made_by <> :who
returning rule_id;

-- name: transits
-- How long methods take.
select t.code, jsonb_build_object('code', t.code, 'method', t.method, 'miles', t.miles, 'days', t.days,
                                  'weekends', t.weekends) as body
  from transit t
 where (:codes::text[] is null or t.code = any(:codes)) and t.code > :after
 order by t.code limit :limit::int;

-- name: write_transits
-- Makes or changes transits.
insert into transit (code, method, miles, days, weekends)
select code, method, miles, days, weekends
  from jsonb_to_recordset(:rows) as r(code text, method text, miles float8, days int, weekends boolean)
on conflict (code) do update
  set method = excluded.method, miles = excluded.miles, days = excluded.days, weekends = excluded.weekends;

-- name: policies
-- Policies of brokering, as their newest version says.
select p.code, jsonb_build_object('code', p.code, 'body', v.body) as body
  from policy p
  join policy_version v on v.policy_id = p.policy_id
   and v.version = (select max(version) from policy_version n where n.policy_id = p.policy_id)
 where (:codes::text[] is null or p.code = any(:codes)) and p.code > :after
 order by p.code limit :limit::int;

-- name: write_policies
-- Drafts policies: each change is a new version.
with n as (
  select * from jsonb_to_recordset(:rows) as r(code text, body jsonb, made_by text)
), made as (
  insert into policy (code) select code from n on conflict (code) do nothing returning policy_id, code
)
insert into policy_version (policy_id, version, body, made_by)
select p.policy_id, coalesce((select max(version) from policy_version v where v.policy_id = p.policy_id), 0) + 1, n.body,
       n.made_by
  from n join (select policy_id, code from made union all select policy_id, code from policy) p using (code);

-- name: listeners
-- Who is told of exceptions.
select i.url as code, jsonb_build_object('url', i.url, 'secrets', i.secrets, 'on', i.is_on) as body
  from listener i
 where (:codes::text[] is null or i.url = any(:codes)) and i.url > :after
 order by i.url limit :limit::int;

-- name: write_listeners
-- Makes or changes listeners.
insert into listener (url, secrets, is_on)
select url, secrets, "on" from jsonb_to_recordset(:rows) as r(url text, secrets text[], "on" boolean)
on conflict (url) do update set secrets = excluded.secrets, is_on = excluded.is_on;

-- name: known
-- Which of these codes exist, by kind.
select 'location' as kind, code from location where code = any(:locations::text[])
union all select 'pool', code from pool where code = any(:pools::text[])
union all select 'source', code from source where code = any(:sources::text[]) and kind <> 'house'
union all select 'sku', code from sku where code = any(:skus::text[])
union all select 'channel', code from channel where code = any(:channels::text[])
union all select 'division', code from party where code = any(:divisions::text[]) and kind = 'division'
union all select 'party', code from party where code = any(:parties::text[]);

-- name: sku_ids
-- Ids of skus by code.
select sku_id from sku where code = any(:codes::text[]) order by sku_id;

-- name: codes_of_locations
-- Codes of these locations.
select code from location where location_id = any(:ids::int[]);

-- name: codes_of_channels
-- Codes of these channels.
select code from channel where channel_id = any(:ids::int[]);

-- name: codes_of_sources
-- Codes of these sources.
select code from source where source_id = any(:ids::int[]);

-- name: rewriting
-- A location whose stock rows are still to follow its safety stock and its on and off, and the skus done so far.
select location_id, rewrite_after from location where rewrite_after is not null order by location_id limit 1;

-- name: analyze_skus
-- Many skus were loaded.
analyze sku, availability;

-- name: analyze_sku_aliases
-- Many codes of skus were loaded.
analyze sku_alias;

-- name: analyze_units
-- Many units were loaded.
analyze unit;

-- name: analyze_kits
-- Many kits were loaded.
analyze kit;

-- name: analyze_locations
-- Many locations were loaded.
analyze location;

-- name: analyze_location_aliases
-- Many codes of locations were loaded.
analyze location_alias;
