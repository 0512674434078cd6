-- The ledger: movements, their fold (stock), commitments, and the row per sku that is the lock (availability).

-- Which pools a location feeds decides its segment; a layout numbers pools and segments.
create table layout (
  layout_id int generated always as identity primary key,
  pools     int[] not null,          -- pool_id by position
  segments  bigint[] not null,       -- by segment: a bit mask over pool positions (domain/atp.py, POOLS_MAX)
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
  sku_id     int not null,
  -- units that this channel sold itself: its shop has deducted them before we learned of it
  channel_id int references channel,
  sold       int check ((sold is null) = (channel_id is null))
);
-- what a channel is told depends on its rules, too
create function touch_all() returns trigger language plpgsql as $$
begin
  insert into touched (sku_id) select sku_id from availability order by sku_id;
  return null;
end $$;
create trigger channel_is_new after insert on channel for each statement execute function touch_all();
create trigger channel_rules after update on channel for each row
  when ((old.pool_id, old.buffer, old.cap) is distinct from (new.pool_id, new.buffer, new.cap))
  execute function touch_all();
-- A kit's projections are ordered by the sum of its own version and those of its components, which never falls.
create function touch_kit() returns trigger language plpgsql as $$
begin
  update availability k
     set version = k.version + 1 + case when tg_op = 'INSERT' then 0 else
           (select c.version from availability c where c.sku_id = old.component_id) end
   where k.sku_id = case when tg_op = 'DELETE' then old.kit_id else new.kit_id end;
  insert into touched (sku_id) values (case when tg_op = 'DELETE' then old.kit_id else new.kit_id end);
  return null;
end $$;
create trigger kit_changes after insert or update or delete on kit for each row execute function touch_kit();

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
  -- staging → staged → applying → applied; refused; superseded (older everywhere); shown (a dry run).
  -- Parts that a gate parked stand in baseline and do not hold up the rest.
  state        text not null check (state in ('staging', 'staged', 'applying', 'applied', 'refused', 'superseded',
                                              'shown')),
  refused_why  text,
  rows         bigint not null default 0,
  refused_rows bigint not null default 0,
  totals       jsonb not null default '{}',         -- counts for people: applied, absorbed, parked, zeroed …
  cursor_sku   int not null default 0,              -- of the parts that are applying: done up to this sku
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
  -- staged → applying → applied → reverted; parked by a gate → staged | dismissed; superseded
  state          text not null check (state in ('staged', 'parked', 'applying', 'applied', 'superseded', 'reverted',
                                                'dismissed')),
  previous_id    bigint references baseline,        -- in force before it
  numbers        jsonb not null default '{}',       -- what the gates measured, and which one closed
  -- a row that could not be read may name any key of it: absent ones are not zero, whatever the contract says
  keeps_absent   boolean not null default false,
  applied_at     timestamptz,
  unique (feed_id, location_id)
);
create index on baseline (location_id, as_of);
alter table location add foreign key (baseline_id) references baseline;

-- The rows of a feed while it is loaded: a partition per feed, joined when all have come, dropped when it is done.
-- feed_row holds the text as it came and is unlogged (a feed is acknowledged when feed_key is complete).
create table feed_row (
  feed_id  bigint not null,
  line     bigint not null,
  sku      text, location text, quantity text, status text, bin text, lot text, uom text
) partition by list (feed_id);
create table feed_key (
  feed_id     bigint not null,
  sku_id      int not null,
  location_id int not null,
  quantity    int not null,                         -- on hand, summed, in each; units under a hold included
  held        jsonb,                                -- hold code -> quantity, of the statuses that are holds
  rows        int not null default 1,               -- 0: not in the feed, and zero by the source's contract
  untouched   boolean not null default false        -- a row of it was refused: what we believe stays
) partition by list (feed_id);
-- the advisory lock of a delivery while it is received
create function feed_lock(id bigint) returns bigint language sql immutable parallel safe return 7303000000000000 + id;
-- Its tables stand alone while rows arrive: a partition that is written locks its parent for others, and an upload may
-- take hours. Parents are locked feed_key first.
create function open_feed(id bigint) returns void language plpgsql as $$
begin
  perform close_feed(id);
  execute format('create table feed_key_%1$s (like feed_key including defaults, check (feed_id = %1$s))', id);
  execute format('create unlogged table feed_row_%1$s (like feed_row including defaults, check (feed_id = %1$s))', id);
  execute format('alter table feed_row_%1$s alter feed_id set default %1$s', id);
end $$;
create function join_feed(id bigint) returns void language plpgsql as $$
begin
  execute format('alter table feed_key attach partition feed_key_%1$s for values in (%1$s)', id);
  execute format('alter table feed_row attach partition feed_row_%1$s for values in (%1$s)', id);
end $$;
create function close_feed(id bigint) returns void language plpgsql as $$
begin
  execute format('drop table if exists feed_key_%s', id);
  execute format('drop table if exists feed_row_%s', id);
end $$;
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
-- no index speaks of on_hand or allocated: an update of them stays on its page (HOT), which halved a baseline
create index stock_by_location on stock (location_id, sku_id);

-- Append-only; the only way that on_hand changes. fold: stock.on_hand = sum(effect), stock.version = max(version).
create table movement (
  sku_id      int not null,
  location_id int not null,
  version     bigint not null,                      -- chains: two writers cannot both extend it
  source_id   int not null,                         -- no foreign key: the hottest insert; sources are never deleted
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
create index movement_message on movement (source_id, message_id) where kind <> 'baseline';
create index movement_feed on movement (feed_id, location_id) where kind = 'baseline';
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

-- A source deducted a fulfillment at its step before we shipped it (or though we never will).
create table deduction (
  reference      text primary key,
  source_id      int not null references source,
  sku_id         int not null,
  location_id    int not null,
  quantity       int not null check (quantity > 0),
  acked_sequence bigint,
  acked_at       timestamptz,
  undone_sequence bigint,
  undone_at      timestamptz,
  counted_in     bigint references baseline,                             -- the baseline that added it back
  shipped        boolean not null default false      -- then its movement says it
);
create index deduction_open on deduction (sku_id, location_id) where not shipped;

create function is_deducted(
  d deduction, order_level text, window_seconds int, as_of timestamptz, watermark jsonb, owner_id int, acknowledges boolean
) returns boolean language sql immutable parallel safe return
  d.source_id = owner_id
  and is_contained(-d.quantity, 0, true, 1, null, d.acked_at, d.acked_sequence, d.acked_at,
                   order_level, window_seconds, as_of, watermark, owner_id, true)
  -- given back by then? doubt says yes: then it is not added, which cannot oversell
  and not (d.undone_at is not null
           and is_contained(d.quantity, 0, true, 1, null, d.undone_at, d.undone_sequence, d.undone_at,
                            order_level, window_seconds, as_of, watermark, owner_id, true));

-- What the keys of a feed become: on_hand = quantity + what the snapshot does not contain (model.md).
-- Keys that are newer already (their own snapshot or count) are left out.
create function rebased(id bigint, after_sku int, upto_sku int, states text[]) returns table (
  sku_id int, location_id int, baseline_id bigint, scope text, as_of timestamptz, source_id int,
  was int, becomes int, held jsonb, is_ambiguous boolean, marked boolean, is_new boolean
) language sql stable as $$
  with part as (
    select b.*, s.acknowledges, s.quantity_kind, s.deducted_holds
      from baseline b join source s on s.source_id = b.source_id
     where b.feed_id = id and b.state = any(states)
  ), keys as (
    select k.sku_id, k.location_id, k.quantity, k.held, p.baseline_id, p.scope, p.as_of, p.source_id, p.order_level,
           p.window_seconds, p.watermark, p.acknowledges, p.quantity_kind, p.deducted_holds,
           st.on_hand, st.is_ambiguous, st.is_pinned, st.sku_id is null as is_new
      from feed_key k
      join part p on p.location_id = k.location_id
      left join stock st on st.sku_id = k.sku_id and st.location_id = k.location_id
       and st.sku_id > after_sku and st.sku_id <= upto_sku
      left join baseline own on own.baseline_id = st.baseline_id and not st.is_pinned
     where k.feed_id = id and k.sku_id > after_sku and k.sku_id <= upto_sku and not k.untouched
       and (own.baseline_id is null or own.as_of < p.as_of)
       and (st.counted_at is null or st.counted_at <= p.as_of)
  ), open as (
    select k.sku_id, k.location_id,
           sum(p.quantity) filter (where not c.contained) as quantity,
           bool_or(k.order_level <> 'clock' and not p.is_ours and p.source_id <> k.source_id
                   and (p.sequence is null or not k.watermark ? p.source_id::text)
                   and abs(extract(epoch from p.occurred_at - k.as_of)) <= k.window_seconds) as is_doubtful,
           bool_or(k.order_level = 'window' and p.kind = 'count') as is_counted
      from keys k
      join posting p on p.sku_id = k.sku_id and p.location_id = k.location_id and p.contained_in is null
       and p.sku_id > after_sku and p.sku_id <= upto_sku
      cross join lateral (select is_contained(p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at,
                          p.acked_sequence, p.acked_at, k.order_level, k.window_seconds, k.as_of, k.watermark,
                          k.source_id, k.acknowledges) as contained) c
     group by k.sku_id, k.location_id
  ), deducted as (
    select k.sku_id, k.location_id, sum(d.quantity) as quantity
      from keys k
      join deduction d on d.sku_id = k.sku_id and d.location_id = k.location_id and not d.shipped
       and d.sku_id > after_sku and d.sku_id <= upto_sku
       and is_deducted(d, k.order_level, k.window_seconds, k.as_of, k.watermark, k.source_id, k.acknowledges)
     group by k.sku_id, k.location_id
  ), known as (  -- holds that an available source has deducted: those placed in the snapshot less those released in it
    select k.sku_id, k.location_id, greatest(0, sum(p.held)) as quantity
      from keys k
      join posting p on p.sku_id = k.sku_id and p.location_id = k.location_id and p.hold_code = any(k.deducted_holds)
       and p.held <> 0 and p.sku_id > after_sku and p.sku_id <= upto_sku
       and (p.contained_in is not null
            or is_contained(p.quantity, p.held, p.is_ours, p.source_id, p.sequence, p.occurred_at, p.acked_sequence,
                            p.acked_at, k.order_level, k.window_seconds, k.as_of, k.watermark, k.source_id,
                            k.acknowledges))
     where k.quantity_kind = 'available' and k.deducted_holds <> '{}'
     group by k.sku_id, k.location_id
  )
  select k.sku_id, k.location_id, k.baseline_id, k.scope, k.as_of, k.source_id, coalesce(k.on_hand, 0),
         -- a count that the snapshot may or may not contain: the lesser of what both say
         least(k.quantity + coalesce(o.quantity, 0) + coalesce(d.quantity, 0) + coalesce(h.quantity, 0),
               case when o.is_counted then k.on_hand end)::int,
         k.held, coalesce(o.is_doubtful, false),
         k.is_pinned or k.scope = 'partial' or k.is_ambiguous <> coalesce(o.is_doubtful, false), k.is_new
    from keys k
    left join open o using (sku_id, location_id)
    left join deducted d using (sku_id, location_id)
    left join known h using (sku_id, location_id)
$$;

-- The snapshot in force of a key: its own if that is newer or pinned, else its location's, or the one before it
-- while chunks have not reached the sku.
create function in_force(the_sku int, the_location int) returns bigint language sql stable as $$
  select case when st.is_pinned then st.baseline_id
              when own.as_of is not null and (b.as_of is null or own.as_of > b.as_of) then own.baseline_id
              else b.baseline_id end
    from location l
    left join stock st on st.sku_id = the_sku and st.location_id = l.location_id
    left join baseline own on own.baseline_id = st.baseline_id
    left join baseline full_one on full_one.baseline_id = l.baseline_id
    left join feed f on f.feed_id = full_one.feed_id
    left join baseline b on b.baseline_id =
      case when full_one.state = 'applying' and the_sku > f.cursor_sku then full_one.previous_id
           else full_one.baseline_id end
   where l.location_id = the_location
$$;

-- What the reported hold codes of a feed's keys become (holds that live with movements are not among them).
create function rebased_holds(id bigint, after_sku int, upto_sku int) returns table (
  sku_id int, location_id int, code text, baseline_id bigint, source_id int, as_of timestamptz,
  was int, becomes int, hold_ids bigint[]
) language sql stable as $$
  with part as (
    select b.* from baseline b where b.feed_id = id and b.state = 'applying'
  ), keys as (
    select k.sku_id, k.location_id, k.held, p.baseline_id, p.source_id, p.as_of
      from feed_key k join part p using (location_id)
      join stock st on st.sku_id = k.sku_id and st.location_id = k.location_id
      left join baseline own on own.baseline_id = st.baseline_id and not st.is_pinned
     where k.feed_id = id and k.sku_id > after_sku and k.sku_id <= upto_sku and not k.untouched
       and st.sku_id > after_sku and st.sku_id <= upto_sku
       and (own.baseline_id is null or own.as_of < p.as_of or own.baseline_id = p.baseline_id)
       and (st.counted_at is null or st.counted_at <= p.as_of)
       and (k.held is not null or st.held > 0)
  ), said as (
    select k.sku_id, k.location_id, e.key as code, e.value::int as quantity
      from keys k, jsonb_each_text(k.held) e where k.held is not null
  ), standing as (
    select h.sku_id, h.location_id, h.code, sum(h.quantity)::int as quantity, array_agg(h.hold_id) as hold_ids
      from keys k
      join hold h on h.sku_id = k.sku_id and h.location_id = k.location_id and h.lifted_at is null and h.version is null
       and h.sku_id > after_sku and h.sku_id <= upto_sku
     where h.code in (select hold_code from status_map m where m.source_id = k.source_id)
     group by h.sku_id, h.location_id, h.code
  ), released as (
    select k.sku_id, k.location_id, p.hold_code as code, sum(p.held)::int as quantity
      from keys k
      join posting p on p.sku_id = k.sku_id and p.location_id = k.location_id and p.contained_in is null and p.held < 0
       and p.sku_id > after_sku and p.sku_id <= upto_sku
     group by k.sku_id, k.location_id, p.hold_code
  ), codes as (
    select sku_id, location_id, code from said union select sku_id, location_id, code from standing
  )
  select c.sku_id, c.location_id, c.code, k.baseline_id, k.source_id, k.as_of, coalesce(st.quantity, 0),
         greatest(0, coalesce(s.quantity, 0) + coalesce(r.quantity, 0)), coalesce(st.hold_ids, '{}')
    from codes c
    join keys k using (sku_id, location_id)
    left join said s using (sku_id, location_id, code)
    left join standing st using (sku_id, location_id, code)
    left join released r using (sku_id, location_id, code)
$$;

create function analyze_feed(id bigint) returns void language plpgsql as $$
begin
  execute format('analyze feed_row_%s', id);
end $$;
create function index_feed(id bigint) returns void language plpgsql as $$
begin
  execute format('create index on feed_key_%s (sku_id, location_id)', id);
  execute format('analyze feed_key_%s', id);
end $$;

-- Rows of a feed as our words: sku, location, units in each, what the status means; or the reason why not.
create function read_rows(id bigint, from_source int) returns table (
  line bigint, sku_id int, location_id int, units int, means text, hold_code text,
  field text, reason text, value text, sku text, location text, status text, bin text, lot text
) language sql stable as $$
  with skus as (
    select a.code, a.sku_id from sku_alias a where a.source_id = from_source
    union all
    select s.code, s.sku_id from sku s
     where not exists (select from sku_alias a where a.source_id = from_source and a.code = s.code)
  ), locations as (
    select a.code, a.location_id from location_alias a where a.source_id = from_source
    union all
    select l.code, l.location_id from location l
     where not exists (select from location_alias a where a.source_id = from_source and a.code = l.code)
  ), read as (
    select r.*, k.sku_id, g.location_id,
           -- digits alone: what PostgreSQL reads beyond them (0x10, 1_000) nobody means as a quantity
           case when r.quantity ~ '^[+-]?[0-9]+$' and pg_input_is_valid(r.quantity, 'integer')
                then r.quantity::int end as quantity_int,
           case when r.uom is null or r.uom in ('each', 'EA', 'ea') then 1 else u.quantity end as per,
           coalesce(ms.means, mb.means, case when r.status is null then 'on_hand' end) as means,
           coalesce(ms.hold_code, mb.hold_code) as hold_code
      from feed_row r
      left join skus k on k.code = r.sku
      left join locations g on g.code = r.location
      left join unit u on u.sku_id = k.sku_id and u.uom = r.uom
      left join status_map ms on ms.source_id = from_source and ms.field = 'status' and ms.value = r.status
      left join status_map mb on mb.source_id = from_source and mb.field = 'bin' and mb.value = r.bin
     where r.feed_id = id
  )
  select r.line, r.sku_id, r.location_id,
         case when r.quantity_int between 0 and 1000000000 / greatest(r.per, 1) then r.quantity_int * r.per else 0 end,
         r.means, r.hold_code, p.field, p.reason,
         case p.field when 'quantity' then r.quantity when 'sku' then r.sku when 'location' then r.location
                      when 'uom' then r.uom when 'status' then r.status end,
         r.sku, r.location, r.status, r.bin, r.lot
    from read r
    cross join lateral (
      select case when r.sku_id is null then 'sku' when r.location_id is null then 'location'
                  when r.quantity_int is null or r.quantity_int not between 0 and 1000000000 then 'quantity'
                  when r.per is null then 'uom'
                  when r.quantity_int > 1000000000 / greatest(r.per, 1) then 'quantity'
                  when r.means is null then 'status' end as field,
             case when r.sku_id is null then 'unknown sku: load it or an alias of this source'
                  when r.location_id is null then 'unknown location: load it or an alias of this source'
                  when r.quantity_int is null then 'not a whole number from 0 to 1,000,000,000'
                  when r.quantity_int < 0 then 'negative: a snapshot cannot hold less than nothing; its key shows 0'
                  when r.quantity_int > 1000000000 / greatest(coalesce(r.per, 1), 1) then 'more than 1,000,000,000 units'
                  when r.per is null then 'unknown unit: load it as a unit of this sku'
                  when r.means is null then 'unknown status: map it in the source''s status_map' end as reason
    ) p
$$;
