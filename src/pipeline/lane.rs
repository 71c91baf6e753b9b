//! A lane: takes the records of its keys in order and brings each to an outcome.
//!
//! One delivery is in flight a lane. While it waits the next batch grows; a lone record leaves at once. The batch goes
//! through `decide → claim → deliver → confirm`, and only then is a record reported finished. Poison is set aside, and
//! what must not overtake it waits beside it (`parked`); the other keys go on. A target that is down stops the whole
//! lane: it is down for everyone. It never commits, and it never reports a record whose outcome it does not know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::backoff::Backoff;
use super::delivery::{Delivery, Fate};
use super::fit::Fit;
use super::inbox::Inbox;
use super::item::{Finished, Group, Item, Pending, set_repeats_aside, wait_together, waves};
use super::outcome::{Disposition, Outcome, UNKNOWN_ATTEMPTS};
use super::parked::{Limit, Parked, Puzzle};
use super::shared::{OldRecords, Shared, Ticket};
use super::standstill::Target;
use super::traced::met;
use super::undertaker::{Body, Cause, Dead, Tell};
use crate::consumers::{self, Consumer, Decision, EffectKey, Effects, Reason, Rules, needs_effects_check};
use crate::dead_letters::Queue;
use crate::dedupe::{Claim, ClaimKey, DedupeError};
use crate::planted::Planted;
use crate::progress::ConsumerSet;
use crate::telemetry::{BatchSpan, Stage, StageSpan};
use jiff::Timestamp;

/// The most records of one lane batch: what fits one request, if its events are small.
pub const MAX_BATCH: usize = 400;

/// How many puzzles are tried in one round, so that the records that come in need not wait long for theirs.
const MAX_ROUND: usize = 10;

/// The reason of a dead letter that `OLD_RECORDS` asks for.
const NEEDS_EFFECTS_CHECK: &str = "needs_effects_check";

/// How often a foreign lease is looked at again while it is waited for.
const LEASE_LOOKS: u32 = 10;

pub(super) struct Lane {
    pub(super) consumer: Consumer,
    parked: Parked,
    undertaker: mpsc::Sender<Dead>,
    /// Letters that are out of the way, as the undertaker tells.
    buried: mpsc::UnboundedReceiver<u64>,
    tell: mpsc::UnboundedSender<u64>,
    finished: mpsc::Sender<Vec<Finished>>,
    pub(super) shared: Arc<Shared>,
    pub(super) fit: Fit,
    /// What the batch in hand is traced as.
    pub(super) batch: Option<BatchSpan>,
}

impl Lane {
    pub(super) fn new(
        consumer: Consumer,
        undertaker: mpsc::Sender<Dead>,
        finished: mpsc::Sender<Vec<Finished>>,
        shared: Arc<Shared>,
        limit: Limit,
    ) -> Self {
        // At most as many messages as letters, and those are bounded.
        let (tell, buried) = mpsc::unbounded_channel();
        Self {
            consumer,
            parked: Parked::new(limit),
            undertaker,
            buried,
            tell,
            finished,
            shared,
            fit: Fit::at_most(MAX_BATCH),
            batch: None,
        }
    }

    pub(super) async fn run(mut self, mut inbox: Inbox) {
        while self.wake(&mut inbox).await {
            let items = inbox.take(self.fit.records().min(self.parked.room()));
            tokio::select! {
                biased;
                () = self.step(items) => {}
                () = inbox.keep_clean() => {}
            }
        }
    }

    /// Waits until there is something to do. False when nothing will come any more.
    async fn wake(&mut self, inbox: &mut Inbox) -> bool {
        let takes = self.parked.room() > 0;
        let must_look = inbox.take_went() || self.parked.has_left();
        if !must_look && (inbox.is_empty() || !takes) {
            let due = self.parked.due();
            tokio::select! {
                biased;
                Some(letter) = self.buried.recv() => self.parked.buried(letter),
                more = inbox.wait(takes) => if !more { return false },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        while let Ok(letter) = self.buried.try_recv() {
            self.parked.buried(letter);
        }
        true
    }

    /// One batch, behind what it sets free and what is to be tried again.
    async fn step(&mut self, mut items: Vec<Item>) {
        if !items.is_empty() {
            self.shared.ports.telemetry.batch_taken(self.consumer);
        }
        self.stand_while_halted(&mut items).await;
        self.parked.forget_gone();
        let released = self.parked.released();
        self.bring_home(released).await;
        if self.parked.due().is_some_and(|due| due <= Instant::now()) {
            self.try_puzzles().await;
        }
        // From here on: what was set aside came with other batches.
        self.batch = self.begin_trace(&items);
        let logged = self.batch.as_ref().map_or_else(tracing::Span::none, BatchSpan::logged);
        self.bring_on(items).instrument(logged).await;
        self.batch = None;
    }

    /// What was taken, through all stages.
    async fn bring_on(&mut self, items: Vec<Item>) {
        let rules = self.shared.ports.rules.current();
        let (mut pending, mut unknown) = self.decide_by(&rules, items, Planted::StaleProgram.is_planted()).await;
        wait_together(&mut pending, &mut unknown);
        let pending = self.compare(pending).await;
        self.bring_home(pending).await;
        // Where a merchant is unknown, the rules may be older than the record: it is decided once more by newer ones.
        if let Some((rules, unknown)) = self.with_newer_rules(unknown).await {
            let (pending, _) = self.decide_by(&rules, unknown, true).await;
            let pending = self.compare(pending).await;
            self.bring_home(pending).await;
        }
    }

    /// Once the consumer is halted, only partitions that go release what they hold.
    async fn stand_while_halted(&mut self, items: &mut Vec<Item>) {
        let mut fence = self.shared.fence.watch();
        while self.shared.halts.stops(self.consumer) {
            items.retain(|item| item.ticket.epoch.is_live());
            self.parked.forget_gone();
            if items.is_empty() {
                return;
            }
            fence.changed().await;
        }
    }

    /// Waits for rules that are newer than these records, as long as one of them is ours.
    async fn with_newer_rules(&self, mut items: Vec<Item>) -> Option<(Arc<Rules>, Vec<Item>)> {
        let mut fence = self.shared.fence.watch();
        loop {
            items.retain(|item| item.ticket.epoch.is_live());
            let newest = items.iter().map(|item| item.received.at).max()?;
            tokio::select! {
                biased;
                rules = self.shared.ports.rules.newer_than(newest) => return Some((rules, items)),
                () = fence.changed() => {}
            }
        }
    }

    /// Decides each record; what needs no delivery is finished at once. Gives what is to be delivered, and unless the rules are `final` what they do not know the merchant of.
    async fn decide_by(&mut self, rules: &Rules, items: Vec<Item>, is_final: bool) -> (Vec<Pending>, Vec<Item>) {
        let stage = self.stage(Stage::Decide, items.len());
        let now = self.shared.ports.clock.now();
        let mut pending = Vec::with_capacity(items.len());
        let (mut finished, mut dead, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let mut notes = self.shared.notes();
        for item in items.into_iter().filter(|item| item.ticket.epoch.is_live()) {
            let decision = consumers::decide(self.consumer, &item.received.change, rules, now);
            match self.shared.replay.counts(decision) {
                Decision::Ignore(Reason::NoProgram) if !is_final => unknown.push(item),
                Decision::Deliver(effects)
                    if !is_final && effects.iter().any(|effect| effect.reason == Reason::NoProgram) =>
                {
                    unknown.push(item);
                }
                Decision::Ignore(reason) => {
                    notes.ignored(self.consumer, &item, reason.as_str(), None);
                    let outcome = Outcome::Ignored(reason);
                    if finished.is_empty() {
                        let told = Some(reason.as_str());
                        self.shared.tell(self.consumer, &item.received, outcome, told);
                    }
                    finished.push(self.finish(item.ticket, outcome));
                }
                Decision::Deliver(effects) if self.must_be_compared(&item, &effects, now) => {
                    let detail = "no database tells whether it was settled".to_owned();
                    let cause = Cause {
                        policy: true,
                        ..Cause::new(NEEDS_EFFECTS_CHECK, detail)
                    };
                    dead.push((item, cause));
                }
                Decision::Deliver(effects) => {
                    let (first, second) = effects.into_parts();
                    let Some(second) = second else {
                        pending.push(Pending { item, effect: first });
                        continue;
                    };
                    let item = Item {
                        ticket: item.ticket.of_parts(2),
                        ..item
                    };
                    pending.extend(
                        [(item.clone(), first), (item, *second)].map(|(item, effect)| Pending { item, effect }),
                    );
                }
                Decision::Refuse(refusal) => dead.push((item, Cause::from(refusal))),
                Decision::RefuseIfKnown(refusal, key) => {
                    let cause = Cause {
                        if_known: Some(key),
                        ..Cause::from(refusal)
                    };
                    dead.push((item, cause));
                }
            }
        }
        // What follows waits for others.
        drop(stage);
        self.shared.write_down(notes).await;
        self.report(finished).await;
        for (item, cause) in dead {
            self.bury(item, None, cause).await;
        }
        (pending, unknown)
    }

    /// Whether a policy sets this aside: nothing shows that it is new, and there is no database to compare it with.
    fn must_be_compared(&self, item: &Item, effects: &Effects, now: Timestamp) -> bool {
        let (ports, change) = (&self.shared.ports, &item.received.change);
        ports.old_records == OldRecords::DeadLetter
            && ports.ledger.is_none()
            && !self.shared.replay.is_forced()
            && effects
                .iter()
                .any(|effect| needs_effects_check(effect, change.op, change.commit_ms, now.as_millisecond()))
    }

    /// What is decided, on its way through the targets.
    async fn bring_home(&mut self, pending: Vec<Pending>) {
        if self.shared.is_shadow() {
            return self.write_down(pending).await;
        }
        let pending = self.parked.keep_back(pending);
        if pending.is_empty() {
            return;
        }
        let (pending, repeats) = set_repeats_aside(pending);
        let pending = self.claim(pending).await;
        if Planted::ConfirmBeforeDelivery.is_planted() {
            let keys: Vec<ClaimKey> = pending.iter().map(|pending| pending.effect.claim.clone()).collect();
            let _too_early = self.shared.ports.dedupe.confirm(&keys).await;
        }
        for groups in waves(pending) {
            self.deliver(groups).await;
        }
        // What they repeat has its end now, or was set aside, and they wait behind it, or it is not ours any more, and
        // neither are they.
        let repeats = self.parked.keep_back(repeats).into_iter();
        let duplicates = repeats.map(|repeat| self.finish(repeat.item.ticket, Outcome::Duplicate));
        self.report(duplicates.collect()).await;
    }

    /// Keeps what is ours to deliver; what is done already is finished. A foreign lease is waited for, once and at most
    /// as long as a lease lives, and then delivered all the same: skipping it could lose it.
    async fn claim(&self, pending: Vec<Pending>) -> Vec<Pending> {
        let mut stage = self.stage(Stage::Claim, pending.len());
        let lease = self.shared.ports.dedupe.lease();
        let mut undecided = pending;
        let mut ours = Vec::new();
        for look in 0..=LEASE_LOOKS {
            if look > 0 {
                self.shared.wait(lease / LEASE_LOOKS).await;
            }
            let claims;
            (undecided, claims) = self.ask(undecided, &mut stage).await;
            if ours.is_empty() && claims.iter().all(|claim| *claim == Claim::Granted) {
                return undecided;
            }
            let (mut finished, mut foreign) = (Vec::new(), Vec::new());
            for (pending, claim) in undecided.into_iter().zip(claims) {
                match claim {
                    Claim::Granted => ours.push(pending),
                    Claim::Done => {
                        if finished.is_empty() {
                            self.shared.tell_of(self.consumer, &pending, Outcome::Duplicate);
                        }
                        finished.push(self.finish(pending.item.ticket, Outcome::Duplicate));
                    }
                    Claim::Foreign if Planted::ClaimIsDone.is_planted() => {
                        finished.push(self.finish(pending.item.ticket, Outcome::Duplicate));
                    }
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
    async fn ask(&self, mut pending: Vec<Pending>, stage: &mut Option<StageSpan>) -> (Vec<Pending>, Vec<Claim>) {
        let mut backoff = Backoff::default();
        loop {
            pending.retain(|pending| pending.item.ticket.epoch.is_live());
            if pending.is_empty() {
                return (pending, Vec::new());
            }
            let keys: Vec<ClaimKey> = pending.iter().map(|pending| pending.effect.claim.clone()).collect();
            match self.shared.ports.dedupe.claim(&keys).await {
                Ok(claims) => {
                    self.shared.ports.telemetry.claimed(self.consumer, &claims);
                    self.shared.standstills.end(self.consumer, Target::Dedupe);
                    return (pending, claims);
                }
                Err(error) => self.wait_for_store(&error, &mut backoff, stage).await,
            }
        }
    }

    /// Delivers the newest of each group.
    async fn deliver(&mut self, groups: Vec<Group>) {
        let shared = Arc::clone(&self.shared);
        let mut delivery = Delivery::of(self.consumer, &shared, self.batch.clone(), groups);
        while let Some((groups, fate)) = delivery.next(|group| self.parked.holds_back(group)).await {
            match fate {
                Fate::Unknown { target, detail } => {
                    tracing::error!(consumer = self.consumer.name(), detail, "unknown answer: event held");
                    shared.tell_wrong(self.consumer.name(), target.name(), &detail);
                    for group in groups {
                        let puzzle = Puzzle { group, attempts: 1 };
                        self.parked.add_puzzle(puzzle, &shared.ports.randomness);
                    }
                }
                fate => self.meet(groups, fate).await,
            }
        }
        delivery.teach(&mut self.fit);
    }

    /// Tries again what got an unknown answer. It becomes a dead letter only after enough attempts while the target took
    /// what else came: an outage never counts. Nothing else need come meanwhile: this lane may be what keeps it from coming.
    async fn try_puzzles(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut got_through = false;
        for _ in 0..self.parked.puzzles().min(MAX_ROUND) {
            let Some(Puzzle { group, mut attempts }) = self.parked.take_puzzle() else {
                break;
            };
            let mut delivery = Delivery::again(self.consumer, &shared, self.batch.clone(), group);
            while let Some((groups, fate)) = delivery.next(|_| false).await {
                let fate = match fate {
                    Fate::Unknown { target, detail } => {
                        attempts += u32::from(shared.is_accepting(target));
                        if attempts < UNKNOWN_ATTEMPTS {
                            for group in groups {
                                self.parked.put_back(Puzzle { group, attempts });
                            }
                            continue;
                        }
                        Fate::Rejected {
                            reason: "unknown_answer",
                            detail,
                        }
                    }
                    fate => fate,
                };
                got_through |= fate == Fate::Accepted;
                self.parked.solved();
                self.meet(groups, fate).await;
            }
        }
        self.parked.tried(got_through, &shared.ports.randomness);
    }

    /// What a fate means for its groups.
    async fn meet(&mut self, groups: Vec<Group>, fate: Fate) {
        match fate {
            Fate::Accepted => self.confirm(groups).await,
            Fate::Abandoned => drop(groups),
            Fate::Behind | Fate::Unknown { .. } => groups.into_iter().for_each(|group| self.parked.wait_all(group)),
            Fate::Rejected { reason, detail } => {
                for Group { newest, older, .. } in groups {
                    let Pending { item, effect } = newest;
                    self.bury(item, Some(effect.key), Cause::new(reason, detail.clone()))
                        .await;
                    // The newest was rejected: the one before it is the newest now, once the letter is written.
                    self.parked.wait_all(older);
                }
            }
        }
    }

    /// Marks everything the accepted events cover as done, then reports it finished. While the store is away the records
    /// are held; nothing is sent again.
    async fn confirm(&self, groups: Vec<Group>) {
        let all = groups.iter().map(|group| group.older.len() + 1).sum();
        let mut stage = self.stage(Stage::Settle, all);
        let now_ms = self.shared.ports.clock.now_ms();
        let (mut keys, mut finished) = (Vec::with_capacity(all), Vec::with_capacity(all));
        let mut is_told = false;
        // Oldest first: where the pipeline of commands is cut short, an older change is never left open behind a
        // newer one that is done. Nobody can have to dead-letter these any more: their bytes go here, however long the
        // store takes.
        for Group { newest, older, .. } in groups {
            let lag_ms = now_ms.saturating_sub(newest.change().commit_ms);
            let lag = Duration::from_millis(lag_ms.try_into().unwrap_or(0));
            self.shared.ports.telemetry.accepted(self.consumer, lag);
            if !is_told {
                self.shared.tell_of(self.consumer, &newest, Outcome::Delivered);
                is_told = true;
            }
            let mut finish = |member: Pending, outcome| {
                keys.push(member.effect.claim);
                finished.push(self.finish(member.item.ticket, outcome));
            };
            older.into_iter().for_each(|member| finish(member, Outcome::Superseded));
            finish(newest, Outcome::Delivered);
        }
        let mut backoff = Backoff::default();
        while let Err(error) = self.shared.ports.dedupe.confirm(&keys).await {
            self.wait_for_store(&error, &mut backoff, &mut stage).await;
            if !finished.iter().any(|finished| finished.ticket.epoch.is_live()) {
                return;
            }
        }
        self.shared.standstills.end(self.consumer, Target::Dedupe);
        self.report(finished).await;
    }

    async fn wait_for_store(&self, error: &DedupeError, backoff: &mut Backoff, stage: &mut Option<StageSpan>) {
        let disposition = Disposition::of_dedupe(error);
        met(stage, &disposition);
        self.shared
            .wait_for(self.consumer, Target::Dedupe, disposition, backoff)
            .await;
        self.shared.await_turn(self.consumer, Target::Dedupe).await;
    }

    /// Hands a record to the undertaker. Its row, and its fact if there is one, wait until the letter is written.
    pub(super) async fn bury(&mut self, item: Item, key: Option<EffectKey>, cause: Cause) {
        if let Some(batch) = &self.batch {
            batch.failed(cause.reason);
        }
        let letter = self.parked.expect_letter(&item, key);
        let dead = Dead {
            body: Body::Row(item.received),
            ticket: item.ticket,
            cause,
            tell: Some(Tell {
                lane: self.tell.clone(),
                letter,
            }),
            logged: tracing::Span::current(),
        };
        // The pipeline is gone only when the process is going: nothing is committed then.
        let _gone = self.undertaker.send(dead).await;
    }

    pub(super) fn finish(&self, ticket: Ticket, outcome: Outcome) -> Finished {
        Finished {
            ticket,
            consumers: ConsumerSet::only(self.consumer),
            outcome,
        }
    }

    pub(super) async fn report(&self, finished: Vec<Finished>) {
        if !finished.is_empty() {
            let queue = Queue::Consumer(self.consumer);
            self.shared.halts.ended(queue, finished.len());
            // The pipeline is gone only when the process is going: nothing is committed then.
            let _gone = self.finished.send(finished).await;
        }
    }
}
