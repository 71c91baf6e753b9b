-- Who may do what. Group roles without login: give one to a login role with `grant crm_worker to ...`.
-- They reach effects and ledgers through the functions alone; what is granted beside is reading.

do $$
declare
    role text;
begin
    foreach role in array array['crm_worker', 'crm_workflows', 'crm_connector'] loop
        begin
            if not exists (select from pg_catalog.pg_roles where rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception when duplicate_object or unique_violation then
            -- Roles belong to the server: another database was migrated at the same moment.
            null;
        end;
    end loop;
end
$$;

revoke all on all functions in schema crm_events from public;
revoke all on all tables in schema crm_events from public;
revoke all on schema crm_events from public;
grant usage on schema public, crm_events to crm_worker, crm_workflows;

grant execute on function
    crm_events.compare_effects(jsonb), crm_events.evaluate_tiers(jsonb), crm_events.record_progress(jsonb),
    crm_events.announced(text[]), crm_events.announcement_rejected(text, text), crm_events.mark_dead(jsonb),
    crm_events.effective_from(timestamptz), crm_events.programs_documents(), crm_events.clock(),
    crm_events.take_lease(text, text, integer), crm_events.drop_lease(text, text), crm_events.plan_heals(jsonb),
    crm_events.unsent_announcements(interval, integer), crm_events.suspect_effects(integer)
to crm_worker;
-- To explain and to reconcile.
grant select on all tables in schema crm_events to crm_worker;

grant execute on function
    crm_events.apply_award(jsonb), crm_events.settle_award(text), crm_events.settle_grant(jsonb), crm_events.settle_code(jsonb),
    crm_events.upgrade_tier(text), crm_events.announced(text[]), crm_events.due_effects(integer), crm_events.settle(text), crm_events.clock()
to crm_workflows;
-- clock() reads it as whoever asks.
grant select on crm_events.settings to crm_workflows;

-- The login role also needs the attribute REPLICATION, which no group can give.
grant usage on schema public to crm_connector;
grant select on public.purchase_ledger, public.wallet_ledger, public.referral_ledger, public.mission_claims, public.codes,
    public.form_submissions, public.dbz_heartbeat, public.dbz_signal to crm_connector;
grant insert, update on public.dbz_heartbeat to crm_connector;
grant insert, delete on public.dbz_signal to crm_connector;
