//! How things stand in a word, and why: what an operator wants to know within ten seconds.
//!
//! Takes what is known, gives a [`Flow`]. The worst that is so gives the word, and everything as bad is a reason. It asks nobody.

use std::time::Duration;

use super::Telemetry;
use super::http::{not_live, stands};
use super::status::Status;
use crate::doctor::Severity;

/// From worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Something waits for a person.
    Stuck,
    /// Something waits, and goes on by itself if what it waits for does.
    Held,
    Draining,
    Starting,
    Flowing,
    /// Nothing to do.
    Idle,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Flow {
    pub state: State,
    pub why: Vec<String>,
}

/// Waiting longer than this is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the word depends on.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// A loop does not go round, a consumer stands still or is halted, a partition is halted.
    waits_for_somebody: Vec<String>,
    ticked: bool,
    joined: bool,
    draining: bool,
    /// Consumers that do not run here and hold a committed offset.
    absent: Vec<String>,
    commit_age: Duration,
    /// Since a record ended, or since the start.
    still_for: Duration,
    lag: i64,
    outstanding: usize,
    /// What the last look at the source found failed, in its words.
    failed: Vec<String>,
}

/// How things stand now.
#[must_use]
pub fn flow(telemetry: &Telemetry) -> Flow {
    let status = telemetry.status();
    let mut waits_for_somebody = not_live(telemetry);
    waits_for_somebody.extend(stands(telemetry, &status));
    let failed = telemetry.last_look().map_or_else(Vec::new, |(_, report)| {
        let failed = report.findings.iter().filter(|one| one.severity == Severity::Failed);
        failed.map(|one| format!("{}: {}", one.id.name(), one.what)).collect()
    });
    judge(&Facts {
        waits_for_somebody,
        ticked: status.ticked_ms > 0,
        joined: status.joined,
        draining: status.draining,
        absent: absent(&status),
        commit_age: telemetry.commit_age(),
        still_for: telemetry.still_for(),
        lag: telemetry.lags().iter().map(|(.., lag)| lag).sum(),
        outstanding: status.partitions.iter().map(|partition| partition.outstanding).sum(),
        failed,
    })
}

fn absent(status: &Status) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let absent = status.partitions.iter().flat_map(|partition| &partition.absent);
    for (name, _) in absent {
        if names.iter().all(|known| known.as_str() != &**name) {
            names.push(name.to_string());
        }
    }
    names
}

fn judge(facts: &Facts) -> Flow {
    let mut reasons: Vec<(State, String)> = Vec::new();
    let mut say = |state, why: String| reasons.push((state, why));
    let still_s = facts.still_for.as_secs();
    for why in &facts.waits_for_somebody {
        say(State::Stuck, why.clone());
    }
    let is_still = facts.still_for > PATIENCE && facts.ticked && facts.joined;
    match (is_still, facts.outstanding, facts.lag) {
        (true, 1.., _) => say(
            State::Stuck,
            format!(
                "{} records in hand, and none has ended for {still_s} s",
                facts.outstanding
            ),
        ),
        (true, 0, 1..) => say(
            State::Held,
            format!("{} records behind, and nothing has come for {still_s} s", facts.lag),
        ),
        (_, _, _) => {}
    }
    for why in &facts.failed {
        say(State::Held, why.clone());
    }
    for name in &facts.absent {
        say(
            State::Held,
            format!("the committed offset waits for {name}, which does not run here"),
        );
    }
    if facts.commit_age > PATIENCE {
        let age_s = facts.commit_age.as_secs();
        say(State::Held, format!("no commit was confirmed for {age_s} s"));
    }
    if facts.draining {
        say(State::Draining, "a shutdown has begun".to_owned());
    }
    if !facts.ticked {
        say(State::Starting, "the pipeline has not begun".to_owned());
    } else if !facts.joined {
        say(State::Starting, "not in the consumer group yet".to_owned());
    }
    let Some(state) = reasons.iter().map(|(state, _)| *state).min() else {
        let is_idle = facts.lag == 0 && facts.outstanding == 0 && facts.still_for > Duration::from_secs(5);
        let state = if is_idle { State::Idle } else { State::Flowing };
        return Flow { state, why: Vec::new() };
    };
    let why = reasons.into_iter().filter(|(reason, _)| *reason == state);
    Flow {
        state,
        why: why.map(|(_, why)| why).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(120);

    fn working() -> Facts {
        Facts {
            ticked: true,
            joined: true,
            lag: 10,
            outstanding: 10,
            ..Facts::default()
        }
    }

    #[test]
    fn a_worker_flows_begins_ends_or_has_nothing_to_do() {
        assert_words([
            (working(), State::Flowing, None),
            (
                Facts {
                    lag: 0,
                    outstanding: 0,
                    still_for: MINUTES,
                    ..working()
                },
                State::Idle,
                None,
            ),
            (Facts::default(), State::Starting, Some("the pipeline has not begun")),
            (
                Facts {
                    joined: false,
                    ..working()
                },
                State::Starting,
                Some("not in the consumer group yet"),
            ),
            (
                Facts {
                    draining: true,
                    ..working()
                },
                State::Draining,
                Some("a shutdown has begun"),
            ),
        ]);
    }

    #[test]
    fn the_worst_that_is_so_gives_the_word_and_its_reasons() {
        let some = |text: &str| vec![text.to_owned()];
        assert_words([
            (
                Facts {
                    still_for: MINUTES,
                    ..working()
                },
                State::Stuck,
                Some("10 records in hand, and none has ended for 120 s"),
            ),
            (
                Facts {
                    still_for: MINUTES,
                    outstanding: 0,
                    ..working()
                },
                State::Held,
                Some("10 records behind, and nothing has come for 120 s"),
            ),
            (
                Facts {
                    commit_age: MINUTES,
                    ..working()
                },
                State::Held,
                Some("no commit was confirmed for 120 s"),
            ),
            (
                Facts {
                    absent: some("reward"),
                    ..working()
                },
                State::Held,
                Some("the committed offset waits for reward, which does not run here"),
            ),
            (
                Facts {
                    failed: some("slot.inactive: nobody reads"),
                    ..working()
                },
                State::Held,
                Some("slot.inactive: nobody reads"),
            ),
            (
                Facts {
                    waits_for_somebody: some("tier stands still: 401"),
                    failed: some("slot.inactive: nobody reads"),
                    draining: true,
                    ..working()
                },
                State::Stuck,
                Some("tier stands still: 401"),
            ),
        ]);
    }

    fn assert_words<const N: usize>(table: [(Facts, State, Option<&str>); N]) {
        for (facts, state, why) in table {
            let flow = judge(&facts);
            let expected: Vec<String> = why.into_iter().map(str::to_owned).collect();
            assert_eq!((flow.state, flow.why), (state, expected), "{facts:?}");
        }
    }
}
