//! Brokers, topics, grants and dead letters.

use crate::doctor::catalogue::{
    Area, DLQ_MISSING, DLQ_SETTINGS, DLQ_UNWRITABLE, GROUP_UNREADABLE, Id, KAFKA_AUTH, KAFKA_DNS, KAFKA_TLS,
    KAFKA_UNREACHABLE, TOPIC_MISSING, TOPIC_OFFLINE, TOPIC_RETENTION, TOPIC_UNREADABLE,
};
use crate::doctor::finding::{Finding, Verdicts};
use crate::kafka::{Committed, Connection, Grant, Look, Right, Role, Seen, Settings, Topic, Trouble, Unseen, Visible};

use super::{bytes, span};

/// A weekend and a half: for so long nobody may notice that nothing is consumed.
const SHORT_MS: i64 = 72 * 3_600_000;
/// People look at letters when they come back.
const SHORT_LETTERS_MS: i64 = 7 * 24 * 3_600_000;
/// A letter is the record and its reason.
const HEADROOM_BYTES: i64 = 16 * 1024;
const WEEK_MS: i64 = 7 * 24 * 3_600_000;
/// As many as the stack's: the most instances that can share the work.
const PARTITIONS: usize = 6;

#[must_use]
pub fn judge(seen: &Result<Seen, Trouble>, connection: &Connection) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let servers = &connection.bootstrap_servers;
    let seen = match seen {
        Ok(seen) => seen,
        Err(trouble) => {
            let finding = of_trouble(trouble, servers);
            let first = finding.id;
            verdicts.push(finding);
            verdicts.rest_after(&[Area::Kafka, Area::Group], first);
            return verdicts;
        }
    };
    verdicts.push(Finding::ok(KAFKA_DNS, "the brokers' names lead somewhere"));
    verdicts.push(Finding::ok(
        KAFKA_UNREACHABLE,
        format!("{} brokers of {servers} answer", seen.brokers),
    ));
    verdicts.push(Finding::ok(
        KAFKA_TLS,
        format!("{} works", connection.security_protocol),
    ));
    verdicts.push(match connection.api_key {
        Some(_) => Finding::ok(KAFKA_AUTH, "KAFKA_API_KEY is believed"),
        None => Finding::ok(KAFKA_AUTH, "no KAFKA_API_KEY is set, and none is asked for"),
    });
    topics(&mut verdicts, seen, connection);
    letters(&mut verdicts, seen, connection);
    verdicts
}

fn of_trouble(trouble: &Trouble, servers: &str) -> Finding {
    match trouble {
        Trouble::Name(cause) => Finding::failed(KAFKA_DNS, format!("no name of {servers} leads to a broker"))
            .saw(cause)
            .fix("Correct KAFKA_BOOTSTRAP_SERVERS, or the name server of this machine: `getent hosts <broker>` must answer"),
        Trouble::Tls { cause, mend } => {
            Finding::failed(KAFKA_TLS, "there is no TLS connection that we may believe").saw(cause).fix(mend)
        }
        Trouble::Key { cause, mend } => Finding::failed(KAFKA_AUTH, "Kafka does not accept KAFKA_API_KEY")
            .saw(cause)
            .fix(mend),
        Trouble::Silent(cause) => Finding::failed(KAFKA_UNREACHABLE, format!("no broker of {servers} answers"))
            .saw(cause)
            .fix(
                "Check KAFKA_BOOTSTRAP_SERVERS, the network and the firewall: `nc -vz <broker> <port>` must connect\nif it does: \
                 whether that port speaks what KAFKA_SECURITY_PROTOCOL says",
            ),
        Trouble::Settings(cause) => Finding::failed(KAFKA_TLS, "no Kafka client can be made of these settings")
            .saw(cause)
            .fix("Check KAFKA_CA_FILE: a file that this process may read, with certificates in PEM"),
    }
}

fn topics(verdicts: &mut Verdicts, seen: &Seen, connection: &Connection) {
    let sources = || seen.topics.iter().filter(|topic| topic.role == Role::Source);
    missing(verdicts, TOPIC_MISSING, sources(), |name| {
        create(connection, name, PARTITIONS, None)
    });
    granted(verdicts, TOPIC_UNREADABLE, sources(), &Grant::Read);
    let before = verdicts.findings().len();
    for topic in &seen.topics {
        if let Ok(Visible::There { offline, .. }) = &topic.visible
            && !offline.is_empty()
        {
            let what = format!("{} has partitions that no broker leads", topic.name);
            let finding = Finding::failed(TOPIC_OFFLINE, what).saw(format!("partitions {offline:?}"));
            verdicts.push(
                finding.fix("Bring the brokers of these partitions back; nothing is lost meanwhile, and nothing moves"),
            );
        }
    }
    if verdicts.findings().len() == before {
        verdicts.push(Finding::ok(TOPIC_OFFLINE, "every partition that was seen has a leader"));
    }
    let before = verdicts.findings().len();
    let mut shortest = None;
    for topic in sources() {
        match &topic.settings {
            _ if !matches!(topic.visible, Ok(Visible::There { .. })) => {}
            Ok(settings) => {
                if let Some(finding) = of_retention(topic, settings, &seen.committed, connection) {
                    verdicts.push(finding);
                }
                let kept = settings.retention_ms.filter(|ms| *ms >= 0);
                shortest = [shortest, kept].into_iter().flatten().min();
            }
            Err(unseen) => {
                verdicts.push(of_unseen(TOPIC_RETENTION, topic, unseen));
                break;
            }
        }
    }
    if verdicts.findings().len() == before {
        let said = shortest.map_or("for ever".to_owned(), |ms| format!("{} at least", span(ms / 1000)));
        verdicts.push(match sources().any(|topic| topic.settings.is_ok()) {
            true => Finding::ok(TOPIC_RETENTION, format!("records are kept {said}")),
            false => Finding::unknown(TOPIC_RETENTION, format!("{} first", TOPIC_MISSING.name())),
        });
    }
}

/// Whether what nobody has read yet is in danger; and then whether it soon may be.
fn of_retention(
    topic: &Topic,
    settings: &Settings,
    committed: &Look<Vec<Committed>>,
    connection: &Connection,
) -> Option<Finding> {
    let name = &topic.name;
    let Some(retention_ms) = settings.retention_ms else {
        return Some(Finding::unknown(
            TOPIC_RETENTION,
            format!("the brokers do not tell retention.ms of {name}"),
        ));
    };
    let is_compacted = settings
        .cleanup_policy
        .as_deref()
        .is_some_and(|policy| policy.contains("compact"));
    let limit = settings.retention_bytes.filter(|bytes| *bytes >= 0);
    if is_compacted {
        let what =
            format!("{name} is compacted: of the states of a row that nobody has read yet only the last is left");
        let finding = Finding::warning(TOPIC_RETENTION, what).saw("cleanup.policy has compact");
        return Some(finding.fix(set(connection, name, "cleanup.policy=delete")));
    }
    if let Some(limit) = limit {
        let what = format!("{name} also forgets by size: nobody can say how long it keeps records");
        let finding = Finding::warning(TOPIC_RETENTION, what).saw(format!("retention.bytes is {}", bytes(limit)));
        return Some(finding.fix(set(connection, name, "retention.bytes=-1")));
    }
    if retention_ms < 0 {
        return None;
    }
    let kept = span(retention_ms / 1000);
    let longer = WEEK_MS.max(2 * retention_ms);
    let fix = set(connection, name, &format!("retention.ms={longer}"));
    let (in_danger, unsure) = match committed {
        Ok(committed) => in_danger(committed.iter().filter(|one| one.topic == *name)),
        Err(_) => (Vec::new(), true),
    };
    if !in_danger.is_empty() {
        let what = format!("{name} forgets records soon that were not read yet: it keeps them {kept}");
        let fix = format!("{fix}\nthen find out why nobody reads: docs/runbook.md#lag-grows");
        return Some(
            Finding::failed(TOPIC_RETENTION, what)
                .saw(in_danger.join("; "))
                .fix(fix),
        );
    }
    if retention_ms < SHORT_MS {
        let what = format!("{name} keeps records {kept}, less than a weekend and a half");
        let finding = Finding::warning(TOPIC_RETENTION, what).saw(format!("retention.ms={retention_ms}"));
        return Some(finding.fix(fix));
    }
    unsure.then(|| {
        let why = match committed {
            Err(Unseen::Unknown(why)) => format!(": {why}"),
            Err(Unseen::Refused) => format!(": {} first", GROUP_UNREADABLE.name()),
            Ok(_) => String::new(),
        };
        let what =
            format!("{name} keeps records {kept}; whether unread ones are older than most of it, nobody said{why}");
        Finding::unknown(TOPIC_RETENTION, what)
    })
}

/// What is not read yet and near its end, by partition; and whether some could not be judged.
fn in_danger<'a>(partitions: impl Iterator<Item = &'a Committed>) -> (Vec<String>, bool) {
    let (mut in_danger, mut unsure) = (Vec::new(), false);
    for one in partitions {
        let committed = one.found.committed.as_ref();
        // What lies before the log's begin is gone already, which is another finding.
        let next = committed
            .map_or(one.found.begin, |committed| committed.offset)
            .max(one.found.begin);
        if next >= one.found.end {
            continue;
        }
        match one.safe_from {
            None => unsure = true,
            Some(safe) => {
                let endangered = safe.min(one.found.end) - next;
                if endangered > 0 {
                    in_danger.push(format!(
                        "partition {}: {endangered} from offset {next} on",
                        one.partition
                    ));
                }
            }
        }
    }
    (in_danger, unsure)
}

fn letters(verdicts: &mut Verdicts, seen: &Seen, connection: &Connection) {
    let letters = || seen.topics.iter().filter(|topic| topic.role == Role::DeadLetters);
    let largest = seen
        .topics
        .iter()
        .filter(|topic| topic.role == Role::Source)
        .filter_map(|topic| topic.settings.as_ref().ok()?.max_message_bytes)
        .max();
    missing(verdicts, DLQ_MISSING, letters(), |name| {
        create(connection, name, 1, largest.map(takes_letters))
    });
    granted(verdicts, DLQ_UNWRITABLE, letters(), &Grant::Write);
    // Topics of which the same is to be said stand together.
    let mut told: Vec<(Wrong, Vec<&str>)> = Vec::new();
    for topic in letters().filter(|topic| matches!(topic.visible, Ok(Visible::There { .. }))) {
        match &topic.settings {
            Ok(settings) => {
                let Some(wrong) = of_letters(settings, largest) else {
                    continue;
                };
                match told.iter_mut().find(|(known, _)| *known == wrong) {
                    Some((_, names)) => names.push(&topic.name),
                    None => told.push((wrong, vec![&topic.name])),
                }
            }
            Err(unseen) => {
                verdicts.push(of_unseen(DLQ_SETTINGS, topic, unseen));
                return;
            }
        }
    }
    verdicts.push(if !told.is_empty() {
        let saw: Vec<String> = told
            .iter()
            .map(|(wrong, names)| format!("{}: {}", names.join(", "), wrong.said))
            .collect();
        let each = |(wrong, names): &(Wrong, Vec<&str>)| -> Vec<String> {
            names.iter().map(|name| set(connection, name, &wrong.mend)).collect()
        };
        let fix: Vec<String> = told.iter().flat_map(each).collect();
        Finding::warning(DLQ_SETTINGS, "letters may be lost, or be too large for their topic")
            .saw(saw.join("; "))
            .fix(fix.join("\n"))
    } else if letters().any(|topic| topic.settings.is_ok()) {
        Finding::ok(
            DLQ_SETTINGS,
            "letters are kept, and are never too large for their topic",
        )
    } else {
        Finding::unknown(DLQ_SETTINGS, format!("{} first", DLQ_MISSING.name()))
    });
}

/// What would go wrong with a topic's settings, and those that mend it.
#[derive(PartialEq, Eq)]
struct Wrong {
    said: String,
    mend: String,
}

/// The largest letter: the largest record, and its reason.
const fn takes_letters(largest: i64) -> i64 {
    largest + 4 * HEADROOM_BYTES
}

fn of_letters(settings: &Settings, largest: Option<i64>) -> Option<Wrong> {
    let (mut wrong, mut wanted) = (Vec::new(), Vec::new());
    if settings
        .cleanup_policy
        .as_deref()
        .is_some_and(|policy| policy.contains("compact"))
    {
        wrong.push("compaction takes letters whose row has a newer one".to_owned());
        wanted.push("cleanup.policy=delete".to_owned());
    }
    if let (Some(takes), Some(largest)) = (settings.max_message_bytes, largest)
        && takes < largest + HEADROOM_BYTES
    {
        let (takes, comes) = (bytes(takes), bytes(largest));
        wrong.push(format!(
            "it takes {takes}, and a letter is a record of up to {comes} and its reason"
        ));
        wanted.push(format!("max.message.bytes={}", takes_letters(largest)));
    }
    if let Some(kept) = settings
        .retention_ms
        .filter(|kept| (0..SHORT_LETTERS_MS).contains(kept))
    {
        wrong.push(format!("it keeps them {}", span(kept / 1000)));
        wanted.push(format!("retention.ms={}", 4 * WEEK_MS));
    }
    (!wrong.is_empty()).then(|| Wrong {
        said: wrong.join(", "),
        mend: wanted.join(","),
    })
}

/// One finding with all commands: an operator pastes them together.
fn missing<'a>(
    verdicts: &mut Verdicts,
    id: Id,
    topics: impl Iterator<Item = &'a Topic>,
    create: impl Fn(&str) -> String,
) {
    let (mut lacking, mut unknown, mut counts) = (Vec::new(), None, Vec::new());
    for topic in topics {
        match &topic.visible {
            Ok(Visible::Missing) => lacking.push(topic.name.as_str()),
            Ok(Visible::There { partitions, .. }) => counts.push(*partitions),
            // A finding of its own.
            Err(Unseen::Refused) => unknown = Some(format!("{} is hidden from this account", topic.name)),
            Err(Unseen::Unknown(why)) => unknown = Some(format!("{}: {why}", topic.name)),
        }
    }
    if !lacking.is_empty() {
        let commands: Vec<String> = lacking.iter().map(|name| create(name)).collect();
        let what = format!(
            "{} missing in Kafka: {}",
            if lacking.len() == 1 { "a topic is" } else { "topics are" },
            lacking.join(", ")
        );
        let fix = format!(
            "{}\nor correct TOPIC_PREFIX, if they have another prefix",
            commands.join("\n")
        );
        verdicts.push(Finding::failed(id, what).fix(fix));
    } else if let Some(why) = unknown {
        verdicts.push(Finding::unknown(id, why));
    } else {
        let most = counts.iter().max().copied().unwrap_or(0);
        let fewest = counts.iter().min().copied().unwrap_or(0);
        let what = format!("{} topics are there, of {fewest} to {most} partitions", counts.len());
        verdicts.push(Finding::ok(id, what));
    }
}

fn granted<'a>(
    verdicts: &mut Verdicts,
    id: Id,
    topics: impl Iterator<Item = &'a Topic>,
    grant: &dyn Fn(String) -> Grant,
) {
    let (mut lacking, mut hidden, mut unknown, mut asked, mut there) = (Vec::new(), false, Vec::new(), 0, 0);
    for topic in topics {
        there += usize::from(matches!(topic.visible, Ok(Visible::There { .. })));
        match (&topic.visible, &topic.right) {
            (Err(Unseen::Refused), _) => {
                hidden = true;
                lacking.push(grant(topic.name.clone()));
            }
            (_, Some(Right::Refused)) => lacking.push(grant(topic.name.clone())),
            (_, Some(Right::Unknown(why))) => unknown.push(format!("{}: {why}", topic.name)),
            (_, Some(Right::Granted)) => asked += 1,
            (_, None) => {}
        }
    }
    if !lacking.is_empty() {
        let names: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let mut commands: Vec<String> = lacking.iter().map(Grant::command).collect();
        if hidden {
            // A broker does not tell the two apart, lest strangers learn which topics exist.
            commands.push(
                "a topic that does not exist looks the same as one without a grant: check TOPIC_PREFIX too".to_owned(),
            );
        }
        let what = format!("the account of KAFKA_API_KEY lacks {}", names.join(", "));
        let saw = "the brokers answer TOPIC_AUTHORIZATION_FAILED";
        verdicts.push(Finding::failed(id, what).saw(saw).fix(commands.join("\n")));
    } else if !unknown.is_empty() {
        verdicts.push(Finding::unknown(id, unknown.join("; ")));
    } else if asked > 0 {
        verdicts.push(Finding::ok(id, format!("granted on {asked} topics")));
    } else if there > 0 {
        verdicts.push(Finding::ok(
            id,
            "without KAFKA_API_KEY there is no account that could lack a grant",
        ));
    } else {
        verdicts.push(Finding::unknown(id, "no topic is there that it could be tried on"));
    }
}

fn of_unseen(id: Id, topic: &Topic, unseen: &Unseen) -> Finding {
    match unseen {
        Unseen::Refused => Finding::unknown(id, "the account may not ask for the settings of topics")
            .fix(Grant::Describe(topic.name.clone()).command()),
        Unseen::Unknown(why) => Finding::unknown(id, format!("{}: {why}", topic.name)),
    }
}

/// Whose tools reach these brokers: with an API key those of Confluent Cloud.
fn create(connection: &Connection, topic: &str, partitions: usize, max_message_bytes: Option<i64>) -> String {
    let settings = max_message_bytes.map_or_else(String::new, |most| format!(" --config max.message.bytes={most}"));
    if connection.api_key.is_some() {
        return format!("confluent kafka topic create {topic} --partitions {partitions}{settings}");
    }
    let servers = &connection.bootstrap_servers;
    format!("kafka-topics --bootstrap-server {servers} --create --topic {topic} --partitions {partitions}{settings}")
}

fn set(connection: &Connection, topic: &str, settings: &str) -> String {
    if connection.api_key.is_some() {
        return format!("confluent kafka topic update {topic} --config {settings}");
    }
    let servers = &connection.bootstrap_servers;
    format!(
        "kafka-configs --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config {settings}"
    )
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
