//! The two platforms over HTTP: takes a configuration or a name, gives what the platform says to it.
//!
//! Both speak the same dialect of Kafka Connect's REST interface and differ in address, key and the shape of errors. What
//! passes (a rebalance, a limit, a server that restarts) is asked again for a while. No redirect is followed: the key and the
//! password would travel with it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url, redirect};
use serde::Deserialize;
use tokio::time::Instant;

use super::config::Config;
use super::health::Status;
use super::template::Platform;
use super::words::presentable;

use crate::inert::chain;

/// Where a platform is, and who we are there.
#[derive(Clone)]
pub struct Access {
    pub platform: Platform,
    /// Of Confluent Cloud with environment and cluster.
    pub base_url: String,
    /// Key and secret.
    pub key: Option<(String, String)>,
    /// For how long what passes is waited for.
    pub patience: Duration,
}

/// Asks one platform.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    access: Access,
}

/// What the platform finds wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Validation {
    pub errors: Vec<KeyError>,
    /// Keys of the configuration that the plugin does not have: it would ignore them in silence.
    pub unknown: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyError {
    pub key: String,
    pub message: String,
}

/// Why there is no answer that helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("CONNECT_URL must be an http:// or https:// address without user, query and fragment")]
    Address,
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
    #[error("{at} does not answer: {detail}")]
    Unreachable { at: String, detail: String },
    /// It answers, and each time that it cannot now.
    #[error("{at} still answers {status} (asked {times}x): {detail}. {mend}")]
    Busy {
        at: String,
        status: u16,
        times: u32,
        detail: String,
        mend: String,
    },
    #[error("{at} refuses us ({status}): {detail}. {mend}")]
    Refused {
        at: String,
        status: u16,
        detail: String,
        mend: &'static str,
    },
    #[error("{at} knows no such thing (404): {detail}. {mend}")]
    NotFound {
        at: String,
        detail: String,
        mend: &'static str,
    },
    #[error("{at} does not take it ({status}): {detail}")]
    Rejected { at: String, status: u16, detail: String },
    #[error("{at} answers what is not understood: {detail}")]
    NotUnderstood { at: String, detail: String },
}

/// An answer with its body.
struct Reply {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Kafka Connect validates by connecting to the database, and gives that some time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The validation of a connector describes every key it has, in some 200 KiB.
const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;
/// Where Confluent Cloud is.
pub const CONFLUENT_CLOUD: &str = "https://api.confluent.cloud";
const USER_AGENT: &str = concat!("crm-event-processors/", env!("CARGO_PKG_VERSION"));

impl Client {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// No address, or the machine's certificates cannot be read.
    pub fn new(access: Access) -> Result<Self, ConnectError> {
        crate::tls::install_provider();
        let base = Url::parse(access.base_url.trim()).map_err(|_invalid| ConnectError::Address)?;
        let is_plain = matches!(base.scheme(), "http" | "https")
            && base.has_host()
            && base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !is_plain {
            return Err(ConnectError::Address);
        }
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| ConnectError::Client(chain(&error.without_url())))?;
        Ok(Self { http, base, access })
    }

    #[must_use]
    pub fn platform(&self) -> Platform {
        self.access.platform
    }

    /// As it is set there, secrets masked or not, as the platform has it. `None`: there is no such connector.
    ///
    /// # Errors
    /// No answer that helps.
    pub async fn config(&self, name: &str) -> Result<Option<Config>, ConnectError> {
        let reply = self
            .ask(Method::GET, &["connectors", name, "config"], None, &[])
            .await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reply = self.accepted(reply, &[])?;
        let text = String::from_utf8_lossy(&reply.body);
        Config::parse(&text)
            .map(Some)
            .map_err(|error| self.not_understood(&error.to_string()))
    }

    /// Makes the connector, or changes it.
    ///
    /// # Errors
    /// No answer that helps; [`ConnectError::Rejected`] with what the platform says.
    pub async fn put(&self, config: &Config) -> Result<(), ConnectError> {
        let secrets = config.secrets();
        let path = ["connectors", config.name(), "config"];
        let reply = self.ask(Method::PUT, &path, Some(config.to_json()), &secrets).await?;
        self.accepted(reply, &secrets).map(drop)
    }

    /// `None`: there is no such connector, or it was made a moment ago.
    ///
    /// # Errors
    /// No answer that helps.
    pub async fn status(&self, name: &str, secrets: &[&str]) -> Result<Option<Status>, ConnectError> {
        let reply = self
            .ask(Method::GET, &["connectors", name, "status"], None, secrets)
            .await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reply = self.accepted(reply, secrets)?;
        let status = Status::read(&reply.body, secrets);
        status.map(Some).ok_or_else(|| self.not_understood("no status"))
    }

    /// The place in the WAL up to which it has read, as it has stored it. `None`: it has stored none yet.
    ///
    /// # Errors
    /// No answer that helps. A 404 is none: there is no such connector, or the server is too old to tell.
    pub async fn position(&self, name: &str) -> Result<Option<i64>, ConnectError> {
        let reply = self
            .ask(Method::GET, &["connectors", name, "offsets"], None, &[])
            .await?;
        let reply = self.accepted(reply, &[])?;
        let stored: Stored =
            serde_json::from_slice(&reply.body).map_err(|_invalid| self.not_understood("no offsets"))?;
        Ok(stored.position())
    }

    /// Asks the platform what is wrong with it; nothing is changed.
    ///
    /// # Errors
    /// No answer that helps.
    pub async fn validate(&self, config: &Config) -> Result<Validation, ConnectError> {
        let secrets = config.secrets();
        let class = config.get("connector.class").unwrap_or_default();
        let path = ["connector-plugins", class, "config", "validate"];
        let reply = self.ask(Method::PUT, &path, Some(config.to_json()), &secrets).await?;
        let reply = self.accepted(reply, &secrets)?;
        let validated: Validated =
            serde_json::from_slice(&reply.body).map_err(|_invalid| self.not_understood("no validation"))?;
        let known: BTreeSet<&str> = validated.configs.iter().map(|one| one.value.name.as_str()).collect();
        let unknown = config
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !known.contains(key) && !is_passed_on(key));
        let errors = validated.configs.iter().flat_map(|one| {
            let value = &one.value;
            value.errors.iter().flatten().map(|message| KeyError {
                key: value.name.clone(),
                message: presentable(message, &secrets),
            })
        });
        Ok(Validation {
            unknown: unknown.map(ToOwned::to_owned).collect(),
            errors: errors.collect(),
        })
    }

    /// Starts again what failed. Only Kafka Connect has this; Confluent Cloud does it with every change.
    ///
    /// # Errors
    /// No answer that helps.
    pub async fn restart_failed(&self, name: &str) -> Result<(), ConnectError> {
        let path = ["connectors", name, "restart?includeTasks=true&onlyFailed=true"];
        let reply = self.ask(Method::POST, &path, None, &[]).await?;
        self.accepted(reply, &[]).map(drop)
    }

    /// Repeats what passes, until the patience is at its end.
    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<String>,
        secrets: &[&str],
    ) -> Result<Reply, ConnectError> {
        let url = self.url(path)?;
        let until = Instant::now() + self.access.patience;
        let mut wait = FIRST_WAIT;
        let mut times = 0;
        loop {
            times += 1;
            let reply = self.send(method.clone(), url.clone(), body.clone(), secrets).await?;
            if !passes(reply.status) {
                return Ok(reply);
            }
            let pause = reply.retry_after.unwrap_or(wait).max(wait);
            if Instant::now() + pause > until {
                return Err(ConnectError::Busy {
                    at: self.at(),
                    status: reply.status.as_u16(),
                    times,
                    detail: self.detail(&reply.body, secrets),
                    mend: mend_busy(reply.status, reply.retry_after.filter(|asked| *asked > wait)),
                });
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<String>,
        secrets: &[&str],
    ) -> Result<Reply, ConnectError> {
        let mut request = self.http.request(method, url);
        if let Some((key, secret)) = &self.access.key {
            request = request.basic_auth(key, Some(secret));
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let error = error.without_url();
            let detail = if error.is_timeout() {
                "no answer in time".to_owned()
            } else {
                chain(&error)
            };
            ConnectError::Unreachable {
                at: self.at(),
                detail: presentable(&detail, secrets),
            }
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let seconds = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_REPLY_BYTES {
                return Err(self.not_understood("more than any platform says"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status: response.status(),
            retry_after: seconds.map(Duration::from_secs),
            body,
        })
    }

    fn accepted(&self, reply: Reply, secrets: &[&str]) -> Result<Reply, ConnectError> {
        if reply.status.is_success() {
            return Ok(reply);
        }
        let (at, status, detail) = (self.at(), reply.status.as_u16(), self.detail(&reply.body, secrets));
        Err(match (status, self.access.platform) {
            (401 | 403, Platform::ConfluentCloud) => ConnectError::Refused {
                at,
                status,
                detail,
                mend: "CONNECT_API_KEY must be a Cloud API key, not one of a cluster, of an account that may manage connectors",
            },
            (401 | 403, Platform::KafkaConnect) => ConnectError::Refused {
                at,
                status,
                detail,
                mend: "Check CONNECT_API_KEY and CONNECT_API_SECRET",
            },
            (404, Platform::ConfluentCloud) => ConnectError::NotFound {
                at,
                detail,
                mend: if self.access.base_url.starts_with(CONFLUENT_CLOUD) {
                    "Check CONFLUENT_ENVIRONMENT and CONFLUENT_CLUSTER"
                } else {
                    "Check CONNECT_URL, which Confluent Cloud does not need, and CONFLUENT_ENVIRONMENT and CONFLUENT_CLUSTER"
                },
            },
            (404, Platform::KafkaConnect) => ConnectError::NotFound {
                at,
                detail,
                mend: "Check CONNECT_URL, and whether the Debezium plugin is installed there",
            },
            (300..=399, _) => ConnectError::NotUnderstood {
                at,
                detail: format!("a redirect ({status}), which is not followed"),
            },
            _ => ConnectError::Rejected { at, status, detail },
        })
    }

    fn url(&self, path: &[&str]) -> Result<Url, ConnectError> {
        let mut url = self.base.clone();
        let (last, first) = path.split_last().ok_or(ConnectError::Address)?;
        // A query belongs to us, a name does not: it is escaped.
        let (last, query) = last
            .split_once('?')
            .map_or((*last, None), |(last, query)| (last, Some(query)));
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().extend(first).push(last)),
            Err(()) => return Err(ConnectError::Address),
        }
        url.set_query(query);
        Ok(url)
    }

    /// What it says, without the configuration's secrets and without ours: some repeat the request that they refuse.
    fn detail(&self, body: &[u8], secrets: &[&str]) -> String {
        let ours: Vec<String> = self
            .access
            .key
            .iter()
            .flat_map(|(key, secret)| {
                let sent = STANDARD.encode(format!("{key}:{secret}"));
                [sent, secret.clone(), key.clone()]
            })
            .collect();
        let all: Vec<&str> = ours.iter().map(String::as_str).chain(secrets.iter().copied()).collect();
        detail(body, &all)
    }

    fn at(&self) -> String {
        format!(
            "{} at {}",
            self.access.platform.name(),
            self.base.origin().ascii_serialization()
        )
    }

    fn not_understood(&self, detail: &str) -> ConnectError {
        ConnectError::NotUnderstood {
            at: self.at(),
            detail: detail.to_owned(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("platform", &self.platform)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// 409 is Kafka Connect's word for a rebalance; nothing here is created by a call that could find it there already.
fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 409 | 429) || status.is_server_error()
}

/// What to do about an answer that does not pass; with the time that it asks us to wait, if that is longer than we do.
fn mend_busy(status: StatusCode, asked: Option<Duration>) -> String {
    if let Some(asked) = asked {
        return format!(
            "It wants to be left alone for {} s, which is longer than we wait: try again then",
            asked.as_secs()
        );
    }
    let mend = match status.as_u16() {
        409 => "It shares out its work all the time: look whether its workers stay up",
        429 => "Try again in a minute, and look who else asks it so often",
        _ => "Try again, and look at its log, or at the status page of whoever runs it",
    };
    mend.to_owned()
}

/// Keys that the connector hands to converters and the like, which have definitions of their own.
fn is_passed_on(key: &str) -> bool {
    const BEGINS: [&str; 6] = [
        "key.converter.",
        "value.converter.",
        "header.converter.",
        "topic.creation.",
        "transforms.",
        "predicates.",
    ];
    BEGINS.iter().any(|begin| key.starts_with(begin))
}

/// The three shapes of an error: Kafka Connect's, Confluent Cloud's, and that of whatever stands in between.
fn detail(body: &[u8], secrets: &[&str]) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: Option<String>,
        error: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: Option<String>,
    }
    let said: Option<Said> = serde_json::from_slice(body).ok();
    let message = said.and_then(|said| said.message.or_else(|| said.error?.message));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    // Kafka Connect counts the errors in the first line and names them in the next ones.
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(3)
        .collect();
    let shown = presentable(&lines.join(" "), secrets);
    if shown.is_empty() {
        "no reason given".to_owned()
    } else {
        shown
    }
}

#[derive(Deserialize)]
struct Validated {
    configs: Vec<ValidatedKey>,
}

#[derive(Deserialize)]
struct ValidatedKey {
    value: ValidatedValue,
}

#[derive(Deserialize)]
struct ValidatedValue {
    name: String,
    /// Some servers write `null` for an empty list.
    errors: Option<Vec<String>>,
}

/// What it has stored of where it is: one place, for a connector of one database.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    offsets: Vec<StoredOffset>,
}

#[derive(Deserialize)]
struct StoredOffset {
    offset: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Stored {
    /// The furthest of what it names: a record, a transaction, what was worked through.
    fn position(&self) -> Option<i64> {
        let places = self.offsets.iter().filter_map(|one| one.offset.as_ref());
        let named = |place: &serde_json::Map<String, serde_json::Value>| {
            let lsn = |key| place.get(key).and_then(serde_json::Value::as_i64);
            ["lsn", "lsn_proc", "lsn_commit"].into_iter().filter_map(lsn).max()
        };
        places.filter_map(named).max()
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
