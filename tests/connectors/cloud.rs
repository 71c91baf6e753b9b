//! A double of Confluent Cloud's Connect API (`connect/v1`), as its published description and its pages on states document it.
//!
//! It has one environment, one cluster and one key. It keeps configurations, shows them with secrets masked and its own keys
//! added, and tells states by a script. It runs no connector, and does not refuse what nobody has documented to be refused.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(super) const ENVIRONMENT: &str = "env-a1";
pub(super) const CLUSTER: &str = "lkc-b2";
pub(super) const KEY: &str = "cloud-key";
pub(super) const SECRET: &str = "sentinel-cloud";
const MASK: &str = "****************";
const PLUGIN: &str = "PostgresCdcSourceV2";

pub(super) struct Cloud {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    serving: JoinHandle<()>,
}

/// What it has, and what it will say.
#[derive(Default)]
pub(super) struct World {
    pub(super) connectors: BTreeMap<String, BTreeMap<String, String>>,
    /// What is told of the connector, a look at a time, from the last write on. The last one stays.
    pub(super) told: Vec<Told>,
    looks: usize,
    /// What the next requests meet instead of an answer: status, Retry-After, body.
    pub(super) faults: VecDeque<(u16, Option<&'static str>, Value)>,
    /// What every write meets instead.
    pub(super) refuses_writes: Option<(u16, Value)>,
    /// Every request that came so far: method and path behind the cluster.
    pub(super) seen: Vec<String>,
}

/// The connector's state and trace; the states and messages of its tasks.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) connector: (&'static str, &'static str),
    pub(super) tasks: Vec<(&'static str, &'static str)>,
}

pub(super) fn told(connector: &'static str, tasks: &[&'static str]) -> Told {
    Told {
        connector: (connector, ""),
        tasks: tasks.iter().map(|state| (*state, "")).collect(),
    }
}

impl Cloud {
    pub(super) async fn start(told: &[Told]) -> Self {
        let world = Arc::new(Mutex::new(World {
            told: told.to_vec(),
            ..World::default()
        }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = Router::new().fallback(answer).with_state(Arc::clone(&world));
        let serving = tokio::spawn(async move { axum::serve(listener, service).await.expect("served") });
        Self {
            address,
            world,
            serving,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written, whole.
    pub(super) fn config(&self, name: &str) -> BTreeMap<String, String> {
        self.world().connectors.get(name).expect("a connector").clone()
    }

    pub(super) fn writes(&self) -> usize {
        let world = self.world();
        world
            .seen
            .iter()
            .filter(|seen| seen.starts_with("PUT /connectors/"))
            .count()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let authorization = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let is_known = authorization == Some(&format!("Basic {}", STANDARD.encode(format!("{KEY}:{SECRET}"))));
    let body = to_bytes(request.into_body(), 1024 * 1024).await.expect("a body");
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_known {
        return reply(401, &json!({"error": {"code": 401, "message": "Unauthorized"}}));
    }
    let base = format!("/connect/v1/environments/{ENVIRONMENT}/clusters/{CLUSTER}");
    let Some(path) = path.strip_prefix(&base) else {
        return reply(404, &json!({"error": {"code": 404, "message": "account not found"}}));
    };
    world.seen.push(format!("{method} {path}"));
    if let Some((status, retry_after, body)) = world.faults.pop_front() {
        let mut response = reply(status, &body);
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert("Retry-After", seconds.parse().expect("a header"));
        }
        return response;
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("PUT", ["connectors", name, "config"]) => match &world.refuses_writes {
            Some((status, body)) => reply(*status, body),
            None => world.write(name, &body),
        },
        ("GET", ["connectors", name, "config"]) => world.shown(name).map_or_else(no_such, |config| reply(200, &config)),
        ("GET", ["connectors", name, "status"]) => {
            world.status(name).map_or_else(no_such, |status| reply(200, &status))
        }
        ("PUT", ["connector-plugins", PLUGIN, "config", "validate"]) => validated(&body),
        _ => no_such(),
    }
}

impl World {
    fn write(&mut self, name: &str, body: &[u8]) -> Response {
        // All values are texts; anything else is no configuration.
        let Ok(config) = serde_json::from_slice::<BTreeMap<String, String>>(body) else {
            return refused("Bad Request");
        };
        let wrong = config.get("name").map(String::as_str) != Some(name)
            || config.get("connector.class").map(String::as_str) != Some(PLUGIN)
            || config.values().any(|value| value.starts_with("**"));
        if wrong || !errors(&config).is_empty() {
            return refused("There were some errors with your configuration");
        }
        self.connectors.insert(name.to_owned(), config);
        self.looks = 0;
        reply(
            201,
            &json!({"name": name, "type": "source", "config": self.shown(name), "tasks": []}),
        )
    }

    fn shown(&self, name: &str) -> Option<Value> {
        let mut config = self.connectors.get(name)?.clone();
        for (key, value) in &mut config {
            if key.ends_with("password") || key.starts_with("kafka.api.") {
                MASK.clone_into(value);
            }
        }
        for (key, value) in [
            ("cloud.environment", "prod"),
            ("cloud.provider", "aws"),
            (
                "kafka.endpoint",
                "SASL_SSL://pkc-xxxxx.eu-central-1.aws.confluent.cloud:9092",
            ),
            ("kafka.region", "eu-central-1"),
        ] {
            config.insert(key.to_owned(), value.to_owned());
        }
        Some(json!(config))
    }

    fn status(&mut self, name: &str) -> Option<Value> {
        self.connectors.get(name)?;
        let told = self.told.get(self.looks).or(self.told.last())?;
        let (state, trace) = told.connector;
        let task = |(id, (state, msg)): (usize, &(&str, &str))| json!({"id": id, "state": state, "worker_id": name, "msg": msg});
        let tasks: Vec<Value> = told.tasks.iter().enumerate().map(task).collect();
        let status = json!({
            "name": name, "type": "source", "tasks": tasks,
            "connector": {"state": state, "worker_id": name, "trace": trace},
        });
        self.looks += 1;
        Some(status)
    }
}

/// Keys that the plugin has by its published definition, as far as our template and its rules are about them, and for some of
/// them what they may be. What it sets by itself (`plugin.name`, `key.converter.schemas.enable`) is no key.
pub(super) const KEYS: [(&str, &[&str]); 34] = [
    ("name", &[]),
    ("connector.class", &[PLUGIN]),
    ("tasks.max", &["1"]),
    ("kafka.auth.mode", &["KAFKA_API_KEY", "SERVICE_ACCOUNT"]),
    ("kafka.service.account.id", &[]),
    ("database.hostname", &[]),
    ("database.port", &[]),
    ("database.dbname", &[]),
    ("database.user", &[]),
    ("database.password", &[]),
    ("database.sslmode", &["prefer", "disable", "require"]),
    ("slot.name", &[]),
    ("publication.name", &[]),
    ("publication.autocreate.mode", &["all_tables", "filtered", "disabled"]),
    ("table.include.list", &[]),
    ("table.exclude.list", &[]),
    ("column.exclude.list", &[]),
    (
        "snapshot.mode",
        &["initial", "initial_only", "no_data", "when_needed", "never"],
    ),
    ("signal.data.collection", &[]),
    ("heartbeat.interval.ms", &[]),
    ("heartbeat.action.query", &[]),
    ("topic.prefix", &[]),
    ("decimal.handling.mode", &["precise", "string", "double"]),
    (
        "time.precision.mode",
        &["adaptive", "adaptive_time_microseconds", "connect"],
    ),
    ("tombstones.on.delete", &["true", "false"]),
    ("event.processing.failure.handling.mode", &["fail", "warn", "skip"]),
    ("errors.tolerance", &["none", "all"]),
    ("after.state.only", &["true", "false"]),
    ("output.key.format", &["JSON", "JSON_SR", "AVRO", "PROTOBUF", "STRING"]),
    ("output.data.format", &["JSON", "JSON_SR", "AVRO", "PROTOBUF"]),
    ("value.converter.schemas.enable", &["true", "false"]),
    ("value.converter.replace.null.with.default", &["true", "false"]),
    (
        "header.converter",
        &[
            "org.apache.kafka.connect.storage.SimpleHeaderConverter",
            "org.apache.kafka.connect.storage.StringConverter",
            "org.apache.kafka.connect.json.JsonConverter",
        ],
    ),
    ("auto.restart.on.user.error", &["true", "false"]),
];
const REQUIRED: [&str; 9] = [
    "name",
    "connector.class",
    "tasks.max",
    "database.hostname",
    "database.port",
    "database.user",
    "database.password",
    "database.dbname",
    "topic.prefix",
];

fn errors(config: &BTreeMap<String, String>) -> BTreeMap<&'static str, Vec<String>> {
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, allowed) in KEYS {
        let value = config.get(key).map(String::as_str).unwrap_or_default();
        if value.is_empty() && REQUIRED.contains(&key) {
            errors.entry(key).or_default().push(format!("\"{key}\" is required"));
        } else if !value.is_empty() && !allowed.is_empty() && !allowed.contains(&value) {
            let message = format!("The value \"{value}\" is not one of {}", allowed.join(", "));
            errors.entry(key).or_default().push(message);
        }
    }
    // A connection that it tried; it says with what.
    if let (Some("db.refused"), Some(password)) = (
        config.get("database.hostname").map(String::as_str),
        config.get("database.password"),
    ) {
        let message = format!("Unable to sign in with {password}\nCaused by: something");
        errors.entry("database.hostname").or_default().push(message);
    }
    errors
}

fn validated(body: &[u8]) -> Response {
    let Ok(config) = serde_json::from_slice::<BTreeMap<String, String>>(body) else {
        return refused("Bad Request");
    };
    let errors = errors(&config);
    let one = |(key, allowed): &(&str, &[&str])| {
        let is_secret = key.ends_with("password");
        json!({
            "definition": {"name": key, "type": "STRING", "required": REQUIRED.contains(key), "importance": "HIGH"},
            "value": {
                "name": key,
                "value": if is_secret { Some(MASK) } else { config.get(*key).map(String::as_str) },
                "recommended_values": allowed,
                "errors": errors.get(key).cloned().unwrap_or_default(),
                "visible": true,
            },
            "metadata": {},
        })
    };
    let configs: Vec<Value> = KEYS.iter().map(one).collect();
    reply(
        200,
        &json!({"name": PLUGIN, "groups": [], "error_count": errors.len(), "configs": configs}),
    )
}

fn refused(message: &str) -> Response {
    reply(400, &json!({"error": {"code": 400, "message": message}}))
}

fn no_such() -> Response {
    reply(404, &json!({"error": {"code": 404, "message": "resource not found"}}))
}

fn reply(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
