//! The simulated Inngest: takes events, knows an id for a day, runs what `workflows` runs: apply, sleep until due, settle.
//!
//! Steps are executed at least once, in any order, as the schedule says; a step whose answer is lost is executed again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crm_event_processors::planted::Planted;
use serde::Deserialize;
use serde_json::Value;

use super::database::Database;
use super::world::{Trouble, World};

const DAY_MS: i64 = 24 * 3_600_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Apply,
    Settle,
    Grant,
    Code,
}

#[derive(Clone, Debug)]
struct Run {
    id: String,
    step: Step,
    data: Arc<Value>,
    wake_ms: i64,
    tries: u32,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<String, i64>,
    runs: Vec<Run>,
    /// Effects whose run never began, was cancelled or died: the nets' to find.
    abandoned: std::collections::BTreeSet<String>,
}

#[derive(Deserialize)]
struct Sent {
    id: String,
    name: String,
    data: Value,
}

pub(super) struct Executor {
    world: Arc<World>,
    pub(super) database: Arc<Mutex<Database>>,
    state: Mutex<State>,
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Inngest takes no event of such a purchase.
pub(super) fn is_wrong_for_ever(purchase: &str) -> bool {
    purchase.starts_with('x')
}

impl Executor {
    pub(super) fn new(world: Arc<World>, database: Arc<Mutex<Database>>) -> Self {
        Self {
            world,
            database,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Database) -> T) -> T {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.now_ms = self.world.now_ms();
        work(&mut database)
    }

    /// Accepts one event; gives its id, or nothing if it is wrong for ever.
    pub(super) fn accept(&self, event: &[u8], chaos: bool) -> Option<String> {
        let sent: Sent = serde_json::from_slice(event).ok()?;
        if is_wrong_for_ever(text(&sent.data, "purchase_id")) {
            return None;
        }
        let now_ms = self.world.now_ms();
        let state = &mut *self.state();
        let first = state.seen.get(&sent.id).copied().filter(|at| now_ms - at < DAY_MS);
        self.world
            .tell(format_args!("accepted {} again={}", sent.id, first.is_some()));
        if first.is_some() {
            return Some(sent.id);
        }
        state.seen.insert(sent.id.clone(), now_ms);
        let step = match sent.name.as_str() {
            "loyalty/award.scheduled" | "loyalty/award.cancelled" => Step::Apply,
            "loyalty/reward.granted" | "loyalty/reward.revoked" => Step::Grant,
            "loyalty/code.redeemed" => Step::Code,
            // What is announced is told to the application; nothing settles it.
            _ => return Some(sent.id),
        };
        let as_of = |data: &Value| data.get("as_of_ms").and_then(Value::as_i64).unwrap_or(0);
        let purchase = text(&sent.data, "purchase_id").to_owned();
        if step == Step::Apply {
            // `cancelOn`: a newer change ends a sleeping run.
            let (before, newest) = (state.runs.len(), as_of(&sent.data));
            let is_older = |run: &Run| {
                text(&run.data, "purchase_id") == purchase && as_of(&run.data) < newest && run.wake_ms > now_ms
            };
            state.runs.retain(|run| !is_older(run));
            if state.runs.len() < before {
                self.world.fault("run:cancelled");
                state.abandoned.insert(text(&sent.data, "effect_key").to_owned());
            }
        }
        let run = Run {
            id: sent.id.clone(),
            step,
            data: Arc::new(sent.data),
            wake_ms: now_ms,
            tries: 0,
        };
        if chaos && self.world.die(100) < 2 {
            self.world.fault("run:never");
            state.abandoned.insert(text(&run.data, "effect_key").to_owned());
            return Some(sent.id);
        }
        if chaos && self.world.die(100) < 3 {
            self.world.fault("run:twice");
            state.runs.push(run.clone());
        }
        state.runs.push(run);
        Some(sent.id)
    }

    /// When the next sleeping run wakes, or the sweeper finds what has no run.
    pub(super) fn next_wake_ms(&self) -> Option<i64> {
        let swept = self.with(|database| database.next_sweep_ms());
        self.state().runs.iter().map(|run| run.wake_ms).chain(swept).min()
    }

    /// One step of some run that is ready. False if there is none.
    pub(super) fn step(&self) -> bool {
        let now_ms = self.world.now_ms();
        let mut run = {
            let state = &mut *self.state();
            let ready: Vec<usize> = (0..state.runs.len())
                .filter(|index| state.runs.get(*index).is_some_and(|run| run.wake_ms <= now_ms))
                .collect();
            let Some(chosen) = self.world.pick(&ready) else {
                return false;
            };
            state.runs.swap_remove(*chosen)
        };
        let key = text(&run.data, "effect_key").to_owned();
        let answer = self.world.step(|| {
            self.with(|database| match run.step {
                Step::Apply => database.apply_award(&run.data),
                Step::Settle => self.settle(database, &key),
                Step::Grant => database.settle_grant(&run.data),
                Step::Code => database.settle_code(&run.data),
            })
        });
        self.world.tell(format_args!(
            "{} {:?} {:?}",
            run.id,
            run.step,
            answer.as_ref().map(Value::to_string)
        ));
        let goes_on = match (&answer, run.step) {
            (Err(trouble), _) => {
                run.tries += u32::from(*trouble == Trouble::Lost && run.step == Step::Apply);
                run.wake_ms = now_ms + 1_000;
                true
            }
            (Ok(answer), Step::Apply) => {
                let outcome = text(answer, "outcome");
                let is_found_applied = outcome == "unchanged" && run.tries > 0;
                run.step = Step::Settle;
                run.wake_ms = answer
                    .get("due_ms")
                    .and_then(Value::as_i64)
                    .unwrap_or(now_ms)
                    .max(now_ms);
                matches!(outcome, "applied" | "unchanged")
                    && !(is_found_applied && Planted::LostAnswerEndsRun.is_planted())
            }
            (Ok(answer), Step::Settle) if text(answer, "outcome") == "not_due" => {
                run.wake_ms = now_ms + 60_000;
                // Due later by newer rules: whoever applied it waits for it.
                self.with(|database| {
                    let due = database.effects.get(&key).and_then(|effect| effect.due);
                    due.is_some_and(|due| due.as_millisecond() - now_ms < 300_000)
                })
            }
            (Ok(_), _) => false,
        };
        // A newer change has its own run, or will have.
        let is_overtaken = matches!(
            answer.as_ref().map(|answer| text(answer, "outcome")),
            Ok("stale" | "outdated")
        );
        let state = &mut *self.state();
        if goes_on {
            state.runs.push(run);
        } else {
            let runs = state.runs.iter().any(|other| text(&other.data, "effect_key") == key);
            let is_pending = self.with(|database| {
                let effect = database.effects.get(&key)?;
                let (table, id) = effect.source.clone()?;
                let row = database.rows.get(&(table, id))?;
                Some(effect.state == "pending" && effect.basis == row.basis)
            });
            if is_pending == Some(true) && !is_overtaken && !runs && !state.abandoned.contains(&key) {
                self.world
                    .violated(format!("the run of {} ended, and {key} is pending", run.id));
            }
        }
        true
    }

    /// A sweep: what is overdue is settled.
    pub(super) fn sweep(&self) {
        let Ok(keys) = self.world.step(|| self.with(Database::due_effects)) else {
            return;
        };
        for key in keys {
            let answer = self.world.step(|| self.with(|database| self.settle(database, &key)));
            self.world.tell(format_args!(
                "swept {key} {:?}",
                answer.map(|answer| answer.to_string())
            ));
        }
    }

    /// What is settled is settled on the row as it is.
    fn settle(&self, database: &mut Database, key: &str) -> Value {
        let answer = database.settle(key);
        let effect = database.effects.get(key);
        let row = effect.and_then(|effect| database.rows.get(effect.source.as_ref()?));
        let is_current = effect.map(|effect| &effect.basis) == row.map(|row| &row.basis);
        if text(&answer, "outcome") == "settled" && !is_current {
            self.world
                .violated(format!("{key} was settled on a state that its row has left"));
        }
        answer
    }
}
