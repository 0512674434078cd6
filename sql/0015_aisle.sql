-- Endless aisle: an associate finds a sku by words, reserves for a customer in several ways at once, and orders it.

-- The words of a sku: its name and code, in no language, cut where neither letters nor digits are.
create function sku_words(name text, code text) returns tsvector language sql immutable parallel safe as $$
  select to_tsvector('simple'::regconfig, regexp_replace(name || ' ' || code, '[][\\/_.,:;()+#&*|!<>"''-]+', ' ', 'g'))
$$;
create index sku_by_words on sku using gin (sku_words(name, code));
create index on sku_alias (code);                    -- whichever source says it so

-- What an associate reserves for a customer: lines to take away, to be shipped, to be picked up; all or none of them.
create table basket (
  basket_id   uuid primary key,
  channel_id  int not null references channel,
  location_id int not null references location,      -- the store where it is made
  lines       jsonb not null,                        -- [{line, sku, quantity, method, location, price_cents, …}]
  ship_to     jsonb,
  ship_method text not null,
  who         text not null,
  why         text,
  made_at     timestamptz not null default clock_timestamp()
);
create index on basket (location_id, made_at);
-- Lines of one way and location are one reservation, and become one order.
create table basket_part (
  basket_id      uuid not null references basket,
  place          int not null,
  method         text not null check (method in ('take_away', 'ship', 'pickup')),
  location_id    int references location check ((location_id is null) = (method = 'ship')),
  reservation_id uuid not null unique,
  order_id       uuid references orders,
  left_at        timestamptz,                        -- of what is taken away: when it left
  primary key (basket_id, place)
);
create index basket_part_stays on basket_part (order_id) where method = 'take_away' and left_at is null;
create index on basket_part (order_id) where order_id is not null;
-- A basket is ordered once, and its number is of one basket.
create table basket_order (
  channel_id int not null references channel,
  number     text not null,
  basket_id  uuid not null unique references basket,
  who        text not null,
  why        text,
  made_at    timestamptz not null default clock_timestamp(),
  primary key (channel_id, number)
);
analyze sku, sku_alias;
