-- The ledgers as the worker reads them, and what the connector needs around them.
-- Run as role crm in database crm, in one transaction (stack/postgres.sh).

create table purchase_ledger (
    id              text primary key,
    user_id         text not null,
    merchant_id     text not null,
    final_amount    numeric(14,2) not null,
    refunded_amount numeric(14,2) default 0,
    status          text not null
                    check (status in ('pending', 'completed', 'partially_refunded', 'refunded', 'cancelled')),
    earn_currency   boolean not null,
    created_at      timestamptz not null,
    completed_at    timestamptz,
    metadata        jsonb
);

-- An award is decided by what changed (status, refunded amount), so updates and deletes
-- carry the whole old row. The other ledgers only ever grow.
alter table purchase_ledger replica identity full;

create table wallet_ledger (
    id          text primary key,
    user_id     text not null,
    merchant_id text not null,
    amount      bigint not null,
    kind        text not null check (kind in ('earn', 'spend', 'expire', 'adjust', 'clawback')),
    source_type text,
    source_id   text,
    created_at  timestamptz not null
);

create table form_submissions (
    id           text primary key,
    form_id      text not null,
    user_id      text not null,
    merchant_id  text not null,
    submitted_at timestamptz not null
);

-- Written by the connector itself (heartbeat.action.query): on a quiet database the slot
-- would otherwise hold back WAL for ever.
create table dbz_heartbeat (
    id      integer primary key,
    beat_at timestamptz not null
);

-- A row inserted here asks the connector for a snapshot of some tables while it streams.
create table dbz_signal (
    id   varchar(64) primary key,
    type varchar(32) not null,
    data text
);

create publication crm_cdc_publication for table
    purchase_ledger, wallet_ledger, form_submissions, dbz_heartbeat, dbz_signal;
