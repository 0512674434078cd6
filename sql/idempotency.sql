-- name: claim
-- Takes a key for one request; a claim that never came to an answer may be taken over after a minute.
insert into idempotency as i (key_id, key, hash, status, body) values (:key_id, :key, '', 0, '')
on conflict (key_id, key) do update set recorded_at = clock_timestamp()
  where i.status = 0 and i.recorded_at < clock_timestamp() - interval '60 seconds';

-- name: stored_answer
-- What was answered under a key; status 0 while it is still under way.
select status, hash, body from idempotency where key_id = :key_id and key = :key;

-- name: store_answer
-- The answer of a claimed key, for ever after the same.
update idempotency set hash = :hash, status = :status, body = :body
 where key_id = :key_id and key = :key and status = 0;

-- name: give_up_claim
-- The request came to no answer that may be repeated: the key is free again.
delete from idempotency where key_id = :key_id and key = :key and status = 0;
