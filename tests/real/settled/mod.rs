//! The whole loop: a row in Postgres → Debezium → Kafka → the worker → Inngest → a workflow that settles in Postgres, which
//! comes back as a row.
//!
//! Each test takes a database, a connector, topics and a worker of its own, so that one may stop its connector or drop its
//! slot while others run. It gives the settled state to be compared with what the SQL alone implies. Nothing in between is
//! replaced but Inngest, by a receiver or by the executor double. Worker, workflows and connector come into the database as
//! members of their roles and as nothing more, so that a grant that is missing fails here.

mod calls;
mod connector;
mod drawn;
mod faults;
mod healed;
mod rounds;
mod snapshots;
mod troubles;
mod watched;
mod workflows;

use std::time::Duration;

use futures::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use self::connector::Connector;
use super::topics;
use super::worker::{PATIENCE, Worker};
use super::{stack, unique};
use crate::postgres::{Database, drop_logins};

const TABLES: [&str; 6] = [
    "purchase_ledger",
    "wallet_ledger",
    "form_submissions",
    "mission_claims",
    "referral_ledger",
    "codes",
];
const QUEUES: [&str; 6] = ["decode", "currency", "tier", "mission", "reward", "marketplace"];

/// Of the worker and of the workflows; a login of the connector's role comes with the stack.
const ROLES: [&str; 2] = ["worker", "workflows"];

/// How often a database or an endpoint is asked again: they tell nobody.
const LOOK: Duration = Duration::from_millis(50);

/// All that one test has for itself.
pub(super) struct House {
    pub(super) database: Database,
    /// Of the connector, the topics and the group.
    pub(super) name: String,
    pub(super) merchant: String,
}

impl House {
    /// Topics with so many partitions each.
    pub(super) async fn new(partitions: i32) -> Self {
        Self::with(Database::new().await, partitions).await
    }

    pub(super) async fn with(database: Database, partitions: i32) -> Self {
        let run = unique();
        let house = Self {
            database,
            name: format!("loop_{run}"),
            merchant: format!("m-{run}"),
        };
        for role in ROLES {
            let login = house.login(role);
            // The owner is a member, to end its sessions.
            house
                .sql(&format!(
                    "create role {login} login password '{login}' in role crm_{role} role current_user"
                ))
                .await;
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"));
        let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
        let sources = house.topics();
        let queues = QUEUES.map(|queue| format!("{}.dlq.{queue}", house.name));
        let new = |(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let wanted = sources.iter().map(|name| (name.as_str(), partitions));
        let wanted: Vec<_> = wanted
            .chain(queues.iter().map(|name| (name.as_str(), 1)))
            .map(new)
            .collect();
        let created = admin.create_topics(&wanted, &AdminOptions::new()).await;
        for topic in created.expect("an answer") {
            topic.expect("created");
        }
        topics::wait_led(&[&sources[..], &queues].concat()).await;
        house
    }

    pub(super) fn topics(&self) -> Vec<String> {
        TABLES.map(|table| self.topic(table)).into()
    }

    pub(super) fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// A version of the merchant's rules, in force since ever.
    pub(super) async fn program(&self, time_zone: &str, rules: &Value) {
        let merchant = &self.merchant;
        self.sql(&format!(
            "insert into crm_events.programs (merchant_id, time_zone) values ('{merchant}', '{time_zone}'); \
             insert into crm_events.program_versions (merchant_id, rev, effective_from, rules) \
             values ('{merchant}', 1, '2020-01-01', '{rules}')"
        ))
        .await;
    }

    /// Inserted now, in a transaction of its own.
    pub(super) async fn purchase(&self, id: &str, user: &str, amount: &str, status: &str) {
        let merchant = &self.merchant;
        self.sql(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{id}', '{user}', '{merchant}', {amount}, '{status}', true, now())"
        ))
        .await;
    }

    pub(super) async fn sql(&self, statements: &str) {
        self.database.own.run(statements).await;
    }

    pub(super) async fn number(&self, query: &str) -> i64 {
        let text = self.database.own.text(&format!("select ({query})::text")).await;
        text.parse().unwrap_or_else(|_| panic!("no number: {query}: {text}"))
    }

    /// Asks until the query gives this.
    pub(super) async fn until(&self, what: &str, query: &str, wanted: &str) {
        let mut last = String::new();
        let asking = async {
            loop {
                last = self.database.own.text(query).await;
                if last == wanted {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "never came: {what}: {query}: {last}, not {wanted}");
    }

    /// The worker with all five consumers, which sends to this Inngest.
    pub(super) fn worker(&self, inngest: &str) -> Worker {
        let mut worker = Worker::new(&self.name, "", inngest);
        worker.unset("PROGRAM_FILE");
        worker.set("TOPIC_PREFIX", &self.name);
        worker.set("DATABASE_URL", &self.url_of("worker"));
        // Programs of one database must not become another's.
        worker.set("CRM_CACHE_REDIS_URL", &format!("{}/15", stack("REDIS_URL")));
        worker
    }

    /// The same, and it looks at its connector every second.
    pub(super) fn looking_worker(&self, inngest: &str) -> Worker {
        let mut worker = self.worker(inngest);
        worker.set("SOURCE_POLL_SECS", "1");
        worker.set("CONNECT_URL", &stack("CONNECT_URL"));
        worker.set("CONNECTOR_NAME", &self.name);
        worker.set("CONNECTOR_ACCEPT", "slot.name, heartbeat.interval.ms");
        worker
    }

    /// As the owner comes in.
    pub(super) fn url(&self) -> String {
        self.url_with("crm")
    }

    /// As a member of that role does, and nothing more.
    pub(super) fn url_of(&self, role: &str) -> String {
        self.url_with(&self.login(role))
    }

    fn login(&self, role: &str) -> String {
        format!("{}_{role}", self.name)
    }

    fn url_with(&self, user: &str) -> String {
        let port = self.database.config.get_ports()[0];
        let name = self.database.config.get_dbname().expect("a name");
        format!("postgres://{user}:{user}@127.0.0.1:{port}/{name}")
    }

    /// Writes the state of these purchases into their topic as a connector would, one record each.
    pub(super) async fn produce(&self, rows: &str) {
        // A server of a test's own begins its log where every other does; the dedupe store outlives it.
        let run = self.merchant.trim_start_matches("m-");
        let log = i64::from_str_radix(run, 16).expect("the run is a number");
        let query = format!(
            "select p.id, jsonb_build_object('before', null, 'after', to_jsonb(p) || jsonb_build_object( \
                 'final_amount', p.final_amount::text, 'refunded_amount', p.refunded_amount::text), \
                 'source', jsonb_build_object('ts_ms', crm_events.ms(now()), 'table', 'purchase_ledger', 'txId', 1, \
                 'lsn', (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint + {log}), \
                 'op', 'c', 'ts_ms', crm_events.ms(now()))::text as envelope \
             from purchase_ledger p where {rows} order by p.id"
        );
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"));
        let producer: FutureProducer = config.create().expect("a producer");
        let topic = self.topic("purchase_ledger");
        let records = self.database.own.rows(&query).await;
        let sent = records.iter().map(async |record| {
            let key = json!({"id": record["id"]}).to_string();
            let envelope = record["envelope"].as_str().expect("a text");
            let message = FutureRecord::to(&topic).key(&key).payload(envelope);
            producer.send(message, PATIENCE).await.expect("delivered");
        });
        join_all(sent).await;
    }

    pub(super) async fn connector(&self) -> Connector {
        let database = self.database.config.get_dbname().expect("a name");
        let port = self.database.config.get_ports()[0];
        Connector::start(&self.name, database, port).await
    }

    /// Waits until a topic holds so many records.
    pub(super) async fn holds(&self, table: &str, records: i64) {
        let topic = self.topic(table);
        let asking = async {
            loop {
                let asked = topic.clone();
                let held = tokio::task::spawn_blocking(move || topics::len(&asked)).await;
                if held.expect("asked") >= records {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "{topic} never held {records} records");
    }

    /// Waits until a topic holds so many records and every topic is committed to its end.
    pub(super) async fn read_through(&self, table: &str, records: i64) {
        self.holds(table, records).await;
        topics::wait_all_committed(&self.name, &self.topics()).await;
    }

    /// How many records lie in the dead letters.
    pub(super) async fn dead_letters(&self) -> i64 {
        let queues = QUEUES.map(|queue| format!("{}.dlq.{queue}", self.name));
        let asked = tokio::task::spawn_blocking(move || queues.iter().map(|queue| topics::len(queue)).sum());
        asked.await.expect("asked")
    }

    /// A test that fails leaves everything to be looked at, until the stack goes.
    pub(super) async fn done(self, connector: Connector) {
        connector.remove(&self.database).await;
        self.emptied().await;
    }

    /// Without a connector.
    pub(super) async fn emptied(self) {
        let logins = ROLES.map(|role| self.login(role));
        self.database.done().await;
        drop_logins(&logins).await;
    }
}

/// Points for every unit, at once.
fn plain_currency() -> Value {
    json!({"rate": "1", "rounding": "floor", "minimum": "0", "activation": {"kind": "immediate"}})
}

/// The sum of a counter over all label sets that contain these texts.
async fn counted(worker: &Worker, name: &str, labels: &[&str]) -> u64 {
    let (_, text) = worker.get("metrics").await.expect("an answer");
    let samples = text
        .lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
    samples
        .map(|line| value(line).unwrap_or_else(|| panic!("no count: {line}")))
        .sum()
}
