-- What the connector reads and writes.

-- Written by the connector itself (heartbeat.action.query): on a quiet database the slot would otherwise hold back WAL for ever.
create table if not exists public.dbz_heartbeat (
    id      integer primary key,
    beat_at timestamptz not null
);

-- A row inserted here asks the connector for a snapshot of some tables while it streams.
create table if not exists public.dbz_signal (
    id   varchar(64) primary key,
    type varchar(32) not null,
    data text
);

-- Decisions compare with the old row where a status changes, so updates and deletes carry it whole. The other ledgers only grow.
alter table public.purchase_ledger replica identity full;
alter table public.referral_ledger replica identity full;
alter table public.mission_claims replica identity full;
alter table public.codes replica identity full;

do $$
declare
    missing text;
begin
    if not exists (select from pg_catalog.pg_publication where pubname = 'crm_cdc_publication') then
        create publication crm_cdc_publication;
    end if;
    -- A publication FOR ALL TABLES has them all.
    select string_agg(format('public.%I', wanted), ', ')
    into missing
    from unnest(array['purchase_ledger', 'wallet_ledger', 'referral_ledger', 'mission_claims', 'codes', 'form_submissions',
                      'dbz_heartbeat', 'dbz_signal']) as wanted
    where not exists (
        select from pg_catalog.pg_publication_tables published
        where published.pubname = 'crm_cdc_publication' and published.schemaname = 'public' and published.tablename = wanted
    );
    if missing is not null then
        execute 'alter publication crm_cdc_publication add table ' || missing;
    end if;
end
$$;
