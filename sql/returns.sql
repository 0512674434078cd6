-- name: take_order_of_return
-- Takes the order that a return is of, by its id or its channel's number.
select o.order_id, o.channel_id from orders o join channel c using (channel_id)
 where (o.order_id = :id::uuid or (:id::uuid is null and c.code = :channel::text and o.number = :number::text))
   and (:channels::int[] is null or o.channel_id = any(:channels)) for update of o;

-- name: returnable
-- The lines of an order with what of them may still come back.
select n.line_id, n.line, n.sku_id, s.code as sku, coalesce(n.price_cents, 0) as price_cents,
       greatest(0, n.shipped - n.returned - coalesce(r.expected, 0))::int as left
  from order_line n
  join sku s using (sku_id)
  left join (select l.line_id, sum(greatest(0, l.expected - l.received)) as expected
               from return_line l join customer_return c using (return_id)
              where c.order_id = :id and c.state = 'expected' group by l.line_id) r using (line_id)
 where n.order_id = :id order by n.line_id for update of n;

-- name: make_return
-- A return, with its lines.
with head as (
  insert into customer_return (return_id, channel_id, order_id, location_id, is_blind, state, made_by, made_at)
  values (:id, :channel_id::int, :order_id::uuid, :location_id, :is_blind, 'expected', :who, :at)
)
insert into return_line (return_id, number, line_id, sku_id, reason, price_cents, expected)
select :id, n.number, n.line_id, n.sku_id, n.reason, n.price_cents, n.expected
  from unnest(:numbers::int[], :lines::bigint[], :skus::int[], :reasons::text[], :prices::int[], :expecteds::int[])
       as n(number, line_id, sku_id, reason, price_cents, expected);

-- name: order_of_return
-- Takes the order of a return before the return itself.
select o.order_id from orders o where o.order_id = (select order_id from customer_return where return_id = :id) for update;

-- name: take_return
-- Takes a return.
select r.return_id, r.order_id, r.channel_id, r.location_id, l.code as location, r.state, r.is_blind
  from customer_return r join location l using (location_id) where r.return_id = :id for update of r;

-- name: return_lines
-- The lines of a return, and how many units of their order lines are out.
select n.number, n.line_id, n.sku_id, s.code as sku, n.reason, n.price_cents, n.expected, n.received, n.inspected,
       n.refunded, coalesce(s.value_cents, s.price_cents) as value_cents,
       case when o.line_id is null then null else o.shipped - o.returned end as out
  from return_line n join sku s using (sku_id) left join order_line o using (line_id)
 where n.return_id = :id order by n.number;

-- name: returned_units
-- Units of order lines that came back.
update order_line l set returned = l.returned + n.quantity
  from (select line_id, sum(quantity)::int as quantity
          from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) group by line_id) n
 where l.line_id = n.line_id;

-- name: received_lines
-- Lines of a return are here, at this location.
with here as (
  update customer_return set state = 'received', location_id = :location_id, received_at = coalesce(received_at, :at)
   where return_id = :id
)
update return_line t set received = t.received + n.quantity
  from unnest(:numbers::int[], :quantities::int[]) as n(number, quantity)
 where t.return_id = :id and t.number = n.number;

-- name: inspected_lines
-- Units of a return were looked at.
update return_line t set inspected = t.inspected + n.quantity, refunded = t.refunded + n.refunded
  from (select number, sum(quantity)::int as quantity, sum(refunded)::int as refunded
          from unnest(:numbers::int[], :quantities::int[], :refunds::int[]) as n(number, quantity, refunded)
         group by number) n
 where t.return_id = :id and t.number = n.number;

-- name: keep_inspections
-- What was found of units that came back, and where they go by which rule.
insert into inspection (return_id, number, quantity, condition, outcome, hold_code, to_id, km, rule, who, device, at)
select :id, n.number, n.quantity, n.condition, n.outcome, n.hold_code, n.to_id, n.km, n.rule, :who, :device::text, :at
  from unnest(:numbers::int[], :quantities::int[], :conditions::text[], :outcomes::text[], :holds::text[], :tos::int[],
              :kms::float8[], :rules::text[])
       as n(number, quantity, condition, outcome, hold_code, to_id, km, rule);

-- name: inspections_before
-- How many inspections a return has: their movements have ids of their own.
select count(*)::int from inspection where return_id = :id;

-- name: return_done
-- A return is done, and its refund is announced, once.
with done as (
  update customer_return set state = 'done', done_at = :at where return_id = :id and state <> 'done' returning *
)
insert into notice (kind, subject, channel_id, order_id, body)
select 'refund_due', d.return_id::text, d.channel_id, d.order_id,
       jsonb_build_object('return', d.return_id, 'order', o.number, 'location', l.code,
         'cents', (select coalesce(sum(n.refunded::bigint * coalesce(n.price_cents, 0)), 0) from return_line n
                    where n.return_id = d.return_id),
         'lines', (select jsonb_agg(jsonb_build_object('line', m.line, 'sku', s.code, 'received', n.received,
                                                       'refunded', n.refunded, 'reason', n.reason) order by n.number)
                     from return_line n join sku s using (sku_id) left join order_line m using (line_id)
                    where n.return_id = d.return_id))
  from done d join location l using (location_id) left join orders o using (order_id)
on conflict (kind, subject) do nothing;

-- name: return_rules
-- Where what comes back goes.
select code, rank, reason, condition, location_id, outcome, hold_code, to_id, km_max, refunds from return_rule order by rank, code;

-- name: rules_shown
-- Where what comes back goes, with locations by their codes.
select r.code, r.rank, r.reason, r.condition, l.code as location, r.outcome, r.hold_code, t.code as to_location, r.km_max, r.refunds
  from return_rule r left join location l using (location_id) left join location t on t.location_id = r.to_id
 order by r.rank, r.code;

-- name: write_rule
-- A rule for what comes back.
insert into return_rule (code, rank, reason, condition, location_id, outcome, hold_code, to_id, km_max, refunds)
values (:code, :rank, :reason::text, :condition::text, :location_id::int, :outcome, :hold_code::text, :to_id::int,
        :km_max::float8, :refunds)
on conflict (code) do update
  set rank = excluded.rank, reason = excluded.reason, condition = excluded.condition, location_id = excluded.location_id,
      outcome = excluded.outcome, hold_code = excluded.hold_code, to_id = excluded.to_id, km_max = excluded.km_max,
      refunds = excluded.refunds;

-- name: where_is
-- Where locations are, and their local time.
select location_id, code, kind, lat, lon, time_zone from location where location_id = any(:ids::int[]);

-- name: send_on
-- Units that came back are to be sent to another location; they wait under a hold until they leave.
with head as (
  insert into transfer (transfer_id, from_id, to_id, order_id, why, asked_by, asked_at)
  values (:id, :from_id, :to_id, :order_id::uuid, 'return', :who, :at)
)
insert into transfer_line (transfer_id, sku_id, asked, hold_code)
values (:id, :sku_id, :quantity, 'send_on');

-- name: ask_write_off
-- Units that came back are to be written off; they wait under a hold until that is settled.
insert into write_off (write_off_id, location_id, day, kind, state, cents, lines, reference, requested_by, requested_at)
values (:id, :location_id, :day, 'return', 'asked', :cents, :lines, :reference, :who, :at);

-- name: returns_of
-- Returns at locations or of channels, newest first.
select r.return_id as id, c.code as channel, o.number, r.order_id, l.code as location, r.is_blind, r.state, r.made_by,
       r.made_at, r.received_at, r.done_at,
       (select jsonb_agg(jsonb_build_object('number', n.number, 'line', m.line, 'sku', s.code, 'reason', n.reason,
                           'expected', n.expected, 'received', n.received, 'inspected', n.inspected, 'refunded', n.refunded)
                         order by n.number)
          from return_line n join sku s using (sku_id) left join order_line m using (line_id)
         where n.return_id = r.return_id) as lines,
       (select coalesce(jsonb_agg(jsonb_build_object('number', i.number, 'quantity', i.quantity, 'condition', i.condition,
                           'outcome', i.outcome, 'hold', i.hold_code, 'to', t.code, 'km', i.km, 'rule', i.rule, 'who', i.who,
                           'at', i.at) order by i.inspection_id), '[]')
          from inspection i left join location t on t.location_id = i.to_id where i.return_id = r.return_id) as inspections
  from customer_return r
  join location l using (location_id)
  left join channel c using (channel_id)
  left join orders o using (order_id)
 where (:locations::int[] is null or r.location_id = any(:locations))
   and (:channels::int[] is null or r.channel_id = any(:channels))
   and (:state::text is null or r.state = :state) and (:id::uuid is null or r.return_id = :id)
   and (:before::uuid is null or r.return_id < :before)
 order by r.return_id desc limit :limit;
