//! `healthcheck`: asks the worker on this machine for `/livez`, for containers without a shell.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use super::{Code, Usage};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where the worker serves its endpoints.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    http_addr: String,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let address = options.http_addr.parse::<SocketAddr>();
    let mut address = address.map_err(|_invalid| Usage(format!("HTTP_ADDR is no address: {}", options.http_addr)))?;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(3))
            .build()?;
        Ok::<_, reqwest::Error>(client.get(format!("http://{address}/livez")).send().await?.status())
    });
    let status = status.with_context(|| format!("no answer from {address}"))?;
    println!("{status}");
    Ok(if status.is_success() { Code::Ok } else { Code::Findings })
}
