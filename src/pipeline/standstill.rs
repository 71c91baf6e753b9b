//! A consumer that waits for an operator: which target refuses it, why, and whose turn it is to probe.
//!
//! Each consumer has one of these for each target: Inngest taking an event says nothing about Redis. While a target
//! refuses, one lane asks once a minute; as soon as one gets through, all go on.

use std::time::Duration;

use super::signal::{Signal, Watcher};
use crate::consumers::Consumer;

/// Whom a lane talks to on behalf of its consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Dedupe,
    Database,
    Inngest,
}

const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The standstills of all consumers.
pub(super) struct Standstills([[Standstill; Target::ALL.len()]; Consumer::ALL.len()]);

#[derive(Default)]
struct Standstill {
    reason: Signal<Option<String>>,
    probe: tokio::sync::Mutex<()>,
}

impl Target {
    pub(super) const ALL: [Self; 3] = [Self::Dedupe, Self::Database, Self::Inngest];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dedupe => "dedupe",
            Self::Database => "database",
            Self::Inngest => "inngest",
        }
    }
}

impl Default for Standstills {
    fn default() -> Self {
        Self(Consumer::ALL.map(|_| Default::default()))
    }
}

impl Standstills {
    /// Why the consumer stands still, if it does.
    pub(super) fn reason(&self, consumer: Consumer) -> Option<String> {
        Target::ALL
            .into_iter()
            .find_map(|target| self.of(consumer, target)?.reason.read(Clone::clone))
    }

    /// The target refuses this consumer. The caller asks again only after [`Standstills::await_turn`].
    pub(super) fn begin(&self, consumer: Consumer, target: Target, detail: &str) {
        let Some(standstill) = self.of(consumer, target) else {
            return;
        };
        if standstill.reason.replace(Some(detail.to_owned())).is_none() {
            let (consumer, target) = (consumer.name(), target.name());
            tracing::error!(consumer, target, detail, "consumer stands still until an operator acts");
        }
    }

    /// The target has answered this consumer: whoever waits for it may go on.
    pub(super) fn end(&self, consumer: Consumer, target: Target) {
        let Some(standstill) = self.of(consumer, target) else {
            return;
        };
        if standstill.reason.read(Option::is_some) && standstill.reason.replace(None).is_some() {
            tracing::info!(consumer = consumer.name(), target = target.name(), "consumer goes on");
        }
    }

    /// The consumer has nothing in hand, and so nobody probes for it: what was refused went with its partitions. The next
    /// request finds out anew.
    pub(super) fn forget(&self, consumer: Consumer) {
        for target in Target::ALL {
            self.end(consumer, target);
        }
    }

    /// Returns at once unless the target refuses the consumer; then when the caller may probe, when another's probe got
    /// through, or when `fence` changes.
    pub(super) async fn await_turn(&self, consumer: Consumer, target: Target, fence: &mut Watcher<u64>) {
        let Some(standstill) = self.of(consumer, target) else {
            return;
        };
        if standstill.reason.read(Option::is_none) {
            return;
        }
        let mut reason = standstill.reason.watch();
        tokio::select! {
            biased;
            () = fence.changed() => {}
            () = reason.wait_for(Option::is_none) => {}
            () = async {
                let _turn = standstill.probe.lock().await;
                tokio::time::sleep(PROBE_INTERVAL).await;
            } => {}
        }
    }

    fn of(&self, consumer: Consumer, target: Target) -> Option<&Standstill> {
        self.0.get(consumer.index())?.get(target as usize)
    }
}
