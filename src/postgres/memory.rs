//! The database in memory, for tests: the port without a server.
//!
//! Takes effects, keeps what a test says is settled, counts missions, and writes announcements down until they are marked.
//! Tiers are upgraded when the test says so: it sums nothing up. It fails when a test scripts it, or when an effect is
//! poisoned. What the SQL functions do with awards is theirs; here nothing is booked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Announcement, Ledger, LedgerError, Standing};
use crate::consumers::{Consumer, Effect, EffectKey, Proof};
use crate::faults::{Gate, Script};
use crate::inngest::EventData;
use crate::rows::Row;

/// Answers as the functions of `schemas/postgres` do, as far as the pipeline can tell.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
    faults: Script<Fault>,
    troubles: Mutex<Vec<(String, LedgerError)>>,
}

/// What one call meets.
#[derive(Debug)]
pub enum Fault {
    /// This error, nothing done.
    Error(LedgerError),
    /// Done, but the answer is lost.
    DoThenFail,
    /// Stops before it does anything, until the test releases the gate.
    Hold(Gate),
    /// Takes that long, then behaves well.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct State {
    /// By effect key: what was settled, as [`settled_state`] writes it.
    settled: BTreeMap<String, String>,
    /// What was last asked about each key and not found equal, in the same words.
    asked: BTreeMap<String, String>,
    /// Members who reach a tier with their next evaluation.
    risers: BTreeSet<String>,
    /// By mission effect: what each source row counts.
    counts: BTreeMap<String, BTreeMap<String, Decimal>>,
    announcements: Vec<Written>,
    buried: Vec<(Consumer, String, String)>,
    /// By function: of how many effects each call was.
    calls: BTreeMap<&'static str, Vec<usize>>,
}

#[derive(Debug)]
struct Written {
    announcement: Announcement,
    announced: bool,
    rejected: bool,
}

impl MemoryLedger {
    /// What the next calls meet.
    #[must_use]
    pub fn faults(&self) -> &Script<Fault> {
        &self.faults
    }

    /// From now on a call with an effect whose key contains this text is rejected.
    pub fn poison(&self, part_of_key: &str) {
        self.trouble(part_of_key, LedgerError::Rejected("22003 poisoned".to_owned()));
    }

    /// From now on a call with an effect whose key contains this text ends in this error, nothing done.
    pub fn trouble(&self, part_of_key: &str, error: LedgerError) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.push((part_of_key.to_owned(), error));
    }

    /// Whatever was asked about and not found is settled just so.
    pub fn settle_what_was_asked(&self) {
        let state = &mut *self.state();
        state.settled.append(&mut state.asked);
    }

    /// Something is known of this key, and its target is zero.
    pub fn open(&self, key: &str) {
        self.state().settled.insert(key.to_owned(), String::new());
    }

    /// The member of this effect key reaches a tier with the next evaluation.
    pub fn let_rise(&self, key: &str) {
        self.state().risers.insert(key.to_owned());
    }

    /// How often a function was called, answered or not.
    #[must_use]
    pub fn calls(&self, name: &str) -> usize {
        self.sizes(name).len()
    }

    /// The same, each with how many effects it was of.
    #[must_use]
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.state().calls.get(name).cloned().unwrap_or_default()
    }

    /// Everything written down, in order, with whether it is marked as announced.
    #[must_use]
    pub fn announcements(&self) -> Vec<(String, bool)> {
        let state = self.state();
        let written = state.announcements.iter();
        written
            .map(|written| (written.announcement.id.to_string(), written.announced))
            .collect()
    }

    /// The announcements that will never be sent.
    #[must_use]
    pub fn rejected(&self) -> Vec<String> {
        let state = self.state();
        let rejected = state.announcements.iter().filter(|written| written.rejected);
        rejected.map(|written| written.announcement.id.to_string()).collect()
    }

    /// Consumer, row and reason of every dead letter it was told of.
    #[must_use]
    pub fn buried(&self) -> Vec<(Consumer, String, String)> {
        self.state().buried.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(
        &self,
        name: &'static str,
        keys: &[&str],
        does: impl FnOnce(&mut State) -> T,
    ) -> Result<T, LedgerError> {
        self.state().calls.entry(name).or_default().push(keys.len());
        let mut is_lost = false;
        match self.faults.next() {
            None => {}
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::DoThenFail) => is_lost = true,
            Some(Fault::Hold(gate)) => gate.pass().await,
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        }
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let met = |(part, _): &&(String, LedgerError)| keys.iter().any(|key| key.contains(part.as_str()));
        if let Some((_, error)) = troubles.iter().find(met) {
            return Err(error.clone());
        }
        let done = does(&mut self.state());
        if is_lost {
            return Err(LedgerError::Unavailable("the answer was lost".to_owned()));
        }
        Ok(done)
    }
}

impl State {
    fn write(&mut self, key: &str, name: &str, data: &serde_json::Value) {
        let number = self.announcements.len() + 1;
        let data = RawValue::from_string(data.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.announcements.push(Written {
            announcement: Announcement {
                id: format!("{key}:{number}").into(),
                effect_key: key.into(),
                name: name.into(),
                ts_ms: 0,
                data,
            },
            announced: false,
            rejected: false,
        });
    }

    /// What is still to be announced about these keys.
    fn unannounced(&self, keys: &BTreeSet<String>) -> Vec<Announcement> {
        let open = self.announcements.iter().filter(|written| {
            !written.announced && !written.rejected && keys.contains(&*written.announcement.effect_key)
        });
        open.map(|written| written.announcement.clone()).collect()
    }

    fn evaluate(&mut self, effects: &[&Effect]) -> Vec<Announcement> {
        let keys: BTreeSet<String> = effects.iter().map(|effect| effect.key.as_str().to_owned()).collect();
        for key in &keys {
            if self.risers.remove(key) {
                self.write(key, "loyalty/tier.upgraded", &json!({ "effect_key": key }));
            }
        }
        self.unannounced(&keys)
    }

    fn record(&mut self, effects: &[&Effect]) -> Vec<Announcement> {
        let mut keys = BTreeSet::new();
        for effect in effects {
            let EventData::MissionEvaluationRequested(evaluation) = &effect.event.data else {
                continue;
            };
            for share in &evaluation.missions {
                let key = share.effect_key.as_str().to_owned();
                let counts = self.counts.entry(key.clone()).or_default();
                let before = counts.insert(effect.key.as_str().to_owned(), share.counted);
                let progress: Decimal = counts.values().sum();
                if before.unwrap_or_default() != share.counted {
                    let data = json!({
                        "effect_key": key,
                        "progress": progress.to_string(),
                        "completed": progress >= share.target,
                    });
                    self.write(&key, "loyalty/mission.evaluated", &data);
                }
                keys.insert(key);
            }
        }
        self.unannounced(&keys)
    }
}

/// Basis, target and due time, as one text to be compared.
fn settled_state(effect: &Effect) -> String {
    serde_json::to_string(&effect.fact()).unwrap_or_default()
}

impl Ledger for MemoryLedger {
    fn compare<'a>(&'a self, effects: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Standing>, LedgerError>> {
        async move {
            let keys: Vec<&str> = effects.iter().map(|effect| effect.key.as_str()).collect();
            let standing = |state: &State, effect: &Effect| {
                let key = match &effect.proof {
                    Proof::IfKnown(key) => key,
                    Proof::Change | Proof::Nothing => &effect.key,
                };
                match state.settled.get(key.as_str()) {
                    None => Standing::Absent,
                    Some(settled) if settled.is_empty() => Standing::Zero,
                    Some(settled) if *settled == settled_state(effect) => Standing::Equal,
                    Some(_) => Standing::Differs,
                }
            };
            self.call("compare_effects", &keys, |state| {
                let standings: Vec<Standing> = effects.iter().map(|effect| standing(state, effect)).collect();
                for (effect, _) in effects
                    .iter()
                    .zip(&standings)
                    .filter(|(_, found)| **found != Standing::Equal)
                {
                    state
                        .asked
                        .insert(effect.key.as_str().to_owned(), settled_state(effect));
                }
                standings
            })
            .await
        }
        .boxed()
    }

    fn evaluate_tiers<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        async move {
            let keys: Vec<&str> = effects.iter().map(|effect| effect.key.as_str()).collect();
            self.call("evaluate_tiers", &keys, |state| state.evaluate(effects))
                .await
        }
        .boxed()
    }

    fn record_progress<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        async move {
            let keys: Vec<&str> = effects.iter().map(|effect| effect.key.as_str()).collect();
            self.call("record_progress", &keys, |state| state.record(effects)).await
        }
        .boxed()
    }

    fn announced<'a>(&'a self, ids: &'a [&'a str]) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            self.call("announced", &[], |state| {
                for written in &mut state.announcements {
                    written.announced |= ids.contains(&&*written.announcement.id);
                }
            })
            .await
        }
        .boxed()
    }

    fn announcement_rejected<'a>(&'a self, id: &'a str, _reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            self.call("announcement_rejected", &[], |state| {
                for written in &mut state.announcements {
                    written.rejected |= *written.announcement.id == *id;
                }
            })
            .await
        }
        .boxed()
    }

    fn knows<'a>(&'a self, key: &'a EffectKey) -> BoxFuture<'a, Result<bool, LedgerError>> {
        async move {
            self.call("knows", &[key.as_str()], |state| {
                state.settled.contains_key(key.as_str())
            })
            .await
        }
        .boxed()
    }

    fn bury<'a>(&'a self, consumer: Consumer, row: &'a Row, reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            self.call("mark_dead", &[], |state| {
                state
                    .buried
                    .push((consumer, row.id().as_str().to_owned(), reason.to_owned()));
            })
            .await
        }
        .boxed()
    }
}
