//! What is deployed, and how: `render.yaml`, the Dockerfiles, `compose.yaml`, GitHub Actions, and the binary that goes into
//! the image.
//!
//! It reads these files as what they are, YAML and instructions, never as text that happens to hold a word. Rules are functions
//! from a document to what is wrong with it, so that a test can break the document and see each rule notice. What schemas say is
//! checked by `deploy/lint` too; nothing here starts an engine.

mod actions;
mod binary;
mod compose;
mod image;
mod render;

use std::collections::BTreeSet;

use clap::Args as _;
use crm_event_processors::config::{PlatformFlags, RunFlags};
use serde_json::{Map, Value};

use super::tidy::read;

/// YAML as JSON. `off` and `yes` are texts, as for everybody who reads these files.
pub(super) fn yaml(path: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&read(path), options).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A copy with this at this place, which must be there; nothing removes it.
fn changed(document: &Value, place: &str, to: Value) -> Value {
    let mut copy = document.clone();
    let (parent, key) = place.rsplit_once('/').expect("a place");
    let parent = copy.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {place}"));
    match parent {
        Value::Object(fields) if to.is_null() => assert!(fields.remove(key).is_some(), "nothing at {place}"),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), to)),
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = to,
        _ => panic!("nothing can be at {place}"),
    }
    copy
}

/// Each change of a document that is well is found, in words that hold these.
fn assert_found(document: &Value, problems: impl Fn(&Value) -> Vec<String>, changes: Vec<(&str, Value, &str)>) {
    for (place, to, words) in changes {
        let found = problems(&changed(document, place, to));
        assert!(
            found.iter().any(|problem| problem.contains(words)),
            "{place}: no `{words}` in {found:?}"
        );
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn fields(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

/// The variables of `run` whose values no help shows: keys, passwords, addresses that hold some.
fn secrets() -> BTreeSet<String> {
    let command = RunFlags::augment_args(clap::Command::new("run"));
    let hidden = command.get_arguments().filter(|arg| arg.is_hide_env_values_set());
    let secrets: BTreeSet<String> = hidden
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect();
    assert!(secrets.contains("KAFKA_API_SECRET") && secrets.contains("DATABASE_URL"));
    secrets
}

/// Where the connector runs, which `run`, `check` and `connectors` ask.
fn platform_variables() -> BTreeSet<String> {
    let command = PlatformFlags::augment_args(clap::Command::new("check"));
    let named = command.get_arguments().filter_map(clap::Arg::get_env);
    named.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// The variables of the workflows, from their list.
fn workflows_variables() -> BTreeSet<String> {
    let settings = read("workflows/src/settings.ts");
    let list = settings
        .split("export const VARIABLES = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .expect("a list");
    let names: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    assert!(names.contains("INNGEST_SIGNING_KEY"), "{names:?}");
    names
}

/// One instruction of a Dockerfile, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instruction {
    word: String,
    rest: String,
}

impl Instruction {
    /// The exec form: a list of texts. The shell form is none.
    fn exec(&self) -> Option<Vec<String>> {
        serde_json::from_str(&self.rest).ok()
    }
}

/// The instructions by stage; each begins with its FROM.
fn stages(path: &str) -> Vec<Vec<Instruction>> {
    let text = read(path);
    let code: String =
        text.lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .fold(String::new(), |code, line| match line.strip_suffix('\\') {
                Some(open) => code + open + " ",
                None => code + line + "\n",
            });
    let mut stages: Vec<Vec<Instruction>> = Vec::new();
    for line in code.lines().filter(|line| !line.trim().is_empty()) {
        let (word, rest) = line.trim().split_once(' ').expect("an instruction");
        if word == "FROM" {
            stages.push(Vec::new());
        }
        stages.last_mut().expect("FROM comes first").push(Instruction {
            word: word.to_owned(),
            rest: rest.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
    stages
}

fn last<'a>(stage: &'a [Instruction], word: &str) -> &'a Instruction {
    let found = stage.iter().rfind(|instruction| instruction.word == word);
    found.unwrap_or_else(|| panic!("no {word}"))
}

/// What a context lets in, as its `.dockerignore` says: everything is out that is not named.
fn let_in(context: &str) -> BTreeSet<String> {
    let text = read(&format!("{context}/.dockerignore"));
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "everything is out first");
    lines
        .map(|line| {
            line.strip_prefix('!')
                .unwrap_or_else(|| panic!("{line} leaves out"))
                .to_owned()
        })
        .collect()
}
