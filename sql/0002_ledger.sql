-- The ledger: movements, their fold (stock), commitments, and the row per sku that is the lock (availability).

-- Which pools a location feeds decides its segment; a layout numbers pools and segments.
create table layout (
  layout_id int generated always as identity primary key,
  pools     int[] not null,          -- pool_id by position
  segments  int[] not null,          -- by segment: a bit mask over pool positions
  made_at   timestamptz not null default clock_timestamp()
);
create table layout_location (
  layout_id   int not null references layout,
  location_id int not null references location,
  segment     int not null,          -- 0-based
  primary key (layout_id, location_id)
);
insert into layout (pools, segments) values ('{}', '{}');

create table availability (
  sku_id    int primary key references sku,
  version   bigint not null default 1,
  layout_id int not null references layout,
  supply    int[] not null,          -- by segment: the sum of available(l) of its locations
  reserved  int[] not null,          -- by pool position: live reservations + open lines
  taken     jsonb not null default '{}'   -- channel_id -> units taken since the last baseline, where it has a cap
) with (fillfactor = 70);
-- created with the sku: a missing row locks nothing
create function availability_of_new_sku() returns trigger language plpgsql as $$
begin
  insert into availability (sku_id, layout_id, supply, reserved)
  select n.sku_id, l.layout_id,
         array_fill(0, array[cardinality(l.segments)]), array_fill(0, array[cardinality(l.pools)])
    from inserted n, (select * from layout order by layout_id desc limit 1) l;
  return null;
end $$;
create trigger sku_availability after insert on sku
  referencing new table as inserted for each statement execute function availability_of_new_sku();

-- which skus changed; projector and pushes take them with SKIP LOCKED
create table touched (
  touched_id bigint generated always as identity primary key,
  sku_id     int not null
);

-- A feed is one delivery from a source.
create table feed (
  feed_id      bigint generated always as identity primary key,
  source_id    int not null references source,
  kind         text not null check (kind in ('baseline', 'movements')),
  name         text not null,                       -- file name or 'api'
  sha256       text,
  scope        text check (scope in ('full', 'partial')),
  as_of        timestamptz,
  watermark    jsonb not null default '{}',         -- source_id -> highest sequence that it contains
  -- staging → staged → applying → applied; refused, superseded (older everywhere); parked parts stand in baseline
  state        text not null check (state in ('staging', 'staged', 'applying', 'applied', 'refused', 'superseded')),
  refused_why  text,
  rows         bigint not null default 0,
  refused_rows bigint not null default 0,
  totals       jsonb not null default '{}',         -- counts for people: applied, absorbed, parked, zeroed …
  cursor_sku   int not null default 0,              -- chunks up to this sku are applied
  dry_run      boolean not null default false,
  received_by  text not null,
  received_at  timestamptz not null default clock_timestamp(),
  finished_at  timestamptz,
  check (kind = 'movements' or (scope is not null and as_of is not null))
);
create index on feed (source_id, feed_id);
create unique index feed_once on feed (source_id, sha256, as_of, scope)
  where kind = 'baseline' and state <> 'refused' and not dry_run;
create table feed_refusal (
  feed_id bigint not null references feed,
  line    bigint not null,
  field   text not null,
  reason  text not null,
  value   text,
  primary key (feed_id, line, field)
);

-- The part of a baseline feed that speaks of one location; the snapshot in force of its keys.
create table baseline (
  baseline_id    bigint generated always as identity primary key,
  feed_id        bigint not null references feed,
  location_id    int not null references location,
  source_id      int not null references source,
  scope          text not null check (scope in ('full', 'partial')),
  as_of          timestamptz not null,
  order_level    text not null,
  window_seconds int not null,
  watermark      jsonb not null,
  -- staged → applied; parked (a gate) → applied; superseded; reverted
  state          text not null check (state in ('staged', 'parked', 'applied', 'superseded', 'reverted')),
  previous_id    bigint references baseline,        -- in force before it
  numbers        jsonb not null default '{}',       -- what the gates measured, and which one closed
  applied_at     timestamptz,
  unique (feed_id, location_id)
);
create index on baseline (location_id, as_of);
alter table location add foreign key (baseline_id) references baseline;

-- The rows of a feed while it is loaded: a partition per feed, dropped when it is done.
create table feed_row (
  feed_id  bigint not null,
  line     bigint not null,
  sku      text, location text, quantity text, status text, bin text, lot text, uom text
) partition by list (feed_id);
create table feed_key (
  feed_id     bigint not null,
  sku_id      int not null,
  location_id int not null,
  quantity    int not null,                         -- on hand, summed, in each
  held        jsonb,                                -- hold code -> quantity, of the statuses that are holds
  absent      boolean not null default false        -- not in the feed: zero by the source's contract
) partition by list (feed_id);
-- what was kept for looking: rows by bin and lot
create table bin_stock (
  location_id int not null references location,
  sku_id      int not null references sku,
  bin         text not null, lot text not null, status text not null,
  quantity    int not null,
  feed_id     bigint not null,
  primary key (location_id, sku_id, bin, lot, status)
);

create table stock (
  sku_id       int not null references sku,
  location_id  int not null references location,
  on_hand      int not null default 0,              -- may be below zero: a pick scanned before its receipt
  held         int not null default 0 check (held >= 0),
  allocated    int not null default 0 check (allocated >= 0),
  safety_stock int not null default 0 check (safety_stock >= 0),
  version      bigint not null default 0,           -- of the last movement
  -- own snapshot (a partial feed), or the one kept while a full feed left the key out (pinned)
  baseline_id  bigint references baseline,
  is_pinned    boolean not null default false,
  counted_at   timestamptz,                         -- the last count: a partial baseline of one key
  is_ambiguous boolean not null default false,      -- a doubtful movement lies in the window; until the next count
  primary key (sku_id, location_id)
) with (fillfactor = 80);
create index stock_deficit on stock (sku_id, location_id) where allocated > on_hand;
create index stock_negative on stock (sku_id, location_id) where on_hand < 0;
create index stock_by_location on stock (location_id, sku_id);

-- Append-only; the only way that on_hand changes. fold: stock.on_hand = sum(effect), stock.version = max(version).
create table movement (
  sku_id      int not null,
  location_id int not null,
  version     bigint not null,                      -- chains: two writers cannot both extend it
  source_id   int not null references source,
  message_id  text not null,
  kind        text not null check (kind in ('sale', 'return', 'receipt', 'shipment', 'transfer', 'adjustment',
                                            'count', 'hold', 'release', 'baseline')),
  quantity    int not null,                         -- what it says, signed as on_hand would change
  effect      int not null,                         -- what it changed: 0 when absorbed
  on_hand     int not null,                         -- after it
  sequence    bigint,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default clock_timestamp(),
  absorbed_by text,                                 -- 'baseline:ID' or 'count': already contained there
  reason      text,
  reference   text,
  feed_id     bigint,
  who         text not null,
  primary key (sku_id, location_id, version)
);
create index movement_message on movement (source_id, message_id);
create index movement_feed on movement (feed_id) where kind = 'baseline';
create trigger movement_append_only before update or delete on movement
  for each statement execute function refuse_edit();

-- The inbox: a message acts once.
create table message (
  source_id    int not null references source,
  message_id   text not null,
  hash         bytea not null,
  -- applied, absorbed, acknowledged; parked (unknown sku or location), review (not the owner), refused
  outcome      text not null check (outcome in ('applied', 'absorbed', 'acknowledged', 'parked', 'review',
                                                'dismissed')),
  sequence     bigint,
  payload      jsonb,                               -- kept while parked or under review
  detail       text,
  exception_id uuid references exception,
  feed_id      bigint,
  recorded_at  timestamptz not null default clock_timestamp(),
  primary key (source_id, message_id)
);
create index on message (source_id, sequence) where sequence is not null;
create index on message (exception_id) where outcome in ('parked', 'review');

-- What the owner of a quantity knows of each movement: decides what is applied again over a snapshot.
create table posting (
  sku_id       int not null,
  location_id  int not null,
  version      bigint not null,
  source_id    int not null,
  kind         text not null,
  sequence     bigint,
  occurred_at  timestamptz not null,
  quantity     int not null,                        -- signed; a count's is its variance
  hold_code    text,
  held         int not null default 0,              -- signed change of that hold code
  is_ours      boolean not null default false,
  acked_sequence bigint,
  acked_at     timestamptz,                         -- by the owner's clock
  contained_in bigint references baseline,
  primary key (sku_id, location_id, version)
) with (fillfactor = 80);
create index posting_open on posting (sku_id, location_id) where contained_in is null;
create index posting_contained on posting (contained_in) where contained_in is not null;

-- Holds: units on hand that may not be sold. A hold lives with its movement where it has one.
create table hold (
  hold_id     bigint generated always as identity primary key,
  sku_id      int not null,
  location_id int not null,
  code        text not null,                        -- until_baseline, until_released, or a source's code
  quantity    int not null check (quantity > 0),
  version     bigint,                               -- of the movement it lives with
  source_id   int not null references source,
  placed_at   timestamptz not null,
  lifted_at   timestamptz,
  lifted_by   text
);
create index hold_open on hold (sku_id, location_id) where lifted_at is null;

-- Expected receipts: never on hand.
create table incoming (
  incoming_id bigint generated always as identity primary key,
  source_id   int not null references source,
  reference   text not null,
  sku_id      int not null references sku,
  location_id int not null references location,
  kind        text not null check (kind in ('purchase', 'transfer', 'production')),
  quantity    int not null check (quantity >= 0),   -- still expected
  due_on      date not null,
  unique (source_id, reference, sku_id, location_id)
);
create index on incoming (sku_id);

-- Is a movement already in a snapshot? model.md's table of levels, in one place. Doubt says what cannot oversell.
create function is_contained(
  quantity int, held int, is_ours boolean, source_id int, sequence bigint, occurred_at timestamptz,
  acked_sequence bigint, acked_at timestamptz,
  order_level text, window_seconds int, as_of timestamptz, watermark jsonb, owner_id int, acknowledges boolean
) returns boolean language sql immutable parallel safe return
  case
    when is_ours and acked_sequence is not null and watermark ? owner_id::text
      then acked_sequence <= (watermark ->> owner_id::text)::bigint
    when is_ours and (order_level <> 'window' or acknowledges)
      -- increments at window level are doubtful until they are surely after it
      then case when order_level = 'window' and (quantity > 0 or quantity = 0 and held < 0)
                then coalesce(acked_at, occurred_at) <= as_of + make_interval(secs => window_seconds)
                else coalesce(acked_at <= as_of
                     - make_interval(secs => case when order_level = 'window' then window_seconds else 0 end), false)
           end
    when sequence is not null and watermark ? source_id::text
      then sequence <= (watermark ->> source_id::text)::bigint
    when order_level = 'clock' or (order_level = 'sequence' and source_id = owner_id) or window_seconds = 0
      then occurred_at <= as_of
    when quantity > 0 or quantity = 0 and held < 0
      then occurred_at <= as_of + make_interval(secs => window_seconds)
    else occurred_at <= as_of - make_interval(secs => window_seconds)
  end;
