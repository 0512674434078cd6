-- Order routings of other systems, imported under a name to be compared with.

create table routing_set (
  code    text primary key,
  given   jsonb not null,                            -- routings as the other system gave them, names, sequence
  made_by text not null,
  made_at timestamptz not null default clock_timestamp()
);
