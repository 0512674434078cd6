-- name: schedules
-- Sources with a morning of their own: its local time, its zone, and when it last began.
select s.code, s.morning_at, s.time_zone, max(m.started_at) as last
  from source s left join morning m using (source_id)
 where s.morning_at is not null
 group by s.source_id order by s.source_id;

-- name: begin_morning
-- A morning begins, of one source or of all.
insert into morning (asked_by, source_id, leased_until)
values (:who, (select source_id from source where code = :source), clock_timestamp() + interval '1 hour')
returning morning_id;

-- name: end_morning
-- A morning is done, with what each step took.
update morning set state = 'done', finished_at = clock_timestamp(), steps = :steps where morning_id = :morning_id;

-- name: channel_codes
-- Channels that are told something.
select code from channel where is_on and kind <> 'none' order by code;

-- name: has_open
-- Whether any line waits to be brokered.
select exists (select from order_line where open > 0 and hold is null);

-- name: stale_locations
-- Locations whose owner's snapshot is older than its source allows.
select l.code as location, s.code as source, b.as_of
  from location l join baseline b using (baseline_id) join source s on s.source_id = b.source_id
 where b.as_of < :now::timestamptz - make_interval(secs => s.stale_after_seconds)
 order by l.code;
