-- name: near_here
-- The next locations, nearest to a place first, of those where all parts of a sku lie or that expect it: units of each
-- part, in the order given, as far as their segments may promise any; and the day of the next receipt.
with part as (
  select * from unnest(:skus::int[], :pers::int[]) with ordinality as p(sku_id, per, nth)
), lies as (
  select s.location_id, array_agg(s.on_hand - s.held - s.allocated - s.safety_stock order by p.nth) as units
    from part p
    join stock s using (sku_id)
   where s.on_hand - s.held - s.allocated - s.safety_stock >= p.per
   group by s.location_id having count(*) = cardinality(:skus::int[])
), due as (
  select i.location_id, min(greatest(i.due_on, :today)) as due_on from incoming i join source o using (source_id)
   where i.sku_id = :sku_id and i.quantity > 0 and i.due_on + o.tolerance_days >= :today group by i.location_id
)
select l.location_id, l.code, l.name, l.lat, l.lon, g.segment,
       case when g.segment = any(:giving::int[]) then i.units end as units, d.due_on
  from layout_location g
  join location l on l.location_id = g.location_id and l.is_on
  left join lies i on i.location_id = g.location_id
  left join due d on d.location_id = g.location_id
 where g.layout_id = :layout_id and g.segment = any(:segments::int[])
   and (d.location_id is not null or (i.location_id is not null and g.segment = any(:giving::int[])))
 order by sin(radians(l.lat - :lat) / 2) ^ 2
          + cos(radians(:lat)) * cos(radians(l.lat)) * sin(radians(l.lon - :lon) / 2) ^ 2 nulls last, l.code
 limit :limit offset :skip;

-- name: stock_by_location
-- Every location of a layout with its stock of a sku, and its segment. Nothing is kept back where nothing ever was.
select l.location_id, l.code, l.name, l.kind, l.is_on, l.lat, l.lon, g.segment,
       coalesce(s.on_hand, 0) as on_hand, coalesce(s.held, 0) as held, coalesce(s.allocated, 0) as allocated,
       case when s.version > 0 then s.safety_stock else 0 end as safety_stock
  from layout_location g
  join location l using (location_id)
  left join stock s on s.location_id = l.location_id and s.sku_id = :sku_id
 where g.layout_id = :layout_id
 order by l.code;

-- name: pool_codes
-- The codes of these pools.
select pool_id, code from pool where pool_id = any(:pools::int[]);

-- name: cells
-- What is available of these skus at these locations, where there is any.
select k.sku_id, k.location_id, k.on_hand - k.held - k.allocated - k.safety_stock as available
  from stock k join location l using (location_id)
 where k.sku_id = any(:skus::int[]) and k.location_id = any(:locations::int[]) and l.is_on
   and k.on_hand - k.held - k.allocated - k.safety_stock > 0;

-- name: movements_here
-- The newest movements of a sku at each of these locations, up to a moment (null: now), newest first.
select l.code as location, m.kind, m.quantity, m.effect, m.on_hand, m.occurred_at, m.recorded_at, m.message_id,
       s.code as source, m.absorbed_by, m.reason, m.who
  from unnest(:locations::int[]) as n(location_id)
  join location l using (location_id)
  cross join lateral (
    select * from movement m
     where m.sku_id = :sku_id and m.location_id = n.location_id
       and m.recorded_at <= coalesce(:at::timestamptz, 'infinity')
     order by m.version desc limit :limit) m
  join source s on s.source_id = m.source_id
 order by l.code, m.version desc;

-- name: holds_here
-- The holds of a sku at these locations at a moment (null: now), by the clock of who placed and lifted them.
select l.code as location, h.code, h.quantity, h.placed_at, s.code as source, m.message_id
  from hold h
  join location l using (location_id)
  join source s on s.source_id = h.source_id
  left join movement m on m.sku_id = h.sku_id and m.location_id = h.location_id and m.version = h.version
 where h.sku_id = :sku_id and h.location_id = any(:locations::int[])
   and (h.lifted_at is null or h.lifted_at > :at::timestamptz)
   and coalesce(m.recorded_at, h.placed_at) <= coalesce(:at::timestamptz, 'infinity')
 order by l.code, h.hold_id;

-- name: allocated_here
-- What allocates a sku at these locations at a moment (null: now): work, and pick-ups that are reserved; per location
-- the first, most units first.
with a as (
  select f.location_id, 'fulfillment' as kind, f.fulfillment_id as id, o.channel_id, o.number as order_number, f.state,
         sum(case when f.changed_at <= coalesce(:at::timestamptz, 'infinity') then g.quantity else g.given end)::int as units,
         f.made_at
    from fulfillment f
    join fulfillment_line g using (fulfillment_id)
    join orders o using (order_id)
   where f.location_id = any(:locations::int[]) and g.sku_id = :sku_id
     and f.made_at <= coalesce(:at::timestamptz, 'infinity')
     and (f.state in ('released', 'accepted', 'picked', 'packed', 'ready') or f.changed_at > :at::timestamptz)
   group by f.fulfillment_id, o.channel_id, o.number
  union all
  select r.location_id, 'reservation', r.reservation_id, r.channel_id, null, 'live', n.quantity, r.made_at
    from reservation r
    join reservation_line n using (reservation_id)
   where n.sku_id = :sku_id and r.location_id = any(:locations::int[])
     and r.made_at <= coalesce(:at::timestamptz, 'infinity') and (r.state = 'live' or r.ended_at > :at::timestamptz)
), ranked as (
  select a.*, row_number() over (partition by location_id order by units desc, made_at, id) as place from a where units > 0
)
select l.code as location, r.kind, r.id, c.code as channel, r.order_number, r.state, r.units, r.made_at
  from ranked r join location l using (location_id) join channel c using (channel_id)
 where r.place <= :limit and (:channels::int[] is null or r.channel_id = any(:channels::int[]))
 order by l.code, r.place;

-- name: promised_at
-- What makes the reserved units of a sku in each pool at a moment (null: now): live reservations and open order lines,
-- the first of them (most units first) with count and units of all.
with was_open as (
  select distinct on (line_id) line_id, open from line_past
   where sku_id = :sku_id and until_at > :at::timestamptz order by line_id, past_id
), p as (
  select r.pool_id, 'reservation' as kind, r.reservation_id as id, r.channel_id, null::text as order_number,
         null::text as line, n.quantity as units, r.made_at, r.expires_at
    from reservation r
    join reservation_line n using (reservation_id)
   where n.sku_id = :sku_id and r.location_id is null and r.state = 'live'
     and r.made_at <= coalesce(:at::timestamptz, 'infinity')
  union all
  select r.pool_id, 'reservation', r.reservation_id, r.channel_id, null, null, n.quantity, r.made_at, r.expires_at
    from reservation r
    join reservation_line n using (reservation_id)
   where n.sku_id = :sku_id and r.location_id is null
     and r.made_at <= :at::timestamptz and r.ended_at > :at::timestamptz
  union all
  select n.pool_id, 'order_line', n.order_id, o.channel_id, o.number, n.line, n.open, n.made_at, null
    from order_line n
    join orders o using (order_id)
   where n.sku_id = :sku_id and n.open > 0 and n.made_at <= coalesce(:at::timestamptz, 'infinity')
     and n.line_id not in (select line_id from was_open)
  union all
  select n.pool_id, 'order_line', n.order_id, o.channel_id, o.number, n.line, w.open, n.made_at, null
    from was_open w
    join order_line n using (line_id)
    join orders o using (order_id)
   where w.open > 0 and n.made_at <= :at::timestamptz
), ranked as (
  select p.*, row_number() over (partition by pool_id order by units desc, made_at, id, line) as place,
         count(*) over (partition by pool_id)::int as count_of_all,
         (sum(units) over (partition by pool_id))::int as units_of_all
    from p
)
select r.pool_id, q.code as pool, r.count_of_all, r.units_of_all, r.kind, r.id, r.channel_id, c.code as channel,
       r.order_number, r.line, r.units, r.made_at, r.expires_at
  from ranked r join pool q using (pool_id) join channel c using (channel_id)
 where r.place <= :limit order by r.pool_id, r.place;

-- name: rules_at
-- The rules of numbers at a moment (null: now) that may speak of these skus, with who made and who agreed to them;
-- protections with their channel's pool.
with undone as (
  select distinct on (row_id) row_id, was from past
   where relation = 'rule' and until_at > :at::timestamptz order by row_id, past_id
), r as (
  select * from rule where rule_id not in (select row_id from undone)
  union all
  select p.* from undone u cross join jsonb_populate_record(null::rule, u.was) as p where u.was is not null
), pools as (
  select distinct on (row_id) row_id, (was ->> 'pool_id')::int as pool_id from past
   where relation = 'channel' and until_at > :at::timestamptz order by row_id, past_id
)
select r.code, r.kind, r.channel_id, c.code as channel, r.sku_id, k.code as sku, r.units, r.percent, r.share_by, r.days,
       r.priority, r.from_at, r.until_at, r.made_by, h.who as agreed_by,
       case r.kind when 'protect' then coalesce(w.pool_id, c.pool_id) when 'pool' then r.pool_id end as of_pool_id
  from r
  left join channel c on c.channel_id = r.channel_id
  left join pools w on w.row_id = r.channel_id
  left join sku k on k.sku_id = r.sku_id
  left join lateral (
    select who, step from history
     where kind = 'rule' and id = r.code and at <= coalesce(:at::timestamptz, 'infinity')
     order by history_id desc limit 1) h on h.step = 'approved'
 where r.is_on and r.state = 'live' and (r.sku_id is null or r.sku_id = any(:skus::int[]))
 order by r.code;

-- name: channel_at
-- A channel's own rules at a moment (null: now), with who set its buffer and its cap.
with was as (
  select was from past
   where relation = 'channel' and key = :channel_id and until_at > :at::timestamptz order by past_id limit 1
), said as (
  select h.history_id, h.who, h.detail -> 'after' as body from history h join channel c on h.id = c.code
   where c.channel_id = :channel_id and h.kind = 'channel' and h.at <= coalesce(:at::timestamptz, 'infinity')
)
select c.channel_id, c.code, coalesce((w.was ->> 'pool_id')::int, c.pool_id) as pool_id,
       coalesce((w.was ->> 'buffer')::int, c.buffer) as buffer,
       case when w.was is null then c.cap else (w.was ->> 'cap')::int end as cap, c.is_on,
       (select who from said where body ? 'buffer' order by history_id desc limit 1) as buffer_by,
       (select who from said where body ? 'cap' order by history_id desc limit 1) as cap_by
  from channel c left join was w on true
 where c.channel_id = :channel_id;

-- name: layout_at
-- The layout of a moment.
select layout_id from layout where made_at <= :at::timestamptz or layout_id = 1 order by layout_id desc limit 1;

-- name: kit_at
-- The components of a sku at a moment; none where it was no kit.
with undone as (
  select distinct on (row_id) row_id, was from past
   where relation = 'kit' and key = :sku_id and until_at > :at::timestamptz order by row_id, past_id
), k as (
  select component_id, quantity from kit
   where kit_id = :sku_id and component_id not in (select row_id from undone)
  union all
  select row_id::int, (was ->> 'quantity')::int from undone where was is not null
)
select k.component_id as sku_id, s.code as sku, k.quantity from k join sku s on s.sku_id = k.component_id
 order by k.component_id;

-- name: stock_at
-- Every location of a layout with its stock of a sku at a moment: on hand as the ledger had it.
with was_on as (
  select distinct on (row_id) row_id, (was ->> 'is_on')::boolean as is_on from past
   where relation = 'location' and until_at > :at::timestamptz order by row_id, past_id
), was as (
  select distinct on (location_id) location_id, held, allocated, safety_stock from stock_past
   where sku_id = :sku_id and until_at > :at::timestamptz order by location_id, past_id
)
select l.location_id, l.code, l.name, l.kind, coalesce(o.is_on, l.is_on) as is_on, l.lat, l.lon, g.segment,
       coalesce(m.on_hand, 0) as on_hand, coalesce(w.held, s.held, 0) as held,
       coalesce(w.allocated, s.allocated, 0) as allocated,
       case when m.on_hand is not null then coalesce(w.safety_stock, s.safety_stock, 0) else 0 end as safety_stock
  from layout_location g
  join location l using (location_id)
  left join was_on o on o.row_id = l.location_id
  left join stock s on s.location_id = l.location_id and s.sku_id = :sku_id
  left join was w on w.location_id = l.location_id
  left join lateral (
    select m.on_hand from movement m
     where m.sku_id = :sku_id and m.location_id = l.location_id and m.recorded_at <= :at::timestamptz
     order by m.version desc limit 1) m on true
 where g.layout_id = :layout_id
 order by l.code;

-- name: incoming_at
-- What was expected of a sku at a moment, from a day on, by day and location.
with undone as (
  select distinct on (row_id) row_id, was from past
   where relation = 'incoming' and key = :sku_id and until_at > :at::timestamptz order by row_id, past_id
), i as (
  select source_id, location_id, quantity, due_on from incoming
   where sku_id = :sku_id and incoming_id not in (select row_id from undone)
  union all
  select (was ->> 'source_id')::int, (was ->> 'location_id')::int, (was ->> 'quantity')::int, (was ->> 'due_on')::date
    from undone where was is not null
)
select i.location_id, i.due_on, i.due_on + o.tolerance_days as until_on, sum(i.quantity)::int as quantity
  from i join source o using (source_id)
 where i.quantity > 0 and i.due_on + o.tolerance_days >= :today
 group by i.location_id, i.due_on, o.tolerance_days order by i.due_on, i.location_id, o.tolerance_days;

-- name: taken_at
-- What channels had taken of a sku at a moment, where that was counted.
select coalesce(w.was -> 'taken', a.taken) as taken
  from availability a
  left join lateral (
    select was from past where relation = 'availability' and key = a.sku_id and until_at > :at::timestamptz
     order by past_id limit 1) w on true
 where a.sku_id = :sku_id;

-- name: code_of
-- Our code of a sku.
select code from sku where sku_id = :sku_id;

-- name: sites
-- These locations as a promise knows them.
select code, kind, time_zone, work_days, cut_off, handling_days, pickup_minutes, holidays
  from location where code = any(:codes::text[]);

-- name: transits_of
-- How long a method takes, by miles.
select method, miles, days, weekends from transit where method = :method order by miles;

-- name: promise_rules
-- What a channel says of partial promises and backorders, in its settings.
select coalesce(settings -> 'promise', '{}') as says from channel where channel_id = :channel_id;

-- name: overdue_incoming
-- Expected receipts that are late beyond their source's tolerance; new ones have no open exception yet.
select s.code || ' ' || i.reference || ' ' || k.code || ' ' || l.code as subject, s.code as source, i.reference,
       k.code as sku, l.code as location, i.quantity, i.due_on, i.sku_id, e.exception_id is null as is_new
  from incoming i
  join source s using (source_id) join sku k using (sku_id) join location l using (location_id)
  left join exception e on e.kind = 'incoming_overdue' and e.state = 'open'
   and e.subject = s.code || ' ' || i.reference || ' ' || k.code || ' ' || l.code
 where i.quantity > 0 and i.due_on + s.tolerance_days < :today
 order by i.incoming_id;

-- name: settled_overdue
-- Open exceptions of receipts that are not overdue any more.
select e.subject from exception e
 where e.kind = 'incoming_overdue' and e.state = 'open'
   and not exists (
     select from incoming i join source s using (source_id) join sku k using (sku_id) join location l using (location_id)
      where s.code = e.payload ->> 'source' and i.reference = e.payload ->> 'reference'
        and k.code = e.payload ->> 'sku' and l.code = e.payload ->> 'location'
        and i.quantity > 0 and i.due_on + s.tolerance_days < :today);

-- name: served_oversold
-- Open exceptions of oversold orders of which no line waits any more.
select e.subject from exception e
 where e.kind = 'oversold' and e.state = 'open'
   and not exists (select from order_line l
                    where l.order_id = (e.payload ->> 'order')::uuid and l.open > 0 and l.waits);

-- name: leaning_lines
-- Open lines of skus of which more is promised than there is, or that had been given a day; in the order in which they
-- are served, the first so many of each sku.
with skus as (
  select distinct n.sku_id
    from order_line n join availability a on a.sku_id = n.sku_id
   where n.open > 0
     and (:order_id::uuid is null
          or n.sku_id in (select w.sku_id from order_line w where w.order_id = :order_id and w.open > 0))
     and (n.promised_on is not null or n.waits
          or (select sum(d) from unnest(a.reserved) d) > (select sum(u) from unnest(a.supply) u)
          -- pools may be short though all of them together are not
          or cardinality(a.supply) > 1 and exists (select from incoming i where i.sku_id = a.sku_id and i.quantity > 0))
), ranked as (
  select n.line_id, n.order_id, n.line, n.sku_id, n.pool_id, n.open, n.promised_on, n.waits,
         row_number() over (partition by n.sku_id
                            order by served_as_of(n.promised_on, n.waits, o.captured_at), o.priority desc, o.captured_at,
                                     n.line_id) as place
    from order_line n join orders o using (order_id)
   where n.open > 0 and n.sku_id in (select sku_id from skus)
)
select line_id, order_id, line, sku_id, pool_id, open, promised_on, waits
  from ranked where place <= :limit order by sku_id, place;

-- name: promise_lines
-- These lines are promised for a day (null: for none), and wait for it or not, where they were for the day that was read.
update order_line n set promised_on = p.day, waits = p.waits
  from unnest(:lines::bigint[], :days::date[], :waits::boolean[], :before::date[]) as p(line_id, day, waits, was)
 where n.line_id = p.line_id and n.promised_on is not distinct from p.was
returning n.line_id;

-- name: ordered
-- An order as it is promised: where it goes and how.
select o.channel_id, o.method, o.ship_to, l.code as pickup_location
  from orders o left join location l on l.location_id = o.pickup_location_id where o.order_id = :id;

-- name: ordered_lines
-- The open lines of an order, by our code of their skus.
select l.line, l.part, l.sku_id, s.code as sku, l.pool_id, l.open
  from order_line l join sku s using (sku_id) where l.order_id = :id and l.open > 0 order by l.line_id;
