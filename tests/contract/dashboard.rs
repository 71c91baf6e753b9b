//! The dashboard draws metrics that exist, all of them, and stands where Grafana puts it. That each query has data is for
//! `tests/real/settled/drawn.rs`.

use std::collections::BTreeSet;

use crm_event_processors::telemetry::names;
use serde_json::{Value, json};

use super::alerts::{metrics_of, scraped};
use super::tidy::{assert_none, read};

/// What Grafana fills in, and something that a Prometheus takes in its place.
const VARIABLES: [(&str, &str); 4] = [
    ("$__rate_interval", "30s"),
    ("$__range", "5m"),
    ("$consumer", ".*"),
    ("$instance", ".*"),
];

fn dashboard() -> Value {
    serde_json::from_str(&read("observability/dashboard.json")).expect("JSON")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no {field}: {value}"))
}

/// Every query, with its variables filled in.
pub(crate) fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels").iter().filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| list(panel, "targets"));
    let filled = |target: &Value| {
        let query = target["expr"].as_str().expect("a query").to_owned();
        let filled = VARIABLES
            .iter()
            .fold(query, |query, (name, value)| query.replace(name, value));
        assert!(!filled.contains('$'), "nobody fills this in: {filled}");
        filled
    };
    targets.map(filled).collect()
}

#[test]
fn the_dashboard_draws_every_metric_and_none_that_nobody_shows() {
    let named = metrics_of(&queries().join("\n"));
    let scraped = scraped();
    let unknown = named
        .difference(&scraped)
        .map(|name| format!("{name} is drawn, and in no scrape"));
    assert_none(&unknown.collect::<Vec<_>>());
    let is_drawn = |name: &&str| {
        named
            .iter()
            .any(|series| series == name || series.starts_with(&format!("{name}_")))
    };
    let missing = names::ALL.into_iter().filter(|name| !is_drawn(name));
    assert_none(&missing.map(|name| format!("{name} is not drawn")).collect::<Vec<_>>());
}

/// What Grafana would refuse, overwrite or draw over another.
fn problems(dashboard: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if dashboard["uid"] != "crm-event-processors" || dashboard.get("id").is_some() {
        problems.push("an import would make a second one, or overwrite another".to_owned());
    }
    if dashboard["schemaVersion"].as_u64().is_none_or(|version| version < 36) {
        problems.push("of a form that Grafana migrates".to_owned());
    }
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(dashboard, "panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        if title.is_empty() || !titles.insert(title) || !ids.insert(panel["id"].as_u64()) {
            problems.push(format!("{title}: without a title or an id of its own"));
        }
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or_default());
        let [x, y, w, h] = place;
        let cells: Vec<(u64, u64)> = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))).collect();
        if cells.is_empty() || x + w > 24 || cells.into_iter().any(|cell| !taken.insert(cell)) {
            problems.push(format!("{title}: outside of the grid, or over another: {place:?}"));
        }
        if panel["type"] == "row" {
            continue;
        }
        if !["stat", "timeseries", "bargauge"]
            .iter()
            .any(|kind| panel["type"] == *kind)
        {
            problems.push(format!("{title}: needs more than Grafana brings along"));
        }
        if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none() {
            problems.push(format!("{title}: without a unit"));
        }
        let mut references = BTreeSet::new();
        for target in list(panel, "targets") {
            if target["datasource"] != source || panel["datasource"] != source {
                problems.push(format!("{title}: asks one data source, not the chosen one"));
            }
            if !references.insert(target["refId"].as_str()) {
                problems.push(format!("{title}: two queries of one name"));
            }
            // Pushed once a minute: Grafana makes its interval of four such steps, and of four scrapes if nobody says so.
            let is_rate = target["expr"]
                .as_str()
                .is_some_and(|query| query.contains("$__rate_interval"));
            if is_rate != (target["interval"] == "1m") {
                problems.push(format!("{title}: empty where metrics are pushed once a minute"));
            }
        }
        if references.is_empty() {
            problems.push(format!("{title}: asks nothing"));
        }
    }
    problems
}

#[test]
fn the_dashboard_can_be_imported_anywhere_and_no_panel_covers_another() {
    let dashboard = dashboard();
    assert_none(&problems(&dashboard));
    let panels = list(&dashboard, "panels").len();
    assert!(panels > 30, "only {panels} panels");
    for (place, value) in [
        ("/uid", json!("another")),
        ("/schemaVersion", json!(16)),
        ("/panels/2/id", dashboard["panels"][1]["id"].clone()),
        ("/panels/2/gridPos/x", json!(1)),
        ("/panels/8/gridPos/w", json!(4)),
        ("/panels/2/type", json!("volkovlabs-echarts-panel")),
        ("/panels/2/fieldConfig/defaults/unit", Value::Null),
        ("/panels/2/targets/0/datasource/uid", json!("abc123")),
        ("/panels/2/targets/0/interval", Value::Null),
        ("/panels/2/targets", json!([])),
    ] {
        let mut broken = dashboard.clone();
        *broken
            .pointer_mut(place)
            .unwrap_or_else(|| panic!("nothing at {place}")) = value;
        assert_eq!(problems(&broken).len(), 1, "{place}: {:?}", problems(&broken));
    }
}

/// Descriptions send people to chapters by their names.
#[test]
fn every_chapter_that_a_panel_names_is_in_the_runbook() {
    let runbook = read("docs/runbook.md");
    let headings: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let dashboard = dashboard();
    let mut named = 0;
    let mut missing = Vec::new();
    for panel in list(&dashboard, "panels") {
        let text = panel["description"].as_str().unwrap_or_default();
        let Some((_, chapters)) = text.split_once("Runbook: ") else {
            assert!(!text.to_lowercase().contains("runbook"), "{text}");
            continue;
        };
        for chapter in chapters.trim_end_matches('.').split("; ") {
            named += 1;
            if !headings.contains(&chapter) {
                missing.push(format!("no chapter: {chapter}"));
            }
        }
    }
    assert!(named > 15, "only {named} chapters are named");
    assert_none(&missing);
}
