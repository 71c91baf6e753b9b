//! Whether a connector runs: takes what a platform reports, gives states and, of what failed, why.
//!
//! A connector that says RUNNING while its task has failed is the usual broken picture, so tasks count. Both platforms have
//! their own words; these are all that are documented, and one that is not is never taken for well.
//!
//! What they say is not the whole truth: a connector that waits for its slot or its database tries again and says RUNNING
//! meanwhile, and so does its task, for as long as `connectors/README.md` says. Only the database knows.

use serde::Deserialize;

use super::words::presentable;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub name: String,
    pub connector: Part,
    pub tasks: Vec<Part>,
}

/// The connector, or one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// A task's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub state: State,
    /// The platform's own word.
    pub reported: String,
    /// The first line of what it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What it means, if it is one of the troubles we know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// On its way; nobody need do anything.
    Starting,
    /// Somebody stopped it.
    Halted,
    Failed,
    /// Some of its tasks run.
    Degraded,
    /// A word that we do not know.
    Unknown,
}

/// How the whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The connector, and every task; and there is one.
    Running,
    Starting,
    Halted,
    Failed,
}

/// A trouble that is told from the text of a trace, which itself goes no further: it may hold rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    PublicationMissing,
    SlotLost,
    SlotInUse,
    NoSlotLeft,
    WalLevel,
    DatabaseLogin,
    DatabaseGrant,
    DatabaseUnreachable,
    KafkaGrant,
    KafkaLogin,
    TopicMissing,
    RecordTooLarge,
}

/// What the trace of each holds, as PostgreSQL, its driver, Debezium and Kafka say it. The first that fits counts: what is
/// certain stands before what is only a consequence.
const SIGNS: [(&[&str], Cause); 24] = [
    (&["Publication autocreation is disabled"], Cause::PublicationMissing),
    (&["publication \"", "\" does not exist"], Cause::PublicationMissing),
    (&["can no longer get changes from replication slot"], Cause::SlotLost),
    (&["can no longer access replication slot"], Cause::SlotLost),
    (&["cannot read from logical replication slot"], Cause::SlotLost),
    (&["has been invalidated"], Cause::SlotLost),
    (&["Cannot obtain valid replication slot"], Cause::SlotLost),
    (&["replication slot \"", "\" is active for PID"], Cause::SlotInUse),
    (&["all replication slots are in use"], Cause::NoSlotLeft),
    (&["requires wal_level >= logical"], Cause::WalLevel),
    (&["server property should be 'logical'"], Cause::WalLevel),
    (&["password authentication failed"], Cause::DatabaseLogin),
    (&["no pg_hba.conf entry"], Cause::DatabaseLogin),
    (&["permission denied for"], Cause::DatabaseGrant),
    (&["permission denied to start WAL sender"], Cause::DatabaseGrant),
    (&["must be superuser or replication role"], Cause::DatabaseGrant),
    (&["TopicAuthorizationException"], Cause::KafkaGrant),
    (&["ClusterAuthorizationException"], Cause::KafkaGrant),
    (&["SaslAuthenticationException"], Cause::KafkaLogin),
    (&["UnknownTopicOrPartitionException"], Cause::TopicMissing),
    (&["not present in metadata"], Cause::TopicMissing),
    (&["RecordTooLargeException"], Cause::RecordTooLarge),
    (&["The connection attempt failed"], Cause::DatabaseUnreachable),
    (&["Connection to ", " refused"], Cause::DatabaseUnreachable),
];

impl Cause {
    /// What it is, and what mends it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::PublicationMissing => {
                "the publication is not there, and the connector must not make one: create it as docs/runbook.md says, then \
                 `connectors apply`, which starts again what failed"
            }
            Self::SlotLost => {
                "the slot has lost its place and will not recover by itself: drop it and restart; the connector then \
                 snapshots everything once more"
            }
            Self::SlotInUse => "somebody else reads from the slot: another connector, or one that has not let go yet",
            Self::NoSlotLeft => {
                "the server has no slot left: drop one that nobody needs, or raise max_replication_slots"
            }
            Self::WalLevel => "the server writes no logical WAL: set wal_level = logical and restart it",
            Self::DatabaseLogin => "the database refuses the role, its password or where it comes from",
            Self::DatabaseGrant => {
                "the role lacks a right: REPLICATION, and what `migrate` grants to crm_connector, whose member it must be"
            }
            Self::DatabaseUnreachable => "the platform does not reach the database: host, port, IPv4, firewall",
            Self::KafkaGrant => {
                "the connector's account lacks a right on Kafka; the usual one is on the heartbeats' topic, which lies outside of \
                 the prefix: __debezium-heartbeat.<prefix>, on Confluent Cloud __debezium-heartbeat-lcc-....<prefix> \
                 (connectors/README.md has the grants)"
            }
            Self::KafkaLogin => "Kafka refuses the connector's account or its key",
            Self::TopicMissing => "a topic that the connector writes is not there, and it may not make it",
            Self::RecordTooLarge => "a row is larger than its topic takes: raise max.message.bytes of the topic",
        }
    }

    fn of(trace: &str) -> Option<Self> {
        let fits = |signs: &&(&[&str], Self)| {
            let mut rest = trace;
            signs.0.iter().all(|sign| match rest.split_once(*sign) {
                Some((_, behind)) => {
                    rest = behind;
                    true
                }
                None => false,
            })
        };
        SIGNS.iter().find(fits).map(|(_, cause)| *cause)
    }
}

impl Status {
    #[must_use]
    pub fn health(&self) -> Health {
        let all = |state| !self.tasks.is_empty() && self.tasks.iter().all(|task| task.state == state);
        if self.failed().next().is_some() {
            return Health::Failed;
        }
        match self.connector.state {
            State::Halted => Health::Halted,
            State::Running if all(State::Running) => Health::Running,
            _ => Health::Starting,
        }
    }

    /// The parts that have failed.
    pub fn failed(&self) -> impl Iterator<Item = &Part> {
        self.parts().filter(|part| part.state == State::Failed)
    }

    /// The connector, then its tasks.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.connector).chain(&self.tasks)
    }

    /// What a platform answers. `None`: it is not understood.
    #[must_use]
    pub fn read(body: &[u8], secrets: &[&str]) -> Option<Self> {
        let reported: Reported = serde_json::from_slice(body).ok()?;
        let part = |part: ReportedPart| {
            let trace = part.trace.filter(|trace| !trace.trim().is_empty()).or(part.msg);
            let trace = trace.filter(|trace| !trace.trim().is_empty());
            Part {
                id: part
                    .id
                    .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
                state: state_of(&part.state),
                reported: presentable(&part.state, &[]),
                cause: trace.as_deref().and_then(Cause::of),
                trace: trace.map(|trace| presentable(&trace, secrets)),
            }
        };
        Some(Self {
            name: reported.name,
            connector: part(reported.connector),
            tasks: reported.tasks.into_iter().flatten().map(part).collect(),
        })
    }
}

impl Health {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "not running yet",
            Self::Halted => "stopped by somebody",
            Self::Failed => "failed",
        }
    }
}

/// As it comes.
#[derive(Deserialize)]
struct Reported {
    name: String,
    connector: ReportedPart,
    /// Some servers write `null` for an empty list.
    tasks: Option<Vec<ReportedPart>>,
}

#[derive(Deserialize)]
struct ReportedPart {
    /// A number; in some answers of Confluent Cloud a text.
    id: Option<serde_json::Value>,
    state: String,
    trace: Option<String>,
    /// Where Confluent Cloud has the trace of a task.
    msg: Option<String>,
}

fn state_of(word: &str) -> State {
    match word {
        "RUNNING" => State::Running,
        "PROVISIONING" | "NONE" | "UNASSIGNED" | "RESTARTING" => State::Starting,
        "PAUSED" | "STOPPED" | "DELETED" | "DESTROYED" => State::Halted,
        // The last two are Confluent Cloud's, of a task.
        "FAILED" | "USER_ACTIONABLE_ERROR" | "SYSTEM_ERROR" => State::Failed,
        "DEGRADED" => State::Degraded,
        _ => State::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(connector: &str, tasks: &[&str]) -> Status {
        let tasks: Vec<String> = tasks
            .iter()
            .enumerate()
            .map(|(id, state)| format!(r#"{{"id": {id}, "state": "{state}", "worker_id": "w"}}"#))
            .collect();
        let body = format!(
            r#"{{"name": "c", "type": "source", "connector": {{"state": "{connector}", "worker_id": "w"}}, "tasks": [{}]}}"#,
            tasks.join(",")
        );
        Status::read(body.as_bytes(), &[]).expect("understood")
    }

    #[test]
    fn it_runs_only_if_the_connector_and_every_task_run_and_there_is_one() {
        let table: [(&str, &[&str], Health); 16] = [
            ("RUNNING", &["RUNNING"], Health::Running),
            ("RUNNING", &["RUNNING", "RUNNING"], Health::Running),
            ("RUNNING", &[], Health::Starting),
            ("RUNNING", &["FAILED"], Health::Failed),
            ("RUNNING", &["RUNNING", "FAILED"], Health::Failed),
            ("RUNNING", &["UNASSIGNED"], Health::Starting),
            ("RUNNING", &["RESTARTING"], Health::Starting),
            ("RUNNING", &["PAUSED"], Health::Starting),
            ("RUNNING", &["SOMETHING_NEW"], Health::Starting),
            ("SOMETHING_NEW", &["RUNNING"], Health::Starting),
            ("PROVISIONING", &[], Health::Starting),
            ("DEGRADED", &["UNASSIGNED"], Health::Starting),
            ("DEGRADED", &["USER_ACTIONABLE_ERROR"], Health::Failed),
            ("FAILED", &["SYSTEM_ERROR"], Health::Failed),
            ("PAUSED", &["PAUSED"], Health::Halted),
            ("STOPPED", &[], Health::Halted),
        ];
        for (connector, tasks, health) in table {
            assert_eq!(status(connector, tasks).health(), health, "{connector} {tasks:?}");
        }
    }

    #[test]
    fn of_a_trace_only_the_first_line_leaves_and_its_cause_is_told_in_our_words() {
        let body = serde_json::json!({
            "name": "c",
            "connector": {"state": "RUNNING", "worker_id": "w", "version": "3.6.3.Final"},
            "tasks": [{
                "id": 0, "state": "FAILED", "worker_id": "w",
                "trace": "org.apache.kafka.connect.errors.ConnectException: stopped, password sentinel-1\n\tat a.b\n\
                          Caused by: org.postgresql.util.PSQLException: ERROR: publication \"x\" does not exist, row (sentinel-2)\n",
            }, {"id": "1", "state": "USER_ACTIONABLE_ERROR", "worker_id": "w", "msg": "RecordTooLargeException: 2 MB"}],
        });
        let status = Status::read(body.to_string().as_bytes(), &["sentinel-1"]).expect("understood");
        let [first, second] = status.tasks.as_slice() else {
            panic!("{status:?}")
        };
        assert_eq!(
            first.trace.as_deref(),
            Some("org.apache.kafka.connect.errors.ConnectException: stopped, password ***")
        );
        assert_eq!(first.cause, Some(Cause::PublicationMissing));
        assert_eq!(
            (second.id.as_deref(), second.cause),
            (Some("1"), Some(Cause::RecordTooLarge))
        );
        assert_eq!(status.failed().count(), 2);
        assert!(!format!("{status:?}").contains("sentinel"));
        assert_eq!(Status::read(b"{}", &[]), None);
        let empty = br#"{"name": "c", "connector": {"state": "RUNNING"}, "tasks": null}"#;
        assert_eq!(
            Status::read(empty, &[]).map(|status| status.health()),
            Some(Health::Starting)
        );
    }

    #[test]
    fn each_known_trouble_is_told_from_what_its_software_says() {
        let table = [
            (
                "Publication autocreation is disabled, please create one and restart the connector.",
                Cause::PublicationMissing,
            ),
            (
                "ERROR: can no longer get changes from replication slot \"s\"\n  Detail: This slot has been invalidated",
                Cause::SlotLost,
            ),
            ("ERROR: replication slot \"s\" is active for PID 4711", Cause::SlotInUse),
            ("ERROR: all replication slots are in use", Cause::NoSlotLeft),
            (
                "FATAL: password authentication failed for user \"u\"",
                Cause::DatabaseLogin,
            ),
            ("ERROR: permission denied for table codes", Cause::DatabaseGrant),
            (
                "PSQLException: The connection attempt failed.",
                Cause::DatabaseUnreachable,
            ),
            (
                "Connection to 127.0.0.1:5432 refused. Check that",
                Cause::DatabaseUnreachable,
            ),
            (
                "TopicAuthorizationException: Not authorized to access topics: [x]",
                Cause::KafkaGrant,
            ),
        ];
        for (trace, cause) in table {
            assert_eq!(Cause::of(trace), Some(cause), "{trace}");
        }
        assert_eq!(Cause::of("refused. Connection to nobody"), None);
    }
}
