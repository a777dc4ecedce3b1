-- The field-service system: numbers that the database hands out, words for states, hours, times as the clock on the
-- wall shows them, and unix time for visits.

create table client (
    id ${serial},
    title varchar(200) not null,
    standing varchar(20) default 'live',
    mail varchar(254),
    phone varchar(50),
    street varchar(255),
    town varchar(100),
    zip varchar(20),
    country varchar(2),
    is_stopped boolean not null default false,
    is_archived boolean not null default false
);

create table person (
    id ${serial},
    client_id bigint not null references client,
    given varchar(100),
    family varchar(100) not null,
    mail varchar(254),
    phone varchar(50),
    mobile varchar(50)
);

create table location (
    id ${serial},
    client_id bigint not null references client,
    label varchar(200) not null,
    street varchar(255),
    town varchar(100),
    zip varchar(20),
    country varchar(2),
    access_notes text
);

create table equipment (
    id ${serial},
    client_id bigint references client,
    location_id bigint references location,
    descr varchar(200) not null,
    make varchar(100),
    model varchar(100),
    serial varchar(100),
    health varchar(20) default 'running',
    installed_on date
);

create table part (
    id ${serial},
    part_no varchar(50) not null unique,
    name varchar(200) not null,
    kind varchar(10),
    unit varchar(20),
    on_hand numeric,
    is_active boolean not null default true
);

create table part_price (
    id ${serial},
    part_id bigint not null references part,
    amount numeric(12, 4) not null,
    currency varchar(3) not null,
    valid_from date
);

create table job (
    id ${serial},
    job_no varchar(50) not null unique,
    client_id bigint not null references client,
    location_id bigint references location,
    equipment_id bigint references equipment,
    title varchar(255) not null,
    kind varchar(20),
    priority varchar(10),
    progress varchar(20) not null default 'open',
    technician varchar(100),
    team varchar(100),
    visit_at bigint,
    planned_hours numeric(8, 2),
    report text
);

create table labour (
    id ${serial},
    job_id bigint not null references job,
    technician varchar(100),
    category varchar(10),
    started_at timestamp,
    hours numeric(8, 2) not null,
    done varchar(500)
);
