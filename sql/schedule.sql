-- name: schedules
-- Sources with a morning of their own: its local time, its zone, and when the last one began that counts: a failed one
-- counts for a while only, so that it is tried again; where none was ever done, from the first one that failed.
select s.code, s.morning_at, s.time_zone,
       coalesce(max(m.started_at) filter (where m.state = 'done' or m.finished_at > :now::timestamptz - :again::interval),
                min(m.started_at) - interval '1 day') as last
  from source s left join morning m using (source_id)
 where s.morning_at is not null
 group by s.source_id order by s.source_id;

-- name: keep_morning
-- A morning that ended, with what each step took.
insert into morning (state, asked_by, source_id, started_at, steps)
values (:state, :who, (select source_id from source where code = :source), :started_at, :steps);

-- name: channel_codes
-- Channels that are told something.
select code from channel where is_on and kind <> 'none' order by code;

-- name: has_open
-- Whether any line waits to be brokered, at this minute of the day.
select exists (select from order_line l join orders o using (order_id) join channel c using (channel_id)
                where l.open > 0 and l.hold is null and is_brokered_at(c.brokering, o.method, :minute, :every));

-- name: any_at_once
-- Whether any channel that is on has orders decided at once: all that say nothing else.
select exists (select from channel where is_on and (coalesce(brokering ->> '*', 'at_once') = 'at_once'
                                                    or 'at_once' in (select value from jsonb_each_text(brokering))));

-- name: stale_locations
-- Locations whose owner's snapshot is older than its source allows.
select l.code as location, s.code as source, b.as_of
  from location l join baseline b using (baseline_id) join source s on s.source_id = b.source_id
 where b.as_of < :now::timestamptz - make_interval(secs => s.stale_after_seconds)
 order by l.code;
