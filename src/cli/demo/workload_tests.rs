use std::collections::{BTreeMap, BTreeSet};

use super::*;

const NOW_MS: i64 = 1_795_200_000_000;

fn steps(seed: u64, length: u64) -> Vec<Step> {
    let mut workload = Workload::new(seed, length).expect("zones");
    let mut now_ms = NOW_MS;
    std::iter::from_fn(|| {
        now_ms += 1;
        workload.step(now_ms)
    })
    .collect()
}

#[test]
fn the_same_seed_gives_the_same_workload_and_another_seed_another() {
    let first = steps(7, 3_000);
    assert_eq!(first.len(), 3_000);
    assert_eq!(first, steps(7, 3_000));
    assert_ne!(first, steps(8, 3_000));
}

#[test]
fn every_kind_of_record_occurs_and_poison_stands_near_the_end() {
    let steps = steps(1, 3_000);
    let repeats = steps.iter().filter(|step| step.label == Label::Repeat).count();
    assert!(repeats >= 32, "{repeats}");
    assert!(
        steps
            .iter()
            .any(|step| step.label == Label::Nothing && step.value.is_none())
    );
    let poison: Vec<usize> = (0..steps.len())
        .filter(|at| matches!(steps[*at].label, Label::Poison(..)))
        .collect();
    assert_eq!(poison.len(), 6);
    assert_eq!(poison.last(), Some(&2_997));
    for ledger in Ledger::ALL {
        let of_ledger = |step: &&Step| matches!(&step.label, Label::Change(change) if change.ledger == ledger);
        assert!(steps.iter().filter(of_ledger).count() > 100, "{ledger:?}");
    }
    let values = steps
        .iter()
        .filter_map(|step| step.value.as_deref())
        .collect::<String>();
    for status in [
        "pending",
        "completed",
        "partially_refunded",
        "refunded",
        "cancelled",
        "claimed",
        "revoked",
        "qualified",
        "issued",
        "redeemed",
        "expired",
        "void",
    ] {
        assert!(values.contains(&format!("\"status\":\"{status}\"")), "{status}");
    }
}

#[test]
fn a_repetition_has_the_same_change_and_another_sequence_and_envelope_time() {
    let mut seen: BTreeMap<(String, u64), serde_json::Value> = BTreeMap::new();
    let mut repeats = 0;
    for step in steps(3, 5_000) {
        let Some(value) = step.value.filter(|_| !matches!(step.label, Label::Poison(..))) else {
            continue;
        };
        let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
        let lsn = value["source"]["lsn"].as_u64().expect("a number");
        if let Some(first) = seen.insert((step.key.clone(), lsn), value.clone()) {
            assert_eq!(step.label, Label::Repeat);
            repeats += 1;
            for same in ["before", "after", "op"] {
                assert_eq!(first[same], value[same]);
            }
            for same in ["ts_ms", "txId"] {
                assert_eq!(first["source"][same], value["source"][same]);
            }
            assert_ne!(first["source"]["sequence"], value["source"]["sequence"]);
            assert_ne!(first["ts_ms"], value["ts_ms"]);
        } else {
            assert_ne!(step.label, Label::Repeat, "nothing is repeated that was not sent");
        }
    }
    assert!(repeats > 32, "{repeats}");
}

#[test]
fn the_changes_of_a_row_have_rising_positions_and_commit_times_of_their_own() {
    let mut last: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
    let mut workload = Workload::new(5, 20_000).expect("zones");
    // A clock that stands still: times still differ.
    while let Some(step) = workload.step(NOW_MS) {
        if let Label::Change(change) = step.label
            && change.ledger == Ledger::Purchases
            && let Some((lsn, commit_ms)) = last.insert(change.row, (change.lsn, change.commit_ms))
        {
            assert!(change.lsn > lsn && change.commit_ms > commit_ms);
        }
    }
    assert!(last.len() > 5_000);
}

#[test]
fn an_award_is_promised_in_every_way_a_purchase_can_go() {
    let mut kinds = BTreeSet::new();
    for step in steps(2, 20_000) {
        if let Label::Change(Change {
            ledger: Ledger::Purchases,
            target: Some(award),
            ..
        }) = step.label
        {
            kinds.insert((
                award.amount == 0,
                award.due_us.map(|due_us| due_us > NOW_MS * 1000 + 86_400_000_000),
            ));
        }
    }
    let expected = [(false, Some(false)), (false, Some(true)), (true, None)];
    assert_eq!(kinds, BTreeSet::from(expected));
}

#[test]
fn the_first_repetitions_of_the_second_half_are_of_the_first() {
    for length in [100, 102, 5_000] {
        let steps = steps(9, length);
        let middle = usize::try_from(length / 2).expect("small");
        let wanted = (length / 10).min(64);
        let repeats = steps[middle..]
            .iter()
            .filter(|step| step.label == Label::Repeat)
            .take(usize::try_from(wanted).expect("small"));
        let mut count = 0;
        for repeat in repeats {
            count += 1;
            let same = |step: &&Step| step.key == repeat.key && matches!(step.label, Label::Change(_));
            assert!(steps[..middle].iter().any(|step| same(&step)), "{}", repeat.key);
        }
        assert_eq!(count, wanted, "of {length}");
    }
}

#[test]
fn a_story_is_told_in_runs_of_any_length() {
    for length in [100, 101, 102, 1_000, 4_999] {
        let told = steps(6, length)
            .into_iter()
            .filter_map(|step| match step.label {
                Label::Change(change) if change.ledger == Ledger::Purchases && change.row == STORY => change.target,
                _ => None,
            })
            .map(|target| target.amount);
        assert_eq!(told.collect::<Vec<_>>(), [100, 60, 0], "{length}");
    }
}

/// What must come of each kind of ticket and state before and after it; `None` before stands for a new row.
#[test]
fn a_ticket_is_owed_what_its_states_say() {
    let mut seen: BTreeMap<(Option<String>, String, bool), BTreeSet<Option<i64>>> = BTreeMap::new();
    for step in steps(8, 30_000) {
        let (Label::Change(change), Some(value)) = (step.label, step.value) else {
            continue;
        };
        if matches!(change.ledger, Ledger::Claims | Ledger::Referrals | Ledger::Codes) {
            let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
            let state = |image: &str| value[image]["status"].as_str().map(str::to_owned);
            let of_itself = change.users[0].is_some() && change.users[0] == change.users[1];
            let owed = change.target.map(|target| target.amount);
            let key = (state("before"), state("after").expect("a state"), of_itself);
            seen.entry(key).or_default().insert(owed);
        }
    }
    for ((before, after, of_itself), owed) in seen {
        let expected = match (before.as_deref(), after.as_str()) {
            _ if of_itself => None,
            (_, "claimed" | "qualified" | "redeemed") => Some(1),
            (Some("claimed"), "revoked") | (Some("qualified"), "cancelled") => Some(0),
            _ => None,
        };
        assert_eq!(
            owed,
            BTreeSet::from([expected]),
            "{before:?} to {after}, itself {of_itself}"
        );
    }
}

#[test]
fn a_record_is_about_as_large_as_a_real_one() {
    let steps = steps(4, 5_000);
    let sizes: Vec<usize> = steps
        .iter()
        .filter_map(|step| step.value.as_ref().map(String::len))
        .collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!((750..1_150).contains(&mean), "{mean} bytes");
}
