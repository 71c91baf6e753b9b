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
use crate::rows::{self, Routed, RowChange};

/// The reason of every consumer for a table that none of them reads.
const UNREAD: &str = "no_consumer_reads_table";

/// Explains records one after another; learns schema prefixes as the worker does.
#[derive(Debug)]
pub(super) struct Explainer {
    decoder: Decoder,
    decimals: DecimalMode,
    consumers: Vec<Consumer>,
    topic_prefix: String,
    rules: Rules,
    now: Timestamp,
}

/// What a record is and what comes of it.
#[derive(Debug)]
pub(super) struct Explanation {
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) offset: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    /// The line was the value itself.
    pub(super) bare: bool,
    pub(super) facts: Facts,
    pub(super) fate: Fate,
}

/// What is known of the change; as much as was read before it failed.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) op: Option<Op>,
    pub(super) table: Option<String>,
    pub(super) commit_ms: Option<i64>,
    pub(super) row_id: Option<String>,
    pub(super) version: Option<String>,
}

#[derive(Debug)]
pub(super) enum Fate {
    BadLine(BadLine),
    Control(Control),
    /// Dead before the fan-out.
    Dead(DeadLetter),
    /// One a consumer, but two where its decision has two effects.
    Decided(Vec<(Consumer, Verdict)>),
}

#[derive(Debug)]
pub(super) struct DeadLetter {
    /// The topic.
    pub(super) queue: String,
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// What one consumer does, or what becomes of one of its effects.
#[derive(Debug)]
pub(super) enum Verdict {
    Ignore(&'static str),
    Deliver(Delivery),
    Refuse(DeadLetter),
}

#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) reason: &'static str,
    pub(super) effect_key: String,
    pub(super) claim: String,
    /// The event as it would be sent, compact JSON.
    pub(super) event: String,
}

/// From the least to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Ignored,
    Control,
    Event,
    DeadLetter,
    /// No record at all; as bad as a dead letter.
    BadLine,
}

impl Explainer {
    pub(super) fn new(deciding: &Deciding, rules: Rules, now: Timestamp) -> Self {
        Self {
            decoder: Decoder::default(),
            decimals: deciding.decimals,
            consumers: deciding.consumers.clone(),
            topic_prefix: deciding.topic_prefix.clone(),
            rules,
            now,
        }
    }

    pub(super) fn explain(&mut self, line: &[u8]) -> Explanation {
        let message = match Message::parse(line) {
            Ok(message) => message,
            Err(bad) => return Explanation::bad(bad),
        };
        let mut facts = Facts::default();
        let fate = self.read(&message, &mut facts);
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

    /// Decode and route, as the worker's intake does.
    fn read(&mut self, message: &Message<'_>, facts: &mut Facts) -> Fate {
        let (decimals, prefix) = (self.decimals, &self.topic_prefix);
        let dead = |reason, detail| Err(Fate::Dead(DeadLetter::new(Queue::Decode, prefix, reason, detail)));
        let routed = message.with(|record| {
            let change = match self.decoder.decode(record) {
                Ok(Decoded::Change(change)) => change,
                Ok(Decoded::Control(control)) => return Err(Fate::Control(control)),
                Err(error) => return dead(error.reason(), error.to_string()),
            };
            facts.op = Some(change.op);
            facts.table = Some(change.table.as_ref().to_owned());
            facts.commit_ms = Some(change.commit_ms);
            rows::route(record.topic, &change, decimals).or_else(|error| dead(error.reason(), error.to_string()))
        });
        match routed {
            Err(fate) => fate,
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
    pub(super) fn too_long(longest_bytes: usize) -> Self {
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

    pub(super) fn outcome(&self) -> Outcome {
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
    pub(super) fn reasons(&self) -> Vec<&'static str> {
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
    pub(super) const fn decision(&self) -> &'static str {
        match self {
            Self::Ignore(_) => "ignore",
            Self::Deliver(_) => "deliver",
            Self::Refuse(_) => "refuse",
        }
    }

    pub(super) const fn reason(&self) -> &'static str {
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
    pub(super) const ALL: [Self; 5] = [
        Self::DeadLetter,
        Self::Event,
        Self::Control,
        Self::Ignored,
        Self::BadLine,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Control => "control",
            Self::Event => "event",
            Self::DeadLetter => "dead_letter",
            Self::BadLine => "bad_line",
        }
    }
}

pub(super) const fn control_name(control: Control) -> &'static str {
    match control {
        Control::Tombstone => "tombstone",
        Control::Heartbeat => "heartbeat",
        Control::Transaction => "transaction",
        Control::Signal => "signal",
        Control::Message => "message",
    }
}
