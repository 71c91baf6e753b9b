-- A dead letter that was replayed: its effects are dead no more.

-- records: as in mark_dead. What the replay applied has another state already. Where it led to nothing, or its event has not
-- been worked on yet, the effect goes back to what it was known to be, and is the reconciler's again. A letter of another
-- state of the row lifts nothing.
create function crm_events.lift_dead(records jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
begin
    -- In the order in which everybody locks effects.
    perform from crm_events.effects effect
    where effect.effect_key in (select letter->>'effect_key' collate "C" from jsonb_array_elements(records) letter)
    order by effect.effect_key
    for update;
    update crm_events.effects effect
    set state = case when effect.basis is null then 'missing' when effect.settled_at is not null then 'settled'
                     else 'pending' end,
        dead_basis = null, dead_reason = null, updated_at = crm_events.clock()
    from jsonb_array_elements(records) as lifted (value)
    where effect.effect_key = lifted.value->>'effect_key' and effect.state = 'dead'
      and effect.dead_basis = crm_events.basis_of(lifted.value->>'source_table', lifted.value->'basis');
end
$$;

revoke all on function crm_events.lift_dead(jsonb) from public;
grant execute on function crm_events.lift_dead(jsonb) to crm_worker;
