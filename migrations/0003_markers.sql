-- seen_before: the delivery before `seen`: the log of one delivery may be read in parts, and its last rows are still its
-- own. ahead: the target's marker when it was found to be ahead of the journal, 0 when it is not: it stays so though the
-- journal grows.
alter table system add column seen_before integer not null default 0;
alter table system add column ahead integer not null default 0;
