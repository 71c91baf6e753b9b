//! `connectors apply`: makes the connector or changes it, and waits until it and its tasks run.

use std::time::Duration;

use anyhow::Context as _;

use super::validate::print_validation;
use super::{
    Chosen, Needs, Source, accept, has_errors, print_diff, print_findings, print_status, print_unjudged, runtime,
};
use crate::cli::{Code, Format};
use crate::connectors::rules::Finding;
use crate::connectors::{Client, Diff, End, Health, Platform, Status, Validation, wait};
use crate::inert::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The rule about this key may be broken; may be given several times.
    #[arg(long, value_name = "KEY")]
    accept: Vec<String>,
    /// How long the connector and its tasks may take to run.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    deadline: u16,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

/// What was done, step by step; a step that was not reached is missing.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    connector: String,
    dry_run: bool,
    findings: Vec<Finding>,
    /// Keys whose values are not known here.
    unjudged: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Diff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<Validation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Created,
    Changed,
    /// Nothing differs that can be compared; what is masked was written once more.
    WrittenAgain,
    /// Nothing differs, and what had failed was started again.
    Restarted,
    Nothing,
}

impl Action {
    const fn words(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Created, false) => "created",
            (Self::Created, true) => "would be created",
            (Self::Changed, false) => "changed",
            (Self::Changed, true) => "would be changed",
            (Self::WrittenAgain, false) => "written again, because nobody can compare what is masked",
            (Self::WrittenAgain, true) => "would be written again, because nobody can compare what is masked",
            (Self::Restarted, false) => "set as it should be; what had failed was started again",
            (Self::Restarted, true) => "set as it should be; what has failed would be started again",
            (Self::Nothing, _) => "set as it should be; nothing to change",
        }
    }

    fn to_take(exists: bool, diff: &Diff, before: Option<&Status>, platform: Platform) -> Self {
        let has_failed = before.is_some_and(|status| status.health() == Health::Failed);
        match (exists, diff.is_same()) {
            (false, _) => Self::Created,
            (true, false) => Self::Changed,
            (true, true) if !diff.masked.is_empty() => Self::WrittenAgain,
            (true, true) if has_failed && platform == Platform::KafkaConnect => Self::Restarted,
            // There a change restarts what failed, and there is no other way.
            (true, true) if has_failed => Self::WrittenAgain,
            (true, true) => Self::Nothing,
        }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let needs = Needs {
        platform: true,
        values: true,
    };
    let chosen = options.source.open(needs)?;
    let mut report = Report {
        connector: chosen.config.name().to_owned(),
        dry_run: options.dry_run,
        findings: chosen.findings(),
        unjudged: chosen.unjudged(),
        ..Report::default()
    };
    accept(&mut report.findings, &options.accept)?;
    let code = runtime()?.block_on(apply(options, &chosen, &mut report));
    // What was reached before an error is worth knowing.
    if options.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report")?);
    }
    code
}

async fn apply(options: &Options, chosen: &Chosen, report: &mut Report) -> anyhow::Result<Code> {
    let (client, config, talks) = (chosen.client()?, &chosen.config, options.format == Format::Text);
    let (name, secrets) = (config.name(), config.secrets());
    if talks {
        print_findings(&report.findings);
        print_unjudged(&report.unjudged);
    }
    if has_errors(&report.findings) {
        if talks {
            println!("nothing was sent: a rule is broken. `--accept KEY` goes on in spite of one");
        }
        return Ok(Code::Findings);
    }
    let live = client.config(name).await?;
    let before = client.status(name, &secrets).await?;
    let exists = live.is_some();
    let diff = Diff::between(&live.unwrap_or_default(), config, chosen.platform);
    let action = Action::to_take(exists, &diff, before.as_ref(), chosen.platform);
    if talks && exists {
        print_diff(&diff);
    }
    (report.exists, report.diff) = (Some(exists), Some(diff));
    let online = client.validate(config).await?;
    let is_refused = !online.errors.is_empty();
    if talks && (is_refused || !online.unknown.is_empty()) {
        print_validation(&online, chosen.platform.name());
    }
    report.online = Some(online);
    if is_refused {
        if talks {
            println!("nothing was sent: {} would not take it", chosen.platform.name());
        }
        return Ok(Code::Findings);
    }
    // Said only of what was done.
    if !options.dry_run {
        act(client, chosen, action).await?;
    }
    if talks {
        println!("{name}: {}", action.words(options.dry_run));
    }
    report.action = Some(action);
    if options.dry_run {
        return Ok(Code::Ok);
    }
    if let (Action::Nothing, Some(before)) = (action, before.clone())
        && before.health() == Health::Running
    {
        return Ok(finish(
            End::Running(before),
            (name, chosen.platform.name()),
            talks,
            report,
        ));
    }
    let end = wait(
        client,
        name,
        &secrets,
        before.as_ref(),
        Duration::from_secs(options.deadline.into()),
        |status| {
            if talks {
                say(name, status);
            }
        },
    );
    Ok(finish(end.await?, (name, chosen.platform.name()), talks, report))
}

async fn act(client: &Client, chosen: &Chosen, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Nothing => {}
        Action::Restarted => client.restart_failed(chosen.config.name()).await?,
        Action::Created | Action::Changed | Action::WrittenAgain => client.put(&chosen.config).await?,
    }
    Ok(())
}

/// A line for every new state.
fn say(name: &str, status: Option<&Status>) {
    let Some(status) = status else {
        return println!("{name}: not known there yet");
    };
    let tasks: Vec<String> = status.tasks.iter().map(|task| clean(&task.reported)).collect();
    let tasks = if tasks.is_empty() {
        "none".to_owned()
    } else {
        tasks.join(", ")
    };
    println!("{name}: {}, tasks: {tasks}", clean(&status.connector.reported));
}

fn finish(end: End, (name, platform): (&str, &str), talks: bool, report: &mut Report) -> Code {
    let (word, status, code, advice) = match end {
        End::Running(status) => ("running", Some(status), Code::Ok, ""),
        End::Failed(status) => (
            "failed",
            Some(status),
            Code::Findings,
            ". `connectors status` says the same; docs/runbook.md says what to do",
        ),
        End::Halted(status) => (
            "halted",
            Some(status),
            Code::Findings,
            ": somebody paused or stopped it, and a change does not start it. Resume it (docs/runbook.md)",
        ),
        End::Late(status) => (
            "late",
            status,
            Code::Findings,
            ": the deadline passed. `connectors status` says how it goes on",
        ),
    };
    if talks {
        if let (Some(status), Code::Findings) = (&status, code) {
            print_status(status);
        }
        let health = status
            .as_ref()
            .map_or("not known there", |status| status.health().word());
        println!("{name} is {health}, says {platform}{advice}");
    }
    (report.end, report.status) = (Some(word), status);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::Config;

    fn status(task: &str) -> Status {
        let body = format!(
            r#"{{"name": "c", "connector": {{"state": "RUNNING"}}, "tasks": [{{"id": 0, "state": "{task}"}}]}}"#
        );
        Status::read(body.as_bytes(), &[]).expect("understood")
    }

    fn diff(live: &str) -> Diff {
        let [live, wanted] =
            [live, r#"{"a": "1", "b.password": "x"}"#].map(|text| Config::parse(text).expect("a configuration"));
        Diff::between(&live, &wanted, Platform::KafkaConnect)
    }

    #[test]
    fn nothing_is_written_only_if_everything_can_be_compared_is_the_same_and_runs() {
        let (same, masked, other) = (
            diff(r#"{"a": "1", "b.password": "x"}"#),
            diff(r#"{"a": "1", "b.password": "****"}"#),
            diff(r#"{"a": "2", "b.password": "x"}"#),
        );
        let [runs, failed] = ["RUNNING", "FAILED"].map(status);
        let (connect, cloud) = (Platform::KafkaConnect, Platform::ConfluentCloud);
        let table = [
            (false, &other, None, connect, Action::Created),
            (true, &other, Some(&runs), connect, Action::Changed),
            (true, &other, Some(&failed), connect, Action::Changed),
            (true, &same, Some(&runs), connect, Action::Nothing),
            (true, &same, Some(&failed), connect, Action::Restarted),
            (true, &same, Some(&failed), cloud, Action::WrittenAgain),
            (true, &masked, Some(&runs), cloud, Action::WrittenAgain),
        ];
        for (exists, diff, before, platform, action) in table {
            assert_eq!(Action::to_take(exists, diff, before, platform), action, "{diff:?}");
        }
    }
}
