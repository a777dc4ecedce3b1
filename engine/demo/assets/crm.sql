-- The CRM: text keys that its application makes (UUIDs), one-letter states, rows that are marked instead of deleted.

create table companies (
    company_id text not null primary key,
    record_type text not null default 'customer',
    company_name text not null,
    sort text default 'B',
    state text default 'A',
    email text,
    phone text,
    street text,
    town text,
    post_code text,
    country text,
    vat_no text,
    credit_limit numeric(12, 2),
    credit_currency varchar(3),
    is_deleted boolean not null default false
);

create table people (
    person_id text not null primary key,
    company_id text not null references companies,
    first_name text,
    last_name text not null,
    role text,
    email text,
    phone_work text,
    phone_mobile text,
    is_main boolean not null default false,
    is_deleted boolean not null default false
);

create table sites (
    site_id text not null primary key,
    company_id text not null references companies,
    site_name text not null,
    street text,
    town text,
    post_code text,
    country text,
    gate_notes text,
    is_deleted boolean not null default false
);

create table installed_base (
    unit_id text not null primary key,
    company_id text references companies,
    site_id text references sites,
    label text not null,
    maker text,
    type_no text,
    serial_no text,
    condition text,
    installed_on date
);

create table service_cases (
    case_id text not null primary key,
    case_no text,
    company_id text not null references companies,
    site_id text references sites,
    unit_id text references installed_base,
    subject text not null,
    sort text,
    urgency integer,
    stage text not null,
    planned_at timestamp,
    planned_seconds integer,
    outcome text,
    score integer
);

create table case_effort (
    effort_id text not null primary key,
    case_id text not null references service_cases,
    who text,
    what text,
    seconds integer not null
);

create table bills (
    bill_id text not null primary key,
    bill_no text,
    company_id text not null references companies,
    state text not null,
    issued_on date,
    due_on date,
    net numeric(14, 2),
    tax numeric(14, 2),
    gross numeric(14, 2),
    currency text
);

create table bill_lines (
    line_id text not null primary key,
    bill_id text not null references bills,
    position integer,
    words text,
    quantity numeric,
    net numeric(14, 2),
    currency text
);
