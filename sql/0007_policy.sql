-- Policies of brokering have versions: drafted by one, approved by another, in force from a moment.

create table policy_version (
  policy_id   int not null references policy,
  version     int not null,
  body        jsonb not null,
  -- draft → asked → approved, or refused; a draft that is changed becomes the next version
  state       text not null default 'draft' check (state in ('draft', 'asked', 'approved', 'refused')),
  made_by     text not null,
  made_at     timestamptz not null default clock_timestamp(),
  note        text,                                  -- why, as whoever asked said it
  from_at     timestamptz,                           -- in force from then on, until a later one is
  approved_by text check (approved_by <> made_by),
  approved_at timestamptz,
  primary key (policy_id, version),
  check ((state = 'approved') = (approved_at is not null))
);
insert into policy_version (policy_id, version, body, state, made_by, from_at, approved_by, approved_at)
select policy_id, 1, body, 'approved', 'oms', '-infinity', 'before versions', clock_timestamp() from policy;
alter table policy drop column body;
create function policy_in_force(the_policy int, at timestamptz) returns int language sql stable return
  (select version from policy_version
    where policy_id = the_policy and state = 'approved' and from_at <= at
    order by from_at desc, approved_at desc limit 1);

-- by which versions a run planned: [{code, version}], in the order in which they are matched
-- what one more unit or order would have saved, largest first: reported, and where the next run starts
alter table run add prices jsonb;
alter table run add policies jsonb not null default '[]';
