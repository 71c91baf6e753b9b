//! The net under "not lost": takes the ledgers as they are, gives what nobody has done about them.
//!
//! Every row is decided again by the consumers' own decisions ([`state`]) and compared with the table `effects`. What is
//! missing or differs is sent once more through the normal way, under ids of its own, at most four times over a day; then it
//! is a finding for a person ([`pass`]). So a 200 that started no run, an unsynced function, a rule that was loaded too late
//! and a gap before Kafka are healed. It never feeds the dead letters, never touches what lies there, and never works while
//! the pipeline itself is behind. [`balance`] counts the same for a person, [`dossier`] explains one id,
//! [`shadow`] compares what a shadow wrote down with what is [`known`].

pub mod balance;
pub mod dossier;
pub mod known;
mod pass;
mod send;
pub mod shadow;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::consumers::Consumer;
use crate::pipeline::Ports;
use crate::postgres::{Ledger, LedgerError, Notes};

pub use pass::{Finding, Kind, Report};
pub use send::{Outbox, Sent};

/// How far the group has come.
pub trait Progress: Send + Sync {
    /// A partition whose committed offset is not past this time, ms; `None` if all are.
    ///
    /// # Errors
    /// The brokers do not say.
    fn behind(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<String>, String>>;
}

/// Decides the ledgers again, every ten minutes, in one process at a time.
#[derive(Clone)]
pub struct Reconciler {
    pub ports: Ports,
    pub ledger: Arc<dyn Ledger>,
    pub books: Arc<dyn Notes>,
    pub progress: Arc<dyn Progress>,
    pub consumers: Vec<Consumer>,
    /// Subsets of the consumers run in groups of their own; each has a reconciler.
    pub group: String,
    /// Names this process.
    pub owner: String,
    /// Ends a pass behind the page that it is at: a number that was given to a heal is used.
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Done(Report),
    /// Another process has the lease.
    NotOurs,
    /// The pipeline has not finished what came a quarter of an hour ago, or cannot say: whatever is missing may be on its way.
    Behind(String),
    /// All consumers of this process wait for an operator.
    Idle,
}

/// Between two passes.
pub const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// As long as a pass may take without a word, and longer than the interval: whoever has it keeps it.
const LEASE_S: i32 = 15 * 60;
/// What is on its way for longer than this is missing.
const GRACE_MS: i64 = 15 * 60 * 1000;

impl Ended {
    pub const LABELS: [&'static str; 5] = ["done", "not_ours", "behind", "idle", "failed"];

    const fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::NotOurs => "not_ours",
            Self::Behind(_) => "behind",
            Self::Idle => "idle",
        }
    }
}

impl Reconciler {
    /// A pass every ten minutes, and whenever it is asked for, until the shutdown.
    pub async fn run(self, asked: Arc<Notify>) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                _ = ticks.tick() => {}
                () = asked.notified() => tracing::info!("a pass of the reconciler is asked for"),
            }
            self.told(&self.pass().await);
        }
        // Whoever comes next need not wait for its end.
        if let Err(error) = self.books.drop_lease(&self.lease(), &self.owner).await {
            tracing::debug!(%error, "the reconciler's lease ends by itself");
        }
    }

    /// One pass, if it is ours to make.
    ///
    /// # Errors
    /// The database fails; the next pass begins anew.
    pub async fn pass(&self) -> Result<Ended, LedgerError> {
        // Before the lease: others may be able to work.
        let consumers = self.working();
        if consumers.is_empty() {
            return Ok(Ended::Idle);
        }
        if !self.keep_lease().await? {
            return Ok(Ended::NotOurs);
        }
        let past_ms = self.ports.clock.now_ms().saturating_sub(GRACE_MS);
        match self.progress.behind(past_ms).await {
            Ok(None) => {}
            Ok(Some(partition)) => return Ok(Ended::Behind(partition)),
            Err(problem) => return Ok(Ended::Behind(problem)),
        }
        let report = pass::run(self, consumers).await?;
        Ok(Ended::Done(report))
    }

    /// The consumers that neither stand still nor are halted here. One that is so elsewhere holds its partitions.
    fn working(&self) -> Vec<Consumer> {
        let status = self.ports.telemetry.status();
        let stops = |consumer: &Consumer| {
            let of_it = status.consumers.iter().find(|status| status.consumer == *consumer);
            of_it.is_some_and(|status| status.standing_still.is_some() || status.halted.is_some())
        };
        self.consumers
            .iter()
            .copied()
            .filter(|consumer| !stops(consumer))
            .collect()
    }

    async fn keep_lease(&self) -> Result<bool, LedgerError> {
        self.books.take_lease(&self.lease(), &self.owner, LEASE_S).await
    }

    fn lease(&self) -> String {
        format!("reconciler:{}", self.group)
    }

    fn told(&self, ended: &Result<Ended, LedgerError>) {
        let telemetry = &self.ports.telemetry;
        match ended {
            Ok(ended) => telemetry.reconciled(ended.label()),
            Err(_) => telemetry.reconciled("failed"),
        }
        match ended {
            Ok(Ended::Done(report)) => {
                let (rows, heals, announced) = (report.rows, report.heals, report.announced);
                let (findings, overdue) = (report.findings.len(), report.overdue);
                tracing::info!(rows, heals, announced, findings, overdue, "reconciled");
            }
            Ok(Ended::Behind(cause)) => tracing::warn!(cause, "not reconciled: the pipeline is behind"),
            Ok(Ended::NotOurs | Ended::Idle) => {}
            Err(error) => tracing::warn!(%error, "a pass of the reconciler ended early"),
        }
        // A pass that was not made, or not to its end, changes nothing about what was found.
        if matches!(ended, Ok(Ended::NotOurs)) {
            telemetry.passes_are_of_another();
        }
    }
}
