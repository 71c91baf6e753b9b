//! How things stand in a word, and why: what an operator wants to know within ten seconds.
//!
//! Takes what is known, gives a [`Flow`]. The worst that is so gives the word, and everything as bad is a reason. It asks nobody.

use std::time::Duration;

use super::Telemetry;
use super::http::{not_live, now_ms, stands};
use super::recent::shown;
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
const PATIENCE_MS: i64 = 60_000;

/// What the word depends on.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// A loop does not go round, a consumer stands still or is halted, a partition is halted.
    waits_for_somebody: Vec<String>,
    /// What the start is at.
    beginning: String,
    ticked: bool,
    joined: bool,
    draining: bool,
    /// Consumers that do not run here and hold a committed offset.
    absent: Vec<String>,
    /// Whom consumers wait for and will ask again, and why.
    targets: Vec<String>,
    commit_age: Duration,
    /// Since a record ended, or since the start.
    still_for: Duration,
    /// How long something has been in hand or behind, and no record has ended.
    waited: Duration,
    lag: i64,
    outstanding: usize,
    /// What the last look at the source found failed, in its words.
    failed: Vec<String>,
}

impl Telemetry {
    /// What the start is at, until the pipeline begins.
    pub fn begins(&self, what: &str) {
        self.seen.slow().beginning = shown(what);
    }

    /// What the start is at.
    pub(super) fn beginning(&self) -> String {
        let beginning = self.seen.slow().beginning.clone();
        if beginning.is_empty() {
            "the pipeline has not begun".to_owned()
        } else {
            beginning
        }
    }
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
        beginning: telemetry.beginning(),
        ticked: status.ticked_ms > 0,
        joined: status.joined,
        draining: status.draining,
        absent: absent(&status),
        targets: targets(telemetry, &status),
        commit_age: telemetry.commit_age(),
        still_for: telemetry.seen.still_for(),
        waited: telemetry.seen.waited(),
        lag: telemetry.seen.behind(),
        outstanding: status.partitions.iter().map(|partition| partition.outstanding).sum(),
        failed,
    })
}

/// What somebody waits for whose last error is about to be tried again, or just was. An error that nobody comes back to explains
/// nothing.
fn targets(telemetry: &Telemetry, status: &Status) -> Vec<String> {
    let now_ms = now_ms(telemetry, status);
    let names = status.consumers.iter().map(|consumer| consumer.consumer.name());
    let waits = names.chain(["decode"]).filter_map(|name| {
        let error = telemetry.last_error(name)?;
        // A request may take its time as well.
        let until_ms = error.again_ms?.saturating_add(PATIENCE_MS);
        (now_ms <= until_ms).then(|| format!("{name} waits for {}: {}", error.target, error.detail))
    });
    waits.collect()
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
    for why in &facts.waits_for_somebody {
        say(State::Stuck, why.clone());
    }
    let waited_s = facts.waited.as_secs();
    let is_waiting = facts.waited > PATIENCE && facts.ticked && facts.joined;
    let is_uncommitted = facts.commit_age > PATIENCE;
    // Asked again by themselves: nobody has to come. One that is tried again while all goes on is no reason.
    if (is_waiting && facts.outstanding > 0) || is_uncommitted {
        for why in &facts.targets {
            say(State::Held, why.clone());
        }
    }
    match (is_waiting, facts.outstanding, facts.lag) {
        (true, 1.., _) => {
            let is_explained = !facts.targets.is_empty();
            let state = if is_explained { State::Held } else { State::Stuck };
            let in_hand = facts.outstanding;
            say(
                state,
                format!("{in_hand} records in hand, and none has ended for {waited_s} s"),
            );
        }
        (true, 0, 1..) => say(
            State::Held,
            format!("{} records behind, and nothing has come for {waited_s} s", facts.lag),
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
    if is_uncommitted {
        let age_s = facts.commit_age.as_secs();
        say(State::Held, format!("no commit was confirmed for {age_s} s"));
    }
    if facts.draining {
        say(State::Draining, "a shutdown has begun".to_owned());
    }
    if !facts.ticked {
        say(State::Starting, facts.beginning.clone());
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
    use crate::consumers::Consumer;
    use crate::pipeline::PartitionStatus;
    use crate::record::TopicPartition;
    use crate::telemetry::ConsumerStatus;

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
            (
                Facts {
                    beginning: "waits for the database: refused".to_owned(),
                    ..Facts::default()
                },
                State::Starting,
                Some("waits for the database: refused"),
            ),
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
                    waited: MINUTES,
                    ..working()
                },
                State::Stuck,
                Some("10 records in hand, and none has ended for 120 s"),
            ),
            (
                Facts {
                    waited: MINUTES,
                    outstanding: 0,
                    ..working()
                },
                State::Held,
                Some("10 records behind, and nothing has come for 120 s"),
            ),
            (
                Facts {
                    targets: some("tier waits for inngest: 503"),
                    ..working()
                },
                State::Flowing,
                None,
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

    #[test]
    fn whoever_waits_for_a_target_is_held_and_names_it() {
        let waiting = |facts: Facts| {
            judge(&Facts {
                targets: vec!["tier waits for inngest: 503".to_owned()],
                ..facts
            })
        };
        let flow = waiting(Facts {
            waited: MINUTES,
            ..working()
        });
        let why = [
            "tier waits for inngest: 503",
            "10 records in hand, and none has ended for 120 s",
        ];
        assert_eq!((flow.state, flow.why), (State::Held, why.map(str::to_owned).to_vec()));
        let flow = waiting(Facts {
            commit_age: MINUTES,
            ..working()
        });
        let why = ["tier waits for inngest: 503", "no commit was confirmed for 120 s"];
        assert_eq!((flow.state, flow.why), (State::Held, why.map(str::to_owned).to_vec()));
    }

    /// A tick of a worker of tier, with so much in hand of a log that ends at 100.
    fn tick(telemetry: &Telemetry, outstanding: i64) {
        telemetry.publish(Status {
            ticked_ms: NOW_MS,
            topics: vec![Box::from("crm.public.codes")].into(),
            partitions: vec![PartitionStatus {
                place: TopicPartition { topic: 0, partition: 0 },
                committed: Some(100 - outstanding),
                confirmed: tokio::time::Instant::now(),
                position: 100,
                outstanding: usize::try_from(outstanding).expect("small"),
                paused: false,
                watermarks: vec![(Consumer::Tier, 100 - outstanding)],
                absent: Vec::new(),
            }],
            consumers: vec![ConsumerStatus {
                consumer: Consumer::Tier,
                lanes: 1,
                standing_still: None,
                halted: None,
            }],
            joined: true,
            draining: false,
        });
    }

    const NOW_MS: i64 = 1_795_176_000_000;

    async fn minutes(telemetry: &Telemetry, minutes: u32, outstanding: i64) {
        for _ in 0..minutes * 4 {
            tokio::time::advance(Duration::from_secs(15)).await;
            tick(telemetry, outstanding);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_had_nothing_to_do_is_not_stuck_when_one_record_comes() {
        let telemetry = Telemetry::new().expect("instruments");
        minutes(&telemetry, 10, 0).await;
        assert_eq!(flow(&telemetry).state, State::Idle);
        tick(&telemetry, 1);
        assert_eq!(flow(&telemetry).state, State::Flowing);
        minutes(&telemetry, 2, 1).await;
        let stuck = flow(&telemetry);
        assert_eq!(stuck.state, State::Stuck);
        assert_eq!(stuck.why, ["1 records in hand, and none has ended for 120 s"]);
        // So it is while whoever failed is not about to be asked again.
        telemetry.went_wrong("tier", "inngest", "503", NOW_MS, None);
        assert_eq!(flow(&telemetry).state, State::Stuck);
        telemetry.went_wrong("tier", "inngest", "503", NOW_MS, Some(PATIENCE));
        let held = flow(&telemetry);
        assert_eq!(
            (held.state, held.why[0].as_str()),
            (State::Held, "tier waits for inngest: 503")
        );
        telemetry.went_wrong("tier", "inngest", "503", NOW_MS - 180_000, Some(PATIENCE));
        assert_eq!(flow(&telemetry).state, State::Stuck, "nobody came back to it");
        // One has ended, and is committed.
        telemetry.finished(Some(Consumer::Tier), "delivered", 1);
        tick(&telemetry, 2);
        assert_eq!(flow(&telemetry).state, State::Flowing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_waits_says_for_what_and_lives_until_a_loop_that_began_does_not_go_round() {
        let telemetry = Telemetry::new().expect("instruments");
        let starting = |why: &str| Flow {
            state: State::Starting,
            why: vec![why.to_owned()],
        };
        assert_eq!(flow(&telemetry), starting("the pipeline has not begun"));
        telemetry.begins("waits for the database: no\nroute");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(flow(&telemetry), starting("waits for the database: no\\nroute"));
        assert_eq!(not_live(&telemetry), [""; 0]);
        // The polling thread was started, and never came round.
        telemetry.polled();
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(flow(&telemetry).state, State::Stuck);
        assert_eq!(
            not_live(&telemetry),
            ["the polling thread has not gone round for 121 s"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_that_was_there_before_a_long_start_has_its_time() {
        let telemetry = Telemetry::new().expect("instruments");
        tokio::time::advance(Duration::from_secs(600)).await;
        telemetry.publish(Status {
            ticked_ms: NOW_MS,
            ..Status::starting()
        });
        tick(&telemetry, 100);
        assert_eq!(flow(&telemetry).state, State::Flowing);
        minutes(&telemetry, 2, 100).await;
        assert_eq!(flow(&telemetry).state, State::Stuck);
    }

    fn assert_words<const N: usize>(table: [(Facts, State, Option<&str>); N]) {
        for (facts, state, why) in table {
            let flow = judge(&facts);
            let expected: Vec<String> = why.into_iter().map(str::to_owned).collect();
            assert_eq!((flow.state, flow.why), (state, expected), "{facts:?}");
        }
    }
}
