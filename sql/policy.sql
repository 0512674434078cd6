-- name: versions_of
-- The versions of a policy, newest first, with the one that is in force.
select v.version, v.state, v.body, v.made_by, v.made_at, v.note, v.from_at, v.approved_by, v.approved_at,
       v.version = policy_in_force(v.policy_id, :now) as is_in_force
  from policy_version v join policy p using (policy_id)
 where p.code = :code order by v.version desc limit :limit;

-- name: take_newest
-- Takes the newest version of a policy.
select v.policy_id, v.version, v.state, v.body, v.made_by, v.note, v.from_at
  from policy_version v join policy p using (policy_id)
 where p.code = :code order by v.version desc limit 1 for update of v;

-- name: ask_for
-- A draft waits for approval.
update policy_version set state = 'asked', note = :note, from_at = :from_at
 where policy_id = :policy_id and version = :version and state in ('draft', 'refused');

-- name: answer
-- A version that waited is approved by another person than who made it, or refused.
update policy_version
   set state = case when :is_agreed::boolean then 'approved' else 'refused' end,
       approved_by = case when :is_agreed then :who::text end,
       approved_at = case when :is_agreed then clock_timestamp() end,
       from_at = case when :is_agreed then greatest(from_at, clock_timestamp()) else from_at end
 where policy_id = :policy_id and version = :version and state = 'asked' and (not :is_agreed or made_by <> :who);

-- name: copy_version
-- What an earlier version said is the newest draft.
insert into policy_version (policy_id, version, body, made_by, note)
select o.policy_id, (select max(version) + 1 from policy_version n where n.policy_id = o.policy_id), o.body, :who, :note
  from policy_version o join policy p using (policy_id)
 where p.code = :code and o.version = :version and o.state = 'approved'
returning version;

-- name: policies_in_force
-- The policies in force at a moment, with their versions; of one code, where it is given.
select p.code, v.version, v.body
  from policy p join policy_version v on v.policy_id = p.policy_id and v.version = policy_in_force(p.policy_id, :now)
 where :code::text is null or p.code = :code
 order by p.code;

-- name: newest_version
-- What the newest version of a policy says, draft or not.
select p.code, v.version, v.body
  from policy p join policy_version v using (policy_id)
 where p.code = :code order by v.version desc limit 1;

-- name: waiting_orders
-- Orders with lines of which nothing left open yet, captured before a moment: what scopes ask of them, and how long they
-- wait.
select o.order_id::text, c.code as channel, o.method, o.priority, o.promise_days,
       sum(l.open * coalesce(l.price_cents, s.price_cents, s.value_cents, 1000))::bigint as value_cents, o.order_id as id,
       array_agg(distinct l.line) as lines,
       coalesce(array_agg(distinct l.line) filter (where l.cancel_on is null), '{}') as untold, extract(day from :now::timestamptz - o.captured_at)::int as days
  from orders o
  join channel c using (channel_id)
  join order_line l using (order_id)
  left join sku s using (sku_id)
 where l.open > 0 and l.allocated = 0 and l.shipped = 0 and l.hold is null and o.captured_at <= :before
   and o.order_id > :after
 group by o.order_id, c.code order by o.order_id limit :limit;

-- name: released_work
-- Work made before a moment that nobody has accepted, at locations with people of their own, that might be done elsewhere:
-- what scopes ask of its orders, and how long it waits.
select o.order_id::text, c.code as channel, o.method, o.priority, o.promise_days,
       sum(n.quantity * coalesce(l.price_cents, s.price_cents, s.value_cents, 1000))::bigint as value_cents, f.fulfillment_id as id,
       (extract(epoch from :now::timestamptz - f.made_at) / 60)::int as minutes
  from fulfillment f
  join orders o using (order_id)
  join channel c using (channel_id)
  join fulfillment_line n using (fulfillment_id)
  join order_line l using (line_id)
  left join sku s on s.sku_id = n.sku_id
 where f.state = 'released' and f.made_at <= :before and o.pickup_location_id is null and n.quantity > 0
   and not exists (select from fulfiller r where r.location_id = f.location_id)
   and f.fulfillment_id > :after
 group by f.fulfillment_id, o.order_id, c.code order by f.fulfillment_id limit :limit;

-- name: knows_policy
-- Whether there is such a policy.
select exists (select from policy where code = :code);
