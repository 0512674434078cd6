-- name: take_handoffs
-- What is due to be told to fulfillers, leased: each take counts as an attempt. Of what was taken back wholly before its
-- release was tried, there is nothing to say.
with due as (
  select h.handoff_id from handoff h
   where h.state = 'due' and h.not_before <= :now and (h.leased_until is null or h.leased_until <= :now)
   order by h.not_before, h.handoff_id limit :limit for update skip locked
), dropped as (
  update handoff h set state = 'dropped', answer = 'taken back before it was told'
    from fulfillment f, handoff b
   where h.handoff_id in (select handoff_id from due)
     and f.fulfillment_id = h.fulfillment_id and f.state in ('recalled', 'rejected')
     and b.fulfillment_id = h.fulfillment_id and b.act = 'release'
     and (b.state = 'dropped' or (b.state = 'due' and b.attempts = 0))
  returning h.handoff_id
), taken as (
  update handoff h set attempts = h.attempts + 1, leased_until = :now::timestamptz + make_interval(secs => :lease_seconds)
    from due where h.handoff_id = due.handoff_id and h.handoff_id not in (select handoff_id from dropped)
  returning h.*
)
select t.handoff_id, t.fulfillment_id, t.act, t.version, t.attempts, t.made_at, r.kind, r.settings, f.location_id,
       l.code as location, o.number, o.method, o.priority, o.pickup_location_id is not null as is_pickup, o.ship_to,
       coalesce((select jsonb_agg(jsonb_build_object('line', n.line, 'sku', s.code, 'quantity', g.quantity,
                                                     'reference', g.reference) order by g.line_id)
                   from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
                  where g.fulfillment_id = f.fulfillment_id and g.quantity > 0), '[]') as lines,
       coalesce(b.state, 'dropped') as release_state
  from taken t
  join fulfillment f using (fulfillment_id)
  join fulfiller r using (location_id)
  join location l using (location_id)
  join orders o using (order_id)
  left join handoff b on b.fulfillment_id = t.fulfillment_id and b.act = 'release'
 order by t.made_at;

-- name: settle_handoff
-- What became of an attempt, unless the work has changed since or another took it up.
update handoff set state = case when state = 'due' then :state else state end, answer = :answer, not_before = :not_before,
       leased_until = null, sent_at = case when :state::text = 'sent' then :now else sent_at end
 where handoff_id = :handoff_id and version = :version and attempts = :attempts;

-- name: acknowledge_handoff
-- The fulfiller has taken it over (or back).
update handoff set state = 'acknowledged', acknowledged_at = coalesce(acknowledged_at, :at)
 where fulfillment_id = :id and act = :act and state in ('due', 'sent', 'dead');

-- name: drop_recall
-- The fulfiller said it itself: there is nothing to tell it.
update handoff set state = 'dropped', answer = 'said by the fulfiller'
 where fulfillment_id = :id and act = 'recall' and state = 'due' and attempts = 0;

-- name: late_releases
-- Releases that nobody acknowledged within their time, of work that still waits.
select h.fulfillment_id, l.code as location, o.number, r.acknowledge_minutes as minutes, h.state, h.answer
  from handoff h
  join fulfillment f using (fulfillment_id)
  join fulfiller r using (location_id)
  join location l using (location_id)
  join orders o using (order_id)
 where h.act = 'release' and h.state in ('due', 'sent', 'dead') and f.state = 'released'
   and h.made_at + make_interval(mins => r.acknowledge_minutes) <= :now
 order by h.made_at limit :limit;

-- name: take_said
-- The inbox of a fulfiller: an answer is taken once.
insert into fulfiller_message (location_id, message_id, hash) values (:location_id, :message_id, :hash)
on conflict do nothing returning message_id;

-- name: said_before
-- The hash of an answer that came before.
select hash from fulfiller_message where location_id = :location_id and message_id = :message_id;

-- name: fulfiller_of
-- The system that runs a location.
select r.location_id, l.code as location, r.kind, r.settings, r.acknowledge_minutes, r.is_on
  from fulfiller r join location l using (location_id) where l.code = :code;

-- name: fulfillers
-- Every system that runs a location.
select r.location_id, l.code as location, r.kind, r.settings, r.acknowledge_minutes, r.is_on
  from fulfiller r join location l using (location_id) order by l.code;

-- name: write_fulfiller
-- A system runs a location.
insert into fulfiller (location_id, kind, settings, acknowledge_minutes, is_on)
select l.location_id, :kind, :settings, :acknowledge_minutes, :is_on from location l where l.code = :code
on conflict (location_id) do update set kind = excluded.kind, settings = excluded.settings,
  acknowledge_minutes = excluded.acknowledge_minutes, is_on = excluded.is_on;

-- name: work_of
-- A fulfillment of a location, with its order, whatever its state.
select f.fulfillment_id, f.order_id, f.state, o.number, o.pickup_location_id is not null as is_pickup
  from fulfillment f join orders o using (order_id)
 where f.fulfillment_id = :id and f.location_id = :location_id;

-- name: given_lines
-- What a fulfillment was given at first, and has now; and what of it left though it was taken back.
select g.line_id, n.line, g.sku_id, s.code as sku, g.given, g.quantity, g.reference,
       (select -coalesce(sum(m.effect), 0) from movement m
         where m.source_id = 1 and m.message_id = g.reference || '/late' and m.kind <> 'baseline')::int as has_left
  from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
 where g.fulfillment_id = :id order by g.line_id;
