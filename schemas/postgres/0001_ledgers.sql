-- The ledgers, as far as we read them. A database that has them keeps its own: other id types and more columns are fine.

create table if not exists public.purchase_ledger (
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

create table if not exists public.wallet_ledger (
    id          text primary key default gen_random_uuid()::text,
    user_id     text not null,
    merchant_id text not null,
    amount      bigint not null,
    kind        text not null check (kind in ('earn', 'spend', 'expire', 'adjust', 'clawback')),
    source_type text,
    source_id   text,
    created_at  timestamptz not null
);

create table if not exists public.referral_ledger (
    id               text primary key,
    referrer_user_id text not null,
    referee_user_id  text not null,
    merchant_id      text not null,
    status           text not null check (status in ('pending', 'qualified', 'cancelled')),
    created_at       timestamptz not null
);

create table if not exists public.mission_claims (
    id          text primary key,
    user_id     text not null,
    merchant_id text not null,
    mission_id  text not null,
    status      text not null check (status in ('claimed', 'revoked')),
    period      text,
    claimed_at  timestamptz
);

create table if not exists public.codes (
    id          text primary key,
    code        text not null,
    merchant_id text not null,
    status      text not null check (status in ('issued', 'redeemed', 'expired', 'void')),
    user_id     text,
    redeemed_at timestamptz
);

create table if not exists public.form_submissions (
    id           text primary key,
    form_id      text not null,
    user_id      text not null,
    merchant_id  text not null,
    submitted_at timestamptz not null
);

-- What the functions need of tables that were there before us: said here at once rather than by the first call that fails.
do $$
declare
    missing text;
begin
    select string_agg(format('public.%s.%s', wanted.tab, wanted.col), ', ' order by wanted.tab, wanted.col)
    into missing
    from (values
        ('purchase_ledger', 'id user_id merchant_id final_amount refunded_amount status earn_currency created_at completed_at'),
        ('wallet_ledger', 'id user_id merchant_id amount kind source_type source_id created_at'),
        ('referral_ledger', 'id referrer_user_id referee_user_id merchant_id status created_at'),
        ('mission_claims', 'id user_id merchant_id mission_id status period claimed_at'),
        ('codes', 'id code merchant_id status user_id redeemed_at'),
        ('form_submissions', 'id form_id user_id merchant_id submitted_at')
    ) as ledger (tab, cols)
    cross join lateral unnest(string_to_array(ledger.cols, ' ')) as col
    cross join lateral (select ledger.tab, col) as wanted
    where not exists (
        select from information_schema.columns present
        where present.table_schema = 'public' and present.table_name = wanted.tab and present.column_name = wanted.col
    );
    if missing is not null then
        raise exception 'the ledgers lack columns: %', missing
            using hint = 'add them (they may be empty), see schemas/postgres/README.md', errcode = 'undefined_column';
    end if;
    -- Points are booked without an id of ours.
    if not exists (
        select from information_schema.columns present
        where present.table_schema = 'public' and present.table_name = 'wallet_ledger' and present.column_name = 'id'
          and (present.column_default is not null or present.is_identity = 'YES')
    ) then
        raise exception 'public.wallet_ledger.id has no default'
            using hint = 'give it one, such as gen_random_uuid() or an identity', errcode = 'undefined_column';
    end if;
end
$$;

-- On large tables create these concurrently before (README). Tiers and balances sum over a member.
create index if not exists purchase_ledger_of_member on public.purchase_ledger (merchant_id, user_id);
create index if not exists wallet_ledger_of_member on public.wallet_ledger (merchant_id, user_id);
-- The reconciler looks at what is new, and compares what is in the wallet for a purchase with what was booked.
create index if not exists purchase_ledger_created on public.purchase_ledger (created_at, id);
create index if not exists purchase_ledger_completed on public.purchase_ledger (completed_at, id);
create index if not exists wallet_ledger_created on public.wallet_ledger (created_at, id);
create index if not exists referral_ledger_created on public.referral_ledger (created_at, id);
create index if not exists mission_claims_claimed on public.mission_claims (claimed_at, id);
create index if not exists codes_redeemed on public.codes (redeemed_at, id);
create index if not exists form_submissions_submitted on public.form_submissions (submitted_at, id);
create index if not exists wallet_ledger_of_source on public.wallet_ledger (source_id);
