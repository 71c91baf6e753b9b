//! An HTTP server that behaves as Inngest's `/e/<key>`, for tests, demo and benchmarks.
//!
//! Takes requests on this machine, gives each accepted event to a [`Sink`] before it answers, and answers as the event API
//! is documented to. It fails when it is scripted to. It runs no functions, keeps no bodies, and never checks what an event
//! means: as with Inngest, an id that comes again is accepted again (and counted as resent).

mod faults;
mod handler;
mod intake;
mod listener;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::listener::CuttableListener;
use crate::clock::SharedClock;
use crate::faults::Script;

pub use self::faults::Fault;
pub use self::sink::{AcceptedEvent, Recorder, Sink};

/// How the receiver behaves when it is well.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// On 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The event keys it knows; `None` takes any, as the dev server does.
    pub keys: Option<BTreeSet<String>>,
    /// A body above it is answered with 413.
    pub max_body_bytes: usize,
    /// The event after that many ends the request with 400.
    pub max_events: usize,
    /// Each answer comes that much later, as over a real network.
    pub latency: Duration,
}

/// What it has seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub requests: u64,
    /// Events accepted, repeats included.
    pub accepted: u64,
    /// Of those, events whose id had been accepted before.
    pub resent: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
}

/// The headers of a request that a client may get wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenHeaders {
    pub content_type: Option<String>,
    pub user_agent: Option<String>,
    pub env: Option<String>,
}

/// A running receiver. Dropping it stops it; [`Receiver::stop`] also waits until it has.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    settings: ReceiverSettings,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    faults: Script<Fault>,
    counts: Counts,
    /// Hashes of the ids seen: a million ids themselves would be most of the demo's memory.
    seen: Mutex<HashSet<u64>>,
    last_headers: Mutex<SeenHeaders>,
    stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    accepted: AtomicU64,
    resent: AtomicU64,
    bytes: AtomicU64,
    internal_ids: AtomicU64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            port: 0,
            keys: None,
            max_body_bytes: 3 * 1024 * 1024,
            max_events: 5_000,
            latency: Duration::ZERO,
        }
    }
}

impl Receiver {
    /// Listens on this machine.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(settings: ReceiverSettings, sink: Arc<dyn Sink>, clock: SharedClock) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared {
            settings,
            sink,
            clock,
            faults: Script::default(),
            counts: Counts::default(),
            seen: Mutex::default(),
            last_headers: Mutex::default(),
            stopping: stopping.clone(),
        });
        let service = handler::service(Arc::clone(&shared));
        let serving = axum::serve(CuttableListener(listener), service)
            .with_graceful_shutdown(async move { stopping.cancelled().await });
        // Serving ends only by the token; its result carries no error.
        let task = tokio::spawn(async move { drop(serving.await) });
        Ok(Self { address, shared, task })
    }

    /// The base address, e.g. `http://127.0.0.1:40123`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What the next requests meet.
    #[must_use]
    pub fn faults(&self) -> &Script<Fault> {
        &self.shared.faults
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        Stats {
            requests: counts.requests.load(Ordering::SeqCst),
            accepted: counts.accepted.load(Ordering::SeqCst),
            resent: counts.resent.load(Ordering::SeqCst),
            bytes: counts.bytes.load(Ordering::SeqCst),
        }
    }

    /// The headers of the newest request.
    #[must_use]
    pub fn last_headers(&self) -> SeenHeaders {
        let headers = self.shared.last_headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.clone()
    }

    /// Stops listening, ends what hangs, and waits until every connection is closed.
    pub async fn stop(mut self) {
        self.shared.stopping.cancel();
        // An error would be a panic of the server: there is nothing left to stop then.
        let _joined = (&mut self.task).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}
