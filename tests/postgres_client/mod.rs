//! The client of the database, the rules it reads and the calls it makes, against real servers: the stack's PostgreSQL,
//! directly and through its pooler, and one that a test starts for itself to take it away.

mod client;
mod contract;
mod programs;
pub(crate) mod server;
mod tls;

use std::sync::Arc;

use crm_event_processors::postgres::{Client, DatabaseUrl, LedgerError, PostgresLedger};
use tokio_postgres::NoTls;

use crate::PATIENCE;

/// An address of the running stack. Its absence fails the test: nothing passes by skipping.
fn stack(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/.run/env");
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("no stack ({path}: {error}); start it with `make stack-up`"));
    let address = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let address = address.unwrap_or_else(|| panic!("{name} is not in {path}; run `make stack-up`"));
    address.to_owned()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A database of the test's own on the stack's server.
struct Database {
    name: String,
}

impl Database {
    /// With the functions of `stub.sql`.
    async fn create() -> Self {
        let database = Self::empty().await;
        database.ask(include_str!("stub.sql")).await;
        database
    }

    /// As `migrate` makes it.
    async fn migrated() -> Self {
        let database = Self::empty().await;
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/postgres")).expect("the folder");
        let mut paths: Vec<_> = folder.map(|entry| entry.expect("readable").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
        paths.sort();
        assert!(!paths.is_empty(), "no migration found");
        for path in paths {
            database.ask(&std::fs::read_to_string(&path).expect("readable")).await;
        }
        database
    }

    async fn empty() -> Self {
        let name = format!("client_{:016x}", fastrand::u64(..));
        ask(&stack("POSTGRES_URL"), &format!("create database {name}")).await;
        Self { name }
    }

    /// Not through the pooler.
    fn url(&self) -> String {
        self.within("POSTGRES_URL")
    }

    fn pooled(&self) -> String {
        self.within("POOLER_URL")
    }

    fn within(&self, name: &str) -> String {
        let url = stack(name);
        let server = url.strip_suffix("/crm").expect("the stack's database is crm");
        format!("{server}/{}", self.name)
    }

    /// Past the code under test; gives the first column of the rows.
    async fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.url(), sql).await
    }
}

async fn ask(url: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    let messages = client.simple_query(sql).await.expect(sql);
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    });
    rows.collect()
}

fn client(url: &str) -> Client {
    Client::new(&DatabaseUrl::parse(url).expect("an address")).expect("no file is named")
}

fn ledger(url: &str) -> PostgresLedger {
    PostgresLedger::new(Arc::new(client(url)))
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(result: &Result<T, LedgerError>, says: &str) {
    let as_expected = matches!(result, Err(LedgerError::Unavailable(text)) if text.contains(says));
    assert!(as_expected, "{result:?} says {says}");
}

#[track_caller]
fn assert_configuration<T: std::fmt::Debug>(result: &Result<T, LedgerError>, says: &str) {
    let as_expected = matches!(result, Err(LedgerError::Configuration(text)) if text.contains(says));
    assert!(as_expected, "{result:?} says {says}");
}
