-- name: feeds_page
-- Deliveries, the newest first; with a location only those that speak of it.
select f.feed_id as id, s.code as source, f.source_id, f.kind, f.name, f.state, f.scope, f.as_of,
       extract(epoch from clock_timestamp() - coalesce(f.as_of, f.received_at))::bigint as age_seconds,
       extract(epoch from clock_timestamp() - coalesce(f.as_of, f.received_at)) > s.stale_after_seconds as is_stale,
       (select coalesce(jsonb_object_agg(o.code, w.value), '{}')
          from jsonb_each(f.watermark) w join source o on o.source_id = w.key::int) as watermark,
       f.rows, f.refused_rows as refused, f.totals, f.refused_why, f.dry_run, f.received_by, f.received_at, f.finished_at
  from feed f join source s using (source_id)
 where (:before::bigint is null or f.feed_id < :before) and (:feed_id::bigint is null or f.feed_id = :feed_id)
   and (:source_id::int is null or f.source_id = :source_id) and (:source::text is null or s.code = :source)
   and (:state::text is null or f.state = :state)
   and (:locations::int[] is null
        or exists (select from baseline b where b.feed_id = f.feed_id and b.location_id = any(:locations)))
 order by f.feed_id desc limit :limit;

-- name: parts_of
-- The parts of a feed by location: their state, what the gates measured, and whether they are in force.
select b.baseline_id, l.code as location, b.state, l.baseline_id is not distinct from b.baseline_id as in_force, b.numbers,
       b.applied_at
  from baseline b join location l using (location_id)
 where b.feed_id = :feed_id and (:locations::int[] is null or b.location_id = any(:locations))
 order by l.code;

-- name: refusals_of
-- Rows of a feed that were refused, by line.
select line, field, reason, value from feed_refusal
 where feed_id = :feed_id and (line, field) > (:line::bigint, :field::text)
 order by line, field limit :limit;

-- name: part_at
-- The part of a feed that speaks of a location.
select b.baseline_id, b.location_id from baseline b join location l using (location_id)
 where b.feed_id = :feed_id and l.code = :location;
