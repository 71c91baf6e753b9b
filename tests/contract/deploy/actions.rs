//! GitHub Actions: they call our recipes, take nothing that can change under them, and may do little.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::tidy::{assert_none, read};
use super::binary::LARGEST;
use super::{assert_found, fields, last, stages, yaml};

const CI: &str = ".github/workflows/ci.yaml";
const RELEASE: &str = ".github/workflows/release.yaml";

fn steps(workflow: &Value) -> impl Iterator<Item = (&str, &Value)> {
    fields(&workflow["jobs"]).iter().flat_map(|(name, job)| {
        let steps = job["steps"].as_array().into_iter().flatten();
        steps.map(move |step| (name.as_str(), step))
    })
}

fn problems(workflow: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if workflow["permissions"] != json!({"contents": "read"}) {
        problems.push("whoever asks for no more may read, and that is all".to_owned());
    }
    if workflow["on"].get("pull_request_target").is_some() {
        problems.push("a stranger's change would run with our rights".to_owned());
    }
    if workflow["concurrency"]["group"].as_str().is_none() {
        problems.push("runs of one branch pile up".to_owned());
    }
    for (name, job) in fields(&workflow["jobs"]) {
        let called = job["uses"].as_str();
        if called.is_some_and(|path| !path.starts_with("./.github/workflows/")) {
            problems.push(format!("{name}: somebody else's workflow"));
        }
        if called.is_some() {
            continue;
        }
        if job["timeout-minutes"].as_u64().is_none() {
            problems.push(format!("{name}: may hang for six hours"));
        }
        if job["runs-on"].as_str().is_none_or(|runner| runner.ends_with("-latest")) {
            problems.push(format!("{name}: on a machine that changes"));
        }
    }
    for (job, step) in steps(workflow) {
        if let Some(action) = step["uses"].as_str() {
            let commit = action.split_once('@').map_or("", |(_, commit)| commit);
            if commit.len() != 40 || !commit.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
                problems.push(format!("{job}: {action} is whatever its owner says tomorrow"));
            }
            if action.starts_with("actions/checkout@") && step["with"]["persist-credentials"] != json!(false) {
                problems.push(format!("{job}: leaves its token in the checkout"));
            }
        }
        if step["run"].as_str().is_some_and(|script| script.contains("${{")) {
            problems.push(format!(
                "{job}: text from outside becomes a part of a script; give it a variable"
            ));
        }
    }
    problems
}

#[test]
fn workflows_take_nothing_that_can_change_and_may_do_little() {
    for path in [CI, RELEASE] {
        assert_none(&problems(&yaml(path)));
    }
}

#[test]
fn a_workflow_that_is_careless_anywhere_is_refused() {
    let call = json!({"uses": "somebody/else/.github/workflows/ci.yaml@main"});
    assert_found(
        &yaml(CI),
        problems,
        vec![
            ("/permissions", json!("write-all"), "may read"),
            ("/permissions", Value::Null, "may read"),
            ("/on/pull_request_target", json!({}), "a stranger's change"),
            ("/concurrency", Value::Null, "pile up"),
            ("/jobs/test/timeout-minutes", Value::Null, "may hang"),
            ("/jobs/test/runs-on", json!("ubuntu-latest"), "that changes"),
            ("/jobs/test/steps/0/uses", json!("actions/checkout@v6"), "tomorrow"),
            ("/jobs/test/steps/0/with", Value::Null, "its token"),
            (
                "/jobs/test/steps/1/run",
                json!("echo ${{ github.head_ref }}"),
                "from outside",
            ),
            ("/jobs/other", call, "somebody else's"),
        ],
    );
}

/// A commit without its version tells nobody what it is, nor that there is a newer one.
#[test]
fn every_action_says_its_version_and_has_one_commit_everywhere() {
    let mut commits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in [CI, RELEASE] {
        let text = read(path);
        for line in text
            .lines()
            .filter(|line| line.contains("uses: ") && line.contains('@'))
        {
            let (_, used) = line.split_once("uses: ").expect("found");
            let (action, version) = used.split_once(" # v").unwrap_or_else(|| panic!("{path}: {used}"));
            assert_eq!(version.split('.').count(), 3, "{used}");
            let (action, commit) = action.split_once('@').expect("a commit");
            commits.entry(action.to_owned()).or_default().insert(commit.to_owned());
        }
    }
    assert!(commits.len() >= 7, "{commits:?}");
    assert!(commits.values().all(|commits| commits.len() == 1), "{commits:?}");
}

#[test]
fn ci_runs_what_a_contributor_runs_with_the_compiler_of_the_image() {
    let ci = yaml(CI);
    let runs: Vec<&str> = steps(&ci).filter_map(|(_, step)| step["run"].as_str()).collect();
    assert!(runs.contains(&".ci/run"), "{runs:?}");
    let makefile = read("Makefile");
    let recipes: Vec<&str> = runs
        .iter()
        .filter_map(|run| run.strip_prefix("make ")?.split(' ').next())
        .collect();
    assert_eq!(recipes, ["deny"]);
    for recipe in recipes {
        assert!(makefile.contains(&format!("\n{recipe}:")), "{recipe}");
    }
    let stages = stages("Dockerfile");
    let compiler = ci["env"]["RUST"].as_str().expect("a version");
    assert!(last(&stages[0], "FROM").rest.starts_with(&format!("rust:{compiler}-")));
}

#[test]
fn ci_starts_what_the_readme_starts_and_weighs_what_is_shipped() {
    let ci = yaml(CI);
    let images: Vec<&Value> = steps(&ci)
        .filter(|(job, _)| *job == "images")
        .map(|(_, it)| it)
        .collect();
    let place = |text: &str| {
        let found = images
            .iter()
            .position(|step| step["run"].as_str().is_some_and(|run| run.contains(text)));
        found.unwrap_or_else(|| panic!("no step has {text}"))
    };
    let readme = read("deploy/README.md");
    let started = "docker compose --profile app up --detach --wait";
    let example = "psql -U crm --set ON_ERROR_STOP=1 < deploy/compose/example.sql";
    let stopped = "docker compose --profile app down --volumes";
    for command in [started, example, stopped] {
        assert!(readme.contains(command), "{command}");
    }
    assert!(place(started) < place(example) && place(example) < place(stopped));
    assert_eq!(images[place("logs")]["if"], "failure()");
    assert_eq!(images[place(stopped)]["if"], "always()");
    assert!(place(&format!(" -lt {LARGEST}")) < place(started));
}

#[test]
fn a_release_is_tested_first_and_only_its_image_may_be_written() {
    let release = yaml(RELEASE);
    let jobs = fields(&release["jobs"]);
    assert_eq!(jobs["test"]["uses"], format!("./{CI}"));
    let may = |name: &str| jobs[name].get("permissions").cloned();
    assert_eq!(may("test"), None);
    let wanted = json!({"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"});
    assert_eq!(may("image"), Some(wanted));
    assert_eq!(jobs["image"]["needs"], "test");
    assert_eq!(jobs.len(), 2);
    let pushed = steps(&release)
        .find(|(_, step)| step["id"] == "pushed")
        .expect("a push")
        .1;
    assert_eq!(pushed["with"]["sbom"], true);
    assert_eq!(pushed["with"]["provenance"], "mode=max");
    // CI itself writes nothing, whoever calls it.
    assert!(
        fields(&yaml(CI)["jobs"])
            .values()
            .all(|job| job.get("permissions").is_none())
    );
}
