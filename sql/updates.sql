-- name: take_updates
-- Updates of orders that are due, leased; each take counts as an attempt and is the fence of what follows. Of an order
-- the oldest only: they are told in order.
with due as (
  select u.update_id from order_update u
   where u.state = 'due' and u.not_before <= :now and (u.leased_until is null or u.leased_until <= :now)
     and not exists (select from order_update e
                      where e.order_id = u.order_id and e.state = 'due' and e.update_id < u.update_id)
   order by u.not_before limit :limit for update skip locked
), taken as (
  update order_update u set attempts = u.attempts + 1, leased_until = :now + make_interval(secs => :lease_seconds)
    from due where u.update_id = due.update_id
  returning u.*
)
select t.update_id, t.event, t.subject, t.at, t.detail, t.attempts, uuid_extract_timestamp(t.update_id) as made_at,
       c.code as channel, c.is_on, coalesce(c.settings ->> 'updates_url', '') as url,
       array(select jsonb_array_elements_text(coalesce(c.settings -> 'updates_secrets', '[]'))) as secrets,
       o.order_id, o.number
  from taken t join channel c using (channel_id) join orders o using (order_id)
 order by t.update_id;

-- name: parcel_of
-- What a fulfillment has of its order's lines.
select g.code as location, l.line, l.part, coalesce(s.code, l.sku) as sku, n.quantity
  from fulfillment f
  join location g using (location_id)
  join fulfillment_line n using (fulfillment_id)
  join order_line l using (line_id)
  left join sku s on s.sku_id = l.sku_id
 where f.fulfillment_id = :id order by l.line_id;

-- name: settle_update
-- What came of an attempt, if no later attempt was begun.
update order_update
   set state = :state, answer = :answer, not_before = :not_before, leased_until = null,
       done_at = case when :state = 'done' then clock_timestamp() end
 where update_id = :update_id and attempts = :attempts and state = 'due';

-- name: updates_page
-- Updates of orders in a state, newest first.
select u.update_id as id, c.code as channel, o.number, o.order_id, u.event, u.state, u.at, u.attempts, u.answer
  from order_update u join channel c using (channel_id) join orders o using (order_id)
 where (:state::text is null or u.state = :state) and (:channel::text is null or c.code = :channel)
   and (:number::text is null or o.number = :number) and (:before::uuid is null or u.update_id < :before)
 order by u.update_id desc limit :limit;

-- name: has_update
-- Whether there is such an update.
select exists (select from order_update where update_id = :id);

-- name: replay_update
-- A dead update is due again, under the same id.
update order_update set state = 'due', attempts = 0, not_before = clock_timestamp(), leased_until = null
 where update_id = :id and state = 'dead' returning update_id;

-- name: forget_updates
-- Drops what was told before a moment.
delete from order_update where state = 'done' and done_at < :before;
