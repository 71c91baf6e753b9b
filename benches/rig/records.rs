//! The records: purchases as the connector writes them, every one a new row of a new member.
//!
//! A bare envelope has about 900 bytes. A wrapped one is the same behind the schema that a real connector wrote for this
//! table, taken from the recorded fixtures.

use std::fmt::Write as _;

use anyhow::Context as _;
use crm_event_processors::config::topic;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::rows::Table;

/// 2026-11-05T17:30:00Z.
const COMMIT_MS: i64 = 1_793_899_800_000;
/// No change has the number 0.
const FIRST_LSN: u64 = 30_000_000;

/// As it stands in a text within a text.
const LINE: &str = r#", {\"sku\": \"C-3003\", \"n\": 1}"#;

const RECORDED: &str = include_str!("../../tests/fixtures/debezium/3.6.3.Final/schema_payload.jsonl");

/// One log of purchases, under a prefix of its own so that each case subscribes to just its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) prefix: &'static str,
    pub(crate) partitions: i32,
    pub(crate) records: u32,
    pub(crate) wrapped: bool,
}

/// What else the records of a log have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// A bare envelope is filled up to about so many bytes, with lines of the receipt.
    pub(crate) bytes: usize,
    /// So many members take turns; 0: every row is of a new one.
    pub(crate) members: u32,
}

/// Writes records.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `{"schema":…,"payload":`, or nothing.
    schema: String,
    /// Lines of the receipt that fill it up.
    lines: String,
    members: u32,
    value: String,
    key: String,
}

impl Log {
    /// The purchases, the other tables (empty) and the dead letters.
    pub(crate) fn topics(&self) -> Vec<(String, i32)> {
        let partitions = |table: &Table| match table {
            Table::PurchaseLedger => self.partitions,
            _ => 1,
        };
        let tables = Table::ALL
            .iter()
            .map(|table| (topic(self.prefix, *table), partitions(table)));
        let letters = Queue::ALL.iter().map(|queue| (queue.topic(self.prefix), 1));
        tables.chain(letters).collect()
    }

    pub(crate) fn purchases(&self) -> String {
        topic(self.prefix, Table::PurchaseLedger)
    }

    pub(crate) fn partition_of(&self, row: u32) -> i32 {
        i32::try_from(i64::from(row) % i64::from(self.partitions)).unwrap_or(0)
    }
}

impl Writer {
    pub(crate) fn new(wrapped: bool) -> anyhow::Result<Self> {
        Self::shaped(wrapped, Shape::default())
    }

    pub(crate) fn shaped(wrapped: bool, shape: Shape) -> anyhow::Result<Self> {
        let mut schema = String::new();
        if wrapped {
            let line = RECORDED.lines().next().context("a recorded record")?;
            let line: serde_json::Value = serde_json::from_str(line)?;
            let value = line["payload"].as_str().context("its value")?;
            let (recorded, _) = value.split_once(r#""payload":{"before""#).context("its schema")?;
            write!(schema, r#"{recorded}"payload":"#)?;
        }
        let mut writer = Self {
            schema,
            lines: String::new(),
            members: shape.members,
            value: String::new(),
            key: String::new(),
        };
        let (_key, plain) = writer.write(0)?;
        let plain = plain.len() - writer.schema.len();
        writer.lines = LINE.repeat(shape.bytes.saturating_sub(plain) / LINE.len());
        Ok(writer)
    }

    /// Key and value of one row's first change.
    pub(crate) fn write(&mut self, row: u32) -> anyhow::Result<(&str, &str)> {
        let Self {
            schema,
            lines,
            members,
            value,
            key,
        } = self;
        let member = if *members == 0 { row } else { row % *members };
        let lsn = lsn(row);
        let (tx, cents) = (1000 + u64::from(row), row % 100);
        let end = if schema.is_empty() { "" } else { "}" };
        key.clear();
        write!(key, r#"{{"id":"p-{row:08}"}}"#)?;
        value.clear();
        write!(
            value,
            "{schema}{{\"before\":null,\"after\":{{\"id\":\"p-{row:08}\",\"user_id\":\"u-{member:08}\",\"merchant_id\":\"{MERCHANT}\",\
             \"final_amount\":\"120.{cents:02}\",\"refunded_amount\":\"0.00\",\"status\":\"completed\",\"earn_currency\":true,\
             \"created_at\":\"2026-11-05T17:29:{:02}.123456Z\",\"completed_at\":\"2026-11-05T17:30:00.123456Z\",\
             \"metadata\":\"{{\\\"channel\\\": \\\"till\\\", \\\"shop\\\": \\\"Bangkok, Siam Square\\\", \\\"cashier\\\": {row}, \
             \\\"lines\\\": [{{\\\"sku\\\": \\\"A-1001\\\", \\\"n\\\": 2}}, {{\\\"sku\\\": \\\"B-2002\\\", \\\"n\\\": 1}}{lines}]}}\"}},\
             \"source\":{{\"version\":\"3.6.3.Final\",\"connector\":\"postgresql\",\"name\":\"crm\",\"ts_ms\":{COMMIT_MS},\
             \"snapshot\":\"false\",\"db\":\"crm\",\"sequence\":\"[\\\"{lsn}\\\",\\\"{lsn}\\\"]\",\"ts_us\":{COMMIT_MS}207,\
             \"ts_ns\":{COMMIT_MS}207000,\"schema\":\"public\",\"table\":\"purchase_ledger\",\"txId\":{tx},\"lsn\":{lsn},\
             \"xmin\":null,\"origin\":null,\"origin_lsn\":null}},\"transaction\":null,\"op\":\"c\",\"ts_ms\":{COMMIT_MS},\
             \"ts_us\":{COMMIT_MS}808,\"ts_ns\":{COMMIT_MS}808322}}{end}",
            row % 60,
        )?;
        Ok((key, value))
    }
}

fn lsn(row: u32) -> u64 {
    FIRST_LSN + u64::from(row) * 8
}

/// Who owes an event for a purchase, in the order of all consumers.
pub(crate) const READERS: [Consumer; 3] = [Consumer::Currency, Consumer::Tier, Consumer::Mission];

/// The whole id of the event that this row's change must lead to at one of its readers.
pub(crate) fn event_id(consumer: Consumer, row: u32) -> String {
    let effect = if consumer == Consumer::Currency {
        "award"
    } else {
        "evaluation"
    };
    let (consumer, lsn) = (consumer.name(), lsn(row));
    format!("{consumer}:{effect}:purchase_ledger:p-{row:08}:{lsn}")
}

/// The ids of all events that so many rows owe, at those of these consumers that read purchases.
pub(crate) fn owed(consumers: &str, rows: u32) -> Vec<String> {
    let named = |consumer: &Consumer| consumers.split(',').any(|name| name == consumer.name());
    let readers: Vec<Consumer> = READERS.into_iter().filter(named).collect();
    let ids = |row| readers.iter().map(move |consumer| event_id(*consumer, row));
    (0..rows).flat_map(ids).collect()
}

/// The row that an event's id speaks of; whether the rest of the id is right is another question.
pub(crate) fn row_of(id: &str) -> Option<u32> {
    id.split(':').nth(3)?.strip_prefix("p-")?.parse().ok()
}

const MERCHANT: &str = "m-1";

/// Every purchase is worth an award, an evaluation of the tier and one of a mission: one event for each of its readers.
pub(crate) const PROGRAM: &str = r#"{"programs": [{"merchant_id": "m-1", "time_zone": "Asia/Bangkok", "versions": [{
    "rev": 3, "effective_from": "2020-01-01",
    "currency": {"rate": "0.1", "rounding": "floor", "minimum": "1", "activation": {"kind": "rolling_days", "days": 30}},
    "tiers": {"ladder": [{"name": "gold", "threshold": "1000"}], "metric": "spend",
              "window": {"kind": "rolling_months", "months": 12}, "timing": "immediate"},
    "missions": [{"id": "spend", "trigger": {"kind": "purchase_total"}, "target": "500", "period": "lifetime"}],
    "refund_policy": "only_pending"}]}]}"#;
