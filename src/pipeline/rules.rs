//! The rules that decisions are made by, and how they stay new.
//!
//! One refresh reads all programs, so it answers for every record that was fetched before it began: a merchant that is
//! unknown to it had no program. It begins by itself every 30 s, and at once when somebody needs a newer one, but never two
//! within 5 s. A refresh that fails leaves the rules as they are. It never decides anything and never asks for one merchant.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::signal::{Signal, Watcher};
use crate::consumers::Rules;
use crate::postgres::LedgerError;

/// Where the rules come from.
pub trait ReadRules: Send {
    /// All rules as they are now. What is as it was is best given as the same `Arc`.
    fn read(&mut self) -> BoxFuture<'_, Result<Arc<Rules>, LedgerError>>;
}

/// The rules in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RuleBook {
    page: Watcher<Page>,
    refresher: Option<Arc<Refresher>>,
}

#[derive(Debug, Clone)]
struct Page {
    rules: Arc<Rules>,
    begun: Begun,
}

/// When the refresh began that gave the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// They never change, so they are always new.
    Fixed,
    /// In another process: the last good snapshot.
    Before,
    At(Instant),
}

#[derive(Debug)]
struct Refresher {
    wanted: Arc<Notify>,
    task: AbortHandle,
}

const INTERVAL: Duration = Duration::from_secs(30);
/// Between the beginnings of two refreshes, however many merchants are unknown.
const LEAST_INTERVAL: Duration = Duration::from_secs(5);
/// What failing refreshes back off to.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

impl RuleBook {
    /// Rules that never change: a program file, tests, the demo.
    #[must_use]
    pub fn fixed(rules: Arc<Rules>) -> Self {
        let begun = Begun::Fixed;
        let page = Signal::new(Page { rules, begun }).watch();
        Self { page, refresher: None }
    }

    /// Refreshes in the background until the last clone is dropped. `begun` is when the refresh began that gave these
    /// rules; `None` for a snapshot, which is refreshed at once and answers for no record.
    #[must_use]
    pub fn refreshed(rules: Arc<Rules>, begun: Option<Instant>, source: Box<dyn ReadRules>) -> Self {
        let page = Page {
            rules,
            begun: begun.map_or(Begun::Before, Begun::At),
        };
        let publish = Signal::new(page);
        let page = publish.watch();
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(refresh(source, publish, begun, Arc::clone(&wanted)));
        let task = task.abort_handle();
        Self {
            page,
            refresher: Some(Arc::new(Refresher { wanted, task })),
        }
    }

    #[must_use]
    pub fn current(&self) -> Arc<Rules> {
        self.page.read(|page| Arc::clone(&page.rules))
    }

    /// The rules by a refresh that began after this instant; waits for it, and has it begin. It waits as long as the
    /// source is away: without it nobody knows whether a merchant has a program.
    pub async fn newer_than(&self, fetched: Instant) -> Arc<Rules> {
        let mut page = self.page.clone();
        loop {
            let newer = page.read(|page| page.begun.after(fetched).then(|| Arc::clone(&page.rules)));
            if let Some(rules) = newer {
                return rules;
            }
            if let Some(refresher) = &self.refresher {
                refresher.wanted.notify_one();
            }
            // It never comes once the refresher is gone, as the process is about to be: to guess would drop an award.
            page.changed().await;
        }
    }
}

impl Begun {
    fn after(self, instant: Instant) -> bool {
        match self {
            Self::Fixed => true,
            Self::Before => false,
            Self::At(begun) => begun > instant,
        }
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn refresh(
    mut source: Box<dyn ReadRules>,
    publish: Signal<Page>,
    mut last: Option<Instant>,
    wanted: Arc<Notify>,
) {
    let mut backoff: Option<Duration> = None;
    loop {
        if let Some(last) = last {
            let due = last + backoff.unwrap_or(INTERVAL);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                // While it fails, asking more often helps nobody.
                () = wanted.notified(), if backoff.is_none() => tokio::time::sleep_until(last + LEAST_INTERVAL).await,
            }
        }
        let begun = Instant::now();
        last = Some(begun);
        // Who asked before is answered by this one; who is not asks again.
        let _asked_before = wanted.notified().now_or_never();
        match source.read().await {
            Ok(rules) => {
                if backoff.take().is_some() {
                    tracing::info!("the rules are refreshed again");
                }
                let begun = Begun::At(begun);
                publish.replace(Page { rules, begun });
            }
            Err(error) => {
                if backoff.is_none() {
                    tracing::warn!(%error, "the rules cannot be refreshed; the last ones stay in force");
                }
                let longer = backoff.map_or(LEAST_INTERVAL, |backoff| backoff * 2);
                backoff = Some(longer.min(MOST_BACKOFF));
            }
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
