//! What things are called in this configuration, and the commands that mend the connector: those of its platform.

use crate::connectors::{Access, Config, Platform};

/// Names of the live connector, else of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub connector: String,
    /// Where the connector runs, if that is known.
    pub platform: Option<Platform>,
    /// Whether its platform is asked with `CONNECT_API_KEY`.
    pub has_key: bool,
    pub slot: String,
    pub publication: String,
    /// Who the connector is in the database, if that is known.
    pub user: Option<String>,
    /// `snapshot.mode`, if the live configuration is known.
    pub snapshot_mode: Option<String>,
    /// Seconds from one beat to the next.
    pub beat_s: i64,
}

/// What a lost slot needs.
const SNAPSHOTS: &str = "when_needed";

impl Names {
    /// `live`: what the platform says of the connector.
    #[must_use]
    pub fn of(connector: &str, access: Option<&Access>, live: Option<&Config>) -> Self {
        let template = Platform::KafkaConnect.template();
        let config = live.unwrap_or(&template);
        let name = |key: &str, usual: &str| config.get(key).unwrap_or(usual).to_owned();
        let beat_ms: Option<i64> = config
            .get("heartbeat.interval.ms")
            .and_then(|value| value.trim().parse().ok());
        Self {
            connector: connector.to_owned(),
            platform: access.map(|access| access.platform),
            has_key: access.is_some_and(|access| access.key.is_some()),
            slot: name("slot.name", "crm_cdc_slot"),
            publication: name("publication.name", "crm_cdc_publication"),
            user: config
                .get("database.user")
                .filter(|user| !user.contains("${"))
                .map(ToOwned::to_owned),
            snapshot_mode: live.map(|live| live.get("snapshot.mode").unwrap_or("unset").to_owned()),
            beat_s: beat_ms.map_or(10, |ms| (ms / 1000).max(1)),
        }
    }

    #[must_use]
    pub fn resume(&self) -> String {
        match self.platform {
            Some(Platform::ConfluentCloud) => "confluent connect cluster resume <lcc-...>".to_owned(),
            Some(Platform::KafkaConnect) | None => self.curl("PUT", "resume"),
        }
    }

    /// So that it lets go of its slot.
    #[must_use]
    pub fn stop(&self) -> String {
        match self.platform {
            Some(Platform::ConfluentCloud) => "confluent connect cluster pause <lcc-...>".to_owned(),
            Some(Platform::KafkaConnect) | None => self.curl("PUT", "stop"),
        }
    }

    /// What failed, and nothing else.
    #[must_use]
    pub fn restart(&self) -> String {
        match self.platform {
            // A change restarts what failed, and there is no other way.
            Some(Platform::ConfluentCloud) => self.apply(),
            Some(Platform::KafkaConnect) | None => self.curl("POST", "restart?includeTasks=true&onlyFailed=true"),
        }
    }

    /// Only the template has the template's name: with another it would be a second connector on the same slot.
    #[must_use]
    pub fn apply(&self) -> String {
        let apply = "crm-event-processors connectors apply";
        if self.connector == Platform::KafkaConnect.template().name() {
            return apply.to_owned();
        }
        format!("{apply} --file <the configuration of {}>", self.connector)
    }

    /// Why it does not run, and how one is started that somebody stopped.
    #[must_use]
    pub fn start(&self) -> String {
        format!(
            "`crm-event-processors connectors status` says why it does not run; `{}` starts one that somebody stopped",
            self.resume()
        )
    }

    /// What has to be set before the connector may begin without its slot; nothing if it is set.
    #[must_use]
    pub fn before_a_snapshot(&self) -> String {
        match self.snapshot_mode.as_deref() {
            Some(SNAPSHOTS) => String::new(),
            Some(mode) => format!(
                "First: snapshot.mode is {mode}, with which the gap stays for ever. Set it to {SNAPSHOTS}: `{}`\n",
                self.apply()
            ),
            None => format!("First look that snapshot.mode is {SNAPSHOTS}: with another the gap stays for ever\n"),
        }
    }

    /// The commands that give the connector a new slot, and a snapshot that closes the gap.
    #[must_use]
    pub fn recovery(&self) -> String {
        format!(
            "{}{}\nselect pg_drop_replication_slot('{}');\n{}\nIt snapshots every ledger; what is settled is not settled again: \
             docs/runbook.md#recovery-of-a-lost-slot",
            self.before_a_snapshot(),
            self.stop(),
            self.slot,
            self.resume()
        )
    }

    fn curl(&self, method: &str, what: &str) -> String {
        let key = if self.has_key {
            " -u \"$CONNECT_API_KEY:$CONNECT_API_SECRET\""
        } else {
            ""
        };
        format!(
            "curl{key} -X {method} \"$CONNECT_URL/connectors/{}/{what}\"",
            self.connector
        )
    }
}

#[cfg(test)]
pub(in crate::doctor) mod tests {
    use std::time::Duration;

    use super::*;

    /// Of a connector that is set as it should be.
    pub(in crate::doctor) fn names() -> Names {
        Names {
            connector: "cdc".to_owned(),
            platform: Some(Platform::KafkaConnect),
            has_key: false,
            slot: "s".to_owned(),
            publication: "p".to_owned(),
            user: Some("cdc_user".to_owned()),
            snapshot_mode: Some(SNAPSHOTS.to_owned()),
            beat_s: 10,
        }
    }

    fn access(platform: Platform) -> Access {
        Access {
            platform,
            base_url: "https://x".to_owned(),
            key: Some(("key".to_owned(), "sentinel-1".to_owned())),
            patience: Duration::ZERO,
        }
    }

    #[test]
    fn commands_are_those_of_the_platform_and_hold_no_secret() {
        let [cloud, connect] = Platform::ALL.map(|platform| Names::of("cdc", Some(&access(platform)), None));
        assert!(
            cloud
                .recovery()
                .contains("\nconfluent connect cluster pause <lcc-...>\n"),
            "{}",
            cloud.recovery()
        );
        let wanted = "curl -u \"$CONNECT_API_KEY:$CONNECT_API_SECRET\" -X PUT \"$CONNECT_URL/connectors/cdc/stop\"";
        assert!(connect.recovery().contains(wanted), "{}", connect.recovery());
        assert!(!format!("{cloud:?}{connect:?}").contains("sentinel"));
    }

    #[test]
    fn no_slot_is_dropped_before_the_connector_would_snapshot() {
        assert!(names().recovery().starts_with("curl -X PUT"));
        for (mode, first) in [
            (Some("no_data"), "First: snapshot.mode is no_data"),
            (None, "First look that snapshot.mode is when_needed"),
        ] {
            let names = Names {
                snapshot_mode: mode.map(ToOwned::to_owned),
                ..names()
            };
            assert!(names.recovery().starts_with(first), "{}", names.recovery());
        }
    }

    #[test]
    fn another_connector_than_the_templates_is_not_made_from_the_template() {
        assert_eq!(
            names().apply(),
            "crm-event-processors connectors apply --file <the configuration of cdc>"
        );
        let usual = Names::of("crm-cdc-source", None, None);
        assert_eq!(usual.apply(), "crm-event-processors connectors apply");
        assert_eq!(
            (usual.slot.as_str(), usual.beat_s, usual.user),
            ("crm_cdc_slot", 10, None)
        );
    }
}
