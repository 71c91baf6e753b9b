-- Missions: what each source row counts is stored, progress is the sum, completion happens once in a period.

-- Writes what one source row counts, in place of all it counted before: also for other members, periods and missions.
-- Source row and effects are locked.
create function crm_events.replace_shares(element jsonb, row_basis jsonb) returns void
language plpgsql as $$
declare
    key          constant text := element->>'effect_key';
    ledger       constant text := element->'source'->>'table';
    row_id       constant text := element->'source'->>'row_id';
    rev          constant integer := element->>'program_rev';
    effect       crm_events.effects;
begin
    select * into strict effect from crm_events.effects known where known.effect_key = key;
    if effect.basis = row_basis and effect.program_rev > rev then
        return;
    end if;
    update crm_events.mission_sources share set counted = 0
    where share.source_table = ledger and share.source_id = row_id
      and share.counted <> 0
      and not exists (select from jsonb_array_elements(element->'missions') mission
                      where mission->>'effect_key' = share.effect_key);
    insert into crm_events.mission_sources as share (effect_key, source_table, source_id, counted)
    select mission->>'effect_key', ledger, row_id, (mission->>'counted')::numeric
    from jsonb_array_elements(element->'missions') mission
    -- What never counted has no effect to belong to.
    where exists (select from crm_events.effects known where known.effect_key = mission->>'effect_key' collate "C")
    on conflict on constraint mission_sources_pkey do update set counted = excluded.counted
    where share.counted <> excluded.counted;
    -- A row that moved to another user had another key: what was recorded there is no longer so, should it ever move back.
    update crm_events.effects known set basis = null, target = 0, updated_at = crm_events.clock()
    where known.kind = 'mission_source' and known.source_table = ledger
      and known.source_id = row_id and known.effect_key <> key and known.basis is not null;
    update crm_events.effects known
    set state = 'settled', basis = row_basis, program_rev = rev, settled_at = crm_events.clock(),
        target = (select count(*) from jsonb_array_elements(element->'missions') mission
                  where (mission->>'counted')::numeric <> 0),
        as_of_ms = greatest(known.as_of_ms, (element->>'as_of_ms')::bigint),
        stale_at = null, dead_basis = null, dead_reason = null,
        missed_since = null, missed = null, heals = 0, healed_at = null, updated_at = crm_events.clock()
    where known.effect_key = key;
end
$$;

-- Sums up one mission of one member and period; announces what changed. The effect is locked.
create function crm_events.add_up_mission(key text, first_share jsonb, ts_ms bigint) returns void
language plpgsql as $$
declare
    effect    crm_events.effects;
    progress  numeric;
    goal      numeric;
    before    numeric;
    completes boolean;
    number    integer;
begin
    select * into strict effect from crm_events.effects known where known.effect_key = key;
    select coalesce(sum(share.counted), 0) into progress
    from crm_events.mission_sources share where share.effect_key = key;
    before := coalesce((effect.detail->>'progress')::numeric, 0);
    -- A mission edited while it runs is completed under the target it began with.
    goal := coalesce((effect.detail->>'target')::numeric, (first_share->>'target')::numeric);
    completes := effect.booked = 0 and progress >= goal;
    if effect.detail ? 'progress' and progress = before and not completes then
        return;
    end if;
    number := coalesce((effect.detail->>'announcements')::integer, 0);
    if progress <> before or completes then
        number := number + 1;
        perform crm_events.announce(concat(key, ':evaluated:', number), key, 'loyalty/mission.evaluated', ts_ms,
            jsonb_build_object('effect_key', key, 'merchant_id', effect.merchant_id, 'user_id', effect.user_id,
                'mission_id', coalesce(effect.detail->>'mission_id', first_share->>'mission_id'),
                'period', coalesce(effect.detail->>'period', first_share->>'period'),
                'progress', progress::text, 'target', goal::text, 'completed', completes or effect.booked = 1,
                'completed_now', completes, 'as_of_ms', ts_ms));
    end if;
    update crm_events.effects known
    set state = 'settled', settled_at = coalesce(known.settled_at, crm_events.clock()),
        -- Completed once: what progress loses later takes nothing back.
        target = case when completes then 1 else known.target end,
        booked = case when completes then 1 else known.booked end,
        booked_user_id = case when completes then known.user_id else known.booked_user_id end,
        as_of_ms = greatest(known.as_of_ms, ts_ms), updated_at = crm_events.clock(),
        detail = known.detail || jsonb_build_object('progress', progress::text, 'target', goal::text,
                'mission_id', coalesce(known.detail->>'mission_id', first_share->>'mission_id'),
                'period', coalesce(known.detail->>'period', first_share->>'period'), 'announcements', number)
            || case when completes then jsonb_build_object('completed_at', crm_events.rfc3339(crm_events.clock()))
                    else '{}' end
    where known.effect_key = key;
end
$$;

create function crm_events.record_progress(batch jsonb) returns setof crm_events.announcement
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    element   jsonb;
    shares    jsonb;
    row_basis jsonb;
    accepted  jsonb := '[]';
    stale     jsonb := '[]';
    wanted    jsonb := '[]';
    keys      text[];
    one       record;
begin
    -- Alone on the source rows: two calls for one row would each replace what the other wrote.
    for element in
        select value from jsonb_array_elements(batch)
        order by value->'source'->>'table' collate "C", value->'source'->>'row_id' collate "C",
                 (value->>'program_rev')::integer
    loop
        row_basis := crm_events.lock_source(element->'source'->>'table', element->'source'->>'row_id', true);
        continue when row_basis is null;
        -- Of an older state only what we know already: the newer one has its own record.
        if crm_events.basis_of(element->'source'->>'table', element->'basis') is distinct from row_basis then
            stale := stale || jsonb_build_array(jsonb_build_object('key', element->>'effect_key', 'basis', row_basis));
            wanted := wanted || coalesce((
                select jsonb_agg(jsonb_build_object('effect_key', known.effect_key, 'source_table', known.source_table,
                    'source_id', known.source_id, 'merchant_id', known.merchant_id, 'user_id', known.user_id))
                from crm_events.effects known where known.effect_key = element->>'effect_key'), '[]');
            continue;
        end if;
        accepted := accepted || jsonb_build_array(jsonb_build_object('element', element, 'basis', row_basis));
        wanted := wanted
            || jsonb_build_array(jsonb_build_object('effect_key', element->>'effect_key',
                'source_table', element->'source'->>'table', 'source_id', element->'source'->>'row_id',
                'merchant_id', element->>'merchant_id', 'user_id', element->>'user_id'))
            || coalesce((
                -- A share of zero makes no mission.
                select jsonb_agg(jsonb_build_object('effect_key', mission->>'effect_key', 'source_table', null,
                    'source_id', null, 'merchant_id', element->>'merchant_id', 'user_id', element->>'user_id'))
                from jsonb_array_elements(element->'missions') mission
                where (mission->>'counted')::numeric <> 0), '[]')
            || coalesce((
                select jsonb_agg(jsonb_build_object('effect_key', known.effect_key, 'source_table', known.source_table,
                    'source_id', known.source_id, 'merchant_id', known.merchant_id, 'user_id', known.user_id))
                from crm_events.effects known
                where known.effect_key in (
                        select share.effect_key from crm_events.mission_sources share
                        where share.source_table = element->'source'->>'table'
                          and share.source_id = element->'source'->>'row_id')
                   or (known.kind = 'mission_source' and known.source_table = element->'source'->>'table'
                       and known.source_id = element->'source'->>'row_id')), '[]');
    end loop;
    keys := crm_events.lock_effects(wanted);
    for element in select value from jsonb_array_elements(stale) loop
        perform crm_events.note_stale(element->>'key', element->'basis');
    end loop;
    for element in select value from jsonb_array_elements(accepted) loop
        perform crm_events.replace_shares(element->'element', element->'basis');
    end loop;
    for one in
        select known.effect_key, found_share.share, coalesce(found_share.ts_ms, (select max((a->'element'->>'as_of_ms')::bigint)
                   from jsonb_array_elements(accepted) a)) as ts_ms
        from crm_events.effects known
        left join lateral (
            select mission as share, max((a->'element'->>'as_of_ms')::bigint) over () as ts_ms
            from jsonb_array_elements(accepted) a, jsonb_array_elements(a->'element'->'missions') mission
            where mission->>'effect_key' = known.effect_key and (mission->>'counted')::numeric <> 0
            limit 1
        ) found_share on true
        where known.effect_key = any (keys collate "C") and known.kind = 'mission'
        order by known.effect_key
    loop
        perform crm_events.add_up_mission(one.effect_key, one.share, one.ts_ms);
    end loop;
    return query select * from crm_events.unannounced(keys);
end
$$;
