//! The alert rules name metrics as a scrape shows them, and send people to a chapter of the runbook that exists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::cli::command;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::doctor::catalogue::SLOT_LOST;
use crm_event_processors::doctor::{Finding, Report};
use crm_event_processors::inngest::Answer;
use crm_event_processors::reconcile::Kind;
use crm_event_processors::telemetry::{Telemetry, names};

use super::deploy::yaml;
use super::tidy::{anchors, assert_none, quoted, read};

const RULES: &str = "observability/alerts.yaml";

/// A scrape of instruments that have something to show.
fn scrape() -> String {
    let telemetry = Telemetry::new().expect("instruments");
    let second = Duration::from_secs(1);
    telemetry.accepted(Consumer::Tier, second);
    telemetry.answered(Consumer::Tier, &Answer::Accepted, second);
    telemetry.called(Consumer::Tier, "evaluate_tiers", "done", second);
    telemetry.dead_lettered("tier", "unknown_answer");
    telemetry.overdue(0);
    telemetry.found(Kind::ALL.map(|kind| (kind.name(), 0)), true);
    telemetry.polled();
    crate::telemetry::publish_something(&telemetry);
    let (at_ms, look) = telemetry.last_look().expect("a look");
    let mut look = Report::clone(&look);
    look.findings.push(Finding::ok(SLOT_LOST, "it is not"));
    telemetry.looked(at_ms, Arc::new(look));
    telemetry.scrape().expect("text")
}

/// Every series name of it.
pub(super) fn scraped() -> BTreeSet<String> {
    let text = scrape();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(ToOwned::to_owned)
        .collect()
}

/// The words of the rules that are our metrics.
pub(super) fn metrics_of(rules: &str) -> BTreeSet<String> {
    let code = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let ours = words.filter(|word| word.starts_with("crm_"));
    ours.map(ToOwned::to_owned).collect()
}

#[test]
fn every_metric_that_an_alert_names_is_in_a_scrape() {
    let scraped = scraped();
    let named = metrics_of(&read(RULES));
    assert!(named.len() > 10, "only {named:?}");
    let unknown = named.difference(&scraped).cloned();
    assert_none(&unknown.collect::<Vec<_>>());
}

/// Each metric with the conditions on its labels: `name{label="v",other=~"a|b"}`, as its name, a label and a value.
fn values_of(rules: &str) -> BTreeSet<(String, String, String)> {
    let mut values = BTreeSet::new();
    let code = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    for (before, conditions) in code.flat_map(|line| line.split('}').filter_map(|part| part.split_once('{'))) {
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        let Some(name) = name.filter(|name| name.starts_with("crm_")) else {
            continue;
        };
        for condition in conditions.split(',') {
            let (label, value) = condition.split_once('=').expect("a condition");
            let value = value.trim_start_matches('~').trim_matches('"');
            let words = value.split('|').map(ToOwned::to_owned);
            values.extend(words.map(|word| (name.to_owned(), label.trim_end_matches('!').to_owned(), word)));
        }
    }
    values
}

/// A rule about a value that nothing has any more would never fire again.
#[test]
fn every_value_of_a_label_that_an_alert_asks_for_is_in_a_scrape() {
    let scrape = scrape();
    let is_there = |(name, label, value): &(String, String, String)| {
        let condition = format!("{label}=\"{value}\"");
        let mut series = scrape
            .lines()
            .filter_map(|line| line.strip_prefix(name.as_str())?.strip_prefix('{'));
        series.any(|labels| labels.contains(&condition))
    };
    let values = values_of(&read(RULES));
    assert!(values.len() > 10, "only {values:?}");
    let missing = values.iter().filter(|value| !is_there(value));
    assert_none(&missing.map(|value| format!("{value:?}")).collect::<Vec<_>>());
    let renamed = values_of("expr: sum(crm_retries_total{target=~\"inngest|cache\"}) > 0");
    let missing: Vec<&str> = renamed
        .iter()
        .filter(|value| !is_there(value))
        .map(|value| &*value.2)
        .collect();
    assert_eq!(missing, ["cache"]);
}

#[test]
fn every_metric_that_has_a_name_is_in_a_scrape_and_no_other_is() {
    let scraped = scraped();
    let stem = |name: &str| {
        let ends = ["_bucket", "_sum", "_count", "_total", "_seconds", "_bytes"];
        let mut stem = name.to_owned();
        for end in ends {
            stem = stem.strip_suffix(end).unwrap_or(&stem).to_owned();
        }
        stem
    };
    let shown: BTreeSet<String> = scraped.iter().map(|name| stem(name)).collect();
    let known: BTreeSet<String> = names::ALL.into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(shown, known);
}

/// `make test-alerts` runs the cases. An alert without any would pass it.
#[test]
fn every_alert_has_a_case_that_makes_it_fire_and_one_that_does_not() {
    let rules = yaml(RULES);
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let alerts: BTreeSet<&str> = rules.map(|rule| rule["alert"].as_str().expect("a name")).collect();
    let tests = yaml("observability/alerts_test.yaml");
    let tests = tests["tests"].as_array().expect("tests");
    let (mut fire, mut rest) = (BTreeSet::new(), BTreeSet::new());
    for case in tests
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().expect("cases"))
    {
        let expected = case["exp_alerts"].as_array().expect("what is expected");
        let side = if expected.is_empty() { &mut rest } else { &mut fire };
        side.insert(case["alertname"].as_str().expect("a name"));
    }
    assert_eq!(fire, alerts, "that fire");
    assert_eq!(rest, alerts, "that do not");
    let makefile = read("Makefile");
    let test = makefile.lines().find(|line| line.starts_with("test: "));
    assert!(test.expect("the recipe").contains(" test-alerts "));
}

#[test]
fn every_alert_leads_to_a_chapter_of_the_runbook() {
    let rules = read(RULES);
    let known = anchors(&read("docs/runbook.md"));
    let alerts = rules
        .lines()
        .filter(|line| line.trim_start().starts_with("- alert: "))
        .count();
    let chapters: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("runbook: docs/runbook.md#"))
        .collect();
    assert!(alerts > 10, "only {alerts} alerts");
    assert_eq!(chapters.len(), alerts, "one for each");
    let lost = chapters
        .into_iter()
        .filter(|chapter| !known.iter().any(|anchor| anchor == chapter));
    assert_none(&lost.map(ToOwned::to_owned).collect::<Vec<_>>());
}

/// The chapters of a document by their anchors, those below others included in these.
fn chapters(text: &str) -> Vec<(String, &str)> {
    let parts = text.split("\n## ").skip(1);
    parts
        .map(|part| {
            let heading = part.lines().next().expect("a heading");
            (anchors(&format!("## {heading}")).remove(0), part)
        })
        .collect()
}

/// The commands of ours in a text, in blocks and in quotes, each as its words.
fn commands(text: &str) -> Vec<Vec<String>> {
    const NAME: &str = "crm-event-processors ";
    let lines = text.lines().chain(quoted(text));
    let ours = lines.filter_map(|line| Some((line, line.strip_prefix(NAME)?)));
    ours.map(|(line, _)| {
        // What is between quotes is one word.
        let parts = line.split('"').enumerate();
        let words = parts.flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.take_while(|word| word != "#").collect()
    })
    .collect()
}

#[test]
fn every_command_of_the_runbook_is_one() {
    let runbook = read("docs/runbook.md");
    let all = commands(&runbook);
    assert!(all.len() > 25, "only {} commands", all.len());
    let refused = all.into_iter().filter_map(|words| {
        let error = command().try_get_matches_from(&words).err()?;
        Some(format!("{}: {error}", words.join(" ")))
    });
    assert_none(&refused.collect::<Vec<_>>());
}

/// But for the list of the metrics.
#[test]
fn every_chapter_that_an_alert_leads_to_has_a_command() {
    let runbook = read("docs/runbook.md");
    let chapters = chapters(&runbook);
    let rules = read(RULES);
    let lacking = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("runbook: docs/runbook.md#"))
        .filter(|anchor| *anchor != "metrics")
        .filter(|anchor| {
            let chapter = chapters.iter().find(|(known, _)| known == anchor);
            commands(chapter.unwrap_or_else(|| panic!("no {anchor}")).1).is_empty()
        });
    assert_none(&lacking.map(ToOwned::to_owned).collect::<Vec<_>>());
}
