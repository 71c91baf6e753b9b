use super::*;

/// 2026-11-20T12:00:00Z.
const NOW_MS: i64 = 1_795_176_000_000;
const GRACE: Grace = Grace {
    now_ms: NOW_MS,
    grace_ms: 900_000,
};
const OLD_MS: i64 = NOW_MS - 86_400_000;
const YOUNG_MS: i64 = NOW_MS - 60_000;

fn line(offset: i64, commit_ms: i64, rest: &str) -> String {
    format!(
        r#"{{"consumer":"currency","topic":"crm.public.purchase_ledger","partition":0,"offset":{offset},
        "table":"purchase_ledger","row_id":"p","op":"u","commit_ms":{commit_ms},{rest}}}"#
    )
    .replace('\n', "")
        + "\n"
}

fn delivers(offset: i64, commit_ms: i64, target: i64, due_at: &str) -> String {
    let due_at = if due_at.is_empty() {
        String::new()
    } else {
        format!(r#","due_at":"{due_at}""#)
    };
    let rest = format!(r#""outcome":"deliver","reason":"due_now","effect_key":"award:p","target":{target}{due_at}"#);
    line(offset, commit_ms, &rest)
}

fn ignores(offset: i64, commit_ms: i64, reason: &str) -> String {
    line(offset, commit_ms, &format!(r#""outcome":"ignore","reason":"{reason}""#))
}

fn shadow(text: &str) -> Shadow {
    let mut shadow = Shadow::default();
    shadow.read("shadow", text.as_bytes()).expect("readable");
    shadow
}

/// What `effects` has of the purchase.
fn applied(target: i64) -> Known {
    Known {
        target: Some(target),
        changed_ms: Some(OLD_MS),
        of_ms: Some(OLD_MS),
        table: Some(Table::PurchaseLedger),
        ..Known::default()
    }
}

/// What the wallet has for the purchase, where `effects` has nothing.
fn booked(points: i64) -> Known {
    Known {
        booked_when_due: true,
        ..applied(points)
    }
}

fn system(known: Option<Known>) -> System {
    let mut system = System::default();
    if let Some(known) = known {
        system.knows("award:p".to_owned(), known);
    }
    system
}

/// The one place of the one fact, in a word.
fn stands(text: &str, known: Option<Known>) -> String {
    let compared = shadow(text).compare(&system(known), GRACE);
    let counts = [
        (compared.agree, "agree"),
        (compared.in_flight, "in_flight"),
        (compared.scheduled, "scheduled"),
        (compared.not_ours, "not_ours"),
        (compared.unseen, "unseen"),
    ];
    let mut words: Vec<&str> = Vec::new();
    for (count, word) in counts {
        words.extend(std::iter::repeat_n(word, count));
    }
    words.extend(compared.findings.iter().map(|finding| finding.kind));
    words.join(" ")
}

#[test]
fn every_fact_of_a_shadow_stands_in_one_place() {
    let due = "2026-11-20T00:00:00+00:00";
    let other_due = Known {
        due_ms: ms_of("2026-11-19T00:00:00Z"),
        ..applied(100)
    };
    let same_due = Known {
        due_ms: ms_of("2026-11-20T07:00:00+07:00"),
        ..applied(100)
    };
    let just_changed = Known {
        changed_ms: Some(YOUNG_MS),
        ..applied(40)
    };
    let something = Known {
        target: None,
        ..applied(0)
    };
    for (text, known, place) in [
        (delivers(1, OLD_MS, 100, due), Some(applied(100)), "agree"),
        (delivers(1, OLD_MS, 100, due), Some(same_due), "agree"),
        (delivers(1, OLD_MS, 100, due), Some(booked(100)), "agree"),
        (delivers(1, OLD_MS, 100, ""), Some(something.clone()), "agree"),
        (delivers(1, OLD_MS, 0, ""), None, "agree"),
        (ignores(1, OLD_MS, "refunded"), None, "agree"),
        (ignores(1, OLD_MS, "refunded"), Some(applied(0)), "agree"),
        (delivers(1, OLD_MS, 100, due), None, "only_shadow"),
        (delivers(1, OLD_MS, 100, due), Some(applied(0)), "differs"),
        (delivers(1, OLD_MS, 100, due), Some(applied(40)), "differs"),
        (delivers(1, OLD_MS, 100, due), Some(booked(40)), "differs"),
        (delivers(1, OLD_MS, 100, due), Some(other_due), "differs"),
        (ignores(1, OLD_MS, "no_program"), Some(applied(100)), "only_system"),
        (delivers(1, OLD_MS, 0, ""), Some(booked(100)), "only_system"),
        (ignores(1, OLD_MS, "pending"), Some(something), "only_system"),
        // Either side may be on its way.
        (delivers(1, YOUNG_MS, 100, due), None, "in_flight"),
        (delivers(1, YOUNG_MS, 0, ""), Some(applied(100)), "in_flight"),
        (delivers(1, OLD_MS, 100, due), Some(just_changed), "in_flight"),
        // A wallet shows nothing before it is due; `effects` does.
        (delivers(1, OLD_MS, 100, "2026-12-20T00:00:00Z"), None, "scheduled"),
        (
            delivers(1, OLD_MS, 100, "2026-12-20T00:00:00Z"),
            Some(booked(40)),
            "differs",
        ),
        (
            delivers(1, OLD_MS, 100, "2026-12-20T00:00:00Z"),
            Some(applied(0)),
            "differs",
        ),
        (ignores(1, OLD_MS, "before_cut_off"), Some(booked(100)), "not_ours"),
        (
            line(1, OLD_MS, r#""outcome":"dead","reason":"points_overflow""#),
            Some(applied(100)),
            "dead",
        ),
    ] {
        assert_eq!(stands(&text, known.clone()), place, "{text} {known:?}");
    }
}

#[test]
fn the_newest_line_of_a_fact_counts_in_whatever_order_and_however_often_it_stands_there() {
    let (first, then) = (delivers(7, OLD_MS, 100, ""), delivers(9, OLD_MS + 1, 40, ""));
    for text in [
        format!("{first}{then}"),
        format!("{then}{first}"),
        format!("{first}{then}{first}{then}{first}"),
    ] {
        assert_eq!(stands(&text, Some(applied(40))), "agree", "{text}");
        assert_eq!(stands(&text, Some(applied(100))), "differs", "{text}");
    }
    // In one transaction the offset tells.
    let text = format!("{}{}", delivers(9, OLD_MS, 40, ""), delivers(7, OLD_MS, 100, ""));
    assert_eq!(stands(&text, Some(applied(40))), "agree");
    // An old image that proves that there was nothing says so of the row as it is now.
    let text = format!("{first}{}", ignores(9, OLD_MS + 1, "was_zero_before"));
    assert_eq!(stands(&text, None), "agree");
}

#[test]
fn what_only_the_system_knows_is_a_finding_where_the_shadow_had_to_see_it() {
    let seen = |id: &str, at_ms: i64| ignores(1, at_ms, "refunded").replace(r#""p""#, &format!(r#""{id}""#));
    let window = format!("{}{}", seen("first", OLD_MS - 10), seen("last", OLD_MS + 10));
    for (of_ms, place) in [
        (Some(OLD_MS), "agree agree only_system"),
        (Some(OLD_MS - 11), "agree agree unseen"),
        (Some(OLD_MS + 11), "agree agree unseen"),
        // What does not tell when it was is not excused.
        (None, "agree agree only_system"),
    ] {
        let known = Known { of_ms, ..booked(100) };
        assert_eq!(stands(&window, Some(known)), place, "{of_ms:?}");
    }
    // A shadow that has read nothing of the table proves nothing.
    assert_eq!(stands("", Some(booked(100))), "unseen");
    // Booked and taken back is nothing.
    assert_eq!(stands("", Some(booked(0))), "");
}

#[test]
fn a_row_about_which_nothing_is_to_be_done_stands_for_all_its_facts() {
    let text = |consumer: &str, table: &str, reason: &str| {
        let line = ignores(1, OLD_MS, reason).replace("currency", consumer);
        line.replace("\"purchase_ledger\"", &format!("\"{table}\""))
    };
    let keys = |text: &str| shadow(text).facts.into_keys().collect::<Vec<_>>();
    assert_eq!(keys(&text("reward", "mission_claims", "revoked")), ["grant:p"]);
    assert_eq!(
        keys(&text("reward", "referral_ledger", "pending")),
        ["referral:p:referee", "referral:p:referrer"]
    );
    assert_eq!(keys(&text("marketplace", "codes", "expired")), ["code:p"]);
    // What was fulfilled stays.
    assert_eq!(keys(&text("marketplace", "codes", "redeemed_before")), [""; 0]);
    assert_eq!(keys(&text("tier", "purchase_ledger", "not_in_metric")), [""; 0]);
}

#[test]
fn what_is_evaluated_is_counted_and_what_cannot_be_read_is_found() {
    let tier = line(
        1,
        OLD_MS,
        r#""outcome":"deliver","reason":"spend_may_have_changed","effect_key":"tier:m:u""#,
    );
    let undecodable = r#"{"consumer":"decode","topic":"crm.public.codes","partition":3,"offset":7,"outcome":"dead","reason":"not_json"}"#;
    let text = format!("{tier}no line\n{undecodable}\n{{\"consumer\":\"torn");
    let compared = shadow(&text).compare(&System::default(), GRACE);
    assert_eq!((compared.lines, compared.not_compared, compared.facts), (2, 1, 0));
    let findings: Vec<(&str, &str)> = compared
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.subject.as_str()))
        .collect();
    assert_eq!(
        findings,
        [("dead", "crm.public.codes/3:7"), ("unreadable", "shadow:2")],
        "and the torn last line is not one"
    );
}

#[test]
fn what_another_worker_sent_is_read_in_its_words_and_in_ours() {
    let sent = r#"
        {"id":"1","name":"loyalty/award.scheduled","ts":1795000000000,"data":{"effect_key":"award:p","target_points":"100"}}
        {"name":"points.award","data":{"purchase_id":"p:2","points":40}}
        {"name":"points.award","data":{"purchase_id":7}}
        {"name":"loyalty/award.scheduled","data":{"effect_key":"award:q","target_points":"100"}}
        {"name":"loyalty/award.cancelled","data":{"effect_key":"award:q","target_points":"0"}}
        {"name":"loyalty/reward.granted","data":{"effect_key":"grant:c"}}
        {"name":"loyalty/tier.evaluation_requested","data":{"effect_key":"tier:m:u"}}
        {"name":"points.award","data":{"user":"u"}}
        half a line"#;
    let (system, unreadable) = System::read(sent.as_bytes()).expect("readable");
    assert_eq!(unreadable, [9, 10]);
    let targets: Vec<(&str, Option<i64>)> = system
        .0
        .iter()
        .map(|(key, known)| (key.as_str(), known.target))
        .collect();
    assert_eq!(
        targets,
        [
            ("award:7", None),
            ("award:p", Some(100)),
            ("award:p%3A2", Some(40)),
            ("award:q", Some(0)),
            ("grant:c", Some(1)),
        ]
    );
}
