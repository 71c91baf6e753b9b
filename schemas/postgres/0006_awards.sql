-- Awards converge: the target is absolute, the basis is compared with the row, the difference is booked.

-- A newer state of the row than the event's: nothing is decided by the event. Unless the effect has the row's state already.
create function crm_events.note_stale(key text, row_basis jsonb) returns void
language sql as $$
    update crm_events.effects effect
    set stale_at = crm_events.clock(), updated_at = crm_events.clock()
    where effect.effect_key = key and effect.basis is distinct from row_basis
$$;

-- data: of loyalty/award.scheduled or loyalty/award.cancelled.
--
-- lock_timeout, here and wherever a workflow settles: Postgres does not notice that whoever asked went away while it waits
-- for a lock, and he asks again; behind an application's idle transaction the waiting would pile up.
create function crm_events.apply_award(data jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    key         constant text := data->>'effect_key';
    event_basis constant jsonb := crm_events.basis_of('purchase_ledger', data->'basis');
    new_target  constant bigint := coalesce(data->>'target_points', '0');
    new_due     constant timestamptz := data->>'due_at';
    new_rev     constant integer := coalesce(data->>'program_rev', '0');
    row_basis   jsonb;
    effect      crm_events.effects;
    outcome     text;
begin
    row_basis := crm_events.lock_source('purchase_ledger', data->>'purchase_id');
    if row_basis is null then
        return jsonb_build_object('outcome', 'missing_row');
    end if;
    perform crm_events.lock_effects(jsonb_build_array(jsonb_build_object('effect_key', key,
        'source_table', 'purchase_ledger', 'source_id', data->>'purchase_id',
        'merchant_id', row_basis->>'merchant_id', 'user_id', row_basis->>'user_id')));
    select * into strict effect from crm_events.effects where effect_key = key;
    if event_basis is distinct from row_basis then
        perform crm_events.note_stale(key, row_basis);
        outcome := 'stale';
    elsif effect.basis = row_basis and effect.program_rev > new_rev then
        outcome := 'outdated';
        -- The row is again as it was applied, so that the letter about another state of it is no longer to be followed.
        update crm_events.effects
        set state = case when settled_at is null then 'pending' else 'settled' end,
            stale_at = null, dead_basis = null, dead_reason = null, updated_at = crm_events.clock()
        where effect_key = key and state = 'dead';
    else
        outcome := case when effect.basis = row_basis and effect.target = new_target
                         and effect.due_at is not distinct from new_due and effect.state in ('pending', 'settled', 'review')
                        then 'unchanged' else 'applied' end;
        update crm_events.effects
        set state = case outcome when 'applied' then 'pending' else state end,
            settled_at = case outcome when 'applied' then null else settled_at end,
            attempts = case outcome when 'applied' then 0 else attempts end,
            next_attempt_at = case outcome when 'applied' then null else next_attempt_at end,
            merchant_id = row_basis->>'merchant_id', user_id = row_basis->>'user_id',
            basis = row_basis, target = new_target, due_at = new_due, program_rev = new_rev,
            as_of_ms = greatest(as_of_ms, (data->>'as_of_ms')::bigint),
            refund_policy = coalesce(data->>'refund_policy', refund_policy),
            stale_at = null, dead_basis = null, dead_reason = null,
            missed_since = null, missed = null, heals = 0, healed_at = null, updated_at = crm_events.clock()
        where effect_key = key
        returning * into effect;
    end if;
    return jsonb_build_object('outcome', outcome, 'target', effect.target,
        'due_at', crm_events.rfc3339(effect.due_at), 'booked', effect.booked);
end
$$;

create function crm_events.settle_award(effect_key text) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    key        constant text := effect_key;
    moment     constant timestamptz := crm_events.clock();
    row_basis  jsonb;
    effect     crm_events.effects;
    outcome    text;
    difference bigint := 0;
begin
    -- The source of an effect never changes, so it may be read before the locks.
    select * into effect from crm_events.effects known where known.effect_key = key;
    if not found or effect.kind <> 'award' then
        return jsonb_build_object('outcome', 'unknown', 'booked_now', 0, 'due_at', null);
    end if;
    row_basis := crm_events.lock_source('purchase_ledger', effect.source_id);
    select * into strict effect from crm_events.effects known where known.effect_key = key for update;
    if effect.state not in ('pending', 'review') then
        outcome := 'unchanged';
    elsif row_basis is null then
        -- Ledgers are append-only; what was booked for a row that is gone is a person's question.
        outcome := 'review';
    elsif effect.basis is distinct from row_basis then
        perform crm_events.note_stale(key, row_basis);
        outcome := 'stale';
    elsif effect.due_at > moment then
        outcome := 'not_due';
    elsif effect.booked <> 0 and (effect.booked_user_id, effect.booked_merchant_id)
          is distinct from (row_basis->>'user_id', row_basis->>'merchant_id') then
        -- What lies in one wallet is not taken out of another.
        outcome := 'review';
    else
        outcome := 'settled';
        difference := crm_events.book_award(effect, row_basis->>'merchant_id', row_basis->>'user_id', moment);
    end if;
    if outcome = 'review' then
        update crm_events.effects known set state = 'review', updated_at = moment
        where known.effect_key = key and known.state <> 'review';
    elsif outcome = 'settled' then
        -- Settled means this basis and target, even where the policy booked less: a repeat must not book the rest.
        update crm_events.effects known
        set state = 'settled', settled_at = moment, stale_at = null, updated_at = moment, booked = known.booked + difference,
            booked_user_id = case when known.booked + difference <> 0 then row_basis->>'user_id' end,
            booked_merchant_id = case when known.booked + difference <> 0 then row_basis->>'merchant_id' end
        where known.effect_key = key;
    end if;
    return jsonb_build_object('outcome', outcome, 'booked_now', difference, 'due_at', crm_events.rfc3339(effect.due_at));
end
$$;

-- Books target - booked as far as the refund policy allows; gives what it booked. The effect is locked.
create function crm_events.book_award(effect crm_events.effects, merchant text, member text, moment timestamptz) returns bigint
language plpgsql as $$
-- A user's table may have columns with the names of our variables.
#variable_conflict use_variable
declare
    difference bigint := effect.target - effect.booked;
    owner_id   public.wallet_ledger.user_id%type := member;
    shop_id    public.wallet_ledger.merchant_id%type := merchant;
    entry_kind public.wallet_ledger.kind%type;
    entry_type public.wallet_ledger.source_type%type := 'purchase';
    entry_of   public.wallet_ledger.source_id%type := effect.source_id;
begin
    if difference = 0 then
        return 0;
    end if;
    perform crm_events.lock_wallet(merchant, member);
    if difference < 0 then
        -- Without a policy nobody ever said that points may be taken back.
        case coalesce(effect.refund_policy, 'only_pending')
        when 'only_pending' then
            return 0;
        when 'within_balance' then
            select -least(-difference, greatest(coalesce(sum(entry.amount), 0), 0))::bigint into difference
            from public.wallet_ledger entry where entry.merchant_id = shop_id and entry.user_id = owner_id;
            if difference = 0 then
                return 0;
            end if;
        else
            null;
        end case;
    end if;
    entry_kind := case when difference > 0 then 'earn' else 'clawback' end;
    insert into public.wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at)
    values (owner_id, shop_id, difference, entry_kind, entry_type, entry_of, moment);
    return difference;
end
$$;
