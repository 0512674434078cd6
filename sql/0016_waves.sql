-- Waves: the hours of a location's day in which packages are worked, each with what it may take.

-- [{from, until, capacity_orders, capacity_items, capacity_cents}], local times, in order; of the day's capacity
alter table location add column waves jsonb not null default '[]';
-- the local time at which its wave begins; none where its location has no waves
alter table fulfillment add column wave time;
create index fulfillment_wave on fulfillment (location_id, capacity_day, wave) where wave is not null;

-- What waves of a location have taken, from a day on.
create function in_waves(location int, first_day date)
  returns table (day date, wave time, orders int, items int, cents bigint) language sql stable as $$
  select f.capacity_day, f.wave, count(distinct f.fulfillment_id)::int, sum(n.quantity)::int,
         sum(n.quantity * coalesce(k.price_cents, 0)::bigint)::bigint
    from fulfillment f join fulfillment_line n using (fulfillment_id) join order_line k using (line_id)
   where f.location_id = in_waves.location and f.capacity_day >= in_waves.first_day and f.wave is not null
     and f.state not in ('rejected', 'recalled') and n.quantity > 0
   group by f.capacity_day, f.wave
$$;
