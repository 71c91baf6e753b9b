//! Asks a running worker over its HTTP endpoints: takes a path, gives the JSON behind it. It only ever reads.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{StatusCode, Url, redirect};
use serde_json::Value;

use super::Usage;
use crate::inert::chain;

/// Where the worker is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct WorkerFlags {
    /// The worker's address, like `http://127.0.0.1:8080`. Default: where a worker on this machine serves.
    #[arg(long, value_name = "URL")]
    worker: Option<String>,
    /// Where a worker on this machine serves its endpoints.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    http_addr: String,
}

pub(super) struct Worker {
    client: reqwest::Client,
    base: Url,
}

/// Why the worker told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("the HTTP client cannot be made: {0}")]
    Client(reqwest::Error),
    #[error("no worker answers at {at}: {detail}")]
    Unreachable { at: String, detail: String },
    /// A worker that does not serve this, or somebody else.
    #[error("{at} answered {status}")]
    Refused { at: String, status: StatusCode },
    #[error("{at} is no worker: {detail}")]
    NotUnderstood { at: String, detail: &'static str },
}

const PATIENCE: Duration = Duration::from_secs(5);
/// A status with hundreds of partitions has some 100 KB.
const MOST_BYTES: usize = 8 * 1024 * 1024;

impl WorkerFlags {
    fn base(&self) -> Result<Url, Usage> {
        let Some(worker) = &self.worker else {
            let address = self.http_addr.trim();
            let address = address.parse::<SocketAddr>();
            let mut address = address.map_err(|_invalid| {
                Usage("HTTP_ADDR is no address like 127.0.0.1:8080: say with --worker where the worker is".to_owned())
            })?;
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            let url = format!("http://{address}").parse();
            return url.map_err(|_invalid| Usage(format!("HTTP_ADDR is no address: {address}")));
        };
        let plain = worker.trim().parse::<Url>().ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        plain.ok_or_else(|| {
            Usage("--worker must be an http:// or https:// address without user, query and fragment".to_owned())
        })
    }

    pub(super) fn open(&self) -> anyhow::Result<Worker> {
        let base = self.base()?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(Silence::Client)?;
        Ok(Worker { client, base })
    }
}

impl Worker {
    pub(super) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// What lies behind a path, as JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Silence> {
        let at = self.address();
        let unreachable = |error: reqwest::Error| Silence::Unreachable {
            at: at.to_owned(),
            detail: chain(&error.without_url()),
        };
        let answer = self.client.get(format!("{at}/{path}")).send().await;
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        if !status.is_success() {
            let at = format!("{at}/{path}");
            return Err(Silence::Refused { at, status });
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > MOST_BYTES {
                return Err(self.not_understood("the answer is too long"));
            }
            body.extend_from_slice(&part);
        }
        let told: Value = serde_json::from_slice(&body).map_err(|_error| self.not_understood("no JSON"))?;
        if told["consumers"].is_array() {
            Ok(told)
        } else {
            Err(self.not_understood("its JSON tells of no consumers"))
        }
    }

    fn not_understood(&self, detail: &'static str) -> Silence {
        let at = self.address().to_owned();
        Silence::NotUnderstood { at, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(worker: Option<&str>, http_addr: &str) -> Result<String, String> {
        let flags = WorkerFlags {
            worker: worker.map(str::to_owned),
            http_addr: http_addr.to_owned(),
        };
        flags
            .base()
            .map(|url| url.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_worker_is_on_this_machine_unless_it_is_said_where() {
        let here = Ok("http://127.0.0.1:8080/".to_owned());
        assert_eq!(base(None, "127.0.0.1:8080"), here);
        assert_eq!(base(None, "0.0.0.0:8080"), here);
        assert_eq!(base(None, "[::]:8080"), here);
        let there = Ok("https://worker.example:81/".to_owned());
        assert_eq!(base(Some("https://worker.example:81"), "off"), there);
        for wrong in ["off", "8080", ""] {
            assert!(base(None, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_with_more_than_a_place_is_refused_and_not_shown() {
        for url in [
            "http://user:sentinel@worker:8080",
            "http://worker/?sentinel",
            "http://worker/#sentinel",
            "ftp://sentinel",
            "sentinel",
        ] {
            let problem = base(Some(url), "127.0.0.1:8080").expect_err(url);
            assert!(!problem.contains("sentinel"), "{problem}");
        }
    }
}
