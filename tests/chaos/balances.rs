//! The rules over the ledgers, on a real server: what is in order breaks none, and each planted error breaks its own.

use tokio_postgres::{Client, NoTls};

use super::ledger::{self, RULES};
use crate::postgres::Database;

/// One settled fact of every kind.
const IN_ORDER: &str = "\
    insert into public.purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
        values ('p-1', 'u-1', 'm-now', 100, 'completed', true, now()), ('p-2', 'u-1', 'm-now', 70, 'pending', true, now()), \
               ('p-3', 'u-2', 'm-month', 101, 'refunded', true, now()); \
    insert into public.wallet_ledger (id, user_id, merchant_id, amount, kind, source_type, source_id, created_at) \
        values ('w-1', 'u-1', 'm-now', 100, 'earn', 'purchase', 'p-1', now()), \
               ('w-2', 'u-2', 'm-month', 50, 'earn', 'purchase', 'p-3', now()), \
               ('w-3', 'u-2', 'm-month', -20, 'spend', 'app', null, now()), \
               ('w-4', 'u-2', 'm-month', -30, 'clawback', 'purchase', 'p-3', now()); \
    insert into public.form_submissions values ('f-1', 'welcome', 'u-1', 'm-now', now()); \
    insert into public.mission_claims (id, user_id, merchant_id, mission_id, status) \
        values ('g-1', 'u-1', 'm-now', 'count', 'claimed'), ('g-2', 'u-1', 'm-now', 'count', 'revoked'); \
    insert into public.referral_ledger values ('r-1', 'u-1', 'u-9', 'm-now', 'qualified', now()), \
        ('r-2', 'u-1', 'u-8', 'm-now', 'pending', now()); \
    insert into public.codes values ('c-1', 'x', 'm-now', 'redeemed', 'u-1', now()), ('c-2', 'y', 'm-now', 'issued', null, null); \
    insert into crm_events.effects (effect_key, kind, source_id, merchant_id, user_id, state, target, booked, detail) values \
        ('award:p-1', 'award', 'p-1', 'm-now', 'u-1', 'settled', 100, 100, '{}'), \
        ('award:p-3', 'award', 'p-3', 'm-month', 'u-2', 'settled', 0, 20, '{}'), \
        ('grant:g-1', 'grant', 'g-1', 'm-now', 'u-1', 'settled', 1, 1, '{}'), \
        ('grant:g-2', 'grant', 'g-2', 'm-now', 'u-1', 'settled', 0, 0, '{}'), \
        ('referral:r-1:referrer', 'referral', 'r-1', 'm-now', 'u-1', 'settled', 1, 1, '{}'), \
        ('referral:r-1:referee', 'referral', 'r-1', 'm-now', 'u-9', 'settled', 1, 1, '{}'), \
        ('code:c-1', 'code', 'c-1', 'm-now', 'u-1', 'settled', 1, 1, '{}'), \
        ('mission:m-now:count:u-1:lifetime', 'mission', null, 'm-now', 'u-1', 'settled', 0, 0, '{\"progress\": \"1\"}'), \
        ('mission:m-now:spend:u-1:lifetime', 'mission', null, 'm-now', 'u-1', 'settled', 0, 0, '{\"progress\": \"100.00\"}'), \
        ('mission:m-now:form:u-1:lifetime', 'mission', null, 'm-now', 'u-1', 'settled', 1, 1, '{\"progress\": \"1\"}'), \
        ('tier:m-now:u-1', 'tier', null, 'm-now', 'u-1', 'review', 0, 0, '{}'); \
    insert into crm_events.tier_state (merchant_id, user_id, tier, threshold, value) values ('m-now', 'u-1', 'silver', 500, 100); \
    insert into crm_events.tier_history values ('m-now', 'u-1', 1, 'silver', null, 500, 1, now()); \
    insert into crm_events.announcements (id, effect_key, name, ts_ms, data, announced_at) values \
        ('mission:m-now:form:u-1:lifetime:evaluated:1', 'mission:m-now:form:u-1:lifetime', 'loyalty/mission.evaluated', 1, \
         '{\"completed_now\": true}', now());";

/// In the order of the rules: errors, each of which breaks that rule and no other.
const PLANTED: [&[&str]; RULES.len()] = [
    &[
        "update crm_events.effects set booked = 99 where effect_key = 'award:p-1'; \
         update public.wallet_ledger set amount = 99 where id = 'w-1'",
        "update crm_events.effects set booked = 51 where effect_key = 'award:p-3'; \
         update public.wallet_ledger set amount = 1 where id = 'w-4'",
        "update public.purchase_ledger set earn_currency = false where id = 'p-1'",
    ],
    &[
        "update public.wallet_ledger set amount = 99 where id = 'w-1'",
        "insert into public.wallet_ledger values ('w-9', 'u-1', 'm-now', 5, 'earn', 'purchase', 'p-2', now())",
        "delete from public.wallet_ledger where id = 'w-1'",
    ],
    &["update public.wallet_ledger set user_id = 'u-9' where id = 'w-1'"],
    &[
        "update crm_events.effects set booked = 0 where effect_key = 'grant:g-1'",
        "update crm_events.effects set booked = 1 where effect_key = 'grant:g-2'",
        "delete from crm_events.effects where effect_key = 'grant:g-1'",
    ],
    &["update crm_events.effects set booked = 0 where effect_key = 'referral:r-1:referee'"],
    &[
        "delete from crm_events.effects where effect_key = 'code:c-1'",
        "update public.codes set status = 'issued' where id = 'c-1'",
    ],
    &[
        "update crm_events.effects set detail = '{\"progress\": \"2\"}' where effect_key = 'mission:m-now:count:u-1:lifetime'",
        "insert into public.form_submissions values ('f-2', 'welcome', 'u-1', 'm-now', now())",
    ],
    &[
        "update crm_events.effects set booked = 0 where effect_key = 'mission:m-now:form:u-1:lifetime'",
        "insert into crm_events.announcements (id, effect_key, name, ts_ms, data, announced_at) values \
         ('again', 'mission:m-now:form:u-1:lifetime', 'loyalty/mission.evaluated', 1, '{\"completed_now\": true}', now())",
    ],
    &[
        "update crm_events.tier_state set value = 99",
        "insert into public.wallet_ledger values ('w-9', 'u-3', 'm-month', 200, 'adjust', 'app', null, now())",
    ],
    &["insert into crm_events.tier_history values ('m-now', 'u-1', 2, 'silver', null, 500, 1, now())"],
    &["update crm_events.effects set state = 'pending' where effect_key = 'award:p-1'"],
    &[
        "update crm_events.announcements set announced_at = null",
        "update crm_events.announcements set dead_at = now()",
    ],
];

async fn broken(client: &Client) -> Vec<&'static str> {
    let breaches = ledger::breaches(client).await.expect("answers");
    breaches.into_iter().map(|breach| breach.rule).collect()
}

#[tokio::test]
async fn an_unbalanced_wallet_and_every_other_planted_error_breaks_its_own_rule() {
    let database = Database::new().await;
    let (client, connection) = database.config.connect(NoTls).await.expect("the database");
    let connection = tokio::spawn(connection);
    client.batch_execute(IN_ORDER).await.expect("planted");
    assert_eq!(broken(&client).await, Vec::<&str>::new());
    for (rule, errors) in RULES.iter().zip(PLANTED) {
        for error in errors {
            client.batch_execute(&format!("begin; {error}")).await.expect(error);
            assert_eq!(broken(&client).await, [rule.holds], "{error}");
            client.batch_execute("rollback").await.expect("undone");
        }
    }
    let announced = ledger::announcements(&client).await.expect("answers");
    assert_eq!(announced, ["mission:m-now:form:u-1:lifetime:evaluated:1"]);
    drop(client);
    connection.await.expect("ended").expect("cleanly");
    database.done().await;
}
