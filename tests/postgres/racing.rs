//! Awards under concurrency: sessions that race with changes, deliveries old and new, settlements and sweeps.
//!
//! Every event is delivered at least once, at any time and in any order; the last one is not delivered again to make it
//! come out right. The schedules are the server's own, so a failure may not repeat; what it was made of is printed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Database, Purchase, Session};

#[derive(Debug, Clone)]
enum Act {
    /// The application changes a row; its events, by older and newer rules, are there from then on.
    Change {
        row: usize,
        state: usize,
    },
    /// Any event that there ever was, once more, late.
    Apply(usize),
    Settle(usize),
    Sweep,
    /// The member spends, as an application should: under the wallet's lock, and at most what there is.
    Spend(i64),
}

/// Every event there ever was, and whether it was delivered.
pub(super) type Log = Mutex<Vec<(Value, bool)>>;

const ROWS: usize = 2;
const LONG_AGO: &str = "2026-01-20T00:00:00Z";

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(
        prop_oneof![
            3 => (0..ROWS, 0..6usize).prop_map(|(row, state)| Act::Change { row, state }),
            5 => any::<usize>().prop_map(Act::Apply),
            4 => (0..ROWS).prop_map(Act::Settle),
            1 => Just(Act::Sweep),
            2 => (1..150i64).prop_map(Act::Spend),
        ],
        4..16,
    )
}

fn in_state(case: &str, row: usize, state: usize) -> Purchase {
    let purchase = Purchase::new(&format!("{case}-{row}")).of(&format!("u-{case}"));
    match state {
        0 => Purchase {
            status: "pending",
            ..purchase
        },
        1 => purchase,
        2 => purchase.refunded("30.00", "partially_refunded"),
        3 => purchase.refunded("60.50", "partially_refunded"),
        4 => purchase.refunded("100.00", "refunded"),
        _ => Purchase {
            status: "cancelled",
            ..purchase
        },
    }
}

/// By the rules of that revision.
fn points(state: usize, rev: i64) -> i64 {
    rev * match state {
        1 => 100,
        2 => 70,
        3 => 39,
        _ => 0,
    }
}

fn event(case: &str, row: usize, state: usize, rev: i64, policy: &str) -> Value {
    let purchase = in_state(case, row, state);
    let mut event = match points(state, rev) {
        0 => purchase.cancelled(Some(policy)),
        points => purchase.scheduled(points, LONG_AGO, policy),
    };
    event["program_rev"] = json!(rev);
    event
}

/// What the server gave up for a conflict is asked again; everything else is an error.
macro_rules! retried {
    ($call:expr) => {{
        let mut attempts = 0;
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) if error.code().is_some_and(|code| code.code().starts_with("40")) && attempts < 20 => {
                    attempts += 1
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }};
}
pub(super) use retried;

async fn play(session: &Session, case: &str, policy: &str, acts: &[Act], log: &Log) {
    for act in acts {
        match act {
            Act::Change { row, state } => {
                let sql = in_state(case, *row, *state).sql();
                retried!(session.0.batch_execute(&sql));
                let mut log = log.lock().expect("the log");
                log.extend([1, 2].map(|rev| (event(case, *row, *state, rev, policy), false)));
            }
            Act::Apply(index) => {
                let (index, chosen) = {
                    let log = log.lock().expect("the log");
                    let index = index % log.len();
                    (index, log[index].0.clone())
                };
                retried!(session.try_call("apply_award", &chosen));
                log.lock().expect("the log")[index].1 = true;
            }
            Act::Settle(row) => {
                retried!(session.try_settle("settle_award", &format!("award:{case}-{row}")));
            }
            Act::Sweep => {
                // Whatever is unsettled, as if it were overdue.
                let keys = "select effect_key from crm_events.effects where state = 'pending'";
                for row in session.rows(keys).await {
                    retried!(session.try_settle("settle", row["effect_key"].as_str().expect("a key")));
                }
            }
            Act::Spend(amount) => {
                let sql = format!(
                    "begin; select crm_events.lock_wallet('m-1', 'u-{case}'); \
                     insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
                     select 'u-{case}', 'm-1', -least({amount}, sum(amount)), 'spend', now() \
                     from wallet_ledger where user_id = 'u-{case}' having sum(amount) > 0; commit"
                );
                retried!(session.0.batch_execute(&sql));
            }
        }
    }
}

/// Notes every settlement in the order of the effect's lock: what was booked before and after, and the member's balance then.
const SETTLEMENTS: &str = "
    create table public.settlements (n bigint generated always as identity, effect_key text, target bigint, before bigint,
        after bigint, balance bigint);
    create function public.note_settlement() returns trigger language plpgsql as $$ begin
        insert into public.settlements (effect_key, target, before, after, balance)
        select new.effect_key, new.target, old.booked, new.booked, coalesce(sum(amount), 0)
        from public.wallet_ledger where user_id = new.user_id and merchant_id = new.merchant_id;
        return new;
    end $$;
    create trigger note_settlement after update on crm_events.effects for each row
        when (new.state = 'settled' and old.state <> 'settled') execute function public.note_settlement();";

/// Each settlement of the row booked exactly what the policy allows: no less, no more.
async fn settlements(db: &Database, key: &str, policy: &str) {
    let noted =
        format!("select target, before, after, balance from public.settlements where effect_key = '{key}' order by n");
    let noted = db.own.rows(&noted).await;
    assert!(!noted.is_empty(), "{key}");
    let mut booked = 0;
    for one in noted {
        let number = |name: &str| one[name].as_i64().expect("a number");
        let (target, before, after) = (number("target"), number("before"), number("after"));
        assert_eq!(before, booked, "{key}: nothing is booked but by a settlement: {one}");
        let over = (before - target).max(0);
        let available = number("balance") - (after - before);
        let expected = match policy {
            "only_pending" => before.max(target),
            "within_balance" if over > 0 => before - over.min(available.max(0)),
            _ => target,
        };
        assert_eq!(after, expected, "{key}, {policy}: {one}");
        booked = after;
    }
}

/// What was never delivered is, then everything is settled: now the books must balance.
async fn balance(db: &Database, case: &str, policy: &str, log: Log) {
    for (event, delivered) in log.into_inner().expect("the log") {
        if !delivered {
            db.own.call("apply_award", &event).await;
        }
    }
    for row in 0..ROWS {
        let id = format!("{case}-{row}");
        let now = db
            .own
            .rows(&format!(
                "select status, refunded_amount::text from purchase_ledger where id = '{id}'"
            ))
            .await;
        let state = (0..6)
            .find(|state| {
                let purchase = in_state(case, row, *state);
                now[0]["status"] == purchase.status && now[0]["refunded_amount"] == purchase.refunded.as_str()
            })
            .expect("one of the states");
        db.own.settle("settle_award", &format!("award:{id}")).await;
        let effect = db.own.effect(&format!("award:{id}")).await;
        let booked = effect["booked"].as_i64().expect("a number");
        let wallet: i64 = db
            .own
            .text(&format!(
                "select coalesce(sum(amount), 0)::text from wallet_ledger where source_id = '{id}'"
            ))
            .await
            .parse()
            .expect("a number");
        assert_eq!(
            (&effect["state"], &effect["stale_at"]),
            (&json!("settled"), &Value::Null),
            "{effect}"
        );
        assert_eq!(effect["target"], points(state, 2), "{effect}");
        assert_eq!(booked, wallet, "the wallet holds what is booked: {effect}");
        match policy {
            "unlimited" => assert_eq!(booked, points(state, 2), "{effect}"),
            _ => assert!((points(state, 2)..=200).contains(&booked), "{effect}"),
        }
        settlements(db, &format!("award:{id}"), policy).await;
        // Whatever is delivered and settled again changes nothing.
        for rev in [1, 2] {
            db.own.call("apply_award", &event(case, row, state, rev, policy)).await;
            let again = db.own.settle("settle_award", &format!("award:{id}")).await;
            assert_eq!(again["booked_now"], 0, "{again}");
        }
    }
    let left = db.own.balance(&format!("u-{case}")).await;
    assert!(left >= 0 || policy == "unlimited", "{left}");
}

fn race(sessions: usize) {
    static CASES: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (db, connected) = runtime.block_on(async {
        let db = Database::new().await;
        db.slow_writes().await;
        db.own.run(SETTLEMENTS).await;
        let mut connected = Vec::new();
        for _ in 0..sessions {
            connected.push(db.session().await);
        }
        (db, connected)
    });
    let scripts = (
        prop::collection::vec(acts(), sessions),
        prop::sample::select(vec!["unlimited", "within_balance", "only_pending"]),
    );
    let config = Config {
        cases: 24,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&scripts, |(scripts, policy)| {
        let case = format!("c{}", CASES.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(async {
            let log = Mutex::new(Vec::new());
            for row in 0..ROWS {
                db.own.run(&in_state(&case, row, 0).sql()).await;
                log.lock()
                    .expect("the log")
                    .extend([1, 2].map(|rev| (event(&case, row, 0, rev, policy), false)));
            }
            let playing = connected
                .iter()
                .zip(&scripts)
                .map(|(session, acts)| play(session, &case, policy, acts, &log));
            futures::future::join_all(playing).await;
            balance(&db, &case, policy, log).await;
        });
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    runtime.block_on(db.done());
}

#[test]
fn two_sessions_racing_over_awards_end_at_the_target_of_the_row() {
    race(2);
}

#[test]
fn three_sessions_racing_over_awards_end_at_the_target_of_the_row() {
    race(3);
}
