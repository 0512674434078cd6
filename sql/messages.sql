-- name: take_messages
-- The inbox: a message is taken once; those that came before are not returned.
insert into message (source_id, message_id, hash, outcome, sequence, feed_id)
select :source_id, n.message_id, n.hash, 'applied', n.sequence, :feed_id
  from unnest(:messages::text[], :hashes::bytea[], :sequences::bigint[]) as n(message_id, hash, sequence)
 order by n.message_id
on conflict do nothing
returning message_id;

-- name: known_messages
-- What came before: its content's hash and what became of it.
select message_id, hash, outcome, coalesce(detail, '') from message
 where source_id = :source_id and message_id = any(:messages::text[]);

-- name: again
-- Parked messages that are tried again.
update message set outcome = 'applied', detail = null, payload = null, exception_id = null
 where source_id = :source_id and message_id = any(:messages::text[]) and outcome = 'parked'
returning message_id;

-- name: outcomes
-- What became of messages that were not plainly applied.
update message m
   set outcome = n.outcome, detail = n.detail, payload = n.payload, exception_id = n.exception_id
  from unnest(:messages::text[], :outcomes::text[], :details::text[], :payloads::jsonb[], :exceptions::uuid[])
       as n(message_id, outcome, detail, payload, exception_id)
 where m.source_id = :source_id and m.message_id = n.message_id;

-- name: resolve_messages
-- Codes as ids, with who owns this kind of fact there and the default for additions.
select n.k::int, coalesce(sa.sku_id, sk.sku_id) as sku_id, coalesce(la.location_id, lo.location_id) as location_id,
       coalesce(ta.location_id, tl.location_id) as to_id,
       case when n.uom is null or n.uom in ('each', 'EA', 'ea') then 1 else u.quantity end as per,
       coalesce(o.source_id, q.source_id) as owner_id, l.kind as location_kind, coalesce(ks.is_kit, false) as is_kit
  from unnest(:ks::int[], :skus::text[], :locations::text[], :tos::text[], :uoms::text[], :facts::text[])
       as n(k, sku, location, to_code, uom, fact)
  left join sku_alias sa on sa.source_id = :source_id and sa.code = n.sku
  left join sku sk on sa.sku_id is null and sk.code = n.sku
  left join sku ks on ks.sku_id = coalesce(sa.sku_id, sk.sku_id)
  left join location_alias la on la.source_id = :source_id and la.code = n.location
  left join location lo on la.location_id is null and lo.code = n.location
  left join location_alias ta on ta.source_id = :source_id and ta.code = n.to_code
  left join location tl on ta.location_id is null and tl.code = n.to_code
  left join unit u on u.sku_id = coalesce(sa.sku_id, sk.sku_id) and u.uom = n.uom
  left join location l on l.location_id = coalesce(la.location_id, lo.location_id)
  left join ownership o on o.location_id = l.location_id and o.fact = n.fact
  left join ownership q on q.location_id = l.location_id and q.fact = 'quantity'
 order by n.k;

-- name: kit_parts
-- The components of kits.
select kit_id, component_id, quantity from kit where kit_id = any(:kits::int[]) order by kit_id, component_id;

-- name: source_row
-- A source as its messages need it, and whether stock lies anywhere that is not its location's division's.
select source_id, code, order_level, window_seconds, additions,
       exists (select from stock_owner) or exists (select from location where owner_id is not null) as has_owners
  from source where code = :code;

-- name: ours
-- Which of these references name movements or fulfillment lines of ours, and their keys.
select n.reference, m.sku_id, m.location_id, abs(m.quantity) as quantity
  from unnest(:message_refs::text[]) as n(reference)
  join movement m on m.source_id = 1 and m.message_id = n.reference and m.kind <> 'baseline'
union
select n.reference, l.sku_id, f.location_id, l.quantity
  from unnest(:message_refs::text[]) as n(reference)
  join fulfillment_line l on l.reference in (n.reference, regexp_replace(n.reference, '/undone$', ''))
  join fulfillment f using (fulfillment_id)
 where not exists (select from movement m where m.source_id = 1 and m.message_id = n.reference and m.kind <> 'baseline');

-- name: acknowledge_posts
-- What a source has posted of ours, it need not be told again.
update post set acknowledged_at = clock_timestamp()
 where source_id = :source_id and reference = any(:message_refs::text[]) and acknowledged_at is null;

-- name: expect
-- Units in transit to a location: expected, never on hand, less those whose receipt came before their transfer.
insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)
select :source_id, n.reference, n.sku_id, n.location_id, 'transfer', n.quantity - r.quantity, n.due_on
  from unnest(:message_refs::text[], :skus::int[], :locations::int[], :quantities::int[], :dues::date[])
       as n(reference, sku_id, location_id, quantity, due_on)
  cross join lateral (select coalesce(sum(m.quantity), 0)::int as quantity from movement m
                       where m.sku_id = n.sku_id and m.location_id = n.location_id and m.kind = 'receipt'
                         and m.reference = n.reference) r
 where n.quantity > r.quantity
on conflict (source_id, reference, sku_id, location_id) do update set quantity = incoming.quantity + excluded.quantity;

-- name: arrive
-- Expected units that a receipt names have come.
update incoming i set quantity = greatest(0, i.quantity - n.quantity)
  from (select reference, sku_id, location_id, sum(quantity)::int as quantity
          from unnest(:message_refs::text[], :skus::int[], :locations::int[], :quantities::int[])
               as n(reference, sku_id, location_id, quantity)
         group by reference, sku_id, location_id) n
 where i.reference = n.reference and i.sku_id = n.sku_id and i.location_id = n.location_id;

-- name: parked_messages
-- Messages that wait for a mapping, oldest first, of which the sku or location may be known now.
select m.source_id, s.code as source, m.message_id, m.payload, m.exception_id
  from message m join source s using (source_id)
 where m.outcome = 'parked' and (m.source_id, m.message_id) > (:after_source::int, :after_message::text)
 order by m.source_id, m.message_id limit :limit;

-- name: hold_by_id
-- A hold in force with its location.
select h.hold_id, h.sku_id, h.location_id, h.code, h.quantity, h.version, h.source_id, h.placed_at
  from hold h where h.hold_id = :hold_id and h.lifted_at is null;

-- name: holds_page
-- Holds in force, at these locations where some are given.
select h.hold_id as id, s.code as sku, l.code as location, h.code, h.quantity, o.code as source, h.placed_at
  from hold h join sku s using (sku_id) join location l using (location_id) join source o on o.source_id = h.source_id
 where h.lifted_at is null and h.hold_id > :after and (:locations::int[] is null or h.location_id = any(:locations))
 order by h.hold_id limit :limit;

-- name: unposted
-- What began with us and a source has not yet acknowledged: it is applied again over that source's snapshots.
select m.message_id as id, s.code as sku, l.code as location, m.kind, p.quantity, p.hold_code as hold, p.held, m.occurred_at
  from posting p
  join movement m using (sku_id, location_id, version)
  join ownership o on o.location_id = p.location_id and o.fact = 'quantity' and o.source_id = :source_id
  join sku s on s.sku_id = p.sku_id join location l on l.location_id = p.location_id
 where p.contained_in is null and p.is_ours and p.acked_at is null and p.acked_sequence is null
   and (:after_at::timestamptz is null or (m.occurred_at, m.message_id) > (:after_at, :after_id::text))
 order by m.occurred_at, m.message_id limit :limit;

-- name: sequence_gaps
-- Numbers that a source skipped and that did not come within the grace time.
select g.source_id, s.code, g.previous, g.sequence
  from (select source_id, sequence, recorded_at, lag(sequence) over (partition by source_id order by sequence) as previous
          from message where sequence is not null) g
  join source s using (source_id)
 where g.sequence > g.previous + 1 and g.recorded_at < :before
 order by g.source_id, g.sequence limit 100;

-- name: source_id_of
-- A source's id.
select source_id from source where code = :code;

-- name: settle_mapped
-- Exceptions of unknown codes that nothing waits for any more.
update exception e set state = 'resolved', resolved_at = clock_timestamp(), resolved_by = :who,
       resolution = 'the mapping was added'
 where e.exception_id = any(:exceptions::uuid[]) and e.state = 'open'
   and not exists (select from message m where m.exception_id = e.exception_id and m.outcome = 'parked');
