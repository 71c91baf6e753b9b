//! One decision as a line of JSON. Pure.
//!
//! Takes the place of a record, the change it holds and what was decided, gives a line; and reads it back. Everything in it
//! follows from the record and the rules, so that a repeated record is a repeated line; but for the reason, which tells
//! whether a due time has passed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::consumers::Effect;
use crate::debezium::Op;
use crate::inngest::EventData;
use crate::record::RecordView;
use crate::rows::RowChange;

/// What one consumer would do about one record; about one effect, where it has two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<'a> {
    /// `decode` for what could not be read.
    pub consumer: Cow<'a, str>,
    pub topic: Cow<'a, str>,
    pub partition: i32,
    pub offset: i64,
    /// The row; unknown where the record could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Cow<'a, str>>,
    /// Commit time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<i64>,
    pub outcome: Said,
    pub reason: Cow<'a, str>,
    /// The event's `id`, where an effect was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect_key: Option<Cow<'a, str>>,
    /// Absolute. Tiers and missions have none: what becomes of them is evaluated, not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_rev: Option<u32>,
}

/// What would become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Deliver,
    Ignore,
    Dead,
}

impl<'a> Line<'a> {
    /// About this record, whatever is in it.
    #[must_use]
    pub const fn of(consumer: &'static str, record: &RecordView<'a>, outcome: Said, reason: &'a str) -> Self {
        Self {
            consumer: Cow::Borrowed(consumer),
            topic: Cow::Borrowed(record.topic),
            partition: record.partition,
            offset: record.offset,
            table: None,
            row_id: None,
            op: None,
            commit_ms: None,
            outcome,
            reason: Cow::Borrowed(reason),
            id: None,
            event: None,
            effect_key: None,
            target: None,
            due_at: None,
            program_rev: None,
        }
    }

    /// With the change that the record holds.
    #[must_use]
    pub fn with_change(self, change: &'a RowChange) -> Self {
        let op = match change.op {
            Op::Create => "c",
            Op::Update => "u",
            Op::Read => "r",
            Op::Delete => "d",
            Op::Truncate => "t",
        };
        Self {
            table: Some(Cow::Borrowed(change.row.table().name())),
            row_id: Some(Cow::Borrowed(change.row.id().as_str())),
            op: Some(Cow::Borrowed(op)),
            commit_ms: Some(change.commit_ms),
            ..self
        }
    }

    /// With the effect that was decided.
    #[must_use]
    pub fn with_effect(self, effect: &'a Effect) -> Self {
        let fact = effect.fact();
        let target = match &effect.event.data {
            EventData::TierEvaluationRequested(_) | EventData::MissionEvaluationRequested(_) => None,
            EventData::AwardScheduled { .. }
            | EventData::AwardCancelled(_)
            | EventData::RewardGranted(_)
            | EventData::RewardRevoked(_)
            | EventData::CodeRedeemed(_) => Some(fact.target),
        };
        Self {
            id: Some(Cow::Borrowed(effect.event.id.as_str())),
            event: Some(Cow::Borrowed(effect.event.data.name())),
            effect_key: Some(Cow::Borrowed(effect.key.as_str())),
            target,
            due_at: fact.due_at.map(|due_at| Cow::Owned(due_at.to_string())),
            program_rev: Some(fact.program_rev),
            ..self
        }
    }

    /// Appends the line with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing texts and integers into memory cannot fail.
        let _infallible = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}
