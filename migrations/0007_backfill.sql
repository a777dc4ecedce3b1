-- Tables that are read again beside their log, each as far as it has come. `condition` is SQL of the system, for which rows.
create table backfill (
    id         integer primary key autoincrement,
    system     integer not null,
    name       text not null,
    condition  text not null default '',
    rows_per_s integer,
    last_key   blob,
    rows_read  integer not null default 0,
    rows_total integer,
    rate       real not null default 0,
    state      text not null default 'running',
    message    text not null default '',
    created_at integer not null,
    changed_at integer not null
);
create index backfill_running on backfill (system) where state = 'running';
