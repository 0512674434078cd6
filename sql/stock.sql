-- name: meant
-- What scanned codes may mean: our own code, or a barcode in any of its lengths.
select distinct n.k::int, s.sku_id, s.code as sku, s.is_kit, coalesce(s.value_cents, s.price_cents) as value_cents
  from unnest(:ks::int[], :codes::text[]) as n(k, code)
  left join sku_barcode b on b.barcode = n.code
  join sku s on s.code = n.code or s.sku_id = b.sku_id
 order by 1, 2;

-- name: place
-- A location as its stock is changed: its kind, its day, whose its quantities are, and how additions wait.
select l.location_id, l.code, l.kind, l.time_zone, q.kind as owner_kind, q.code as owner,
       coalesce(r.additions, q.additions, '{}') as additions
  from location l
  left join ownership oq on oq.location_id = l.location_id and oq.fact = 'quantity'
  left join source q on q.source_id = oq.source_id
  left join ownership o on o.location_id = l.location_id and o.fact = 'receipt'
  left join source r on r.source_id = o.source_id
 where l.location_id = :location_id;

-- name: expected
-- What is still expected under a reference at a location.
select i.sku_id, s.code as sku, i.quantity
  from incoming i join sku s using (sku_id)
 where i.location_id = :location_id and i.reference = :reference and i.quantity > 0 order by i.sku_id;

-- name: came
-- Expected units have come; with the last of a delivery, nothing more is expected.
update incoming i set quantity = case when :is_final then 0 else greatest(0, i.quantity - coalesce(n.quantity, 0)) end
  from incoming k
  left join unnest(:skus::int[], :quantities::int[]) as n(sku_id, quantity) on n.sku_id = k.sku_id
 where k.location_id = :location_id and k.reference = :reference and k.quantity > 0 and i.incoming_id = k.incoming_id
   and (:is_final or n.sku_id is not null);

-- name: keep_receipt
-- What was received, against what was expected.
with head as (
  insert into receipt (receipt_id, location_id, reference, is_final, who, device, received_at)
  values (:id, :location_id, :reference::text, :is_final, :who, :device::text, :at)
)
insert into receipt_line (receipt_id, sku_id, expected, quantity, damaged, hold_code)
select :id, * from unnest(:skus::int[], :expecteds::int[], :quantities::int[], :damaged::int[], :holds::text[]);

-- name: receipts_of
-- Receipts at locations, newest first.
select r.receipt_id as id, l.code as location, r.reference, r.is_final, r.who, r.device, r.received_at,
       (select coalesce(jsonb_agg(jsonb_build_object('sku', s.code, 'expected', n.expected, 'quantity', n.quantity,
                                                     'damaged', n.damaged, 'hold', n.hold_code) order by s.code), '[]')
          from receipt_line n join sku s using (sku_id) where n.receipt_id = r.receipt_id) as lines
  from receipt r join location l using (location_id)
 where (:locations::int[] is null or r.location_id = any(:locations)) and (:code::text is null or l.code = :code)
   and (:before::uuid is null or r.receipt_id < :before)
 order by r.receipt_id desc limit :limit;

-- name: end_rest
-- New stock of these skus is there: the location is asked for them again.
delete from sku_rest where location_id = :location_id and sku_id = any(:skus::int[]);

-- name: ask_transfer
-- A transfer is asked for.
with head as (
  insert into transfer (transfer_id, from_id, to_id, order_id, why, labor_cents, transport_cents, due_on, asked_by, asked_at)
  values (:id, :from_id, :to_id, :order_id::uuid, :why::text, :labor_cents, :transport_cents, :due_on::date, :who, :at)
)
insert into transfer_line (transfer_id, sku_id, asked) select :id, * from unnest(:skus::int[], :quantities::int[]);

-- name: take_transfer
-- Takes a transfer.
select t.transfer_id, t.from_id, f.code as from_code, t.to_id, g.code as to_code, t.state, t.due_on
  from transfer t join location f on f.location_id = t.from_id join location g on g.location_id = t.to_id
 where t.transfer_id::text = :id for update of t;

-- name: transfer_lines
-- The lines of a transfer.
select n.sku_id, s.code as sku, n.asked, n.sent, n.received, n.damaged, n.hold_code
  from transfer_line n join sku s using (sku_id) where n.transfer_id = :id order by n.sku_id;

-- name: transfer_sent
-- A transfer has left.
with lines as (
  update transfer_line t set sent = n.quantity
    from unnest(:skus::int[], :quantities::int[]) as n(sku_id, quantity)
   where t.transfer_id = :id and t.sku_id = n.sku_id
)
update transfer set state = 'sent', sent_at = :at, carrier = :carrier::text, tracking = :tracking::text, due_on = :due_on,
       labor_cents = labor_cents + :labor_cents, transport_cents = transport_cents + :transport_cents
 where transfer_id = :id;

-- name: in_transit
-- What has left is expected at the other end, never on hand.
insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)
select 1, :reference, n.sku_id, :location_id::int, 'transfer', n.quantity, :due_on::date
  from unnest(:skus::int[], :quantities::int[]) as n(sku_id, quantity) where n.quantity > 0;

-- name: transfer_came
-- Units of a transfer have come; it is done with the last of them.
with lines as (
  update transfer_line t set received = t.received + n.quantity, damaged = t.damaged + n.damaged
    from unnest(:skus::int[], :quantities::int[], :damaged::int[]) as n(sku_id, quantity, damaged)
   where t.transfer_id = :id and t.sku_id = n.sku_id
)
update transfer set state = case when :is_done then 'received' else state end, received_at = :at,
       labor_cents = labor_cents + :labor_cents
 where transfer_id = :id;

-- name: cancel_transfer
-- A transfer that has not left is cancelled.
update transfer set state = 'cancelled' where transfer_id = :id and state = 'asked';

-- name: transfers_of
-- Transfers from or to locations, newest first.
select t.transfer_id as id, f.code as from_location, g.code as to_location, t.order_id, t.state, t.why, t.labor_cents, t.transport_cents,
       t.carrier, t.tracking, t.due_on, t.asked_by, t.asked_at, t.sent_at, t.received_at,
       (select coalesce(jsonb_agg(jsonb_build_object('sku', s.code, 'asked', n.asked, 'sent', n.sent, 'received',
                                    n.received, 'damaged', n.damaged, 'in_transit', case when t.state = 'sent'
                                    then greatest(0, n.sent - n.received) else 0 end) order by s.code), '[]')
          from transfer_line n join sku s using (sku_id) where n.transfer_id = t.transfer_id) as lines
  from transfer t join location f on f.location_id = t.from_id join location g on g.location_id = t.to_id
 where (:locations::int[] is null or t.from_id = any(:locations) or t.to_id = any(:locations))
   and (:id::uuid is null or t.transfer_id = :id) and (:state::text is null or t.state = :state)
   and (:before::uuid is null or t.transfer_id < :before)
 order by t.transfer_id desc limit :limit;

-- name: take_limits
-- Takes how a location works, so that what is lost there on a day is added up by one at a time.
select r.location_id, r.write_off_cents_max, r.recount_units_min from work_rule r where r.location_id = :location_id for update;

-- name: lost_today
-- What a person has written off at a location on a local day.
select coalesce(sum(cents), 0)::bigint from write_off
 where location_id = :location_id and day = :day and requested_by = :who and state = 'applied';

-- name: keep_write_off
-- A loss, applied or waiting for a second person.
insert into write_off (write_off_id, location_id, day, kind, state, cents, lines, reference, requested_by, requested_at)
values (:id, :location_id, :day, :kind, :state, :cents, :lines, :reference::text, :who, :at);

-- name: take_write_off
-- Takes a write-off.
select w.write_off_id, w.location_id, l.code as location, w.day, w.kind, w.state, w.cents, w.lines, w.reference,
       w.requested_by, w.requested_at
  from write_off w join location l using (location_id) where w.write_off_id = :id for update of w;

-- name: decided
-- A write-off is decided.
update write_off set state = :state, decided_by = :who::text, decided_at = :at where write_off_id = :id;

-- name: asked_write_offs
-- Write-offs that a return asked for.
select write_off_id from write_off where state = 'asked' order by requested_at limit :limit;

-- name: write_offs_of
-- Write-offs at locations, newest first.
select w.write_off_id as id, l.code as location, w.day, w.kind, w.state, w.cents, w.lines, w.reference, w.requested_by,
       w.requested_at, w.decided_by, w.decided_at
  from write_off w join location l using (location_id)
 where (:locations::int[] is null or w.location_id = any(:locations)) and (:state::text is null or w.state = :state)
   and (:id::uuid is null or w.write_off_id = :id) and (:before::uuid is null or w.write_off_id < :before)
 order by w.write_off_id desc limit :limit;

-- name: places_to_plan
-- Locations whose counts of this day are not planned yet, with whether a system owns their quantities.
select l.location_id, (:now::timestamptz at time zone l.time_zone)::date as day,
       coalesce(s.kind = 'wms', false) as is_requested, coalesce(s.code, '') as owner
  from location l
  left join ownership o on o.location_id = l.location_id and o.fact = 'quantity'
  left join source s using (source_id)
 where l.is_on and l.kind in ('store', 'warehouse')
   and not exists (select from counting c where c.location_id = l.location_id and c.made_by = 'oms'
                      and c.due_on = (:now::timestamptz at time zone l.time_zone)::date)
 order by l.location_id;

-- name: plan_count
-- The skus that are due to be counted at a location: what is in doubt first, then by what is at stake.
with rules as (
  select * from work_rule where location_id = :location_id
), keys as (
  select s.sku_id, s.counted_at, abs(s.on_hand)::bigint * coalesce(k.value_cents, k.price_cents, 1000) as cents,
         s.is_ambiguous or s.on_hand < 0
           or exists (select from rejected_before b, rules r
                       where b.sku_id = s.sku_id and b.location_id = s.location_id and b.until > :now
                         and (s.counted_at is null
                              or s.counted_at < b.until - make_interval(hours => r.not_again_hours))) as is_doubtful,
         (select count(*) from movement m where m.sku_id = s.sku_id and m.location_id = s.location_id
             and m.kind in ('sale', 'shipment') and m.occurred_at > :now::timestamptz - interval '28 days') >= 4 as is_fast
    from stock s join sku k using (sku_id)
   where s.location_id = :location_id and (s.on_hand <> 0 or s.is_ambiguous)
     and not exists (select from count_line n join counting c using (count_id)
                      where n.sku_id = s.sku_id and c.location_id = s.location_id and c.state = 'open'
                        and n.state in ('due', 'recount', 'waiting'))
), due as (
  select k.*, case when k.is_doubtful then 'in doubt' when k.is_fast then 'fast mover' else 'slow mover' end as why
    from keys k, rules r
   where k.is_doubtful or k.counted_at is null
      or k.counted_at <= :now::timestamptz - make_interval(days => case when k.is_fast then r.count_fast_days else r.count_slow_days end)
   order by k.is_doubtful desc, k.is_fast desc, k.cents desc, k.sku_id limit (select count_lines_max from rules)
), head as (
  insert into counting (count_id, location_id, kind, due_on, made_by, made_at)
  select :id, :location_id, :kind, :day, 'oms', :now where exists (select from due)
  returning count_id
)
insert into count_line (count_id, sku_id, why) select h.count_id, d.sku_id, d.why from head h, due d;

-- name: make_count
-- A count that a person asks for: of these skus, or (null) of all that the location has.
with head as (
  insert into counting (count_id, location_id, kind, why, due_on, made_by, made_at)
  values (:id, :location_id, :kind, :why::text, :day, :who, :now)
)
insert into count_line (count_id, sku_id)
select :id, s.sku_id from stock s
 where s.location_id = :location_id and :skus::int[] is null and (s.on_hand <> 0 or s.allocated > 0)
union
select :id, n from unnest(:skus::int[]) as n;

-- name: request_count
-- A system that owns the quantities is asked to count.
insert into notice (kind, subject, body)
select 'count_requested', c.count_id::text,
       jsonb_build_object('count', c.count_id, 'location', l.code, 'source', :source::text, 'skus',
                          (select jsonb_agg(s.code order by s.code) from count_line n join sku s using (sku_id)
                            where n.count_id = c.count_id))
  from counting c join location l using (location_id) where c.count_id = :id
on conflict do nothing;

-- name: requests_done
-- Requested counts that their systems have sent: their keys were counted since.
with counted as (
  update count_line n set state = 'applied', counted_at = s.counted_at
    from counting c, stock s
   where c.count_id = n.count_id and c.kind = 'request' and c.state = 'open' and n.state = 'due'
     and s.sku_id = n.sku_id and s.location_id = c.location_id and s.counted_at > c.made_at
  returning n.count_id, n.sku_id
)
update counting c set state = 'closed', closed_at = :now
 where c.kind = 'request' and c.state = 'open' and exists (select from counted d where d.count_id = c.count_id)
   and not exists (select from count_line n where n.count_id = c.count_id and n.state = 'due'
                      and not exists (select from counted d where d.count_id = n.count_id and d.sku_id = n.sku_id));

-- name: take_count
-- Takes a count.
select c.count_id, c.location_id, l.code as location, c.kind, c.state, c.made_at
  from counting c join location l using (location_id) where c.count_id = :id for update of c;

-- name: count_lines
-- The lines of a count.
select n.sku_id, s.code as sku, n.state, n.counted, n.counted_at, n.counted_by, n.variance, n.reason,
       coalesce(s.value_cents, s.price_cents) as value_cents
  from count_line n join sku s using (sku_id) where n.count_id = :id order by n.sku_id;

-- name: write_count_lines
-- What was counted, and what becomes of it.
insert into count_line (count_id, sku_id, state, counted, counted_at, counted_by, variance, reason)
select :id, n.sku_id, n.state, n.counted, :at, :who, n.variance, n.reason
  from unnest(:skus::int[], :states::text[], :counted::int[], :variances::int[], :reasons::text[])
       as n(sku_id, state, counted, variance, reason)
on conflict (count_id, sku_id) do update
  set state = excluded.state, counted = excluded.counted, counted_at = excluded.counted_at,
      counted_by = excluded.counted_by, variance = excluded.variance, reason = excluded.reason;

-- name: leave_lines
-- Lines that were not counted stay as they are.
update count_line set state = 'untouched' where count_id = :id and state = 'due';

-- name: close_count
-- A count is done.
update counting set state = 'closed', closed_at = :at where count_id = :id;

-- name: settle_lines
-- Lines that waited for a second person are decided.
update count_line set state = :state, variance = coalesce(n.variance, count_line.variance)
  from unnest(:skus::int[], :variances::int[]) as n(sku_id, variance)
 where count_line.count_id = :id and count_line.sku_id = n.sku_id and count_line.state = 'waiting';

-- name: in_hands_at
-- Units that were picked and had not left at a moment: a count of the shelf did not see them.
select p.sku_id, sum(p.quantity)::int as units
  from pick_step p join fulfillment f using (fulfillment_id)
 where f.location_id = :location_id and p.sku_id = any(:skus::int[]) and p.at <= :at
   and not (f.state in ('shipped', 'handed_over') and f.changed_at <= :at)
 group by p.sku_id;

-- name: counts_of
-- Counts at locations, what is due first.
select c.count_id as id, l.code as location, c.kind, c.state, c.why, c.due_on, c.made_by, c.made_at, c.closed_at,
       (select count(*)::int from count_line n where n.count_id = c.count_id) as lines,
       (select count(*)::int from count_line n where n.count_id = c.count_id and n.state in ('due', 'recount')) as due
  from counting c join location l using (location_id)
 where (:locations::int[] is null or c.location_id = any(:locations)) and (:code::text is null or l.code = :code)
   and (:state::text is null or c.state = :state) and (:id::uuid is null or c.count_id = :id)
 order by c.state desc, c.due_on, c.count_id limit :limit;

-- name: variances
-- What counts found in a period, by reason: units and value, too few and too many apart.
select l.code as location, coalesce(n.reason, 'unexplained') as reason, count(*)::int as lines,
       (-coalesce(sum(n.variance) filter (where n.variance < 0), 0))::int as units_short,
       coalesce(sum(n.variance) filter (where n.variance > 0), 0)::int as units_over,
       coalesce(sum(n.variance::bigint * coalesce(s.value_cents, s.price_cents, 1000)), 0)::bigint as cents
  from count_line n join counting c using (count_id) join location l using (location_id) join sku s using (sku_id)
 where n.state = 'applied' and n.variance <> 0 and n.counted_at >= :since and n.counted_at < :until
   and (:locations::int[] is null or c.location_id = any(:locations))
 group by 1, 2 order by 1, 2;
