-- Lost runs and lost events: what is overdue, what was never applied, what was never announced.

-- Unsettled and overdue by 15 minutes; each is given again later and later, at last every 6 hours.
create function crm_events.due_effects(max integer) returns setof text
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update crm_events.effects effect
    set attempts = effect.attempts + 1,
        next_attempt_at = crm_events.clock()
            + least(interval '15 minutes' * power(2, least(effect.attempts, 10)), interval '6 hours')
    from (
        select overdue.effect_key from crm_events.effects overdue
        where overdue.state = 'pending'
          and coalesce(overdue.due_at, overdue.updated_at) <= crm_events.clock() - interval '15 minutes'
          and (overdue.next_attempt_at is null or overdue.next_attempt_at <= crm_events.clock())
        order by coalesce(overdue.due_at, overdue.updated_at)
        limit max
        for update skip locked
    ) chosen
    where effect.effect_key = chosen.effect_key
    returning effect.effect_key
$$;

-- Settles whatever this is. Also for a person, after a review: what is in order now is settled.
create function crm_events.settle(effect_key text) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    key    constant text := effect_key;
    effect crm_events.effects;
    answer jsonb;
begin
    select * into effect from crm_events.effects known where known.effect_key = key;
    if not found then
        return jsonb_build_object('outcome', 'unknown', 'announcements', '[]'::jsonb);
    end if;
    case effect.kind
    when 'award' then
        answer := crm_events.settle_award(key);
    when 'tier' then
        answer := jsonb_build_object('outcome', 'settled', 'announcements',
            (select coalesce(jsonb_agg(to_jsonb(announcement)), '[]') from crm_events.upgrade_tier(key) announcement));
    when 'grant', 'referral', 'code' then
        answer := case when effect.state in ('pending', 'review')
            then crm_events.settle_row(key, effect.source_table, effect.source_id, null, '{}')
            else jsonb_build_object('outcome', 'unchanged') end;
    else
        answer := jsonb_build_object('outcome', 'unchanged');
    end case;
    return jsonb_build_object('announcements', '[]'::jsonb) || answer;
end
$$;

-- records: as in compare_effects, plus source_table, source_id, merchant_id, user_id. What the worker misses is noted with
-- the time; heal: 1 to 4 when it is to be sent again now, 0 not now, -1 no more: a finding. ordinal counts from 1. What is
-- missed again after it was in order is told apart by missed_ms.
create function crm_events.plan_heals(records jsonb) returns table (ordinal integer, heal integer, missed_ms bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    moment  constant timestamptz := crm_events.clock();
    waits   constant interval[] := array[interval '15 minutes', '1 hour', '6 hours', '24 hours'];
    given   record;
    effect  crm_events.effects;
    missing jsonb;
begin
    perform crm_events.lock_effects(records);
    for given in select one.value, one.n from jsonb_array_elements(records) with ordinality as one (value, n) loop
        select * into strict effect from crm_events.effects known where known.effect_key = given.value->>'effect_key';
        ordinal := given.n;
        heal := 0;
        missed_ms := crm_events.ms(coalesce(effect.missed_since, moment));
        missing := jsonb_build_object('target', coalesce((given.value->>'target')::bigint, 0),
            'basis', crm_events.basis_of(given.value->>'source_table', given.value->'basis'));
        if effect.state = 'dead' and effect.dead_basis = missing->'basis' then
            return next;
            continue;
        end if;
        if effect.missed_since is null or effect.missed is distinct from missing then
            update crm_events.effects known
            set state = case known.state when 'open' then 'missing' else known.state end,
                missed_since = moment, missed = missing, heals = 0, healed_at = null, updated_at = moment
            where known.effect_key = effect.effect_key;
        elsif effect.heals >= array_length(waits, 1) then
            -- The last one has its quarter of an hour, too.
            heal := case when effect.healed_at > moment - interval '15 minutes' then 0 else -1 end;
        elsif effect.missed_since + waits[effect.heals + 1] <= moment
              and coalesce(effect.healed_at <= moment - interval '15 minutes', true) then
            heal := effect.heals + 1;
            update crm_events.effects known set heals = plan_heals.heal, healed_at = moment
            where known.effect_key = effect.effect_key;
        end if;
        return next;
    end loop;
end
$$;

create function crm_events.unsent_announcements(older_than interval, max integer) returns setof crm_events.announcement
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select waiting.id, waiting.effect_key, waiting.name, waiting.ts_ms, waiting.data
    from crm_events.announcements waiting
    where waiting.announced_at is null and waiting.dead_at is null and waiting.created_at <= crm_events.clock() - older_than
    order by waiting.seq
    limit max
$$;

-- Effects whose row should be decided again: stale (for a week; the slow pass over the ledger finds what is older),
-- missing, or overdue. Those that were not looked at for longest come first, so that no one hides another.
create function crm_events.suspect_effects(max integer)
returns table (effect_key text, kind text, source_table text, source_id text, merchant_id text, user_id text, why text)
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update crm_events.effects effect
    set looked_at = crm_events.clock()
    from (
        select suspect.effect_key from crm_events.effects suspect
        where suspect.effect_key in (
            -- Each by its own index.
            (select noted.effect_key from crm_events.effects noted
             where (noted.stale_at is not null or noted.missed_since is not null) and noted.source_table is not null
               and (noted.missed_since is not null or noted.stale_at > crm_events.clock() - interval '7 days')
             order by noted.looked_at nulls first limit max)
            union all
            (select overdue.effect_key from crm_events.effects overdue
             where overdue.state = 'pending' and overdue.source_table is not null
               and coalesce(overdue.due_at, overdue.updated_at) <= crm_events.clock() - interval '15 minutes'
             order by overdue.looked_at nulls first limit max))
        order by suspect.looked_at nulls first, suspect.effect_key
        limit max
        for update skip locked
    ) chosen
    where effect.effect_key = chosen.effect_key
    returning effect.effect_key, effect.kind, effect.source_table, effect.source_id, effect.merchant_id, effect.user_id,
        case when effect.missed_since is not null then 'missing' when effect.stale_at is not null then 'stale' else 'overdue' end
$$;
