-- The delivery before `seen`: the log of one delivery may be read in parts, and its last rows are still its own.
alter table system add column seen_before integer not null default 0;
