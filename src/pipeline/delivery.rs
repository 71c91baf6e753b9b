//! Delivering one lane batch: takes groups, gives each group's fate, request by request.
//!
//! It splits what does not fit one request, halves what was rejected until the culprit stands alone, waits as long as
//! the target is away, and always repeats the same ids. It never finishes a record: the lane confirms first.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backoff::Backoff;
use super::item::Group;
use super::outcome::{Disposition, UNKNOWN_ATTEMPTS};
use super::shared::Shared;
use super::standstill::Target;
use crate::consumers::Consumer;
use crate::inngest::EventBatch;

/// What became of a request's groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    /// One group whose event will never be accepted.
    Rejected {
        reason: &'static str,
        detail: String,
    },
    /// No longer ours.
    Abandoned,
}

pub(super) struct Delivery<'a> {
    consumer: Consumer,
    shared: &'a Shared,
    /// Taken out when their fate is known.
    groups: Vec<Option<Group>>,
    events: EventBatch,
    /// Requests to make, in order.
    requests: VecDeque<Range<usize>>,
    /// Events that got an unknown answer alone: tried again after everything else, so that they hold up nobody.
    held: VecDeque<Held>,
    /// An event too large for any request, found before sending.
    oversize: VecDeque<usize>,
}

struct Held {
    index: usize,
    attempts: u32,
    /// How much the target had accepted when the hold began. Once it has accepted others since, attempts count: not only
    /// while it goes on accepting, because this lane may be what keeps the others from coming.
    accepted: u64,
    backoff: Backoff,
    /// The wait the target asked for at the last try.
    asked: Option<Duration>,
    detail: String,
}

impl<'a> Delivery<'a> {
    pub(super) fn of(consumer: Consumer, shared: &'a Shared, groups: Vec<Group>) -> Self {
        let mut events = EventBatch::default();
        let now_ms = shared.ports.clock.now_ms();
        for Group(members) in &groups {
            match members.as_slice() {
                [] => {}
                [only] => events.push(&only.effect.event, now_ms),
                [older @ .., newest] => {
                    let mut effect = newest.effect.clone();
                    for member in older.iter().rev() {
                        effect.absorb(&member.effect);
                    }
                    events.push(&effect.event, now_ms);
                }
            }
        }
        let split = events.split(shared.ports.deliver.limits());
        Self {
            consumer,
            shared,
            groups: groups.into_iter().map(Some).collect(),
            events,
            requests: split.requests.into(),
            held: VecDeque::new(),
            oversize: split.oversize.into(),
        }
    }

    /// How many groups the first request takes, and how many there are.
    pub(super) fn first_request(&self) -> (usize, usize) {
        (self.requests.front().map_or(0, Range::len), self.groups.len())
    }

    /// The next groups whose fate is known; `None` when every group has met its fate.
    pub(super) async fn next(&mut self) -> Option<(Vec<Group>, Fate)> {
        if let Some(index) = self.oversize.pop_front() {
            let detail = "the event alone is larger than one request may be".to_owned();
            return Some((
                self.take(index..index + 1),
                Fate::Rejected {
                    reason: "event_too_large",
                    detail,
                },
            ));
        }
        while let Some(request) = self.requests.pop_front() {
            if let Some(known) = self.attempt(request).await {
                return Some(known);
            }
        }
        while let Some(held) = self.held.pop_front() {
            if let Some(known) = self.attempt_held(held).await {
                return Some(known);
            }
        }
        None
    }

    /// Sends one request until its answer is something other than "not now".
    async fn attempt(&mut self, request: Range<usize>) -> Option<(Vec<Group>, Fate)> {
        let mut backoff = Backoff::default();
        loop {
            self.shared.await_turn(self.consumer, Target::Inngest).await;
            if let Some(gone) = self.first_gone(request.clone()) {
                // Only what is still ours is sent on; the rest belongs to another member by now.
                self.requests.push_front(gone + 1..request.end);
                self.requests.push_front(request.start..gone);
                self.requests.retain(|range| !range.is_empty());
                return Some((self.take(gone..gone + 1), Fate::Abandoned));
            }
            match self.send(request.clone()).await {
                Disposition::Proceed => return Some((self.take(request), Fate::Accepted)),
                Disposition::Bisect { .. } | Disposition::Hold { .. } if request.len() > 1 => {
                    let middle = request.start + request.len() / 2;
                    self.requests.push_front(middle..request.end);
                    self.requests.push_front(request.start..middle);
                    return None;
                }
                Disposition::Bisect { reason, detail } => {
                    return Some((self.take(request), Fate::Rejected { reason, detail }));
                }
                Disposition::Hold { detail } => {
                    tracing::error!(consumer = self.consumer.name(), detail, "unknown answer: event held");
                    let accepted = self.shared.accepted.load(Ordering::Relaxed);
                    self.held.push_back(Held {
                        index: request.start,
                        attempts: 1,
                        accepted,
                        backoff,
                        asked: None,
                        detail,
                    });
                    return None;
                }
                Disposition::Retry { detail, after } => {
                    let wait = backoff.next(after, &self.shared.ports.randomness);
                    self.shared
                        .ports
                        .telemetry
                        .retried(self.consumer.name(), Target::Inngest.name());
                    tracing::warn!(consumer = self.consumer.name(), detail, ?wait, "delivery: trying again");
                    self.shared.wait(wait).await;
                }
                Disposition::StandStill { detail } => {
                    self.shared.standstills.begin(self.consumer, Target::Inngest, &detail);
                }
            }
        }
    }

    /// Tries a held event once more. It becomes a dead letter only after enough attempts between which the target
    /// accepted others: an outage never counts.
    async fn attempt_held(&mut self, mut held: Held) -> Option<(Vec<Group>, Fate)> {
        let request = held.index..held.index + 1;
        let accepted = self.shared.accepted.load(Ordering::Relaxed);
        if held.attempts >= UNKNOWN_ATTEMPTS {
            return Some((
                self.take(request),
                Fate::Rejected {
                    reason: "unknown_answer",
                    detail: held.detail,
                },
            ));
        }
        let wait = held.backoff.next(held.asked.take(), &self.shared.ports.randomness);
        self.shared.wait(wait).await;
        self.shared.await_turn(self.consumer, Target::Inngest).await;
        if self.first_gone(request.clone()).is_some() {
            return Some((self.take(request), Fate::Abandoned));
        }
        match self.send(request.clone()).await {
            Disposition::Proceed => {
                // Whatever it was may be over for the others as well: they need not wait out their own back-off.
                for other in &mut self.held {
                    other.backoff = Backoff::default();
                }
                return Some((self.take(request), Fate::Accepted));
            }
            Disposition::Bisect { reason, detail } => {
                return Some((self.take(request), Fate::Rejected { reason, detail }));
            }
            Disposition::Hold { detail } => {
                if accepted > held.accepted {
                    held.attempts += 1;
                }
                held.detail = detail;
                self.held.push_back(held);
            }
            Disposition::Retry { after, .. } => {
                held.asked = after;
                self.held.push_back(held);
            }
            Disposition::StandStill { detail } => {
                self.shared.standstills.begin(self.consumer, Target::Inngest, &detail);
                self.held.push_back(held);
            }
        }
        None
    }

    async fn send(&self, request: Range<usize>) -> Disposition {
        let started = tokio::time::Instant::now();
        let answer = self.shared.ports.deliver.send(&self.events, request).await;
        self.shared
            .ports
            .telemetry
            .answered(self.consumer, &answer, started.elapsed());
        let disposition = Disposition::of_answer(answer);
        if disposition == Disposition::Proceed {
            self.shared.accepted.fetch_add(1, Ordering::Relaxed);
            self.shared.standstills.end(self.consumer, Target::Inngest);
        }
        disposition
    }

    /// The first group of the request none of whose records is ours any more.
    fn first_gone(&self, mut request: Range<usize>) -> Option<usize> {
        request.find(|index| {
            let group = self.groups.get(*index).and_then(Option::as_ref);
            group.is_none_or(|group| !group.0.iter().any(|member| member.item.ticket.epoch.is_live()))
        })
    }

    fn take(&mut self, request: Range<usize>) -> Vec<Group> {
        self.groups
            .get_mut(request)
            .unwrap_or_default()
            .iter_mut()
            .filter_map(Option::take)
            .collect()
    }
}
