//! The last step of a heal: takes events, gives what became of each. Halves what is rejected until the culprit stands alone.
//!
//! It never waits and never tries again: what the target does not take now is the next pass's.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::consumers::{Consumer, Effect};
use crate::dedupe::{Claim, Dedupe};
use crate::inngest::{Deliver, EventBatch};
use crate::pipeline::{Disposition, Ports};
use crate::postgres::{Announcement, Ledger, LedgerError};
use crate::telemetry::Telemetry;

/// The way out, the pipeline's own.
#[derive(Clone)]
pub struct Outbox {
    pub dedupe: Arc<dyn Dedupe>,
    pub deliver: Arc<dyn Deliver>,
    pub clock: SharedClock,
    pub telemetry: Arc<Telemetry>,
}

/// What became of what was to be sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many met their end, from the first on; of announcements only those that are not tried again.
    pub ended: usize,
    pub accepted: usize,
    /// Effect keys or ids that will never be accepted, and why.
    pub rejected: Vec<(String, String)>,
    /// The same of those whose answer is nobody's to understand.
    pub unknown: Vec<(String, String)>,
    /// Why the rest was not tried: the target does not take anything now.
    pub stopped: Option<String>,
}

/// What became of events, by their places.
#[derive(Debug, Default)]
struct Answered {
    accepted: Vec<usize>,
    rejected: Vec<(usize, String)>,
    /// Alone, and the answer is nobody's to understand.
    unknown: Vec<(usize, String)>,
    stopped: Option<String>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl From<&Ports> for Outbox {
    fn from(ports: &Ports) -> Self {
        Self {
            dedupe: Arc::clone(&ports.dedupe),
            deliver: Arc::clone(&ports.deliver),
            clock: Arc::clone(&ports.clock),
            telemetry: Arc::clone(&ports.telemetry),
        }
    }
}

impl Outbox {
    /// Claims, sends and confirms.
    pub async fn send(&self, consumer: Consumer, effects: &[Effect]) -> Sent {
        let claims: Vec<_> = effects.iter().map(|effect| effect.claim.clone()).collect();
        let answers = match self.dedupe.claim(&claims).await {
            Ok(answers) => answers,
            Err(error) => {
                return Sent {
                    stopped: Some(error.to_string()),
                    ..Sent::default()
                };
            }
        };
        self.telemetry.claimed(consumer, &answers);
        // Somebody else's are as good as ours: the id is the same.
        let is_ours = |place: &usize| answers.get(*place) == Some(&Claim::Granted);
        let ours: Vec<usize> = (0..effects.len()).filter(is_ours).collect();
        let now_ms = self.clock.now_ms();
        let mut events = EventBatch::default();
        for effect in ours.iter().filter_map(|place| effects.get(*place)) {
            events.push(&effect.event, now_ms);
        }
        let answered = self.deliver(consumer, &events).await;
        let of = |place: &usize| effects.get(*ours.get(*place)?);
        let accepted = answered.accepted.iter().filter_map(of);
        let confirmed: Vec<_> = accepted.map(|effect| effect.claim.clone()).collect();
        if let Err(error) = self.dedupe.confirm(&confirmed).await {
            // Inngest knows the id for a day.
            tracing::debug!(%error, "a heal that is not confirmed");
        }
        let named = |(place, detail): &(usize, String)| Some((of(place)?.key.to_string(), detail.clone()));
        let mut sent = Sent {
            ended: effects.len(),
            accepted: confirmed.len(),
            rejected: answered.rejected.iter().filter_map(named).collect(),
            unknown: answered.unknown.iter().filter_map(named).collect(),
            stopped: answered.stopped,
        };
        if sent.stopped.is_some() {
            let rejected = answered
                .rejected
                .iter()
                .chain(&answered.unknown)
                .map(|(place, _)| place);
            let met: BTreeSet<usize> = answered.accepted.iter().chain(rejected).copied().collect();
            let first_open = (0..ours.len()).find(|place| !met.contains(place));
            sent.ended = first_open
                .and_then(|place| ours.get(place).copied())
                .unwrap_or(sent.ended);
        }
        sent
    }

    /// Sends announcements and marks them.
    ///
    /// # Errors
    /// They cannot be marked: they are sent again, with the same ids.
    pub async fn announce(
        &self,
        ledger: &dyn Ledger,
        consumer: Consumer,
        announcements: &[&Announcement],
    ) -> Result<Sent, LedgerError> {
        let now_ms = self.clock.now_ms();
        let mut events = EventBatch::default();
        for announcement in announcements {
            events.push_announcement(announcement, now_ms);
        }
        let answered = self.deliver(consumer, &events).await;
        let of = |place: usize| announcements.get(place).copied();
        let ids: Vec<&str> = answered
            .accepted
            .iter()
            .filter_map(|place| Some(&*of(*place)?.id))
            .collect();
        if !ids.is_empty() {
            ledger.announced(&ids).await?;
        }
        let mut rejected = Vec::new();
        for (place, detail) in answered.rejected {
            if let Some(announcement) = of(place) {
                ledger.announcement_rejected(&announcement.id, &detail).await?;
                rejected.push((announcement.effect_key.to_string(), detail));
            }
        }
        let unknown = answered.unknown.into_iter();
        let unknown = unknown.filter_map(|(place, detail)| Some((of(place)?.effect_key.to_string(), detail)));
        Ok(Sent {
            // What is unknown is not marked: it is tried again, and takes nobody's room.
            ended: ids.len().saturating_add(rejected.len()),
            accepted: ids.len(),
            rejected,
            unknown: unknown.collect(),
            stopped: answered.stopped,
        })
    }

    async fn deliver(&self, consumer: Consumer, events: &EventBatch) -> Answered {
        let split = events.split(self.deliver.limits());
        let mut requests: VecDeque<Range<usize>> = split.requests.into();
        let mut answered = Answered::default();
        let too_large = |place| (place, "larger than one request may be".to_owned());
        answered.rejected.extend(split.oversize.into_iter().map(too_large));
        while let Some(request) = requests.pop_front() {
            self.deliver.permit().await;
            let started = tokio::time::Instant::now();
            let in_flight = self.telemetry.sending(consumer, request.len());
            let answer = self.deliver.send(events, request.clone()).await;
            drop(in_flight);
            self.telemetry.answered(consumer, &answer, started.elapsed());
            match Disposition::of_answer(answer) {
                Disposition::Proceed => answered.accepted.extend(request),
                Disposition::Bisect { .. } | Disposition::Hold { .. } if request.len() > 1 => {
                    let middle = request.start + request.len() / 2;
                    requests.push_front(middle..request.end);
                    requests.push_front(request.start..middle);
                }
                Disposition::Bisect { detail, .. } => answered.rejected.push((request.start, detail)),
                Disposition::Hold { detail } => answered.unknown.push((request.start, detail)),
                Disposition::Retry { detail, .. } | Disposition::StandStill { detail } => {
                    answered.stopped = Some(detail);
                    break;
                }
            }
        }
        answered
    }
}

/// Whose announcement it is.
pub(super) fn announcer(name: &str) -> Consumer {
    if name.starts_with("loyalty/mission") {
        Consumer::Mission
    } else {
        Consumer::Tier
    }
}
