//! A value that many wait for: takes new values, wakes everybody who waits, in the order in which they began to.
//!
//! `tokio::sync::watch` does the same, but casts a die of the runtime's own for the order in which it wakes. Here two runs of
//! one seed must take the same way. It never holds a value back and never ends a wait because nobody can write any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Writes, and hands out who reads.
#[derive(Debug)]
pub(super) struct Signal<T>(Arc<State<T>>);

/// Reads, and waits for what it has not seen. A clone has seen what the original has.
#[derive(Debug)]
pub(super) struct Watcher<T> {
    state: Arc<State<T>>,
    seen: u64,
}

#[derive(Debug)]
struct State<T> {
    /// Counts changes.
    value: Mutex<(u64, T)>,
    changed: Notify,
}

impl<T> Signal<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(State {
            value: Mutex::new((0, value)),
            changed: Notify::new(),
        }))
    }

    /// Has seen everything so far.
    pub(super) fn watch(&self) -> Watcher<T> {
        Watcher {
            state: Arc::clone(&self.0),
            seen: self.0.value().0,
        }
    }

    /// What `read` finds now.
    pub(super) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.value().1)
    }

    /// The value before.
    pub(super) fn replace(&self, value: T) -> T {
        let mut current = self.0.value();
        current.0 += 1;
        let before = std::mem::replace(&mut current.1, value);
        drop(current);
        self.0.changed.notify_waiters();
        before
    }

    /// Changes the value.
    pub(super) fn modify(&self, change: impl FnOnce(&mut T)) {
        let mut current = self.0.value();
        current.0 += 1;
        change(&mut current.1);
        drop(current);
        self.0.changed.notify_waiters();
    }
}

impl<T: Default> Default for Signal<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Watcher<T> {
    /// What `read` finds now; what was not waited for is still not seen.
    pub(super) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.state.value().1)
    }

    /// Waits until there is something that was not seen. Cancelled, it has seen nothing.
    pub(super) async fn changed(&mut self) {
        let state = Arc::clone(&self.state);
        loop {
            let changed = state.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, whenever it is polled first.
            changed.as_mut().enable();
            let now = state.value().0;
            if now != self.seen {
                self.seen = now;
                return;
            }
            changed.await;
        }
    }

    /// Waits until the value is like this.
    pub(super) async fn wait_for(&mut self, is_like_this: impl Fn(&T) -> bool) {
        while !self.read(&is_like_this) {
            self.changed().await;
        }
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            seen: self.seen,
        }
    }
}

impl<T> State<T> {
    fn value(&self) -> MutexGuard<'_, (u64, T)> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_in_the_order_in_which_he_began_to() {
        let signal = Signal::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..50)
            .map(|number| {
                let (mut watcher, woken) = (signal.watch(), Arc::clone(&woken));
                tokio::spawn(async move {
                    watcher.changed().await;
                    woken.lock().expect("nobody panics").push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        signal.modify(|value| *value += 1);
        for waiter in waiters {
            waiter.await.expect("ended");
        }
        assert_eq!(*woken.lock().expect("nobody panics"), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_the_wait_is_seen_once() {
        let signal = Signal::new(0);
        let mut watcher = signal.watch();
        assert_eq!(signal.replace(7), 0);
        watcher.changed().await;
        assert_eq!(watcher.read(|value| *value), 7);
        let again = tokio::time::timeout(std::time::Duration::from_secs(1), watcher.changed());
        assert!(again.await.is_err(), "nothing new");
        watcher.wait_for(|value| *value == 7).await;
    }
}
