//! Effects that the database evaluates: takes the effects of one request, gives what became of them.
//!
//! One call for all of them. What it leads to was written down in the same transaction; it is sent, and then marked as
//! announced. Whatever fails in between, the call is repeated and gives again what was not announced: it cannot be lost, and
//! sent twice it has the same id. It never finishes a record and never waits: the caller repeats.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::outcome::Disposition;
use super::shared::Shared;
use super::standstill::Target;
use crate::consumers::{Consumer, Effect};
use crate::inngest::{EventBatch, EventData};
use crate::postgres::{Announcement, Ledger, LedgerError};
use crate::traceparent::TraceParent;

/// Which call an effect takes, if the database evaluates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Tiers,
    Progress,
}

impl Call {
    pub(super) const fn of(effect: &Effect) -> Option<Self> {
        match &effect.event.data {
            EventData::TierEvaluationRequested(_) => Some(Self::Tiers),
            EventData::MissionEvaluationRequested(_) => Some(Self::Progress),
            EventData::AwardScheduled { .. }
            | EventData::AwardCancelled(_)
            | EventData::RewardGranted(_)
            | EventData::RewardRevoked(_)
            | EventData::CodeRedeemed(_) => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tiers => "evaluate_tiers",
            Self::Progress => "record_progress",
        }
    }

    fn make<'a>(
        self,
        ledger: &'a dyn Ledger,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        match self {
            Self::Tiers => ledger.evaluate_tiers(effects),
            Self::Progress => ledger.record_progress(effects),
        }
    }
}

/// One consumer's way to the database.
pub(super) struct Evaluation<'a> {
    pub(super) consumer: Consumer,
    pub(super) shared: &'a Shared,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) call: Call,
    pub(super) trace: Option<TraceParent>,
}

impl Evaluation<'_> {
    /// Makes the call and announces what follows from it; says who decided how it ended.
    pub(super) async fn make(&self, effects: &[&Effect]) -> (Target, Disposition) {
        let made = self.call.make(self.ledger.as_ref(), effects);
        let announcements = match self.shared.call(self.consumer, self.call.name(), made).await {
            Ok(announcements) => announcements,
            Err(error) => return (Target::Database, Disposition::of_ledger(&error)),
        };
        if announcements.is_empty() {
            return (Target::Database, Disposition::Proceed);
        }
        let sent = self.announce(&announcements).await;
        let ids: Vec<&str> = sent.accepted.iter().map(|announcement| &*announcement.id).collect();
        if !ids.is_empty() {
            let marked = self.ledger.announced(&ids);
            if let Err(error) = self.shared.call(self.consumer, "announced", marked).await {
                return (Target::Database, Disposition::of_ledger(&error));
            }
        }
        for (announcement, detail) in sent.rejected {
            tracing::error!(
                consumer = self.consumer.name(),
                id = &*announcement.id,
                detail,
                "announcement rejected"
            );
            let marked = self.ledger.announcement_rejected(&announcement.id, &detail);
            if let Err(error) = self.shared.call(self.consumer, "announcement_rejected", marked).await {
                return (Target::Database, Disposition::of_ledger(&error));
            }
        }
        match sent.stopped {
            Some(disposition) => (Target::Inngest, disposition),
            None => (Target::Inngest, Disposition::Proceed),
        }
    }

    /// Sends them, halving what is rejected. What alone gets an unknown answer stays unannounced: it is in the database, and
    /// the reconciler's from now on. It must not hold the records, which are settled.
    async fn announce<'a>(&self, announcements: &'a [Announcement]) -> Sent<'a> {
        let now_ms = self.shared.ports.clock.now_ms();
        let mut events = EventBatch::in_trace(self.trace);
        for announcement in announcements {
            events.push_announcement(announcement, now_ms);
        }
        let split = events.split(self.shared.ports.deliver.limits());
        let mut requests: VecDeque<Range<usize>> = split.requests.into();
        let mut sent = Sent::default();
        let oversize = split.oversize.into_iter().filter_map(|index| announcements.get(index));
        sent.rejected
            .extend(oversize.map(|announcement| (announcement, "larger than one request may be".to_owned())));
        while let Some(request) = requests.pop_front() {
            let covered = announcements.get(request.clone()).unwrap_or_default();
            self.shared.ports.deliver.permit().await;
            match (self.shared.send(self.consumer, &events, request.clone()).await, covered) {
                (Disposition::Proceed, covered) => sent.accepted.extend(covered),
                (Disposition::Bisect { detail, .. }, [only]) => sent.rejected.push((only, detail)),
                (Disposition::Hold { detail }, [only]) => {
                    let (consumer, id) = (self.consumer.name(), &*only.id);
                    tracing::error!(
                        consumer,
                        id,
                        detail,
                        "unknown answer: announcement left to the reconciler"
                    );
                }
                (Disposition::Bisect { .. } | Disposition::Hold { .. }, _) => {
                    let middle = request.start + request.len() / 2;
                    requests.push_front(middle..request.end);
                    requests.push_front(request.start..middle);
                }
                (stopped @ (Disposition::Retry { .. } | Disposition::StandStill { .. }), _) => {
                    sent.stopped = Some(stopped);
                    return sent;
                }
            }
        }
        sent
    }
}

/// What became of announcements.
#[derive(Default)]
struct Sent<'a> {
    accepted: Vec<&'a Announcement>,
    rejected: Vec<(&'a Announcement, String)>,
    /// Not all were tried: Inngest does not take anything now.
    stopped: Option<Disposition>,
}
