//! What a connector must be set to so that the worker loses nothing: takes a configuration, gives findings with their reasons.
//!
//! Every rule is about one key, which is its name. The table below is the whole of it; `connectors/README.md` says the same for
//! people, and a test holds both templates and that table to each other. A value that is not known here, because it is not filled
//! in yet or stands where only Kafka Connect can look, is not judged, and [`unjudged`] names its key.

use std::collections::BTreeSet;

use super::config::{Config, has_placeholder, is_mask, shown};
use super::template::Platform;
use crate::rows::Table;

/// A rule that a configuration breaks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub key: String,
    pub severity: Severity,
    /// What is set there; nothing if nothing is. Never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    pub wanted: String,
    pub why: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Loses, doubles or corrupts something, or does not run.
    Error,
    Warning,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub config: &'a Config,
    pub platform: Platform,
    /// The worker's `TOPIC_PREFIX`.
    pub topic_prefix: &'a str,
}

struct Rule {
    on: On,
    key: &'static str,
    must: Must,
    severity: Severity,
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Both,
    Confluent,
    Connect,
}

enum Must {
    Be(&'static str),
    /// Its default is the same.
    BeOrUnset(&'static str),
    BeUnset,
    /// What is wanted, if it does not hold.
    Hold(fn(&Question<'_>) -> Option<String>),
}

/// What a key is set to.
enum Value<'a> {
    Unset,
    /// A placeholder of ours; on Kafka Connect also the name of a place where it looks itself.
    Unknown,
    Text(&'a str),
}

use Must::{Be, BeOrUnset, BeUnset, Hold};
use On::{Both, Confluent, Connect};
use Severity::{Error, Warning};

const JSON_CONVERTER: &str = "org.apache.kafka.connect.json.JsonConverter";
/// Five minutes: the age at which a quiet slot is worth a look.
const LONGEST_HEARTBEAT_MS: u64 = 300_000;

const fn rule(on: On, key: &'static str, must: Must, severity: Severity, why: &'static str) -> Rule {
    Rule {
        on,
        key,
        must,
        severity,
        why,
    }
}

#[rustfmt::skip] // one line a rule and one for its reason: a table
const RULES: [Rule; 53] = [
    rule(Both, "connector.class", Hold(class), Error,
        "each platform has its own connector; the first version of Confluent's has reached its end of life"),
    rule(Both, "name", Hold(name), Error, "offsets belong to the name: without its own a connector has no memory"),
    rule(Both, "tasks.max", BeOrUnset("1"), Error, "a slot has one reader"),

    // What is captured.
    rule(Both, "table.include.list", Hold(tables), Error,
        "a ledger that is not named never arrives; one that is named but not published is snapshotted once and then silent"),
    rule(Both, "table.exclude.list", BeUnset, Error, "the list of what is captured is the only one; both together are refused"),
    rule(Both, "schema.include.list", BeUnset, Error, "it would leave ledgers out that table.include.list names"),
    rule(Both, "schema.exclude.list", BeUnset, Error, "it would leave ledgers out that table.include.list names"),
    rule(Both, "column.include.list", BeUnset, Warning, "a decision needs its columns: a required one that is missing is a dead letter"),
    rule(Both, "column.exclude.list", BeUnset, Warning, "a decision needs its columns: a required one that is missing is a dead letter"),
    rule(Both, "column.mask", Hold(columns), Warning, "decisions would be made from values that were changed"),
    rule(Both, "skipped.operations", Hold(skipped), Error, "what is skipped is lost: only truncates (t) may be"),
    rule(Both, "snapshot.include.collection.list", BeUnset, Error, "after a lost slot the other ledgers would not be snapshotted"),
    rule(Both, "snapshot.select.statement.overrides", BeUnset, Error, "after a lost slot rows would be missing from the snapshot"),

    // Where it goes on.
    rule(Both, "snapshot.mode", Be("when_needed"), Error,
        "after a lost slot the connector snapshots again by itself; `never` and `no_data` go on behind a gap, `initial` stops"),
    rule(Both, "slot.name", Be("crm_cdc_slot"), Error,
        "the doctor and the runbook look for this name; the slot under another name holds back WAL for ever"),
    rule(Both, "slot.drop.on.stop", BeOrUnset("false"), Error, "every restart would lose the place, and snapshot everything"),
    rule(Both, "lsn.flush.mode", BeOrUnset("connector"), Error, "a position that nobody flushes holds back WAL until the slot is lost"),
    rule(Both, "flush.lsn.source", BeOrUnset("true"), Error,
        "the old name of lsn.flush.mode: with `false` nobody flushes, and WAL is held back until the slot is lost"),
    rule(Both, "offset.mismatch.strategy", Hold(mismatch), Error,
        "where the slot is ahead, `trust_slot` and `trust_greater_lsn` leave out in silence what lies between"),
    rule(Connect, "plugin.name", Be("pgoutput"), Error, "the only plugin that every PostgreSQL has; Debezium's default is another one"),
    rule(Both, "publication.name", Be("crm_cdc_publication"), Error, "the publication that `migrate` makes and the doctor looks at"),
    rule(Both, "publication.autocreate.mode", Be("disabled"), Error,
        "a migration owns the publication: the default publishes every table of the database"),
    rule(Both, "heartbeat.interval.ms", Hold(heartbeat_interval), Error,
        "while the ledgers are quiet the slot would hold back the WAL of the whole server until it is lost"),
    rule(Both, "heartbeat.action.query", Hold(heartbeat_query), Error,
        "a heartbeat moves the slot only if it writes a row of a published table each time; an update alone finds no row in a new one"),
    rule(Both, "signal.data.collection", Be("public.dbz_signal"), Warning, "without it nobody can ask for a part once more after a gap"),

    // What arrives.
    rule(Both, "topic.prefix", Hold(prefix), Error, "the worker reads <TOPIC_PREFIX>.public.<table>; a new prefix starts without offsets"),
    rule(Both, "topic.delimiter", BeOrUnset("."), Error, "the worker reads <TOPIC_PREFIX>.public.<table>"),
    rule(Both, "topic.naming.strategy", BeOrUnset("io.debezium.schema.SchemaTopicNamingStrategy"), Error,
        "the worker reads <TOPIC_PREFIX>.public.<table>"),
    rule(Both, "message.key.columns", BeUnset, Error, "changes of one row keep their order only under the row's primary key"),
    rule(Both, "after.state.only", BeOrUnset("false"), Error,
        "without op and before, a snapshot row, an insert and an update look the same"),
    rule(Both, "transforms", BeUnset, Error,
        "the worker reads the full envelope in the topic of the table; a transform that flattens or routes changes that"),
    rule(Both, "decimal.handling.mode", Be("string"), Error,
        "money arrives as text; `precise` is base64 whose scale is only in the schema, `double` loses cents"),
    rule(Both, "time.precision.mode", BeOrUnset("adaptive"), Error, "what the worker reads; `connect` cuts microseconds off"),
    rule(Both, "unavailable.value.placeholder", BeOrUnset("__debezium_unavailable_value"), Error,
        "the worker knows a column that was not sent by this text; another one would be taken for a value"),
    rule(Both, "value.converter.replace.null.with.default", Be("false"), Error,
        "a NULL would arrive as the column's default: an amount that nobody entered looks entered"),
    rule(Confluent, "key.converter.schemas.enable", BeOrUnset("false"), Warning, "the schema in every record is many times larger than the row"),
    rule(Connect, "key.converter.schemas.enable", Be("false"), Warning, "the schema in every record is many times larger than the row"),
    rule(Both, "value.converter.schemas.enable", Be("false"), Warning, "the schema in every record is many times larger than the row"),
    rule(Confluent, "output.key.format", BeOrUnset("JSON"), Error, "the worker reads plain JSON"),
    rule(Confluent, "output.data.format", BeOrUnset("JSON"), Error, "the worker reads plain JSON, not the registry's format"),
    rule(Connect, "key.converter", Be(JSON_CONVERTER), Error, "the worker reads plain JSON; unset, the Connect worker decides"),
    rule(Connect, "value.converter", Be(JSON_CONVERTER), Error, "the worker reads plain JSON; unset, the Connect worker decides"),
    rule(Both, "tombstones.on.delete", BeOrUnset("true"), Warning, "a compacted topic forgets a deleted row only by its tombstone"),
    rule(Connect, "provide.transaction.metadata", BeOrUnset("false"), Warning, "two more records a transaction, which nobody reads"),
    rule(Both, "errors.tolerance", BeOrUnset("none"), Error, "with `all` a source drops what it cannot convert, in silence"),
    rule(Both, "event.processing.failure.handling.mode", BeOrUnset("fail"), Error, "a change that cannot be read would be left out, in silence"),

    // How it comes in.
    rule(Both, "database.hostname", Hold(hostname), Error, "the replication protocol passes no pooler: the database's own host is needed"),
    rule(Both, "database.port", Hold(port), Error, "the replication protocol passes no pooler, and 6543 is the port of one"),
    rule(Both, "database.user", Hold(|question| given(question, "database.user", "the role that may replicate")), Error,
        "the connector signs in to the database"),
    rule(Both, "database.dbname", Hold(|question| given(question, "database.dbname", "the database of the ledgers")), Error,
        "a slot is of one database"),
    rule(Both, "database.sslmode", Hold(ssl_mode), Error, "anything less lets whoever is in between read the ledgers and the password"),
    rule(Confluent, "kafka.auth.mode", Be("SERVICE_ACCOUNT"), Warning, "a service account needs no Kafka secret in the configuration"),
    rule(Confluent, "kafka.service.account.id", Hold(account), Error, "the account with which the connector writes to Kafka"),
];

/// What is wrong, errors first.
#[must_use]
pub fn check(question: &Question<'_>) -> Vec<Finding> {
    let config = question.config;
    let masked = config.iter().filter(|(_, value)| is_mask(value)).map(|(key, value)| Finding {
        key: key.to_owned(),
        severity: Error,
        found: Some(value.to_owned()),
        wanted: "the value itself".to_owned(),
        why: "it was read from a platform or from an output that masks secrets; sent back, the asterisks become the value",
    });
    let broken = RULES
        .iter()
        .filter(|rule| rule.is_on(question.platform))
        .filter_map(|rule| {
            let wanted = rule.broken_by(question)?;
            Some(Finding {
                key: rule.key.to_owned(),
                severity: rule.severity,
                found: config.get(rule.key).map(|value| shown(rule.key, value).to_owned()),
                wanted,
                why: rule.why,
            })
        });
    let mut findings: Vec<Finding> = masked.chain(broken).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The keys whose values are not known here, so that no rule was held to them.
#[must_use]
pub fn unjudged<'a>(question: &Question<'a>) -> Vec<&'a str> {
    let keys = question.config.iter().map(|(key, _)| key);
    keys.filter(|key| matches!(question.value(key), Value::Unknown))
        .collect()
}

/// Why a key is set to what it is set to; if a rule is about it.
#[must_use]
pub fn why(key: &str, platform: Platform) -> Option<&'static str> {
    let rule = RULES.iter().find(|rule| rule.key == key && rule.is_on(platform))?;
    Some(rule.why)
}

/// Takes what an operator accepts out of the errors.
pub fn accept(findings: &mut [Finding], accepted: &[String]) {
    for finding in findings.iter_mut().filter(|finding| accepted.contains(&finding.key)) {
        finding.severity = Warning;
    }
    findings.sort_by_key(|finding| finding.severity);
}

/// Whether a rule has this name.
#[must_use]
pub fn is_known(key: &str) -> bool {
    RULES.iter().any(|rule| rule.key == key)
}

impl Rule {
    fn is_on(&self, platform: Platform) -> bool {
        match self.on {
            Both => true,
            Confluent => platform == Platform::ConfluentCloud,
            Connect => platform == Platform::KafkaConnect,
        }
    }

    /// What it wants, if the configuration is not so.
    fn broken_by(&self, question: &Question<'_>) -> Option<String> {
        let value = question.value(self.key);
        match (&self.must, value) {
            (Hold(wanted), _) => wanted(question),
            (_, Value::Unknown) | (BeOrUnset(_) | BeUnset, Value::Unset) => None,
            (Be(wanted) | BeOrUnset(wanted), Value::Text(text)) => (text != *wanted).then(|| (*wanted).to_owned()),
            (Be(wanted), Value::Unset) => Some((*wanted).to_owned()),
            (BeUnset, Value::Text(_)) => Some("unset".to_owned()),
        }
    }
}

impl<'a> Question<'a> {
    fn value(&self, key: &str) -> Value<'a> {
        match self.config.get(key).map(str::trim) {
            None | Some("") => Value::Unset,
            Some(text) if self.is_unknown(text) => Value::Unknown,
            Some(text) => Value::Text(text),
        }
    }

    /// Confluent Cloud looks nowhere: what we do not fill arrives as it is written.
    fn is_unknown(&self, text: &str) -> bool {
        match self.platform {
            Platform::ConfluentCloud => has_placeholder(text),
            Platform::KafkaConnect => text.contains("${"),
        }
    }

    /// What is wanted, unless the text of this key is fine; also if there is none.
    fn unless(&self, key: &str, wanted: &str, fine: impl FnOnce(&str) -> bool) -> Option<String> {
        let is_fine = match self.value(key) {
            Value::Unset => false,
            Value::Unknown => true,
            Value::Text(text) => fine(text),
        };
        (!is_fine).then(|| wanted.to_owned())
    }
}

fn class(question: &Question<'_>) -> Option<String> {
    let wanted = question.platform.class();
    question.unless("connector.class", wanted, |class| class == wanted)
}

fn name(question: &Question<'_>) -> Option<String> {
    // Confluent Cloud takes no longer one, and a name is part of an address.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    question.unless("name", "at most 64 letters, digits, `-`, `_` and `.`", |name| {
        name.len() <= 64 && name.chars().all(is_plain)
    })
}

fn tables(question: &Question<'_>) -> Option<String> {
    let wanted: BTreeSet<String> = Table::ALL
        .iter()
        .map(|table| format!("public.{}", table.name()))
        .collect();
    let list = Table::ALL.map(|table| format!("public.{}", table.name())).join(",");
    question.unless("table.include.list", &list, |text| {
        // Each is a regular expression; one that stands for several cannot be told from one that is wrong.
        let named: BTreeSet<String> = text.split(',').map(|table| table.trim().replace("\\.", ".")).collect();
        named == wanted
    })
}

fn columns(question: &Question<'_>) -> Option<String> {
    const CHANGE: [&str; 2] = ["column.mask.", "column.truncate."];
    let mut keys = question.config.iter().map(|(key, _)| key);
    let key = keys.find(|key| CHANGE.iter().any(|begin| key.starts_with(begin)))?;
    Some(format!("no {key}"))
}

fn skipped(question: &Question<'_>) -> Option<String> {
    match question.value("skipped.operations") {
        Value::Text(text) if text.split(',').any(|op| !matches!(op.trim(), "t" | "none")) => {
            Some("t, or unset".to_owned())
        }
        _ => None,
    }
}

fn heartbeat_interval(question: &Question<'_>) -> Option<String> {
    question.unless("heartbeat.interval.ms", "1 to 300000, say 10000", |text| {
        text.parse()
            .is_ok_and(|ms: u64| (1..=LONGEST_HEARTBEAT_MS).contains(&ms))
    })
}

fn heartbeat_query(question: &Question<'_>) -> Option<String> {
    const INTO: &str = "insert into public.dbz_heartbeat ";
    // Without the second half, the first beat is the last one that is written.
    let wanted = "insert into public.dbz_heartbeat (...) values (...) on conflict (id) do update set ...";
    question.unless("heartbeat.action.query", wanted, |query| {
        let query = query.to_ascii_lowercase().replace('(', " (");
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        query.starts_with(INTO) && query.contains(" do update ")
    })
}

fn mismatch(question: &Question<'_>) -> Option<String> {
    let jumps = matches!(
        question.value("offset.mismatch.strategy"),
        Value::Text("trust_slot" | "trust_greater_lsn")
    );
    jumps.then(|| "trust_offset, no_validation or unset".to_owned())
}

fn prefix(question: &Question<'_>) -> Option<String> {
    question.unless("topic.prefix", question.topic_prefix, |prefix| {
        prefix == question.topic_prefix
    })
}

fn hostname(question: &Question<'_>) -> Option<String> {
    question.unless("database.hostname", "the database's own host", |host| {
        !host.to_ascii_lowercase().contains("pooler")
    })
}

fn port(question: &Question<'_>) -> Option<String> {
    question.unless("database.port", "the database's own port, usually 5432", |port| {
        port.parse().is_ok_and(|port: u16| port != 0 && port != 6543)
    })
}

fn given(question: &Question<'_>, key: &str, wanted: &str) -> Option<String> {
    question.unless(key, wanted, |_| true)
}

fn ssl_mode(question: &Question<'_>) -> Option<String> {
    const KEY: &str = "database.sslmode";
    if question.platform == Platform::ConfluentCloud {
        // It knows no stricter one, and no host is its own.
        return question.unless(KEY, "require", |mode| mode == "require");
    }
    match (question.value("database.hostname"), question.value(KEY)) {
        (Value::Text("localhost" | "127.0.0.1" | "::1"), _) | (Value::Unknown, Value::Unset) => None,
        _ => question.unless(KEY, "require, verify-ca or verify-full", |mode| {
            matches!(mode, "require" | "verify-ca" | "verify-full")
        }),
    }
}

fn account(question: &Question<'_>) -> Option<String> {
    match question.value("kafka.auth.mode") {
        Value::Text("SERVICE_ACCOUNT") => {
            question.unless("kafka.service.account.id", "sa-...", |id| id.starts_with("sa-"))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
