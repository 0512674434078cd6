-- What-if: what each run saw, so that it can be planned again by other policies, and the trials that were asked for.

create table run_problem (
  run_id  uuid primary key references run,
  kept_at timestamptz not null default clock_timestamp(),
  problem bytea not null                             -- msgpack of the engine's Problem, zlib
);
alter table run_problem alter column problem set storage external;
create index on run_problem (kept_at);

create table what_if (
  what_if_id  uuid primary key default uuidv7(),
  -- waiting → working → done; failed, with why
  state       text not null default 'waiting' check (state in ('waiting', 'working', 'done', 'failed')),
  ask         jsonb not null,                        -- on what, the policies as they read then, seconds, seed
  asked_by    text not null,
  asked_at    timestamptz not null default clock_timestamp(),
  attempts    int not null default 0,
  finished_at timestamptz,
  failed      text,
  result      jsonb
);
create index on what_if (what_if_id) where state in ('waiting', 'working');
create index on what_if (asked_at);
