-- What a mapped table looked like when its mapping was last known to fit it: a packed Shape. A change that needs a person
-- stands against this until it is acknowledged.
create table shape (
    system integer not null,
    name   text not null,
    doc    blob not null,
    since  integer not null,
    primary key (system, name)
) without rowid;
