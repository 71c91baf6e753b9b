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
    -- What never counted has no effect to belong to. Not `exists`: as a join it would read all effects for every row.
    where (select true from crm_events.effects known where known.effect_key = mission->>'effect_key' collate "C")
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

-- Effects as `lock_effects` takes them, of these keys.
create function crm_events.known_effects(keys text[]) returns jsonb[]
language sql stable as $$
    select coalesce(array_agg(jsonb_build_object('effect_key', known.effect_key, 'source_table', known.source_table,
        'source_id', known.source_id, 'merchant_id', known.merchant_id, 'user_id', known.user_id)), '{}')
    from crm_events.effects known where known.effect_key = any (keys collate "C")
$$;

create function crm_events.record_progress(batch jsonb) returns setof crm_events.announcement
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    element   jsonb;
    row_basis jsonb;
    current   jsonb[] := '{}';
    bases     jsonb[] := '{}';
    stale     jsonb[] := '{}';
    wanted    jsonb[];
    known_to  text[];
    keys      text[];
    one       record;
begin
    -- Alone on the source rows: two calls for one row would each replace what the other wrote.
    for element in
        select value from jsonb_array_elements(batch)
        order by value->'source'->>'table' collate "C", value->'source'->>'row_id' collate "C",
                 (value->>'program_rev')::integer
    loop
        -- Nothing counts and nothing ever did: neither lock nor trace. A snapshot of rows that no mission looks at writes nothing.
        continue when jsonb_array_length(element->'missions') = 0 and not exists (
            select from crm_events.mission_sources share
            where share.source_table = element->'source'->>'table' and share.source_id = element->'source'->>'row_id');
        row_basis := crm_events.lock_source(element->'source'->>'table', element->'source'->>'row_id', true);
        continue when row_basis is null;
        if crm_events.basis_of(element->'source'->>'table', element->'basis') = row_basis then
            current := current || element;
            bases := bases || row_basis;
        else
            stale := stale || jsonb_build_object('effect_key', element->>'effect_key', 'row_basis', row_basis);
        end if;
    end loop;
    wanted := array(
        select jsonb_build_object('effect_key', given->>'effect_key', 'source_table', given->'source'->>'table',
            'source_id', given->'source'->>'row_id', 'merchant_id', given->>'merchant_id', 'user_id', given->>'user_id')
        from unnest(current) given
        union all
        -- A share of zero makes no mission.
        select jsonb_build_object('effect_key', mission->>'effect_key', 'merchant_id', given->>'merchant_id',
            'user_id', given->>'user_id')
        from unnest(current) given, jsonb_array_elements(given->'missions') mission
        where (mission->>'counted')::numeric <> 0);
    known_to := array(
        -- What the rows led to before, for whomever.
        select share.effect_key from unnest(current) given
        join crm_events.mission_sources share
            on share.source_table = given->'source'->>'table' and share.source_id = given->'source'->>'row_id'
        union
        select known.effect_key from unnest(current) given
        join crm_events.effects known
            on known.source_table = given->'source'->>'table' and known.source_id = given->'source'->>'row_id'
            and known.kind = 'mission_source'
        union
        -- Of an older state only what we know already is touched: the newer one has its own record.
        select given->>'effect_key' from unnest(stale) given);
    keys := crm_events.lock_effects(to_jsonb(wanted || crm_events.known_effects(known_to)));
    for i in 1 .. cardinality(current) loop
        perform crm_events.replace_shares(current[i], bases[i]);
    end loop;
    perform crm_events.note_stale(given->>'effect_key', given->'row_basis') from unnest(stale) given;
    for one in
        -- The rows that count there, or did: the newest of them is what led to the change.
        with led as (
            select mission->>'effect_key' as effect_key, mission as share, (given->>'program_rev')::integer as rev,
                   (given->>'as_of_ms')::bigint as as_of_ms
            from unnest(current) given, jsonb_array_elements(given->'missions') mission
            union all
            select share.effect_key, null, null, (given->>'as_of_ms')::bigint
            from unnest(current) given
            join crm_events.mission_sources share
                on share.source_table = given->'source'->>'table' and share.source_id = given->'source'->>'row_id'
        )
        select led.effect_key, max(led.as_of_ms) as ts_ms,
               (array_agg(led.share order by led.rev) filter (where (led.share->>'counted')::numeric <> 0))[1] as share
        from led join unnest(keys) locked on locked = led.effect_key
        group by led.effect_key
        order by led.effect_key
    loop
        perform crm_events.add_up_mission(one.effect_key, one.share, one.ts_ms);
    end loop;
    -- Of all missions given, also of those that an older state of a row counted for: this call may be the repetition of one that
    -- announced them and was cut off before they were sent.
    return query select * from crm_events.unannounced(keys || array(
        select mission->>'effect_key'
        from jsonb_array_elements(batch) given, jsonb_array_elements(given->'missions') mission));
end
$$;
