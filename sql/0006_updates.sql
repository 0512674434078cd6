-- What channels and customers' systems are told of orders: an outbox, filled by the history that every step writes, so
-- that no step forgets it. Each is told once per order, event and subject (a fulfillment, a line's new day …).

create table order_update (
  update_id    uuid primary key default uuidv7(),
  channel_id   int not null references channel,
  order_id     uuid not null references orders,
  event        text not null,
  subject      text not null default '',
  at           timestamptz not null,
  detail       jsonb,
  -- due → done; dead (refused for good, or nobody took it for a week), replayable with the same id
  state        text not null default 'due' check (state in ('due', 'done', 'dead')),
  attempts     int not null default 0,
  not_before   timestamptz not null default clock_timestamp(),
  leased_until timestamptz,
  done_at      timestamptz,
  answer       text,
  unique (order_id, event, subject)
);
create index order_update_due on order_update (not_before) where state = 'due';
create index order_update_dead on order_update (channel_id, update_id) where state = 'dead';

-- The event that a step of an order or a fulfillment is; null where nobody outside is told of it.
create function event_of(the_kind text, the_step text, the_detail jsonb) returns text
language sql immutable parallel safe return
  case the_kind
    when 'order' then case the_step
      when 'captured' then 'order.captured' when 'cancelled' then 'order.cancelled'
      when 'amended' then 'order.amended' when 'returned' then 'order.returned'
      when 'promised' then case when the_detail ->> 'was' is null then 'order.promised' else 'order.delayed' end
      when 'allocated' then 'order.allocated' end
    when 'fulfillment' then case the_step
      when 'ready' then 'order.ready' when 'shipped' then 'order.shipped' when 'handed_over' then 'order.handed_over' end
  end;

create function tell_of_orders() returns trigger language plpgsql as $$
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
         n.at, n.detail
    from (select h.*, event_of(h.kind, h.step, h.detail) as event from steps h) n
    left join fulfillment f on n.kind = 'fulfillment' and f.fulfillment_id = n.id::uuid
    join orders o on o.order_id = case when n.kind = 'order' then n.id::uuid else f.order_id end
    join channel c on c.channel_id = o.channel_id and c.settings ? 'updates_url'
   where n.event is not null
  on conflict do nothing;
  return null;
end $$;
create trigger history_tells_of_orders after insert on history
  referencing new table as steps for each statement execute function tell_of_orders();
