//! `compose.yaml`: what refers to what, what is seen from outside, and that the worker is given what it reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crm_event_processors::config::{self, topic};
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::rows::Table;
use serde_json::{Value, json};

use super::super::tidy::{assert_none, read};
use super::{assert_found, fields, platform_variables, stages, texts, workflows_variables, yaml};

const COMPOSE: &str = "compose.yaml";
/// Where each service listens inside.
const LISTENS: [(&str, &[&str]); 8] = [
    ("redpanda", &["9092", "19092"]),
    ("console", &["8080"]),
    ("postgres", &["5432"]),
    ("valkey", &["6379"]),
    ("connect", &["8083"]),
    ("inngest", &["8288"]),
    ("worker", &["8080"]),
    ("workflows", &["3000"]),
];

fn problems(compose: &Value) -> Vec<String> {
    let services = fields(&compose["services"]);
    let mut problems = Vec::new();
    if compose.get("version").is_some() {
        problems.push("`version` means nothing any more".to_owned());
    }
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        problems.extend(problems_of_references(compose, name, service));
        problems.extend(problems_of_image(compose, name, service));
        problems.extend(problems_of_one_shot(compose, name, service));
        if service.get("container_name").is_some() {
            problems.push(format!("{name}: two projects would want one container"));
        }
        for port in texts(&service["ports"]) {
            let Some((outside, inside)) = port.strip_prefix("127.0.0.1:").and_then(|port| port.split_once(':')) else {
                problems.push(format!("{name}: {port} can be reached from elsewhere"));
                continue;
            };
            if !ports.insert(outside.to_owned()) {
                problems.push(format!("{name}: port {outside} is taken"));
            }
            if !listens(name, inside) {
                problems.push(format!("{name}: does not listen on {inside}"));
            }
        }
    }
    let of_run: BTreeSet<String> = config::variables().into_iter().collect();
    let of_connectors: BTreeSet<String> = config::connector_variables().into_iter().collect();
    for (name, known) in [
        ("worker", of_run),
        ("migrate", BTreeSet::from(["DATABASE_URL".to_owned()])),
        ("connector", &of_connectors | &platform_variables()),
        ("workflows", workflows_variables()),
    ] {
        let environment = fields(&services[name]["environment"]);
        let strange = environment.keys().filter(|key| !known.contains(*key));
        problems.extend(strange.map(|key| format!("{name}: nobody reads {key}")));
    }
    problems
}

/// An image comes from elsewhere by a whole version, or is built here, once: several builds of one name at the same time get
/// into each other's way.
fn problems_of_image(compose: &Value, name: &str, service: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let image = service["image"].as_str().unwrap_or_default();
    let is_pinned = image.rsplit_once(':').is_some_and(|(_, tag)| tag.contains('.'));
    let builders = builders(compose, service);
    if is_pinned != builders.is_empty() {
        problems.push(format!("{name}: built here without a tag, or a whole version: {image}"));
    }
    if builders.len() > 1 {
        problems.push(format!("{name}: {image} is built by {builders:?} at once"));
    }
    for builder in builders {
        let policy = if builder == name { "build" } else { "never" };
        if service["pull_policy"] != policy {
            problems.push(format!("{name}: {image} might come from somebody else"));
        }
        if builder != name && !fields(&service["depends_on"]).contains_key(builder) {
            problems.push(format!("{name}: started without {builder}, which builds {image}"));
        }
    }
    problems
}

/// Who builds the image of a service.
fn builders<'a>(compose: &'a Value, service: &Value) -> Vec<&'a str> {
    let all = fields(&compose["services"]).iter();
    all.filter(|(_, other)| other["image"] == service["image"] && other.get("build").is_some())
        .map(|(name, _)| name.as_str())
        .collect()
}

/// `up --wait` waits for the end of what somebody waits for to end, of the services that it starts; everything else that ends
/// counts as failed.
fn problems_of_one_shot(compose: &Value, name: &str, service: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if service["restart"] != "no" {
        return problems;
    }
    let mut services = fields(&compose["services"]).values();
    if !services.any(|other| other.get("profiles").is_none() && fields(&other["depends_on"]).contains_key(name)) {
        problems.push(format!("{name}: its end, which nobody waits for, counts as a failure"));
    }
    if has_health_check_of_its_image(compose, service) && service["healthcheck"]["disable"] != true {
        problems.push(format!("{name}: is asked for its health by its image, and has none"));
    }
    problems
}

fn has_health_check_of_its_image(compose: &Value, service: &Value) -> bool {
    let services = fields(&compose["services"]);
    let contexts = builders(compose, service)
        .into_iter()
        .filter_map(|name| services[name]["build"].as_str());
    contexts.filter(|context| has_dockerfile(context)).any(|context| {
        let stages = stages(&format!("{context}/Dockerfile"));
        stages
            .last()
            .is_some_and(|last| last.iter().any(|it| it.word == "HEALTHCHECK"))
    })
}

fn has_dockerfile(context: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(context).join("Dockerfile").is_file()
}

fn listens(name: &str, port: &str) -> bool {
    LISTENS
        .iter()
        .any(|(known, ports)| *known == name && ports.contains(&port))
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
        let possible = what_can_be_waited_for(compose, depended);
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
        && !has_dockerfile(context)
    {
        problems.push(format!("{name}: nothing to build in {context}"));
    }
    let told = fields(&service["environment"]).values().filter_map(Value::as_str);
    for (host, port) in told.chain(texts(&service["command"])).filter_map(address) {
        if !services.contains_key(host) {
            problems.push(format!("{name}: no service {host}"));
        } else if !listens(host, port) {
            problems.push(format!("{name}: {host} does not listen on {port}"));
        }
    }
    let own = service["environment"]["HTTP_ADDR"].as_str();
    if let Some((_, port)) = own.and_then(|address| address.rsplit_once(':'))
        && !listens(name, port)
    {
        problems.push(format!("{name}: is not looked for on {port}"));
    }
    problems
}

/// The other service and its port that an address names: `host:port`, with a scheme and whoever comes before it or without. Of
/// several the first.
fn address(text: &str) -> Option<(&str, &str)> {
    if text.contains("0.0.0.0") || text.contains(char::is_whitespace) {
        return None;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?']).next()?;
    let (host, port) = authority.rsplit('@').next()?.split_once(':')?;
    let port = port.split(',').next()?;
    let is_address = !scheme.is_empty() || !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    is_address.then_some((host, port))
}

/// A one-shot is waited for until it ended well, a server until it is healthy, if it can tell.
fn what_can_be_waited_for(compose: &Value, service: &Value) -> &'static str {
    if service["restart"] == "no" {
        "service_completed_successfully"
    } else if service.get("healthcheck").is_some() || has_health_check_of_its_image(compose, service) {
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
fn an_image_with_two_builders_an_end_that_nobody_awaits_and_a_port_that_is_shut_are_refused() {
    assert_found(
        &yaml(COMPOSE),
        problems,
        vec![
            ("/services/connector/pull_policy", json!("build"), "somebody else"),
            ("/services/migrate/pull_policy", json!("never"), "somebody else"),
            ("/services/worker/build", json!("."), "at once"),
            ("/services/worker/depends_on/migrate", Value::Null, "which builds"),
            ("/services/migrate/build", Value::Null, "a whole version"),
            (
                "/services/migrate/build",
                json!("./nowhere-to-build"),
                "nothing to build",
            ),
            ("/services/inngest/depends_on", Value::Null, "nobody waits for"),
            ("/services/inngest/profiles", json!(["app"]), "nobody waits for"),
            ("/services/connector/healthcheck", Value::Null, "by its image"),
            (
                "/services/connector/environment/DATABASE_URL",
                json!("postgres://cdc:crm@postgres:5432/crm"),
                "nobody reads",
            ),
            (
                "/services/worker/environment/CONNECTOR_DATABASE_URL",
                json!("postgres://cdc:crm@postgres:5432/crm"),
                "nobody reads",
            ),
            (
                "/services/valkey/ports/0",
                json!("127.0.0.1:16379:6380"),
                "does not listen on 6380",
            ),
            (
                "/services/worker/environment/REDIS_URL",
                json!("redis://valkey:6380"),
                "valkey does not listen on 6380",
            ),
            (
                "/services/worker/environment/HTTP_ADDR",
                json!("0.0.0.0:8081"),
                "is not looked for on 8081",
            ),
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
