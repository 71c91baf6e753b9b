//! A few connections to the database that mend themselves.
//!
//! Takes one statement with its parameters, gives the rows, or why there are none. It never retries: back-off is the
//! caller's. It works through a pooler that gives every transaction another session: no statement is prepared under a name,
//! and nothing outlives its transaction.
//!
//! The server ends a statement that takes too long. For that the statement goes out between `begin` with a `set local` and
//! `commit`, all in one round trip: a `set` would stay behind in somebody else's session, a startup option is refused by
//! poolers, and a cancel request whose sender does not linger brings `PgBouncer` 1.18 down. The server's word that it ended it
//! is *too long*; silence is *away*.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Failure;
use super::{DatabaseUrl, LedgerError};

/// Shared by everybody who asks the database.
pub struct Client {
    config: Config,
    /// What no message may repeat.
    secret: String,
    tls: Option<MakeRustlsConnect>,
    patience: Duration,
    /// With the timeout in it.
    begin: Box<str>,
    room: Semaphore,
    /// The one used last is the one used next, so that what is not needed stays unused and few are ever opened.
    idle: Mutex<Vec<Session>>,
}

/// A value and its type: with the type said, no round trip asks for it.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

struct Session {
    client: tokio_postgres::Client,
    task: AbortHandle,
}

/// A session that is in use. Given up in the middle of a statement, it ends with it: nobody else waits for the answer.
struct Lease<'a> {
    session: Option<Session>,
    _permit: SemaphorePermit<'a>,
}

/// One for every lane of all consumers by default, and one for the refresh of programs. More lanes wait for their turn.
pub const MAX_CONNECTIONS: usize = 16;
/// Name lookup, TCP, TLS and login together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement may take. The lease of a claim is as long: behind it another worker may begin the same.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer the server's own word may take.
const GRACE: Duration = Duration::from_secs(2);
/// A connection that a firewall forgot is noticed within two minutes, by the system, though nobody uses it.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Opens no connection yet: the first call does.
    ///
    /// # Errors
    /// `sslrootcert` cannot be read, or there is no authority to believe.
    pub fn new(url: &DatabaseUrl) -> Result<Self, LedgerError> {
        let tls = if url.uses_tls() {
            let verifying = crate::tls::verifying_client(url.root_file());
            let verifying = verifying.map_err(|error| LedgerError::Configuration(format!("DATABASE_URL: {error}")))?;
            Some(MakeRustlsConnect::new(verifying))
        } else {
            None
        };
        let (idle, interval, retries) = KEEPALIVE;
        let mut config = url.config().clone();
        config
            .keepalives_idle(idle)
            .keepalives_interval(interval)
            .keepalives_retries(retries);
        if config.get_application_name().is_none() {
            config.application_name(env!("CARGO_PKG_NAME"));
        }
        Ok(Self {
            config,
            secret: url.secret(),
            tls,
            patience: STATEMENT_TIMEOUT,
            begin: begin(STATEMENT_TIMEOUT),
            room: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// How long a statement may take.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self.begin = begin(patience);
        self
    }

    /// A connection of the caller's own, without a time limit: for several statements in one transaction.
    ///
    /// # Errors
    /// The database is away or refuses us.
    pub async fn connect_alone(&self) -> Result<tokio_postgres::Client, LedgerError> {
        Ok(self.open().await?.client)
    }

    /// One statement, one transaction.
    pub(super) async fn query(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LedgerError> {
        let permit = self.room.acquire().await;
        let permit = permit.map_err(|closed| LedgerError::Unavailable(closed.to_string()))?;
        let session = match self.take() {
            Some(session) => session,
            None => self.open().await?,
        };
        let mut lease = Lease {
            session: Some(session),
            _permit: permit,
        };
        let Some(session) = &lease.session else {
            return Err(Failure::timed_out("connect").error);
        };
        let answer = self.ask(session, statement, parameters).await;
        if answer.as_ref().is_err_and(|failure| failure.broken) {
            self.idle().clear();
        } else {
            self.give_back(lease.session.take());
        }
        answer.map_err(|failure| failure.error)
    }

    async fn ask(&self, session: &Session, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        let client = &session.client;
        // Sent in this order, without waiting for each other. After a failure the last one rolls back.
        let asked = futures::future::join3(
            client.batch_execute(&self.begin),
            client.query_typed(statement, parameters),
            client.batch_execute("commit"),
        );
        let Ok((begun, rows, ended)) = tokio::time::timeout(self.patience + GRACE, asked).await else {
            return Err(Failure::timed_out("statement"));
        };
        let rows = begun.and(rows).and_then(|rows| ended.map(|()| rows));
        rows.map_err(|error| Failure::of_statement(&error))
    }

    async fn open(&self) -> Result<Session, LedgerError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, async {
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = self.config.connect(tls.clone()).await?;
                    Ok(Session::new(client, connection))
                }
                None => {
                    let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                    Ok(Session::new(client, connection))
                }
            }
        });
        match opened.await {
            Ok(opened) => opened.map_err(|error| Failure::of_connect(&error, &self.secret)),
            Err(_elapsed) => Err(Failure::timed_out("connect").error),
        }
    }

    fn take(&self) -> Option<Session> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop()).find(|session| !session.client.is_closed())
    }

    fn give_back(&self, session: Option<Session>) {
        self.idle()
            .extend(session.filter(|session| !session.client.is_closed()));
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(patience: Duration) -> Box<str> {
    format!("begin; set local statement_timeout = {}", patience.as_millis().max(1)).into()
}

impl Session {
    /// Whoever drops the client ends the connection, with the protocol's farewell.
    fn new<S, T>(client: tokio_postgres::Client, connection: tokio_postgres::Connection<S, T>) -> Self
    where
        tokio_postgres::Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let task = tokio::spawn(async move {
            // Every call that is under way is told the same.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        Self {
            client,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.task.abort();
        }
    }
}
