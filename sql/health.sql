-- name: applied_migrations
-- The migrations of this database.
select name from migration order by name;

-- name: gauges
-- What waits for somebody: figures for alarms.
select (select count(*) from exception where state = 'open')::float8 as exceptions_open,
       (select count(*) from exception where state = 'open' and escalated_at is not null)::float8 as exceptions_escalated,
       (select count(*) from announcement where state = 'due')::float8 as announcements_due,
       (select count(*) from push where state = 'due')::float8 as pushes_due,
       (select count(*) from push where state = 'dead')::float8 as pushes_dead,
       (select count(*) from post_batch where state = 'dead')::float8 as post_batches_dead,
       (select count(*) from (select from post where acknowledged_at is null limit 100000) p)::float8 as posts_unacknowledged,
       (select count(*) from (select from touched limit 100000) t)::float8 as skus_touched,
       (select count(*) from feed where state in ('staging', 'staged', 'applying'))::float8 as feeds_open,
       (select count(*) from stock where on_hand < 0)::float8 as stock_negative;
