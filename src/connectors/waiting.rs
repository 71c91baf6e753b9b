//! Waiting for a connector that was changed: takes a client, gives how it ended.
//!
//! No platform says of which configuration a state is. For a while after a change the old states are still told: one that runs
//! still says RUNNING, one that failed still says so. So what was so before must change or last before it is believed, and a
//! task that starts must stay up.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, ConnectError};
use super::health::{Health, Status};

/// How the wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Running(Status),
    Failed(Status),
    /// Somebody paused or stopped it; a change does not start it.
    Halted(Status),
    /// The deadline passed; how it was last, if the platform knew of it at all.
    Late(Option<Status>),
}

const LOOK: Duration = Duration::from_secs(1);
/// A task that finds no publication, say, fails a moment after it began to run.
const SETTLED: Duration = Duration::from_secs(5);
/// What was there before the change, the same in every part, is believed only then, unless something else was seen in between.
const STALE: Duration = Duration::from_secs(20);

/// `before` is how it was when it was changed. `told` hears every new state. A platform that is away for a moment is asked again.
///
/// # Errors
/// The platform gives no answer that helps, or none at the deadline.
pub async fn wait(
    client: &Client,
    name: &str,
    secrets: &[&str],
    before: Option<&Status>,
    deadline: Duration,
    told: impl FnMut(Option<&Status>),
) -> Result<End, ConnectError> {
    watch(async || client.status(name, secrets).await, before, deadline, told).await
}

async fn watch(
    ask: impl AsyncFn() -> Result<Option<Status>, ConnectError>,
    before: Option<&Status>,
    deadline: Duration,
    mut told: impl FnMut(Option<&Status>),
) -> Result<End, ConnectError> {
    let began = Instant::now();
    let is_late = || began.elapsed() + LOOK > deadline;
    let mut has_changed = before.is_none();
    let mut running_since = None;
    let mut last = None;
    loop {
        let status = match ask().await {
            Err(ConnectError::Unreachable { .. } | ConnectError::Busy { .. }) if !is_late() => {
                // Nobody saw what it did meanwhile.
                running_since = None;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            answer => answer?,
        };
        if last.as_ref() != Some(&status) {
            told(status.as_ref());
            running_since = None;
        }
        has_changed |= status.as_ref() != before;
        let is_old = !has_changed && began.elapsed() < STALE;
        let health = status.as_ref().map(Status::health);
        match (health, &status) {
            (Some(Health::Failed), Some(status)) if !is_old => return Ok(End::Failed(status.clone())),
            (Some(Health::Halted), Some(status)) => return Ok(End::Halted(status.clone())),
            (Some(Health::Running), Some(status)) => {
                let since = *running_since.get_or_insert_with(Instant::now);
                if !is_old && since.elapsed() >= SETTLED {
                    return Ok(End::Running(status.clone()));
                }
            }
            _ => {}
        }
        if is_late() {
            return Ok(End::Late(status));
        }
        last = Some(status);
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    const AWAY: &str = "AWAY";

    fn status(task: &str) -> Status {
        let body = format!(
            r#"{{"name": "c", "connector": {{"state": "RUNNING"}}, "tasks": [{{"id": 0, "state": "{task}"}}]}}"#
        );
        Status::read(body.as_bytes(), &[]).expect("understood")
    }

    /// How it ends if the task is told so, a look at a time, and after how many seconds. The last one stays.
    async fn ended(before: Option<&str>, told: &[&str]) -> (&'static str, u64) {
        let looks = RefCell::new(VecDeque::from(told.to_vec()));
        let ask = async || {
            let mut looks = looks.borrow_mut();
            let look = if looks.len() > 1 {
                looks.pop_front()
            } else {
                looks.front().copied()
            };
            match look.expect("a look") {
                AWAY => Err(ConnectError::Unreachable {
                    at: "x".to_owned(),
                    detail: "y".to_owned(),
                }),
                task => Ok(Some(status(task))),
            }
        };
        let before = before.map(status);
        let began = Instant::now();
        let end = watch(ask, before.as_ref(), Duration::from_secs(60), |_| {}).await;
        let word = match end.expect("an answer") {
            End::Running(_) => "running",
            End::Failed(_) => "failed",
            End::Halted(_) => "halted",
            End::Late(_) => "late",
        };
        (word, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_before_the_change_is_believed_only_once_something_else_was_told_or_after_a_while() {
        let [up, down, between] = ["RUNNING", "FAILED", "RESTARTING"];
        let table: [(Option<&str>, &[&str], &str, u64); 9] = [
            (None, &[up], "running", 5),
            (Some(down), &[up], "running", 5),
            // The old task ran for ten looks more, and the new one failed.
            (Some(up), &[up, up, up, up, up, up, up, up, up, up, down], "failed", 10),
            (Some(up), &[up, up, between, up], "running", 8),
            // It came back within one look.
            (Some(up), &[up], "running", 20),
            (Some(down), &[down, down, between, up], "running", 8),
            (Some(down), &[down, between, down], "failed", 2),
            (Some(down), &[down], "failed", 20),
            // Five seconds in one piece: it may have failed while nobody could look.
            (None, &[up, up, up, AWAY, up, up, up, down], "failed", 7),
        ];
        for (before, told, word, seconds) in table {
            assert_eq!(ended(before, told).await, (word, seconds), "{before:?} {told:?}");
        }
    }
}
