//! What was seen of the source, as numbers, for whoever draws and alerts. Pure.
//!
//! Takes what the looks gave, not what was said about it. `None` is what nobody knows: it is never 0.

use super::judges::connector::Seen as Connected;
use super::judges::names::Names;
use super::judges::slot;
use crate::connectors::{Health, State};
use crate::postgres::survey::Source;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub connector: Option<Connector>,
    pub slot: Slot,
    /// Seconds since the connector's last beat.
    pub heartbeat_s: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// It, and every task, and there is one.
    pub runs: bool,
    /// How many of its tasks are so, in the order of [`TASK_STATES`].
    pub tasks: [u64; TASK_STATES.len()],
}

/// The connector's slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    pub active: Option<bool>,
    pub lost: Option<bool>,
    pub retained_bytes: Option<i64>,
    /// How much more may be written until it is lost. Unknown without a limit.
    pub safe_bytes: Option<i64>,
}

/// What becomes of a task. `unassigned` is on its way: nobody need do anything yet.
pub const TASK_STATES: [&str; 5] = ["running", "failed", "paused", "unassigned", "other"];

/// `connected` and `source`: what was seen, as far as anybody answered.
#[must_use]
pub fn of(connected: Option<&Connected>, source: Option<&Source>, names: &Names) -> Facts {
    let is_told = connected.is_some_and(|connected| connected.config.is_some());
    Facts {
        connector: connected.map(connector),
        slot: source.map(|source| slot_of(source, names, is_told)).unwrap_or_default(),
        heartbeat_s: source.and_then(|source| source.heartbeat.clone().ok().flatten()),
    }
}

fn connector(seen: &Connected) -> Connector {
    let mut tasks = [0; TASK_STATES.len()];
    for task in seen.status.iter().flat_map(|status| &status.tasks) {
        let [running, failed, paused, unassigned, other] = &mut tasks;
        *match task.state {
            State::Running => running,
            State::Failed => failed,
            State::Halted => paused,
            State::Starting => unassigned,
            State::Degraded | State::Unknown => other,
        } += 1;
    }
    let health = seen.status.as_ref().map(crate::connectors::Status::health);
    Connector {
        // One that is not there does not run.
        runs: health == Some(Health::Running),
        tasks,
    }
}

/// `is_told`: the name is the connector's own. A slot that is not under the template's name may be under another.
fn slot_of(source: &Source, names: &Names, is_told: bool) -> Slot {
    let Ok(slots) = &source.slots else {
        return Slot::default();
    };
    let ours =
        |slot: &&crate::postgres::survey::Slot| slot.name == names.slot && slot.database == source.server.database;
    match slots.iter().find(ours) {
        Some(slot) => Slot {
            active: Some(slot.active),
            lost: Some(slot::is_lost(slot)),
            retained_bytes: slot.retained_bytes,
            safe_bytes: slot.safe_bytes,
        },
        None => Slot {
            // Nobody reads from what is not there.
            active: is_told.then_some(false),
            ..Slot::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::judges::names::tests::names;
    use super::super::judges::postgres::tests::source;
    use super::*;
    use crate::connectors::{Platform, Status};

    fn seen(connector: &str, tasks: &[&str]) -> Connected {
        let tasks = tasks.iter().enumerate();
        let tasks: Vec<_> = tasks
            .map(|(id, state)| serde_json::json!({"id": id, "state": state}))
            .collect();
        let body = serde_json::json!({"name": "cdc", "connector": {"state": connector}, "tasks": tasks});
        Connected {
            platform: Platform::KafkaConnect,
            config: Some(Platform::KafkaConnect.template()),
            status: Status::read(body.to_string().as_bytes(), &[]),
            position: Ok(None),
        }
    }

    #[test]
    fn a_connector_runs_only_with_all_its_tasks_and_one_that_is_not_there_does_not() {
        for (connector, tasks, runs, counted) in [
            ("RUNNING", &["RUNNING"][..], true, [1, 0, 0, 0, 0]),
            ("RUNNING", &["RUNNING", "FAILED"], false, [1, 1, 0, 0, 0]),
            ("PAUSED", &["PAUSED"], false, [0, 0, 1, 0, 0]),
            (
                "RUNNING",
                &["UNASSIGNED", "RESTARTING", "NEW_WORD"],
                false,
                [0, 0, 0, 2, 1],
            ),
            ("RUNNING", &[], false, [0; 5]),
        ] {
            let facts = of(Some(&seen(connector, tasks)), None, &names());
            let known = Connector { runs, tasks: counted };
            assert_eq!(facts.connector, Some(known), "{connector} {tasks:?}");
        }
        let missing = Connected {
            config: None,
            status: None,
            ..seen("RUNNING", &[])
        };
        let facts = of(Some(&missing), None, &names());
        assert!(facts.connector.is_some_and(|connector| !connector.runs));
    }

    #[test]
    fn nothing_is_known_of_what_nobody_saw() {
        assert_eq!(of(None, None, &names()), Facts::default());
        let mut blind = source();
        (blind.slots, blind.heartbeat) = (Err("denied".to_owned()), Err("denied".to_owned()));
        assert_eq!(of(None, Some(&blind), &names()), Facts::default());
    }

    #[test]
    fn a_slot_is_told_as_it_is_and_one_that_is_gone_only_if_its_name_is_certain() {
        let facts = of(None, Some(&source()), &names());
        let slot = Slot {
            active: Some(true),
            lost: Some(false),
            retained_bytes: Some(0),
            safe_bytes: Some(4 << 30),
        };
        assert_eq!((facts.slot, facts.heartbeat_s), (slot, Some(3)));

        let mut gone = source();
        gone.slots = Ok(Vec::new());
        assert_eq!(of(None, Some(&gone), &names()).slot, Slot::default());
        let told = of(Some(&seen("RUNNING", &[])), Some(&gone), &names()).slot;
        assert_eq!((told.active, told.lost), (Some(false), None));
    }
}
