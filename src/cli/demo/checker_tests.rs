use super::*;

const DAY_US: i64 = 1_795_200_000_000_000;

fn change(ledger: Ledger, lsn: u64) -> Change {
    let (target, tier, mission) = (None, None, None);
    let commit_ms = i64::try_from(lsn).expect("small");
    Change {
        ledger,
        row: 3,
        users: [Some(7), None],
        merchant: 0,
        lsn,
        commit_ms,
        target,
        tier,
        mission,
    }
}

fn ticket(ledger: Ledger, lsn: u64, users: [Option<u32>; 2], amount: i64) -> Label {
    let target = Some(Target { amount, due_us: None });
    let change = change(ledger, lsn);
    Label::Change(Change {
        users,
        target,
        ..change
    })
}

fn purchase(lsn: u64, points: i64) -> Label {
    let due_us = (points > 0).then_some(DAY_US);
    let mut change = change(Ledger::Purchases, lsn);
    change.target = Some(Target { amount: points, due_us });
    change.tier = Some("spend");
    change.mission = Some(Counted {
        mission: "total",
        hundredths: 1250,
    });
    Label::Change(change)
}

fn books(labels: &[Label]) -> Books {
    let mut books = Books::new(vec!["m"], Reader::ALL.to_vec());
    for (offset, label) in (0..).zip(labels) {
        books.produced(label, &("t".to_owned(), 0, offset));
    }
    books
}

fn award(books: &mut Books, id: &str, lsn: i64, points: i64) {
    let name = match points {
        0 => "loyalty/award.cancelled",
        _ => "loyalty/award.scheduled",
    };
    books.accepted(id, name, &award_data("p-00000003", lsn, points));
}

fn award_data(purchase: &str, lsn: i64, points: i64) -> String {
    let due_at = match points {
        0 => String::new(),
        _ => format!(r#""due_at":"{}","#, jiff::Timestamp::from_microsecond(DAY_US).unwrap()),
    };
    format!(
        r#"{{"effect_key":"award:{purchase}","purchase_id":"{purchase}","target_points":"{points}",{due_at}
            "as_of_ms":{lsn},"basis":{{"user_id":"u-00007","merchant_id":"m","final_amount":"12.50","refunded_amount":"0.00","status":"completed"}}}}"#
    )
}

fn source(lsn: u64) -> String {
    format!(r#"{{"table":"purchase_ledger","row_id":"p-00000003","version":"{lsn}","op":"u"}}"#)
}

fn evaluation(books: &mut Books, id: &str, lsns: &[u64]) {
    let triggers = lsns.iter().map(|lsn| source(*lsn)).collect::<Vec<_>>().join(",");
    let data = format!(
        r#"{{"effect_key":"tier:m:u-00007","merchant_id":"m","user_id":"u-00007","metric":"spend","triggers":[{triggers}]}}"#
    );
    books.accepted(id, "loyalty/tier.evaluation_requested", &data);
}

fn progress(books: &mut Books, id: &str, lsn: u64, counted: &str) {
    let data = format!(
        r#"{{"effect_key":"mission_source","merchant_id":"m","user_id":"u-00007","source":{},"missions":[{{"mission_id":"total","counted":"{counted}"}}]}}"#,
        source(lsn)
    );
    books.accepted(id, "loyalty/mission.evaluation_requested", &data);
}

/// `row` names a claim or one side of a referral.
fn grant(books: &mut Books, id: &str, verb: &str, row: &str, user: u32, lsn: i64) {
    let data = format!(
        r#"{{"effect_key":"k",{row},"merchant_id":"m","user_id":"u-{user:05}","mission_id":"spend-100","as_of_ms":{lsn}}}"#
    );
    books.accepted(id, &format!("loyalty/reward.{verb}"), &data);
}

const CLAIM: &str = r#""source":"mission_claim","claim_id":"c-00000003""#;
const REFERRER: &str = r#""source":"referral","referral_id":"r-00000003","side":"referrer""#;
const NO_SIDE: &str = r#""source":"referral","referral_id":"r-00000003""#;
const REFEREE: &str = r#""source":"referral","referral_id":"r-00000003","side":"referee""#;

fn redemption(books: &mut Books, id: &str, user: &str, lsn: i64, more: &str) {
    let data = format!(
        r#"{{"effect_key":"code:3","code_id":"v-00000003","merchant_id":"m","user_id":{user},"as_of_ms":{lsn}{more}}}"#
    );
    books.accepted(id, "loyalty/code.redeemed", &data);
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
fn each_side_of_a_referral_is_owed_its_own_grant_and_its_own_revocation() {
    let sides = [Some(7), Some(8)];
    let labels = [
        ticket(Ledger::Referrals, 1, sides, 1),
        ticket(Ledger::Referrals, 2, sides, 0),
    ];
    let mut books = books(&labels);
    grant(&mut books, "a", "granted", REFERRER, 7, 1);
    grant(&mut books, "b", "revoked", REFERRER, 7, 2);
    grant(&mut books, "c", "granted", REFEREE, 8, 1);
    let expected = Account {
        eligible: 4,
        delivered: 3,
        lost: 1,
        stale: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Reward), expected);
    grant(&mut books, "d", "revoked", REFEREE, 8, 2);
    assert!(books.balance().balances());
    grant(&mut books, "c", "granted", REFEREE, 8, 1);
    let expected = Account {
        eligible: 4,
        delivered: 4,
        resent: 1,
        stale: 1,
        ..Account::default()
    };
    assert_eq!(account(&books, Reader::Reward), expected, "granted again, and left so");
}

#[test]
fn a_redemption_is_owed_once_to_whom_the_row_names_or_to_nobody() {
    for (users, named) in [([Some(7), None], "\"u-00007\""), ([None, None], "null")] {
        let mut books = books(&[ticket(Ledger::Codes, 1, users, 1)]);
        assert_eq!(books.balance().lost(), 1);
        redemption(&mut books, "a", named, 1, "");
        assert!(books.balance().balances());
        redemption(&mut books, "b", named, 1, "");
        assert_eq!(books.balance().doubled(), 1);
    }
}

#[test]
fn a_final_target_is_that_of_the_newest_change_that_has_one_and_the_awards_are_kept_in_order() {
    let ineligible = Label::Change(change(Ledger::Purchases, 3));
    let mut books = books(&[purchase(1, 5), purchase(2, 7), ineligible]);
    award(&mut books, "a2", 2, 7);
    award(&mut books, "a1", 1, 5);
    assert_eq!(books.final_targets(), [0, 0, 0, 7]);
    let targets: Vec<i64> = books.awards().iter().map(|award| award.target).collect();
    assert_eq!(targets, [7, 5]);
}

#[test]
fn the_story_names_every_target_and_what_was_accepted_of_it() {
    let chapter = |lsn, amount: i64| {
        let due_us = (amount > 0).then_some(DAY_US);
        let target = Some(Target { amount, due_us });
        let change = change(Ledger::Purchases, lsn);
        Label::Change(Change {
            row: STORY,
            target,
            ..change
        })
    };
    let mut books = books(&[chapter(1, 100), chapter(2, 60), chapter(3, 0)]);
    for (lsn, points) in [(1, 100), (3, 0)] {
        let data = award_data("p-00000000", lsn, points);
        let name = if points > 0 {
            "loyalty/award.scheduled"
        } else {
            "loyalty/award.cancelled"
        };
        books.accepted(&format!("a{lsn}"), name, &data);
    }
    let told = books
        .story()
        .into_iter()
        .map(|chapter| (chapter.target, chapter.award.is_some()));
    assert_eq!(told.collect::<Vec<_>>(), [(100, true), (60, false), (0, true)]);
    assert!(books.balance().balances(), "{:?}", books.balance());
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
    let labels = [
        Label::Change(without),
        purchase(2, 7),
        ticket(Ledger::Claims, 4, [Some(7), None], 1),
        ticket(Ledger::Referrals, 5, [Some(7), Some(8)], 0),
        ticket(Ledger::Codes, 6, [None, None], 1),
    ];
    let attempts: [fn(&mut Books); 19] = [
        |books| award(books, "ineligible", 1, 5),
        |books| award(books, "wrong target", 2, 8),
        |books| award(books, "unknown change", 3, 7),
        |books| evaluation(books, "ineligible", &[1]),
        |books| evaluation(books, "no trigger", &[]),
        |books| progress(books, "wrong count", 2, "12.51"),
        |books| progress(books, "ineligible", 1, "12.50"),
        |books| grant(books, "wrong verb", "revoked", CLAIM, 7, 4),
        |books| grant(books, "wrong user", "granted", CLAIM, 8, 4),
        |books| grant(books, "wrong change", "granted", CLAIM, 7, 5),
        |books| grant(books, "wrong mission", "granted", &CLAIM.replace("3", "4"), 7, 4),
        |books| grant(books, "wrong verb", "granted", REFERRER, 7, 5),
        |books| grant(books, "wrong side", "revoked", REFERRER, 8, 5),
        |books| grant(books, "no side", "revoked", NO_SIDE, 7, 5),
        |books| redemption(books, "of somebody", "\"u-00007\"", 6, ""),
        |books| redemption(books, "wrong change", "null", 7, ""),
        |books| redemption(books, "tells the code", "null", 6, r#","code":"SECRET-00000003""#),
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
    let mut books = books(&[Label::Poison(Ledger::Codes, "decode"), Label::Nothing]);
    assert_eq!(books.balance().lost(), 1, "skipped in silence");
    books.dead_letter("decode", place(0));
    books.dead_letter("decode", place(0));
    let balance = books.balance();
    assert!(balance.balances());
    assert_eq!((balance.dead_lettered, balance.repeated_letters), (1, 1));
    books.dead_letter("decode", place(1));
    let balance = books.balance();
    assert_eq!((balance.unexpected.count, balance.balances()), (1, false));

    for (queue, readers, count) in [
        ("decode", vec![Reader::Tier], 0),
        ("decode", vec![Reader::Marketplace], 1),
        ("currency", vec![Reader::Marketplace], 0),
    ] {
        let mut books = Books::new(vec!["m"], readers);
        books.produced(&Label::Poison(Ledger::Codes, queue), &place(0));
        assert_eq!(
            books.balance().poison,
            count,
            "only of what is read, in a queue of whoever reads it"
        );
    }
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
        include_str!("balance.rs"),
        include_str!("label.rs"),
        include_str!("settler.rs"),
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
        include_str!("tickets.rs"),
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
