//! The old-record check: takes what a lane has decided, gives what must still be delivered.
//!
//! What no change proves to be new (a snapshot row, an old record, an update without its old image) is compared with the
//! table `effects`, one query a batch. So a snapshot of a million rows delivers the missed ones and no others. Without a
//! database nothing is compared: whoever settles must be idempotent. It never delivers.

use std::collections::VecDeque;

use super::backoff::Backoff;
use super::evaluation::Call;
use super::item::{Pending, is_older_state};
use super::lane::Lane;
use super::outcome::{Disposition, Outcome, UNKNOWN_ATTEMPTS};
use super::shadowing::SUPERSEDED;
use super::standstill::Target;
use super::traced::met;
use super::undertaker::Cause;
use crate::consumers::{Effect, Proof, Reason, needs_effects_check};
use crate::postgres::Standing;
use crate::telemetry::Stage;

impl Lane {
    /// What is done already is finished; the rest comes back in its order.
    pub(super) async fn compare(&mut self, pending: Vec<Pending>) -> Vec<Pending> {
        let Some(ledger) = self.shared.ports.ledger.clone() else {
            return pending;
        };
        let (asked, mut kept) = self.part(pending);
        let all = asked.len();
        let mut stage = self.stage(Stage::Compare, all);
        // What the largest part was that it answered, once it had not answered a larger one.
        let mut fitted = None;
        let (mut parts, mut answered) = (VecDeque::from([asked]), Vec::new());
        // The attempts are those of one record whose comparison nobody understands.
        let (mut backoff, mut attempts, mut is_again) = (Backoff::default(), 0, false);
        while let Some(mut part) = parts.pop_front() {
            part.retain(|pending| pending.item.ticket.epoch.is_live());
            if part.is_empty() {
                continue;
            }
            self.shared.await_turn(self.consumer, Target::Database).await;
            let effects: Vec<&Effect> = part.iter().map(|pending| &pending.effect).collect();
            let compared = self
                .shared
                .call(self.consumer, "compare_effects", ledger.compare(&effects))
                .await;
            let error = match compared {
                Ok(standings) => {
                    self.shared.note(Target::Database, &Disposition::Proceed, false);
                    fitted = fitted.map(|most: usize| most.max(part.len()));
                    answered.extend(part.into_iter().zip(standings));
                    continue;
                }
                Err(error) => error,
            };
            let disposition = Disposition::of_ledger(&error);
            met(&mut stage, &disposition);
            self.shared.note(Target::Database, &disposition, is_again);
            if part.len() > 1 && matches!(disposition, Disposition::Hold { .. }) {
                fitted = fitted.or(Some(0));
            }
            match disposition {
                Disposition::Bisect { .. } | Disposition::Hold { .. } if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.push_front(second);
                    parts.push_front(part);
                }
                Disposition::Bisect { reason, detail } => {
                    self.bury_all(part, &Cause::new(reason, detail)).await;
                }
                // Alone, it must not hold up the others. Delivered uncompared it does no harm: whoever settles compares once more.
                Disposition::Hold { detail }
                    if part.iter().all(|one| !matches!(one.effect.proof, Proof::IfKnown(_))) =>
                {
                    tracing::error!(
                        consumer = self.consumer.name(),
                        detail,
                        "unknown answer: delivered uncompared"
                    );
                    kept.append(&mut part);
                }
                // An old one cannot go uncompared: it may be none of ours. An outage does not count against it.
                Disposition::Hold { detail } if attempts + 1 >= UNKNOWN_ATTEMPTS => {
                    (attempts, is_again) = (0, false);
                    self.bury_all(part, &Cause::new("unknown_answer", detail)).await;
                }
                other => {
                    if matches!(other, Disposition::Hold { .. }) {
                        attempts += u32::from(self.shared.is_accepting(Target::Database));
                        is_again = true;
                    }
                    self.shared
                        .wait_for(self.consumer, Target::Database, other, &mut backoff)
                        .await;
                    parts.push_front(part);
                }
            }
        }
        drop(stage);
        if let Some(most) = fitted {
            self.fit.tried(most, all);
        }
        if answered.is_empty() {
            return kept;
        }
        self.finish_settled(answered, kept).await
    }

    /// What is asked about, and what is proven by itself.
    fn part(&self, pending: Vec<Pending>) -> (Vec<Pending>, Vec<Pending>) {
        let now_ms = self.shared.ports.clock.now_ms();
        let is_forced = self.shared.replay.is_forced();
        let is_asked = |pending: &Pending| {
            let (effect, change) = (&pending.effect, pending.change());
            matches!(effect.proof, Proof::IfKnown(_))
                || (!is_forced
                    && is_compared(effect)
                    && needs_effects_check(effect, change.op, change.commit_ms, now_ms))
        };
        pending.into_iter().partition(is_asked)
    }

    async fn bury_all(&mut self, part: Vec<Pending>, cause: &Cause) {
        for Pending { item, effect } in part {
            self.bury(item, Some(effect.key), cause.clone()).await;
        }
    }

    /// What is settled is finished, and covers older states in hand.
    async fn finish_settled(&self, answered: Vec<(Pending, Standing)>, mut kept: Vec<Pending>) -> Vec<Pending> {
        let mut finished = Vec::new();
        let mut is_told = false;
        let mut notes = self.shared.notes();
        for (pending, standing) in answered {
            let Some(reason) = is_done(&pending.effect, standing) else {
                kept.push(pending);
                continue;
            };
            if standing == Standing::Equal && pending.effect.state_like {
                // The newest state is settled: the older ones in hand are no news.
                let is_covered =
                    |member: &Pending| member.effect.key == pending.effect.key && is_before(member, &pending);
                for covered in kept.extract_if(.., |member| is_covered(member)) {
                    notes.ignored(self.consumer, &covered.item, SUPERSEDED, Some(&covered.effect));
                    finished.push(self.finish(covered.item.ticket, Outcome::Superseded));
                }
            }
            notes.ignored(self.consumer, &pending.item, reason.as_str(), Some(&pending.effect));
            if !is_told {
                let (outcome, told) = (Outcome::Ignored(reason), Some(reason.as_str()));
                self.shared.tell(self.consumer, &pending.item.received, outcome, told);
                is_told = true;
            }
            finished.push(self.finish(pending.item.ticket, Outcome::Ignored(reason)));
        }
        self.shared.write_down(notes).await;
        self.report(finished).await;
        kept.sort_by_key(|pending| (pending.item.ticket.place, pending.item.ticket.seq));
        kept
    }
}

/// What the database evaluates is compared there, by the call itself.
const fn is_compared(effect: &Effect) -> bool {
    Call::of(effect).is_none()
}

/// Why there is nothing to do, if there is not.
fn is_done(effect: &Effect, standing: Standing) -> Option<Reason> {
    if let Proof::IfKnown(_) = effect.proof {
        if standing == Standing::Absent {
            return Some(Reason::BeforeCutOff);
        }
        if !is_compared(effect) {
            return None;
        }
    }
    match standing {
        Standing::Equal => Some(Reason::InEffects),
        Standing::Absent | Standing::Zero if effect.fact().target == 0 => Some(Reason::ZeroInEffects),
        Standing::Absent | Standing::Zero | Standing::Differs => None,
    }
}

/// Whether `member` was received before `pending` and is no newer state of the row.
fn is_before(member: &Pending, pending: &Pending) -> bool {
    let place = |pending: &Pending| (pending.item.ticket.place, pending.item.ticket.seq);
    place(member) < place(pending) && !is_older_state(pending, member)
}
