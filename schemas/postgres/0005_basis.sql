-- Source rows and what is decided on: a row's basis and an event's, made comparable; the locks, in the one order.
--
-- Everywhere: source rows by table and id, then effects by key, then wallets by member. Lock and read in separate
-- statements: each has a snapshot of its own, and one taken before a lock was waited for is old.

-- Every column that a decision reads, as typed values: numbers are compared as numbers, times as instants.
create function crm_events.basis_of(source_table text, given jsonb) returns jsonb
language plpgsql stable as $$
begin
    if given is null or jsonb_typeof(given) <> 'object' then
        return null;
    end if;
    case source_table
    when 'purchase_ledger' then
        return jsonb_build_object(
            'user_id', given->>'user_id',
            'merchant_id', given->>'merchant_id',
            'final_amount', (given->>'final_amount')::numeric,
            'refunded_amount', coalesce((given->>'refunded_amount')::numeric, 0),
            'status', given->>'status',
            'earn_currency', (given->>'earn_currency')::boolean,
            'created_at', extract(epoch from (given->>'created_at')::timestamptz),
            'completed_at', extract(epoch from (given->>'completed_at')::timestamptz));
    when 'form_submissions' then
        return jsonb_build_object(
            'form_id', given->>'form_id',
            'user_id', given->>'user_id',
            'merchant_id', given->>'merchant_id',
            'submitted_at', extract(epoch from (given->>'submitted_at')::timestamptz));
    when 'mission_claims' then
        return jsonb_build_object(
            'user_id', given->>'user_id',
            'merchant_id', given->>'merchant_id',
            'mission_id', given->>'mission_id',
            'status', given->>'status',
            'period', given->>'period');
    when 'referral_ledger' then
        return jsonb_build_object(
            'referrer_user_id', given->>'referrer_user_id',
            'referee_user_id', given->>'referee_user_id',
            'merchant_id', given->>'merchant_id',
            'status', given->>'status');
    when 'codes' then
        return jsonb_build_object(
            'merchant_id', given->>'merchant_id',
            'user_id', given->>'user_id',
            'status', given->>'status',
            'redeemed_at', extract(epoch from (given->>'redeemed_at')::timestamptz));
    else
        -- Tiers and wallet entries have none.
        return null;
    end case;
end
$$;

-- Locks a source row and gives its basis; null if there is none. `alone` for what replaces all that a row led to:
-- others may then not even share it.
create function crm_events.lock_source(source_table text, source_id text, alone boolean default false) returns jsonb
language plpgsql as $$
-- A user's table may have columns with the names of our variables.
#variable_conflict use_variable
declare
    -- Of the columns' own types, so that their indexes are used.
    purchase   public.purchase_ledger.id%type;
    submission public.form_submissions.id%type;
    claim      public.mission_claims.id%type;
    referral   public.referral_ledger.id%type;
    voucher    public.codes.id%type;
    found_row  jsonb;
begin
    case source_table
    when 'purchase_ledger' then
        purchase := source_id;
        if alone then
            perform from public.purchase_ledger source where source.id = purchase for no key update;
        else
            perform from public.purchase_ledger source where source.id = purchase for share;
        end if;
        select jsonb_build_object('user_id', source.user_id::text, 'merchant_id', source.merchant_id::text,
            'final_amount', source.final_amount, 'refunded_amount', source.refunded_amount, 'status', source.status,
            'earn_currency', source.earn_currency, 'created_at', source.created_at, 'completed_at', source.completed_at)
        into found_row from public.purchase_ledger source where source.id = purchase;
    when 'form_submissions' then
        submission := source_id;
        if alone then
            perform from public.form_submissions source where source.id = submission for no key update;
        else
            perform from public.form_submissions source where source.id = submission for share;
        end if;
        select jsonb_build_object('form_id', source.form_id::text, 'user_id', source.user_id::text,
            'merchant_id', source.merchant_id::text, 'submitted_at', source.submitted_at)
        into found_row from public.form_submissions source where source.id = submission;
    when 'mission_claims' then
        claim := source_id;
        perform from public.mission_claims source where source.id = claim for share;
        select jsonb_build_object('user_id', source.user_id::text, 'merchant_id', source.merchant_id::text,
            'mission_id', source.mission_id::text, 'status', source.status, 'period', source.period)
        into found_row from public.mission_claims source where source.id = claim;
    when 'referral_ledger' then
        referral := source_id;
        perform from public.referral_ledger source where source.id = referral for share;
        select jsonb_build_object('referrer_user_id', source.referrer_user_id::text,
            'referee_user_id', source.referee_user_id::text, 'merchant_id', source.merchant_id::text, 'status', source.status)
        into found_row from public.referral_ledger source where source.id = referral;
    when 'codes' then
        voucher := source_id;
        perform from public.codes source where source.id = voucher for share;
        select jsonb_build_object('merchant_id', source.merchant_id::text, 'user_id', source.user_id::text,
            'status', source.status, 'redeemed_at', source.redeemed_at)
        into found_row from public.codes source where source.id = voucher;
    else
        return null;
    end case;
    return crm_events.basis_of(source_table, found_row);
end
$$;

-- Makes sure that there is an effect for each element {effect_key, source_table, source_id, merchant_id, user_id}, and
-- locks them in the order of their keys. Gives the keys.
create function crm_events.lock_effects(wanted jsonb) returns text[]
language plpgsql as $$
declare
    keys text[];
begin
    insert into crm_events.effects (effect_key, kind, source_table, source_id, merchant_id, user_id)
    select distinct on (one.effect_key collate "C") one.effect_key, split_part(one.effect_key, ':', 1), one.source_table, one.source_id,
           one.merchant_id, one.user_id
    from jsonb_to_recordset(wanted) as one (effect_key text, source_table text, source_id text, merchant_id text, user_id text)
    order by one.effect_key collate "C"
    on conflict (effect_key) do nothing;
    select array_agg(locked.effect_key) into keys
    from (
        select effect.effect_key from crm_events.effects effect
        where effect.effect_key in (select one->>'effect_key' collate "C" from jsonb_array_elements(wanted) one)
        order by effect.effect_key
        for update
    ) locked;
    return coalesce(keys, '{}');
end
$$;

-- Whoever books or spends points of a member holds this lock; an application that spends should take it as well.
create function crm_events.lock_wallet(merchant_id text, user_id text) returns void
language sql as $$
    select pg_advisory_xact_lock(
        hashtextextended(concat('crm_events.wallet:', crm_events.escape(merchant_id), ':', crm_events.escape(user_id)), 0))
$$;

create function crm_events.announce(id text, effect_key text, name text, ts_ms bigint, data jsonb) returns void
language sql as $$
    insert into crm_events.announcements (id, effect_key, name, ts_ms, data)
    values (announce.id, announce.effect_key, announce.name, announce.ts_ms, announce.data)
$$;

-- Everything of these keys that nobody has confirmed yet, older ones first.
create function crm_events.unannounced(keys text[]) returns setof crm_events.announcement
language sql stable as $$
    select waiting.id, waiting.effect_key, waiting.name, waiting.ts_ms, waiting.data
    from crm_events.announcements waiting
    where waiting.effect_key = any (keys collate "C") and waiting.announced_at is null and waiting.dead_at is null
    order by waiting.seq
$$;
