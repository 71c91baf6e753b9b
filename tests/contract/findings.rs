//! Every finding of `check` has its chapter in the runbook, and what a fix names exists: chapters and our own commands.

use std::collections::BTreeSet;

use crm_event_processors::cli;
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
    for (_, source) in judges() {
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

/// The sources in which fixes are written.
fn judges() -> Vec<(String, String)> {
    let folder = "src/doctor/judges";
    let entries = std::fs::read_dir(folder).expect("the judges");
    let names = entries.map(|entry| format!("{folder}/{}", entry.expect("an entry").file_name().display()));
    let judges: Vec<(String, String)> = names.map(|name| (name.clone(), read(&name))).collect();
    assert!(judges.len() > 8, "{judges:?}");
    judges
}

#[test]
fn every_command_of_ours_that_a_fix_names_is_one() {
    let mut wrong = Vec::new();
    let mut commands = 0;
    for (place, source) in judges() {
        for rest in source.split("crm-event-processors ").skip(1) {
            // Up to where a string, a quotation or a line of the fix ends.
            let end = |c: char| "`\"\\;{<,\n".contains(c);
            let words: Vec<&str> = rest.split(end).next().unwrap_or_default().split_whitespace().collect();
            // A sentence about the program.
            if words.is_empty() {
                continue;
            }
            commands += 1;
            if let Err(why) = is_one(&words) {
                wrong.push(format!("{place}: {}: {why}", words.join(" ")));
            }
        }
    }
    assert!(commands > 8, "{commands} commands");
    assert_none(&wrong);
}

/// Subcommands and flags; what a flag is given is its own business.
fn is_one(words: &[&str]) -> Result<(), String> {
    let mut command = cli::command();
    for word in words {
        if let Some(flag) = word.strip_prefix("--") {
            let known = |argument: &clap::Arg| argument.get_long() == Some(flag);
            if !command.get_arguments().any(known) {
                return Err(format!("no flag --{flag}"));
            }
        } else if command.has_subcommands() {
            let found = command.find_subcommand(word).cloned();
            command = found.ok_or_else(|| format!("no command {word}"))?;
        }
    }
    Ok(())
}
