//! Takes what a worker pushes, and drops it: OTLP over HTTP, as far as an exporter can tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Collector {
    address: SocketAddr,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
}

/// Pushes, by what they bring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    metrics: u64,
    traces: u64,
}

#[derive(Debug, Default)]
struct Counts {
    metrics: AtomicU64,
    traces: AtomicU64,
}

async fn metrics(State(counts): State<Arc<Counts>>, _body: Bytes) {
    counts.metrics.fetch_add(1, Ordering::Relaxed);
}

async fn traces(State(counts): State<Arc<Counts>>, _body: Bytes) {
    counts.traces.fetch_add(1, Ordering::Relaxed);
}

impl Collector {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let routes = Router::new()
            .route("/v1/metrics", post(metrics))
            .route("/v1/traces", post(traces))
            .with_state(Arc::clone(&counts));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            // It ends with the case.
            let _ended = axum::serve(listener, routes).await;
        });
        Ok(Self {
            address,
            counts,
            serving,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How much came by now. Behind the end of a worker it is more: it pushes a last time, also if it never did before.
    pub(crate) fn came(&self) -> Came {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Came {
            metrics: of(&self.counts.metrics),
            traces: of(&self.counts.traces),
        }
    }

    pub(crate) fn end(self) {
        self.serving.abort();
    }
}

impl Came {
    /// A case in which nothing was pushed has measured something else. Of few traces there may be none.
    pub(crate) fn check(self, all_traced: bool) -> anyhow::Result<()> {
        ensure!(self.metrics > 0, "no metrics were pushed");
        ensure!(!all_traced || self.traces > 0, "no traces were pushed");
        Ok(())
    }
}
