//! What was found: a finding, and all findings of one look in their order, with what they come to. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::catalogue::{self, Area, Id};
use super::facts::Facts;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Failed,
    Warning,
    /// Nobody can say; why is in the finding.
    NotVerifiable,
    Ok,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Failed, Self::Warning, Self::NotVerifiable, Self::Ok];

    /// Its metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Warning => "warning",
            Self::NotVerifiable => "not_verifiable",
            Self::Ok => "ok",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: Id,
    pub severity: Severity,
    /// What is so, in a sentence.
    pub what: String,
    /// What was seen that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What to do: a command or SQL with the names of this configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(id: Id, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            id,
            severity,
            what: what.into(),
            evidence: None,
            fix: None,
        }
    }

    #[must_use]
    pub fn ok(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, what)
    }

    #[must_use]
    pub fn warning(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, what)
    }

    #[must_use]
    pub fn failed(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Failed, what)
    }

    #[must_use]
    pub fn unknown(id: Id, why: impl Into<String>) -> Self {
        Self::new(id, Severity::NotVerifiable, why)
    }

    /// A warning up to a line, a failure beyond it.
    #[must_use]
    pub fn graded(id: Id, fails: bool, what: impl Into<String>) -> Self {
        let severity = if fails { Severity::Failed } else { Severity::Warning };
        Self::new(id, severity, what)
    }

    #[must_use]
    pub fn saw(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = Some(evidence.into());
        self
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Findings as they come.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdicts(Vec<Finding>);

impl Verdicts {
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Of everything in these areas of which nothing was said yet: it cannot be verified, because of this.
    pub fn rest(&mut self, areas: &[Area], because: &str) {
        let open = |id: &&Id| areas.contains(&id.area()) && !self.0.iter().any(|known| known.id == **id);
        let rest: Vec<Id> = catalogue::ALL.iter().filter(open).copied().collect();
        self.0.extend(rest.into_iter().map(|id| Finding::unknown(id, because)));
    }

    /// The same, where a finding explains them all.
    pub fn rest_after(&mut self, areas: &[Area], first: Id) {
        self.rest(areas, &format!("{} first", first.name()));
    }

    /// The same, of these alone.
    pub fn rest_of(&mut self, ids: &[Id], first: Id) {
        let because = format!("{} first", first.name());
        self.0.extend(ids.iter().map(|id| Finding::unknown(*id, &because)));
    }

    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

/// How a look is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Health,
    /// Only what no deploy can work with fails; the rest is a warning, so that a deploy that repairs is never stopped.
    PreDeploy,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ok,
    Failed,
    /// The settings cannot be used.
    Configuration,
    /// Nothing outside answered.
    Nobody,
}

impl End {
    pub const LABELS: [&'static str; 4] = ["ok", "failed", "configuration", "nobody"];

    /// Its metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        let [ok, failed, configuration, nobody] = Self::LABELS;
        match self {
            Self::Ok => ok,
            Self::Failed => failed,
            Self::Configuration => configuration,
            Self::Nobody => nobody,
        }
    }
}

/// All findings of one look, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// What was seen of the source, as numbers.
    pub facts: Facts,
    pub took: Duration,
}

impl Report {
    #[must_use]
    pub fn new(mut verdicts: Verdicts, areas: &BTreeSet<Area>, purpose: Purpose, took: Duration) -> Self {
        let areas: Vec<Area> = areas.iter().copied().collect();
        // A check that nobody made is never taken for one that found nothing.
        verdicts.rest(&areas, "not looked at");
        let mut findings = verdicts.0;
        findings.retain(|finding| areas.contains(&finding.id.area()));
        findings.sort_by_key(|finding| finding.id.place());
        for finding in &mut findings {
            let may_fail = purpose == Purpose::Health || finding.id.stops_a_deploy();
            if finding.severity == Severity::Failed && !may_fail {
                finding.severity = Severity::Warning;
            }
        }
        Self {
            findings,
            facts: Facts::default(),
            took,
        }
    }

    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    #[must_use]
    pub fn end(&self) -> End {
        let failed = || {
            self.findings
                .iter()
                .filter(|finding| finding.severity == Severity::Failed)
        };
        if failed().any(|finding| finding.id.area() == Area::Configuration) {
            return End::Configuration;
        }
        if failed().next().is_none() {
            return End::Ok;
        }
        // What is told by the settings alone is no look at anything.
        let outside = |area| !matches!(area, Area::Configuration | Area::Windows);
        let silent = |finding: &Finding| match finding.severity {
            Severity::NotVerifiable => true,
            Severity::Failed | Severity::Warning => finding.id.is_silence(),
            Severity::Ok => false,
        };
        let mut looked = self
            .findings
            .iter()
            .filter(|finding| outside(finding.id.area()))
            .peekable();
        if looked.peek().is_some() && looked.all(silent) && failed().all(|finding| finding.id.is_silence()) {
            return End::Nobody;
        }
        End::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::catalogue::{
        CONFIGURATION_INVALID, GROUP_EMPTY, KAFKA_AUTH, KAFKA_UNREACHABLE, REDIS_UNREACHABLE, SLOT_LOST, TOPIC_MISSING,
    };

    fn report(findings: Vec<Finding>, areas: &[Area], purpose: Purpose) -> Report {
        let areas = areas.iter().copied().collect();
        Report::new(Verdicts(findings), &areas, purpose, Duration::ZERO)
    }

    #[test]
    fn findings_stand_in_the_order_in_which_they_explain_each_other_whoever_came_first() {
        let found = vec![
            Finding::failed(SLOT_LOST, "b"),
            Finding::warning(GROUP_EMPTY, "a"),
            Finding::failed(SLOT_LOST, "c"),
        ];
        let report = report(found, &[Area::Group, Area::Postgres], Purpose::Health);
        let told: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::NotVerifiable)
            .map(|finding| finding.what.as_str())
            .collect();
        assert_eq!(told, ["a", "b", "c"]);
    }

    #[test]
    fn what_nobody_looked_at_is_not_verifiable_and_never_well() {
        let report = report(Vec::new(), &[Area::Redis], Purpose::Health);
        assert_eq!(report.findings.len(), 4);
        assert_eq!(report.count(Severity::NotVerifiable), 4);
        let of_area = catalogue::ALL.iter().filter(|id| id.area() == Area::Redis);
        assert!(of_area.eq(report.findings.iter().map(|finding| &finding.id)));
    }

    #[test]
    fn what_one_finding_explains_says_which() {
        let mut verdicts = Verdicts::default();
        verdicts.push(Finding::failed(KAFKA_AUTH, "no"));
        verdicts.rest_after(&[Area::Kafka, Area::Group], KAFKA_AUTH);
        let report = report(verdicts.0, &[Area::Group], Purpose::Health);
        assert!(report.findings.iter().all(|one| one.what == "kafka.auth first"));
        let of_area = catalogue::ALL.iter().filter(|id| id.area() == Area::Group);
        assert!(
            of_area.eq(report.findings.iter().map(|finding| &finding.id)),
            "and nothing of what was not asked for"
        );
    }

    #[test]
    fn before_a_deploy_only_what_it_cannot_work_with_fails() {
        let found = || {
            vec![
                Finding::failed(TOPIC_MISSING, "stops"),
                Finding::failed(SLOT_LOST, "is shown"),
                Finding::failed(KAFKA_UNREACHABLE, "is shown"),
            ]
        };
        let all = Area::ALL;
        let severities = |report: &Report| -> Vec<(Severity, String)> {
            let told = report
                .findings
                .iter()
                .filter(|one| one.severity != Severity::NotVerifiable);
            told.map(|one| (one.severity, one.what.clone())).collect()
        };
        let deploy = report(found(), &all, Purpose::PreDeploy);
        assert_eq!(
            severities(&deploy),
            [
                (Severity::Warning, "is shown".to_owned()),
                (Severity::Failed, "stops".to_owned()),
                (Severity::Warning, "is shown".to_owned()),
            ]
        );
        assert_eq!(deploy.end(), End::Failed);
        let repairing = report(vec![Finding::failed(SLOT_LOST, "is shown")], &all, Purpose::PreDeploy);
        assert_eq!(repairing.end(), End::Ok);
        let nobody = report(vec![Finding::failed(KAFKA_UNREACHABLE, "")], &all, Purpose::PreDeploy);
        assert_eq!(nobody.end(), End::Ok);
    }

    #[test]
    fn the_end_tells_findings_from_settings_and_from_nobody_at_all() {
        let all = Area::ALL;
        let end = |found: Vec<Finding>| report(found, &all, Purpose::Health).end();
        assert_eq!(end(vec![Finding::warning(GROUP_EMPTY, "")]), End::Ok);
        assert_eq!(end(vec![Finding::failed(GROUP_EMPTY, "")]), End::Failed);
        let silent = || {
            vec![
                Finding::failed(KAFKA_UNREACHABLE, ""),
                Finding::failed(REDIS_UNREACHABLE, ""),
            ]
        };
        assert_eq!(end(silent()), End::Nobody);
        let somebody = [silent(), vec![Finding::ok(GROUP_EMPTY, "")]].concat();
        assert_eq!(end(somebody), End::Failed, "one of them answered");
        let settings = [silent(), vec![Finding::failed(CONFIGURATION_INVALID, "")]].concat();
        assert_eq!(end(settings), End::Configuration);
    }
}
