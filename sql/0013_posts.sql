-- What began with us is posted to the source that owns the quantity, so that it can follow and acknowledge it: an outbox
-- of its own rows, filled by the ledger (no step forgets it), sent in batches that stay as they are until they arrive.

-- kind (webhook, file), url, secrets, allow_hosts, folder, format, acknowledge_minutes, acknowledges_on_receipt; {}: none
alter table source add column posts jsonb not null default '{}';

create table post_batch (
  batch_id     uuid primary key default uuidv7(),
  source_id    int not null references source,
  -- due → sent; dead (refused for what is in it, or nobody took it for a week), replayable with the same id
  state        text not null default 'due' check (state in ('due', 'sent', 'dead')),
  attempts     int not null default 0,
  not_before   timestamptz not null default clock_timestamp(),
  leased_until timestamptz,
  made_at      timestamptz not null default clock_timestamp(),
  sent_at      timestamptz,
  answer       text
);
create index post_batch_due on post_batch (source_id, batch_id) where state = 'due';
create index post_batch_dead on post_batch (source_id, batch_id) where state = 'dead';

create table post (
  post_id     bigint generated always as identity primary key,
  source_id   int not null references source,        -- who owns the quantity
  reference   text not null,                         -- what it acknowledges
  sku_id      int not null,
  location_id int not null,
  kind        text not null,
  quantity    int not null,                          -- signed as on hand changes; a count's is its variance
  hold_code   text,
  held        int not null default 0,                -- signed change of that hold code
  occurred_at timestamptz not null,
  reason      text,
  about       text,                                  -- our order, receipt, count, transfer …
  batch_id    uuid references post_batch,            -- null: it waits
  acknowledged_at timestamptz,
  unique (source_id, reference, sku_id, location_id)
);
create index post_waiting on post (source_id, post_id) where batch_id is null;
create index post_batch_of on post (batch_id);
create index post_open on post (source_id, post_id) where acknowledged_at is null;

-- Movements of ours, at locations whose quantity a source owns that is posted to; one that it has deducted already, at
-- its own step, is not told again.
create function post_movements() returns trigger language plpgsql as $$
begin
  if not exists (select from made where is_ours) then
    return null;
  end if;
  insert into post (source_id, reference, sku_id, location_id, kind, quantity, hold_code, held, occurred_at, reason,
                    about, acknowledged_at)
  select s.source_id, m.message_id, p.sku_id, p.location_id, p.kind, p.quantity, p.hold_code, p.held, p.occurred_at,
         m.reason, m.reference, coalesce(p.acked_at, case when p.acked_sequence is not null then clock_timestamp() end)
    from made p
    join movement m using (sku_id, location_id, version)
    join ownership o on o.location_id = p.location_id and o.fact = 'quantity'
    join source s on s.source_id = o.source_id and s.posts <> '{}'
   where p.is_ours and (p.quantity <> 0 or p.held <> 0)
   order by p.sku_id, p.location_id, p.version
  on conflict do nothing;
  -- less has left than was told at the step before it, since a part was rejected meanwhile: the rest is told back
  insert into post (source_id, reference, sku_id, location_id, kind, quantity, occurred_at, reason, about)
  select t.source_id, t.reference || '/rest', p.sku_id, p.location_id, 'adjustment', p.quantity - t.quantity,
         p.occurred_at, 'less has left than was told', t.about
    from made p
    join movement m using (sku_id, location_id, version)
    join post t on t.reference = m.message_id and t.sku_id = p.sku_id and t.location_id = p.location_id
   where p.is_ours and p.quantity > t.quantity and p.kind = 'shipment'
   order by t.reference
  on conflict do nothing;
  return null;
end $$;
create trigger posting_is_posted after insert on posting
  referencing new table as made for each statement execute function post_movements();

-- A source that deducts when work is accepted or picked is told then, under the reference that our movement will bear;
-- and, where that work is given back wholly, that it is undone.
create function post_steps() returns trigger language plpgsql as $$
begin
  if not exists (select from steps where kind = 'fulfillment' and step in ('accepted', 'picked', 'rejected', 'recalled'))
     or not exists (select from source where posts <> '{}' and deducts_at in ('accept', 'pick')) then
    return null;
  end if;
  insert into post (source_id, reference, sku_id, location_id, kind, quantity, occurred_at, about)
  select s.source_id, l.reference, l.sku_id, f.location_id, 'shipment', -l.quantity, n.at, f.order_id::text
    from steps n
    join fulfillment f on n.kind = 'fulfillment' and f.fulfillment_id = n.id::uuid
    join fulfillment_line l on l.fulfillment_id = f.fulfillment_id and l.quantity > 0
    join ownership o on o.location_id = f.location_id and o.fact = 'quantity'
    join source s on s.source_id = o.source_id and s.posts <> '{}'
                 and s.deducts_at = case n.step when 'accepted' then 'accept' when 'picked' then 'pick' end
   order by l.reference
  on conflict do nothing;
  insert into post (source_id, reference, sku_id, location_id, kind, quantity, occurred_at, reason, about)
  select p.source_id, p.reference || '/undone', p.sku_id, p.location_id, 'shipment', -p.quantity, n.at, n.why, p.about
    from steps n
    join fulfillment f on n.kind = 'fulfillment' and n.step in ('rejected', 'recalled') and f.fulfillment_id = n.id::uuid
    join fulfillment_line l on l.fulfillment_id = f.fulfillment_id and l.quantity = 0
    join post p on p.reference = l.reference and p.location_id = f.location_id and p.sku_id = l.sku_id
   order by p.reference
  on conflict do nothing;
  return null;
end $$;
create trigger history_is_posted after insert on history
  referencing new table as steps for each statement execute function post_steps();
