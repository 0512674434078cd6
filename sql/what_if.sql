-- name: keep_problem
-- What a run saw, once.
insert into run_problem (run_id, problem) values (:run_id, :problem) on conflict (run_id) do nothing;

-- name: kept_problem
-- What a run saw, and when the run began; nothing where it is no longer kept.
select p.problem, r.started_at, r.state from run_problem p join run r using (run_id) where p.run_id = :run_id;

-- name: forget_problems
-- What runs saw before a moment is dropped; the runs stay.
delete from run_problem where kept_at < :before;

-- name: forget_what_ifs
-- Trials that were asked for before a moment are dropped.
delete from what_if where asked_at < :before and state in ('done', 'failed');

-- name: ask_what_if
-- A trial that waits for a worker.
insert into what_if (ask, asked_by) values (:ask, :who) returning what_if_id;

-- name: waiting_what_ifs
-- Trials that no worker has finished, the oldest first.
select what_if_id from what_if where state in ('waiting', 'working') order by what_if_id limit 20;

-- name: hold_what_if
-- Says that this session works on a trial: true once, until the session ends, however it does.
select pg_try_advisory_lock(7304, hashtext(:what_if_id::uuid::text));

-- name: let_what_if
-- The session works on a trial no more.
select pg_advisory_unlock(7304, hashtext(:what_if_id::uuid::text));

-- name: begin_what_if
-- A trial is begun (once more); gives what was asked.
update what_if set state = 'working', attempts = attempts + 1
 where what_if_id = :what_if_id and state in ('waiting', 'working')
returning ask, attempts;

-- name: end_what_if
-- What a trial found, or why it failed.
update what_if set state = case when :failed::text is null then 'done' else 'failed' end, failed = :failed,
       result = :result, finished_at = clock_timestamp()
 where what_if_id = :what_if_id and state = 'working';

-- name: what_if_row
-- A trial.
select what_if_id as id, state, ask, asked_by, asked_at, finished_at, failed, result from what_if
 where what_if_id = :what_if_id;

-- name: policy_version_row
-- What a version of a policy says; without a number the newest, draft or not.
select p.code, v.version, v.body from policy p join policy_version v using (policy_id)
 where p.code = :code and (:version::int is null or v.version = :version) order by v.version desc limit 1;

-- name: decided_plans
-- Where a run sent the lines of each order, and why lines stayed.
select order_id::text, plan, why -> 'unfilled' as unfilled from decision where run_id = :run_id order by order_id;

-- name: order_names
-- Channel and number of these orders.
select o.order_id::text, c.code, o.number from orders o join channel c using (channel_id)
 where o.order_id = any(:orders::uuid[]);

-- name: knows_run
-- Whether there is such a run.
select exists (select from run where run_id = :run_id);
