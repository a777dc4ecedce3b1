-- Numbers that people were told stay those of what they were told about: one that is free again is not given to another.
create table parked_new (
    id          integer primary key autoincrement,
    system      integer not null,
    direction   text not null check (direction in ('source', 'target')),
    place       integer not null,
    rid         integer,
    key         text,
    seq         integer not null,
    seen        integer not null default 0,
    code        text not null,
    reason      text not null,
    message     text not null,
    hint        text not null default '',
    field       text,
    waits_for   integer,
    attempts    integer not null default 1,
    parked_at   integer not null,
    tried_at    integer not null,
    try_after   integer not null default 0,
    doc         blob
);
insert into parked_new select * from parked order by id;
drop table parked;
alter table parked_new rename to parked;
create unique index parked_record on parked (system, rid) where direction = 'target';
create unique index parked_key on parked (place, key) where direction = 'source';
create index parked_waiting on parked (waits_for) where waits_for is not null;

-- Of an answer that is an error: its code and what to do.
alter table request add column hint text not null default '';
alter table request add column code text;
