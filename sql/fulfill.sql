-- name: take_orders
-- Takes the orders of these fulfillments, before anything below them.
select o.order_id from orders o
 where o.order_id in (select order_id from fulfillment where fulfillment_id = any(:ids::uuid[]))
 order by o.order_id for update;

-- name: take_fulfillments
-- Takes fulfillments with what a step must know of them.
select f.fulfillment_id, f.order_id, f.location_id, l.code as location, f.state, f.capacity_day, o.channel_id,
       o.pickup_location_id is not null as is_pickup
  from fulfillment f join location l using (location_id) join orders o using (order_id)
 where f.fulfillment_id = any(:ids::uuid[])
 order by f.fulfillment_id for update of f;

-- name: take_lines
-- Takes the lines of fulfillments that still have units; of a kit's part, how many are in one kit.
select f.fulfillment_id, f.line_id, n.line, f.sku_id, s.code as sku, n.pool_id, f.quantity, coalesce(k.per, 1) as per,
       coalesce(n.price_cents, 0) as price_cents, f.reference, d.acked_sequence, d.acked_at, d.counted_in
  from fulfillment_line f
  join order_line n using (line_id)
  join orders o using (order_id)
  left join lateral kit_sold(o.channel_id, n.sku, n.sku_id) k on n.part > 0
  join sku s on s.sku_id = f.sku_id
  left join deduction d on d.reference = f.reference
 where f.fulfillment_id = any(:ids::uuid[]) and f.quantity > 0
 order by f.line_id for update of n;

-- name: step
-- Fulfillments enter their next state.
update fulfillment f set state = n.state, changed_at = clock_timestamp()
  from unnest(:ids::uuid[], :states::text[]) as n(fulfillment_id, state)
 where f.fulfillment_id = n.fulfillment_id;

-- name: ship_lines
-- Units that left are shipped.
update order_line l set allocated = l.allocated - n.quantity, shipped = l.shipped + n.quantity, version = l.version + 1
  from (select line_id, sum(quantity)::int as quantity
          from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) group by line_id) n
 where l.line_id = n.line_id;

-- name: mark_shipped
-- A deduction whose units have left is said by their movement from now on.
update deduction set shipped = true where reference = any(:message_refs::text[]);

-- name: reopen_lines
-- Units that a location cannot fulfill are open again.
update order_line l set allocated = l.allocated - n.quantity, open = l.open + n.quantity, version = l.version + 1
  from (select line_id, sum(quantity)::int as quantity
          from unnest(:lines::bigint[], :quantities::int[]) as n(line_id, quantity) group by line_id) n
 where l.line_id = n.line_id;

-- name: give_back
-- The fulfillment no longer has these units.
update fulfillment_line f set quantity = f.quantity - n.quantity, rejected = f.rejected + n.quantity
  from unnest(:ids::uuid[], :lines::bigint[], :quantities::int[]) as n(fulfillment_id, line_id, quantity)
 where f.fulfillment_id = n.fulfillment_id and f.line_id = n.line_id;

-- name: not_again
-- The location is not asked again for this sku of the order until then.
insert into rejected_before (sku_id, location_id, order_id, until, reason)
select n.sku_id, n.location_id, n.order_id, :until, string_agg(distinct n.reason, '; ')
  from unnest(:skus::int[], :locations::int[], :orders::uuid[], :reasons::text[]) as n(sku_id, location_id, order_id, reason)
 group by n.sku_id, n.location_id, n.order_id
on conflict (order_id, sku_id, location_id) do update set until = excluded.until, reason = excluded.reason;

-- name: work_list
-- A location's work, oldest first.
select f.fulfillment_id as id, l.code as location, c.code as channel, o.number, o.order_id, f.state, f.made_at, f.changed_at,
       o.method, o.priority,
       (select jsonb_agg(jsonb_build_object('line', n.line, 'sku', s.code, 'name', s.name, 'quantity', g.quantity,
                                            'reference', g.reference) order by n.line_id)
          from fulfillment_line g join order_line n using (line_id) join sku s on s.sku_id = g.sku_id
         where g.fulfillment_id = f.fulfillment_id) as lines
  from fulfillment f join location l using (location_id) join orders o using (order_id) join channel c using (channel_id)
 where (:locations::int[] is null or f.location_id = any(:locations))
   and (:code::text is null or l.code = :code)
   and (:state::text is null or f.state = :state)
   and (:id::uuid is null or f.fulfillment_id = :id)
   and (:after::uuid is null or f.fulfillment_id > :after)
   and (:channel_id::int is null or o.channel_id = :channel_id)
 order by f.fulfillment_id limit :limit;

-- name: deficits
-- Keys where more is allocated to work that nobody has picked than there is on hand.
select distinct s.sku_id, s.location_id
  from fulfillment f
  join fulfillment_line g using (fulfillment_id)
  join stock s on s.sku_id = g.sku_id and s.location_id = f.location_id
 where f.state in ('released', 'accepted') and g.quantity > 0 and s.allocated > greatest(s.on_hand, 0)
 order by s.sku_id, s.location_id limit :limit;

-- name: unpicked
-- Unpicked work on a key, lowest class and latest first: what goes back when the stock is not there.
select f.fulfillment_id, f.order_id
  from fulfillment f
  join fulfillment_line g using (fulfillment_id)
  join orders o using (order_id)
 where f.location_id = :location_id and g.sku_id = :sku_id and g.quantity > 0 and f.state in ('released', 'accepted')
 order by o.priority, f.made_at desc, f.fulfillment_id desc;
