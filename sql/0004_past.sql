-- The past: what a row said until a moment, where the ledger, reservations and history do not keep it.
-- Append-only, written by triggers in the transaction that changes the row. A cart that is reserved in a pool writes
-- none of it, unless a cap counts what its channel takes.

alter table order_line add made_at timestamptz not null default clock_timestamp();
update order_line n set made_at = o.captured_at from orders o where o.order_id = n.order_id;

create table stock_past (
  past_id      bigint generated always as identity primary key,
  sku_id       int not null,
  location_id  int not null,
  until_at     timestamptz not null default clock_timestamp(),
  held         int not null,
  allocated    int not null,
  safety_stock int not null
);
create index on stock_past (sku_id, until_at);
create function keep_stock_past() returns trigger language plpgsql as $$
begin
  insert into stock_past (sku_id, location_id, held, allocated, safety_stock)
  values (old.sku_id, old.location_id, old.held, old.allocated, old.safety_stock);
  return null;
end $$;
-- on_hand is not among the columns: the ledger keeps it, and a baseline fires nothing
create trigger stock_was after update of held, allocated, safety_stock on stock for each row
  when ((old.held, old.allocated, old.safety_stock) is distinct from (new.held, new.allocated, new.safety_stock))
  execute function keep_stock_past();

create table line_past (
  past_id  bigint generated always as identity primary key,
  line_id  bigint not null,
  sku_id   int not null,
  until_at timestamptz not null default clock_timestamp(),
  open     int not null
);
create index on line_past (sku_id, until_at);
create function keep_line_past() returns trigger language plpgsql as $$
begin
  insert into line_past (line_id, sku_id, open) values (old.line_id, new.sku_id, old.open);
  return null;
end $$;
create trigger line_was after update of open on order_line for each row
  when (old.open <> new.open and new.sku_id is not null) execute function keep_line_past();
-- What changes seldom: the row as it was, null before it was made. Secrets are not kept.
create table past (
  past_id  bigint generated always as identity primary key,
  relation text not null,
  key      int not null,                             -- what it is found by: a sku where it speaks of one
  row_id   bigint not null,
  until_at timestamptz not null default clock_timestamp(),
  was      jsonb
);
create index on past (relation, key, until_at);
create function keep_past() returns trigger language plpgsql as $$
declare
  said jsonb := case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
begin
  insert into past (relation, key, row_id, was)
  values (tg_table_name, (said ->> tg_argv[0])::int, (said ->> tg_argv[1])::bigint,
          case when tg_op <> 'INSERT' then to_jsonb(old) - 'settings' end);
  return null;
end $$;
create trigger location_was after update of is_on on location for each row
  when (old.is_on <> new.is_on) execute function keep_past('location_id', 'location_id');
create trigger channel_was after update of pool_id, buffer, cap on channel for each row
  when ((old.pool_id, old.buffer, old.cap) is distinct from (new.pool_id, new.buffer, new.cap))
  execute function keep_past('channel_id', 'channel_id');
create trigger rule_was after insert or update or delete on rule for each row
  execute function keep_past('rule_id', 'rule_id');
create trigger kit_was after insert or update or delete on kit for each row
  execute function keep_past('kit_id', 'component_id');
create trigger incoming_was after insert or update or delete on incoming for each row
  execute function keep_past('sku_id', 'incoming_id');
create trigger taken_was after update of taken on availability for each row
  when (old.taken <> new.taken) execute function keep_past('sku_id', 'sku_id');

create trigger stock_past_append_only before update or delete on stock_past
  for each statement execute function refuse_edit();
create trigger line_past_append_only before update or delete on line_past
  for each statement execute function refuse_edit();
create trigger past_append_only before update or delete on past
  for each statement execute function refuse_edit();
