//! Every finding of `check` has its chapter in the runbook, and what a fix names there exists.

use std::collections::BTreeSet;

use crm_event_processors::doctor::catalogue::ALL;

use super::tidy::{anchors, assert_none, read};

#[test]
fn the_runbook_has_a_chapter_for_every_finding_and_for_no_other() {
    let runbook = read("docs/runbook.md");
    let heading = |line: &str| Some(line.strip_prefix("### `")?.strip_suffix('`')?.to_owned());
    let chapters: Vec<String> = runbook.lines().filter_map(heading).collect();
    let ids: Vec<&str> = ALL.iter().map(|id| id.name()).collect();
    assert_eq!(chapters, ids, "in the same order");
}

#[test]
fn every_chapter_that_a_finding_names_exists() {
    let anchors: BTreeSet<String> = anchors(&read("docs/runbook.md")).into_iter().collect();
    let mut named: BTreeSet<String> = ALL.iter().map(|id| id.runbook()).collect();
    for judge in [
        "connector",
        "group",
        "inngest",
        "kafka",
        "postgres",
        "redis",
        "slot",
        "windows",
    ] {
        let source = read(&format!("src/doctor/judges/{judge}.rs"));
        let links = source.split("docs/runbook.md#").skip(1);
        let end = |c: char| !(c.is_alphanumeric() || c == '-' || c == '_');
        named.extend(links.filter_map(|rest| rest.split(end).next().map(|anchor| format!("docs/runbook.md#{anchor}"))));
    }
    assert!(named.len() > ALL.len(), "no judge names a chapter");
    let missing = named.into_iter().filter(|link| {
        let (_, anchor) = link.split_once('#').expect("a link");
        !anchors.contains(anchor)
    });
    assert_none(&missing.collect::<Vec<_>>());
}
