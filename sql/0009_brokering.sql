-- When orders are brokered, per channel and method: at once, every N minutes, or with the morning.

alter table channel add brokering jsonb not null default '{}';  -- {method or "*": "at_once", "nightly" or minutes}

create function broker_minutes(brokering jsonb, method text) returns int language sql immutable return
  case coalesce(brokering ->> method, brokering ->> '*', 'at_once')
    when 'at_once' then 0 when 'nightly' then null
    else coalesce(brokering ->> method, brokering ->> '*')::int end;

-- at a minute of the day: its own minutes; what is left of the others every so many minutes; never what waits for the morning
create function is_brokered_at(brokering jsonb, method text, minute int, every int) returns boolean language sql immutable return
  case broker_minutes(brokering, method) when 0 then minute % every = 0 else coalesce(minute % broker_minutes(brokering, method) = 0, false) end;

-- Orders to be decided now: each row one more reason to look at its order. Nothing here is unique, so that whoever opens
-- a line never waits for whoever decides.
create table broker_due (
  due_id   bigint generated always as identity primary key,
  order_id uuid not null references orders,
  due_at   timestamptz not null default clock_timestamp()
);

-- a line that is new and open is due where its channel says at once
create function lines_are_due() returns trigger language plpgsql as $$
begin
  insert into broker_due (order_id)
  select o.order_id from orders o join channel c using (channel_id)
   where o.order_id in (select order_id from fresh where open > 0 and hold is null)
     and broker_minutes(c.brokering, o.method) = 0;
  return null;
end $$;
create trigger line_is_due after insert on order_line referencing new table as fresh
  for each statement execute function lines_are_due();

-- a line that is open again is due at once: what a location gave back in any mode but the nightly one
create function lines_are_due_again() returns trigger language plpgsql as $$
begin
  insert into broker_due (order_id)
  select o.order_id from orders o join channel c using (channel_id)
   where o.order_id in (select n.order_id from fresh n join old_lines b using (line_id)
                         where n.open > 0 and n.hold is null
                           and (n.open > b.open or b.hold is not null or b.sku_id is null)
                           and (n.allocated < b.allocated or broker_minutes(c.brokering, o.method) = 0))
     and broker_minutes(c.brokering, o.method) is not null;
  return null;
end $$;
create trigger line_is_due_again after update on order_line referencing old table as old_lines new table as fresh
  for each statement execute function lines_are_due_again();

-- what a run is: a joint plan of all that is open, decisions of a moment, or prices alone
alter table run add mode text not null default 'joint' check (mode in ('joint', 'online', 'prices'));
create index run_priced on run (run_id) where prices is not null;

-- what work costs at a location: a package and a line; null is what its kind costs
alter table location add package_cents int check (package_cents >= 0);
alter table location add line_cents int check (line_cents >= 0);
