//! Delivering one lane batch: takes groups, gives each group's fate, request by request.
//!
//! It splits what does not fit one request, halves what was rejected until the culprit stands alone, waits as long as
//! the target is away, and always repeats the same ids. It never finishes a record (the lane confirms first), and it
//! never tries again what alone got an answer that nobody knows: the lane sets that aside.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::backoff::Backoff;
use super::evaluation::{Call, Evaluation};
use super::fit::Fit;
use super::item::Group;
use super::outcome::Disposition;
use super::shared::Shared;
use super::standstill::Target;
use super::traced::met;
use crate::consumers::{Consumer, Effect};
use crate::inngest::EventBatch;
use crate::telemetry::{BatchSpan, Stage};

/// What became of a request's groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    /// One group whose event will never be accepted.
    Rejected {
        reason: &'static str,
        detail: String,
    },
    /// One group whose event got an answer that nobody knows.
    Unknown {
        /// Whose answer it was.
        target: Target,
        detail: String,
    },
    /// Not sent: it must not overtake what the lane has set aside.
    Behind,
    /// No longer ours.
    Abandoned,
}

pub(super) struct Delivery<'a> {
    consumer: Consumer,
    shared: &'a Shared,
    batch: Option<BatchSpan>,
    /// Taken out when their fate is known.
    groups: Vec<Option<Group>>,
    /// How many there were.
    all: usize,
    way: Way<'a>,
    /// Requests to make, in order.
    requests: VecDeque<Range<usize>>,
    /// An event too large for any request, found before sending.
    oversize: VecDeque<usize>,
    /// A further attempt at what alone got an unknown answer.
    is_again: bool,
    /// The database did not answer a request of several.
    is_too_much: bool,
    fits: Option<Fits>,
}

/// What this delivery shows of how many records fit one request.
enum Fits {
    /// Of so many records the events were made, and of `room` they would fill a request.
    Measured { records: usize, room: usize },
    /// So many were answered by the database at once.
    Tried(usize),
}

/// Who takes the effect of each group, in the order of the groups.
enum Way<'a> {
    Inngest(EventBatch),
    Database(Evaluation<'a>, Vec<Effect>),
}

impl<'a> Delivery<'a> {
    /// `batch`: the trace that it belongs to.
    pub(super) fn of(consumer: Consumer, shared: &'a Shared, batch: Option<BatchSpan>, groups: Vec<Group>) -> Self {
        let trace = batch.as_ref().map(BatchSpan::traceparent);
        // The effects of one consumer all take the same way.
        let first = groups.first();
        let call = first.and_then(|first| Call::of(&first.newest.effect));
        let ledger = shared.ports.ledger.as_ref().zip(call);
        let (way, requests, oversize, fits) = if let Some((ledger, call)) = ledger {
            let effects: Vec<Effect> = groups.iter().map(|group| group.effect().into_owned()).collect();
            let all = 0..effects.len();
            let evaluation = Evaluation {
                consumer,
                shared,
                ledger: Arc::clone(ledger),
                call,
                trace,
            };
            (
                Way::Database(evaluation, effects),
                VecDeque::from([all]),
                VecDeque::new(),
                Some(Fits::Tried(groups.len())),
            )
        } else {
            let now_ms = shared.ports.clock.now_ms();
            let mut events = EventBatch::in_trace(trace);
            events.reserve(groups.len());
            for effect in groups.iter().map(Group::effect) {
                events.push(&effect.event, now_ms);
            }
            events.close();
            let limits = shared.ports.deliver.limits();
            let split = events.split(limits);
            let records = groups.iter().map(Group::len).sum();
            let room = events.room(records, limits);
            // An event too large for any request says nothing about how many of the others fit.
            let fits = split.oversize.is_empty().then_some(Fits::Measured { records, room });
            (Way::Inngest(events), split.requests.into(), split.oversize.into(), fits)
        };
        Self {
            consumer,
            shared,
            batch,
            all: groups.len(),
            groups: groups.into_iter().map(Some).collect(),
            way,
            requests,
            oversize,
            is_again: false,
            is_too_much: false,
            fits,
        }
    }

    /// Once more what alone got an unknown answer.
    pub(super) fn again(consumer: Consumer, shared: &'a Shared, batch: Option<BatchSpan>, group: Group) -> Self {
        Self {
            is_again: true,
            ..Self::of(consumer, shared, batch, vec![group])
        }
    }

    /// Tells a lane how many records to take the next time.
    pub(super) fn teach(&self, fit: &mut Fit) {
        match self.fits {
            Some(Fits::Measured { records, room }) => fit.measured(records, room),
            Some(Fits::Tried(taken)) => fit.tried(taken, self.all),
            None => {}
        }
    }

    /// The next groups whose fate is known; `None` when every group has met its fate. What `must_wait` is not sent.
    pub(super) async fn next(&mut self, must_wait: impl Fn(&Group) -> bool) -> Option<(Vec<Group>, Fate)> {
        if let Some(index) = self.oversize.pop_front() {
            let detail = "the event alone is larger than one request may be".to_owned();
            let reason = "event_too_large";
            return Some((self.take(index..index + 1), Fate::Rejected { reason, detail }));
        }
        while let Some(request) = self.requests.pop_front() {
            if let Some(known) = self.attempt(request, &must_wait).await {
                return Some(known);
            }
        }
        None
    }

    /// Sends one request until its answer is something other than "not now".
    async fn attempt(
        &mut self,
        request: Range<usize>,
        must_wait: &impl Fn(&Group) -> bool,
    ) -> Option<(Vec<Group>, Fate)> {
        let mut backoff = Backoff::default();
        loop {
            for target in self.way.targets() {
                self.shared.await_turn(self.consumer, *target).await;
            }
            if matches!(self.way, Way::Inngest(_)) {
                // Our own rate is no time of Inngest's, and what goes while we wait for it is not sent.
                self.shared.ports.deliver.permit().await;
            }
            // From here on: what goes while the consumer is halted is not missed.
            let mut fence = self.shared.fence.watch();
            if let Some((index, fate)) = self.first_unsent(request.clone(), must_wait) {
                self.requests.push_front(index + 1..request.end);
                self.requests.push_front(request.start..index);
                self.requests.retain(|range| !range.is_empty());
                return Some((self.take(index..index + 1), fate));
            }
            if self.shared.halts.stops(self.consumer) {
                fence.changed().await;
                continue;
            }
            let (target, disposition) = self.send(request.clone()).await;
            match disposition {
                Disposition::Proceed => {
                    if let (true, Some(Fits::Tried(taken))) = (self.is_too_much, &mut self.fits) {
                        *taken = request.len().max(*taken);
                    }
                    if self.requests.is_empty() {
                        // What is left to do needs no text any more.
                        self.way.forget();
                    }
                    return Some((self.take(request), Fate::Accepted));
                }
                Disposition::Bisect { .. } | Disposition::Hold { .. } if request.len() > 1 => {
                    let is_held = matches!(disposition, Disposition::Hold { .. });
                    if is_held && target == Target::Database && !self.is_too_much {
                        (self.is_too_much, self.fits) = (true, Some(Fits::Tried(0)));
                    }
                    let middle = request.start + request.len() / 2;
                    self.requests.push_front(middle..request.end);
                    self.requests.push_front(request.start..middle);
                    return None;
                }
                Disposition::Bisect { reason, detail } => {
                    return Some((self.take(request), Fate::Rejected { reason, detail }));
                }
                Disposition::Hold { detail } => return Some((self.take(request), Fate::Unknown { target, detail })),
                other => self.shared.wait_for(self.consumer, target, other, &mut backoff).await,
            }
        }
    }

    async fn send(&self, request: Range<usize>) -> (Target, Disposition) {
        let mut stage = self
            .batch
            .as_ref()
            .map(|batch| batch.stage(self.way.stage(), request.len()));
        let (target, disposition) = match &self.way {
            Way::Inngest(events) => (Target::Inngest, self.shared.send(self.consumer, events, request).await),
            Way::Database(evaluation, effects) => {
                let effects: Vec<&Effect> = effects.get(request).unwrap_or_default().iter().collect();
                evaluation.make(&effects).await
            }
        };
        met(&mut stage, &disposition);
        self.shared.note(target, &disposition, self.is_again);
        (target, disposition)
    }

    /// The first group of the request that must not be sent, and why: none of its records is ours any more, or it would
    /// overtake something.
    fn first_unsent(&self, mut request: Range<usize>, must_wait: &impl Fn(&Group) -> bool) -> Option<(usize, Fate)> {
        request.find_map(|index| match self.groups.get(index).and_then(Option::as_ref) {
            Some(group) if group.is_live() && must_wait(group) => Some((index, Fate::Behind)),
            Some(group) if group.is_live() => None,
            Some(_) | None => Some((index, Fate::Abandoned)),
        })
    }

    fn take(&mut self, request: Range<usize>) -> Vec<Group> {
        if request == (0..self.groups.len()) {
            // Collected in place, which `flatten` would not: nothing of a large batch is moved.
            return std::mem::take(&mut self.groups)
                .into_iter()
                .filter_map(|mut group| group.take())
                .collect();
        }
        let mut taken = Vec::with_capacity(request.len());
        let groups = self.groups.get_mut(request).unwrap_or_default();
        taken.extend(groups.iter_mut().filter_map(Option::take));
        taken
    }
}

impl Way<'_> {
    fn forget(&mut self) {
        match self {
            Self::Inngest(events) => *events = EventBatch::default(),
            Self::Database(_, effects) => *effects = Vec::new(),
        }
    }

    const fn stage(&self) -> Stage {
        match self {
            Self::Inngest(_) => Stage::Deliver,
            Self::Database(..) => Stage::Evaluate,
        }
    }

    const fn targets(&self) -> &'static [Target] {
        match self {
            Self::Inngest(_) => &[Target::Inngest],
            Self::Database(..) => &[Target::Database, Target::Inngest],
        }
    }
}
