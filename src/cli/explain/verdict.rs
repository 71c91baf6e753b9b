//! What becomes of one record: takes a line, gives an [`Explanation`] by the same decode, route and decide as the worker.
//!
//! It never does I/O and never reads a clock. What depends on other records (dedupe, superseding) is not its business.

use std::borrow::Cow;

use jiff::Timestamp;

use super::message::{BadLine, Message};
use crate::config::Deciding;
use crate::consumers::{self, Consumer, Decision, Effect, Rules};
use crate::dead_letters::Queue;
use crate::debezium::{Control, DecimalMode, Decoded, Decoder, Op};
use crate::inngest::{EventBatch, Limits};
use crate::record::RecordView;
use crate::rows::{self, Routed, RowChange};

/// The reason of every consumer for a table that none of them reads.
const UNREAD: &str = "no_consumer_reads_table";

/// Explains records one after another; learns schema prefixes as the worker does.
#[derive(Debug)]
pub(in crate::cli) struct Explainer {
    decoder: Decoder,
    decimals: DecimalMode,
    consumers: Vec<Consumer>,
    topic_prefix: String,
    rules: Rules,
    now: Timestamp,
}

/// What a record is and what comes of it.
#[derive(Debug)]
pub(in crate::cli) struct Explanation {
    pub(in crate::cli) topic: Option<String>,
    pub(in crate::cli) partition: Option<i32>,
    pub(in crate::cli) offset: Option<i64>,
    pub(in crate::cli) key: Option<Vec<u8>>,
    /// The line was the value itself.
    pub(in crate::cli) bare: bool,
    pub(in crate::cli) facts: Facts,
    pub(in crate::cli) fate: Fate,
}

/// What is known of the change; as much as was read before it failed.
#[derive(Debug, Default)]
pub(in crate::cli) struct Facts {
    pub(in crate::cli) op: Option<Op>,
    pub(in crate::cli) table: Option<String>,
    pub(in crate::cli) commit_ms: Option<i64>,
    pub(in crate::cli) row_id: Option<String>,
    pub(in crate::cli) version: Option<String>,
}

#[derive(Debug)]
pub(in crate::cli) enum Fate {
    BadLine(BadLine),
    Control(Control),
    /// Dead before the fan-out.
    Dead(DeadLetter),
    /// One a consumer, but two where its decision has two effects.
    Decided(Vec<(Consumer, Verdict)>),
}

#[derive(Debug)]
pub(in crate::cli) struct DeadLetter {
    /// The topic.
    pub(in crate::cli) queue: String,
    pub(in crate::cli) reason: &'static str,
    pub(in crate::cli) detail: String,
}

/// What one consumer does, or what becomes of one of its effects.
#[derive(Debug)]
pub(in crate::cli) enum Verdict {
    Ignore(&'static str),
    Deliver(Delivery),
    Refuse(DeadLetter),
}

#[derive(Debug)]
pub(in crate::cli) struct Delivery {
    pub(in crate::cli) reason: &'static str,
    pub(in crate::cli) effect_key: String,
    pub(in crate::cli) claim: String,
    /// The event as it would be sent, compact JSON.
    pub(in crate::cli) event: String,
}

/// From the least to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Outcome {
    Ignored,
    Control,
    Event,
    DeadLetter,
    /// No record at all; as bad as a dead letter.
    BadLine,
}

impl Explainer {
    pub(in crate::cli) fn new(deciding: &Deciding, rules: Rules, now: Timestamp) -> Self {
        Self {
            decoder: Decoder::default(),
            decimals: deciding.decimals,
            consumers: deciding.consumers.clone(),
            topic_prefix: deciding.topic_prefix.clone(),
            rules,
            now,
        }
    }

    pub(in crate::cli) fn explain(&mut self, line: &[u8]) -> Explanation {
        let message = match Message::parse(line) {
            Ok(message) => message,
            Err(bad) => return Explanation::bad(bad),
        };
        let mut facts = Facts::default();
        let fate = message.with(|record| self.read(record, &mut facts));
        Explanation {
            topic: message.topic,
            partition: message.partition,
            offset: message.offset,
            key: message.key.map(Cow::into_owned),
            bare: message.bare,
            facts,
            fate,
        }
    }

    /// The same of a record that these consumers read.
    pub(in crate::cli) fn explain_record(&mut self, record: &RecordView<'_>, consumers: &[Consumer]) -> Explanation {
        self.consumers = consumers.to_vec();
        let mut facts = Facts::default();
        let fate = self.read(record, &mut facts);
        Explanation {
            topic: Some(record.topic.to_owned()),
            partition: Some(record.partition),
            offset: Some(record.offset),
            key: record.key.map(<[u8]>::to_vec),
            bare: false,
            facts,
            fate,
        }
    }

    /// Decode and route, as the worker's intake does.
    fn read(&mut self, record: &RecordView<'_>, facts: &mut Facts) -> Fate {
        let (decimals, prefix) = (self.decimals, &self.topic_prefix);
        let dead = |reason, detail| Fate::Dead(DeadLetter::new(Queue::Decode, prefix, reason, detail));
        let change = match self.decoder.decode(record) {
            Ok(Decoded::Change(change)) => change,
            Ok(Decoded::Control(control)) => return Fate::Control(control),
            Err(error) => return dead(error.reason(), error.to_string()),
        };
        facts.op = Some(change.op);
        facts.table = Some(change.table.as_ref().to_owned());
        facts.commit_ms = Some(change.commit_ms);
        match rows::route(record.topic, &change, decimals) {
            Err(error) => dead(error.reason(), error.to_string()),
            Ok(Routed::Unread { .. }) => {
                let ignore = |consumer: &Consumer| (*consumer, Verdict::Ignore(UNREAD));
                Fate::Decided(self.consumers.iter().map(ignore).collect())
            }
            Ok(Routed::Row(change)) => {
                facts.row_id = Some(change.row.id().as_str().to_owned());
                facts.version = Some(change.version.to_string());
                let judge = |consumer: &Consumer| {
                    let consumer = *consumer;
                    let verdicts = self.judge(consumer, &change).into_iter();
                    verdicts.map(move |verdict| (consumer, verdict))
                };
                Fate::Decided(self.consumers.iter().flat_map(judge).collect())
            }
        }
    }

    fn judge(&self, consumer: Consumer, change: &RowChange) -> Vec<Verdict> {
        let refuse = |reason, detail| {
            let queue = Queue::Consumer(consumer);
            Verdict::Refuse(DeadLetter::new(queue, &self.topic_prefix, reason, detail))
        };
        match consumers::decide(consumer, change, &self.rules, self.now) {
            Decision::Ignore(reason) => vec![Verdict::Ignore(reason.as_str())],
            // There is no database here, without which nothing older than the cut-off is decided.
            Decision::Refuse(refusal) | Decision::RefuseIfKnown(refusal, _) => {
                vec![refuse(refusal.reason(), refusal.to_string())]
            }
            Decision::Deliver(effects) => {
                let verdict = |effect| {
                    self.deliver(effect).unwrap_or_else(|| {
                        // What delivery says of an event that no request can carry.
                        let detail = "the event alone is larger than one request may be".to_owned();
                        refuse("event_too_large", detail)
                    })
                };
                effects.iter().map(verdict).collect()
            }
        }
    }

    /// `None` if the event is too large for any request.
    fn deliver(&self, effect: &Effect) -> Option<Verdict> {
        let batch = EventBatch::of(std::slice::from_ref(&effect.event), self.now.as_millisecond());
        if !batch.split(Limits::default()).oversize.is_empty() {
            return None;
        }
        Some(Verdict::Deliver(Delivery {
            reason: effect.reason.as_str(),
            effect_key: effect.key.as_str().to_owned(),
            claim: effect.claim.as_str().to_owned(),
            event: String::from_utf8_lossy(batch.event(0)).into_owned(),
        }))
    }
}

impl DeadLetter {
    fn new(queue: Queue, topic_prefix: &str, reason: &'static str, detail: String) -> Self {
        Self {
            queue: queue.topic(topic_prefix),
            reason,
            detail,
        }
    }
}

impl Explanation {
    pub(in crate::cli) fn too_long(longest_bytes: usize) -> Self {
        let mib = longest_bytes / (1024 * 1024);
        Self::bad(BadLine {
            column: None,
            problem: format!("longer than {mib} MiB: no broker takes a message of that size; is a line end missing?"),
        })
    }

    fn bad(bad: BadLine) -> Self {
        Self {
            topic: None,
            partition: None,
            offset: None,
            key: None,
            bare: false,
            facts: Facts::default(),
            fate: Fate::BadLine(bad),
        }
    }

    pub(in crate::cli) fn outcome(&self) -> Outcome {
        match &self.fate {
            Fate::BadLine(_) => Outcome::BadLine,
            Fate::Control(_) => Outcome::Control,
            Fate::Dead(_) => Outcome::DeadLetter,
            Fate::Decided(verdicts) => {
                let worst = verdicts.iter().map(|(_, verdict)| verdict.outcome()).max();
                worst.unwrap_or(Outcome::Ignored)
            }
        }
    }

    /// Every reason once, in the order of the consumers.
    pub(in crate::cli) fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        match &self.fate {
            Fate::BadLine(_) => reasons.push(Outcome::BadLine.name()),
            Fate::Control(control) => reasons.push(control_name(*control)),
            Fate::Dead(dead) => reasons.push(dead.reason),
            Fate::Decided(verdicts) => {
                for (_, verdict) in verdicts {
                    if !reasons.contains(&verdict.reason()) {
                        reasons.push(verdict.reason());
                    }
                }
            }
        }
        reasons
    }
}

impl Verdict {
    pub(in crate::cli) const fn decision(&self) -> &'static str {
        match self {
            Self::Ignore(_) => "ignore",
            Self::Deliver(_) => "deliver",
            Self::Refuse(_) => "refuse",
        }
    }

    pub(in crate::cli) const fn reason(&self) -> &'static str {
        match self {
            Self::Ignore(reason) => reason,
            Self::Deliver(delivery) => delivery.reason,
            Self::Refuse(dead) => dead.reason,
        }
    }

    const fn outcome(&self) -> Outcome {
        match self {
            Self::Ignore(_) => Outcome::Ignored,
            Self::Deliver(_) => Outcome::Event,
            Self::Refuse(_) => Outcome::DeadLetter,
        }
    }
}

impl Outcome {
    /// From the worst to the least, as a summary lists them.
    pub(in crate::cli) const ALL: [Self; 5] = [
        Self::DeadLetter,
        Self::Event,
        Self::Control,
        Self::Ignored,
        Self::BadLine,
    ];

    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Control => "control",
            Self::Event => "event",
            Self::DeadLetter => "dead_letter",
            Self::BadLine => "bad_line",
        }
    }
}

pub(in crate::cli) const fn control_name(control: Control) -> &'static str {
    match control {
        Control::Tombstone => "tombstone",
        Control::Heartbeat => "heartbeat",
        Control::Transaction => "transaction",
        Control::Signal => "signal",
        Control::Message => "message",
    }
}
