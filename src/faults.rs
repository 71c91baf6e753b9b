//! Scripted faults for the fakes that live beside the real adapters.
//!
//! Takes what the next calls of a port shall do, first in first out, and gives it to the fake one call at a time.
//! [`Gate`] stops a call until the test lets it go. It never waits by the clock and never decides what a fault means.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What the next calls do, in order; a call that finds the script empty behaves well.
#[derive(Debug)]
pub struct Script<F>(Mutex<VecDeque<F>>);

/// Holds a call until the test releases it. Cloned into the script; the test keeps the other half.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl<F> Script<F> {
    /// Adds a fault behind those already scripted.
    pub fn push(&self, fault: F) {
        self.lock().push_back(fault);
    }

    /// What this call does.
    pub fn next(&self) -> Option<F> {
        self.lock().pop_front()
    }

    /// How many scripted faults no call has met yet.
    pub fn remaining(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Derived, it would ask for `F: Default`.
impl<F> Default for Script<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(GateState {
            arrived: watch::Sender::new(0),
            open: watch::Sender::new(false),
        }))
    }
}

impl Gate {
    /// Called by the fake: says that a call has arrived, and waits.
    pub async fn pass(&self) {
        self.0.arrived.send_modify(|count| *count += 1);
        // Cannot fail: the sender lives in `self`.
        let mut open = self.0.open.subscribe();
        let _opened = open.wait_for(|open| *open).await;
    }

    /// Called by the test: waits until a call stands before the gate.
    pub async fn arrived(&self) {
        let mut arrived = self.0.arrived.subscribe();
        let _counted = arrived.wait_for(|count| *count > 0).await;
    }

    /// Called by the test: lets every call through, now and later.
    pub fn release(&self) {
        self.0.open.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gate_holds_a_call_until_it_is_released() {
        let gate = Gate::default();
        let held = gate.clone();
        let call = tokio::spawn(async move { held.pass().await });
        gate.arrived().await;
        assert!(!call.is_finished());
        gate.release();
        call.await.expect("the call goes on");
        gate.pass().await;
    }

    #[test]
    fn faults_come_out_in_the_order_they_were_scripted() {
        let script = Script::default();
        script.push(1);
        script.push(2);
        assert_eq!(script.remaining(), 2);
        assert_eq!([script.next(), script.next(), script.next()], [Some(1), Some(2), None]);
    }
}
