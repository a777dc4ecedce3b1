-- Rows of tables that a mapping joins, as their log told of them last: a change of one of them is a change of the rows
-- that it belongs to. joined_table: one that is read so; last_key, is_done: how far it has been copied. doc: the columns
-- that the mapping needs, by name. joined_link: row `key` has the text `value` in the columns of an index.
create table joined_table (
    id       integer primary key,
    system   integer not null references system,
    name     text not null,
    last_key blob,
    is_done  integer not null default 0,
    unique (system, name)
);
create table joined_index (
    id      integer primary key,
    joined  integer not null references joined_table,
    columns text not null,
    unique (joined, columns)
);
create table joined_row (
    joined integer not null,
    key    blob not null,
    doc    blob not null,
    primary key (joined, key)
) without rowid;
create table joined_link (
    indexed integer not null,
    value   blob not null,
    key     blob not null,
    primary key (indexed, value, key)
) without rowid;
