-- What was done for every business fact, for ever; what must be announced because of it; tiers, missions, leases.

create table crm_events.effects (
    -- award:<purchase> tier:<merchant>:<user> mission:<merchant>:<mission>:<user>:<period> grant:<claim> referral:<id>:<side>
    -- code:<id>, and mission_source:<merchant>:<user>:<table>:<row>: what a source row was recorded with. Components escaped.
    effect_key      text collate "C" primary key,
    kind            text not null
                    check (kind in ('award', 'tier', 'mission', 'mission_source', 'grant', 'referral', 'code')),
    source_table    text,
    source_id       text,
    merchant_id     text not null,
    user_id         text,
    -- open: seeded, nothing applied · missing: somebody noticed that nothing was applied · pending: applied, unsettled
    -- settled · review: a person must look · dead: its record is in the dead letters
    state           text not null default 'missing'
                    check (state in ('open', 'missing', 'pending', 'settled', 'review', 'dead')),
    -- Canonical (basis_of), so that two of them are compared as values.
    basis           jsonb,
    target          bigint not null default 0,
    due_at          timestamptz,
    program_rev     integer not null default 0,
    as_of_ms        bigint,
    refund_policy   text check (refund_policy in ('only_pending', 'within_balance', 'unlimited')),
    booked          bigint not null default 0,
    -- Whose wallet holds it.
    booked_user_id  text,
    booked_merchant_id text,
    settled_at      timestamptz,
    -- An event came whose basis was not the row's, while ours was not either.
    stale_at        timestamptz,
    dead_basis      jsonb,
    dead_reason     text,
    detail          jsonb not null default '{}',
    -- The sweeper's.
    attempts        integer not null default 0,
    next_attempt_at timestamptz,
    -- The reconciler's: since when this (basis, target) is missed, and how often it was sent again.
    missed_since    timestamptz,
    missed          jsonb,
    heals           integer not null default 0,
    healed_at       timestamptz,
    looked_at       timestamptz,
    created_at      timestamptz not null default crm_events.clock(),
    updated_at      timestamptz not null default crm_events.clock()
);

create index effects_pending on crm_events.effects ((coalesce(due_at, updated_at))) where state = 'pending';
create index effects_suspect on crm_events.effects (looked_at nulls first)
    where stale_at is not null or missed_since is not null;
create index effects_of_source on crm_events.effects (source_table, source_id);
create index effects_of_member on crm_events.effects (merchant_id, user_id);
create index effects_of_referee on crm_events.effects (merchant_id, (detail->>'referee')) where kind = 'referral' and booked <> 0;

-- An event that a function decided, written in the transaction that led to it.
create table crm_events.announcements (
    -- Also the event's id: stable, so that what is sent again is known.
    id           text collate "C" primary key,
    seq          bigint generated always as identity,
    effect_key   text collate "C" not null references crm_events.effects,
    name         text not null,
    ts_ms        bigint not null,
    data         jsonb not null,
    created_at   timestamptz not null default crm_events.clock(),
    announced_at timestamptz,
    dead_at      timestamptz,
    dead_reason  text
);

create index announcements_unsent on crm_events.announcements (effect_key, seq) where announced_at is null and dead_at is null;
create index announcements_waiting on crm_events.announcements (seq) where announced_at is null and dead_at is null;
create index announcements_rejected on crm_events.announcements (seq) where announced_at is null and dead_at is not null;

-- What the functions return of it.
create type crm_events.announcement as (id text, effect_key text, name text, ts_ms bigint, data jsonb);

-- The tier in force, and what is on its way. Written under the lock of the effect tier:<merchant>:<user>.
create table crm_events.tier_state (
    merchant_id         text not null,
    user_id             text not null,
    tier                text,
    threshold           numeric,
    since               timestamptz,
    -- The sum at the last evaluation.
    value               numeric,
    scheduled_tier      text,
    scheduled_threshold numeric,
    -- An instant of the calendar year that qualified: at the start of January that is not the year of now.
    scheduled_for       timestamptz,
    -- Asked for, until the member is at or above the tier again.
    review_since        timestamptz,
    announcements       integer not null default 0,
    primary key (merchant_id, user_id)
);

create table crm_events.tier_history (
    merchant_id   text not null,
    user_id       text not null,
    n             integer not null,
    tier          text not null,
    previous_tier text,
    value         numeric not null,
    program_rev   integer not null,
    upgraded_at   timestamptz not null,
    primary key (merchant_id, user_id, n)
);

-- What each source row counts for each mission. A row that counts no longer stays with 0, so that it is found again.
-- Written under the locks of the source row and of the mission's effect.
create table crm_events.mission_sources (
    effect_key   text collate "C" not null references crm_events.effects,
    source_table text not null,
    source_id    text not null,
    counted      numeric not null,
    primary key (effect_key, source_table, source_id)
);

create index mission_sources_of_row on crm_events.mission_sources (source_table, source_id);

-- Who does what only one may do at a time.
create table crm_events.leases (
    name       text primary key,
    owner      text not null,
    expires_at timestamptz not null
);
