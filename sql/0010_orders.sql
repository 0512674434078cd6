-- The life of an order before its release: amended, held, waiting for receipts; what its channel is told of it.

-- A shop that sells by itself has deducted units that a line has more of, too.
create function told_by_more() returns trigger language plpgsql as $$
begin
  insert into touched (sku_id, channel_id, sold)
  select coalesce(k.kit_id, new.sku_id), o.channel_id, (new.quantity - old.quantity) / coalesce(k.per, 1)
    from orders o
    left join lateral kit_sold(o.channel_id, new.sku, new.sku_id) k on new.part > 0
   where o.order_id = new.order_id and o.sold_there and (new.part <= 1);
  return null;
end $$;
create trigger order_line_sold_more after update of quantity on order_line for each row
  when (new.quantity > old.quantity and old.sku_id is not null) execute function told_by_more();

-- Why a line is held: several at once; it goes on when the last is released. `order_line.hold` shows the newest.
create table line_hold (
  hold_id     uuid primary key default uuidv7(),
  line_id     bigint not null references order_line,
  order_id    uuid not null,
  kind        text not null check (kind in ('fraud', 'address', 'payment', 'customer')),
  who         text not null,
  why         text,
  keeps_stock boolean not null,                      -- false: its units are parked, and promised to others meanwhile
  at          timestamptz not null default clock_timestamp(),
  released_at timestamptz,
  released_by text check ((released_by is null) = (released_at is null))
);
create unique index line_hold_stands on line_hold (line_id, kind) where released_at is null;
create index on line_hold (order_id);
insert into line_hold (line_id, order_id, kind, who, why, keeps_stock)
select line_id, order_id, hold, 'oms', 'held before holds had reasons', true from order_line where hold is not null;
create function hold_of_new_line() returns trigger language plpgsql as $$
begin
  insert into line_hold (line_id, order_id, kind, who, why, keeps_stock)
  values (new.line_id, new.order_id, new.hold, 'oms', 'nobody knows where it goes', true);
  return null;
end $$;
create trigger order_line_held after insert on order_line for each row
  when (new.hold is not null) execute function hold_of_new_line();
-- Whether a hold has a line's units promised to others meanwhile.
create function gave_up_stock(the_line bigint) returns boolean language sql stable parallel safe return
  exists (select from line_hold where line_id = the_line and released_at is null and not keeps_stock);

-- The event that a step of an order or a fulfillment is; null where nobody outside is told of it.
create or replace function event_of(the_kind text, the_step text, the_detail jsonb) returns text
language sql immutable parallel safe return
  case the_kind
    when 'order' then case the_step
      when 'captured' then 'order.captured' when 'cancelled' then 'order.cancelled'
      when 'amended' then 'order.amended' when 'returned' then 'order.returned'
      when 'recall answered' then 'order.recall_answered' when 'shipped though recalled' then 'order.shipped_though_recalled'
      when 'to be cancelled' then 'order.to_be_cancelled'
      when 'promised' then case
        when the_detail ->> 'there' = 'true' then null             -- what came is allocated next
        when the_detail ->> 'was' is null or the_detail ->> 'on' < the_detail ->> 'was' then 'order.promised'
        else 'order.delayed' end
      when 'allocated' then 'order.allocated' end
    when 'fulfillment' then case the_step
      when 'ready' then 'order.ready' when 'shipped' then 'order.shipped' when 'handed_over' then 'order.handed_over' end
  end;

-- What is told of a step says why, where somebody did.
create or replace function tell_of_orders() returns trigger language plpgsql as $$
begin
  if not exists (select from channel where settings ? 'updates_url') then
    return null;
  end if;
  insert into order_update (channel_id, order_id, event, subject, at, detail)
  select o.channel_id, o.order_id,
         -- work that came back was brokered again
         case when n.event = 'order.allocated' and exists (
                select from history h where h.kind = 'order' and h.id = n.id and h.step = 'open again'
                                        and h.history_id < n.history_id)
              then 'order.brokered_again' else n.event end,
         case when n.kind = 'fulfillment' then n.id
              when n.event in ('order.captured') then '' else n.history_id::text end,
         n.at,
         case when n.event = 'order.ready'                          -- what its customer shows, and by when it is kept
              then coalesce(n.detail, '{}') || coalesce((select jsonb_build_object(
                     'code', c.code, 'collect_by', c.collect_by, 'collect_at', l.code)
                     from collection c join location l using (location_id) where c.fulfillment_id = f.fulfillment_id), '{}')
              when n.why is not null and n.kind = 'order' and n.event not in ('order.captured', 'order.allocated')
                   and (n.detail is null or jsonb_typeof(n.detail) = 'object')
              then coalesce(n.detail, '{}') || jsonb_build_object('why', n.why) else n.detail end
    from (select h.*, event_of(h.kind, h.step, h.detail) as event from steps h) n
    left join fulfillment f on n.kind = 'fulfillment' and f.fulfillment_id = n.id::uuid
    join orders o on o.order_id = case when n.kind = 'order' then n.id::uuid else f.order_id end
    join channel c on c.channel_id = o.channel_id and c.settings ? 'updates_url'
   where n.event is not null
  on conflict do nothing;
  return null;
end $$;

-- What may be sent instead of a sku, the best first: a remedy of an oversold line.
create table sku_substitute (
  sku_id        int not null references sku,
  substitute_id int not null references sku check (substitute_id <> sku_id),
  place         int not null,
  primary key (sku_id, substitute_id)
);

-- Whether present stock did not serve a line when it was last looked at: it waits for what comes.
alter table order_line
  add waits boolean not null default false,
  add cancel_on date;                                -- its channel was told that it is cancelled then if nothing leaves
update order_line set waits = true where promised_on is not null and open > 0;
create index order_line_waits on order_line (sku_id) where waits and open > 0;
-- The day as of which a line is served among others of its sku: its promised day; what nobody promised comes last.
create function served_as_of(promised_on date, waits boolean, captured_at timestamptz) returns date
language sql immutable parallel safe return
  coalesce(promised_on, case when waits then 'infinity' else (captured_at at time zone 'UTC')::date end);

-- What is to be told of collections and refunds is queued with the updates of its order, each once per subject; that a
-- pick-up is ready is told by the step itself. Where nobody is to be told it stays due.
create function event_of_notice(the_kind text) returns text language sql immutable parallel safe return
  case the_kind when 'pickup_reminder' then 'order.pickup_reminder' when 'refund_due' then 'order.refund_due' end;
create function tell_of_notice() returns trigger language plpgsql as $$
begin
  if event_of_notice(new.kind) is not null then
    insert into order_update (channel_id, order_id, event, subject, at, detail)
    values (new.channel_id, new.order_id, event_of_notice(new.kind), new.subject, clock_timestamp(), new.body)
    on conflict do nothing;
  end if;
  update notice set state = 'done' where notice_id = new.notice_id;
  return null;
end $$;
create function is_told(the_channel int) returns boolean language sql stable parallel safe return
  exists (select from channel where channel_id = the_channel and settings ? 'updates_url');
create trigger notice_is_told after insert on notice for each row
  when (new.order_id is not null and new.kind in ('pickup_ready', 'pickup_reminder', 'refund_due') and is_told(new.channel_id))
  execute function tell_of_notice();
insert into order_update (channel_id, order_id, event, subject, at, detail)
select channel_id, order_id, event_of_notice(kind), subject, made_at, body
  from notice where state = 'due' and event_of_notice(kind) is not null and order_id is not null and is_told(channel_id)
 order by notice_id on conflict do nothing;
update notice set state = 'done'
 where state = 'due' and order_id is not null and kind in ('pickup_ready', 'pickup_reminder', 'refund_due')
   and is_told(channel_id);
