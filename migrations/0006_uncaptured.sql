-- A table whose changes are not captured any more is not written to either: a delivery could overwrite one of them unseen.
alter table held add column is_uncaptured integer not null default 0;
