//! The dedupe store in memory: the twin of the Redis one for the demo and for tests.
//!
//! Takes the same keys, gives the same claims. Several handles with owners of their own may share one store, as several
//! processes share one Redis. Expiry follows `tokio::time`, so paused time works; expired keys are swept. It fails when a
//! test scripts it, and never otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Claim, ClaimKey, Dedupe, DedupeError};
use crate::faults::{Gate, Script};

/// What many handles share: the keys.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Keys>>);

/// One process's view of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryDedupe {
    store: MemoryStore,
    owner: Arc<str>,
    lease: Duration,
    window: Duration,
    claim_faults: Script<Fault>,
    confirm_faults: Script<Fault>,
}

/// What one call does instead of behaving well.
#[derive(Debug)]
pub enum Fault {
    /// Refused: nothing was written.
    Reject(DedupeError),
    /// Written, but the answer is lost.
    WriteThenFail,
    /// Stops before it writes, until the test releases the gate.
    Hold(Gate),
    /// Takes that long, then behaves well.
    Slow(Duration),
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Lease { owner: Arc<str> },
    Done,
}

#[derive(Debug, Default)]
struct Keys {
    // Not a hash map: two runs over the same input must be equal.
    entries: BTreeMap<ClaimKey, Entry>,
    sweep_at_len: usize,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    expires: Instant,
}

enum Fate {
    Answer,
    LoseAnswer,
}

const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
const SMALLEST_SWEEP: usize = 1024;

impl MemoryDedupe {
    /// A store of its own.
    #[must_use]
    pub fn new(owner: &str) -> Self {
        Self::shared(MemoryStore::default(), owner)
    }

    /// One more process on a store.
    #[must_use]
    pub fn shared(store: MemoryStore, owner: &str) -> Self {
        Self {
            store,
            owner: owner.into(),
            lease: DEFAULT_LEASE,
            window: DEFAULT_WINDOW,
            claim_faults: Script::default(),
            confirm_faults: Script::default(),
        }
    }

    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// What the next claims of this handle do.
    #[must_use]
    pub fn claim_faults(&self) -> &Script<Fault> {
        &self.claim_faults
    }

    /// What the next confirms of this handle do.
    #[must_use]
    pub fn confirm_faults(&self) -> &Script<Fault> {
        &self.confirm_faults
    }
}

impl Dedupe for MemoryDedupe {
    fn claim<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>> {
        async move {
            let fate = meet(&self.claim_faults).await?;
            let claims = self.store.claim(keys, &self.owner, self.lease);
            fate.answer(claims)
        }
        .boxed()
    }

    fn confirm<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async move {
            let fate = meet(&self.confirm_faults).await?;
            self.store.confirm(keys, self.window);
            fate.answer(())
        }
        .boxed()
    }

    fn lease(&self) -> Duration {
        self.lease
    }
}

impl MemoryStore {
    /// Forgets everything, as a Redis that was restarted without persistence.
    pub fn flush_all(&self) {
        self.lock().entries.clear();
    }

    /// Forgets the keys that this does not want to keep, as an eviction does.
    pub fn retain(&self, keep: impl Fn(&ClaimKey) -> bool) {
        self.lock().entries.retain(|key, _| keep(key));
    }

    /// What the key holds now.
    #[must_use]
    pub fn held(&self, key: &ClaimKey) -> Option<Held> {
        let now = Instant::now();
        let keys = self.lock();
        let entry = keys.entries.get(key).filter(|entry| entry.expires > now)?;
        Some(entry.held.clone())
    }

    /// Every key that is marked done now, in order.
    #[must_use]
    pub fn done(&self) -> Vec<ClaimKey> {
        let now = Instant::now();
        let keys = self.lock();
        let done = keys
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires > now && entry.held == Held::Done);
        done.map(|(key, _)| key.clone()).collect()
    }

    /// How many keys lie in memory, expired ones that are not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn claim(&self, keys: &[ClaimKey], owner: &Arc<str>, lease: Duration) -> Vec<Claim> {
        let now = Instant::now();
        let mut store = self.lock();
        store.sweep(now);
        keys.iter().map(|key| store.claim(key, owner, now, lease)).collect()
    }

    fn confirm(&self, keys: &[ClaimKey], window: Duration) {
        let now = Instant::now();
        let mut store = self.lock();
        store.sweep(now);
        for key in keys {
            store.put(key, Held::Done, now + window);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn claim(&mut self, key: &ClaimKey, owner: &Arc<str>, now: Instant, lease: Duration) -> Claim {
        match self.entries.get(key) {
            Some(entry) if entry.expires > now => match &entry.held {
                Held::Done => Claim::Done,
                // As in Redis, our own lease is not prolonged.
                Held::Lease { owner: holder } if holder == owner => Claim::Granted,
                Held::Lease { .. } => Claim::Foreign,
            },
            Some(_) | None => {
                let owner = Arc::clone(owner);
                self.put(key, Held::Lease { owner }, now + lease);
                Claim::Granted
            }
        }
    }

    fn put(&mut self, key: &ClaimKey, held: Held, expires: Instant) {
        let entry = Entry { held, expires };
        match self.entries.get_mut(key) {
            Some(old) => *old = entry,
            None => drop(self.entries.insert(key.clone(), entry)),
        }
    }

    /// Drops what has expired, each time the store has doubled: constant work a key, memory at most twice the live keys.
    fn sweep(&mut self, now: Instant) {
        if self.entries.len() < self.sweep_at_len.max(SMALLEST_SWEEP) {
            return;
        }
        self.entries.retain(|_, entry| entry.expires > now);
        self.sweep_at_len = self.entries.len() * 2;
    }
}

impl Fate {
    fn answer<T>(&self, value: T) -> Result<T, DedupeError> {
        match self {
            Self::Answer => Ok(value),
            Self::LoseAnswer => Err(DedupeError::Unavailable("the answer was lost".to_owned())),
        }
    }
}

async fn meet(script: &Script<Fault>) -> Result<Fate, DedupeError> {
    match script.next() {
        None => {}
        Some(Fault::Reject(error)) => return Err(error),
        Some(Fault::WriteThenFail) => return Ok(Fate::LoseAnswer),
        Some(Fault::Hold(gate)) => gate.pass().await,
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
    }
    Ok(Fate::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ChangeVersion, RowId, Table};

    fn key(row: &str) -> ClaimKey {
        let row = RowId::new(row).expect("not empty");
        ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(1))
    }

    async fn claim(dedupe: &MemoryDedupe, row: &str) -> Claim {
        dedupe.claim(&[key(row)]).await.expect("no fault scripted")[0]
    }

    fn two_processes() -> (MemoryDedupe, MemoryDedupe) {
        let first = MemoryDedupe::new("first");
        let second = MemoryDedupe::shared(first.store().clone(), "second");
        (first, second)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_ours_again_and_foreign_to_others_until_it_expires() {
        let (first, second) = two_processes();
        assert_eq!(claim(&first, "a").await, Claim::Granted);
        assert_eq!(claim(&first, "a").await, Claim::Granted);
        assert_eq!(claim(&second, "a").await, Claim::Foreign);
        tokio::time::advance(first.lease()).await;
        assert_eq!(claim(&second, "a").await, Claim::Granted);
        assert_eq!(claim(&first, "a").await, Claim::Foreign);
    }

    #[tokio::test(start_paused = true)]
    async fn only_done_means_skip_and_it_lasts_for_the_window() {
        let (first, second) = two_processes();
        assert_eq!(claim(&first, "a").await, Claim::Granted);
        second.confirm(&[key("a")]).await.expect("over a foreign lease");
        assert_eq!(claim(&first, "a").await, Claim::Done);
        assert_eq!(first.store().done(), [key("a")]);
        tokio::time::advance(DEFAULT_WINDOW).await;
        assert_eq!(first.store().held(&key("a")), None);
        assert_eq!(claim(&first, "a").await, Claim::Granted);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_the_order_of_the_keys() {
        let (first, second) = two_processes();
        first.confirm(&[key("done")]).await.expect("confirms");
        assert_eq!(claim(&second, "foreign").await, Claim::Granted);
        let claims = first
            .claim(&[key("foreign"), key("free"), key("done"), key("free")])
            .await;
        let expected = vec![Claim::Foreign, Claim::Granted, Claim::Done, Claim::Granted];
        assert_eq!(claims, Ok(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_call_writes_nothing_and_a_lost_answer_has_written() {
        let dedupe = MemoryDedupe::new("us");
        let down = DedupeError::Unavailable("down".to_owned());
        dedupe.claim_faults().push(Fault::Reject(down.clone()));
        assert_eq!(dedupe.claim(&[key("a")]).await, Err(down));
        assert_eq!(dedupe.store().held(&key("a")), None);

        dedupe.confirm_faults().push(Fault::WriteThenFail);
        let lost = dedupe.confirm(&[key("a")]).await;
        assert!(matches!(lost, Err(DedupeError::Unavailable(_))));
        assert_eq!(dedupe.store().held(&key("a")), Some(Held::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_call_writes_only_when_it_is_released() {
        let dedupe = MemoryDedupe::new("us");
        let gate = Gate::default();
        dedupe.claim_faults().push(Fault::Hold(gate.clone()));
        dedupe.claim_faults().push(Fault::Slow(Duration::from_secs(3)));
        let keys = [key("a")];
        let test = async {
            gate.arrived().await;
            assert_eq!(dedupe.store().held(&keys[0]), None);
            gate.release();
        };
        let (claims, ()) = tokio::join!(dedupe.claim(&keys), test);
        assert_eq!(claims, Ok(vec![Claim::Granted]));

        let before = Instant::now();
        assert_eq!(claim(&dedupe, "a").await, Claim::Granted);
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn flushed_keys_cost_a_repeat() {
        let dedupe = MemoryDedupe::new("us");
        dedupe.confirm(&[key("a")]).await.expect("confirms");
        dedupe.store().flush_all();
        assert_eq!(claim(&dedupe, "a").await, Claim::Granted);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_keys_do_not_pile_up() {
        let dedupe = MemoryDedupe::new("us").with_window(Duration::from_secs(1));
        for n in 0..100_000_u32 {
            dedupe.confirm(&[key(&n.to_string())]).await.expect("confirms");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(dedupe.store().len() <= 2 * 1024, "{} keys", dedupe.store().len());
    }
}
