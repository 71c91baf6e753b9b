//! The event API over HTTP.
//!
//! Takes events within the limits, writes them into one body, sends one request, gives what the reply means. It permits as
//! many requests as its rate allows, never retries, never follows a redirect (the key would travel with it) and never lets the event key
//! into a message: no error of the HTTP client leaves here with its address.

mod endpoint;
mod rate;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};

use self::rate::Governor;
use super::answer::{Reply, classify, presentable};
use super::{Answer, Deliver, EventBatch, Limits};
use crate::clock::SharedClock;
use crate::inert::chain;

pub use self::endpoint::{Endpoint, EndpointError};

/// How requests are made.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub limits: Limits,
    /// Requests a second of this process; `None` is without limit, for the dev server.
    pub rate_per_sec: Option<NonZeroU32>,
    pub connect_timeout: Duration,
    /// For the whole request, connecting and reading the reply included.
    pub request_timeout: Duration,
}

/// Sends events to the event API.
pub struct HttpDeliver {
    client: Client,
    endpoint: Endpoint,
    limits: Limits,
    governor: Governor,
    clock: SharedClock,
}

/// What a look at the address of the event API found: somebody who answers, whatever it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub status: u16,
    /// How far the clock that it told is before ours; it tells whole seconds.
    pub ahead_ms: Option<i64>,
    pub took_ms: i64,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Below the idle limits of the usual proxies: a connection they close under us costs a repeat.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// 5,000 ids take 150 KiB; anything longer is not Inngest.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
const USER_AGENT: &str = concat!("crm-event-processors/", env!("CARGO_PKG_VERSION"));

impl HttpSettings {
    /// The usual limits and timeouts.
    #[must_use]
    pub fn at_rate(rate_per_sec: Option<NonZeroU32>) -> Self {
        Self {
            limits: Limits::default(),
            rate_per_sec,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

impl HttpDeliver {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// The HTTP client cannot be built, e.g. because the machine's certificates cannot be read.
    pub fn new(endpoint: Endpoint, settings: &HttpSettings, clock: SharedClock) -> Result<Self, EndpointError> {
        crate::tls::install_provider();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(env) = endpoint.env() {
            headers.insert("x-inngest-env", env.clone());
        }
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| EndpointError::Client(chain(&error.without_url())))?;
        Ok(Self {
            client,
            endpoint,
            limits: settings.limits,
            governor: Governor::new(settings.rate_per_sec),
            clock,
        })
    }

    /// Whether anybody answers there. Neither the key nor an event is sent.
    ///
    /// # Errors
    /// Nobody does; why.
    pub async fn reach(&self) -> Result<Reached, String> {
        let asked_ms = self.clock.now_ms();
        let response = self.client.get(self.endpoint.front()).send().await;
        let took_ms = self.clock.now_ms() - asked_ms;
        match response {
            Ok(response) => {
                let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
                let parsed = |date: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok();
                // The middle of a second that it may have been in, at the middle of the question.
                let ahead = |date: jiff::Timestamp| date.as_millisecond() + 500 - (asked_ms + took_ms / 2);
                Ok(Reached {
                    status: response.status().as_u16(),
                    ahead_ms: date.and_then(parsed).map(ahead),
                    took_ms,
                })
            }
            Err(error) => match self.unreachable(error) {
                Answer::Unavailable { detail, .. } => Err(detail),
                other => Err(format!("{other:?}")),
            },
        }
    }

    /// Sends one event that no function of ours listens to: only one that is taken shows that the key is right.
    pub async fn test(&self) -> Answer {
        let now_ms = self.clock.now_ms();
        let event = serde_json::json!({
            "id": format!("check:{now_ms}"),
            "name": "crm-event-processors/check",
            "ts": now_ms,
            "data": {"sent_by": USER_AGENT},
        });
        let request = self.client.post(self.endpoint.url().clone());
        match request.body(serde_json::json!([event]).to_string()).send().await {
            Ok(response) => self.read(response, 1).await,
            Err(error) => self.unreachable(error),
        }
    }

    async fn post(&self, batch: &EventBatch, events: Range<usize>) -> Answer {
        if events.is_empty() {
            // Inngest answers an empty list with one empty id; there is nothing to lose in not asking.
            return Answer::Accepted;
        }
        let request = self.client.post(self.endpoint.url().clone());
        let sent = events.len();
        match request.body(batch.body(events)).send().await {
            Ok(response) => self.read(response, sent).await,
            Err(error) => self.unreachable(error),
        }
    }

    async fn read(&self, mut response: Response, sent: usize) -> Answer {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                // A longer body is cut and then not understood, which is the truth.
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_REPLY_BYTES => body.extend_from_slice(&chunk),
                Ok(_) => break,
                Err(error) => return self.unreachable(error),
            }
        }
        let retry_after = response.headers().get(RETRY_AFTER);
        let reply = Reply {
            status: response.status().as_u16(),
            retry_after: retry_after.and_then(|value| value.to_str().ok()),
            body: &body,
            secret: self.endpoint.key().expose(),
        };
        classify(reply, sent, self.clock.now())
    }

    /// No reply: the events may have been accepted all the same.
    fn unreachable(&self, error: reqwest::Error) -> Answer {
        let error = error.without_url();
        let detail = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            presentable(&chain(&error), self.endpoint.key().expose())
        };
        Answer::Unavailable {
            detail,
            retry_after: None,
        }
    }
}

impl Deliver for HttpDeliver {
    fn permit(&self) -> BoxFuture<'_, ()> {
        self.governor.wait().boxed()
    }

    fn send<'a>(&'a self, batch: &'a EventBatch, events: Range<usize>) -> BoxFuture<'a, Answer> {
        self.post(batch, events).boxed()
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl fmt::Debug for HttpDeliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDeliver")
            .field("endpoint", &self.endpoint)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
