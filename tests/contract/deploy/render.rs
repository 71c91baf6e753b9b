//! `render.yaml`: a schema of ours, and what that cannot say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crm_event_processors::cli::run::{DRAIN_DEADLINE, LEAVE_DEADLINE};
use crm_event_processors::config;
use serde_json::{Value, json};

use super::super::tidy::{assert_none, read};
use super::{assert_found, let_in, secrets, texts, workflows_variables, yaml};

/// Beside the drain and the leaving: the last commit and the last push, 5 s each. Leaving comes twice: the reconciler ends its
/// page, then the client leaves the group.
const LAST_SECONDS: u64 = 10;
/// What a platform may lose before it sends SIGTERM and after.
const SLACK_SECONDS: u64 = 5;

/// The variables that a service gets, its groups' among them, with where each comes from.
fn variables<'a>(blueprint: &'a Value, service: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let mut found = Vec::new();
    for entry in service["envVars"].as_array().into_iter().flatten() {
        match (entry["key"].as_str(), entry["fromGroup"].as_str()) {
            (Some(key), _) => found.push((key, entry)),
            (None, group) => found.extend(
                items(&blueprint["envVarGroups"])
                    .filter(|candidate| candidate["name"].as_str() == group)
                    .flat_map(|group| items(&group["envVars"]))
                    .filter_map(|entry| Some((entry["key"].as_str()?, entry))),
            ),
        }
    }
    found
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn named<'a>(blueprint: &'a Value, name: &str) -> &'a Value {
    let mut services = items(&blueprint["services"]);
    services.find(|service| service["name"] == name).expect("the service")
}

fn problems(blueprint: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(&read("schemas/render.schema.json")).expect("JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("a schema");
    let mut problems: Vec<String> = schema
        .iter_errors(blueprint)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();

    let regions: BTreeSet<Option<&str>> = items(&blueprint["services"])
        .map(|service| service["region"].as_str())
        .collect();
    if regions.len() != 1 {
        problems.push(format!("{regions:?}: services of two regions do not see each other"));
    }
    let names: Vec<&str> = items(&blueprint["services"])
        .filter_map(|service| service["name"].as_str())
        .collect();
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        problems.push("two services have one name".to_owned());
    }
    for service in items(&blueprint["services"]).filter(|service| service["type"] == "worker") {
        problems.extend(problems_of_worker(blueprint, service));
    }
    problems
}

fn problems_of_worker(blueprint: &Value, service: &Value) -> Vec<String> {
    let name = service["name"].as_str().unwrap_or_default();
    let mut problems = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["dockerfilePath", "dockerContext"] {
        let path = service[path].as_str().unwrap_or_default();
        if !root.join(path).exists() {
            problems.push(format!("{name}: no {path}"));
        }
    }
    if let Some(context) = service["dockerContext"]
        .as_str()
        .filter(|path| root.join(path).exists())
    {
        let (wanted, found) = (image_files(context), texts(&service["buildFilter"]["paths"]));
        if found != wanted {
            problems.push(format!("{name}: the image is made of {wanted:?}, not of {found:?}"));
        }
    }

    for group in items(&service["envVars"]).filter_map(|entry| entry["fromGroup"].as_str()) {
        if !items(&blueprint["envVarGroups"]).any(|known| known["name"] == group) {
            problems.push(format!("{name}: no group {group}"));
        }
    }
    let mut seen = BTreeSet::new();
    let secrets = secrets();
    for (key, entry) in variables(blueprint, service) {
        if !seen.insert(key) {
            problems.push(format!("{name}: {key} is set twice"));
        }
        let is_secret = secrets.contains(key) || key.contains("SIGNING_KEY");
        if is_secret && entry.get("value").is_some() {
            problems.push(format!("{name}: {key} is a secret, and this file is public"));
        }
        let from = &entry["fromService"];
        let is_there = |from: &Value| {
            items(&blueprint["services"]).any(|it| it["name"] == from["name"] && it["type"] == from["type"])
        };
        if from.is_object() && !is_there(from) {
            problems.push(format!("{name}: {key} is of a service that is not here"));
        }
    }

    let delay = service["maxShutdownDelaySeconds"].as_u64().unwrap_or_default();
    let known = if name == "crm-workflows" {
        workflows_variables()
    } else {
        config::variables().into_iter().collect()
    };
    let strange = seen.iter().filter(|key| !known.contains(**key));
    problems.extend(strange.map(|key| format!("{name}: nobody reads {key}")));
    if delay < patience(name) {
        problems.push(format!("{name}: killed after {delay} s, in the middle of its drain"));
    }
    problems
}

/// How long a drain and what comes behind it may take, in seconds.
fn patience(name: &str) -> u64 {
    let drain = if name == "crm-workflows" {
        let main = read("workflows/src/main.ts");
        let drain = main
            .lines()
            .find_map(|line| line.strip_prefix("const DRAIN_MS = ")?.strip_suffix(';'));
        let drain: u64 = drain.expect("a drain").replace('_', "").parse().expect("a number");
        drain / 1000
    } else {
        (DRAIN_DEADLINE + 2 * LEAVE_DEADLINE).as_secs()
    };
    drain + LAST_SECONDS + SLACK_SECONDS
}

#[test]
fn how_long_an_end_may_take_is_told_where_somebody_sets_a_limit() {
    let seconds = patience("crm-event-processors") - SLACK_SECONDS;
    for path in ["render.yaml", "docs/runbook.md", "src/cli/run.rs"] {
        assert!(read(path).contains(&format!(" {seconds} s")), "{path}: {seconds} s");
    }
}

/// What the image of a context is made of, as Render's filters write it.
fn image_files(context: &str) -> Vec<String> {
    let prefix = context.trim_start_matches("./").trim_start_matches('.');
    let prefix = if prefix.is_empty() {
        String::new()
    } else {
        format!("{prefix}/")
    };
    let mut wanted = vec![format!("{prefix}Dockerfile"), format!("{prefix}.dockerignore")];
    let text = read(&format!("{context}/.dockerignore"));
    for path in text.lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(let_in(context).contains(path));
        let is_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(context).join(path).is_dir();
        wanted.push(format!("{prefix}{path}{}", if is_folder { "/**" } else { "" }));
    }
    wanted
}

#[test]
fn the_blueprint_is_what_its_schema_and_its_rules_say() {
    assert_none(&problems(&yaml("render.yaml")));
}

#[test]
fn a_blueprint_that_is_wrong_anywhere_is_refused() {
    let blueprint = yaml("render.yaml");
    let twice = json!({"key": "TOPIC_PREFIX", "value": "crm"});
    assert_found(
        &blueprint,
        problems,
        vec![
            ("/services/0/maxmemoryPolicy", json!("allkeys-lru"), "noeviction"),
            (
                "/services/0/ipAllowList",
                json!([{"source": "0.0.0.0/0"}]),
                "ipAllowList",
            ),
            ("/services/0/plan", json!("free"), "/services/0/plan"),
            ("/services/0/region", json!("frankfurt"), "two regions"),
            ("/services/0/name", json!("other"), "not here"),
            ("/services/0/type", json!("redis"), "/services/0/type"),
            ("/services/1/plan", json!("free"), "/services/1/plan"),
            ("/services/1/healthCheckPath", json!("/livez"), "healthCheckPath"),
            ("/services/1/disk", json!({"name": "d", "mountPath": "/d"}), "disk"),
            ("/services/1/startCommand", json!("run"), "startCommand"),
            ("/services/1/runtime", json!("rust"), "docker"),
            ("/services/1/dockerfilePath", json!("./Dockerfil"), "no ./Dockerfil"),
            ("/services/1/dockerContext", json!("./workflows"), "is made of"),
            ("/services/1/buildFilter/paths", json!(["src/**"]), "is made of"),
            ("/services/1/maxShutdownDelaySeconds", json!(30), "in the middle"),
            (
                "/services/1/maxShutdownDelaySeconds",
                Value::Null,
                "maxShutdownDelaySeconds",
            ),
            ("/services/1/numInstances", json!(0), "numInstances"),
            ("/services/1/envVars/0", json!({"fromGroup": "other"}), "no group other"),
            (
                "/services/1/envVars/1",
                json!({"key": "KAFKA_BOOTSTRAP", "sync": false}),
                "nobody reads",
            ),
            ("/services/1/envVars/1", twice, "set twice"),
            (
                "/services/1/envVars/3",
                json!({"key": "KAFKA_API_SECRET", "value": "s3cret"}),
                "is a secret",
            ),
            ("/services/2/maxShutdownDelaySeconds", json!(25), "in the middle"),
            (
                "/services/2/envVars/2",
                json!({"key": "INNGEST_SIGNING_KEY", "value": "signkey"}),
                "is a secret",
            ),
            ("/services/2/envVars/3", json!({"key": "MODE", "value": 1}), "envVars/3"),
            (
                "/services/2/envVars/3",
                json!({"key": "OLD_RECORDS", "value": "deliver"}),
                "nobody reads",
            ),
            ("/envVarGroups/0/envVars/2/value", json!(5), "envVarGroups/0"),
            (
                "/envVarGroups/0/envVars/2",
                json!({"key": "REDIS_URL", "sync": false}),
                "envVarGroups/0",
            ),
            (
                "/envVarGroups/0/envVars/2",
                json!({"key": "REDIS_URL", "value": "redis://u:p@h"}),
                "is a secret",
            ),
        ],
    );
}

/// What comments say need not be set, and why: those of the workflows in their service, those of the worker at the end.
fn said_not_to_be_set(service: &str) -> BTreeSet<String> {
    let blueprint = read("render.yaml");
    let (services, behind) = blueprint.split_once("\nenvVarGroups:").expect("groups come last");
    let said = if service == "crm-workflows" { services } else { behind };
    said.lines()
        .filter_map(|line| line.trim_start().strip_prefix("# not set: ")?.split_once(": "))
        .map(|(name, why)| {
            assert!(why.len() > 5, "{name}: why not?");
            name.to_owned()
        })
        .collect()
}

#[test]
fn every_variable_of_the_worker_and_of_the_workflows_is_set_or_said_not_to_be() {
    let blueprint = yaml("render.yaml");
    for (service, known) in [
        ("crm-event-processors", config::variables().into_iter().collect()),
        ("crm-workflows", workflows_variables()),
    ] {
        let set: BTreeSet<String> = variables(&blueprint, named(&blueprint, service))
            .into_iter()
            .map(|(key, _)| key.to_owned())
            .collect();
        let not_set = said_not_to_be_set(service);
        let both: Vec<_> = set.intersection(&not_set).collect();
        assert_eq!(both, Vec::<&String>::new(), "{service}");
        assert_eq!(&set | &not_set, known, "{service}");
    }
}

#[test]
fn the_binary_takes_the_settings_of_the_blueprint() {
    let blueprint = yaml("render.yaml");
    // What Render asks for, and what it fills in.
    let asked = BTreeMap::from([
        ("KAFKA_BOOTSTRAP_SERVERS", "pkc-1.example.com:9092"),
        (
            "DATABASE_URL",
            "postgres://worker:it-is-secret@pooler.example.com:6543/postgres",
        ),
        ("LEDGER_EFFECTIVE_FROM", "2026-11-21T00:00:00Z"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example.com"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=it-is-secret"),
        ("REDIS_URL", "redis://red-1:6379"),
    ]);
    let given = variables(&blueprint, named(&blueprint, "crm-event-processors"));
    let environment = given.into_iter().map(|(key, entry)| {
        let other = asked.get(key).copied().unwrap_or("it-is-secret");
        (key, entry["value"].as_str().unwrap_or(other))
    });
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("config")
        .env_clear()
        .envs(environment)
        .output()
        .expect("the binary");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(shown.contains("SASL_SSL") && !shown.contains("it-is-secret"), "{shown}");
}
