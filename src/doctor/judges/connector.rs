//! The connector: whether it and every task of it run, and whether it is set so that nothing is lost.

use crate::connectors::rules::{self, Severity};
use crate::connectors::{Config, ConnectError, Health, Part, Platform, State, Status};
use crate::doctor::catalogue::{
    Area, CONNECTOR_AUTH, CONNECTOR_CONFIG, CONNECTOR_FAILED, CONNECTOR_MISSING, CONNECTOR_PAUSED, CONNECTOR_STARTING,
    CONNECTOR_TASK_FAILED, CONNECTOR_UNREACHABLE,
};
use crate::doctor::finding::{Finding, Verdicts};

use super::names::Names;

/// Of so many rules that are broken each is told; they come with the worst first.
const SAID: usize = 4;

/// What the platform says of the connector.
#[derive(Debug, Clone)]
pub struct Seen {
    pub platform: Platform,
    /// `None`: there is no such connector.
    pub config: Option<Config>,
    pub status: Option<Status>,
    /// The place in the WAL that it has stored; `None`: none yet.
    pub position: Result<Option<i64>, String>,
}

/// What it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub names: &'a Names,
    /// The worker's `TOPIC_PREFIX`.
    pub topic_prefix: &'a str,
    /// Keys whose rules may be broken.
    pub accepted: &'a [String],
}

#[must_use]
pub fn judge(seen: &Result<Seen, ConnectError>, wanted: &Wanted<'_>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let names = wanted.names;
    let name = &names.connector;
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let finding = of_error(error);
            let first = finding.id;
            verdicts.push(finding);
            verdicts.rest_after(&[Area::Connector], first);
            return verdicts;
        }
    };
    let platform = seen.platform.name();
    verdicts.push(Finding::ok(CONNECTOR_UNREACHABLE, format!("{platform} answers")));
    verdicts.push(Finding::ok(CONNECTOR_AUTH, format!("{platform} lets us look")));
    let (Some(config), Some(status)) = (&seen.config, &seen.status) else {
        let finding = Finding::failed(CONNECTOR_MISSING, format!("there is no connector {name} on {platform}"));
        verdicts.push(finding.fix(names.apply()));
        verdicts.rest_after(&[Area::Connector], CONNECTOR_MISSING);
        return verdicts;
    };
    verdicts.push(Finding::ok(CONNECTOR_MISSING, format!("connector {name} is there")));
    state(&mut verdicts, status, names);
    verdicts.push(settings(config, seen.platform, wanted));
    verdicts
}

fn of_error(error: &ConnectError) -> Finding {
    let saw = error.to_string();
    match error {
        ConnectError::Refused { mend, .. } => {
            Finding::failed(CONNECTOR_AUTH, "the connector's platform does not let us look")
                .saw(saw)
                .fix(*mend)
        }
        ConnectError::NotFound { mend, .. } => {
            Finding::failed(CONNECTOR_UNREACHABLE, "there is no such platform at CONNECT_URL")
                .saw(saw)
                .fix(*mend)
        }
        ConnectError::Address
        | ConnectError::Client(_)
        | ConnectError::Unreachable { .. }
        | ConnectError::Busy { .. }
        | ConnectError::Rejected { .. }
        | ConnectError::NotUnderstood { .. } => {
            let fix = "Check CONNECT_URL and whether Kafka Connect runs: `curl -sS \"$CONNECT_URL/connectors\"`";
            Finding::failed(CONNECTOR_UNREACHABLE, "the connector's platform gives no answer")
                .saw(saw)
                .fix(fix)
        }
    }
}

fn state(verdicts: &mut Verdicts, status: &Status, names: &Names) {
    let (connector, name) = (&status.connector, &names.connector);
    let has_failed = connector.state == State::Failed;
    verdicts.push(if has_failed {
        let finding = Finding::failed(CONNECTOR_FAILED, format!("connector {name} has failed")).saw(said(connector));
        finding.fix(mend(connector, names))
    } else {
        Finding::ok(CONNECTOR_FAILED, format!("connector {name} is {}", connector.reported))
    });
    let failed: Vec<&Part> = status.tasks.iter().filter(|task| task.state == State::Failed).collect();
    for task in &failed {
        let id = task.id.as_deref().unwrap_or("?");
        let what = format!(
            "task {id} of connector {name} has failed, and the connector says {}",
            connector.reported
        );
        verdicts.push(
            Finding::failed(CONNECTOR_TASK_FAILED, what)
                .saw(said(task))
                .fix(mend(task, names)),
        );
    }
    if failed.is_empty() {
        verdicts.push(match status.tasks.len() {
            0 if has_failed => Finding::unknown(CONNECTOR_TASK_FAILED, format!("{} first", CONNECTOR_FAILED.name())),
            tasks => Finding::ok(CONNECTOR_TASK_FAILED, format!("{tasks} tasks, and none has failed")),
        });
    }
    let health = status.health();
    verdicts.push(if health == Health::Halted {
        let finding = Finding::failed(CONNECTOR_PAUSED, format!("somebody stopped connector {name}"));
        finding
            .saw(format!("it says {}", connector.reported))
            .fix(names.resume())
    } else {
        Finding::ok(CONNECTOR_PAUSED, "nobody stopped it")
    });
    verdicts.push(if health == Health::Starting {
        let parts: Vec<String> = status.parts().map(said).collect();
        Finding::warning(
            CONNECTOR_STARTING,
            format!("connector {name} does not run yet, or has no task"),
        )
        .saw(parts.join("; "))
        .fix(format!(
            "Wait a minute or two: `crm-event-processors check --only connector --watch 10`\nthen: {}",
            names.apply()
        ))
    } else {
        Finding::ok(CONNECTOR_STARTING, format!("it is {}", health.word()))
    });
}

fn said(part: &Part) -> String {
    let trace = part
        .trace
        .as_ref()
        .map(|trace| format!(": {trace}"))
        .unwrap_or_default();
    format!("{}{trace}", part.reported)
}

fn mend(part: &Part, names: &Names) -> String {
    let cause = part
        .cause
        .map(|cause| format!("{}\n", cause.words()))
        .unwrap_or_default();
    format!("{cause}{}", names.restart())
}

fn settings(config: &Config, platform: Platform, wanted: &Wanted<'_>) -> Finding {
    let mut broken = rules::check(&rules::Question {
        config,
        platform,
        topic_prefix: wanted.topic_prefix,
    });
    rules::accept(&mut broken, wanted.accepted);
    if broken.is_empty() {
        return Finding::ok(CONNECTOR_CONFIG, "it is set as it must be");
    }
    let mut said: Vec<String> = broken
        .iter()
        .take(SAID)
        .map(|rule| {
            let found = rule.found.as_deref().unwrap_or("unset");
            format!("{} is {found}, must be {}: {}", rule.key, rule.wanted, rule.why)
        })
        .collect();
    if let Some(more @ 1..) = broken.len().checked_sub(SAID) {
        said.push(format!("and {more} more"));
    }
    let fails = broken.iter().any(|rule| rule.severity == Severity::Error);
    Finding::graded(
        CONNECTOR_CONFIG,
        fails,
        format!("{} settings of the connector are not as they must be", broken.len()),
    )
    .saw(said.join("; "))
    .fix(format!(
        "crm-event-processors connectors diff\n{}",
        wanted.names.apply()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::names;
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::doctor::catalogue;
    use crate::doctor::finding;

    fn judged(seen: &Result<Seen, ConnectError>, accepted: &[String]) -> Verdicts {
        let names = names();
        let wanted = Wanted {
            names: &names,
            topic_prefix: "crm",
            accepted,
        };
        judge(seen, &wanted)
    }

    fn seen(connector: &str, tasks: &[&str]) -> Seen {
        let tasks: Vec<serde_json::Value> = tasks
            .iter()
            .enumerate()
            .map(|(id, state)| {
                let trace =
                    (*state == "FAILED").then_some("ConnectException: Publication autocreation is disabled\n\tat x");
                serde_json::json!({"id": id, "state": state, "worker_id": "w", "trace": trace})
            })
            .collect();
        let body =
            serde_json::json!({"name": "cdc", "connector": {"state": connector, "worker_id": "w"}, "tasks": tasks});
        let status = Status::read(body.to_string().as_bytes(), &[]).expect("understood");
        Seen {
            platform: Platform::KafkaConnect,
            config: Some(filled()),
            status: Some(status),
            position: Ok(Some(1)),
        }
    }

    fn filled() -> Config {
        let mut config = Platform::KafkaConnect.template();
        for (key, value) in [
            ("database.hostname", "127.0.0.1"),
            ("database.port", "5432"),
            ("database.dbname", "crm"),
            ("database.user", "crm_cdc"),
            ("database.password", "sentinel-1"),
        ] {
            config.set(key, value);
        }
        config
    }

    #[test]
    fn a_connector_that_runs_as_it_must_be_set_is_well() {
        let verdicts = judged(&Ok(seen("RUNNING", &["RUNNING"])), &[]);
        assert_eq!(troubles(&verdicts), []);
        for id in catalogue::ALL.iter().filter(|id| id.area() == Area::Connector) {
            assert_eq!(of(&verdicts, *id).severity, finding::Severity::Ok, "{id:?}");
        }
    }

    #[test]
    fn each_way_of_not_running_has_its_name() {
        use finding::Severity::{Failed, Warning};
        for (connector, tasks, wanted) in [
            ("FAILED", vec![], vec![("connector.failed", Failed)]),
            ("RUNNING", vec!["FAILED"], vec![("connector.task-failed", Failed)]),
            ("PAUSED", vec!["PAUSED"], vec![("connector.paused", Failed)]),
            ("STOPPED", vec![], vec![("connector.paused", Failed)]),
            ("RUNNING", vec![], vec![("connector.starting", Warning)]),
            ("UNASSIGNED", vec!["UNASSIGNED"], vec![("connector.starting", Warning)]),
        ] {
            let verdicts = judged(&Ok(seen(connector, &tasks)), &[]);
            assert_eq!(troubles(&verdicts), wanted, "{connector} {tasks:?}");
        }
        let verdicts = judged(&Ok(seen("RUNNING", &["FAILED"])), &[]);
        let finding = of(&verdicts, CONNECTOR_TASK_FAILED);
        assert!(
            finding
                .evidence
                .is_some_and(|saw| saw.contains("Publication autocreation is disabled"))
        );
        let fix = finding.fix.expect("a fix");
        assert!(
            fix.contains("the publication is not there") && fix.contains("connectors/cdc/restart"),
            "{fix}"
        );
    }

    #[test]
    fn a_platform_that_is_away_refuses_us_or_has_no_such_connector_explains_the_rest() {
        let at = || "Kafka Connect at http://c".to_owned();
        let refused = ConnectError::Refused {
            at: at(),
            status: 401,
            detail: "no".to_owned(),
            mend: "m",
        };
        let away = ConnectError::Unreachable {
            at: at(),
            detail: "refused".to_owned(),
        };
        let gone = Seen {
            config: None,
            status: None,
            ..seen("RUNNING", &[])
        };
        for (seen, name) in [
            (Err(refused), "connector.auth"),
            (Err(away), "connector.unreachable"),
            (Ok(gone), "connector.missing"),
        ] {
            let verdicts = judged(&seen, &[]);
            assert_eq!(troubles(&verdicts), [(name, finding::Severity::Failed)]);
            assert_eq!(of(&verdicts, CONNECTOR_CONFIG).what, format!("{name} first"));
        }
    }

    #[test]
    fn a_setting_that_loses_something_is_told_with_its_reason() {
        let mut seen = seen("RUNNING", &["RUNNING"]);
        seen.config.as_mut().expect("set").set("snapshot.mode", "never");
        let verdicts = judged(&Ok(seen.clone()), &[]);
        assert_eq!(troubles(&verdicts), [("connector.config", finding::Severity::Failed)]);
        let saw = of(&verdicts, CONNECTOR_CONFIG).evidence.expect("evidence");
        assert!(saw.contains("snapshot.mode is never, must be"), "{saw}");
        let accepted = judged(&Ok(seen), &["snapshot.mode".to_owned()]);
        assert_eq!(troubles(&accepted), [("connector.config", finding::Severity::Warning)]);
    }

    #[test]
    fn names_are_those_of_the_live_configuration() {
        let mut config = filled();
        config.set("slot.name", "other");
        let names = Names::of("cdc", None, Some(&config));
        assert_eq!(
            (names.slot.as_str(), names.publication.as_str()),
            ("other", "crm_cdc_publication")
        );
        assert_eq!(names.user.as_deref(), Some("crm_cdc"));
    }
}
