-- Taking over a ledger that an older worker settled.

-- An effect for every purchase older than the cut-off. What has entries in the wallet is settled, as the newest rules would
-- have it: it is not decided again before the row changes. What has none is open: booked 0, and ours from now on.
create function crm_events.seed_effects(cut_off timestamptz, out settled bigint, out open bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
begin
    with booked as (
        select entry.source_id::text as purchase_id, sum(entry.amount)::bigint as points,
               min(entry.user_id::text) as user_id, min(entry.merchant_id::text) as merchant_id
        from public.wallet_ledger entry
        where entry.source_type::text = 'purchase'
          -- What a member spent or let expire is noted under a purchase, too, and has nothing to do with its award.
          and entry.kind::text in ('earn', 'clawback')
        group by entry.source_id
    ), seeded as (
        insert into crm_events.effects (effect_key, kind, source_table, source_id, merchant_id, user_id, state, basis, target,
            program_rev, booked, booked_user_id, booked_merchant_id, settled_at)
        select 'award:' || crm_events.escape(purchase.id::text), 'award', 'purchase_ledger', purchase.id::text,
               purchase.merchant_id::text, purchase.user_id::text,
               case when booked.points is null then 'open' else 'settled' end,
               crm_events.basis_of('purchase_ledger', jsonb_build_object('user_id', purchase.user_id::text,
                   'merchant_id', purchase.merchant_id::text, 'final_amount', purchase.final_amount,
                   'refunded_amount', purchase.refunded_amount, 'status', purchase.status,
                   'earn_currency', purchase.earn_currency, 'created_at', purchase.created_at,
                   'completed_at', purchase.completed_at)),
               coalesce(booked.points, 0),
               case when booked.points is null then 0 else 2147483647 end,
               coalesce(booked.points, 0),
               case when booked.points <> 0 then booked.user_id end,
               case when booked.points <> 0 then booked.merchant_id end,
               case when booked.points is not null then crm_events.clock() end
        from public.purchase_ledger purchase
        left join booked on booked.purchase_id = purchase.id::text
        where purchase.created_at < cut_off
        order by purchase.id::text collate "C"
        on conflict (effect_key) do nothing
        returning state
    )
    select count(*) filter (where seeded.state = 'settled'), count(*) filter (where seeded.state = 'open')
    into settled, open from seeded;
end
$$;

-- The purchases among them that nothing was booked for and nothing was applied to since.
create function crm_events.open_purchases(cut_off timestamptz)
returns table (purchase_id text, merchant_id text, status text, final_amount numeric, refunded_amount numeric, created_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select purchase.id::text, purchase.merchant_id::text, purchase.status::text, purchase.final_amount::numeric,
           coalesce(purchase.refunded_amount, 0)::numeric, purchase.created_at::timestamptz
    from public.purchase_ledger purchase
    join crm_events.effects effect on effect.effect_key = 'award:' || crm_events.escape(purchase.id::text) collate "C"
    where purchase.created_at < cut_off and effect.state = 'open'
    order by purchase.created_at, purchase.id
$$;
