//! Takes the arithmetic and the count of changes of `make curves` and the verdict of `make instructions` from `benches`, whose own binaries no test runs
//! in; gives proof that each says what it must. It never measures anything.

#[path = "../../benches/rig/covered.rs"]
mod covered;
#[path = "../../benches/rig/figures.rs"]
mod figures;
#[path = "../../benches/instructions/verdict.rs"]
mod verdict;

use std::collections::BTreeMap;

use figures::{Figure, quantile, rise, slope};
use verdict::{Counted, Verdict};

#[test]
fn a_quantile_is_a_value_that_was_measured_and_never_a_smaller_one_than_its_rank() {
    let hundred: Vec<u32> = (1..=100).collect();
    let at = |per_mille| quantile(&hundred, per_mille);
    assert_eq!(
        [at(0), at(500), at(990), at(1000)],
        [Some(1), Some(50), Some(99), Some(100)]
    );
    assert_eq!(
        quantile(&[7, 9], 990),
        Some(9),
        "of a few, the worst is the 99th percentile"
    );
    assert_eq!(quantile(&[], 500), None);
}

#[test]
fn a_figure_is_the_median_with_its_spread() {
    let figure = Figure::of([3.0, 1.0, 10.0, 2.0]).expect("values");
    assert_eq!((figure.median, figure.min, figure.max), (2.5, 1.0, 10.0));
    assert_eq!(figure.text(1), "2.5 (1.0-10.0)");
    assert_eq!(Figure::of([]), None);
}

#[test]
fn a_slope_is_that_of_the_line_with_the_least_squares() {
    assert_eq!(slope(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]), Some(2.0));
    // Half of the points above the line, half below.
    assert_eq!(slope(&[(0.0, 1.0), (0.0, -1.0), (2.0, 5.0), (2.0, 3.0)]), Some(2.0));
    assert_eq!(slope(&[(3.0, 1.0), (3.0, 2.0)]), None, "nothing grows");
    assert_eq!(slope(&[]), None);
}

#[test]
fn points_rise_as_their_line_does_or_as_the_last_is_above_the_first_whichever_is_more() {
    let steep = [(1.0, 9.0), (2.0, 10.0), (3.0, 11.0)];
    assert_eq!(rise(&steep, 1.0), Some(0.2));
    // The line hardly rises, because the points in the middle are low; the last is dearer than the first all the same.
    let sagging = [(1.0, 10.0), (40.0, 9.0), (44.0, 9.0), (48.0, 12.0)];
    let line = slope(&sagging).expect("it grows");
    assert!((line * 47.0 / 10.0).abs() < 0.1, "{line}");
    assert_eq!(rise(&sagging, line), Some(0.2));
    let falling = [(1.0, 12.0), (2.0, 8.0)];
    assert_eq!(rise(&falling, -4.0), Some(-0.4));
    assert_eq!(rise(&[], 1.0), None);
}

const AWARD: (&str, &str, &str) = ("currency:award:purchase_ledger:p-1:41", "loyalty/award.scheduled", "{}");
const TWO: &str = r#"{"merchant_id":"m-1","user_id":"u-1","triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"},{"table":"purchase_ledger","row_id":"p-2","version":"49","op":"c"}],"reason":"spend_may_have_changed"}"#;
const EVALUATION: (&str, &str, &str) = (
    "tier:evaluation:purchase_ledger:p-2:49",
    "loyalty/tier.evaluation_requested",
    TWO,
);

#[test]
fn an_evaluation_of_a_tier_covers_what_it_names_and_any_other_event_its_own_change() {
    let mut lines = String::new();
    let mut counted = 0;
    for (id, name, data) in [AWARD, EVALUATION] {
        covered::keep(&mut lines, id, name, data);
        counted += covered::count(name, data);
    }
    let ids = covered::ids(&lines).expect("triggers");
    let expected = [
        "currency:award:purchase_ledger:p-1:41",
        "tier:evaluation:purchase_ledger:p-1:41",
        "tier:evaluation:purchase_ledger:p-2:49",
    ];
    assert_eq!(ids.lines().collect::<Vec<_>>(), expected);
    assert_eq!(counted, 3);
}

/// As many changes as are owed is not enough: one twice and one never would be as many.
#[test]
fn a_change_that_is_covered_twice_does_not_stand_for_one_that_never_is() {
    let once = TWO.replace("p-2", "p-1").replace("49", "41");
    let mut lines = String::new();
    covered::keep(
        &mut lines,
        "tier:evaluation:purchase_ledger:p-1:41",
        EVALUATION.1,
        &once,
    );
    assert_eq!(covered::count(EVALUATION.1, &once), 2);
    let ids = covered::ids(&lines).expect("triggers");
    assert_eq!(ids, "tier:evaluation:purchase_ledger:p-1:41\n".repeat(2));
    covered::keep(&mut lines, "id", EVALUATION.1, "{}");
    assert!(
        covered::ids(&lines).is_err(),
        "an evaluation that names nothing cannot be counted"
    );
}

fn counted(stages: &[(&str, u64)]) -> Counted {
    let stages: BTreeMap<String, u64> = stages
        .iter()
        .map(|(stage, count)| ((*stage).to_owned(), *count))
        .collect();
    Counted {
        machine: "x86_64 with AVX2".to_owned(),
        valgrind: "valgrind-3".to_owned(),
        compiler: "rustc 1".to_owned(),
        counts: [("purchase".to_owned(), stages)].into(),
    }
}

#[test]
fn a_stage_that_is_more_than_three_percent_dearer_is_found_and_nothing_below_it() {
    let committed = counted(&[("decode", 1000), ("decide", 1000)]);
    let of = |decode| Verdict::of(&committed, &counted(&[("decode", decode), ("decide", 1000)])).expect("one machine");
    assert!(!of(1000).is_dearer() && !of(1030).is_dearer());
    assert!(of(1031).is_dearer());
    let said = of(1100).to_string();
    assert!(
        said.contains("decode of purchase: 1000 then, 1100 now, +10.0 %"),
        "{said}"
    );
    assert!(
        said.contains("make instructions ARGS=--accept") && !said.contains("decide"),
        "{said}"
    );
    let said = of(900).to_string();
    assert!(
        said.contains("cheaper") && said.contains("-10.0 %") && !of(900).is_dearer(),
        "{said}"
    );
}

#[test]
fn a_stage_that_is_in_the_file_or_in_the_counts_alone_must_be_accepted() {
    let (one, two) = (counted(&[("decode", 10)]), counted(&[("decode", 10), ("route", 10)]));
    for (committed, counted, said) in [
        (&one, &two, "route of purchase: not in the file"),
        (&two, &one, "route of purchase: not counted any more"),
    ] {
        let verdict = Verdict::of(committed, counted).expect("one machine");
        assert!(verdict.is_dearer() && verdict.to_string().contains(said), "{verdict}");
    }
}

#[test]
fn machines_of_different_kinds_are_not_compared_and_another_compiler_is_mentioned() {
    let committed = counted(&[("decode", 10)]);
    let mut elsewhere = committed.clone();
    elsewhere.machine = "aarch64".to_owned();
    assert!(Verdict::of(&committed, &elsewhere).is_err());
    let mut newer = committed.clone();
    newer.compiler = "rustc 2".to_owned();
    let said = Verdict::of(&committed, &newer).expect("one machine").to_string();
    assert!(said.contains("compiler: rustc 1 then, rustc 2 now"), "{said}");
}
