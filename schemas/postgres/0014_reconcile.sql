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

-- A page of a ledger in the order of its ids. `since`: only rows that have a time of that instant or later. `read_at_ms` is
-- when the statement began: what is committed later is not in the page.
create function crm_events.ledger_rows(source_table text, after_id text, since timestamptz, max integer)
returns table (id text, image jsonb, read_at_ms bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
#variable_conflict use_variable
declare
    -- Of the columns' own types, so that their indexes are used.
    purchase   public.purchase_ledger.id%type;
    entry      public.wallet_ledger.id%type;
    submission public.form_submissions.id%type;
    claim      public.mission_claims.id%type;
    referral   public.referral_ledger.id%type;
    voucher    public.codes.id%type;
    read_at    constant bigint := crm_events.ms(crm_events.clock());
begin
    case source_table
    when 'purchase_ledger' then
        purchase := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.purchase_ledger source
            where (purchase is null or source.id > purchase)
              and (since is null or source.created_at >= since or source.completed_at >= since)
            order by source.id limit max;
    when 'wallet_ledger' then
        entry := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.wallet_ledger source
            where (entry is null or source.id > entry) and (since is null or source.created_at >= since)
            order by source.id limit max;
    when 'form_submissions' then
        submission := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.form_submissions source
            where (submission is null or source.id > submission) and (since is null or source.submitted_at >= since)
            order by source.id limit max;
    when 'mission_claims' then
        claim := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.mission_claims source
            where (claim is null or source.id > claim) and (since is null or source.claimed_at >= since)
            order by source.id limit max;
    when 'referral_ledger' then
        referral := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.referral_ledger source
            where (referral is null or source.id > referral) and (since is null or source.created_at >= since)
            order by source.id limit max;
    when 'codes' then
        voucher := after_id;
        return query select source.id::text, crm_events.row_image(source_table, to_jsonb(source)), read_at
            from public.codes source
            where (voucher is null or source.id > voucher) and (since is null or source.redeemed_at >= since)
            order by source.id limit max;
    else
        raise exception 'no such ledger: %', source_table using errcode = 'invalid_parameter_value';
    end case;
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

-- Purchases whose entries in the wallet do not add up to what was booked for them. What was settled before the cut-off and
-- never seeded is none of ours.
create function crm_events.unbalanced(max integer)
returns table (purchase_id text, merchant_id text, user_id text, in_wallet bigint, booked bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    with entries as (
        select entry.source_id::text as purchase_id, min(entry.merchant_id::text) as merchant_id,
               min(entry.user_id::text) as user_id, sum(entry.amount)::bigint as points
        from public.wallet_ledger entry
        where entry.source_type::text = 'purchase' and entry.source_id is not null
        group by entry.source_id::text
    ), awards as (
        select effect.source_id, effect.merchant_id, effect.user_id, effect.booked
        from crm_events.effects effect where effect.kind = 'award'
    ), differing as (
        select coalesce(entries.purchase_id, awards.source_id) as purchase_id,
               coalesce(entries.merchant_id, awards.merchant_id) as merchant_id,
               coalesce(entries.user_id, awards.user_id) as user_id,
               coalesce(entries.points, 0) as in_wallet, coalesce(awards.booked, 0) as booked, awards.source_id as known
        from entries full join awards on awards.source_id = entries.purchase_id
        where coalesce(entries.points, 0) <> coalesce(awards.booked, 0)
    )
    select differing.purchase_id, differing.merchant_id, differing.user_id, differing.in_wallet, differing.booked
    from differing
    where differing.known is not null or not exists (
        select from public.purchase_ledger purchase
        where purchase.id::text = differing.purchase_id
          and purchase.created_at < (select setting.value::timestamptz from crm_events.settings setting
                                     where setting.name = 'effective_from'))
    order by differing.purchase_id
    limit max
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
    crm_events.ledger_rows(text, text, timestamptz, integer), crm_events.ledger_rows_of(text, text[]),
    crm_events.found_settled(text[], bigint), crm_events.not_healed(text[]), crm_events.still_dead(jsonb),
    crm_events.unbalanced(integer), crm_events.member_state(text, text)
from public;
grant select on crm_events.bookmarks to crm_worker;
grant execute on function
    crm_events.turn_page(text, text), crm_events.ledger_rows(text, text, timestamptz, integer),
    crm_events.ledger_rows_of(text, text[]), crm_events.found_settled(text[], bigint), crm_events.not_healed(text[]),
    crm_events.still_dead(jsonb), crm_events.unbalanced(integer), crm_events.member_state(text, text),
    crm_events.rfc3339(timestamptz), crm_events.ms(timestamptz)
to crm_worker;
