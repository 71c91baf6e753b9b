-- Grants for mission claims and referrals, fulfilments of codes: the row's status alone says whether there is one.

-- 1 if this row means that something is granted, else 0.
create function crm_events.grant_target(source_table text, row_basis jsonb) returns bigint
language sql immutable as $$
    select case source_table
        when 'mission_claims' then (row_basis->>'status' = 'claimed')::integer
        when 'referral_ledger' then (row_basis->>'status' = 'qualified'
                                     and row_basis->>'referrer_user_id' <> row_basis->>'referee_user_id')::integer
        -- A redeemed code is fulfilled once and for ever; what becomes of the code later takes nothing back.
        when 'codes' then (row_basis->>'status' = 'redeemed')::integer
        else 0 end
$$;

-- Applies and settles in one. event_basis null: the row's own (a person or the sweeper asks again).
create function crm_events.settle_row(key text, source_table text, source_id text, event_basis jsonb, data jsonb) returns jsonb
language plpgsql as $$
declare
    moment    constant timestamptz := crm_events.clock();
    side      constant text := case when source_table = 'referral_ledger' then split_part(key, ':', 3) end;
    row_basis jsonb;
    member    text;
    wanted    bigint;
    effect    crm_events.effects;
    outcome   text;
    conflict  text;
begin
    row_basis := crm_events.lock_source(source_table, source_id);
    if row_basis is null then
        return jsonb_build_object('outcome', 'missing_row');
    end if;
    member := case side when 'referrer' then row_basis->>'referrer_user_id'
                        when 'referee' then row_basis->>'referee_user_id' else row_basis->>'user_id' end;
    wanted := crm_events.grant_target(source_table, row_basis);
    if event_basis is distinct from row_basis and event_basis is not null then
        -- Noted only where something is to be done: the record that does it is on its way.
        if wanted <> coalesce((select booked from crm_events.effects known where known.effect_key = key), 0)
           and not (source_table = 'codes' and wanted = 0) then
            perform crm_events.lock_effects(jsonb_build_array(jsonb_build_object('effect_key', key,
                'source_table', source_table, 'source_id', source_id,
                'merchant_id', row_basis->>'merchant_id', 'user_id', member)));
            perform crm_events.note_stale(key, row_basis);
        end if;
        return jsonb_build_object('outcome', 'stale');
    end if;
    perform crm_events.lock_effects(jsonb_build_array(jsonb_build_object('effect_key', key,
        'source_table', source_table, 'source_id', source_id,
        'merchant_id', row_basis->>'merchant_id', 'user_id', member)));
    select * into strict effect from crm_events.effects known where known.effect_key = key;
    if source_table = 'codes' and effect.booked = 1 then
        wanted := 1;
    end if;
    if effect.booked <> 0 and effect.booked_user_id is distinct from member then
        conflict := 'granted to another user';
    elsif side is not null and wanted = 1 and effect.booked = 0 then
        -- Two referrals of one referee must not both find that there is no other.
        perform crm_events.lock_wallet(row_basis->>'merchant_id', row_basis->>'referee_user_id');
        if exists (
            select from crm_events.effects other
            where other.kind = 'referral' and other.booked <> 0 and other.merchant_id = row_basis->>'merchant_id'
              and other.detail->>'referee' = row_basis->>'referee_user_id' and other.source_id <> settle_row.source_id
        ) then
            conflict := 'the referee was granted through another referral';
        end if;
    end if;
    outcome := case
        when conflict is not null then 'review'
        when wanted = effect.booked then 'unchanged'
        when wanted = 0 then 'revoked'
        when source_table = 'codes' then 'fulfilled'
        else 'granted' end;
    update crm_events.effects known
    set state = case when conflict is null then 'settled' else 'review' end,
        settled_at = case when conflict is not null then null
                          when known.state = 'settled' and outcome = 'unchanged' then known.settled_at else moment end,
        merchant_id = row_basis->>'merchant_id', user_id = member, basis = row_basis, target = wanted,
        as_of_ms = greatest(known.as_of_ms, (data->>'as_of_ms')::bigint),
        booked = case when conflict is null then wanted else known.booked end,
        booked_user_id = case when conflict is not null then known.booked_user_id when wanted = 1 then member end,
        detail = jsonb_strip_nulls(jsonb_build_object('side', side, 'referee', row_basis->>'referee_user_id',
            'mission_id', row_basis->>'mission_id', 'period', row_basis->>'period', 'review', conflict)),
        stale_at = null, dead_basis = null, dead_reason = null,
        missed_since = null, missed = null, heals = 0, healed_at = null, updated_at = moment
    where known.effect_key = key;
    return jsonb_build_object('outcome', outcome);
end
$$;

-- data: of loyalty/reward.granted or loyalty/reward.revoked.
create function crm_events.settle_grant(data jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    source_table constant text := case when data->>'source' = 'referral' then 'referral_ledger' else 'mission_claims' end;
    source_id    constant text := case when data->>'source' = 'referral' then data->>'referral_id' else data->>'claim_id' end;
begin
    return crm_events.settle_row(data->>'effect_key', source_table, source_id,
        coalesce(crm_events.basis_of(source_table, data->'basis'), '{}'), data);
end
$$;

-- data: of loyalty/code.redeemed.
create function crm_events.settle_code(data jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
begin
    return crm_events.settle_row(data->>'effect_key', 'codes', data->>'code_id',
        coalesce(crm_events.basis_of('codes', data->'basis'), '{}'), data);
end
$$;
