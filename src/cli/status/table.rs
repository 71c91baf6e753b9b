//! What `/statusz` says, as lines for a person. Pure. A worker of another version may say less: what is missing is left out,
//! and all text in it is made inert.

use std::ops::Range;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use super::Paint;
use crate::inert::clean;

/// Ends of records that are shown, and their columns.
const OUTCOMES: [(&str, &str); 6] = [
    ("delivered", "delivered"),
    ("superseded", "superseded"),
    ("duplicate", "duplicate"),
    ("ignored", "ignored"),
    ("dead_lettered", "dead"),
    ("shadowed", "shadowed"),
];

pub(super) fn lines(told: &Value, address: &str, paint: Option<Paint>) -> Vec<String> {
    let mut lines = head(told, address, paint);
    let rows = |table: String| table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    lines.push(String::new());
    lines.extend(rows(consumers(told)));
    lines.push(String::new());
    lines.extend(errors(told));
    lines.extend(source(told));
    // Last: there may be more of them than a screen has lines.
    if let Some(partitions) = partitions(told) {
        lines.push(String::new());
        lines.extend(rows(partitions));
    }
    lines
}

fn head(told: &Value, address: &str, paint: Option<Paint>) -> Vec<String> {
    let flow = &told["flow"];
    let state = word(&flow["state"]);
    let shown = state.to_uppercase();
    let shown = match (paint, colour(&state)) {
        (Some(Paint), Some(colour)) => format!("\u{1b}[1;{colour}m{shown}\u{1b}[0m"),
        _ => shown,
    };
    let version = word(&told["version"]);
    let mut lines = vec![format!("{shown}  crm-event-processors {version} at {}", clean(address))];
    // A worker that does not say how it flows says at least what keeps it from being ready.
    let why = flow["why"].as_array().or_else(|| told["problems"].as_array());
    for why in why.into_iter().flatten() {
        lines.push(format!("  {}", word(why)));
    }
    lines.extend(totals(told));
    lines.extend(client(told));
    lines
}

/// Of all consumers together.
fn totals(told: &Value) -> Option<String> {
    let totals = &told["totals"];
    let of = |name: &str| count(&totals[name]);
    let (behind, flying, letters) = (of("behind"), of("in_flight"), of("letters"));
    let rate = number(&totals["received_a_second"]);
    let shown =
        format!("{rate:.1} records a second, {behind} behind, {flying} in flight, {letters} dead letters written");
    totals.is_object().then_some(shown)
}

/// The Kafka client, and the loops.
fn client(told: &Value) -> Option<String> {
    let client = &told["client"];
    let of = |name: &str| age(number(&client[name]) / 1000.0);
    let (poll, tick, commit) = (of("poll_age_ms"), of("tick_age_ms"), of("commit_age_ms"));
    let mut shown = format!("client: polled {poll} ago, ticked {tick} ago, a commit outstanding for {commit}");
    for (cause, partitions) in client["paused"].as_object().into_iter().flatten() {
        if number(partitions) > 0.0 {
            let partitions = count(partitions);
            shown.push_str(&format!(", {partitions} paused for {}", clean(cause)));
        }
    }
    shown.push_str(&format!(", {} rebalances", count(&client["rebalances"])));
    if let Some(reason) = client["last_rebalance"].as_str().filter(|reason| !reason.is_empty()) {
        shown.push_str(&format!(": {}", clean(reason)));
    }
    // Before the first tick nothing has gone round, and there is no time.
    (client.is_object() && number(&told["now_ms"]) > 0.0).then_some(shown)
}

fn colour(state: &str) -> Option<u8> {
    match state {
        "stuck" => Some(31),
        "held" | "starting" | "draining" => Some(33),
        "flowing" | "idle" => Some(32),
        _ => None,
    }
}

fn consumers(told: &Value) -> String {
    let consumers = list(&told["consumers"]);
    // Columns of what never happened would only push the others out.
    let happened = |outcome: &str| {
        let counts = consumers.iter().map(|one| number(&one["outcomes"][outcome]));
        counts.sum::<f64>() > 0.0
    };
    let outcomes: Vec<_> = OUTCOMES
        .into_iter()
        .filter(|(outcome, _)| *outcome == "delivered" || happened(outcome))
        .collect();
    let mut header = vec!["consumer", "lag", "a second", "in flight"];
    header.extend(outcomes.iter().map(|(_, column)| *column));
    header.extend(["p50", "p95", "p99"]);
    let mut rows = Vec::new();
    for one in consumers {
        let rates = one["rates"].as_object();
        let rate: f64 = rates.into_iter().flatten().map(|(_, rate)| number(rate)).sum();
        let mut row = vec![
            word(&one["name"]),
            count(&one["lag"]),
            format!("{rate:.1}"),
            count(&one["in_flight"]),
        ];
        row.extend(outcomes.iter().map(|(outcome, _)| count(&one["outcomes"][*outcome])));
        let latency = &one["latency_ms"];
        row.extend(["p50", "p95", "p99"].map(|name| latency[name].as_f64().map_or_else(dash, ms)));
        rows.push(row);
    }
    table(&header, rows, 1..header.len())
}

/// `None` if it has none. Those that somebody should look at come first.
fn partitions(told: &Value) -> Option<String> {
    let mut partitions: Vec<&Value> = list(&told["partitions"]).iter().collect();
    let halted = list(&told["halted"]);
    if partitions.is_empty() && halted.is_empty() {
        return None;
    }
    let is_waiting = |one: &Value| number(&one["outstanding"]) > 0.0 || one["paused"] == true;
    partitions.sort_by_key(|one| !is_waiting(one));
    let header = [
        "partition",
        "committed",
        "position",
        "in hand",
        "skew",
        "held by",
        "state",
    ];
    let mut rows = Vec::new();
    for one in halted {
        let mut row = vec![place(one), count(&one["committed"])];
        row.extend([dash(), dash(), dash(), dash(), "halted".to_owned()]);
        rows.push(row);
    }
    for one in partitions {
        let held: Vec<String> = list(&one["held_by"]).iter().map(word).collect();
        let state = if one["paused"] == true { "paused" } else { "" };
        let mut row = vec![place(one)];
        row.extend(["committed", "position", "outstanding", "skew"].map(|name| count(&one[name])));
        row.extend([held.join(", "), state.to_owned()]);
        rows.push(row);
    }
    Some(table(&header, rows, 1..5))
}

fn errors(told: &Value) -> Vec<String> {
    let now_ms = number(&told["now_ms"]);
    let mut errors: Vec<(String, &Value)> = list(&told["consumers"])
        .iter()
        .map(|one| (word(&one["name"]), &one["last_error"]))
        .collect();
    errors.push(("decode".to_owned(), &told["undecodable"]));
    let errors = errors.into_iter().filter(|(_, error)| error.is_object());
    let mut lines: Vec<String> = errors
        .map(|(name, error)| {
            let seconds = ((now_ms - number(&error["at_ms"])) / 1000.0).max(0.0);
            let (target, detail) = (word(&error["target"]), word(&error["detail"]));
            format!("  {name}: {target}, {} ago: {detail}", age(seconds))
        })
        .collect();
    if !lines.is_empty() {
        lines.insert(0, "last errors".to_owned());
        lines.push(String::new());
    }
    lines
}

fn source(told: &Value) -> Vec<String> {
    let source = &told["source"];
    if !source.is_object() {
        return vec!["source: nobody looks at it".to_owned()];
    }
    let findings = list(&source["findings"]);
    let seconds = ((number(&told["now_ms"]) - number(&source["looked_ms"])) / 1000.0).max(0.0);
    let of = |severity: &str| findings.iter().filter(|one| one["severity"] == severity).count();
    let mut lines = vec![format!(
        "source: {} failed, {} warnings, {} not verifiable, {} ok; looked at {} ago",
        of("failed"),
        of("warning"),
        of("not_verifiable"),
        of("ok"),
        age(seconds)
    )];
    for severity in ["failed", "warning"] {
        for one in findings.iter().filter(|one| one["severity"] == severity) {
            lines.push(format!("  {severity} {}: {}", word(&one["id"]), word(&one["what"])));
        }
    }
    lines
}

/// `numbers`: the columns that hold numbers.
fn table(header: &[&str], rows: Vec<Vec<String>>, numbers: Range<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn place(one: &Value) -> String {
    format!("{}/{}", word(&one["topic"]), count(&one["partition"]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn dash() -> String {
    "-".to_owned()
}

fn count(value: &Value) -> String {
    value.as_i64().map_or_else(dash, |count| count.to_string())
}

/// A text of the worker's, on one line.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(dash, clean)
}

/// Three digits will do.
fn ms(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        ..60_000.0 => format!("{:.1} s", ms / 1000.0),
        // What took longer than the worker tells apart.
        3_600_000.0.. => "≥ 1 h".to_owned(),
        _ => age(ms / 1000.0),
    }
}

fn age(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.0} s"),
        ..3600.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        ..86_400.0 => format!("{:.0} h", (seconds / 3600.0).floor()),
        _ => format!("{:.0} d", (seconds / 86_400.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> Value {
        let consumer = |name: &str, lag: i64, error: Value| {
            json!({
                "name": name, "lag": lag, "in_flight": 2,
                "outcomes": {"delivered": 1200, "ignored": 7, "dead_lettered": 0},
                "rates": {"delivered": 20.04, "ignored": 0.1},
                "latency_ms": {"events": 9, "p50": 4.26, "p95": 180.0, "p99": 61_000.0},
                "last_error": error,
            })
        };
        let partition = |partition: i64, outstanding: i64, held_by: Value| {
            json!({
                "topic": "crm.public.codes", "partition": partition, "committed": 90, "position": 100,
                "outstanding": outstanding, "paused": false, "skew": 10, "held_by": held_by,
            })
        };
        json!({
            "version": "0.1.0", "now_ms": 1_000_000,
            "flow": {"state": "stuck", "why": ["tier stands still: 401"]},
            "consumers": [
                consumer("tier", 40, json!({"at_ms": 880_000, "target": "inngest", "detail": "401"})),
                consumer("reward", 0, Value::Null),
            ],
            "partitions": [partition(0, 0, json!([])), partition(1, 10, json!(["tier"]))],
            "halted": [{"topic": "crm.public.codes", "partition": 7, "committed": 5, "reason": "gap"}],
            "totals": {"received_a_second": 12.5, "behind": 40, "in_flight": 4, "letters": 3},
            "client": {
                "poll_age_ms": 90, "tick_age_ms": 61_000, "commit_age_ms": 3000, "rebalances": 2,
                "last_rebalance": "group is rebalancing", "paused": {"room": 0, "skew": 1},
            },
            "source": {"looked_ms": 990_000, "findings": [
                {"id": "slot.inactive", "severity": "failed", "what": "nobody reads"},
                {"id": "slot.lost", "severity": "ok", "what": "fine"},
            ]},
        })
    }

    #[test]
    fn a_status_is_a_screen_that_says_first_how_it_stands_and_why() {
        let shown = lines(&told(), "http://127.0.0.1:8080", None).join("\n");
        insta::assert_snapshot!(shown, @r"
        STUCK  crm-event-processors 0.1.0 at http://127.0.0.1:8080
          tier stands still: 401
        12.5 records a second, 40 behind, 4 in flight, 3 dead letters written
        client: polled 0 s ago, ticked 1 min ago, a commit outstanding for 3 s, 1 paused for skew, 2 rebalances: group is rebalancing

         consumer  lag  a second  in flight  delivered  ignored     p50     p95    p99
         tier       40      20.1          2       1200        7  4.3 ms  180 ms  1 min
         reward      0      20.1          2       1200        7  4.3 ms  180 ms  1 min

        last errors
          tier: inngest, 2 min ago: 401

        source: 1 failed, 0 warnings, 0 not verifiable, 1 ok; looked at 10 s ago
          failed slot.inactive: nobody reads

         partition           committed  position  in hand  skew  held by  state
         crm.public.codes/7          5         -        -     -  -        halted
         crm.public.codes/1         90       100       10    10  tier
         crm.public.codes/0         90       100        0    10
        ");
    }

    #[test]
    fn a_worker_of_another_version_that_says_less_is_shown_as_far_as_it_says_something() {
        for told in [
            json!({"consumers": []}),
            json!({"consumers": [], "now_ms": 0, "client": {"poll_age_ms": 4000}}),
            json!({"consumers": [{}], "partitions": [{}], "source": {}}),
        ] {
            let shown = lines(&told, "http://x", None).join("\n");
            assert!(shown.starts_with("-  crm-event-processors - at http://x"), "{shown}");
            assert!(!shown.contains("polled"), "{shown}");
        }
    }

    #[test]
    fn whatever_a_worker_says_moves_no_cursor() {
        let hostile = "a\u{1b}[2J\nforged\u{202e}";
        let text = told().to_string();
        let mut told: Value = serde_json::from_str(&text.replace("401", "HOSTILE")).expect("JSON");
        for at in [
            "/version",
            "/flow/state",
            "/flow/why/0",
            "/consumers/0/name",
            "/consumers/0/last_error/detail",
            "/partitions/1/topic",
            "/partitions/1/held_by/0",
            "/halted/0/topic",
            "/source/findings/0/what",
            "/client/last_rebalance",
        ] {
            *told.pointer_mut(at).expect("it is there") = hostile.into();
        }
        let shown = lines(&told, "http://x", None);
        let all = shown.join(" ");
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all:?}");
        assert_eq!(shown.len(), lines(&super::tests::told(), "http://x", None).len());
    }

    #[test]
    fn what_took_longer_than_anybody_tells_apart_is_said_so() {
        assert_eq!(ms(3_599_000.0), "59 min");
        assert_eq!(ms(3_600_000.0), "≥ 1 h");
    }

    #[test]
    fn what_went_wrong_stands_above_however_many_partitions_there_are() {
        let mut told = told();
        let one = told["partitions"][0].clone();
        told["partitions"] = vec![one; 100].into();
        let lines = lines(&told, "http://x", None);
        let at = |word: &str| lines.iter().position(|line| line.contains(word)).expect("it is there");
        assert!(
            at("last errors") < 12 && at("source: ") < 15 && at("slot.inactive") < at("position"),
            "{lines:?}"
        );
    }

    #[test]
    fn colours_are_for_terminals() {
        let plain = lines(&told(), "http://x", None).concat();
        assert!(!plain.contains('\u{1b}'));
        let painted = lines(&told(), "http://x", Some(Paint));
        assert!(painted[0].starts_with("\u{1b}[1;31mSTUCK\u{1b}[0m"), "{painted:?}");
    }
}
