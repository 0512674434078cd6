-- name: folders
-- Sources whose deliveries are dropped in a folder.
select code, folder from source where folder is not null and (:source::text is null or code = :source) order by source_id;

-- name: shops
-- Channels that are on, with how far their orders are read.
select channel_id, code, kind, settings, captured_until from channel where is_on order by channel_id;

-- name: try_lock
-- Whether this session may run the morning now.
select pg_try_advisory_lock(:lock::bigint);

-- name: unlock
-- The morning is over.
select pg_advisory_unlock(:lock::bigint);

-- name: is_locked
-- Whether any session of this database runs the morning now.
select exists (select from pg_locks
                where locktype = 'advisory' and objsubid = 1 and classid = 0 and objid = :lock::bigint::oid
                  and database = (select oid from pg_database where datname = current_database()));

-- name: analyze
-- What was loaded is known to the planner before orders are; of an empty table it would remember that for good.
do $$
declare
  name text;
  has_rows boolean;
begin
  foreach name in array array['sku', 'sku_alias', 'stock', 'availability', 'kit', 'movement', 'posting', 'hold',
                              'location', 'layout_location'] loop
    execute format('select exists (select from %I)', name) into has_rows;
    if has_rows then
      execute format('analyze %I', name);
    end if;
  end loop;
end $$;
