-- Work at a location: who does what with which device; systems that are given work; receipts, transfers, counts,
-- write-offs, returns; what channels are to be told.

-- How a location works; every location has its row.
create table work_rule (
  location_id             int primary key references location,
  scans_are_required      boolean not null default false, -- a pick or a pack ends when each unit was scanned
  rejections_change_stock boolean not null default true,  -- false: an associate's rejection keeps the stock as it is
  not_again_hours         int not null default 72 check (not_again_hours between 0 and 8760),   -- for that sku of that order
  sku_rest_minutes        int not null default 240 check (sku_rest_minutes between 0 and 525600), -- by any order, where others' work was rejected too
  reminder_hours          int not null default 48 check (reminder_hours between 1 and 8760),    -- a pick-up that waits
  collect_days            int not null default 7 check (collect_days between 1 and 365),
  write_off_cents_max     int not null default 10000 check (write_off_cents_max >= 0), -- of one person on a local day
  recount_units_min       int not null default 3 check (recount_units_min >= 1),       -- a variance from here is recounted
  count_fast_days         int not null default 7 check (count_fast_days between 1 and 3650),
  count_slow_days         int not null default 30 check (count_slow_days between 1 and 3650),
  count_lines_max         int not null default 50 check (count_lines_max between 1 and 10000) -- planned on one day
);
insert into work_rule (location_id) select location_id from location;
create function work_rule_of_new_location() returns trigger language plpgsql as $$
begin
  insert into work_rule (location_id) values (new.location_id);
  return null;
end $$;
create trigger location_work_rule after insert on location for each row execute function work_rule_of_new_location();

-- What channels and customers' systems are to be told, once per kind and subject.
create table notice (
  notice_id  uuid primary key default uuidv7(),
  kind       text not null,                          -- pickup_ready, pickup_reminder, refund_due, returned …
  subject    text not null,                          -- the id of the fulfillment or return that it speaks of
  channel_id int references channel,
  order_id   uuid references orders,
  body       jsonb not null,
  state      text not null default 'due' check (state in ('due', 'done', 'dead')),
  made_at    timestamptz not null default clock_timestamp(),
  unique (kind, subject)
);
create index on notice (made_at) where state = 'due';

-- Units that are in somebody's hands already: of quantity, picked; of picked, packed.
alter table fulfillment_line
  add picked int not null default 0 check (picked >= 0),
  add packed int not null default 0 check (packed >= 0);
update fulfillment_line n set picked = n.quantity from fulfillment f
 where f.fulfillment_id = n.fulfillment_id and f.state in ('picked', 'packed', 'ready', 'shipped', 'handed_over');
-- when units came into hands or went back to the shelf: what a count of the shelf does not see
create table pick_step (
  pick_step_id   bigint generated always as identity primary key,
  fulfillment_id uuid not null,
  sku_id         int not null,
  quantity       int not null,
  at             timestamptz not null default clock_timestamp()
);
create index on pick_step (sku_id, fulfillment_id);
insert into pick_step (fulfillment_id, sku_id, quantity, at)
select n.fulfillment_id, n.sku_id, n.picked, f.changed_at from fulfillment_line n join fulfillment f using (fulfillment_id)
 where n.picked > 0 and f.state in ('picked', 'packed', 'ready');
-- units that are taken from a fulfillment are first those that nobody has picked yet
create function hands_follow() returns trigger language plpgsql as $$
begin
  new.picked := least(new.picked, new.quantity);
  new.packed := least(new.packed, new.picked);
  if new.picked <> old.picked then
    insert into pick_step (fulfillment_id, sku_id, quantity) values (new.fulfillment_id, new.sku_id, new.picked - old.picked);
  end if;
  return new;
end $$;
create trigger fulfillment_line_hands before update of quantity, picked, packed on fulfillment_line
  for each row execute function hands_follow();

-- A task is one person's: nothing is picked or packed by two.
create table task (
  task_id        uuid primary key default uuidv7(),
  fulfillment_id uuid not null references fulfillment,
  step           text not null check (step in ('pick', 'pack')),
  pick_list_id   uuid,
  who            text not null,
  device         text,
  started_at     timestamptz not null,
  ended_at       timestamptz,
  ended_how      text check ((ended_how is null) = (ended_at is null)), -- done, given back, rejected, recalled
  mispicks       int not null default 0 check (mispicks >= 0)
);
create unique index task_is_one_persons on task (fulfillment_id, step) where ended_at is null;
create index on task (pick_list_id);
create function tasks_end() returns trigger language plpgsql as $$
begin
  update task set ended_at = clock_timestamp(), ended_how = new.state
   where fulfillment_id = new.fulfillment_id and ended_at is null;
  if new.state in ('rejected', 'recalled') then
    update collection set state = 'not_collected', ended_at = clock_timestamp()
     where fulfillment_id = new.fulfillment_id and state in ('expected', 'ready');
  end if;
  return null;
end $$;
create trigger fulfillment_ends_tasks after update of state on fulfillment for each row
  when (new.state in ('rejected', 'recalled', 'shipped', 'handed_over') and old.state <> new.state)
  execute function tasks_end();
create table parcel (
  parcel_id      uuid primary key default uuidv7(),
  fulfillment_id uuid not null references fulfillment,
  number         int not null check (number > 0),
  carrier        text,
  tracking       text,
  weight_grams   int check (weight_grams > 0),
  who            text not null,
  unique (fulfillment_id, number)
);
create table parcel_line (
  parcel_id uuid not null references parcel,
  line_id   bigint not null references order_line,
  quantity  int not null check (quantity > 0),
  primary key (parcel_id, line_id)
);
-- every scan, right or wrong
create table scan (
  scan_id        bigint generated always as identity primary key,
  fulfillment_id uuid not null,
  step           text not null,
  code           text not null,
  serial         text,                               -- of an RFID tag or a serialized code: one piece
  sku_id         int,                                -- null: nobody knows the code
  line_id        bigint,                             -- null: it was refused
  quantity       int not null,
  who            text not null,
  device         text,
  at             timestamptz not null
);
create index on scan (fulfillment_id);
create index on scan (serial) where serial is not null;
create trigger scan_append_only before update or delete on scan for each statement execute function refuse_edit();

-- What a customer collects: packed here (a pick-up), or shipped here for it (ship to store).
create table collection (
  fulfillment_id uuid primary key references fulfillment,
  location_id    int not null references location,
  -- expected (on its way here) → ready → handed_over | not_collected
  state          text not null check (state in ('expected', 'ready', 'handed_over', 'not_collected')),
  code           text not null,                      -- what the customer shows
  ready_at       timestamptz,
  remind_at      timestamptz,
  collect_by     timestamptz,
  reminded_at    timestamptz,
  ended_at       timestamptz,
  proof_kind     text,
  proof          text
);
create index on collection (location_id, state);
create index on collection (remind_at) where state = 'ready';

create index on rejected_before (location_id, sku_id);
-- A location that rejected a sku is not asked for it by any order until then.
create table sku_rest (
  sku_id      int not null,
  location_id int not null,
  until       timestamptz not null,
  reason      text not null,
  primary key (sku_id, location_id)
);

-- A system that runs a location: its work is handed over to it, and it answers.
create table fulfiller (
  location_id         int primary key references location,
  kind                text not null check (kind in ('webhook', 'file')),
  settings            jsonb not null,                -- url, secrets, allow_hosts; folder
  acknowledge_minutes int not null default 15 check (acknowledge_minutes between 1 and 10080),
  is_on               boolean not null default true
);
create table handoff (
  handoff_id      uuid primary key default uuidv7(),
  fulfillment_id  uuid not null references fulfillment,
  act             text not null check (act in ('release', 'recall')),
  -- due → sent → acknowledged; dead: refused for good; dropped: there was nothing left to say
  state           text not null default 'due' check (state in ('due', 'sent', 'acknowledged', 'dead', 'dropped')),
  version         int not null default 1,            -- what is recalled may grow: each is said under an id of its own
  attempts        int not null default 0,
  not_before      timestamptz not null default clock_timestamp(),
  leased_until    timestamptz,
  made_at         timestamptz not null default clock_timestamp(),
  sent_at         timestamptz,
  acknowledged_at timestamptz,
  answer          text,
  unique (fulfillment_id, act)
);
create index handoff_due on handoff (not_before) where state = 'due';
create index on handoff (made_at) where act = 'release' and state in ('due', 'sent');
create table fulfiller_message (
  location_id int not null references location,
  message_id  text not null,
  hash        bytea not null,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (location_id, message_id)
);
create function hand_over() returns trigger language plpgsql as $$
begin
  insert into handoff (fulfillment_id, act)
  select n.fulfillment_id, 'release' from made n join fulfiller r using (location_id) where r.is_on
   order by n.fulfillment_id;
  return null;
end $$;
create trigger fulfillment_is_handed_over after insert on fulfillment
  referencing new table as made for each statement execute function hand_over();
create function hand_back() returns trigger language plpgsql as $$
begin
  insert into handoff (fulfillment_id, act)
  select new.fulfillment_id, 'recall' from handoff h
   where h.fulfillment_id = new.fulfillment_id and h.act = 'release' and h.state <> 'dropped'
  on conflict (fulfillment_id, act) do update
    set state = 'due', version = handoff.version + 1, attempts = 0, not_before = clock_timestamp(), leased_until = null;
  return null;
end $$;
create trigger fulfillment_line_is_recalled after update of quantity on fulfillment_line for each row
  when (new.quantity < old.quantity) execute function hand_back();

-- Received against what was expected.
create table receipt (
  receipt_id  uuid primary key default uuidv7(),
  location_id int not null references location,
  reference   text,                                  -- of the expected receipt: a purchase order, a transfer; null: none
  is_final    boolean not null,                      -- nothing more of it is expected
  who         text not null,
  device      text,
  received_at timestamptz not null
);
create index on receipt (location_id, received_at);
create table receipt_line (
  receipt_id uuid not null references receipt,
  sku_id     int not null references sku,
  expected   int not null,                           -- still, before it
  quantity   int not null check (quantity >= 0),
  damaged    int not null check (damaged between 0 and quantity),
  hold_code  text,                                   -- of those that are not damaged; null: sellable at once
  primary key (receipt_id, sku_id)
);

create table transfer (
  transfer_id     uuid primary key default uuidv7(),
  from_id         int not null references location,
  to_id           int not null references location check (to_id <> from_id),
  order_id        uuid references orders,            -- whom it serves, where it serves one
  -- asked → sent → received; cancelled before it left
  state           text not null default 'asked' check (state in ('asked', 'sent', 'received', 'cancelled')),
  why             text,
  labor_cents     bigint not null default 0 check (labor_cents >= 0),     -- at both ends
  transport_cents bigint not null default 0 check (transport_cents >= 0),
  carrier         text,
  tracking        text,
  due_on          date,
  asked_by        text not null,
  asked_at        timestamptz not null,
  sent_at         timestamptz,
  received_at     timestamptz
);
create index on transfer (from_id, state);
create index on transfer (to_id, state);
create table transfer_line (
  transfer_id uuid not null references transfer,
  sku_id      int not null references sku,
  asked       int not null check (asked > 0),
  sent        int not null default 0 check (sent >= 0),
  received    int not null default 0 check (received >= 0),
  damaged     int not null default 0 check (damaged >= 0),
  hold_code   text,                                  -- the units wait under this hold at their origin
  primary key (transfer_id, sku_id)
);

create table counting (
  count_id    uuid primary key default uuidv7(),
  location_id int not null references location,
  -- cycle: these skus. full: all, and what is not counted is not there. request: a system that owns the quantity counts
  kind        text not null check (kind in ('cycle', 'full', 'request')),
  state       text not null default 'open' check (state in ('open', 'closed')),
  why         text,
  due_on      date not null,
  made_by     text not null,
  made_at     timestamptz not null,
  closed_at   timestamptz
);
create index on counting (location_id, state);
create table count_line (
  count_id   uuid not null references counting,
  sku_id     int not null references sku,
  -- due → applied; due → recount → applied; waiting (for a second person) → applied | refused; superseded: a newer
  -- count or snapshot stands; untouched: not counted when it closed
  state      text not null default 'due' check (state in ('due', 'recount', 'waiting', 'applied', 'refused',
                                                          'superseded', 'untouched')),
  why        text,                                   -- why it was planned
  counted    int check (counted >= 0),               -- on the shelf
  counted_at timestamptz,
  counted_by text,
  variance   int,
  reason     text,                                   -- what explains the variance
  primary key (count_id, sku_id)
);
create index on count_line (sku_id) where state in ('due', 'recount', 'waiting');

-- What is written off; above a limit another person must agree.
create table write_off (
  write_off_id uuid primary key default uuidv7(),
  location_id  int not null references location,
  day          date not null,                        -- local
  kind         text not null check (kind in ('write_off', 'count', 'return', 'rejection')),
  -- asked (by a return: settled soon) → applied | waiting; waiting → applied | refused
  state        text not null check (state in ('asked', 'waiting', 'applied', 'refused')),
  cents        bigint not null check (cents >= 0),
  lines        jsonb not null,
  reference    text,
  requested_by text not null,
  requested_at timestamptz not null,
  decided_by   text,
  decided_at   timestamptz,
  check (state <> 'applied' or decided_by is null or decided_by <> requested_by)
);
create index on write_off (location_id, day, requested_by);
create index on write_off (requested_at) where state in ('asked', 'waiting');

create table customer_return (
  return_id   uuid primary key default uuidv7(),
  channel_id  int references channel,
  order_id    uuid references orders,
  location_id int not null references location,
  is_blind    boolean not null,
  -- expected → received → done
  state       text not null check (state in ('expected', 'received', 'done')),
  made_by     text not null,
  made_at     timestamptz not null,
  received_at timestamptz,
  done_at     timestamptz
);
create index on customer_return (location_id, state);
create index on customer_return (order_id);
create table return_line (
  return_id uuid not null references customer_return,
  number    int not null,
  line_id   bigint references order_line,
  sku_id    int not null references sku,
  reason    text not null,
  price_cents int,
  expected  int not null check (expected >= 0),
  received  int not null default 0 check (received >= 0),
  inspected int not null default 0 check (inspected between 0 and received),
  refunded  int not null default 0 check (refunded between 0 and inspected),
  primary key (return_id, number)
);
create index on return_line (line_id);
alter table order_line add returned int not null default 0 check (returned >= 0);  -- of shipped; beside the states
create table inspection (
  inspection_id bigint generated always as identity primary key,
  return_id     uuid not null references customer_return,
  number        int not null,
  quantity      int not null check (quantity > 0),
  condition     text not null,
  outcome       text not null check (outcome in ('stock', 'hold', 'transfer', 'write_off')),
  hold_code     text,
  to_id         int references location,
  km            double precision,
  rule          text not null,
  who           text not null,
  device        text,
  at            timestamptz not null
);
create index on inspection (return_id);
-- Where what comes back goes: the first rule by rank that fits; null fits all.
create table return_rule (
  code        text primary key,
  rank        int not null default 0,
  reason      text,
  condition   text,
  location_id int references location,               -- where it came back
  outcome     text not null check (outcome in ('stock', 'hold', 'transfer', 'write_off')),
  hold_code   text check ((outcome = 'hold') = (hold_code is not null)),
  to_id       int references location check ((outcome = 'transfer') = (to_id is not null)),
  km_max      double precision check (km_max > 0),   -- to that location; farther, the rule does not fit
  refunds     boolean not null default true
);
insert into return_rule (code, rank, condition, outcome, hold_code) values
  ('as-new', 100, 'new', 'stock', null), ('opened', 110, 'opened', 'hold', 'opened'),
  ('damaged', 120, 'damaged', 'write_off', null), ('else', 1000, null, 'hold', 'returns');
