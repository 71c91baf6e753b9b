//! Takes plan, books and verdict of `make chaos` from `benches`, and its rules over the ledgers, which it asks on a real
//! server; gives proof that each notices what is broken. It never runs the chaos.

#[path = "../../benches/chaos/books.rs"]
mod books;
#[path = "../../benches/chaos/changes.rs"]
mod changes;
#[path = "../../benches/chaos/ledger.rs"]
mod ledger;
#[path = "../../benches/chaos/plan.rs"]
mod plan;
#[path = "../../benches/chaos/rows.rs"]
mod rows;
#[path = "../../benches/chaos/verdict.rs"]
mod verdict;

mod balances;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use books::{Activity, Balance, Books, Debt, Tally};
use changes::{Change, Story};
use crm_event_processors::consumers::{self, Consumer, Decision, Proof, Rules};
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::loyalty::Programs;
use crm_event_processors::record::{Headers, RecordView};
use crm_event_processors::rows::{Routed, route};
use plan::{Kind, Part, plan};
use rows::MERCHANTS;
use serde_json::{Value, json};
use verdict::{Broken, Findings, Reconciled, Recovery};

const MINUTES: Duration = Duration::from_secs(600);

fn owing(changes: &[(u64, Debt)]) -> Books {
    let mut books = Books::default();
    for (lsn, debt) in changes {
        books.owe("currency:award:purchase_ledger:p-1".to_owned(), *lsn, *debt);
    }
    books
}

fn balance(mut books: Books, accepted: &[&str], announced: &[&str]) -> Balance {
    for id in accepted {
        books.accept(id, Duration::ZERO);
    }
    books.balance(announced.iter().copied()).0
}

const FIRST: &str = "currency:award:purchase_ledger:p-1:8";
const SECOND: &str = "currency:award:purchase_ledger:p-1:16";

#[test]
fn a_planted_loss_a_planted_double_and_a_repeat_are_each_told_apart() {
    let two = || owing(&[(8, Debt::Owed), (16, Debt::Owed)]);
    // What was accepted, and how much of it is lost, superseded, doubled, resent.
    let cases: [(&[&str], [u64; 4]); 9] = [
        (&[FIRST, SECOND], [0, 0, 0, 0]),
        (&[FIRST, SECOND, FIRST], [0, 0, 0, 1]),
        (&[SECOND], [0, 1, 0, 0]),
        (&[FIRST], [1, 0, 0, 0]),
        (&[], [2, 0, 0, 0]),
        (&[FIRST, SECOND, "currency:award:purchase_ledger:p-1:17"], [0, 0, 1, 0]),
        (&[FIRST, SECOND, "currency:cancel:purchase_ledger:p-1:16"], [0, 0, 1, 0]),
        (&[FIRST, SECOND, "currency:award:purchase_ledger:p-2:16"], [0, 0, 1, 0]),
        (&[FIRST, SECOND, "01ARZ3NDEKTSV4RRFFQ69G5FAV"], [0, 0, 1, 0]),
    ];
    for (accepted, expected) in cases {
        let found = balance(two(), accepted, &[]);
        let Tally { doubled, resent, .. } = found.tally;
        assert_eq!(
            [found.lost, found.superseded, doubled, resent],
            expected,
            "{accepted:?}"
        );
        assert_eq!(found.owed, 2);
    }
}

#[test]
fn a_change_that_proves_nothing_owes_nothing_and_what_is_marked_as_healed_is_no_double() {
    let found = balance(owing(&[(8, Debt::Perhaps)]), &[], &[]);
    assert_eq!((found.owed, found.lost), (0, 0));
    let found = balance(owing(&[(8, Debt::Perhaps)]), &[FIRST, FIRST], &[]);
    assert_eq!((found.tally.doubled, found.tally.resent), (0, 1));
    // An older change may be covered by one whose event was found settled; a newer one is not covered by an older.
    let found = balance(owing(&[(8, Debt::Owed), (16, Debt::Perhaps)]), &[], &[]);
    assert_eq!((found.lost, found.superseded), (0, 1));
    let found = balance(owing(&[(8, Debt::Perhaps), (16, Debt::Owed)]), &[FIRST], &[]);
    assert_eq!(found.lost, 1);
    let healed = "currency:award:purchase_ledger:p-1:s0000000000000a0b#h2";
    let found = balance(owing(&[(8, Debt::Owed)]), &[FIRST, healed], &[]);
    assert_eq!((found.tally.healed, found.tally.doubled), (1, 0));
    let marked = "currency:award:purchase_ledger:p-1:8#x";
    assert_eq!(
        balance(owing(&[(8, Debt::Owed)]), &[FIRST, marked], &[]).tally.doubled,
        1
    );
}

#[test]
fn announcements_are_those_of_the_database_and_no_others() {
    let (sent, never) = ("tier:m:u:upgraded:1", "mission:m:count:u:lifetime:evaluated:1");
    let found = balance(Books::default(), &[sent, sent], &[sent, never]);
    assert_eq!(
        (found.owed, found.lost, found.tally.doubled, found.tally.resent),
        (2, 1, 0, 1)
    );
    assert_eq!(found.tally.examples, [format!("lost: {never}")]);
    let found = balance(Books::default(), &[sent, never], &[sent]);
    assert_eq!((found.lost, found.tally.doubled), (0, 1));
}

#[test]
fn silence_and_recovery_are_read_from_when_events_were_accepted() {
    let mut books = Books::default();
    for at_ms in [0, 100, 900, 2_000] {
        books.accept(FIRST, Duration::from_millis(at_ms));
    }
    assert_eq!(books.tally().accepted, 4);
    let (_, activity) = books.balance(std::iter::empty());
    let ms = Duration::from_millis;
    assert_eq!(activity.silence(ms(0), ms(900)), ms(700));
    assert_eq!(activity.silence(ms(0), ms(2_100)), ms(1_000));
    assert_eq!(
        activity.silence(ms(2_100), ms(5_000)),
        ms(2_900),
        "also behind the last event"
    );
    assert_eq!(activity.next_after(ms(150)), Some(ms(750)));
    assert_eq!(activity.next_after(ms(2_000)), None);
    let broken = |begun, ended| Broken {
        kind: Kind::Broker,
        part: Part::Broker,
        begun: ms(begun),
        ended: ms(ended),
    };
    let recovered = Recovery::all(&[broken(150, 300), broken(1_000, 2_100)], &activity, ms(5_000));
    let expected = Recovery {
        kind: Kind::Broker,
        count: 2,
        median: ms(2_900),
        longest: ms(2_900),
        silence: ms(2_900),
    };
    assert_eq!(recovered, [expected]);
    assert_eq!(Recovery::all(&[], &Activity::default(), ms(1)), []);
}

#[test]
fn a_plan_is_its_seeds_own_has_every_kind_and_breaks_no_part_twice_at_a_time() {
    for seed in 0..20 {
        let faults = plan(seed, MINUTES);
        assert_eq!(faults, plan(seed, MINUTES));
        assert_ne!(faults, plan(seed + 1, MINUTES));
        assert!(faults.len() >= 100, "seed {seed}: {}", faults.len());
        let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
        let mut free_at: BTreeMap<Part, Duration> = BTreeMap::new();
        let mut overlaps = 0;
        for fault in &faults {
            let workers = [Part::First, Part::Second];
            let parts = if fault.kind == Kind::Rolling {
                &workers[..]
            } else {
                &[fault.part]
            };
            overlaps += usize::from(free_at.values().any(|free| *free > fault.at));
            for part in parts {
                let free = free_at.insert(*part, fault.at + fault.lasts);
                assert!(free.is_none_or(|free| free <= fault.at), "seed {seed}: {fault:?}");
            }
        }
        assert!(
            overlaps >= 10,
            "seed {seed}: only {overlaps} faults begin while another lasts"
        );
    }
    let short: BTreeSet<Kind> = plan(7, Duration::from_secs(40))
        .iter()
        .map(|fault| fault.kind)
        .collect();
    assert!(short.len() >= 6, "{short:?}");
}

/// The rules as the worker reads them.
fn programs() -> Arc<Programs> {
    let programs = MERCHANTS.map(|merchant| {
        let mut version: Value = serde_json::from_str(merchant.rules).expect("JSON");
        version["rev"] = json!(1);
        version["effective_from"] = json!("2020-01-01");
        json!({"merchant_id": merchant.id, "time_zone": "Asia/Bangkok", "versions": [version]})
    });
    let file = json!({ "programs": programs }).to_string();
    Arc::new(Programs::from_json(&file).expect("programs"))
}

/// What the worker decides, by the ids of its events, and whether each goes out without a look at what was settled.
fn decided(change: &Change, rules: &Rules) -> BTreeMap<String, Debt> {
    let now_ms = 1_795_000_000_000;
    let (key, value) = change.record(now_ms);
    let table = change.after.ledger().table();
    let record = RecordView {
        topic: table,
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: Headers::default(),
    };
    let mut decoder = Decoder::default();
    let Ok(Decoded::Change(decoded)) = decoder.decode(&record) else {
        panic!("not decoded: {value}");
    };
    let Ok(Routed::Row(row)) = route(table, &decoded, DecimalMode::Text) else {
        panic!("not routed: {value}");
    };
    let now = jiff::Timestamp::from_millisecond(now_ms).expect("a time");
    let mut events = BTreeMap::new();
    for consumer in [Consumer::Currency, Consumer::Reward, Consumer::Marketplace] {
        match consumers::decide(consumer, &row, rules, now) {
            Decision::Ignore(_) => {}
            Decision::Refuse(refusal) | Decision::RefuseIfKnown(refusal, _) => panic!("{refusal}: {value}"),
            Decision::Deliver(effects) => events.extend(effects.into_iter().map(|effect| {
                let debt = if effect.proof == Proof::Change {
                    Debt::Owed
                } else {
                    Debt::Perhaps
                };
                (effect.claim.to_string(), debt)
            })),
        }
    }
    events
}

#[test]
fn what_the_checker_holds_a_change_to_owe_is_what_the_worker_decides() {
    let rules = Rules {
        database: true,
        ..Rules::new(programs(), None)
    };
    let (mut story, mut owed, mut perhaps) = (Story::new(5), 0, 0);
    for batch in 0..60 {
        for change in story.batch(100, 1_795_000_000_000 + batch) {
            let id = |fact| format!("{fact}:{}", change.lsn);
            let owes = change
                .debt()
                .map(|debt| change.facts().map(move |fact| (id(fact), debt)));
            let owes: BTreeMap<String, Debt> = owes.into_iter().flatten().collect();
            let decided = decided(&change, &rules);
            match change.debt() {
                // Without its old image a change may be found to be no news at once.
                Some(Debt::Perhaps) => assert!(
                    decided.iter().all(|(id, debt)| owes.get(id) == Some(debt)),
                    "{change:?}"
                ),
                Some(Debt::Owed) | None => assert_eq!(decided, owes, "{change:?}"),
            }
            owed += usize::from(change.debt() == Some(Debt::Owed));
            perhaps += usize::from(change.debt() == Some(Debt::Perhaps));
        }
    }
    assert!(owed > 2_000 && perhaps > 100, "{owed} {perhaps}");
}

#[test]
fn the_load_changes_a_row_once_a_batch_and_every_kind_of_row_again() {
    let mut story = Story::new(3);
    let mut seen = BTreeSet::new();
    for batch in 0..60 {
        let changes = story.batch(100, 1_795_000_000_000 + batch);
        let rows: BTreeSet<_> = changes.iter().map(|change| change.after.id()).collect();
        assert_eq!(rows.len(), changes.len(), "one change a row and batch");
        for change in changes {
            let (key, value) = change.record(1_795_000_000_000);
            let value: Value = serde_json::from_str(&value).expect("JSON");
            assert_eq!(json!({"id": value["after"]["id"]}).to_string(), key);
            let (table, again) = (change.after.ledger().table(), change.before.is_some());
            assert_eq!(
                (&value["op"], &value["source"]["table"]),
                (&json!(if again { "u" } else { "c" }), &json!(table))
            );
            // What has no old image proves nothing; a new row owes what it is worth.
            let proves = !again || !value["before"].is_null();
            assert_eq!(change.debt() == Some(Debt::Perhaps), !proves);
            seen.insert((table, again));
        }
    }
    let tables =
        ["codes", "mission_claims", "purchase_ledger", "referral_ledger"].map(|table| [(table, false), (table, true)]);
    assert!(tables.iter().flatten().all(|kind| seen.contains(kind)), "{seen:?}");
    assert!(
        seen.contains(&("form_submissions", false)) && seen.contains(&("wallet_ledger", false)),
        "{seen:?}"
    );
}

/// A run that has passed.
fn passed() -> Findings {
    Findings {
        seed: 1,
        length: MINUTES,
        drained: Duration::ZERO,
        records: 10,
        held: 10,
        books: Balance {
            tally: Tally {
                accepted: 10,
                resent: 3,
                ..Tally::default()
            },
            owed: 10,
            lost: 0,
            superseded: 2,
        },
        recoveries: vec![Recovery {
            kind: Kind::Kill,
            count: 1,
            median: Duration::ZERO,
            longest: Duration::ZERO,
            silence: Duration::ZERO,
        }],
        stall: Duration::ZERO,
        swept: 1,
        dead_letters: 0,
        breaches: Vec::new(),
        reconciled: Reconciled {
            rows: 10,
            reviews: 1,
            ..Reconciled::default()
        },
        restarted: 1,
        notes: Vec::new(),
    }
}

#[test]
fn the_verdict_of_chaos_refuses_each_broken_finding() {
    assert_eq!(passed().problems(), Vec::<String>::new());
    type Breaks = fn(&mut Findings);
    let broken: [(&str, Breaks); 12] = [
        ("nothing was broken", |it| it.recoveries.clear()),
        ("there was no load", |it| it.books.tally.accepted = 0),
        ("there was no load", |it| it.books.owed = 0),
        ("the log has not every record once", |it| it.held += 1),
        ("events are lost", |it| it.books.lost = 1),
        ("events are doubled", |it| it.books.tally.doubled = 1),
        ("dead letters", |it| it.dead_letters = 1),
        ("the books do not balance", |it| {
            it.breaches.push(ledger::Breach {
                rule: "a rule",
                cases: 1,
                example: String::new(),
            });
        }),
        ("reconcile does not agree", |it| it.reconciled.rows = 0),
        ("reconcile does not agree", |it| it.reconciled.findings = 1),
        ("reconcile does not agree", |it| it.reconciled.unbalanced = 1),
        ("something ended or failed that nobody broke", |it| {
            it.notes.push(String::new());
        }),
    ];
    for (problem, breaks) in broken {
        let mut findings = passed();
        breaks(&mut findings);
        assert_eq!(findings.problems(), [problem]);
        assert!(findings.to_string().contains("doubled"));
    }
}
