//! Every rule here was once a remark in a review. A remark made twice becomes a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crm_event_processors::config;
use crm_event_processors::inngest::event::ANNOUNCED_V;
use crm_event_processors::telemetry::names;

const LONGEST: usize = 600;

/// Rooms and files that take data and give data: no crate that talks to the outside, no clock.
const PURE: [&str; 17] = [
    "src/connectors/config.rs",
    "src/connectors/diff.rs",
    "src/connectors/health.rs",
    "src/connectors/rules.rs",
    "src/connectors/template.rs",
    "src/connectors/words.rs",
    "src/record.rs",
    "src/traceparent.rs",
    "src/debezium",
    "src/rows",
    "src/loyalty",
    "src/consumers",
    "src/progress",
    "src/dedupe/key.rs",
    "src/inngest/event.rs",
    "src/inngest/batch.rs",
    "src/inngest/answer.rs",
];

const IMPURE: [&str; 10] = [
    "tokio",
    "rdkafka",
    "redis",
    "reqwest",
    "std::fs",
    "std::net",
    "std::env",
    "Timestamp::now",
    "SystemTime",
    "Instant",
];

/// One file: its path in the repository, and its text.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The paths below a folder, in order. A folder that holds nothing fails: the rule would hold of nothing.
fn paths_in(folder: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                paths.push(in_repository(&path));
            }
        }
    }
    assert!(!paths.is_empty(), "{folder} is empty");
    paths.sort();
    paths
}

fn in_repository(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("inside the repository");
    path.to_str().expect("UTF-8").to_owned()
}

/// All Rust sources, tests included.
pub(super) fn sources() -> Vec<File> {
    let folders = ["src", "tests", "fuzz/targets"];
    let paths = folders.into_iter().flat_map(paths_in);
    paths
        .filter(|path| path.ends_with(".rs"))
        .map(|path| File {
            text: read(&path),
            path,
        })
        .collect()
}

/// All documents that people read in this repository.
fn documents() -> Vec<File> {
    let mut paths = paths_in("docs");
    for folder in [
        "",
        "connectors",
        "deploy",
        "observability",
        "schemas",
        "stack",
        "workflows",
        "workflows/executor",
    ] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_file() {
                paths.push(in_repository(&path));
            }
        }
    }
    let documents: Vec<File> = paths
        .into_iter()
        .filter(|path| path.ends_with(".md"))
        .map(|path| File {
            text: read(&path),
            path,
        })
        .collect();
    assert!(documents.len() > 8, "documents are missing");
    documents
}

/// What stands between backticks, outside of fenced blocks.
pub(super) fn quoted(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

pub(super) fn is_test_only(path: &str) -> bool {
    ["tests.rs", "/properties.rs", "/fixtures.rs"]
        .iter()
        .any(|end| path.ends_with(end))
        || path.contains("/tests/")
}

/// Whether the text holds this word, not as a part of a longer one.
fn holds_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

pub(super) fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn no_source_file_is_too_long_to_read_in_one_sitting() {
    let long = sources().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LONGEST).then(|| format!("{} has {lines} lines", file.path))
    });
    assert_none(&long.collect::<Vec<_>>());
}

#[test]
fn every_module_folder_opens_with_what_it_is() {
    let silent = sources()
        .into_iter()
        .filter(|file| file.path.ends_with("/mod.rs") && !file.text.starts_with("//! "));
    assert_none(&silent.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_skipped_silenced_or_left_undone() {
    // Put together here, so that this file does not find itself.
    let banned = [
        concat!("#[", "ignore"),
        concat!("#[", "allow("),
        concat!("#![", "allow("),
        concat!("to", "do!("),
        concat!("un", "implemented!("),
    ];
    let mut problems = Vec::new();
    for file in sources() {
        for (number, line) in file.text.lines().enumerate() {
            for banned in banned.iter().filter(|banned| line.contains(**banned)) {
                problems.push(format!("{}:{}: {banned}", file.path, number + 1));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_fixture_is_used_by_a_test() {
    let sources = sources();
    let unused = paths_in("tests/fixtures").into_iter().filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        // What is said about the fixtures is no fixture.
        !name.ends_with(".md") && !sources.iter().any(|file| file.text.contains(name))
    });
    assert_none(&unused.collect::<Vec<_>>());
}

#[test]
fn the_runbook_explains_every_metric() {
    let runbook = read("docs/runbook.md");
    let quoted = quoted(&runbook);
    let missing = names::ALL
        .into_iter()
        .filter(|name| !quoted.contains(name))
        .map(ToOwned::to_owned);
    assert_none(&missing.collect::<Vec<_>>());
}

/// `NAME=value`, or the same behind a `#`.
fn variables_of_the_example() -> BTreeSet<String> {
    let named = |line: &str| {
        let (name, _) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        is_name.then(|| name.to_owned())
    };
    read(".env.example").lines().filter_map(named).collect()
}

#[test]
fn every_variable_is_in_the_example_and_no_other_is() {
    let of_connectors = config::connector_variables();
    assert!(
        of_connectors.contains(&"CONNECTOR_DATABASE_URL".to_owned()),
        "{of_connectors:?}"
    );
    let known: BTreeSet<String> = config::variables().into_iter().chain(of_connectors).collect();
    assert_eq!(variables_of_the_example(), known, ".env.example");
}

/// The worker and the workflows send the same announcements, under the same ids.
#[test]
fn an_announcement_has_one_version_whoever_sends_it() {
    let workflows = read("workflows/src/functions/context.ts");
    let versions: Vec<&str> = workflows
        .lines()
        .filter_map(|line| line.strip_prefix("const EVENT_VERSION = \"")?.strip_suffix("\";"))
        .collect();
    assert_eq!(versions, [ANNOUNCED_V]);
}

#[test]
fn pure_rooms_name_no_io_and_no_clock() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for file in sources() {
        let pure = PURE
            .iter()
            .any(|room| file.path == *room || file.path.starts_with(&format!("{room}/")));
        if !pure || is_test_only(&file.path) {
            continue;
        }
        seen += 1;
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| holds_word(line, word)) {
                problems.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    assert!(seen > 30, "only {seen} pure files found");
    assert_none(&problems);
}

#[test]
fn every_test_that_the_invariants_and_the_edge_cases_name_exists() {
    let architecture = read("ARCHITECTURE.md");
    let section = architecture.split("\n## ").find(|part| part.starts_with("Invariants"));
    let section = section.expect("a section called Invariants");
    let cases = read("docs/edge-cases.md");
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let sources = sources();
    for document in [section, &cases] {
        let named: Vec<&str> = quoted(document).into_iter().filter(is_test).collect();
        assert!(named.len() >= 20, "only {} tests are named", named.len());
        let missing = named.into_iter().filter(|name| {
            let declared = format!("fn {name}(");
            !sources.iter().any(|file| file.text.contains(&declared))
        });
        assert_none(&missing.map(ToOwned::to_owned).collect::<Vec<_>>());
    }
}

/// `make test ARGS="x"` runs what has `x` in its name. A promise whose proof runs nothing would look proven.
#[test]
fn every_proof_of_a_guarantee_runs_tests() {
    let guarantees = read("docs/guarantees.md");
    let filters: Vec<&str> = quoted(&guarantees)
        .into_iter()
        .filter_map(|command| command.strip_prefix("make test ARGS=\"")?.strip_suffix('"'))
        .collect();
    assert!(filters.len() > 15, "only {} proofs are tests", filters.len());
    let names: Vec<String> = sources().iter().flat_map(tests_in).collect();
    let missing = filters
        .into_iter()
        .filter(|filter| !names.iter().any(|name| name.contains(filter)));
    assert_none(&missing.map(ToOwned::to_owned).collect::<Vec<_>>());
}

/// The names of a file's tests, as the harness has them: modules, then the function.
fn tests_in(file: &File) -> Vec<String> {
    let path = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let modules = path.split('/').skip(1).collect::<Vec<_>>().join("::");
    let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
    let is_mark = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let marked = lines.iter().enumerate().filter(|(_, line)| is_mark(line));
    marked
        .filter_map(|(at, _)| {
            let declared = lines[at..].iter().find_map(|line| line.split_once("fn "))?;
            declared.1.split('(').next()
        })
        .map(|name| format!("{modules}::{name}"))
        .collect()
}

#[test]
fn every_recipe_that_a_document_names_exists() {
    let makefile = read("Makefile");
    let mut problems = Vec::new();
    let mut seen = 0;
    for file in documents() {
        let commands = file.text.lines().chain(quoted(&file.text));
        let recipes = commands.filter_map(|text| text.strip_prefix("make ")?.split_whitespace().next());
        // `make` alone may have a remark behind it.
        for recipe in recipes.filter(|recipe| !recipe.starts_with('#')) {
            seen += 1;
            if !makefile.lines().any(|line| line.starts_with(&format!("{recipe}:"))) {
                problems.push(format!("{}: make {recipe}", file.path));
            }
        }
    }
    assert!(seen > 5, "only {seen} recipes are named");
    assert_none(&problems);
}

/// The anchors of a document's headings, as code hosts make them.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let slug = |heading: &str| -> String {
        let kept = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn nothing_that_is_shipped_can_have_planted_faults() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("\ndefault = [\"io\"]\n") && manifest.contains("\nplanted = []\n"));
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains("cargo build --profile dist") && !dockerfile.contains("features"));
    let makefile = read("Makefile");
    let (tested, others): (Vec<_>, Vec<_>) = makefile
        .lines()
        .partition(|line| line.contains("$(CARGO) test ") || line.contains("$(CARGO) clippy "));
    assert!(tested.iter().any(|line| line.contains("--features planted")));
    assert!(
        others
            .iter()
            .any(|line| line.contains("run --locked --release -- demo"))
    );
    assert!(!others.iter().any(|line| line.contains("features planted")));
    let planters = sources().into_iter().filter(|file| {
        let plants = file.text.contains("Planted::plant(") || file.text.contains("feature = \"planted\"");
        plants && !file.path.starts_with("tests/") && file.path != "src/planted.rs"
    });
    assert_none(&planters.map(|file| file.path).collect::<Vec<_>>());
}

/// Without it, the image would be built all the same, and keep more memory than was measured.
#[test]
fn the_image_is_built_with_the_settings_of_the_allocator() {
    assert!(read(".cargo/config.toml").contains("\nJEMALLOC_SYS_WITH_MALLOC_CONF = "));
    assert!(read("Dockerfile").contains("\nCOPY .cargo .cargo\n"));
    assert!(read(".dockerignore").contains("\n!.cargo\n"));
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut problems = Vec::new();
    for file in documents() {
        let folder = PathBuf::from(&file.path)
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        let targets = file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                root().join(&file.path)
            } else {
                root().join(&folder).join(path)
            };
            let known = anchor.is_empty()
                || fs::read_to_string(&path).is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor));
            if !path.exists() || !known {
                problems.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_path_that_a_document_names_exists() {
    let folders = [
        "src/",
        "tests/",
        "docs/",
        "schemas/",
        "connectors/",
        "deploy/",
        "observability/",
        "stack/",
        "workflows/",
    ];
    let mut problems = Vec::new();
    for file in documents() {
        for path in quoted(&file.text) {
            let is_path = folders.iter().any(|folder| path.starts_with(folder)) && !path.contains([' ', '*', '<']);
            // `stack/.run` is there only while the stack is up.
            if is_path && !path.contains("/.run/") && !root().join(path).exists() {
                problems.push(format!("{}: {path}", file.path));
            }
        }
    }
    assert_none(&problems);
}
