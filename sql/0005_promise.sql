-- What a promise adds to demand.

-- a reservation and its lines are written by one statement and never deleted: the check of each line cost a third of it
alter table reservation_line drop constraint reservation_line_reservation_id_fkey;

-- Rules beyond numbers. pool: the channel sells from another pool meanwhile. infinite: it sells whatever there is.
-- safety: units kept back at locations. hold: units under a hold code may be sold.
alter table rule
  add location_id int references location,
  add pool_id     int references pool,
  add hold_code   text,
  add is_applied  boolean not null default false,    -- hold: the stock rows are folded with it
  add followed    jsonb,                             -- safety: the sku and location whose stock last followed it
  drop constraint rule_kind_check,
  add constraint rule_kind_check check (kind in ('buffer', 'cap', 'limit', 'preorder', 'protect', 'pool', 'infinite',
                                                 'safety', 'hold'));
create index on rule (hold_code) where kind = 'hold';
create index on rule (sku_id, location_id) where kind = 'safety';
-- what a rule says of stock does not change the version of those that apply when a number is read
create function rule_is_live(r rule) returns boolean language sql stable parallel safe return
  r.is_on and r.state = 'live' and (r.from_at is null or r.from_at <= clock_timestamp())
  and (r.until_at is null or r.until_at > clock_timestamp());
-- Units kept back of a sku at a location: by the rule of the highest priority, then the narrower one, else as it says.
create function safety_of(the_sku int, the_location int, otherwise int) returns int language sql stable parallel safe return
  coalesce((select r.units from rule r
             where r.kind = 'safety' and rule_is_live(r) and (r.sku_id is null or r.sku_id = the_sku)
               and (r.location_id is null or r.location_id = the_location)
             order by r.priority desc, r.sku_id is null, r.location_id is null, r.code limit 1), otherwise);
-- Whether units under this hold code may be sold.
create function is_sellable(the_code text, the_sku int, the_location int) returns boolean
language sql stable parallel safe return
  exists (select from rule r where r.kind = 'hold' and r.is_applied and r.hold_code = the_code
             and (r.sku_id is null or r.sku_id = the_sku) and (r.location_id is null or r.location_id = the_location));

-- How long a pick-up takes to be ready, while the location works.
alter table location add pickup_minutes int not null default 60 check (pickup_minutes between 0 and 10080);

-- Days after its date that an expected receipt still backs promises.
alter table source add tolerance_days int not null default 1 check (tolerance_days between 0 and 365);
-- by when an open line can be there, as it was last promised
alter table order_line add promised_on date;

-- What was asked and said, for comparison with what happened. Written behind the answers, kept for a set time.
create table promise_log (
  promise_id uuid primary key default uuidv7(),
  at         timestamptz not null,
  channel_id int not null references channel,
  rules      bigint not null,                        -- version of the rules
  asked      jsonb not null,                         -- method, place and lines
  said       jsonb not null,                         -- lines with dates and parts
  stock      jsonb not null                          -- by sku: version of its row, number
);
create index on promise_log (at);
create table refusal_log (
  refusal_id bigint generated always as identity primary key,
  at         timestamptz not null,
  channel_id int not null,
  location   text,
  sku        text not null,                          -- as the shop said it
  quantity   int not null,
  atp        int not null,                           -- what there was
  versions   bigint[] not null,                      -- of the rows of its parts
  rules      bigint not null
);
create index on refusal_log (at);
create index on refusal_log (sku, at);
create table read_log (
  minute     timestamptz not null,
  channel_id int not null,
  sku        text not null,
  atp        int not null,                           -- the number that was given
  count      int not null,
  primary key (minute, channel_id, sku, atp)
);
