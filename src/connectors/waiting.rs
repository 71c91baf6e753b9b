//! Waiting for a connector that was changed: takes a client, gives how it ended.
//!
//! No platform says of which configuration a state is. For a while after a change the old states are still told, so that what
//! was so before must last before it is believed, and a task that starts must stay up.

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
/// A failure that was there before the change, with the same trace, is believed only then.
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
    mut told: impl FnMut(Option<&Status>),
) -> Result<End, ConnectError> {
    let began = Instant::now();
    let is_late = || began.elapsed() + LOOK > deadline;
    let mut running_since = None;
    let mut last = None;
    loop {
        let status = match client.status(name, secrets).await {
            Err(ConnectError::Unreachable { .. }) if !is_late() => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            answer => answer?,
        };
        if last.as_ref() != Some(&status) {
            told(status.as_ref());
        }
        let health = status.as_ref().map(Status::health);
        let is_stale = status.as_ref() == before && began.elapsed() < STALE;
        if health != Some(Health::Running) {
            running_since = None;
        }
        match (health, &status) {
            (Some(Health::Failed), Some(status)) if !is_stale => return Ok(End::Failed(status.clone())),
            (Some(Health::Halted), Some(status)) => return Ok(End::Halted(status.clone())),
            (Some(Health::Running), Some(status)) => {
                let since = *running_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SETTLED {
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
