-- What the reconciler asks: rows of the ledgers as a snapshot would give them, and its notes about effects.

-- Where the slow pass over a ledger stands: the id behind which it goes on; null: at the begin.
create table crm_events.bookmarks (
    name     text primary key,
    after_id text,
    moved_at timestamptz not null default crm_events.clock()
);

create function crm_events.turn_page(name text, after_id text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into crm_events.bookmarks as mark (name, after_id) values (turn_page.name, turn_page.after_id)
    on conflict on constraint bookmarks_pkey do update set after_id = excluded.after_id, moved_at = crm_events.clock()
$$;

-- A row as a connector would write it. Times get their offset, whatever the column's type is. The text of a voucher never
-- leaves the database this way.
create function crm_events.row_image(source_table text, image jsonb) returns jsonb
language sql stable as $$
    select image
        || coalesce((
            select jsonb_object_agg(cell.key, (cell.value #>> '{}')::timestamptz)
            from jsonb_each(image) cell
            where cell.key in ('created_at', 'completed_at', 'submitted_at', 'claimed_at', 'redeemed_at')
              and jsonb_typeof(cell.value) = 'string' and cell.value #>> '{}' not in ('infinity', '-infinity')), '{}')
        || case when source_table = 'codes' and image->>'code' is not null then '{"code": "-"}'::jsonb else '{}' end
$$;

-- The columns of a ledger that say when a row came and, if there are two, when it was completed.
create function crm_events.time_columns(source_table text) returns text[]
language plpgsql immutable as $$
declare
    times constant text[] := case source_table
        when 'purchase_ledger' then array['created_at', 'completed_at']
        when 'wallet_ledger' then array['created_at']
        when 'form_submissions' then array['submitted_at']
        when 'mission_claims' then array['claimed_at']
        when 'referral_ledger' then array['created_at']
        when 'codes' then array['redeemed_at'] end;
begin
    if times is null then
        raise exception 'no such ledger: %', source_table using errcode = 'invalid_parameter_value';
    end if;
    return times;
end
$$;

-- A page of a ledger in the order of its ids. `read_at_ms` is when the statement began: what is committed later is not in the
-- page. Here and below each call is planned for its own values, as literals of the columns' own types: a plan that fits any
-- value would walk the table.
create function crm_events.ledger_rows(source_table text, after_id text, max integer)
returns table (id text, image jsonb, read_at_ms bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
#variable_conflict use_variable
begin
    perform crm_events.time_columns(source_table);
    return query execute format(
        'select source.id::text, crm_events.row_image($1, to_jsonb(source)), $2 from public.%I source '
        'where %s order by source.id limit $3',
        source_table, case when after_id is null then 'true' else format('source.id > %L', after_id) end)
    using source_table, crm_events.ms(crm_events.clock()), max;
end
$$;

create function crm_events.behind(time_column text, since timestamptz, after_time text, after_id text) returns text
language sql stable as $$
    select case when after_id is null then format('source.%I >= %L', time_column, since)
        else format('(source.%I, source.id) > (%L, %L)', time_column, after_time, after_id) end
$$;

-- A page of the rows that have a time of `since` or later, in the order of that time, each once: one that came earlier stands
-- where it was completed. Behind the row `after_id` with the time `after_time`. Reads no more than its rows, by the indexes on
-- (time, id), however large the ledger is.
create function crm_events.recent_rows(source_table text, since timestamptz, after_time text, after_id text, max integer)
returns table (id text, image jsonb, read_at_ms bigint, row_time text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
#variable_conflict use_variable
declare
    times constant text[] := crm_events.time_columns(source_table);
    came  constant text := format(
        'select source.id, source.%1$I as row_time, to_jsonb(source) as image from public.%2$I source '
        'where %3$s order by source.%1$I, source.id limit $3',
        times[1], source_table, crm_events.behind(times[1], since, after_time, after_id));
    pages text := format('with came as materialized (%s), page as (select * from came)', came);
begin
    if times[2] is not null then
        -- No further than the page of those that came, if there are more of them.
        pages := format(
            'with came as materialized (%s), completed as ('
            'select source.id, source.%2$I as row_time, to_jsonb(source) as image from public.%3$I source '
            'where %4$s and (source.%5$I >= %6$L) is not true and source.%2$I <= '
            '(select coalesce(case when count(*) = $3 then max(came.row_time) end, %7$L) from came) '
            'order by source.%2$I, source.id limit $3), '
            'page as (select * from came union all select * from completed)',
            came, times[2], source_table, crm_events.behind(times[2], since, after_time, after_id), times[1], since, 'infinity');
    end if;
    return query execute pages
        || ' select page.id::text, crm_events.row_image($1, page.image), $2, to_jsonb(page.row_time) #>> ''{}'''
        || ' from page order by page.row_time, page.id limit $3'
    using source_table, crm_events.ms(crm_events.clock()), max;
end
$$;

-- These rows, as far as they are there. A text that cannot be an id of this table is none.
create function crm_events.ledger_rows_of(source_table text, ids text[])
returns table (id text, image jsonb, read_at_ms bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
#variable_conflict use_variable
declare
    purchase   public.purchase_ledger.id%type;
    entry      public.wallet_ledger.id%type;
    submission public.form_submissions.id%type;
    claim      public.mission_claims.id%type;
    referral   public.referral_ledger.id%type;
    voucher    public.codes.id%type;
    wanted     text;
    found_row  jsonb;
    read_at    constant bigint := crm_events.ms(crm_events.clock());
begin
    foreach wanted in array ids loop
        found_row := null;
        begin
            case source_table
            when 'purchase_ledger' then
                purchase := wanted;
                select to_jsonb(source) into found_row from public.purchase_ledger source where source.id = purchase;
            when 'wallet_ledger' then
                entry := wanted;
                select to_jsonb(source) into found_row from public.wallet_ledger source where source.id = entry;
            when 'form_submissions' then
                submission := wanted;
                select to_jsonb(source) into found_row from public.form_submissions source where source.id = submission;
            when 'mission_claims' then
                claim := wanted;
                select to_jsonb(source) into found_row from public.mission_claims source where source.id = claim;
            when 'referral_ledger' then
                referral := wanted;
                select to_jsonb(source) into found_row from public.referral_ledger source where source.id = referral;
            when 'codes' then
                voucher := wanted;
                select to_jsonb(source) into found_row from public.codes source where source.id = voucher;
            else
                raise exception 'no such ledger: %', source_table using errcode = 'invalid_parameter_value';
            end case;
        exception when invalid_text_representation or numeric_value_out_of_range then
            null;
        end;
        if found_row is not null then
            id := found_row->>'id';
            image := crm_events.row_image(source_table, found_row);
            read_at_ms := read_at;
            return next;
        end if;
    end loop;
end
$$;

-- Decided again and found in order: nothing is missed or stale any more, unless somebody noted it since.
create function crm_events.found_settled(keys text[], as_of_ms bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
begin
    perform from crm_events.effects effect
    where effect.effect_key = any (keys collate "C") and (effect.missed_since is not null or effect.stale_at is not null)
    order by effect.effect_key for update;
    update crm_events.effects effect
    set state = case effect.state when 'missing' then 'open' else effect.state end,
        missed_since = null, missed = null, heals = 0, healed_at = null, stale_at = null, updated_at = crm_events.clock()
    where effect.effect_key = any (keys collate "C")
      and (effect.missed_since is not null or effect.stale_at is not null)
      and greatest(crm_events.ms(effect.missed_since), crm_events.ms(effect.stale_at)) <= as_of_ms;
end
$$;

-- Planned, but the target took nothing: the same number is given again.
create function crm_events.not_healed(keys text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from crm_events.effects effect
    where effect.effect_key = any (not_healed.keys collate "C") order by effect.effect_key for update;
    update crm_events.effects effect set heals = effect.heals - 1, healed_at = null
    where effect.effect_key = any (not_healed.keys collate "C") and effect.heals > 0;
end
$$;

-- records: as in compare_effects, plus source_table. Those whose dead letter was of this very state of the row: left alone
-- until a replay, or a change of the row. ordinal counts from 1.
create function crm_events.still_dead(records jsonb) returns setof integer
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select record.n::integer
    from jsonb_array_elements(records) with ordinality as record (value, n)
    join crm_events.effects effect on effect.effect_key = record.value->>'effect_key'
    where effect.state = 'dead'
      and effect.dead_basis = crm_events.basis_of(record.value->>'source_table', record.value->'basis')
$$;

-- Purchases whose entries in the wallet do not add up to what was booked for them, by pages of the purchases that have entries:
-- {next, unbalanced: [{purchase_id, merchant_id, user_id, in_wallet, booked}]}; next: where the following page begins, null
-- behind the last. What else an application writes under a purchase is its own (spend, expire, adjust). What was settled before
-- the cut-off and never seeded is none of ours.
create function crm_events.unbalanced_entries(after text, max integer) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_variable
declare
    begin_at   public.wallet_ledger.source_id%type := after;
    purchase   public.purchase_ledger.id%type;
    cut_off    constant timestamptz := (select setting.value::timestamptz from crm_events.settings setting
                                        where setting.name = 'effective_from');
    entries    record;
    is_older   boolean;
    pages      integer := 0;
    last_id    text;
    unbalanced jsonb := '[]';
begin
    for entries in
        select sums.*, award.effect_key, coalesce(award.booked, 0) as booked
        from (
            select entry.source_id, min(entry.merchant_id::text) as merchant_id, min(entry.user_id::text) as user_id,
                   sum(entry.amount)::bigint as points
            from public.wallet_ledger entry
            where entry.source_type::text = 'purchase' and entry.kind::text in ('earn', 'clawback')
              and entry.source_id is not null and (begin_at is null or entry.source_id > begin_at)
            group by entry.source_id order by entry.source_id limit max
        ) sums
        left join crm_events.effects award
            on award.effect_key = ('award:' || crm_events.escape(sums.source_id::text)) collate "C"
        order by sums.source_id
    loop
        pages := pages + 1;
        last_id := entries.source_id::text;
        continue when entries.points = entries.booked;
        if entries.effect_key is null then
            is_older := false;
            begin
                purchase := last_id;
                select source.created_at < cut_off into is_older from public.purchase_ledger source where source.id = purchase;
            exception when invalid_text_representation or numeric_value_out_of_range then
                null;
            end;
            continue when is_older;
        end if;
        unbalanced := unbalanced || jsonb_build_object('purchase_id', last_id, 'merchant_id', entries.merchant_id,
            'user_id', entries.user_id, 'in_wallet', entries.points, 'booked', entries.booked);
    end loop;
    return jsonb_build_object('next', case when pages = max then last_id end, 'unbalanced', unbalanced);
end
$$;

-- The same of the awards that have no entries at all, by pages of the awards.
create function crm_events.unbalanced_awards(after text, max integer) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_variable
declare
    wanted     public.wallet_ledger.source_id%type;
    award      crm_events.effects;
    pages      integer := 0;
    last_key   text;
    unbalanced jsonb := '[]';
begin
    for award in
        select effect.* from crm_events.effects effect
        where effect.effect_key > coalesce(after, 'award:') collate "C" and effect.effect_key < 'award;' collate "C"
        order by effect.effect_key limit max
    loop
        pages := pages + 1;
        last_key := award.effect_key;
        continue when award.booked = 0;
        begin
            wanted := award.source_id;
            continue when exists (
                select from public.wallet_ledger entry
                where entry.source_id = wanted and entry.source_type::text = 'purchase' and entry.kind::text in ('earn', 'clawback'));
        exception when invalid_text_representation or numeric_value_out_of_range then
            null;
        end;
        unbalanced := unbalanced || jsonb_build_object('purchase_id', award.source_id, 'merchant_id', award.merchant_id,
            'user_id', award.user_id, 'in_wallet', 0, 'booked', award.booked);
    end loop;
    return jsonb_build_object('next', case when pages = max then last_key end, 'unbalanced', unbalanced);
end
$$;

-- Points and tier of a member, to explain. An id that is no id of these columns is nobody's.
create function crm_events.member_state(merchant text, member text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
#variable_conflict use_variable
declare
    owner_id public.wallet_ledger.user_id%type;
    shop_id  public.wallet_ledger.merchant_id%type;
    points   bigint := 0;
    entries  bigint := 0;
begin
    begin
        owner_id := member;
        shop_id := merchant;
        select coalesce(sum(entry.amount), 0), count(*) into points, entries
        from public.wallet_ledger entry where entry.merchant_id = shop_id and entry.user_id = owner_id;
    exception when invalid_text_representation or numeric_value_out_of_range then
        null;
    end;
    return jsonb_build_object('balance', points, 'entries', entries,
        'tier', (select jsonb_build_object('tier', state.tier, 'since', crm_events.rfc3339(state.since), 'value', state.value::text,
                'scheduled_tier', state.scheduled_tier, 'review_since', crm_events.rfc3339(state.review_since))
            from crm_events.tier_state state where state.merchant_id = merchant and state.user_id = member),
        'history', coalesce((select jsonb_agg(jsonb_build_object('tier', past.tier, 'previous_tier', past.previous_tier,
                'value', past.value::text, 'program_rev', past.program_rev, 'upgraded_at', crm_events.rfc3339(past.upgraded_at))
                order by past.n)
            from crm_events.tier_history past where past.merchant_id = merchant and past.user_id = member), '[]'));
end
$$;

revoke all on table crm_events.bookmarks from public;
revoke all on function
    crm_events.turn_page(text, text), crm_events.row_image(text, jsonb),
    crm_events.time_columns(text), crm_events.behind(text, timestamptz, text, text),
    crm_events.ledger_rows(text, text, integer), crm_events.recent_rows(text, timestamptz, text, text, integer),
    crm_events.ledger_rows_of(text, text[]), crm_events.found_settled(text[], bigint), crm_events.not_healed(text[]),
    crm_events.still_dead(jsonb), crm_events.unbalanced_entries(text, integer), crm_events.unbalanced_awards(text, integer),
    crm_events.member_state(text, text)
from public;
grant select on crm_events.bookmarks to crm_worker;
grant execute on function
    crm_events.turn_page(text, text), crm_events.ledger_rows(text, text, integer),
    crm_events.recent_rows(text, timestamptz, text, text, integer), crm_events.ledger_rows_of(text, text[]),
    crm_events.found_settled(text[], bigint), crm_events.not_healed(text[]), crm_events.still_dead(jsonb),
    crm_events.unbalanced_entries(text, integer), crm_events.unbalanced_awards(text, integer),
    crm_events.member_state(text, text),
    crm_events.rfc3339(timestamptz), crm_events.ms(timestamptz)
to crm_worker;
