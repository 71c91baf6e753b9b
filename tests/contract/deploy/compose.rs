//! `compose.yaml`: what refers to what, what is seen from outside, and that the worker is given what it reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crm_event_processors::config::{self, topic};
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::rows::Table;
use serde_json::{Value, json};

use super::super::tidy::{assert_none, read};
use super::{assert_found, fields, stages, texts, workflows_variables, yaml};

const COMPOSE: &str = "compose.yaml";

fn problems(compose: &Value) -> Vec<String> {
    let services = fields(&compose["services"]);
    let mut problems = Vec::new();
    if compose.get("version").is_some() {
        problems.push("`version` means nothing any more".to_owned());
    }
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        problems.extend(problems_of_references(compose, name, service));
        if service.get("container_name").is_some() {
            problems.push(format!("{name}: two projects would want one container"));
        }
        let image = service["image"].as_str().unwrap_or_default();
        let is_pinned = image.rsplit_once(':').is_some_and(|(_, tag)| tag.contains('.'));
        if service.get("build").is_some() == is_pinned {
            problems.push(format!("{name}: built here without a tag, or a whole version: {image}"));
        }
        if service.get("build").is_some() && service["pull_policy"] != "build" {
            problems.push(format!("{name}: {image} might come from somebody else"));
        }
        for port in texts(&service["ports"]) {
            let Some((outside, _)) = port.strip_prefix("127.0.0.1:").and_then(|port| port.split_once(':')) else {
                problems.push(format!("{name}: {port} can be reached from elsewhere"));
                continue;
            };
            if !ports.insert(outside.to_owned()) {
                problems.push(format!("{name}: port {outside} is taken"));
            }
        }
    }
    for (name, known) in [
        ("worker", config::variables().into_iter().collect()),
        ("migrate", BTreeSet::from(["DATABASE_URL".to_owned()])),
        ("workflows", workflows_variables()),
    ] {
        let environment = fields(&services[name]["environment"]);
        let strange = environment.keys().filter(|key| !known.contains(*key));
        problems.extend(strange.map(|key| format!("{name}: nobody reads {key}")));
    }
    problems
}

/// Names that have to be there, and what can be waited for.
fn problems_of_references(compose: &Value, name: &str, service: &Value) -> Vec<String> {
    let services = fields(&compose["services"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut problems = Vec::new();
    for (other, wanted) in fields(&service["depends_on"]) {
        let Some(depended) = services.get(other) else {
            problems.push(format!("{name}: waits for {other}, which is not there"));
            continue;
        };
        let condition = wanted["condition"].as_str().unwrap_or_default();
        let possible = what_can_be_waited_for(depended);
        if condition != possible {
            problems.push(format!(
                "{name}: waits for {other} with {condition}, not with {possible}"
            ));
        }
        let profiles = texts(&depended["profiles"]);
        if !profiles
            .iter()
            .all(|profile| texts(&service["profiles"]).contains(profile))
        {
            problems.push(format!("{name}: is started without {other}, which has {profiles:?}"));
        }
        if fields(&depended["depends_on"]).contains_key(name) {
            problems.push(format!("{name}: waits for {other}, which waits for it"));
        }
    }
    for volume in texts(&service["volumes"]) {
        let source = volume.split(':').next().unwrap_or_default();
        let is_there = match source.strip_prefix("./") {
            Some(path) => root.join(path).is_file(),
            None => fields(&compose["volumes"]).contains_key(source),
        };
        if !is_there {
            problems.push(format!("{name}: no volume {source}"));
        }
    }
    if let Some(context) = service["build"].as_str()
        && !root.join(context).join("Dockerfile").is_file()
    {
        problems.push(format!("{name}: nothing to build in {context}"));
    }
    let told = fields(&service["environment"]).values().filter_map(Value::as_str);
    for host in told.chain(texts(&service["command"])).filter_map(host) {
        if !services.contains_key(host) {
            problems.push(format!("{name}: no service {host}"));
        }
    }
    problems
}

/// The other service that an address names: `host:port`, with a scheme and whoever comes before it or without.
fn host(text: &str) -> Option<&str> {
    if text.contains("0.0.0.0") || text.contains(char::is_whitespace) {
        return None;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?']).next()?;
    let (host, port) = authority.rsplit('@').next()?.split_once(':')?;
    let is_address = !scheme.is_empty() || !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    is_address.then_some(host)
}

/// A one-shot is waited for until it ended well, a server until it is healthy, if it can tell.
fn what_can_be_waited_for(service: &Value) -> &'static str {
    let context = service["build"].as_str();
    let of_the_image = context.is_some_and(|context| {
        let stages = stages(&format!("{context}/Dockerfile"));
        stages
            .last()
            .is_some_and(|last| last.iter().any(|it| it.word == "HEALTHCHECK"))
    });
    if service["restart"] == "no" {
        "service_completed_successfully"
    } else if service.get("healthcheck").is_some() || of_the_image {
        "service_healthy"
    } else {
        "service_started"
    }
}

#[test]
fn every_reference_in_the_compose_file_leads_somewhere() {
    let compose = yaml(COMPOSE);
    assert!(fields(&compose["services"]).len() >= 11);
    assert_none(&problems(&compose));
}

#[test]
fn a_compose_file_that_is_wrong_anywhere_is_refused() {
    let started = json!({"condition": "service_started"});
    assert_found(
        &yaml(COMPOSE),
        problems,
        vec![
            ("/version", json!("3.9"), "`version`"),
            ("/services/worker/container_name", json!("worker"), "one container"),
            ("/services/worker/pull_policy", Value::Null, "somebody else"),
            (
                "/services/worker/build",
                json!("./nowhere-to-build"),
                "nothing to build",
            ),
            (
                "/services/redpanda/image",
                json!("redpandadata/redpanda:latest"),
                "a whole version",
            ),
            (
                "/services/redpanda/image",
                json!("redpandadata/redpanda"),
                "a whole version",
            ),
            (
                "/services/worker/depends_on/valky",
                started.clone(),
                "which is not there",
            ),
            (
                "/services/worker/depends_on/valkey",
                started.clone(),
                "not with service_healthy",
            ),
            (
                "/services/worker/depends_on/topics",
                started.clone(),
                "not with service_completed_successfully",
            ),
            ("/services/valkey/healthcheck", Value::Null, "not with service_started"),
            (
                "/services/connector/depends_on/worker",
                json!({"condition": "service_healthy"}),
                "is started without",
            ),
            (
                "/services/inngest/depends_on",
                json!({"workflows": {"condition": "service_healthy"}}),
                "waits for it",
            ),
            ("/services/valkey/ports/0", json!("127.0.0.1:15432:6379"), "is taken"),
            ("/services/valkey/ports/0", json!("16379:6379"), "from elsewhere"),
            ("/services/redpanda/volumes/0", json!("panda:/data"), "no volume panda"),
            (
                "/services/postgres/volumes/1",
                json!("./deploy/compose/rols.sql:/r.sql:ro"),
                "no volume",
            ),
            (
                "/services/worker/environment/KAFKA_BOOTSTRAP_SERVERS",
                json!("kafka:9092"),
                "no service kafka",
            ),
            (
                "/services/worker/environment/REDIS_URL",
                json!("redis://redis:6379"),
                "no service redis",
            ),
            (
                "/services/inngest/command/8",
                json!("http://workflow:3000/api"),
                "no service workflow",
            ),
            (
                "/services/worker/environment/KAFKA_BROKERS",
                json!("redpanda:9092"),
                "nobody reads",
            ),
            ("/services/workflows/environment/PORT", json!("3000"), "nobody reads"),
        ],
    );
}

#[test]
fn the_binary_takes_the_settings_of_the_compose_file() {
    let compose = yaml(COMPOSE);
    let environment = fields(&compose["services"]["worker"]["environment"]);
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("config")
        .env_clear()
        .envs(
            environment
                .iter()
                .map(|(key, value)| (key, value.as_str().expect("a text"))),
        )
        .output()
        .expect("the binary");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_topics_that_are_created_are_those_that_the_worker_wants() {
    let compose = yaml(COMPOSE);
    let script = texts(&compose["services"]["topics"]["command"]).join(" ");
    let created: Vec<&str> = script
        .split_whitespace()
        .filter(|word| word.starts_with("crm."))
        .collect();
    let ledgers = Table::ALL.iter().map(|table| topic("crm", *table));
    let wanted: BTreeSet<String> = ledgers
        .chain(Queue::ALL.iter().map(|queue| queue.topic("crm")))
        .collect();
    assert_eq!(created.len(), wanted.len());
    assert_eq!(
        created.into_iter().map(ToOwned::to_owned).collect::<BTreeSet<_>>(),
        wanted
    );
}

#[test]
fn the_connector_that_the_binary_fills_for_compose_keeps_its_rules() {
    let compose = yaml(COMPOSE);
    let connector = &compose["services"]["connector"];
    let command = texts(&connector["command"]);
    // Its own network has no TLS; nothing else is let through.
    assert_eq!(command, ["connectors", "apply", "--accept", "database.sslmode"]);
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(["connectors", "validate"])
        .args(&command[2..])
        .env_clear()
        .envs(
            fields(&connector["environment"])
                .iter()
                .map(|(key, value)| (key, value.as_str().expect("a text"))),
        )
        .output()
        .expect("the binary");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn logins_of_the_compose_file_are_made_by_its_roles() {
    let compose = yaml(COMPOSE);
    let roles = read("deploy/compose/roles.sql");
    let environments = fields(&compose["services"])
        .values()
        .map(|service| &service["environment"]);
    let urls = environments.flat_map(|it| ["DATABASE_URL", "CONNECTOR_DATABASE_URL"].map(|name| it[name].as_str()));
    let logins: BTreeSet<&str> = urls
        .flatten()
        .filter_map(|url| url.strip_prefix("postgres://")?.split(':').next())
        .filter(|login| *login != "crm")
        .collect();
    assert_eq!(logins.len(), 3, "{logins:?}");
    for login in logins {
        assert!(roles.contains(&format!("create role {login} login ")), "{login}");
    }
}

#[test]
fn the_compose_file_is_what_runs_elsewhere() {
    let compose = yaml(COMPOSE);
    let service = |name: &str| &compose["services"][name];
    let blueprint = yaml("render.yaml");
    for (index, name) in [(1, "worker"), (2, "workflows")] {
        let seconds = &blueprint["services"][index]["maxShutdownDelaySeconds"];
        assert_eq!(service(name)["stop_grace_period"], format!("{seconds}s"), "{name}");
    }
    // The connector that the tests run with, and Render's key-value store.
    let pom = read("stack/pom.xml");
    let debezium = pom
        .split("<debezium.version>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    let image = format!("quay.io/debezium/connect:{}", debezium.expect("a version"));
    assert_eq!(service("connect")["image"], image);
    assert_eq!(service("topics")["image"], service("redpanda")["image"]);
    assert!(
        service("valkey")["image"]
            .as_str()
            .expect("an image")
            .contains("valkey:8.")
    );
    assert!(
        texts(&service("valkey")["command"])
            .join(" ")
            .contains("--maxmemory-policy noeviction")
    );
    assert!(texts(&service("postgres")["command"]).contains(&"wal_level=logical"));
}
