-- name: entries
-- Who owes whom for what, newest first: of days, of an owner, of a buyer, of a period.
select e.settlement_id as id, e.kind, w.code as owner, b.code as buyer, k.code as sku, l.code as location,
       c.code as channel, o.number as "order", n.line, d.fulfillment_id, d.return_id, e.quantity, e.cents, e.currency,
       e.price, e.month, e.period, e.happened_at, e.made_at, e.made_by, e.corrects_id as corrects, e.why
  from settlement e
  join party w on w.party_id = e.owner_id
  join party b on b.party_id = e.buyer_id
  left join settlement f on f.settlement_id = e.corrects_id
  left join owed d on d.owed_id = coalesce(e.owed_id, f.owed_id)
  left join sku k on k.sku_id = d.sku_id
  left join location l on l.location_id = d.location_id
  left join channel c on c.channel_id = d.channel_id
  left join orders o on o.order_id = d.order_id
  left join order_line n on n.line_id = d.line_id
 where (:owner::text is null or w.code = :owner) and (:buyer::text is null or b.code = :buyer)
   and (:period::text is null or e.period = :period)
   and (:from_on::date is null or e.happened_at >= :from_on::date::timestamp at time zone 'UTC')
   and (:until_on::date is null or e.happened_at < (:until_on::date + 1)::timestamp at time zone 'UTC')
   and (:before::bigint is null or e.settlement_id < :before)
   and (:id::bigint is null or e.settlement_id = :id)
 order by e.settlement_id desc limit :limit;

-- name: sums
-- What a period's entries add up to, by owner, buyer, currency and kind.
select w.code as owner, b.code as buyer, e.currency, e.kind, count(*)::int as entries, sum(e.quantity)::bigint as units,
       sum(e.cents)::bigint as cents
  from settlement e join party w on w.party_id = e.owner_id join party b on b.party_id = e.buyer_id
 where e.period = :period
 group by w.code, b.code, e.currency, e.kind
 order by w.code, b.code, e.currency, e.kind;

-- name: late
-- A period's entries of months before it, which were closed when they were made.
select e.month, count(*)::int as entries, sum(e.quantity)::bigint as units
  from settlement e where e.period = :period and e.month < e.period group by e.month order by e.month;

-- name: waiting_units
-- Units of a month whose entry is not made yet: what they wait for.
select coalesce(o.waits_for, '') as subject, count(*)::int as entries, sum(abs(o.quantity))::bigint as units
  from owed o where o.state = 'waiting' and month_of(o.happened_at) = :period
 group by 1 order by 1 limit 1000;

-- name: period_of
-- A period that somebody asked to close.
select period, state, totals, asked_by, asked_at, approved_by, approved_at from settlement_period where period = :period;

-- name: lock_periods
-- Nobody makes an entry while it is decided what a period holds.
select pg_advisory_xact_lock(hashtext('settlement'));

-- name: lock_periods_open
-- No period is closed before this transaction has ended.
select pg_advisory_xact_lock_shared(hashtext('settlement'));

-- name: ask_to_close
-- Somebody asks to close a period of these sums; asked anew, it is of what it holds now.
insert into settlement_period (period, totals, asked_by, asked_at) values (:period, :totals, :who, :at)
on conflict (period) do update set totals = excluded.totals, asked_by = excluded.asked_by, asked_at = excluded.asked_at
 where settlement_period.state = 'asked';

-- name: close_period
-- Another person agrees: it is closed.
update settlement_period set state = 'closed', approved_by = :who, approved_at = :at
 where period = :period and state = 'asked' and asked_by <> :who;

-- name: correct
-- A further entry sets an earlier one right.
insert into settlement (corrects_id, kind, owner_id, buyer_id, quantity, cents, currency, month, period, happened_at,
                        made_by, why)
select e.settlement_id, 'correction', e.owner_id, e.buyer_id, 0, :cents, e.currency, month_of(:at),
       open_period(month_of(:at)), :at, :who, :why
  from settlement e where e.settlement_id = :id
returning settlement_id;

-- name: forget_unsaid
-- What waits under an exception that somebody closed without saying what was missing is told of again.
update owed o set waits_for = null
 where o.state = 'waiting' and o.waits_for is not null
   and not exists (select from exception e
                    where e.kind = 'settlement_waiting' and e.subject = o.waits_for and e.state = 'open');
