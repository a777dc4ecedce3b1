-- What workflows have made: record `rid` for `key`, by `make` of `workflow`, when record `cause` was as entry `seq` says.
create table derived (
    workflow text not null,
    make     text not null,
    key      text not null,
    rid      integer not null,
    cause    integer not null,
    seq      integer not null,
    primary key (workflow, make, key)
) without rowid;
create index derived_by_record on derived (rid);
-- Records that a workflow has begun with, at entry `seq`: from then on what it made follows them.
create table begun (workflow text not null, rid integer not null, seq integer not null, primary key (workflow, rid))
    without rowid;
-- Journal entries that workflows have written, and the record and entry that they followed from.
create table followed (seq integer primary key, workflow text not null, cause integer not null, cause_seq integer not null);
-- Records of an entity by what a reference field of theirs refers to, for workflows that look at children.
create table child (
    entity integer not null,
    field  integer not null,
    parent integer not null,
    rid    integer not null,
    primary key (entity, field, parent, rid)
) without rowid;
-- Which of these are complete.
create table child_index (entity integer not null, field integer not null, primary key (entity, field)) without rowid;
-- What could not be made, because a value could not be computed; tried again whenever the record changes.
create table underived (
    workflow text not null,
    make     text not null,
    cause    integer not null,
    message  text not null,
    seq      integer not null,
    at       integer not null,
    primary key (workflow, make, cause)
) without rowid;
