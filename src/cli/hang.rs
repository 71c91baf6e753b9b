//! What happens when a loop hangs: it is named in the log, and the process ends. Whoever runs it starts a new one.
//!
//! Nothing is drained and nothing is committed: what hangs may hold any lock. What is not committed is read again.

use std::sync::Arc;
use std::time::Duration;

use super::{Code, leave};
use crate::telemetry::Telemetry;
use crate::telemetry::watchdog::{Hang, Patience, Watchdog};

/// The log line needs the lock of standard error, which may be what hangs. Then the process ends without a word.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Watches the loops of a worker as long as the result lives.
pub(super) fn watch(telemetry: &Arc<Telemetry>, session_timeout: Duration) -> std::io::Result<Watchdog> {
    let telemetry = Arc::clone(telemetry);
    let patience = Patience::of_session(session_timeout);
    Watchdog::start(patience, move || telemetry.ages(), |hang| end(hang, LAST_WORDS))
}

fn end(hang: Hang, deadline: Duration) {
    // The sender lives as long as the process: only the deadline ends the wait.
    let (_until_the_end, told) = std::sync::mpsc::channel::<()>();
    let last_resort = std::thread::Builder::new().spawn(move || {
        let _elapsed = told.recv_timeout(deadline);
        leave(Code::Internal)
    });
    let (hanging, age_s) = (hang.hanging.to_string(), hang.age.as_secs());
    if let Err(error) = last_resort {
        tracing::warn!(%error, "no thread that ends the process, should the log hang as well");
    }
    tracing::error!(hanging, age_s, "a loop hangs: exit, so that a new process begins");
    leave(Code::Internal)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::telemetry::watchdog::Loop;

    const CHILD: &str = "CRM_TEST_HANG";

    /// This very test, in a process of its own that hangs.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the child is told by a variable what it is")]
    fn a_hang_is_named_and_ends_the_process_with_70() {
        if std::env::var(CHILD).is_ok() {
            crate::telemetry::logging::start(crate::telemetry::logging::Format::Json, "info");
            let patience = Patience {
                every: Duration::from_millis(50),
                limit: Duration::from_millis(100),
            };
            let never = || (Duration::ZERO, Duration::MAX);
            let _watchdog =
                Watchdog::start(patience, never, |hang| end(hang, Duration::from_secs(240))).expect("started");
            loop {
                std::thread::park();
            }
        }
        let child = Command::new(std::env::current_exe().expect("a test binary"))
            .args([
                "--exact",
                "cli::hang::tests::a_hang_is_named_and_ends_the_process_with_70",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .stdin(Stdio::null())
            .output()
            .expect("ran");
        let log = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(70), "{log}");
        assert!(
            log.contains(&Loop::Pipeline.to_string()) && log.contains("a loop hangs"),
            "{log}"
        );
    }
}
