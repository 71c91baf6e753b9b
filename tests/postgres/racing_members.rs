//! Tiers and missions under concurrency: batches that race over the same members, rows that move, answers that are lost.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::racing::{Log, retried};
use super::{Database, Purchase, Session, TS_MS, assert_valid};

#[derive(Debug, Clone)]
enum Act {
    Change {
        row: usize,
        state: usize,
    },
    /// A batch of events that there ever were, in any order, with or without the answer getting through.
    Record {
        events: Vec<usize>,
        answered: bool,
    },
    Evaluate {
        users: Vec<usize>,
        rev: i64,
        answered: bool,
    },
    Upgrade(usize),
    /// What the reconciler does with announcements that nobody sent.
    Resend,
}

/// One change after the other, so that what every member had spent after each of them is known.
const CHANGING: &str = "select pg_advisory_xact_lock(7)";
const SPENT: &str = "insert into public.spent select user_id, sum(final_amount - refunded_amount) from public.purchase_ledger \
    where status in ('completed', 'partially_refunded') group by user_id";

/// What the worker did and has still to do.
#[derive(Default)]
struct Work {
    log: Log,
    /// Members that changed since an evaluation of theirs began.
    changed: Mutex<BTreeSet<usize>>,
    /// Ids of what was sent.
    sent: Mutex<BTreeSet<String>>,
}

const ROWS: usize = 3;
const USERS: usize = 2;
/// (user, amount, refunded, status, created): a row may move between members, periods and amounts.
const STATES: [(usize, &str, &str, &str, &str); 7] = [
    (0, "60.00", "0.00", "pending", "2026-01-15T10:00:00Z"),
    (0, "60.00", "0.00", "completed", "2026-01-15T10:00:00Z"),
    (0, "120.00", "0.00", "completed", "2026-01-15T10:00:00Z"),
    (0, "120.00", "70.00", "partially_refunded", "2026-01-15T10:00:00Z"),
    (0, "60.00", "0.00", "completed", "2026-02-15T10:00:00Z"),
    (1, "60.00", "0.00", "completed", "2026-01-15T10:00:00Z"),
    (1, "120.00", "120.00", "refunded", "2026-01-15T10:00:00Z"),
];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let record = (prop::collection::vec(any::<usize>(), 1..5), any::<bool>());
    let evaluate = (prop::collection::vec(0..USERS, 1..4), 1..3i64, any::<bool>());
    prop::collection::vec(
        prop_oneof![
            3 => (0..ROWS, 0..STATES.len()).prop_map(|(row, state)| Act::Change { row, state }),
            4 => record.prop_map(|(events, answered)| Act::Record { events, answered }),
            3 => evaluate.prop_map(|(users, rev, answered)| Act::Evaluate { users, rev, answered }),
            1 => (0..USERS).prop_map(Act::Upgrade),
            1 => Just(Act::Resend),
        ],
        4..14,
    )
}

fn in_state(case: &str, row: usize, state: usize) -> Purchase {
    let (user, amount, refunded, status, created_at) = STATES[state];
    Purchase::new(&format!("{case}-{row}"))
        .of(&format!("{case}u{user}"))
        .worth(amount)
        .refunded(refunded, status)
        .at(created_at)
}

/// What the row counts in (period, amount), if anything.
fn share(state: usize) -> (&'static str, &'static str) {
    match state {
        1 | 5 => ("2026-01", "60.00"),
        2 => ("2026-01", "120.00"),
        3 => ("2026-01", "50.00"),
        4 => ("2026-02", "60.00"),
        _ => ("2026-01", "0"),
    }
}

/// Older rules know one mission, newer ones two.
fn recorded(case: &str, row: usize, state: usize, rev: i64) -> Value {
    let purchase = in_state(case, row, state);
    let user = &purchase.user;
    let (period, amount) = share(state);
    let visit = if amount == "0" { "0" } else { "1" };
    let mission = |id: &str, counted: &str, target: &str| {
        json!({"mission_id": id, "effect_key": format!("mission:m-1:{id}:{user}:{period}"), "period": period,
            "trigger": "purchase_total", "counted": counted, "target": target})
    };
    let mut missions = vec![mission("spend", amount, "150")];
    if rev == 2 {
        missions.push(mission("visits", visit, "2"));
    }
    json!({"merchant_id": "m-1", "user_id": user, "program_rev": rev, "as_of_ms": TS_MS, "reason": "counted",
        "effect_key": format!("mission_source:m-1:{user}:purchase_ledger:{}", purchase.id),
        "source": {"table": "purchase_ledger", "row_id": purchase.id, "version": "1", "op": "u"},
        "basis": purchase.basis(), "missions": missions})
}

fn evaluated(case: &str, user: usize, rev: i64) -> Value {
    let user = format!("{case}u{user}");
    json!({"merchant_id": "m-1", "user_id": user, "effect_key": format!("tier:m-1:{user}"), "program_rev": rev, "as_of_ms": TS_MS,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "Asia/Bangkok",
            "timing": if rev == 1 { "start_of_next_month" } else { "immediate" },
            "ladder": [{"name": "silver", "threshold": "100"}, {"name": "gold", "threshold": "200"}]},
        "triggers": [{"table": "purchase_ledger", "row_id": "p", "version": "1", "op": "u", "at": super::CREATED,
            "due_at": "2100-01-01T00:00:00+07:00", "lowers": true}]})
}

/// The worker's part: it sends what it is given, then says so.
async fn send(session: &Session, given: &[Value], sent: &Mutex<BTreeSet<String>>) {
    if given.is_empty() {
        return;
    }
    let ids: Vec<String> = given
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    sent.lock().expect("what was sent").extend(ids.iter().cloned());
    let statement = format!("select crm_events.announced('{{{}}}')", ids.join(","));
    retried!(session.0.batch_execute(&statement));
}

async fn play(session: &Session, case: &str, acts: &[Act], work: &Work) {
    for act in acts {
        match act {
            Act::Change { row, state } => {
                let sql = format!("{CHANGING}; {}; {SPENT}", in_state(case, *row, *state).sql());
                retried!(session.0.batch_execute(&sql));
                let mut log = work.log.lock().expect("the log");
                log.extend([1, 2].map(|rev| (recorded(case, *row, *state, rev), false)));
                // Whom it belonged to before is known to the worker by the old row; here it may be anybody.
                work.changed.lock().expect("members").extend(0..USERS);
            }
            Act::Record { events, answered } => {
                let (indexes, batch): (Vec<usize>, Vec<Value>) = {
                    let log = work.log.lock().expect("the log");
                    let indexes = events.iter().map(|index| index % log.len());
                    indexes.map(|index| (index, log[index].0.clone())).unzip()
                };
                let batch = json!(batch).to_string();
                let given = retried!(session.try_announcing("record_progress", &batch));
                for index in indexes {
                    work.log.lock().expect("the log")[index].1 = true;
                }
                if *answered {
                    send(session, &given, &work.sent).await;
                }
            }
            Act::Evaluate { users, rev, answered } => {
                // What changes from here on needs another one.
                work.changed
                    .lock()
                    .expect("members")
                    .retain(|user| !users.contains(user) || *rev != 2);
                let batch: Vec<Value> = users.iter().map(|user| evaluated(case, *user, *rev)).collect();
                let batch = json!(batch).to_string();
                let given = retried!(session.try_announcing("evaluate_tiers", &batch));
                if *answered {
                    send(session, &given, &work.sent).await;
                }
            }
            Act::Upgrade(user) => {
                let key = format!("tier:m-1:{case}u{user}");
                let given = retried!(session.try_announcing("upgrade_tier", &key));
                send(session, &given, &work.sent).await;
            }
            Act::Resend => {
                let given = session
                    .rows("select * from crm_events.unsent_announcements('0', 3)")
                    .await;
                send(session, &given, &work.sent).await;
            }
        }
    }
}

/// Delivers what was never delivered, evaluates who changed since; gives the states of the rows.
async fn quiesce(db: &Database, case: &str, work: &Work) -> Vec<usize> {
    let log = std::mem::take(&mut *work.log.lock().expect("the log"));
    for (event, _) in log.into_iter().filter(|(_, delivered)| !delivered) {
        let given = db.own.announcing("record_progress", &json!([event])).await;
        send(&db.own, &given, &work.sent).await;
    }
    let changed = std::mem::take(&mut *work.changed.lock().expect("members"));
    for user in changed {
        let given = db
            .own
            .announcing("evaluate_tiers", &json!([evaluated(case, user, 2)]))
            .await;
        send(&db.own, &given, &work.sent).await;
    }
    let mut states = Vec::new();
    for row in 0..ROWS {
        let now = db
            .own
            .rows(&format!(
                "select user_id, final_amount::text, refunded_amount::text, status, crm_events.rfc3339(created_at) as at \
                 from purchase_ledger where id = '{case}-{row}'"
            ))
            .await;
        let is = |state: &usize| {
            let purchase = in_state(case, row, *state);
            now[0]["user_id"] == purchase.user.as_str()
                && now[0]["final_amount"] == purchase.amount.as_str()
                && now[0]["refunded_amount"] == purchase.refunded.as_str()
                && now[0]["status"] == purchase.status
                && now[0]["at"]
                    .as_str()
                    .expect("a time")
                    .starts_with(&purchase.created_at[..10])
        };
        states.push((0..STATES.len()).find(is).expect("one of the states"));
    }
    states
}

/// The sum of what the rows are now, and one completion at most, told once.
async fn missions(db: &Database, case: &str, user: usize, period: &str, states: &[usize]) {
    let counting = |state: &&usize| STATES[**state].0 == user && share(**state).0 == period && share(**state).1 != "0";
    let amounts = states.iter().filter(counting).map(|state| share(*state).1);
    let spend: f64 = amounts
        .clone()
        .map(|amount| amount.parse::<f64>().expect("a number"))
        .sum();
    let visits: f64 = amounts.map(|_| 1.0).sum();
    for (mission, progress, target) in [("spend", spend, 150.0), ("visits", visits, 2.0)] {
        let key = format!("mission:m-1:{mission}:{case}u{user}:{period}");
        let effect = db.own.effect(&key).await;
        let told: f64 = effect["detail"]["progress"]
            .as_str()
            .unwrap_or("0")
            .parse()
            .expect("a number");
        assert!((told - progress).abs() < 0.001, "{key}: {told} and not {progress}");
        let completions = db
            .own
            .text(&format!(
                "select count(*)::text from crm_events.announcements \
                 where effect_key = '{key}' and data->'completed_now' = 'true'"
            ))
            .await;
        let booked = effect["booked"].as_i64().unwrap_or(0);
        assert_eq!(completions, booked.to_string(), "{key}: one completion, told once");
        assert!(booked == 1 || progress < target, "{key}: {effect}");
    }
}

async fn check(db: &Database, case: &str, work: &Work) {
    let states = quiesce(db, case, work).await;
    for user in 0..USERS {
        for period in ["2026-01", "2026-02"] {
            missions(db, case, user, period, &states).await;
        }
        tiers(db, case, user).await;
    }
    loop {
        let given = db
            .own
            .rows("select * from crm_events.unsent_announcements('0', 100)")
            .await;
        if given.is_empty() {
            break;
        }
        given.iter().for_each(assert_valid);
        send(&db.own, &given, &work.sent).await;
    }
    let all = db
        .own
        .rows("select id, announced_at from crm_events.announcements")
        .await;
    let sent = work.sent.lock().expect("what was sent");
    for one in all {
        let id = one["id"].as_str().expect("an id");
        let ours = id.contains(&format!(":{case}u"));
        assert!(!one["announced_at"].is_null() && (sent.contains(id) || !ours), "{one}");
    }
}

/// Whoever qualifies has the tier, and nobody has one that was never deserved; every step up is one row of history and one announcement.
async fn tiers(db: &Database, case: &str, user: usize) {
    let key = format!("tier:m-1:{case}u{user}");
    let spend = format!(
        "select coalesce(sum(final_amount - refunded_amount), 0)::text from purchase_ledger \
         where user_id = '{case}u{user}' and status in ('completed', 'partially_refunded')"
    );
    let spend: f64 = db.own.text(&spend).await.parse().expect("a number");
    let rank = |tier: &Value| match tier.as_str() {
        Some("gold") => 2,
        Some("silver") => 1,
        _ => 0,
    };
    let history = db
        .own
        .rows(&format!(
            "select tier from crm_events.tier_history where user_id = '{case}u{user}' order by n"
        ))
        .await;
    let steps: Vec<i32> = history.iter().map(|row| rank(&row["tier"])).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{key}: {steps:?}");
    let most = format!("select coalesce(max(amount), 0)::text from public.spent where user_id = '{case}u{user}'");
    let most: f64 = db.own.text(&most).await.parse().expect("a number");
    let deserved = |spend: f64| if spend >= 200.0 { 2 } else { i32::from(spend >= 100.0) };
    assert!(
        (deserved(spend)..=deserved(most)).contains(&steps.last().copied().unwrap_or(0)),
        "{key}: {steps:?} with {spend}, at most {most}"
    );
    let told = db
        .own
        .rows(&format!(
            "select data->>'tier' as tier from crm_events.announcements where effect_key = '{key}' and name = 'loyalty/tier.upgraded' order by seq"
        ))
        .await;
    assert_eq!(told, history, "{key}");
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
        db.own
            .run("create table public.spent (user_id text, amount numeric)")
            .await;
        // In the month of the rows, so that by the older rules an upgrade waits.
        let offset = "select ('2026-01-20T00:00:00Z'::timestamptz - now())::text";
        let offset = db.own.text(offset).await;
        db.own.wait(&offset).await;
        let mut connected = Vec::new();
        for _ in 0..sessions {
            connected.push(db.session().await);
        }
        (db, connected)
    });
    let scripts = prop::collection::vec(acts(), sessions);
    let config = Config {
        cases: 24,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&scripts, |scripts| {
        let case = format!("c{}", CASES.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(async {
            let work = Work::default();
            work.changed.lock().expect("members").extend(0..USERS);
            for row in 0..ROWS {
                db.own.run(&in_state(&case, row, 0).sql()).await;
                let events = [1, 2].map(|rev| (recorded(&case, row, 0, rev), false));
                work.log.lock().expect("the log").extend(events);
            }
            let playing = connected
                .iter()
                .zip(&scripts)
                .map(|(session, acts)| play(session, &case, acts, &work));
            futures::future::join_all(playing).await;
            check(&db, &case, &work).await;
        });
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    runtime.block_on(db.done());
}

#[test]
fn two_sessions_racing_over_members_lose_no_progress_no_tier_and_no_announcement() {
    race(2);
}

#[test]
fn three_sessions_racing_over_members_lose_no_progress_no_tier_and_no_announcement() {
    race(3);
}
