-- Demand: reservations, orders, fulfillments, brokering runs, pushes.

-- no foreign keys to what is never deleted: each would lock the same row of a hot sku or channel for every cart
create table reservation (
  reservation_id uuid primary key default uuidv7(),
  channel_id     int not null,
  pool_id        int not null,
  location_id    int,                                -- a pick-up: allocated there, not reserved in a pool
  -- live → released | claimed | expired: once, by this column under the row's lock
  state          text not null default 'live' check (state in ('live', 'released', 'claimed', 'expired')),
  made_at        timestamptz not null default clock_timestamp(),
  expires_at     timestamptz not null,
  ended_at       timestamptz,
  check ((state = 'live') = (ended_at is null))
);
create index reservation_due on reservation (expires_at) where state = 'live';
create table reservation_line (
  reservation_id uuid not null references reservation,
  sku_id         int not null,
  quantity       int not null check (quantity > 0),  -- the same sku on several lines is summed
  atp_after      int not null check (atp_after >= 0),-- backstop: a grant never oversells
  primary key (reservation_id, sku_id)
);
create index on reservation_line (sku_id);

create table orders (
  order_id      uuid primary key default uuidv7(),
  channel_id    int not null references channel,
  number        text not null,
  hash          bytea not null,                      -- of its content: the same number with other content is an exception
  placed_at     timestamptz not null,
  captured_at   timestamptz not null default clock_timestamp(),
  ship_to       jsonb not null,                      -- postal_code, country, lat, lon
  method        text not null,
  priority      int not null default 0,              -- higher goes first
  split         text not null default 'free' check (split in ('free', 'single', 'complete', 'max_packages', 'keep_together')),
  split_max     int check (split_max > 0),
  promise_days  int check (promise_days >= 0),
  pickup_location_id int references location,
  sold_there    boolean not null default false,      -- the shop sold it itself: its own stock has fallen by it
  unique (channel_id, number)
);
create index on orders (channel_id, placed_at);
create table order_line (
  line_id     bigint generated always as identity primary key,
  order_id    uuid not null references orders,
  line        text not null,                         -- the shop's name of the line
  part        int not null default 0,                -- a kit's components are parts of its line
  sku_id      int references sku,                    -- null: unknown, parked with an exception
  sku         text not null,                         -- as the shop said it
  pool_id     int not null references pool,
  quantity    int not null check (quantity > 0),
  price_cents int,
  open        int not null default 0 check (open >= 0),
  parked      int not null default 0 check (parked >= 0),     -- an unknown sku: reserves nothing
  allocated   int not null default 0 check (allocated >= 0),
  shipped     int not null default 0 check (shipped >= 0),    -- shipped or handed over
  cancelled   int not null default 0 check (cancelled >= 0),
  hold        text,                                  -- fraud, address, payment, customer: not brokered while set
  version     int not null default 1,
  unique (order_id, line, part),
  check (open + parked + allocated + shipped + cancelled = quantity)
);
-- The kit that a shop sold, by its own code or ours, when a part of it is this component; and units of that in each.
create function kit_sold(the_channel int, the_code text, component int) returns table (kit_id int, per int)
language sql stable as $$
  select k.kit_id, k.quantity from kit k
   where k.component_id = component
     and k.kit_id = coalesce((select a.sku_id from channel c join source o on o.code = c.code
                                join sku_alias a on a.source_id = o.source_id
                               where c.channel_id = the_channel and a.code = the_code),
                             (select s.sku_id from sku s where s.code = the_code))
$$;
-- The shop has deducted its own sale: what it was told is less by that, so that no delta deducts it again.
create function told_by_sale() returns trigger language plpgsql
  set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  insert into touched (sku_id, channel_id, sold)
  select coalesce(k.kit_id, n.sku_id), o.channel_id, max(n.quantity / coalesce(k.per, 1))
    from made n
    join orders o using (order_id)
    left join lateral kit_sold(o.channel_id, n.sku, n.sku_id) k on n.part > 0
   where n.sku_id is not null and o.sold_there
   group by n.order_id, n.line, coalesce(k.kit_id, n.sku_id), o.channel_id
   order by coalesce(k.kit_id, n.sku_id);
  return null;
end $$;
create trigger order_line_sold after insert on order_line
  referencing new table as made for each statement execute function told_by_sale();
create index order_line_open on order_line (line_id) where open > 0;
create index order_line_sku on order_line (sku_id) where open > 0;
create index order_line_parked on order_line (order_id) where parked > 0;
create index on order_line (order_id);

create table fulfillment (
  fulfillment_id uuid primary key default uuidv7(),
  order_id       uuid not null references orders,
  location_id    int not null references location,
  -- released → accepted → picked → packed → shipped; ready → handed_over (pick-up); rejected, recalled
  state          text not null default 'released' check (state in ('released', 'accepted', 'picked', 'packed', 'shipped',
                                                                   'ready', 'handed_over', 'rejected', 'recalled')),
  capacity_day   date not null,                      -- the local day whose capacity it uses
  run_id         uuid,
  made_at        timestamptz not null default clock_timestamp(),
  changed_at     timestamptz not null default clock_timestamp()
);
create index on fulfillment (location_id, state);
create index on fulfillment (order_id);
create table fulfillment_line (
  fulfillment_id uuid not null references fulfillment,
  line_id        bigint not null references order_line,
  sku_id         int not null references sku,
  given          int not null check (given > 0),     -- at first: what its source took over
  quantity       int not null check (quantity between 0 and given), -- still with this fulfillment
  rejected       int not null default 0 check (rejected >= 0),
  reference      text not null unique,               -- what its source acknowledges: 'FULFILLMENT:LINE_ID'
  primary key (fulfillment_id, line_id)
);
create index on fulfillment_line (line_id);

-- a location that rejected a sku is not asked again until then
create table rejected_before (
  sku_id      int not null,
  location_id int not null,
  order_id    uuid not null references orders,
  until       timestamptz not null,
  reason      text not null,
  primary key (order_id, sku_id, location_id)
);

-- Units of work per location and local day; rows are locked last.
create table capacity (
  location_id int not null references location,
  day         date not null,
  orders      int not null default 0 check (orders >= 0),
  items       int not null default 0 check (items >= 0),
  cents       bigint not null default 0 check (cents >= 0),
  primary key (location_id, day)
);

create table run (
  run_id      uuid primary key default uuidv7(),
  -- reading → planned → applying → applied; failed; a dry run ends at planned
  state       text not null default 'reading' check (state in ('reading', 'planned', 'applied', 'failed')),
  dry_run     boolean not null default false,
  policy      text,
  seconds_max double precision not null,
  seed        int not null,
  asked_by    text not null,
  started_at  timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  summary     jsonb not null default '{}'
);
create table decision (
  run_id     uuid not null references run,
  order_id   uuid not null references orders,
  -- planned → applied (all of it), partly, dropped (it no longer fits: back to open)
  state      text not null default 'planned' check (state in ('planned', 'applied', 'partly', 'dropped')),
  plan       jsonb not null,                         -- [{line_id, version, location_id, quantity}]
  why        jsonb not null,                         -- candidates, cents per term, what fell out and why
  result     text,                                   -- why it was dropped
  primary key (run_id, order_id)
);
create index decision_open on decision (run_id) where state = 'planned';
create index on decision (order_id);

create table channel_stock (
  channel_id int not null references channel,
  sku_id     int not null references sku,
  current    int not null check (current >= 0),
  pushed     int,                                    -- null: never told
  version    bigint not null,                        -- of the availability row that `current` was computed from
  push_id    uuid,                                   -- the push that is under way for it
  primary key (channel_id, sku_id)
) with (fillfactor = 80);
create index channel_stock_due on channel_stock (channel_id, sku_id)
  where push_id is null and current is distinct from pushed;

create table push (
  push_id      uuid primary key default uuidv7(),
  channel_id   int not null references channel,
  mode         text not null check (mode in ('delta', 'reset')),
  as_of        timestamptz,                          -- a reset: the shop's orders are known up to here
  -- due → done; dead (refused for good), replayable with the same id
  state        text not null default 'due' check (state in ('due', 'done', 'dead')),
  attempts     int not null default 0,
  not_before   timestamptz not null default clock_timestamp(),
  leased_until timestamptz,
  made_at      timestamptz not null default clock_timestamp(),
  done_at      timestamptz,
  answer       text
);
create index push_due on push (channel_id, push_id) where state = 'due';
create table push_item (
  push_id  uuid not null references push,
  sku_id   int not null references sku,
  quantity int not null,                             -- the absolute value
  delta    int,                                      -- against what was last told
  version  bigint not null,
  primary key (push_id, sku_id)
);
create index on push_item (sku_id);

-- Mornings that ended, of one source or of all; one that was killed left no row, and is due again.
create table morning (
  morning_id  uuid primary key default uuidv7(),
  state       text not null check (state in ('done', 'failed')),
  asked_by    text not null,
  source_id   int references source,
  started_at  timestamptz not null,
  finished_at timestamptz not null default clock_timestamp(),
  steps       jsonb not null default '{}'            -- step -> seconds
);
