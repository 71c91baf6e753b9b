-- What was applied. Run before every migration, so that it may not fail when it is there already.

create schema if not exists crm_events;

create table if not exists crm_events.migrations (
    name       text primary key,
    -- SHA-256 of the file: a file that was applied is never changed, a change is a new file.
    checksum   text not null,
    applied_at timestamptz not null default now()
);
