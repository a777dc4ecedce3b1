-- The hub. Numbers: systems 1..62 (bits in Entry.concerned), entities, places and fields as registered, times in
-- microseconds since 1970 UTC. Values, documents and positions are msgpack.

create table hub (
    one        integer primary key check (one = 1),
    id         text not null,
    epoch      integer not null,
    created_at integer not null
);

-- position: what is durably captured. seen: newest delivery that stands before it in the system's own log.
-- cursor: journal delivered up to here. marker: seq of the last delivery that was written there.
create table system (
    id             integer primary key,
    name           text not null unique,
    position       blob,
    seen           integer not null default 0,
    cursor         integer not null default 0,
    marker         integer not null default 0,
    is_admitted    integer not null default 0,
    captured_at    integer not null default 0,
    rows_read      integer not null default 0,
    rows_echoed    integer not null default 0,
    rows_filtered  integer not null default 0,
    rows_parked    integer not null default 0,
    rows_written   integer not null default 0,
    rows_missing   integer not null default 0,
    source_state   text not null default 'stopped',
    source_error   text,
    target_state   text not null default 'stopped',
    target_error   text,
    delivered_at   integer not null default 0,
    read_rate      real not null default 0,
    write_rate     real not null default 0
);

create table entity (id integer primary key, name text not null unique);

create table field (
    entity  integer not null references entity,
    indexed integer not null,
    name    text not null,
    primary key (entity, indexed)
) without rowid;

create table place (
    id     integer primary key,
    system integer not null references system,
    name   text not null,
    entity integer not null references entity,
    unique (system, name)
);

-- The store: one row a version, doc = Entry. A record's rid is the seq of its first entry.
create table journal (seq integer primary key, doc blob not null);

-- Current entry of each record that changed since it was born; without a row here it is the entry `rid` itself.
create table record (rid integer primary key, seq integer not null);

-- Journal seqs at which no source transaction is half committed: deliveries end only here.
create table boundary (seq integer primary key);

-- Sources in the middle of a transaction.
create table unfinished (system integer primary key references system);

-- The crosswalk. Keys that are plain integers are stored as such, others as text: blob is the type that converts neither
-- ("007" would be 7). is_left: the row exists but does not take part now.
-- seq: the delivery that made the row, 0 when a user did.
create table link (
    place   integer not null,
    key     blob not null,
    rid     integer not null,
    is_left integer not null default 0,
    seq     integer not null default 0,
    primary key (place, key)
) without rowid;
create unique index link_by_record on link (place, rid);

-- What a system holds other than the journal says, until delivery `until` lands: (value, stamp or null) per field.
create table overlay (
    system  integer not null,
    rid     integer not null,
    indexed integer not null,
    until   integer not null,
    doc     blob not null,
    primary key (system, rid, indexed)
) without rowid;

-- Between `refused` and `good` (null: still) deliveries did not reach this record.
create table stretch (
    system  integer not null,
    rid     integer not null,
    refused integer not null,
    good    integer,
    primary key (system, rid, refused)
) without rowid;

create table parked (
    id          integer primary key,
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
create unique index parked_record on parked (system, rid) where direction = 'target';
create unique index parked_key on parked (place, key) where direction = 'source';
create index parked_waiting on parked (waits_for) where waits_for is not null;

-- Refusals of a delivery whose target transaction may or may not have been committed.
create table prepared (system integer primary key, seq integer not null, doc blob not null);

create table conflict (
    id            integer primary key,
    seq           integer not null,
    rid           integer not null,
    entity        integer not null,
    mask          integer not null,
    rule          text not null,
    winner        integer not null,
    winner_seq    integer not null,
    winner_time   integer not null,
    loser         integer not null,
    loser_seq     integer not null,
    loser_time    integer not null,
    loser_seen    integer not null,
    winner_values blob not null,
    loser_values  blob not null,
    recorded_at   integer not null,
    is_open       integer not null default 0
);
create index conflict_by_record on conflict (rid);

create table match_key (
    entity integer not null,
    key    text not null,
    rid    integer not null,
    primary key (entity, key, rid)
) without rowid;

create table review (
    id         integer primary key,
    system     integer not null,
    place      integer not null,
    key        text not null,
    rid        integer not null,
    candidates blob not null,
    created_at integer not null,
    decided_at integer,
    decision   text
);
create unique index review_open on review (rid) where decided_at is null;

-- A placeholder that turned out to be a record known under another rid.
create table alias (rid integer primary key, means integer not null);

create table snapshot (
    place    integer primary key,
    last_key blob,
    is_done  integer not null default 0,
    rows_read integer not null default 0
);

create table held (
    system  integer not null,
    name    text not null,
    message text not null,
    hint    text not null default '',
    since   integer not null,
    primary key (system, name)
) without rowid;

create table audit (
    id     integer primary key,
    at     integer not null,
    actor  text not null,
    action text not null,
    detail text not null
);

-- What commands ask of the running daemon, which alone may change the hub's meaning.
create table request (
    id      integer primary key,
    at      integer not null,
    actor   text not null,
    action  text not null,
    doc     blob not null,
    done_at integer,
    answer  text,
    is_ok   integer
);
