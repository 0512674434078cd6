-- name: insert_key
-- A key is kept as its hash only.
insert into api_key (hash, prefix, role, person, channel_id, location_id, source_id)
values (:hash, :prefix, :role, :person, :channel_id, :location_id, :source_id) returning key_id;

-- name: find_key
-- The key of this hash if it has not ended, with what its binding reaches: channels that sell from its location,
-- locations that its channel sells from or its source owns facts of.
select k.key_id, k.hash, k.prefix, k.role, k.person, k.channel_id, k.location_id, k.source_id,
       case when k.location_id is not null and k.channel_id is null then array(
         select c.channel_id from channel c join pool_location p using (pool_id) where p.location_id = k.location_id)
            else '{}' end as channel_ids,
       case when k.location_id is not null then '{}'
            when k.channel_id is not null then array(
         select p.location_id from channel c join pool_location p using (pool_id) where c.channel_id = k.channel_id)
            when k.source_id is not null then array(
         select distinct o.location_id from ownership o where o.source_id = k.source_id)
            else '{}' end as location_ids
  from api_key k where k.hash = :hash and (k.ended_at is null or k.ended_at > clock_timestamp());

-- name: end_key
-- The key of this prefix opens nothing from now on.
update api_key set ended_at = clock_timestamp() where prefix = :prefix and ended_at is null;

-- name: channel_id
-- A channel by its code.
select channel_id from channel where code = :code;

-- name: location_id
-- A location by its code.
select location_id from location where code = :code;

-- name: source_id
-- A source by its code.
select source_id from source where code = :code;
