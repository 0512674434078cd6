-- name: message
-- What became of a message.
select m.outcome, m.recorded_at, m.detail, m.feed_id
  from message m join source s using (source_id) where s.code = :source and m.message_id = :message_id;

-- name: movements
-- What it did in the ledger.
select m.sku_id, k.code as sku, l.code as location, m.kind, m.quantity, m.effect, m.on_hand, m.version, m.occurred_at, m.absorbed_by,
       p.contained_in
  from movement m
  join source s using (source_id) join sku k using (sku_id) join location l using (location_id)
  left join posting p on p.sku_id = m.sku_id and p.location_id = m.location_id and p.version = m.version
 where s.code = :source and m.message_id = :message_id and m.kind <> 'baseline'
 order by m.sku_id, m.location_id, m.version;

-- name: skus
-- What channels may sell of these skus now, and were told.
select k.code as sku, a.version, c.code as channel, n.current, n.pushed
  from availability a join sku k using (sku_id)
  join channel_stock n using (sku_id) join channel c using (channel_id)
 where a.sku_id = any(:skus::int[]) order by k.code, c.code;

-- name: pushes
-- What channels were told of these skus since.
select k.code as sku, c.code as channel, p.push_id, p.mode, i.quantity, i.delta, p.state, p.answer, p.done_at
  from push_item i join push p using (push_id) join channel c using (channel_id) join sku k using (sku_id)
 where i.sku_id = any(:skus::int[]) and p.made_at >= :since
 order by p.made_at, c.code, k.code limit 50;

-- name: refusals_of
-- The first refused rows of a feed.
select line, field, reason, value from feed_refusal where feed_id = :feed_id order by line limit :limit;
