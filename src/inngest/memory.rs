//! Inngest in memory, for tests: the port without a socket.
//!
//! Takes events, accepts them in order and records them as they would have been sent. It fails when a test scripts it, or
//! when an event is poisoned; as in Inngest, what stood before the culprit is accepted. [`super::receiver`] is the
//! same behind a socket.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::recorded::{Log, Recorded};
use super::{Answer, Deliver, EventBatch, Limits};
use crate::faults::{Gate, Script};

/// Accepts and records.
#[derive(Debug, Default)]
pub struct MemoryDeliver {
    limits: Limits,
    accepted: Log,
    faults: Script<Fault>,
    poison: Mutex<Vec<String>>,
    /// What a request meets if the id of one of its events contains this text.
    troubles: Mutex<Vec<(String, Answer)>>,
    requests: AtomicUsize,
    /// How long a permit takes.
    pace: Mutex<Duration>,
}

/// What one request meets.
#[derive(Debug)]
pub enum Fault {
    /// This answer, nothing accepted.
    Answer(Answer),
    /// Everything accepted, but the answer is lost.
    AcceptThenFail,
    /// The first `n` accepted, then 400.
    AcceptPrefixThenReject { n: usize },
    /// Stops before it accepts, until the test releases the gate.
    Hold(Gate),
    /// Takes that long, then behaves well.
    Slow(Duration),
}

/// An event's bytes, read back: the record shows what would have been sent.
#[derive(Deserialize)]
struct Sent {
    id: String,
    name: String,
    ts: i64,
    data: serde_json::Value,
}

impl MemoryDeliver {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Every accepted event, in order.
    #[must_use]
    pub fn accepted(&self) -> &Log {
        &self.accepted
    }

    /// What the next requests meet.
    #[must_use]
    pub fn faults(&self) -> &Script<Fault> {
        &self.faults
    }

    /// From now on an event whose id contains this text makes its request a 400.
    pub fn poison(&self, part_of_id: &str) {
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.push(part_of_id.to_owned());
    }

    /// From now on an event whose id contains this text makes its request end in an answer that nobody knows.
    pub fn puzzle(&self, part_of_id: &str) {
        let answer = Answer::Unknown {
            status: 418,
            detail: "puzzled".to_owned(),
        };
        self.trouble(part_of_id, answer);
    }

    /// From now on, and until [`MemoryDeliver::relent`], an event whose id contains this text makes its request end in
    /// this answer, nothing accepted. An id begins with the consumer's name.
    pub fn trouble(&self, part_of_id: &str, answer: Answer) {
        self.troubles().push((part_of_id.to_owned(), answer));
    }

    /// From now on a request waits so long for its permit.
    pub fn pace(&self, wait: Duration) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    /// No puzzles and no troubles any more.
    pub fn relent(&self) {
        self.troubles().clear();
    }

    /// How many requests came, answered or not.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn answer(&self, events: &[&[u8]]) -> Answer {
        self.requests.fetch_add(1, Ordering::SeqCst);
        match self.faults.next() {
            None => {}
            Some(Fault::Answer(answer)) => return answer,
            Some(Fault::AcceptThenFail) => {
                return match self.accept(events) {
                    Ok(()) => lost(),
                    Err(rejected) => rejected,
                };
            }
            Some(Fault::AcceptPrefixThenReject { n }) => {
                let prefix = events.get(..n).unwrap_or(events);
                return match self.accept(prefix) {
                    Ok(()) => rejected(400, "scripted"),
                    Err(rejected) => rejected,
                };
            }
            Some(Fault::Hold(gate)) => gate.pass().await,
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        }
        if events.is_empty() || events.len() > self.limits.max_events {
            return rejected(413, "an empty request, or one above the limits");
        }
        if let Some(trouble) = events.iter().find_map(|event| self.trouble_with(event)) {
            return trouble;
        }
        match self.accept(events) {
            Ok(()) => Answer::Accepted,
            Err(rejected) => rejected,
        }
    }

    /// One after the other; the first bad one ends it, and the earlier ones stay accepted.
    fn accept(&self, events: &[&[u8]]) -> Result<(), Answer> {
        for event in events {
            match serde_json::from_slice::<Sent>(event) {
                Ok(sent) if self.is_poisoned(&sent.id) => return Err(rejected(400, "poisoned")),
                Ok(Sent { id, name, ts, data }) => self.accepted.push(Recorded {
                    id,
                    name,
                    ts_ms: ts,
                    data,
                }),
                Err(error) => return Err(rejected(400, &error.to_string())),
            }
        }
        Ok(())
    }

    fn trouble_with(&self, event: &[u8]) -> Option<Answer> {
        let sent = serde_json::from_slice::<Sent>(event).ok()?;
        let troubles = self.troubles();
        let met = troubles.iter().find(|(part, _)| sent.id.contains(part.as_str()));
        met.map(|(_, answer)| answer.clone())
    }

    fn troubles(&self) -> MutexGuard<'_, Vec<(String, Answer)>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_poisoned(&self, id: &str) -> bool {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.iter().any(|part| id.contains(part.as_str()))
    }
}

impl Deliver for MemoryDeliver {
    fn permit(&self) -> BoxFuture<'_, ()> {
        let wait = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if wait.is_zero() {
            // Not even a timer, which would yield.
            return std::future::ready(()).boxed();
        }
        tokio::time::sleep(wait).boxed()
    }

    fn send<'a>(&'a self, batch: &'a EventBatch, events: std::ops::Range<usize>) -> BoxFuture<'a, Answer> {
        async move {
            let events: Vec<&[u8]> = events.map(|index| batch.event(index)).collect();
            self.answer(&events).await
        }
        .boxed()
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

fn lost() -> Answer {
    Answer::Unavailable {
        detail: "the answer was lost".to_owned(),
        retry_after: None,
    }
}

fn rejected(status: u16, detail: &str) -> Answer {
    Answer::Rejected {
        status,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inngest::samples::{self, events};

    fn ids(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|row| samples::id(row)).collect()
    }

    #[tokio::test]
    async fn what_is_accepted_is_recorded_in_order_as_it_would_be_sent() {
        let inngest = MemoryDeliver::default();
        assert_eq!(samples::send(&inngest, &events(&["a", "b"])).await, Answer::Accepted);
        inngest.accepted().wait_for(2).await;
        assert_eq!(inngest.accepted().ids(), ids(&["a", "b"]));
        assert_eq!(inngest.accepted().all()[0].ts_ms, samples::TS_MS);
    }

    #[tokio::test]
    async fn a_scripted_answer_accepts_nothing() {
        let inngest = MemoryDeliver::default();
        let refused = Answer::Refused {
            status: 401,
            detail: "key".to_owned(),
        };
        inngest.faults().push(Fault::Answer(refused.clone()));
        assert_eq!(samples::send(&inngest, &events(&["a"])).await, refused);
        assert!(inngest.accepted().is_empty());
        assert_eq!(inngest.requests(), 1);
    }

    #[tokio::test]
    async fn a_lost_answer_has_accepted_and_the_repeat_is_recorded_again() {
        let inngest = MemoryDeliver::default();
        inngest.faults().push(Fault::AcceptThenFail);
        let batch = events(&["a"]);
        assert!(matches!(
            samples::send(&inngest, &batch).await,
            Answer::Unavailable { .. }
        ));
        assert_eq!(samples::send(&inngest, &batch).await, Answer::Accepted);
        assert_eq!((inngest.accepted().len(), inngest.accepted().distinct()), (2, 1));
    }

    #[tokio::test]
    async fn what_stands_before_a_bad_event_is_accepted() {
        let inngest = MemoryDeliver::default();
        inngest.faults().push(Fault::AcceptPrefixThenReject { n: 2 });
        let answer = samples::send(&inngest, &events(&["a", "b", "c"])).await;
        assert!(matches!(answer, Answer::Rejected { status: 400, .. }));
        assert_eq!(inngest.accepted().ids(), ids(&["a", "b"]));

        inngest.poison(":bad:");
        for _ in 0..2 {
            let answer = samples::send(&inngest, &events(&["d", "bad", "e"])).await;
            assert!(matches!(answer, Answer::Rejected { status: 400, .. }));
        }
        assert_eq!(inngest.accepted().ids(), ids(&["a", "b", "d", "d"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_request_accepts_only_when_it_is_released() {
        let inngest = MemoryDeliver::default();
        let gate = Gate::default();
        inngest.faults().push(Fault::Hold(gate.clone()));
        inngest.faults().push(Fault::Slow(Duration::from_secs(9)));
        let batch = events(&["a"]);
        let test = async {
            gate.arrived().await;
            assert!(inngest.accepted().is_empty());
            gate.release();
        };
        let (answer, ()) = tokio::join!(samples::send(&inngest, &batch), test);
        assert_eq!(answer, Answer::Accepted);
        let before = tokio::time::Instant::now();
        assert_eq!(samples::send(&inngest, &batch).await, Answer::Accepted);
        assert_eq!(before.elapsed(), Duration::from_secs(9));
    }
}
