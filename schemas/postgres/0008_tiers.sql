-- Tiers: sums over a member's rows, upgrades now or at the start of a month, and a review instead of a downgrade.

-- The sum of the metric in [from_time, until_time). Rows dated a moment ahead of our clock count: they come once only.
create function crm_events.tier_sum(metric text, merchant text, member text, from_time timestamptz, until_time timestamptz)
returns numeric
language plpgsql stable as $$
#variable_conflict use_variable
declare
    purchase_merchant public.purchase_ledger.merchant_id%type;
    purchase_user     public.purchase_ledger.user_id%type;
    wallet_merchant   public.wallet_ledger.merchant_id%type;
    wallet_user       public.wallet_ledger.user_id%type;
    total             numeric;
begin
    if metric = 'spend' then
        purchase_merchant := merchant;
        purchase_user := member;
        select sum(greatest(source.final_amount - coalesce(source.refunded_amount, 0), 0)) into total
        from public.purchase_ledger source
        where source.merchant_id = purchase_merchant and source.user_id = purchase_user
          and source.status::text in ('completed', 'partially_refunded')
          and coalesce(source.completed_at, source.created_at) >= from_time
          and coalesce(source.completed_at, source.created_at) < until_time;
    else
        -- What is spent or expires was earned all the same.
        wallet_merchant := merchant;
        wallet_user := member;
        select sum(source.amount) into total
        from public.wallet_ledger source
        where source.merchant_id = wallet_merchant and source.user_id = wallet_user
          and source.kind::text in ('earn', 'clawback', 'adjust')
          and source.created_at >= from_time and source.created_at < until_time;
    end if;
    return coalesce(total, 0);
end
$$;

-- The best sum over the windows of these instants, and the instant it belongs to. Only a calendar year has more than the
-- window that ends now: a late row may complete a year that is closed. Rows of until_time or later do not count.
create function crm_events.tier_value(rules jsonb, merchant text, member text, instants timestamptz[],
    until_time timestamptz, out value numeric, out at timestamptz)
language plpgsql stable as $$
declare
    zone       constant text := rules->>'time_zone';
    moment     constant timestamptz := crm_events.clock();
    year_start timestamp;
    total      numeric;
begin
    at := moment;
    case rules->'window'->>'kind'
    when 'lifetime' then
        value := crm_events.tier_sum(rules->>'metric', merchant, member, '-infinity', until_time);
    when 'rolling_months' then
        -- On the local calendar; from 29 February a year back is 28 February.
        value := crm_events.tier_sum(rules->>'metric', merchant, member,
            ((moment at time zone zone) - make_interval(months => (rules->'window'->>'months')::integer)) at time zone zone,
            until_time);
    when 'calendar_year' then
        for year_start in
            select distinct date_trunc('year', instant at time zone zone)
            from unnest(instants || moment) instant where instant is not null order by 1 desc
        loop
            total := crm_events.tier_sum(rules->>'metric', merchant, member, year_start at time zone zone,
                least((year_start + interval '1 year') at time zone zone, until_time));
            if value is null or total > value then
                value := total;
                at := greatest(year_start at time zone zone, least(moment, (year_start + interval '1 year') at time zone zone
                    - interval '1 microsecond'));
            end if;
        end loop;
    end case;
end
$$;

-- The tier of a ladder that this value reaches, null below the first.
create function crm_events.tier_reached(ladder jsonb, amount numeric, out tier text, out threshold numeric)
language sql immutable as $$
    select step->>'name', (step->>'threshold')::numeric
    from jsonb_array_elements(ladder) step
    where (step->>'threshold')::numeric <= amount
    order by 2 desc
    limit 1
$$;

-- Where the tier in force stands on this ladder. One that the ladder does not have any more stands where it stood.
create function crm_events.tier_standing(ladder jsonb, tier text, threshold numeric) returns numeric
language sql immutable as $$
    select coalesce(
        (select (step->>'threshold')::numeric from jsonb_array_elements(ladder) step where step->>'name' = tier limit 1),
        threshold)
$$;

-- A new number for an announcement of this member; makes the row of the member's tier at the first.
create function crm_events.tier_number(merchant text, member text) returns integer
language sql as $$
    insert into crm_events.tier_state as known (merchant_id, user_id, announcements) values (merchant, member, 1)
    on conflict (merchant_id, user_id) do update set announcements = known.announcements + 1
    returning announcements
$$;

create function crm_events.raise_tier(key text, merchant text, member text, new_tier text, new_threshold numeric,
    total numeric, rev integer, ts_ms bigint) returns void
language plpgsql as $$
declare
    moment constant timestamptz := crm_events.clock();
    number constant integer := crm_events.tier_number(merchant, member);
    former text;
begin
    select tier into former from crm_events.tier_state where merchant_id = merchant and user_id = member;
    update crm_events.tier_state
    set tier = new_tier, threshold = new_threshold, since = moment, value = total, review_since = null,
        scheduled_tier = null, scheduled_threshold = null, scheduled_for = null
    where merchant_id = merchant and user_id = member;
    insert into crm_events.tier_history (merchant_id, user_id, n, tier, previous_tier, value, program_rev, upgraded_at)
    values (merchant, member, number, new_tier, former, total, rev, moment);
    perform crm_events.announce(concat(key, ':upgraded:', number), key, 'loyalty/tier.upgraded', ts_ms,
        jsonb_build_object('effect_key', key, 'merchant_id', merchant, 'user_id', member, 'tier', new_tier,
            'previous_tier', former, 'value', total::text, 'program_rev', rev, 'upgraded_at', crm_events.rfc3339(moment)));
end
$$;

-- A scheduled upgrade whose time has come: as far as it was scheduled and the member still qualifies. The effect is locked.
create function crm_events.upgrade_when_due(key text) returns void
language plpgsql as $$
declare
    moment constant timestamptz := crm_events.clock();
    effect crm_events.effects;
    member crm_events.tier_state;
    total  record;
    best   record;
begin
    select * into strict effect from crm_events.effects where effect_key = key;
    if effect.kind <> 'tier' or effect.state <> 'pending' or coalesce(effect.due_at, moment) > moment then
        return;
    end if;
    select * into strict member from crm_events.tier_state
    where merchant_id = effect.merchant_id and user_id = effect.user_id;
    select * into strict total from crm_events.tier_value(effect.detail->'rules', effect.merchant_id, effect.user_id,
        array[member.scheduled_for], 'infinity');
    select * into strict best from crm_events.tier_reached(effect.detail->'rules'->'ladder',
        least(total.value, member.scheduled_threshold));
    if best.tier is not null and best.threshold > coalesce(
        crm_events.tier_standing(effect.detail->'rules'->'ladder', member.tier, member.threshold), '-infinity') then
        perform crm_events.raise_tier(key, effect.merchant_id, effect.user_id, best.tier, best.threshold, total.value,
            effect.program_rev, crm_events.ms(moment));
    else
        update crm_events.tier_state
        set scheduled_tier = null, scheduled_threshold = null, scheduled_for = null, value = total.value
        where merchant_id = effect.merchant_id and user_id = effect.user_id;
    end if;
    update crm_events.effects
    -- A review that was asked for while the upgrade waited is asked for still.
    set state = case when exists (select from crm_events.tier_state known where known.merchant_id = effect.merchant_id
                                  and known.user_id = effect.user_id and known.review_since is not null)
                     then 'review' else 'settled' end,
        settled_at = moment, due_at = null, updated_at = moment
    where effect_key = key;
end
$$;

-- One element of a batch. The effect is locked.
create function crm_events.evaluate_tier(element jsonb) returns void
language plpgsql as $$
declare
    key      constant text := element->>'effect_key';
    merchant constant text := element->>'merchant_id';
    user_ref constant text := element->>'user_id';
    ts_ms    constant bigint := element->>'as_of_ms';
    moment   constant timestamptz := crm_events.clock();
    rules    jsonb := element->'rules';
    rev      integer := element->>'program_rev';
    lowers   constant boolean := exists (
        select from jsonb_array_elements(element->'triggers') trigger where (trigger->>'lowers')::boolean);
    effect   crm_events.effects;
    member   crm_events.tier_state;
    instants constant timestamptz[] := array(
        select (trigger->>'at')::timestamptz from jsonb_array_elements(element->'triggers') trigger);
    total    record;
    best     record;
    earlier  record;
    reached  record;
    standing numeric;
    month    timestamptz;
    due      timestamptz;
    number   integer;
begin
    perform crm_events.upgrade_when_due(key);
    select * into strict effect from crm_events.effects where effect_key = key;
    if effect.program_rev > rev and effect.detail ? 'rules' then
        rules := effect.detail->'rules';
        rev := effect.program_rev;
    end if;
    select * into strict total from crm_events.tier_value(rules, merchant, user_ref, instants, 'infinity');
    select * into best from crm_events.tier_reached(rules->'ladder', total.value);
    select * into member from crm_events.tier_state where merchant_id = merchant and user_id = user_ref;
    standing := coalesce(crm_events.tier_standing(rules->'ladder', member.tier, member.threshold), '-infinity');

    -- What counts at once: all of it, or what was earned before this month began and is left of it now. When this
    -- evaluation was made, and for which row, must not matter.
    if rules->>'timing' = 'immediate' then
        reached := best;
        earlier := total;
    else
        month := date_trunc('month', moment at time zone (rules->>'time_zone')) at time zone (rules->>'time_zone');
        select * into strict earlier from crm_events.tier_value(rules, merchant, user_ref, instants, month);
        earlier.value := least(earlier.value, total.value);
        select * into reached from crm_events.tier_reached(rules->'ladder', earlier.value);
    end if;
    if reached.threshold > standing then
        perform crm_events.raise_tier(key, merchant, user_ref, reached.tier, reached.threshold, earlier.value, rev, ts_ms);
        effect.state := 'settled';
        standing := reached.threshold;
        select * into member from crm_events.tier_state where merchant_id = merchant and user_id = user_ref;
    end if;

    if best.threshold > standing then
        if effect.state <> 'pending' or best.threshold > member.scheduled_threshold then
            -- The newest row of the batch says when, unless it is an old one: what is not earned before this month then waits
            -- for the next.
            select max((trigger->>'due_at')::timestamptz) into due from jsonb_array_elements(element->'triggers') trigger;
            effect.due_at := case when due > moment then due
                else (date_trunc('month', moment at time zone (rules->>'time_zone')) + interval '1 month')
                    at time zone (rules->>'time_zone') end;
            effect.state := 'pending';
            number := crm_events.tier_number(merchant, user_ref);
            update crm_events.tier_state
            set scheduled_tier = best.tier, scheduled_threshold = best.threshold, scheduled_for = total.at
            where merchant_id = merchant and user_id = user_ref;
            perform crm_events.announce(concat(key, ':scheduled:', number), key, 'loyalty/tier_upgrade.scheduled', ts_ms,
                jsonb_build_object('effect_key', key, 'merchant_id', merchant, 'user_id', user_ref, 'tier', best.tier,
                    'value', total.value::text, 'due_at', crm_events.rfc3339(effect.due_at), 'program_rev', rev));
        end if;
    elsif member.tier is not null and coalesce(best.threshold, '-infinity') < standing
          and lowers and member.review_since is null then
        number := crm_events.tier_number(merchant, user_ref);
        member.review_since := moment;
        perform crm_events.announce(concat(key, ':review:', number), key, 'loyalty/tier.review_requested', ts_ms,
            jsonb_build_object('effect_key', key, 'merchant_id', merchant, 'user_id', user_ref, 'tier', member.tier,
                'value', total.value::text, 'threshold', standing::text, 'program_rev', rev));
    end if;

    if coalesce(best.threshold, '-infinity') >= standing then
        member.review_since := null;
    end if;
    update crm_events.tier_state
    set value = total.value, review_since = member.review_since
    where merchant_id = merchant and user_id = user_ref;
    if effect.state <> 'pending' then
        effect.state := case when member.review_since is null then 'settled' else 'review' end;
        effect.due_at := null;
    end if;
    update crm_events.effects
    set state = effect.state, due_at = effect.due_at, program_rev = rev, as_of_ms = greatest(as_of_ms, ts_ms),
        settled_at = case when effect.state = 'pending' then null else moment end,
        attempts = 0, next_attempt_at = null, stale_at = null, missed_since = null, missed = null, heals = 0, healed_at = null,
        dead_basis = null, dead_reason = null, detail = jsonb_build_object('rules', rules), updated_at = moment
    where effect_key = key;
end
$$;

create function crm_events.evaluate_tiers(batch jsonb) returns setof crm_events.announcement
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    -- The rows that led here are not locked: each of them has an evaluation of its own after it was committed, and the
    -- last one to get the lock sees them all.
    keys constant text[] := crm_events.lock_effects(batch);
begin
    perform crm_events.evaluate_tier(element)
    from (select value as element from jsonb_array_elements(batch) order by (value->>'as_of_ms')::bigint) sorted;
    return query select * from crm_events.unannounced(keys);
end
$$;

-- The upgrade at its time, for the workflow; again and again, if its answer is lost.
create function crm_events.upgrade_tier(effect_key text) returns setof crm_events.announcement
language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    key constant text := effect_key;
begin
    perform from crm_events.effects known where known.effect_key = key for update;
    if found then
        perform crm_events.upgrade_when_due(key);
    end if;
    return query select * from crm_events.unannounced(array[key]);
end
$$;
