//! A lane: takes the records of its keys in order and brings each to an outcome.
//!
//! One delivery is in flight a lane. While it waits the next batch grows; a lone record leaves at once. The batch goes
//! through `decide → claim → deliver → confirm`, and only then is a record reported finished. It never commits, and it
//! never reports a record whose outcome it does not know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::delivery::{self, Fate};
use super::fit::Fit;
use super::item::{Finished, Group, Item, Pending, set_repeats_aside, waves};
use super::outcome::{Disposition, Outcome};
use super::shared::{Shared, Ticket};
use super::standstill::Target;
use crate::consumers::{self, Consumer, Decision};
use crate::dead_letters::{Letter, Queue};
use crate::dedupe::{Claim, ClaimKey};
use crate::progress::ConsumerSet;

/// The most records of one lane batch: what fits one request, if its events are small.
pub(super) const MAX_BATCH: usize = 400;

/// How often a foreign lease is looked at again while it is waited for.
const LEASE_LOOKS: u32 = 10;

pub(super) struct Lane {
    pub(super) consumer: Consumer,
    pub(super) inbox: mpsc::Receiver<Vec<Item>>,
    pub(super) finished: mpsc::Sender<Vec<Finished>>,
    pub(super) shared: Arc<Shared>,
    pub(super) fit: Fit,
}

impl Lane {
    pub(super) async fn run(mut self) {
        let mut backlog = VecDeque::new();
        while self.fill(&mut backlog).await {
            let size = backlog.len().min(self.fit.records());
            self.process(backlog.drain(..size).collect()).await;
        }
    }

    /// Waits for a record, then takes whatever else is there, up to a batch. False when nothing will come any more.
    async fn fill(&mut self, backlog: &mut VecDeque<Item>) -> bool {
        if backlog.is_empty() {
            match self.inbox.recv().await {
                Some(items) => backlog.extend(items),
                None => return false,
            }
        }
        while backlog.len() < MAX_BATCH
            && let Ok(items) = self.inbox.try_recv()
        {
            backlog.extend(items);
        }
        true
    }

    /// The way of a batch through one consumer.
    async fn process(&self, items: Vec<Item>) {
        let pending = self.decide(items).await;
        let (pending, repeats) = set_repeats_aside(pending);
        let pending = self.claim(pending).await;
        for mut groups in waves(pending) {
            while !groups.is_empty() {
                groups = self.deliver(groups).await;
            }
        }
        // What they repeat has its end now, or is not ours any more, and neither are they.
        let repeats = repeats.into_iter();
        self.report(
            repeats
                .map(|item| self.finish(item.ticket, Outcome::Duplicate))
                .collect(),
        )
        .await;
    }

    /// Decides each record; what needs no delivery is finished at once.
    async fn decide(&self, items: Vec<Item>) -> Vec<Pending> {
        let now = self.shared.ports.clock.now();
        let mut pending = Vec::with_capacity(items.len());
        let (mut finished, mut refused) = (Vec::new(), Vec::new());
        for item in items.into_iter().filter(|item| item.ticket.epoch.is_live()) {
            match consumers::decide(self.consumer, &item.change, &self.shared.ports.rules, now) {
                Decision::Ignore(reason) => finished.push(self.finish(item.ticket, Outcome::Ignored(reason))),
                Decision::Deliver(effect) => pending.push(Pending { item, effect }),
                Decision::Refuse(refusal) => refused.push((item, refusal)),
            }
        }
        self.report(finished).await;
        for (item, refusal) in refused {
            let letter = self.letter(&item, refusal.reason(), refusal.to_string());
            let buried = self.bury(item, letter).await;
            self.report(buried).await;
        }
        pending
    }

    /// Keeps what is ours to deliver; what is done already is finished. A foreign lease is waited for, once and at most
    /// as long as a lease lives, and then delivered all the same: skipping it could lose it.
    async fn claim(&self, pending: Vec<Pending>) -> Vec<Pending> {
        let lease = self.shared.ports.dedupe.lease();
        let mut undecided = pending;
        let mut ours = Vec::with_capacity(undecided.len());
        for look in 0..=LEASE_LOOKS {
            if look > 0 {
                self.shared.wait(lease / LEASE_LOOKS).await;
            }
            let claims;
            (undecided, claims) = self.ask(undecided).await;
            let (mut finished, mut foreign) = (Vec::new(), Vec::new());
            for (pending, claim) in undecided.into_iter().zip(claims) {
                match claim {
                    Claim::Granted => ours.push(pending),
                    Claim::Done => finished.push(self.finish(pending.item.ticket, Outcome::Duplicate)),
                    Claim::Foreign => foreign.push(pending),
                }
            }
            self.report(finished).await;
            undecided = foreign;
            if undecided.is_empty() {
                break;
            }
        }
        ours.extend(undecided);
        // Back in the order of receipt: a record whose lease was foreign comes behind newer ones of the same row here,
        // and the newest state would be taken for the older one.
        ours.sort_by_key(|pending| (pending.item.ticket.place, pending.item.ticket.seq));
        ours
    }

    /// One answer for every record that is still ours, however long the store takes.
    async fn ask(&self, mut pending: Vec<Pending>) -> (Vec<Pending>, Vec<Claim>) {
        let mut backoff = Backoff::default();
        loop {
            pending.retain(|pending| pending.item.ticket.epoch.is_live());
            if pending.is_empty() {
                return (pending, Vec::new());
            }
            let keys: Vec<ClaimKey> = pending.iter().map(|pending| pending.effect.claim.clone()).collect();
            match self.shared.ports.dedupe.claim(&keys).await {
                Ok(claims) => {
                    self.shared.standstills.end(self.consumer, Target::Dedupe);
                    return (pending, claims);
                }
                Err(error) => self.wait_for_store(&error, &mut backoff).await,
            }
        }
    }

    /// Delivers the newest of each group. Gives back the groups whose newest was rejected, without it.
    async fn deliver(&self, groups: Vec<Group>) -> Vec<Group> {
        let mut retry = Vec::new();
        let mut delivery = delivery::Delivery::of(self.consumer, &self.shared, groups);
        let (first, all) = delivery.first_request();
        self.fit.learn(first, all);
        while let Some((groups, fate)) = delivery.next().await {
            match fate {
                Fate::Accepted => self.confirm(groups).await,
                Fate::Abandoned => drop(groups),
                Fate::Rejected { reason, detail } => {
                    for Group(mut members) in groups {
                        let Some(culprit) = members.pop() else { continue };
                        let letter = self.letter(&culprit.item, reason, detail.clone());
                        let finished = self.bury(culprit.item, letter).await;
                        self.report(finished).await;
                        if !members.is_empty() {
                            retry.push(Group(members));
                        }
                    }
                }
            }
        }
        retry
    }

    /// Marks everything the accepted events cover as done, then reports it finished. While the store is away the records
    /// are held; nothing is sent again.
    async fn confirm(&self, groups: Vec<Group>) {
        // Oldest first: where the pipeline of commands is cut short, an older change is never left open behind a
        // newer one that is done.
        let keys: Vec<ClaimKey> = groups
            .iter()
            .flat_map(|group| group.0.iter().map(|member| member.effect.claim.clone()))
            .collect();
        let mut backoff = Backoff::default();
        while let Err(error) = self.shared.ports.dedupe.confirm(&keys).await {
            self.wait_for_store(&error, &mut backoff).await;
            if !groups
                .iter()
                .any(|group| group.0.iter().any(|member| member.item.ticket.epoch.is_live()))
            {
                return;
            }
        }
        self.shared.standstills.end(self.consumer, Target::Dedupe);
        let now_ms = self.shared.ports.clock.now_ms();
        let mut finished = Vec::with_capacity(keys.len());
        for Group(mut members) in groups {
            let Some(newest) = members.pop() else { continue };
            let lag_ms = now_ms.saturating_sub(newest.item.change.commit_ms);
            self.shared
                .ports
                .telemetry
                .accepted(self.consumer, Duration::from_millis(lag_ms.try_into().unwrap_or(0)));
            let older = members.into_iter();
            finished.extend(older.map(|member| self.finish(member.item.ticket, Outcome::Superseded)));
            finished.push(self.finish(newest.item.ticket, Outcome::Delivered));
        }
        self.report(finished).await;
    }

    async fn wait_for_store(&self, error: &crate::dedupe::DedupeError, backoff: &mut Backoff) {
        self.shared
            .ports
            .telemetry
            .retried(self.consumer.name(), Target::Dedupe.name());
        match Disposition::of_dedupe(error) {
            Disposition::StandStill { detail } => {
                self.shared.standstills.begin(self.consumer, Target::Dedupe, &detail);
                self.shared.await_turn(self.consumer, Target::Dedupe).await;
            }
            Disposition::Retry { detail, after } => {
                let wait = backoff.next(after, &self.shared.ports.randomness);
                tracing::warn!(
                    consumer = self.consumer.name(),
                    detail,
                    ?wait,
                    "dedupe store: trying again"
                );
                self.shared.wait(wait).await;
            }
            Disposition::Proceed | Disposition::Bisect { .. } | Disposition::Hold { .. } => {}
        }
    }

    /// Writes a dead letter, however long it takes; nothing if the record is not ours any more.
    async fn bury(&self, item: Item, letter: Letter) -> Vec<Finished> {
        let buried = bury(&self.shared, &item.ticket, &letter).await;
        let reason = letter.reason;
        buried
            .then(|| self.finish(item.ticket, Outcome::DeadLettered(reason)))
            .into_iter()
            .collect()
    }

    fn letter(&self, item: &Item, reason: &'static str, detail: String) -> Letter {
        let queue = Queue::Consumer(self.consumer);
        Letter {
            queue,
            record: item.record.clone(),
            reason,
            detail,
            policy: false,
        }
    }

    fn finish(&self, ticket: Ticket, outcome: Outcome) -> Finished {
        Finished {
            ticket,
            consumers: ConsumerSet::only(self.consumer),
            outcome,
        }
    }

    async fn report(&self, finished: Vec<Finished>) {
        if !finished.is_empty() {
            // The pipeline is gone only when the process is going: nothing is committed then.
            let _gone = self.finished.send(finished).await;
        }
    }
}

/// Writes a dead letter and waits for its delivery report, however long it takes. False if the record stopped being ours.
pub(super) async fn bury(shared: &Shared, ticket: &Ticket, letter: &Letter) -> bool {
    let mut backoff = Backoff::default();
    while ticket.epoch.is_live() {
        match shared.ports.dead_letters.write(letter).await {
            Ok(()) => {
                let (queue, reason, detail) = (letter.queue.name(), letter.reason, letter.detail.as_str());
                shared.ports.telemetry.dead_lettered(queue, reason);
                let _outside_its_batch = letter.record.with(|record| {
                    let (topic, partition, offset) = (record.topic, record.partition, record.offset);
                    tracing::warn!(queue, reason, topic, partition, offset, detail, "record dead-lettered");
                });
                return true;
            }
            Err(error) => {
                let wait = backoff.next(None, &shared.ports.randomness);
                shared.ports.telemetry.retried(letter.queue.name(), "dead_letters");
                tracing::error!(%error, ?wait, "record held until its dead letter is written");
                shared.wait(wait).await;
            }
        }
    }
    false
}
