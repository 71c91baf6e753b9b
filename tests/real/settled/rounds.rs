//! Once around: from a row in Postgres to the points that are due, and what follows from their entry in the wallet.

use serde_json::{Value, json};

use super::House;
use super::workflows::Workflows;

/// Points after two weeks; a tier by points at once; a mission of two purchases.
fn after_two_weeks() -> Value {
    json!({
        "currency": {"rate": "1", "rounding": "floor", "minimum": "1", "activation": {"kind": "rolling_days", "days": 14}},
        "tiers": {"ladder": [{"name": "silver", "threshold": "100"}], "metric": "points",
                  "window": {"kind": "lifetime"}, "timing": "immediate"},
        "missions": [{"id": "two", "trigger": {"kind": "purchase_count"}, "target": 2, "period": "lifetime"}],
        "refund_policy": "within_balance",
    })
}

/// Points at once; a tier by points from the next month on.
fn next_month() -> Value {
    json!({
        "currency": {"rate": "1", "rounding": "floor", "minimum": "1", "activation": {"kind": "immediate"}},
        "tiers": {"ladder": [{"name": "gold", "threshold": "100"}], "metric": "points",
                  "window": {"kind": "lifetime"}, "timing": "start_of_next_month"},
        "refund_policy": "within_balance",
    })
}

/// Whether nothing is left to be sent.
const ANNOUNCED: &str = "select (count(*) = 0)::text from crm_events.announcements where announced_at is null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_becomes_what_it_is_worth_when_it_is_due_and_the_wallets_entry_leads_on() {
    let mut house = House::new(2).await;
    house.program("Asia/Bangkok", &after_two_weeks()).await;
    let workflows = Workflows::start(&house).await;
    let mut worker = house.worker(&workflows.url);
    worker.start().await;
    let connector = house.connector().await;

    awards_and_a_mission(&house, &workflows).await;
    grants_and_codes(&house).await;
    house.merchant.push_str("-monthly");
    house.program("Asia/Bangkok", &next_month()).await;
    an_upgrade_at_the_start_of_a_month(&house, &workflows).await;

    workflows.idle().await;
    assert_eq!(workflows.failed().await, Vec::<Value>::new());
    assert_eq!(house.dead_letters().await, 0);
    assert_eq!(house.database.own.text(ANNOUNCED).await, "true");
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}

/// The entries of a member, the largest first: in which order two awards of one moment are booked is nobody's promise.
fn points(user: &str) -> String {
    format!(
        "select coalesce(string_agg(amount::text, ' ' order by amount desc), '') from wallet_ledger where user_id = '{user}'"
    )
}

fn state(key: &str) -> String {
    format!(
        "select coalesce((select concat(state, ' ', booked) from crm_events.effects where effect_key = '{key}'), '')"
    )
}

async fn awards_and_a_mission(house: &House, workflows: &Workflows) {
    let merchant = &house.merchant;
    house.purchase("p-1", "u-1", "150.00", "completed").await;
    house.purchase("p-early", "u-2", "80.00", "completed").await;
    house.purchase("p-late", "u-3", "90.00", "completed").await;
    house.purchase("p-second", "u-1", "10.00", "pending").await;
    house
        .sql("update purchase_ledger set status = 'completed', completed_at = now() where id = 'p-second'")
        .await;
    for purchase in ["p-1", "p-early", "p-late", "p-second"] {
        house
            .until("scheduled", &state(&format!("award:{purchase}")), "pending 0")
            .await;
    }
    // Refunded before it is due: nothing is ever booked.
    house
        .sql("update purchase_ledger set status = 'refunded', refunded_amount = final_amount where id = 'p-early'")
        .await;
    house.until("cancelled", &state("award:p-early"), "settled 0").await;
    let mission = format!("mission:{merchant}:two:u-1:lifetime");
    house
        .until("the mission of two purchases", &state(&mission), "settled 1")
        .await;
    house.until("it is announced", ANNOUNCED, "true").await;
    let completed = workflows.named("loyalty/mission.evaluated").await;
    let completed = completed
        .iter()
        .filter(|event| event["data"]["completed_now"] == true)
        .count();
    assert_eq!(completed, 1);

    assert_eq!(
        house.number("select count(*) from wallet_ledger").await,
        0,
        "nothing is due"
    );
    workflows.advance_days(13).await;
    assert_eq!(
        house.number("select count(*) from wallet_ledger").await,
        0,
        "nothing is due on the thirteenth day"
    );
    workflows.advance_days(1).await;
    house
        .until("points on the fourteenth day", &points("u-1"), "150 10")
        .await;
    house.until("and of the other", &points("u-3"), "90").await;
    assert_eq!(house.database.own.balance("u-2").await, 0, "refunded in time");

    // The entry came back as a row, and with it the tier.
    let tier = format!(
        "select concat(tier, ' ', value) from crm_events.tier_state where merchant_id = '{merchant}' and user_id = 'u-1'"
    );
    house
        .until("silver", &format!("select coalesce(({tier}), '')"), "silver 160")
        .await;
    let history = "select count(*) from crm_events.tier_history where user_id = 'u-1'";
    assert_eq!(house.number(history).await, 1);
    house.until("it is announced", ANNOUNCED, "true").await;
    let upgraded = workflows.named("loyalty/tier.upgraded").await;
    assert_eq!(upgraded.len(), 1, "{upgraded:?}");
    assert_eq!(upgraded[0]["data"]["tier"], "silver");

    // Refunded after booking: taken back once, and the tier is a person's question.
    house
        .sql("update purchase_ledger set status = 'refunded', refunded_amount = final_amount where id = 'p-1'")
        .await;
    house.until("the clawback", &points("u-1"), "150 10 -150").await;
    let review = format!(
        "select (review_since is not null)::text from crm_events.tier_state where merchant_id = '{merchant}' and user_id = 'u-1'"
    );
    house.until("a review", &review, "true").await;
    assert_eq!(house.number(history).await, 1, "nobody is downgraded by itself");
    house
        .until(
            "the mission's progress goes back",
            &format!("select detail->>'progress' from crm_events.effects where effect_key = '{mission}'"),
            "1",
        )
        .await;
    house.until("and stays completed", &state(&mission), "settled 1").await;
}

async fn grants_and_codes(house: &House) {
    let merchant = &house.merchant;
    house
        .sql(&format!(
            "insert into mission_claims (id, user_id, merchant_id, mission_id, status) \
             values ('c-1', 'u-1', '{merchant}', 'two', 'claimed'); \
             insert into referral_ledger (id, referrer_user_id, referee_user_id, merchant_id, status, created_at) \
             values ('r-1', 'u-1', 'u-9', '{merchant}', 'pending', now()); \
             insert into codes (id, code, merchant_id, status) values ('k-1', 'SECRET', '{merchant}', 'issued')"
        ))
        .await;
    house.until("the claim's grant", &state("grant:c-1"), "settled 1").await;
    house
        .sql("update referral_ledger set status = 'qualified' where id = 'r-1'")
        .await;
    house
        .sql("update codes set status = 'redeemed', user_id = 'u-1', redeemed_at = now() where id = 'k-1'")
        .await;
    for side in ["referrer", "referee"] {
        house
            .until(
                "the referral's grant",
                &state(&format!("referral:r-1:{side}")),
                "settled 1",
            )
            .await;
    }
    house.until("the fulfilment", &state("code:k-1"), "settled 1").await;
    // Written once more without a change: nothing is fulfilled again.
    house.sql("update codes set status = 'redeemed' where id = 'k-1'").await;
    house
        .sql("update mission_claims set status = 'revoked' where id = 'c-1'")
        .await;
    house
        .sql("update referral_ledger set status = 'cancelled' where id = 'r-1'")
        .await;
    house.until("the claim revoked", &state("grant:c-1"), "settled 0").await;
    for side in ["referrer", "referee"] {
        house
            .until(
                "the referral cancelled",
                &state(&format!("referral:r-1:{side}")),
                "settled 0",
            )
            .await;
    }
    assert_eq!(house.database.own.text(&state("code:k-1")).await, "settled 1");
}

async fn an_upgrade_at_the_start_of_a_month(house: &House, workflows: &Workflows) {
    let merchant = &house.merchant;
    house.purchase("p-month", "u-5", "120.00", "completed").await;
    house.until("points at once", &points("u-5"), "120").await;
    let key = format!("tier:{merchant}:u-5");
    house.until("an upgrade to come", &state(&key), "pending 0").await;
    let due = format!("select crm_events.rfc3339(due_at) from crm_events.effects where effect_key = '{key}'");
    let due = house.database.own.text(&due).await;
    let first = format!("select to_char('{due}'::timestamptz at time zone 'Asia/Bangkok', 'DD HH24:MI:SS')");
    assert_eq!(house.database.own.text(&first).await, "01 00:00:00", "{due}");
    let moved = format!("select count(*) from crm_events.tier_history where merchant_id = '{merchant}'");
    assert_eq!(house.number(&moved).await, 0);
    house.until("it is announced", ANNOUNCED, "true").await;
    assert_eq!(workflows.named("loyalty/tier_upgrade.scheduled").await.len(), 1);
    let near = async |offset: &str| {
        house
            .database
            .own
            .text(&format!("select crm_events.rfc3339('{due}'::timestamptz + '{offset}')"))
            .await
    };
    workflows.advance_to(&near("-1 minute").await).await;
    assert_eq!(house.number(&moved).await, 0, "not before the month begins");
    workflows.advance_to(&near("0 seconds").await).await;
    workflows.idle().await;
    assert_eq!(house.number(&moved).await, 1);
    let upgraded = workflows.named("loyalty/tier.upgraded").await;
    let gold: Vec<&Value> = upgraded
        .iter()
        .filter(|event| event["data"]["tier"] == "gold")
        .collect();
    assert_eq!(gold.len(), 1, "{upgraded:?}");
}
