//! Every finding there is, in the order in which it is looked for: what explains others stands before them.
//!
//! An id is read by machines and is a heading of `docs/runbook.md`: never rename one. Pure.

use std::fmt;

/// What is looked at together, and chosen with `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    Configuration,
    Kafka,
    Group,
    Connector,
    Postgres,
    Redis,
    Inngest,
    Clock,
    Windows,
}

/// Whether a deploy with this finding cannot work. What the deploy may be there to repair never stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deploy {
    Stops,
    GoesOn,
}

/// The name of a finding: `area.what`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id {
    name: &'static str,
    area: Area,
    deploy: Deploy,
}

impl Area {
    pub const ALL: [Self; 9] = [
        Self::Configuration,
        Self::Kafka,
        Self::Group,
        Self::Connector,
        Self::Postgres,
        Self::Redis,
        Self::Inngest,
        Self::Clock,
        Self::Windows,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Kafka => "kafka",
            Self::Group => "group",
            Self::Connector => "connector",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Inngest => "inngest",
            Self::Clock => "clock",
            Self::Windows => "windows",
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.name() == name)
    }
}

impl Id {
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    #[must_use]
    pub const fn area(self) -> Area {
        self.area
    }

    /// Whether `--pre-deploy` fails on it.
    #[must_use]
    pub fn stops_a_deploy(self) -> bool {
        self.deploy == Deploy::Stops
    }

    /// Whether it says that there was nobody to ask.
    #[must_use]
    pub fn is_silence(self) -> bool {
        self == KAFKA_DNS || self.name.ends_with(".unreachable")
    }

    /// Its chapter in the runbook.
    #[must_use]
    pub fn runbook(self) -> String {
        format!("docs/runbook.md#{}", self.name.replace('.', ""))
    }

    /// Its place in the order.
    #[must_use]
    pub fn place(self) -> usize {
        ALL.iter().position(|id| *id == self).unwrap_or(ALL.len())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

macro_rules! catalogue {
    ($($constant:ident = $name:literal $area:ident $deploy:ident;)*) => {
        $(pub const $constant: Id = Id { name: $name, area: Area::$area, deploy: Deploy::$deploy };)*
        /// All, in order.
        pub const ALL: &[Id] = &[$($constant),*];
    };
}

catalogue! {
    CONFIGURATION_INVALID = "configuration.invalid" Configuration Stops;
    CONFIGURATION_PROGRAM = "configuration.program" Configuration Stops;
    KAFKA_DNS = "kafka.dns" Kafka GoesOn;
    KAFKA_UNREACHABLE = "kafka.unreachable" Kafka GoesOn;
    KAFKA_TLS = "kafka.tls" Kafka Stops;
    KAFKA_AUTH = "kafka.auth" Kafka Stops;
    TOPIC_MISSING = "topic.missing" Kafka Stops;
    TOPIC_UNREADABLE = "topic.unreadable" Kafka Stops;
    TOPIC_OFFLINE = "topic.offline" Kafka GoesOn;
    TOPIC_RETENTION = "topic.retention" Kafka GoesOn;
    DLQ_MISSING = "dlq.missing" Kafka Stops;
    DLQ_UNWRITABLE = "dlq.unwritable" Kafka Stops;
    DLQ_SETTINGS = "dlq.settings" Kafka GoesOn;
    GROUP_UNREADABLE = "group.unreadable" Group Stops;
    GROUP_EMPTY = "group.empty" Group GoesOn;
    GROUP_ELSEWHERE = "group.elsewhere" Group Stops;
    GROUP_CONSUMER_SET = "group.consumer-set" Group GoesOn;
    GROUP_OUTSIDE_LOG = "group.outside-log" Group GoesOn;
    GROUP_LAG = "group.lag" Group GoesOn;
    CONNECTOR_UNREACHABLE = "connector.unreachable" Connector GoesOn;
    CONNECTOR_AUTH = "connector.auth" Connector GoesOn;
    CONNECTOR_MISSING = "connector.missing" Connector GoesOn;
    CONNECTOR_FAILED = "connector.failed" Connector GoesOn;
    CONNECTOR_TASK_FAILED = "connector.task-failed" Connector GoesOn;
    CONNECTOR_PAUSED = "connector.paused" Connector GoesOn;
    CONNECTOR_STARTING = "connector.starting" Connector GoesOn;
    CONNECTOR_CONFIG = "connector.config" Connector GoesOn;
    POSTGRES_UNREACHABLE = "postgres.unreachable" Postgres GoesOn;
    POSTGRES_AUTH = "postgres.auth" Postgres Stops;
    SCHEMA_BEHIND = "schema.behind" Postgres Stops;
    SCHEMA_CHANGED = "schema.changed" Postgres Stops;
    SCHEMA_NEWER = "schema.newer" Postgres GoesOn;
    SCHEMA_CUT_OFF = "schema.cut-off" Postgres Stops;
    ROLE_MISSING = "role.missing" Postgres Stops;
    ROLE_CONNECTOR = "role.connector" Postgres GoesOn;
    WAL_LEVEL = "wal.level" Postgres GoesOn;
    PUBLICATION_MISSING = "publication.missing" Postgres GoesOn;
    PUBLICATION_TABLE_MISSING = "publication.table-missing" Postgres GoesOn;
    SLOT_MISSING = "slot.missing" Postgres GoesOn;
    SLOT_LOST = "slot.lost" Postgres GoesOn;
    SLOT_LSN_GONE = "slot.lsn-gone" Postgres GoesOn;
    SLOT_UNRESERVED = "slot.unreserved" Postgres GoesOn;
    SLOT_INACTIVE = "slot.inactive" Postgres GoesOn;
    SLOT_RETAINED = "slot.retained" Postgres GoesOn;
    WAL_SLOT_KEEP = "wal.slot-keep" Postgres GoesOn;
    TABLE_REPLICA_IDENTITY = "table.replica-identity" Postgres GoesOn;
    TRANSACTION_LONG = "transaction.long" Postgres GoesOn;
    HEARTBEAT_STALE = "heartbeat.stale" Postgres GoesOn;
    REDIS_UNREACHABLE = "redis.unreachable" Redis GoesOn;
    REDIS_AUTH = "redis.auth" Redis Stops;
    REDIS_EVICTS = "redis.evicts" Redis GoesOn;
    REDIS_MEMORY = "redis.memory" Redis GoesOn;
    INNGEST_UNREACHABLE = "inngest.unreachable" Inngest GoesOn;
    INNGEST_KEY = "inngest.key" Inngest Stops;
    CLOCK_SKEW = "clock.skew" Clock GoesOn;
    WINDOW_DEDUPE = "window.dedupe" Windows GoesOn;
    WINDOW_EVENT_ID = "window.event-id" Windows GoesOn;
    WINDOW_SLOT = "window.slot" Windows GoesOn;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_of_one_shape_and_there_once() {
        for (place, id) in ALL.iter().enumerate() {
            let (first, second) = id.name.split_once('.').expect("area.what");
            let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(is_word(first) && is_word(second), "{id:?}");
            assert_eq!(id.place(), place, "{id:?} is there twice");
        }
        let areas: Vec<Area> = ALL.iter().map(|id| id.area).collect();
        assert!(areas.is_sorted(), "the areas stand in their order");
        assert!(Area::ALL.iter().all(|area| areas.contains(area)));
        assert!(Area::ALL.iter().all(|area| Area::named(area.name()) == Some(*area)));
    }

    #[test]
    fn only_what_no_deploy_can_work_with_stops_one() {
        let stops: Vec<&str> = ALL.iter().filter(|id| id.stops_a_deploy()).map(|id| id.name).collect();
        assert_eq!(
            stops,
            [
                "configuration.invalid",
                "configuration.program",
                "kafka.tls",
                "kafka.auth",
                "topic.missing",
                "topic.unreadable",
                "dlq.missing",
                "dlq.unwritable",
                "group.unreadable",
                "group.elsewhere",
                "postgres.auth",
                "schema.behind",
                "schema.changed",
                "schema.cut-off",
                "role.missing",
                "redis.auth",
                "inngest.key",
            ]
        );
    }
}
