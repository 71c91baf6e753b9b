//! The events promised to the workflows, each with a JSON Schema in `schemas/inngest/`. Pure.
//!
//! Takes what was decided, gives the bytes of one event: compact, fields always in the same order, so that a re-send of
//! one change is the same text. Ids and decimals are texts, because the receiver reads every number as a float.
//! It never decides, never reads a clock, never builds a value tree.

use rust_decimal::Decimal;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::consumers::{EffectKey, Reason};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::loyalty::{DueAt, Metric, Points};
use crate::rows::{ChangeVersion, MerchantId, Purchase, RowChange, RowId, Table, UserId};

/// What the database decides and writes down (`schemas/postgres`); sent as it is, with this `v`.
pub const ANNOUNCED: [&str; 4] = [
    "loyalty/tier.upgraded",
    "loyalty/tier_upgrade.scheduled",
    "loyalty/tier.review_requested",
    "loyalty/mission.evaluated",
];
pub const ANNOUNCED_V: &str = "2026-11-20.1";

/// One event as the event API takes it: `{"id", "name", "ts", "v", "data"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: ClaimKey,
    /// Commit time, ms; clamped to now when it is written, because a future `ts` would delay the run.
    pub ts_ms: i64,
    pub data: EventData,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventData {
    AwardScheduled {
        award: Award,
        target_points: Points,
        due_at: DueAt,
    },
    /// The same with a target of zero. It has no due time: nothing is to be waited for.
    AwardCancelled(Award),
    TierEvaluationRequested(TierEvaluation),
    MissionEvaluationRequested(MissionEvaluation),
}

/// What both award events carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Award {
    /// The row decided on; written as ids and as `basis`, every column the decision reads.
    pub purchase: Purchase,
    pub effect_key: EffectKey,
    /// 0 = none.
    pub program_rev: u32,
    /// Commit time, ms.
    pub as_of_ms: i64,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TierEvaluation {
    pub merchant_id: MerchantId,
    pub user_id: UserId,
    pub effect_key: EffectKey,
    pub metric: Metric,
    pub program_rev: u32,
    /// The newest commit time of the triggers.
    pub as_of_ms: i64,
    /// Every change this evaluation covers.
    pub triggers: Vec<RowRef>,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MissionEvaluation {
    pub merchant_id: MerchantId,
    pub user_id: UserId,
    /// Names the source row, not a mission: each mission has its own key below.
    pub effect_key: EffectKey,
    pub source: RowRef,
    pub missions: Vec<MissionShare>,
    pub program_rev: u32,
    pub as_of_ms: i64,
    pub reason: Reason,
}

/// What one source row counts for in one period of one mission.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MissionShare {
    pub mission_id: Box<str>,
    pub effect_key: EffectKey,
    pub period: Box<str>,
    pub trigger: &'static str,
    /// Absolute: it replaces what the row counted before.
    #[serde(serialize_with = "as_text")]
    pub counted: Decimal,
    #[serde(serialize_with = "as_text")]
    pub target: Decimal,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRef {
    pub table: Table,
    pub row_id: RowId,
    pub version: ChangeVersion,
    pub op: Op,
}

impl Event {
    /// Appends the event as compact JSON.
    pub fn write_json(&self, now_ms: i64, out: &mut Vec<u8>) {
        #[derive(serde::Serialize)]
        struct Envelope<'a> {
            id: &'a ClaimKey,
            name: &'static str,
            ts: i64,
            v: &'static str,
            data: &'a EventData,
        }
        let envelope = Envelope {
            id: &self.id,
            name: self.data.name(),
            ts: self.ts_ms.min(now_ms),
            v: self.data.v(),
            data: &self.data,
        };
        // Writing texts, integers and booleans into memory cannot fail.
        let _infallible = serde_json::to_writer(out, &envelope);
    }
}

impl EventData {
    /// Every name, in the order of the variants.
    pub const NAMES: [&'static str; 4] = [
        "loyalty/award.scheduled",
        "loyalty/award.cancelled",
        "loyalty/tier.evaluation_requested",
        "loyalty/mission.evaluation_requested",
    ];

    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [scheduled, cancelled, tier, mission] = Self::NAMES;
        match self {
            Self::AwardScheduled { .. } => scheduled,
            Self::AwardCancelled(_) => cancelled,
            Self::TierEvaluationRequested(_) => tier,
            Self::MissionEvaluationRequested(_) => mission,
        }
    }

    /// The version of the shape; changes with its schema.
    #[must_use]
    pub const fn v(&self) -> &'static str {
        match self {
            Self::AwardScheduled { .. }
            | Self::AwardCancelled(_)
            | Self::TierEvaluationRequested(_)
            | Self::MissionEvaluationRequested(_) => "2026-11-20.1",
        }
    }
}

impl RowRef {
    #[must_use]
    pub fn of(change: &RowChange) -> Self {
        Self {
            table: change.row.table(),
            row_id: change.row.id().clone(),
            version: change.version,
            op: change.op,
        }
    }
}

impl Serialize for EventData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AwardScheduled {
                award,
                target_points,
                due_at,
            } => write_award(award, *target_points, Some(due_at), serializer),
            Self::AwardCancelled(award) => write_award(award, Points::ZERO, None, serializer),
            Self::TierEvaluationRequested(data) => data.serialize(serializer),
            Self::MissionEvaluationRequested(data) => data.serialize(serializer),
        }
    }
}

fn write_award<S: Serializer>(
    award: &Award,
    target: Points,
    due_at: Option<&DueAt>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let fields = if due_at.is_some() { 10 } else { 9 };
    let mut data = serializer.serialize_struct("Award", fields)?;
    data.serialize_field("purchase_id", &award.purchase.id)?;
    data.serialize_field("user_id", &award.purchase.user_id)?;
    data.serialize_field("merchant_id", &award.purchase.merchant_id)?;
    data.serialize_field("effect_key", &award.effect_key)?;
    data.serialize_field("target_points", &Text(target))?;
    if let Some(due_at) = due_at {
        data.serialize_field("due_at", due_at)?;
    }
    data.serialize_field("program_rev", &award.program_rev)?;
    data.serialize_field("basis", &Basis(&award.purchase))?;
    data.serialize_field("as_of_ms", &award.as_of_ms)?;
    data.serialize_field("reason", &award.reason)?;
    data.end()
}

/// Every column an award decision reads, as texts and booleans; times in UTC.
struct Basis<'a>(&'a Purchase);

impl Serialize for Basis<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let mut basis = serializer.serialize_struct("Basis", 8)?;
        basis.serialize_field("user_id", &row.user_id)?;
        basis.serialize_field("merchant_id", &row.merchant_id)?;
        basis.serialize_field("final_amount", &Text(row.final_amount))?;
        basis.serialize_field("refunded_amount", &Text(row.refunded_amount))?;
        basis.serialize_field("status", &row.status)?;
        basis.serialize_field("earn_currency", &row.earn_currency)?;
        basis.serialize_field("created_at", &row.created_at)?;
        basis.serialize_field("completed_at", &row.completed_at)?;
        basis.end()
    }
}

impl Serialize for RowRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let op = match self.op {
            Op::Create => "c",
            Op::Update => "u",
            Op::Read => "r",
            Op::Delete => "d",
            Op::Truncate => "t",
        };
        let mut row = serializer.serialize_struct("RowRef", 4)?;
        row.serialize_field("table", self.table.name())?;
        row.serialize_field("row_id", &self.row_id)?;
        row.serialize_field("version", &Text(self.version))?;
        row.serialize_field("op", op)?;
        row.end()
    }
}

/// A number as a JSON text, without an allocation of its own.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn as_text<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
