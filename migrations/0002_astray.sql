-- A record that had this key until a user gave the row another one, or the key to another row. Up to `until`, entries may
-- have been delivered under the key before the hub knew.
create table astray (
    place integer not null,
    key   text not null,
    rid   integer not null,
    until integer not null,
    primary key (place, key, rid)
) without rowid;
