-- The ERP: numbers with a prefix, amounts in cents, numbers for states, labels of forty characters, and constraints
-- that an accountant asked for.

create table customer (
    cust_no varchar(20) not null primary key,
    name1 varchar(40) not null,
    state_no integer default 1,
    mail varchar(254),
    tel varchar(50),
    street varchar(255),
    city varchar(100),
    zip varchar(20),
    land varchar(2),
    vat_id varchar(50) unique,
    terms varchar(100),
    credit_cents bigint,
    credit_cur varchar(3),
    is_on_hold boolean not null default false
);

create table ship_to (
    ship_no varchar(20) not null primary key,
    cust_no varchar(20) not null references customer,
    name1 varchar(200) not null,
    street varchar(255),
    city varchar(100),
    zip varchar(20),
    land varchar(2)
);

create table article (
    sku varchar(50) not null primary key,
    descr varchar(200) not null,
    class varchar(3),
    uom varchar(20),
    stock numeric,
    is_discontinued boolean not null default false
);

create table price (
    price_no ${serial},
    sku varchar(50) not null references article,
    cents bigint not null check (cents > 0),
    cur varchar(3) not null,
    valid_from date
);

create table invoice (
    invoice_no varchar(30) not null primary key,
    doc_type varchar(2) not null default 'RE',
    cust_no varchar(20) not null references customer,
    state_no integer not null,
    issued date,
    due date,
    net_cents bigint,
    tax_cents bigint,
    gross_cents bigint
);

create table invoice_line (
    invoice_no varchar(30) not null references invoice,
    line_no integer not null,
    sku varchar(50) references article,
    words varchar(500),
    qty numeric,
    net_cents bigint,
    primary key (invoice_no, line_no)
);
