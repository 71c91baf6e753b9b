//! Takes books and verdict of `make soak` from `benches`, whose own binary no test runs in; gives proof that each refuses
//! what is broken. It never runs the soak.

#[path = "../../benches/soak/books.rs"]
mod books;
#[path = "../../benches/rig/records.rs"]
#[expect(dead_code, reason = "only the ids of the records are needed here")]
mod records;
#[path = "../../benches/soak/verdict.rs"]
mod verdict;

use books::{Balance, Books};
use crm_event_processors::consumers::Consumer;
use records::{READERS, event_id};
use verdict::{Findings, Quarters, Sample};

const fn balance(accepted: u64, resent: u64, doubled: u64) -> Balance {
    Balance {
        accepted,
        resent,
        doubled,
    }
}

fn balance_of(ids: &[&str]) -> Balance {
    let books = Books::default();
    for id in ids {
        books.enter(id);
    }
    books.balance()
}

#[test]
fn the_books_count_each_owed_event_once_and_its_repeat_as_resent() {
    let owed = READERS.map(|consumer| event_id(consumer, 7));
    assert_eq!(owed[0], "currency:award:purchase_ledger:p-00000007:30000056");
    assert_eq!(owed[1], "tier:evaluation:purchase_ledger:p-00000007:30000056");
    assert_eq!(owed[2], "mission:evaluation:purchase_ledger:p-00000007:30000056");
    assert_eq!(balance_of(&[&owed[0], &owed[1], &owed[2], &owed[1]]), balance(3, 1, 0));
}

#[test]
fn any_other_id_of_a_change_is_a_second_settlement_and_no_repeat() {
    let owed = event_id(Consumer::Currency, 7);
    for other in [
        "currency:cancel:purchase_ledger:p-00000007:30000056",
        "currency:award:wallet_ledger:p-00000007:30000056",
        "currency:award:purchase_ledger:p-00000007:30000057",
        "currency:award:purchase_ledger:p-7:30000056",
        "currency:award:purchase_ledger:p-00000007:30000056:again",
        "currency:again:award:purchase_ledger:p-00000007:30000056",
        "reward:award:purchase_ledger:p-00000007:30000056",
        "tier:award:purchase_ledger:p-00000007:30000056",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "",
    ] {
        assert_eq!(balance_of(&[&owed, other]), balance(1, 0, 1), "{other}");
    }
}

/// A soak that has passed, with every figure at its limit.
fn passed() -> Findings {
    Findings {
        records: 1_000,
        asked: 2_000,
        books: balance(3_000, 30, 0),
        dead_letters: 0,
        faults: 6,
        second_workers: 1,
        resident_kib: Quarters {
            second: 40_000,
            last: 48_192,
        },
        open_files: Quarters { second: 43, last: 47 },
        peak_resident_kib: 80_000,
        samples: Vec::new(),
    }
}

#[test]
fn the_verdict_of_a_soak_refuses_each_broken_finding() {
    assert_eq!(passed().problems(), Vec::<&str>::new());
    type Breaks = fn(&mut Findings);
    let broken: [(&str, Breaks); 9] = [
        ("less than half of the load", |it| it.asked += 1),
        ("less than half of the load", |it| {
            (it.records, it.asked, it.books) = (0, 0, balance(0, 0, 0));
        }),
        ("not one event for each change and consumer", |it| {
            it.books = balance(2_999, 0, 0);
        }),
        ("not one event for each change and consumer", |it| {
            it.books = balance(3_001, 0, 0);
        }),
        ("events under other ids than they must have", |it| it.books.doubled = 1),
        ("more than one event in a hundred came again", |it| it.books.resent += 1),
        ("dead letters", |it| it.dead_letters = 1),
        ("memory grows", |it| it.resident_kib.last += 1),
        ("open files grow", |it| it.open_files.last += 1),
    ];
    for (problem, breaks) in broken {
        let mut findings = passed();
        breaks(&mut findings);
        assert_eq!(findings.problems(), [problem]);
    }
}

#[test]
fn the_quarters_of_a_soak_show_a_leak_and_not_a_peak() {
    let samples = |resident: fn(u64) -> u64| -> Vec<Sample> {
        let sample = |second| Sample {
            second,
            resident_kib: resident(second),
            open_files: 43,
        };
        (0..600).map(sample).collect()
    };
    let quarters = |resident| Quarters::of(&samples(resident), |sample| sample.resident_kib).expect("long enough");
    // One pointer of each of 4,000 records a second.
    let leak = quarters(|second| 40_000 + second * 4_000 * 8 / 1024);
    let peaks = quarters(|second| if second % 30 < 5 { 90_000 } else { 40_000 });
    assert_eq!((peaks.second, peaks.last), (40_000, 40_000));
    let findings = |resident_kib| Findings {
        resident_kib,
        ..passed()
    };
    assert_eq!(findings(leak).problems(), ["memory grows"]);
    assert!(findings(peaks).problems().is_empty());
    assert!(Quarters::of(&samples(|_second| 0)[..3], |sample| sample.open_files).is_err());
}
