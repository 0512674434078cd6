-- name: owe_shipped
-- What is owed for units that left: where their owner is not the division that sold them; once per reference.
insert into owed (reference, kind, owner_id, buyer_id, channel_id, location_id, sku_id, order_id, line_id, fulfillment_id,
                  quantity, price_cents, happened_at)
select n.reference, 'sale', w.owner_id, c.division_id, c.channel_id, f.location_id, g.sku_id, f.order_id, g.line_id,
       f.fulfillment_id, n.quantity, l.price_cents, :at
  from unnest(:fulfillments::uuid[], :lines::bigint[], :quantities::int[], :references::text[])
       as n(fulfillment_id, line_id, quantity, reference)
  join fulfillment_line g on g.fulfillment_id = n.fulfillment_id and g.line_id = n.line_id
  join fulfillment f on f.fulfillment_id = n.fulfillment_id
  join order_line l on l.line_id = n.line_id
  join orders o on o.order_id = f.order_id
  join channel c on c.channel_id = o.channel_id
  cross join lateral (select owner_of(g.sku_id, f.location_id) as owner_id) w
 where w.owner_id is distinct from c.division_id
 order by n.reference
on conflict (reference) do nothing returning owed_id;

-- name: sold_lines
-- Whose units of order lines are with the customer: those that are owed for, and those that the seller owned.
select l.line_id, l.sku_id, o.channel_id, l.order_id, l.price_cents, c.division_id as buyer_id,
       owner_of(l.sku_id, :location_id) as stock_owner_id, h.division_id, coalesce(d.takes_back, false) as takes_back,
       greatest(0, l.shipped - coalesce(s.quantity, 0))::int as own_quantity,
       greatest(0, l.returned - coalesce(s.back, 0))::int as own_back, coalesce(s.sold, '[]') as sold
  from order_line l
  join orders o using (order_id)
  join channel c using (channel_id)
  join location h on h.location_id = :location_id
  left join party d on d.party_id = c.division_id
  left join lateral (
    select sum(w.quantity) as quantity, sum(w.back) as back,
           jsonb_agg(jsonb_build_object('owed_id', w.owed_id, 'owner_id', w.owner_id, 'takes_back', w.takes_back,
                                        'quantity', w.quantity, 'back', w.back) order by w.owed_id) as sold
      from (select e.owed_id, e.owner_id, coalesce(p.takes_back, false) as takes_back, e.quantity,
                   (select coalesce(-sum(b.quantity), 0)::int from owed b
                     where b.of_id = e.owed_id and b.kind = 'return') as back
              from owed e left join party p on p.party_id = e.owner_id
             where e.line_id = l.line_id and e.kind = 'sale') w) s on true
 where l.line_id = any(:lines::bigint[])
   and (c.division_id is not null or s.sold is not null);

-- name: owe_returned
-- What is owed for units that came back; once per reference.
insert into owed (reference, kind, owner_id, buyer_id, channel_id, location_id, sku_id, order_id, line_id, return_id,
                  quantity, price_cents, of_id, skipped, happened_at)
select n.reference, n.kind, n.owner_id, n.buyer_id, l.channel_id, :location_id, l.sku_id, l.order_id, n.line_id, :return_id,
       n.quantity, l.price_cents, n.of_id, n.skipped, :at
  from unnest(:references::text[], :kinds::text[], :owners::int[], :buyers::int[], :lines::bigint[], :quantities::int[],
              :ofs::bigint[], :skips::int[])
       as n(reference, kind, owner_id, buyer_id, line_id, quantity, of_id, skipped)
  join (select l.line_id, l.sku_id, l.order_id, l.price_cents, o.channel_id
          from order_line l join orders o using (order_id) where l.line_id = any(:lines::bigint[])) l using (line_id)
 order by n.reference
on conflict (reference) do nothing returning owed_id;

-- name: owe_told
-- What is owed for units that a till sold or took back, where they are not its division's; once per reference.
insert into owed (reference, kind, owner_id, buyer_id, location_id, sku_id, quantity, price_cents, happened_at)
select n.reference, n.kind, w.owner_id, l.division_id, n.location_id, n.sku_id, n.quantity, k.price_cents, n.at
  from unnest(:references::text[], :kinds::text[], :skus::int[], :locations::int[], :quantities::int[], :ats::timestamptz[])
       as n(reference, kind, sku_id, location_id, quantity, at)
  join location l using (location_id)
  join sku k using (sku_id)
  cross join lateral (select owner_of(n.sku_id, n.location_id) as owner_id) w
 where (exists (select from stock_owner) or exists (select from location where owner_id is not null))
   and w.owner_id is distinct from l.division_id
 order by n.reference
on conflict (reference) do nothing returning owed_id;

-- name: lock_periods_open
-- No period is closed before this transaction has ended.
select pg_advisory_xact_lock_shared(hashtext('settlement'));

-- name: waiting
-- What waits for its entry, taken, with what it says of prices and parties: sales (and units bought of a seller), or
-- parts of a sale.
select o.owed_id, o.kind, o.waits_for, o.quantity, o.skipped, o.price_cents, k.value_cents as cost_cents, k.code as sku,
       h.code as location, c.code as channel, w.party_id as owner_id, w.code as owner, w.kind as owner_kind,
       b.party_id as buyer_id, b.code as buyer, o.happened_at, s.state as of_state, s.waits_for as of_waits_for,
       e.cents as of_cents, e.currency as of_currency, e.price as of_price, e.quantity as of_quantity,
       e.buyer_id as of_buyer_id, p.code as price, p.cents, p.percent::text as percent, p.percent_of, p.currency
  from owed o
  join sku k using (sku_id)
  join location h on h.location_id = o.location_id
  left join channel c on c.channel_id = o.channel_id
  left join owed s on s.owed_id = o.of_id
  left join settlement e on e.owed_id = o.of_id
  left join party w on w.party_id = coalesce(e.owner_id, o.owner_id,
                                             owner_of(o.sku_id, coalesce(s.location_id, o.location_id)))
  left join party b on b.party_id = case when o.kind = 'bought' or o.channel_id is null then coalesce(o.buyer_id, h.division_id)
                                        else coalesce(e.buyer_id, o.buyer_id, c.division_id) end
  left join lateral transfer_price_of(w.party_id, b.party_id, o.sku_id, (o.happened_at at time zone 'UTC')::date) p on true
 where o.state = 'waiting' and (o.of_id is not null) = :is_part and o.owed_id > :after
   and (:ids::bigint[] is null or o.owed_id = any(:ids))
 order by o.owed_id limit :limit for update of o skip locked;

-- name: write_entries
-- Who owes whom; an entry of a closed period falls into the next that is open.
insert into settlement (owed_id, kind, owner_id, buyer_id, quantity, cents, currency, price, month, period, happened_at,
                        made_by)
select n.owed_id, n.kind, n.owner_id, n.buyer_id, o.quantity, n.cents, n.currency, n.price, month_of(o.happened_at),
       open_period(month_of(o.happened_at)), o.happened_at, :who
  from unnest(:ids::bigint[], :kinds::text[], :owners::int[], :buyers::int[], :cents::bigint[], :currencies::text[],
              :prices::text[]) as n(owed_id, kind, owner_id, buyer_id, cents, currency, price)
  join owed o using (owed_id)
 order by n.owed_id;

-- name: mark
-- What became of what is owed.
update owed o set state = n.state, waits_for = n.waits_for
  from unnest(:ids::bigint[], :states::text[], :subjects::text[]) as n(owed_id, state, waits_for)
 where o.owed_id = n.owed_id;

-- name: still_waits
-- For which of these subjects something waits.
select distinct waits_for from owed where state = 'waiting' and waits_for = any(:subjects::text[]);
