use super::*;

const DAY_US: i64 = 1_795_200_000_000_000;

fn change(ledger: Ledger, lsn: u64) -> Change {
    let (award, tier, mission) = (None, None, None);
    let commit_ms = i64::try_from(lsn).expect("small");
    Change {
        ledger,
        row: 3,
        user: 7,
        merchant: 0,
        lsn,
        commit_ms,
        award,
        tier,
        mission,
    }
}

fn purchase(lsn: u64, points: i64) -> Label {
    let due_us = (points > 0).then_some(DAY_US);
    let mut change = change(Ledger::Purchases, lsn);
    change.award = Some(Award { points, due_us });
    change.tier = Some("spend");
    change.mission = Some(Counted {
        mission: "total",
        hundredths: 1250,
    });
    Label::Change(change)
}

fn books(labels: &[Label]) -> Books {
    let mut books = Books::new(vec!["m"], vec![Reader::Currency, Reader::Tier, Reader::Mission]);
    for (offset, label) in (0..).zip(labels) {
        books.produced(label, &("t".to_owned(), 0, offset));
    }
    books
}

fn award(books: &mut Books, id: &str, lsn: i64, points: i64) {
    let (name, due_at) = match points {
        0 => ("loyalty/award.cancelled", String::new()),
        _ => (
            "loyalty/award.scheduled",
            format!(r#""due_at":"{}","#, jiff::Timestamp::from_microsecond(DAY_US).unwrap()),
        ),
    };
    let data = format!(
        r#"{{"purchase_id":"p-00000003","user_id":"u-00007","merchant_id":"m","target_points":"{points}",{due_at}
            "as_of_ms":{lsn},"basis":{{"final_amount":"12.50","refunded_amount":"0.00"}}}}"#
    );
    books.accepted(id, name, &data);
}

fn source(lsn: u64) -> String {
    format!(r#"{{"table":"purchase_ledger","row_id":"p-00000003","version":"{lsn}","op":"u"}}"#)
}

fn evaluation(books: &mut Books, id: &str, lsns: &[u64]) {
    let triggers = lsns.iter().map(|lsn| source(*lsn)).collect::<Vec<_>>().join(",");
    let data = format!(r#"{{"merchant_id":"m","user_id":"u-00007","metric":"spend","triggers":[{triggers}]}}"#);
    books.accepted(id, "loyalty/tier.evaluation_requested", &data);
}

fn progress(books: &mut Books, id: &str, lsn: u64, counted: &str) {
    let data = format!(
        r#"{{"merchant_id":"m","user_id":"u-00007","source":{},"missions":[{{"mission_id":"total","counted":"{counted}"}}]}}"#,
        source(lsn)
    );
    books.accepted(id, "loyalty/mission.evaluation_requested", &data);
}

fn account(books: &Books, reader: Reader) -> Account {
    books
        .balance()
        .accounts
        .into_iter()
        .find(|(of, _)| *of == reader)
        .expect("it runs")
        .1
}

fn all_of(books: &mut Books, lsn: u64, points: i64) {
    award(books, &format!("a{lsn}"), lsn.try_into().expect("small"), points);
    evaluation(books, &format!("t{lsn}"), &[lsn]);
    progress(books, &format!("m{lsn}"), lsn, "12.50");
}

#[test]
fn books_balance_when_everything_came_once() {
    let mut books = books(&[purchase(1, 5), Label::Repeat, Label::Nothing, purchase(2, 0)]);
    all_of(&mut books, 1, 5);
    assert!(!books.balance().balances());
    all_of(&mut books, 2, 0);
    let balance = books.balance();
    assert!(balance.balances(), "{balance:?}");
    assert_eq!((balance.produced, balance.sum(|account| account.eligible)), (4, 6));
    assert_eq!(balance.sum(|account| account.delivered), 6);
}

#[test]
fn a_later_state_covers_an_earlier_award_and_never_the_other_way_round() {
    let mut books = books(&[purchase(1, 5), purchase(2, 7)]);
    award(&mut books, "a2", 2, 7);
    let expected = Account {
        eligible: 2,
        delivered: 1,
        superseded: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Currency), expected);

    let mut books = self::books(&[purchase(1, 5), purchase(2, 7)]);
    award(&mut books, "a1", 1, 5);
    let expected = Account {
        eligible: 2,
        delivered: 1,
        lost: 1,
        stale: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Currency), expected);
}

#[test]
fn an_older_state_accepted_last_is_stale() {
    let mut books = books(&[purchase(1, 5), purchase(2, 7)]);
    award(&mut books, "a2", 2, 7);
    award(&mut books, "a1", 1, 5);
    let expected = Account {
        eligible: 2,
        delivered: 2,
        stale: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Currency), expected);
}

#[test]
fn an_evaluation_covers_the_changes_it_lists_and_no_other() {
    let mut books = books(&[purchase(1, 5), purchase(2, 5), purchase(3, 5)]);
    evaluation(&mut books, "t2", &[1, 2]);
    let expected = Account {
        eligible: 3,
        delivered: 1,
        superseded: 1,
        lost: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Tier), expected);
    evaluation(&mut books, "t3", &[1, 2, 3]);
    let expected = Account {
        eligible: 3,
        delivered: 2,
        superseded: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Tier), expected);
}

#[test]
fn a_mission_needs_the_event_of_exactly_that_change() {
    let mut books = books(&[purchase(1, 5), purchase(2, 5)]);
    progress(&mut books, "m2", 2, "12.50");
    let expected = Account {
        eligible: 2,
        delivered: 1,
        lost: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Mission), expected);
}

#[test]
fn the_same_id_again_is_resent_and_another_id_for_the_same_change_is_doubled() {
    let mut books = books(&[purchase(1, 5)]);
    all_of(&mut books, 1, 5);
    award(&mut books, "a1", 1, 5);
    award(&mut books, "another", 1, 5);
    progress(&mut books, "another", 1, "12.5");
    evaluation(&mut books, "another", &[1]);
    let balance = books.balance();
    assert_eq!((balance.sum(|account| account.resent), balance.doubled()), (1, 3));
    assert!(!balance.balances());
}

#[test]
fn what_no_label_allows_is_unexpected() {
    let mut without = change(Ledger::Purchases, 1);
    without.tier = None;
    let labels = [Label::Change(without), purchase(2, 7)];
    let attempts: [fn(&mut Books); 9] = [
        |books| award(books, "ineligible", 1, 5),
        |books| award(books, "wrong target", 2, 8),
        |books| award(books, "unknown change", 3, 7),
        |books| evaluation(books, "ineligible", &[1]),
        |books| evaluation(books, "no trigger", &[]),
        |books| progress(books, "wrong count", 2, "12.51"),
        |books| progress(books, "ineligible", 1, "12.50"),
        |books| books.accepted("x", "loyalty/unknown", "{}"),
        |books| books.accepted("x", "loyalty/award.scheduled", "{}"),
    ];
    for attempt in attempts {
        let mut books = books(&labels);
        attempt(&mut books);
        let balance = books.balance();
        assert_eq!(balance.unexpected.count, 1, "{balance:?}");
        assert_eq!(balance.sum(|account| account.delivered), 0);
    }
}

#[test]
fn poison_must_be_buried_in_its_queue_and_a_second_letter_of_it_is_no_harm() {
    let place = |offset| ("t".to_owned(), 0, offset);
    let mut books = books(&[Label::Poison("decode"), Label::Nothing]);
    assert_eq!(books.balance().lost(), 1, "skipped in silence");
    books.dead_letter("decode", place(0));
    books.dead_letter("decode", place(0));
    let balance = books.balance();
    assert!(balance.balances());
    assert_eq!((balance.dead_lettered, balance.repeated_letters), (1, 1));
    books.dead_letter("decode", place(1));
    let balance = books.balance();
    assert_eq!((balance.unexpected.count, balance.balances()), (1, false));
}

#[test]
fn the_checker_imports_nothing_it_checks() {
    let checked = [
        "debezium",
        "rows",
        "loyalty",
        "consumers",
        "inngest",
        "dedupe",
        "pipeline",
    ];
    for source in [
        include_str!("checker.rs"),
        include_str!("accepted.rs"),
        include_str!("label.rs"),
    ] {
        for line in source
            .lines()
            .filter(|line| line.contains("crate::") || line.trim_start().starts_with("use "))
        {
            assert!(!checked.iter().any(|room| line.contains(room)), "{line}");
        }
    }
    // What makes the labels may ask the rules as little; its tests compare its constants with the program file.
    for source in [
        include_str!("workload.rs"),
        include_str!("envelope.rs"),
        include_str!("merchants.rs"),
    ] {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!code.contains("crate::"), "the generator stands alone");
    }
}

#[test]
fn decimals_are_compared_by_value() {
    for (text, value) in [
        ("12.5", Some(1250)),
        ("12.50", Some(1250)),
        ("1", Some(100)),
        ("0", Some(0)),
    ] {
        assert_eq!(hundredths(text), value);
    }
    for text in ["", ".5", "1.234", "-1", "1e2"] {
        assert_eq!(hundredths(text), None, "{text}");
    }
}
