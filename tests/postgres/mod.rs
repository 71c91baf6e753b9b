//! The functions of `schemas/postgres` on a real server: a database for each test, as `migrate` makes it.
//!
//! Edge cases of the loyalty rules whose lowest height is SQL are named by number.

mod asking;
mod awards;
mod differential;
mod grants;
mod identities;
mod migrate;
mod missions;
mod months;
mod notes;
mod passes;
mod programs;
mod racing;
mod racing_members;
mod reconciling;
mod roles;
mod shadow;
mod surveying;
mod sweeping;
mod tiers;
mod waiting;

use std::collections::BTreeMap;

use crm_event_processors::postgres::migrations;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

use crate::PATIENCE;

/// Whether the ids of a database's ledgers are texts, or as some applications have them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    Text,
    Mixed,
}

/// A database of its own, migrated.
pub(crate) struct Database {
    pub(crate) config: Config,
    /// The owner's session.
    pub(crate) own: Session,
}

pub(crate) struct Session(Client);

/// A purchase as the application has it.
#[derive(Debug, Clone)]
struct Purchase {
    id: String,
    user: String,
    merchant: String,
    amount: String,
    refunded: String,
    status: &'static str,
    created_at: String,
    completed_at: Option<String>,
}

const TS_MS: i64 = 1_790_000_000_000;
/// Long past, whatever the day of the test.
const CREATED: &str = "2026-01-15T10:00:00Z";

/// An address of the running stack.
pub(crate) fn stack(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/.run/env");
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("no stack ({path}: {error}); start it with `make stack-up`"));
    let address = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let address = address.unwrap_or_else(|| panic!("{name} is not in {path}; run `make stack-up`"));
    address.to_owned()
}

fn server() -> Config {
    stack("POSTGRES_URL").parse().expect("an address")
}

async fn connect(config: &Config) -> Session {
    let (client, connection) = config.connect(NoTls).await.expect("the database");
    tokio::spawn(connection);
    Session(client)
}

fn unique() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}

/// An empty database of a new name.
async fn empty_database() -> (String, Config) {
    let name = format!("crm_test_{}", unique());
    connect(&server()).await.run(&format!("create database {name}")).await;
    let mut config = server();
    config.dbname(&name);
    (name, config)
}

/// Made once a process; every test has a copy.
async fn template(ids: Ids) -> &'static str {
    static TEXT: OnceCell<String> = OnceCell::const_new();
    static MIXED: OnceCell<String> = OnceCell::const_new();
    let cell = if ids == Ids::Text { &TEXT } else { &MIXED };
    let made = cell.get_or_init(|| async {
        let (name, config) = empty_database().await;
        let (mut client, connection) = config.connect(NoTls).await.expect("the database");
        let connection = tokio::spawn(connection);
        if ids == Ids::Mixed {
            client.batch_execute(identities::LEDGERS).await.expect("other ledgers");
        }
        migrations::apply(&mut client).await.expect("migrated");
        drop(client);
        // A database that somebody is connected to cannot be copied.
        connection.await.expect("ended").expect("cleanly");
        while connect(&server())
            .await
            .text(&format!(
                "select count(*)::text from pg_stat_activity where datname = '{name}'"
            ))
            .await
            != "0"
        {
            tokio::task::yield_now().await;
        }
        name
    });
    made.await
}

/// Not `with (force)`: that is refused while the server's own vacuum looks at the database, which this waits for.
async fn drop_database(name: &str) {
    let session = connect(&server()).await;
    // Of the owner, and of the logins that a test made.
    let ours =
        "select pg_terminate_backend(pid) from pg_stat_activity where pg_has_role(usesysid, 'member') and datname =";
    session.run(&format!("{ours} '{name}'")).await;
    let drop = format!("drop database {name}");
    // A connector's sessions go by themselves: five seconds of each attempt are waited for them.
    let dropped = timeout(PATIENCE, async {
        while let Err(error) = session.0.batch_execute(&drop).await {
            assert_eq!(error.code(), Some(&SqlState::OBJECT_IN_USE), "{drop}: {error:?}");
        }
    });
    assert!(dropped.await.is_ok(), "{name} stays in use");
}

/// Logins that a test made for its database, once that is gone.
pub(crate) async fn drop_logins(names: &[String]) {
    let session = connect(&server()).await;
    session.run(&format!("drop role {}", names.join(", "))).await;
}

impl Database {
    pub(crate) async fn new() -> Self {
        Self::with(Ids::Text).await
    }

    async fn with(ids: Ids) -> Self {
        let template = template(ids).await;
        let name = format!("crm_test_{}", unique());
        let server_session = connect(&server()).await;
        server_session
            .run(&format!("create database {name} template {template}"))
            .await;
        let mut config = server();
        config.dbname(&name);
        let own = connect(&config).await;
        Self { config, own }
    }

    pub(crate) fn url(&self) -> String {
        let name = self.config.get_dbname().expect("a name");
        let address = stack("POSTGRES_URL");
        let (server, _stacks) = address.rsplit_once('/').expect("an address");
        format!("{server}/{name}")
    }

    /// On a server of the test's own.
    pub(crate) async fn on(url: &str) -> Self {
        let config: Config = url.parse().expect("an address");
        let (mut client, connection) = config.connect(NoTls).await.expect("the database");
        tokio::spawn(connection);
        migrations::apply(&mut client).await.expect("migrated");
        let own = connect(&config).await;
        Self { config, own }
    }

    pub(crate) async fn session(&self) -> Session {
        connect(&self.config).await
    }

    /// Makes every write take a few milliseconds, so that what is not locked is met by somebody else meanwhile.
    async fn slow_writes(&self) {
        self.own
            .run(
                "create function public.pause() returns trigger language plpgsql as \
                 $$ begin perform pg_sleep(random() * 0.004); return new; end $$",
            )
            .await;
        for table in [
            "crm_events.effects",
            "crm_events.mission_sources",
            "crm_events.tier_state",
            "public.wallet_ledger",
        ] {
            self.own
                .run(&format!(
                    "create trigger pause before insert or update on {table} for each row execute function public.pause()"
                ))
                .await;
        }
    }

    /// Drops it. A test that fails leaves it to be looked at, until the stack goes.
    pub(crate) async fn done(self) {
        let name = self.config.get_dbname().expect("a name").to_owned();
        drop(self.own);
        drop_database(&name).await;
    }
}

impl Session {
    pub(crate) async fn run(&self, sql: &str) {
        let ran = self.0.batch_execute(sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The SQLSTATE it fails with.
    async fn refusal(&self, sql: &str) -> String {
        let error = self.0.batch_execute(sql).await.expect_err(sql);
        error.code().expect("an answer of the server").code().to_owned()
    }

    /// The one value of a query, as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let rows = self.0.query_typed(sql, &[]).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let text: Option<String> = rows.first().unwrap_or_else(|| panic!("no row: {sql}")).get(0);
        text.unwrap_or_else(|| "null".to_owned())
    }

    /// Every row of a query as JSON.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let wrapped = format!("select coalesce(jsonb_agg(to_jsonb(found)), '[]')::text from ({sql}) found");
        serde_json::from_str(&self.text(&wrapped).await).expect("JSON")
    }

    async fn try_call(&self, function: &str, argument: &Value) -> Result<Value, tokio_postgres::Error> {
        let sql = format!("select crm_events.{function}($1::text::jsonb)::text");
        let argument = argument.to_string();
        let rows = self.0.query_typed(&sql, &[(&argument, Type::TEXT)]).await?;
        Ok(serde_json::from_str(&rows[0].get::<_, String>(0)).expect("JSON"))
    }

    /// A function that takes and gives JSON.
    async fn call(&self, function: &str, argument: &Value) -> Value {
        let answer = self.try_call(function, argument).await;
        answer.unwrap_or_else(|error| panic!("{function}: {error:?}"))
    }

    /// A function that takes JSON and gives nothing.
    async fn call_nothing(&self, function: &str, argument: &Value) {
        let sql = format!("select crm_events.{function}($1::text::jsonb)::text");
        let argument = argument.to_string();
        let called = self.0.query_typed(&sql, &[(&argument, Type::TEXT)]).await;
        called.unwrap_or_else(|error| panic!("{function}: {error:?}"));
    }

    async fn try_settle(&self, function: &str, key: &str) -> Result<Value, tokio_postgres::Error> {
        let sql = format!("select crm_events.{function}($1)::text");
        let rows = self.0.query_typed(&sql, &[(&key, Type::TEXT)]).await?;
        Ok(serde_json::from_str(&rows[0].get::<_, String>(0)).expect("JSON"))
    }

    /// A function that takes an effect key and gives JSON.
    async fn settle(&self, function: &str, key: &str) -> Value {
        let answer = self.try_settle(function, key).await;
        answer.unwrap_or_else(|error| panic!("{function}: {error:?}"))
    }

    async fn try_announcing(&self, function: &str, argument: &str) -> Result<Vec<Value>, tokio_postgres::Error> {
        let cast = if function == "upgrade_tier" { "" } else { "::jsonb" };
        let sql = format!("select to_jsonb(found)::text from crm_events.{function}($1::text{cast}) found");
        let rows = self.0.query_typed(&sql, &[(&argument, Type::TEXT)]).await?;
        let announcement = |row: &tokio_postgres::Row| serde_json::from_str(&row.get::<_, String>(0)).expect("JSON");
        Ok(rows.iter().map(announcement).collect())
    }

    /// A function that gives announcements.
    async fn announcing(&self, function: &str, argument: &Value) -> Vec<Value> {
        let argument = argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        let found = self.try_announcing(function, &argument).await;
        let found = found.unwrap_or_else(|error| panic!("{function}: {error:?}"));
        for announcement in &found {
            assert_valid(announcement);
        }
        found
    }

    async fn announced(&self, announcements: &[Value]) {
        let ids: Vec<&str> = announcements
            .iter()
            .map(|one| one["id"].as_str().expect("an id"))
            .collect();
        let parameters = [(&ids as _, Type::TEXT_ARRAY)];
        let sent = self.0.query_typed("select crm_events.announced($1)", &parameters).await;
        sent.expect("announced");
    }

    /// Moves the clock of the functions.
    pub(crate) async fn wait(&self, interval: &str) {
        self.run(&format!(
            "insert into crm_events.settings (name, value) values ('clock_offset', '{interval}') \
             on conflict (name) do update set value = excluded.value"
        ))
        .await;
    }

    pub(crate) async fn effect(&self, key: &str) -> Value {
        let found = self
            .rows(&format!("select * from crm_events.effects where effect_key = '{key}'"))
            .await;
        found.into_iter().next().unwrap_or(Value::Null)
    }

    async fn standing(&self, record: &Value) -> String {
        let records = json!([record]).to_string();
        let sql = "select standing from crm_events.compare_effects($1::text::jsonb) order by ordinal";
        let rows = self
            .0
            .query_typed(sql, &[(&records, Type::TEXT)])
            .await
            .expect("compared");
        rows[0].get(0)
    }

    pub(crate) async fn balance(&self, user: &str) -> i64 {
        let sql = format!("select coalesce(sum(amount), 0)::text from wallet_ledger where user_id::text = '{user}'");
        self.text(&sql).await.parse().expect("a number")
    }
}

impl Purchase {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            user: "u-1".to_owned(),
            merchant: "m-1".to_owned(),
            amount: "100.00".to_owned(),
            refunded: "0.00".to_owned(),
            status: "completed",
            created_at: CREATED.to_owned(),
            completed_at: None,
        }
    }

    fn of(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    fn worth(mut self, amount: &str) -> Self {
        self.amount = amount.to_owned();
        self
    }

    fn at(mut self, created_at: &str) -> Self {
        self.created_at = created_at.to_owned();
        self
    }

    fn refunded(mut self, refunded: &str, status: &'static str) -> Self {
        self.refunded = refunded.to_owned();
        self.status = status;
        self
    }

    fn key(&self) -> String {
        format!("award:{}", self.id)
    }

    /// Inserts it, or brings the row to this state.
    fn sql(&self) -> String {
        let completed_at = self
            .completed_at
            .as_ref()
            .map_or_else(|| "null".to_owned(), |at| format!("'{at}'"));
        let Self {
            id,
            user,
            merchant,
            amount,
            refunded,
            status,
            created_at,
            ..
        } = self;
        format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, refunded_amount, status, earn_currency, \
             created_at, completed_at) values ('{id}', '{user}', '{merchant}', {amount}, {refunded}, '{status}', true, \
             '{created_at}', {completed_at}) \
             on conflict (id) do update set user_id = excluded.user_id, merchant_id = excluded.merchant_id, final_amount = excluded.final_amount, \
             refunded_amount = excluded.refunded_amount, status = excluded.status, created_at = excluded.created_at, \
             completed_at = excluded.completed_at"
        )
    }

    /// As an event carries it.
    fn basis(&self) -> Value {
        json!({"user_id": self.user, "merchant_id": self.merchant, "final_amount": self.amount,
            "refunded_amount": self.refunded, "status": self.status, "earn_currency": true,
            "created_at": self.created_at, "completed_at": self.completed_at})
    }

    fn scheduled(&self, points: i64, due_at: &str, policy: &str) -> Value {
        json!({"purchase_id": self.id, "effect_key": self.key(), "target_points": points.to_string(), "due_at": due_at,
            "program_rev": 1, "refund_policy": policy,
            "basis": self.basis(), "as_of_ms": TS_MS, "reason": "due_now"})
    }

    fn cancelled(&self, policy: Option<&str>) -> Value {
        let mut event = self.scheduled(0, "", "");
        let data = event.as_object_mut().expect("an object");
        data.remove("due_at");
        data.remove("refund_policy");
        if let Some(policy) = policy {
            data.insert("refund_policy".to_owned(), json!(policy));
        }
        event
    }

    /// As `compare_effects` takes it.
    fn record(&self, points: i64, due_at: Option<&str>, rev: i64) -> Value {
        json!({"effect_key": self.key(), "basis": self.basis(), "target": points, "due_at": due_at, "program_rev": rev,
            "source_table": "purchase_ledger", "source_id": self.id, "merchant_id": self.merchant, "user_id": self.user})
    }
}

/// Every announcement has the promised shape.
fn assert_valid(announcement: &Value) {
    let name = announcement["name"].as_str().expect("a name");
    assert!(
        crm_event_processors::inngest::event::ANNOUNCED.contains(&name),
        "{name}"
    );
    let path = format!(
        "{}/schemas/inngest/{}.schema.json",
        env!("CARGO_MANIFEST_DIR"),
        name.replace('/', ".")
    );
    let schema = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("a schema");
    let event = json!({"id": announcement["id"], "name": name, "ts": announcement["ts_ms"],
        "v": crm_event_processors::inngest::event::ANNOUNCED_V, "data": announcement["data"]});
    let problems: Vec<String> = schema.iter_errors(&event).map(|error| error.to_string()).collect();
    assert_eq!(problems, Vec::<String>::new(), "{event}");
}

/// How often each value occurs.
fn counted<'a>(values: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
