//! One shared connection to Redis that mends itself.
//!
//! Takes pipelines, gives the replies, or why there are none. After an I/O error or a timeout the connection is dropped and the
//! next call opens a new one; callers that come meanwhile share that one attempt and its result. It never retries a call:
//! back-off is the caller's.
//!
//! We log in ourselves, not through the client: it reports every refusal of `AUTH` as a wrong password, and a server that
//! is merely full would stop a consumer until an operator looks.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, ProtocolVersion,
    RedisConnectionInfo, Value,
};

use super::failure::Failure;
use crate::dedupe::DedupeError;

/// Where Redis is, with its password: never printed.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

/// Opens the connection when one is needed and hands out clones of it.
pub(crate) struct Connector {
    client: Client,
    config: AsyncConnectionConfig,
    login: Login,
    state: Mutex<State>,
}

/// What follows the TCP connection.
#[derive(Clone)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    db: i64,
}

#[derive(Default)]
struct State {
    /// Tells the present connection from one that was dropped since.
    generation: u64,
    connection: Option<Attempt>,
}

/// Under way or done; the same for everyone who asks.
type Attempt = Shared<BoxFuture<'static, Result<MultiplexedConnection, Failure>>>;

/// Name lookup, TCP, TLS, login and version together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Every lane has at most one call under way; more than the client's 50 would wait in line to be queued.
const PIPELINE_BUFFER: usize = 1024;
/// Before it `SET` refuses NX and GET together.
const OLDEST_MAJOR: u32 = 7;

impl RedisUrl {
    /// # Errors
    /// Not a `redis://`, `rediss://` or `unix://` address, or one that switches certificate checks off.
    pub fn parse(url: &str) -> Result<Self, DedupeError> {
        Self::parse_variable("REDIS_URL", url)
    }

    /// As [`Self::parse`], for another variable.
    ///
    /// # Errors
    /// As [`Self::parse`]; they name the variable.
    pub fn parse_variable(name: &str, url: &str) -> Result<Self, DedupeError> {
        let wrong = |problem: &str| DedupeError::Configuration(format!("{name} {problem}"));
        // The client's own message is not passed on: it may grow to quote the address.
        let Ok(info) = url.into_connection_info() else {
            return Err(wrong("is not a redis:// or rediss:// address"));
        };
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => Err(wrong("must not ask for unchecked certificates")),
            _ => Ok(Self(info)),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(..)")
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    pub(crate) fn new(url: &RedisUrl, response_timeout: Duration) -> Result<Self, DedupeError> {
        crate::tls::install_provider();
        let RedisUrl(info) = url;
        let settings = info.redis_settings();
        let login = Login {
            username: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            db: settings.db(),
        };
        let bare = info
            .clone()
            .set_redis_settings(RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2))
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(bare).map_err(|error| Failure::of_client(&error).error)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        Ok(Self {
            client,
            config,
            login,
            state: Mutex::default(),
        })
    }

    /// The shared connection; opened if there is none.
    pub(super) async fn get(&self) -> Result<(MultiplexedConnection, u64), DedupeError> {
        let (generation, attempt) = self.attempt();
        match attempt.await {
            Ok(connection) => Ok((connection, generation)),
            Err(failure) => {
                self.discard(generation);
                Err(failure.error)
            }
        }
    }

    /// Sends a pipeline. The first error among the replies fails it: nothing is assumed about the other keys.
    pub(crate) async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, DedupeError> {
        self.raw(pipeline).await?.map_err(|failure| failure.error)
    }

    /// As [`Self::ask`], but tells an error reply (inner) from a broken connection (outer).
    pub(super) async fn raw(&self, pipeline: &Pipeline) -> Result<Result<Vec<Value>, Failure>, DedupeError> {
        let (mut connection, generation) = self.get().await?;
        let result = exchange(&mut connection, pipeline, self.login.secret()).await;
        if let Ok(Err(failure)) | Err(failure) = &result
            && failure.reconnect
        {
            self.discard(generation);
        }
        result.map_err(|failure| failure.error)
    }

    fn attempt(&self) -> (u64, Attempt) {
        let mut state = self.lock();
        let attempt = state.connection.get_or_insert_with(|| {
            let (client, config, login) = (self.client.clone(), self.config.clone(), self.login.clone());
            open(client, config, login).boxed().shared()
        });
        let attempt = attempt.clone();
        (state.generation, attempt)
    }

    /// Drops that connection, unless someone else has already replaced it.
    fn discard(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.generation += 1;
            state.connection = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(client: Client, config: AsyncConnectionConfig, login: Login) -> Result<MultiplexedConnection, Failure> {
    let opening = async {
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| Failure::of_client(&error))?;
        login.perform(&mut connection).await?;
        check_version(&mut connection, login.secret()).await?;
        Ok(connection)
    };
    // Around the whole, since the client's own limit ends before login.
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
    opened.unwrap_or_else(|_elapsed| Err(Failure::timed_out("connect")))
}

impl Login {
    fn secret(&self) -> &str {
        self.password.as_deref().unwrap_or_default()
    }

    async fn perform(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        let mut pipeline = Pipeline::new();
        if let Some(password) = &self.password {
            pipeline.cmd("AUTH");
            if let Some(username) = &self.username {
                pipeline.arg(username.as_str());
            }
            pipeline.arg(password.as_str());
        }
        if self.db != 0 {
            pipeline.cmd("SELECT").arg(self.db);
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        match exchange(connection, &pipeline, self.secret()).await? {
            // A plain ERR to a login: no password is set there, or no such database. Not told in its words.
            Err(Failure {
                error: DedupeError::Unavailable(text),
                ..
            }) if text.starts_with("ERR ") => Err(Failure::configuration(
                "login refused: REDIS_URL has a password or a database number this server does not know",
            )),
            other => other.map(drop),
        }
    }
}

async fn check_version(connection: &mut MultiplexedConnection, secret: &str) -> Result<(), Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO").arg("server");
    let replies = match exchange(connection, &pipeline, secret).await? {
        Ok(replies) => replies,
        Err(failure) => return forgive_missing_permission(failure),
    };
    let Some(version) = replies.first().and_then(|reply| info_field(reply, "redis_version")) else {
        return Ok(());
    };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST_MAJOR) {
        let problem = format!("Redis {version} is too old: claims need SET NX GET of Redis 7.0 or newer");
        return Err(Failure::configuration(&problem));
    }
    Ok(())
}

/// An account that may not read INFO can still claim; if the server is too old, the first claim says so.
fn forgive_missing_permission(failure: Failure) -> Result<(), Failure> {
    match &failure.error {
        DedupeError::Configuration(text) if text.starts_with("NOPERM") => Ok(()),
        DedupeError::Configuration(_) | DedupeError::Unavailable(_) => Err(failure),
    }
}

/// Outer error: the connection. Inner error: the first error the server answered.
async fn exchange(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
    secret: &str,
) -> Result<Result<Vec<Value>, Failure>, Failure> {
    let replies = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
    let replies = replies.map_err(|error| Failure::of_client(&error))?;
    if replies.len() != pipeline.len() {
        return Err(Failure::out_of_step());
    }
    let refused = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(Failure::of_server(error, secret)),
        _ => None,
    });
    Ok(refused.map_or(Ok(replies), Err))
}

/// One `name:value` line of an INFO reply.
pub(super) fn info_field<'a>(reply: &'a Value, name: &str) -> Option<&'a str> {
    let text = match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_printed() {
        let url = RedisUrl::parse("rediss://user:sentinel-password@cache.example:6380/2").expect("valid");
        assert_eq!(format!("{url:?}"), "RedisUrl(..)");
        let connector = Connector::new(&url, Duration::from_secs(1)).expect("valid");
        assert!(!format!("{connector:?}").contains("sentinel"));
        assert_eq!(
            (connector.login.username.as_deref(), connector.login.db),
            (Some("user"), 2)
        );
        for wrong in [
            "",
            "http://user:sentinel-password@host",
            "redis://:sentinel-password@host/x",
        ] {
            let error = RedisUrl::parse(wrong).expect_err("refused").to_string();
            assert!(!error.contains("sentinel"), "{error}");
        }
    }

    #[test]
    fn unchecked_certificates_are_refused() {
        for url in [
            "rediss://host/#insecure",
            "rediss://:sentinel@host:6380/2#insecure",
            "rediss://host#INSECURE",
        ] {
            let error = RedisUrl::parse(url).expect_err(url).to_string();
            assert!(!error.contains("sentinel"), "{error}");
        }
        let RedisUrl(plain) = RedisUrl::parse("rediss://host?insecure=true").expect("valid");
        assert!(matches!(plain.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
    }

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let reply = Value::BulkString(b"# Server\r\nredis_version_x:1\r\nredis_version:7.0.15\r\n".to_vec());
        assert_eq!(info_field(&reply, "redis_version"), Some("7.0.15"));
        assert_eq!(info_field(&reply, "maxmemory_policy"), None);
        assert_eq!(info_field(&Value::Nil, "redis_version"), None);
    }
}
