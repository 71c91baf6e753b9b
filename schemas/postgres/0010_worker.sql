-- What the worker asks besides: how effects stand to its decisions, dead letters, announcements, the cut-off, the lease.

-- records: [{effect_key, basis, target, due_at, program_rev}]; ordinal counts from 1.
-- standing: absent · equal (same basis, target and due time, or the same basis by newer rules) · zero · differs
create function crm_events.compare_effects(records jsonb) returns table (ordinal integer, standing text)
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select record.n::integer,
           case when effect.effect_key is null then 'absent'
                when effect.state <> 'dead'
                     and effect.basis = crm_events.basis_of(effect.source_table, record.value->'basis')
                     and (effect.program_rev > coalesce((record.value->>'program_rev')::integer, 0)
                          -- Of a source row basis and rules say it all: what it counts follows from them.
                          or effect.kind = 'mission_source'
                             and effect.program_rev = coalesce((record.value->>'program_rev')::integer, 0)
                          or effect.kind <> 'mission_source'
                             and effect.target = coalesce((record.value->>'target')::bigint, 0)
                             -- What is settled needs no due time any more.
                             and (effect.state = 'settled'
                                  or effect.due_at is not distinct from (record.value->>'due_at')::timestamptz))
                    then 'equal'
                when effect.target = 0 and effect.booked = 0 then 'zero'
                else 'differs' end
    from jsonb_array_elements(records) with ordinality as record (value, n)
    left join crm_events.effects effect on effect.effect_key = record.value->>'effect_key'
    order by record.n
$$;

-- records: [{effect_key, source_table, source_id, merchant_id, user_id, basis, reason}]. A dead letter counts only if the
-- row is still as it was in the letter, and was not applied so: a newer state has its own record.
create function crm_events.mark_dead(records jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    letter    jsonb;
    row_basis jsonb;
    dead      jsonb := '[]';
begin
    for letter in
        select value from jsonb_array_elements(records)
        order by value->>'source_table' collate "C", value->>'source_id' collate "C"
    loop
        row_basis := crm_events.lock_source(letter->>'source_table', letter->>'source_id');
        if row_basis = crm_events.basis_of(letter->>'source_table', letter->'basis') then
            dead := dead || jsonb_build_array(letter || jsonb_build_object('row_basis', row_basis));
        end if;
    end loop;
    perform crm_events.lock_effects(dead);
    update crm_events.effects effect
    set state = 'dead', dead_basis = buried.value->'row_basis', dead_reason = buried.value->>'reason',
        stale_at = null, missed_since = null, missed = null, updated_at = crm_events.clock()
    from jsonb_array_elements(dead) as buried (value)
    where effect.effect_key = buried.value->>'effect_key' and effect.basis is distinct from buried.value->'row_basis';
end
$$;

create function crm_events.announced(ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from crm_events.announcements sent where sent.id = any (ids collate "C") order by sent.id for update;
    update crm_events.announcements sent set announced_at = crm_events.clock()
    where sent.id = any (ids collate "C") and sent.announced_at is null;
end
$$;

create function crm_events.announcement_rejected(id text, reason text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update crm_events.announcements rejected set dead_at = crm_events.clock(), dead_reason = announcement_rejected.reason
    where rejected.id = announcement_rejected.id and rejected.announced_at is null and rejected.dead_at is null
$$;

-- Stores the cut-off at the first call that gives one; gives what is stored.
create function crm_events.effective_from(given timestamptz) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
begin
    if given is not null then
        insert into crm_events.settings (name, value) values ('effective_from', given::text) on conflict (name) do nothing;
    end if;
    return (select value::timestamptz from crm_events.settings where name = 'effective_from');
end
$$;

-- Ours, if nobody else's is alive.
create function crm_events.take_lease(name text, owner text, seconds integer) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into crm_events.leases as lease (name, owner, expires_at)
    values (take_lease.name, take_lease.owner, crm_events.clock() + make_interval(secs => seconds))
    on conflict on constraint leases_pkey do update set owner = excluded.owner, expires_at = excluded.expires_at
    where lease.owner = excluded.owner or lease.expires_at <= crm_events.clock();
    return found;
end
$$;

create function crm_events.drop_lease(name text, owner text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    delete from crm_events.leases lease where lease.name = drop_lease.name and lease.owner = drop_lease.owner
$$;
