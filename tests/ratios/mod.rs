//! Takes the comparison of ids, the goals and the origin of figures of `make bench` from `benches`, whose own binary no test runs in; gives
//! proof that nobody can lose or double anything in a run, that a miss is not shown as a goal reached, and that a part never passes for a
//! whole. It never runs the benchmark.

#[path = "../../benches/rig/goals.rs"]
mod goals;
#[path = "../../benches/rig/ids.rs"]
mod ids;
#[path = "../../benches/rig/origin.rs"]
mod origin;

use std::path::Path;
use std::time::Duration;

use goals::{REQUEST_EVENTS, fit, head, most_per_second, reached};
use ids::{Difference, Wrong};
use origin::{Origin, keep, profile};

fn difference(owed: &[&str], came: &[&str]) -> Difference {
    let owed: Vec<String> = owed.iter().map(|id| (*id).to_owned()).collect();
    let lines: String = came.iter().map(|id| format!("{id}\n")).collect();
    Difference::of(&owed, &lines)
}

fn wrong(ids: u64, example: &str) -> Wrong {
    Wrong {
        ids,
        example: Some(example.to_owned()),
    }
}

#[test]
fn every_owed_id_once_in_any_order_is_no_difference() {
    assert!(difference(&["a", "b", "c"], &["c", "a", "b"]).is_none());
    assert!(difference(&[], &[]).is_none());
}

#[test]
fn an_id_that_did_not_come_is_missing_though_as_many_came_as_are_owed() {
    let found = difference(&["a", "b", "c", "d"], &["d", "d", "a", "d"]);
    assert_eq!(found.missing, wrong(2, "b"));
    assert_eq!(found.doubled, wrong(2, "d"));
    assert_eq!(found.foreign, Wrong::default());
    let said = r#"2 ("b") missing, 2 ("d") doubled, 0 that nobody owes"#;
    assert_eq!(found.to_string(), said);
}

#[test]
fn an_id_that_nobody_owes_is_told_apart_from_a_doubled_one_however_alike() {
    for other in ["", "A", "a ", "a\r", "aa", "a\\n"] {
        let found = difference(&["a"], &["a", other]);
        assert_eq!(found.missing, Wrong::default(), "{other:?}");
        assert_eq!(found.doubled, Wrong::default(), "{other:?}");
        assert_eq!(found.foreign, wrong(1, other), "{other:?}");
    }
}

#[test]
fn nothing_at_all_is_everything_missing() {
    let found = difference(&["a", "b"], &[]);
    assert_eq!(found.missing, wrong(2, "a"));
    assert!(!found.is_none());
}

#[test]
fn a_request_holds_what_fits_its_bytes_and_never_more_than_it_may_hold_events() {
    assert_eq!(fit(1_024_000, 1_000), Some(200.0));
    assert_eq!(fit(512_000, 1_000), Some(400.0));
    assert_eq!(
        fit(100_000, 1_000),
        Some(REQUEST_EVENTS),
        "small events are bounded by their number"
    );
    assert_eq!((fit(0, 1_000), fit(1_000, 0)), (None, None));
}

/// The divisor was once what the fullest requests had held: a worker that never filled one passed.
#[test]
fn a_worker_whose_requests_are_half_full_reaches_half() {
    let latency = Duration::from_millis(200);
    // 8 lanes, 5 requests a second each, 150 events in each where 300 fit.
    let rate = 8.0 * 5.0 * 150.0;
    let fitting = fit(204_800 / 300 * 6_000, 6_000).expect("events");
    let share = rate / most_per_second(8, fitting, latency);
    assert!((share - 0.5).abs() < 0.01, "{share}");
    assert_eq!(most_per_second(8, REQUEST_EVENTS, latency), 16_000.0);
}

#[test]
fn a_goal_is_reached_at_one_and_missed_below_it_whichever_way_the_figure_goes() {
    assert_eq!([0.5, 1.0, 2.0].map(|value| reached(value, 1.0, false)), [0.5, 1.0, 2.0]);
    assert_eq!([0.5, 1.0, 2.0].map(|value| reached(value, 1.0, true)), [2.0, 1.0, 0.5]);
}

#[test]
fn the_head_is_a_tenth_and_never_nothing() {
    assert_eq!([240_000, 19, 2].map(head), [24_000, 1, 1]);
}

fn whole() -> Origin {
    Origin {
        commit: "abc1234-dirty".to_owned(),
        time: "2026-11-21 17:30 UTC".to_owned(),
        profile: "dist".to_owned(),
        rounds: 5,
        cores: 2,
        model: "Some CPU".to_owned(),
        load_before: 0.25,
        complete: true,
    }
}

#[test]
fn figures_say_of_which_code_machine_and_time_they_are_and_whether_they_are_whole() {
    let said =
        "commit abc1234-dirty, 2026-11-21 17:30 UTC, profile dist, 5 rounds, 2 cores, Some CPU, load 0.25 before";
    assert_eq!(whole().to_string(), said);
    let part = Origin {
        complete: false,
        ..whole()
    };
    assert_eq!(part.to_string(), format!("{said}; a part only"));
    let text = serde_json::to_string(&part).expect("JSON");
    assert_eq!(serde_json::from_str::<Origin>(&text).expect("the same"), part);
}

#[test]
fn what_was_measured_in_part_is_refused_with_what_where_and_what_to_do() {
    let file = Path::new("target/bench/ratios-part.json");
    whole().check(file, "make bench").expect("whole");
    let part = Origin {
        complete: false,
        ..whole()
    };
    let said = part.check(file, "make bench").expect_err("a part").to_string();
    for part in ["target/bench/ratios-part.json: not every case", "run `make bench`"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_part_stays_beside_the_whole_and_only_a_whole_takes_its_place() {
    let folder = std::env::temp_dir().join(format!("crm-kept-{:016x}", fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    let read = |name| std::fs::read_to_string(folder.join(name)).ok();
    keep(&folder, "ratios", "first whole", true).expect("written");
    let part = keep(&folder, "ratios", "a part", false).expect("written");
    assert_eq!(part, folder.join("ratios-part.json"));
    assert_eq!(read("ratios.json").as_deref(), Some("first whole"));
    let all = keep(&folder, "ratios", "second whole", true).expect("written");
    assert_eq!(all, folder.join("ratios.json"));
    assert_eq!(read("ratios.json").as_deref(), Some("second whole"));
    assert_eq!(read("ratios-part.json"), None, "it has become the whole");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn the_profile_is_the_folder_around_deps_and_not_any_folder_of_that_name() {
    let of = |path| profile(Path::new(path));
    assert_eq!(of("/dist/crm/target/release/deps/bench-1"), Some("release"));
    assert_eq!(of("/crm/target/dist/deps/bench-1"), Some("dist"));
    assert_eq!(of("/crm/target/dist/bench-1"), None);
    let here = Origin::look().expect("Linux");
    assert!(here.cores > 0 && !here.complete && here.rounds == 0, "{here}");
}
