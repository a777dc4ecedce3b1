-- A row that does not take part has a stretch from the moment it left on; those that left before this had none.
insert into stretch (system, rid, refused, good)
select p.system, l.rid, max(s.cursor + 1), null
from link l join place p on p.id = l.place join system s on s.id = p.system
where l.is_left
    and not exists (select 1 from stretch t where t.system = p.system and t.rid = l.rid and t.good is null)
group by p.system, l.rid
on conflict (system, rid, refused) do update set good = null;
