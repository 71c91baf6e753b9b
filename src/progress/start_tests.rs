//! Starts by example: what stands in Kafka, who runs, what the operator said.

use super::*;

const BEGIN: i64 = 100;
const END: i64 = 200;

/// The readers of one topic.
fn everyone() -> ConsumerSet {
    [Consumer::Currency, Consumer::Tier, Consumer::Mission]
        .into_iter()
        .collect()
}

fn framed(entries: &[(&str, i64)]) -> String {
    frame::write(&entries.iter().map(|(name, mark)| ((*name).into(), *mark)).collect())
}

fn found(offset: i64, metadata: String) -> Found {
    Found {
        committed: Some(Committed { offset, metadata }),
        begin: BEGIN,
        end: END,
    }
}

/// Position, watermarks, absent consumers and what is said about it.
fn decided(found: &Found, readers: ConsumerSet, orders: &Orders) -> String {
    let (start, notices) = match Start::decide(found, readers, orders) {
        Ok(decided) => decided,
        Err(halt) => return format!("halted: {halt}"),
    };
    assert_eq!(start.committed, found.committed, "what stands in Kafka is passed on");
    let marks: Vec<String> = start
        .watermarks
        .iter()
        .map(|(who, mark)| format!("{}={mark}", who.name()))
        .collect();
    let absent: Vec<String> = start
        .absent
        .iter()
        .map(|(who, mark)| format!(" + {who}={mark}"))
        .collect();
    let notices: Vec<String> = notices.iter().map(|notice| format!("\n  {notice}")).collect();
    format!(
        "at {}: {}{}{}",
        start.position,
        marks.join(" "),
        absent.concat(),
        notices.concat()
    )
}

fn decide(offset: i64, metadata: String) -> String {
    decided(&found(offset, metadata), everyone(), &Orders::default())
}

#[test]
fn without_a_commitment_everybody_starts_at_the_logs_begin() {
    let nothing = Found {
        committed: None,
        begin: BEGIN,
        end: END,
    };
    insta::assert_snapshot!(
        decided(&nothing, everyone(), &Orders::default()),
        @"at 100: currency=100 tier=100 mission=100"
    );
}

#[test]
fn watermarks_skip_what_is_done_and_the_fetch_starts_at_the_least_of_them() {
    insta::assert_snapshot!(
        decide(120, framed(&[("currency", 150), ("mission", 120), ("tier", 130)])),
        @"at 120: currency=150 tier=130 mission=120"
    );
}

#[test]
fn an_absent_consumer_is_carried_forward_and_what_the_others_have_done_is_not_fetched_again() {
    insta::assert_snapshot!(
        decide(120, framed(&[("currency", 150), ("mission", 140), ("reward", 120), ("tier", 145)])),
        @r"
    at 140: currency=150 tier=145 mission=140 + reward=120
      consumer reward does not run here: its watermark 120 is kept, and holds the committed offset
    "
    );
}

#[test]
fn a_new_consumer_starts_at_the_committed_offset_and_says_so() {
    insta::assert_snapshot!(
        decide(120, framed(&[("currency", 150), ("tier", 120)])),
        @r"
    at 120: currency=150 tier=120 mission=120
      consumer mission is new here: it starts at the committed offset
    "
    );
}

#[test]
fn a_dropped_consumer_is_given_up_and_a_dropped_name_that_is_not_there_changes_nothing() {
    let orders = Orders {
        dropped: vec!["reward".to_owned(), "nobody".to_owned()],
        ..Orders::default()
    };
    let metadata = framed(&[("currency", 150), ("mission", 140), ("reward", 120), ("tier", 145)]);
    insta::assert_snapshot!(
        decided(&found(120, metadata), everyone(), &orders),
        @r"
    at 140: currency=150 tier=145 mission=140
      consumer reward dropped: what it has not read from offset 120 on is given up
    "
    );
}

#[test]
fn doubtful_metadata_is_ignored_and_everybody_starts_at_the_committed_offset() {
    let all = |mark| framed(&[("currency", mark), ("mission", 120), ("tier", 120)]);
    let cases = [
        (String::new(), "absent"),
        ("by hand".to_owned(), "damaged"),
        (all(201), "beyond the end of the log"),
        (all(119), "below the committed offset"),
    ];
    for (metadata, doubt) in cases {
        assert_eq!(
            decide(120, metadata),
            format!(
                "at 120: currency=120 tier=120 mission=120\n  commit metadata ignored, it is {doubt}: every consumer \
                 starts at the committed offset"
            )
        );
    }
    assert!(
        decide(120, all(200)).starts_with("at 120: currency=200"),
        "the end itself is not beyond it"
    );
}

#[test]
fn a_doubt_about_the_numbers_forgets_no_absent_consumer() {
    // The log was cut short, or made again, while mission was rolled back.
    let metadata = framed(&[("currency", 500), ("mission", 120), ("reward", 500), ("tier", 500)]);
    let two: ConsumerSet = [Consumer::Currency, Consumer::Tier].into_iter().collect();
    insta::assert_snapshot!(
        decided(&found(120, metadata.clone()), two, &Orders::default()),
        @r"
    at 120: currency=120 tier=120 + mission=120 + reward=120
      commit metadata ignored, it is beyond the end of the log: every consumer starts at the committed offset
      consumer mission does not run here: its watermark 120 is kept, and holds the committed offset
      consumer reward does not run here: its watermark 120 is kept, and holds the committed offset
    "
    );
    let orders = Orders {
        accept_gap: true,
        ..Orders::default()
    };
    insta::assert_snapshot!(
        decided(&found(300, metadata), two, &orders),
        @r"
    at 100: currency=100 tier=100 + mission=100 + reward=100
      gap accepted: the committed offset 300 lies outside the log, going on at its begin 100
      commit metadata ignored, it is beyond the end of the log: every consumer starts at the committed offset
      consumer mission does not run here: its watermark 100 is kept, and holds the committed offset
      consumer reward does not run here: its watermark 100 is kept, and holds the committed offset
    "
    );
}

#[test]
fn a_frame_of_a_later_version_halts() {
    let body = "crm/2;who knows";
    let metadata = format!("{body};{:08x}", crc32fast::hash(body.as_bytes()));
    insta::assert_snapshot!(
        decide(120, metadata),
        @"halted: its progress was written by a later version of this worker (frame 2), which this one cannot read: run that version"
    );
}

#[test]
fn a_committed_offset_outside_the_log_halts_until_the_gap_is_accepted() {
    for (committed, is_inside) in [(99, false), (100, true), (200, true), (201, false)] {
        assert_eq!(
            !decide(committed, String::new()).starts_with("halted"),
            is_inside,
            "{committed}"
        );
    }
    let orders = Orders {
        accept_gap: true,
        ..Orders::default()
    };
    let accepted = |offset, metadata| decided(&found(offset, metadata), everyone(), &orders);
    // Records are gone from below: what is known of later ones still holds.
    insta::assert_snapshot!(
        accepted(50, framed(&[("currency", 150), ("mission", 50), ("reward", 60), ("tier", 90)])),
        @r"
    at 100: currency=150 tier=100 mission=100 + reward=100
      gap accepted: the committed offset 50 lies outside the log, going on at its begin 100
      consumer reward does not run here: its watermark 100 is kept, and holds the committed offset
    "
    );
    // Another log: nothing is known of it.
    insta::assert_snapshot!(
        accepted(250, framed(&[("currency", 260), ("mission", 250), ("tier", 250)])),
        @r"
    at 100: currency=100 tier=100 mission=100
      gap accepted: the committed offset 250 lies outside the log, going on at its begin 100
      commit metadata ignored, it is beyond the end of the log: every consumer starts at the committed offset
    "
    );
}

#[test]
fn a_subset_is_seeded_only_by_a_sound_frame_that_names_all_of_it() {
    let subset: ConsumerSet = [Consumer::Tier, Consumer::Mission].into_iter().collect();
    let whole = framed(&[("currency", 120), ("mission", 150), ("tier", 140)]);
    let seed = Start::seeded(&found(120, whole), subset)
        .expect("no halt")
        .expect("seeded");
    let expected = Start {
        watermarks: [(Consumer::Tier, 140), (Consumer::Mission, 150)].into(),
        ..Start::at(140, subset)
    };
    assert_eq!(seed, expected, "nothing committed, nobody absent");
    for metadata in [
        String::new(),
        "by hand".to_owned(),
        framed(&[("currency", 120), ("tier", 140)]),
    ] {
        assert_eq!(
            Start::seeded(&found(120, metadata.clone()), subset),
            Ok(None),
            "{metadata}"
        );
    }
    assert!(Start::seeded(&found(50, framed(&[("mission", 50), ("tier", 50)])), subset).is_err());
    let nothing = Found {
        committed: None,
        begin: BEGIN,
        end: END,
    };
    assert_eq!(Start::seeded(&nothing, subset), Ok(None));
}
