//! The books of the database: whether what was settled is what the rows imply. Plain SQL over the ledgers, which knows no
//! function of ours and no decision of the worker.

use anyhow::Context as _;
use tokio_postgres::Client;

/// What must hold, with a query for what breaks it: each row names one case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) holds: &'static str,
    pub(crate) broken: &'static str,
}

/// What breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Breach {
    pub(crate) rule: &'static str,
    pub(crate) cases: u64,
    pub(crate) example: String,
}

/// The ledgers, and what they imply. Ours settle at 100, 50 and 100 points for a hundred units.
const IMPLIED: &str = "\
    create or replace temporary view worth as \
        select *, floor(remaining * rate)::bigint as target, floor(final_amount * rate)::bigint as most from ( \
            select p.*, case p.merchant_id when 'm-month' then 0.5 else 1 end * p.earn_currency::integer as rate, \
                case when p.status in ('completed', 'partially_refunded') \
                     then greatest(p.final_amount - coalesce(p.refunded_amount, 0), 0) else 0 end as remaining \
            from public.purchase_ledger p) priced; \
    create or replace temporary view implied_progress as \
        select 'mission:' || merchant_id || ':count:' || user_id || ':lifetime' as effect_key, 5 as goal, \
            count(*) filter (where remaining > 0)::numeric as progress from worth group by merchant_id, user_id \
        union all \
        select 'mission:' || merchant_id || ':spend:' || user_id || ':lifetime', 1000, sum(remaining) \
            from worth group by merchant_id, user_id \
        union all \
        select 'mission:' || merchant_id || ':form:' || user_id || ':lifetime', 1, count(*) \
            from public.form_submissions group by merchant_id, user_id; \
    create or replace temporary view implied_tier as \
        select merchant_id, user_id, sum(remaining) as value, 500 as silver, 2000 as gold from worth \
            where merchant_id = 'm-now' group by merchant_id, user_id \
        union all \
        select merchant_id, user_id, sum(amount), 200, 1000 from public.wallet_ledger \
            where merchant_id = 'm-month' and kind in ('earn', 'clawback', 'adjust') group by merchant_id, user_id;";

pub(crate) const RULES: [Rule; 12] = [
    Rule {
        holds: "booked is the target of the row, or what the refund policy leaves",
        broken: "select 'award ' || w.id || ': booked ' || coalesce(e.booked, 0) || ', target ' || w.target from worth w \
                 left join crm_events.effects e on e.effect_key = 'award:' || w.id \
                 where coalesce(e.booked, 0) <> w.target and not (w.merchant_id = 'm-month' \
                     and coalesce(e.booked, 0) between w.target and w.most and exists (select from public.wallet_ledger c \
                         where c.source_id = w.id and c.kind = 'earn'))",
    },
    Rule {
        holds: "the wallet has what was booked for each purchase",
        broken: "select 'purchase ' || coalesce(source_id, id) from \
                 (select source_id, sum(amount) as points from public.wallet_ledger where source_type = 'purchase' group by 1) w \
                 full join (select source_id as id, booked from crm_events.effects where kind = 'award') e on e.id = w.source_id \
                 where coalesce(w.points, 0) <> coalesce(e.booked, 0)",
    },
    Rule {
        holds: "a purchase's points lie with its member",
        broken: "select 'entry ' || w.id from public.wallet_ledger w left join public.purchase_ledger p on p.id = w.source_id \
                 where w.source_type = 'purchase' and (w.merchant_id, w.user_id) is distinct from (p.merchant_id, p.user_id)",
    },
    Rule {
        holds: "a claim is granted as its row says",
        broken: "select 'claim ' || c.id from public.mission_claims c \
                 left join crm_events.effects e on e.effect_key = 'grant:' || c.id \
                 where coalesce(e.booked, 0) <> (c.status = 'claimed')::integer",
    },
    Rule {
        holds: "both sides of a referral are granted as its row says",
        broken: "select 'referral ' || r.id || ' ' || side from public.referral_ledger r \
                 cross join (values ('referrer'), ('referee')) sides (side) \
                 left join crm_events.effects e on e.effect_key = 'referral:' || r.id || ':' || side \
                 where coalesce(e.booked, 0) <> (r.status = 'qualified')::integer",
    },
    Rule {
        holds: "a code is fulfilled if it was redeemed, once",
        broken: "select 'code ' || c.id from public.codes c left join crm_events.effects e on e.effect_key = 'code:' || c.id \
                 where coalesce(e.booked, 0) <> (c.status = 'redeemed')::integer",
    },
    Rule {
        holds: "a mission's progress is the sum over its rows",
        broken: "select coalesce(e.effect_key, i.effect_key) from implied_progress i \
                 full join (select effect_key, (detail->>'progress')::numeric as progress from crm_events.effects \
                            where kind = 'mission') e on e.effect_key = i.effect_key \
                 where coalesce(e.progress, 0) <> coalesce(i.progress, 0)",
    },
    Rule {
        holds: "a mission is completed once, and if it is reached",
        broken: "select e.effect_key from crm_events.effects e join implied_progress i using (effect_key) \
                 where (i.progress >= i.goal and e.booked <> 1) or e.booked not in (0, 1) \
                 union all \
                 select effect_key from crm_events.announcements where (data->>'completed_now')::boolean \
                 group by effect_key having count(*) > 1",
    },
    Rule {
        holds: "a member has at least the tier that the rows are worth, by the sum over all of them",
        broken: "select 'tier ' || i.merchant_id || ' ' || i.user_id || ': ' || coalesce(s.value::text, 'none') \
                     || ', rows ' || i.value from implied_tier i \
                 left join crm_events.tier_state s using (merchant_id, user_id) \
                 where (s.value is not null and s.value <> i.value) \
                    or (i.value >= i.gold and s.tier is distinct from 'gold') \
                    or (i.value >= i.silver and s.tier is null)",
    },
    Rule {
        holds: "a member rises to a tier once",
        broken: "select 'tier ' || merchant_id || ' ' || user_id from crm_events.tier_history \
                 group by merchant_id, user_id, tier having count(*) > 1",
    },
    Rule {
        // What was noted of a state that counts nothing any more is nothing to settle.
        holds: "nothing is left unsettled but reviews of tiers",
        broken: "select effect_key || ' is ' || state from crm_events.effects \
                 where state <> 'settled' and not (kind = 'tier' and state = 'review') \
                     and not (state = 'missing' and booked = 0 and basis is null)",
    },
    Rule {
        holds: "every announcement was sent",
        broken: "select id from crm_events.announcements where announced_at is null or dead_at is not null",
    },
];

/// What breaks the rules; nothing, if the books balance.
pub(crate) async fn breaches(client: &Client) -> anyhow::Result<Vec<Breach>> {
    client.batch_execute(IMPLIED).await.context("the views")?;
    let mut breaches = Vec::new();
    for Rule { holds, broken } in RULES {
        let query = format!("select count(*), coalesce(min(c), '') from ({broken}) broken (c)");
        let row = client.query_one(&query, &[]).await.context(holds)?;
        let cases: i64 = row.try_get(0)?;
        if cases > 0 {
            breaches.push(Breach {
                rule: holds,
                cases: cases.unsigned_abs(),
                example: row.try_get(1)?,
            });
        }
    }
    Ok(breaches)
}

/// The id of every announcement.
pub(crate) async fn announcements(client: &Client) -> anyhow::Result<Vec<String>> {
    let rows = client.query("select id from crm_events.announcements", &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
