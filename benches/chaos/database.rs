//! Sessions that outlive a restart of the database: takes calls, makes each again until it was answered.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, NoTls, Row};

use crate::rig::PATIENCE;

/// One connection at a time.
#[derive(Debug)]
pub(crate) struct Session {
    url: String,
    client: Option<Client>,
}

const AGAIN: Duration = Duration::from_millis(100);

impl Session {
    pub(crate) const fn new(url: String) -> Self {
        Self { url, client: None }
    }

    /// The connection, a new one if need be.
    pub(crate) async fn client(&mut self) -> anyhow::Result<&Client> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let begun = Instant::now();
            let client = loop {
                match tokio_postgres::connect(&self.url, NoTls).await {
                    Ok((client, connection)) => {
                        // How it ends shows in the calls.
                        tokio::spawn(connection);
                        break client;
                    }
                    Err(error) if begun.elapsed() > PATIENCE => {
                        return Err(error).context("the database does not come back");
                    }
                    Err(_away) => sleep(AGAIN).await,
                }
            };
            self.client = Some(client);
        }
        self.client.as_ref().context("connected")
    }

    /// Texts in, rows out, made again while the database is away: for statements that may be executed twice.
    pub(crate) async fn ask(&mut self, statement: &str, texts: &[&str]) -> anyhow::Result<Vec<Row>> {
        let begun = Instant::now();
        loop {
            let client = self.client().await?;
            match query(client, statement, texts).await {
                Ok(rows) => return Ok(rows),
                Err(error) if passes(&error) && begun.elapsed() < PATIENCE => sleep(AGAIN).await,
                Err(error) => bail!("{statement}: {}", told(&error)),
            }
        }
    }

    /// Several statements, once.
    pub(crate) async fn run(&mut self, statements: &str) -> anyhow::Result<()> {
        let client = self.client().await?;
        Ok(client.batch_execute(statements).await?)
    }

    pub(crate) async fn number(&mut self, query: &str) -> anyhow::Result<u64> {
        let rows = self.ask(&format!("select ({query})::bigint"), &[]).await?;
        let number: i64 = rows.first().context("a row")?.try_get(0)?;
        Ok(u64::try_from(number)?)
    }
}

/// Without preparing: one round trip, and many may be on their way.
pub(crate) async fn query(client: &Client, statement: &str, texts: &[&str]) -> Result<Vec<Row>, Error> {
    let parameters: Vec<_> = texts
        .iter()
        .map(|text| (text as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT))
        .collect();
    client.query_typed(statement, &parameters).await
}

/// Whether it says nothing about the call: the server is away, is going, chose this one of two that waited for each other, or
/// let it wait for a lock no longer.
pub(crate) fn passes(error: &Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => ["08", "40", "53", "55P03", "57"]
            .iter()
            .any(|class| code.code().starts_with(class)),
    }
}

/// The server's own words.
pub(crate) fn told(error: &Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |error| format!("{} {}", SqlState::code(error.code()), error.message()),
    )
}
