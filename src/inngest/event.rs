//! The events promised to the workflows, each with a JSON Schema in `schemas/inngest/`. Pure.
//!
//! Takes what was decided, gives the bytes of one event: compact, fields always in the same order, so that a re-send of
//! one change is the same text, but for the trace that a batch puts into it. Ids and decimals are texts, because the receiver reads every number as a float.
//! It never decides, never reads a clock, never builds a value tree.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::Basis;
use crate::consumers::{EffectKey, Reason};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::loyalty::{DueAt, Metric, Points, RefundPolicy, TierRule};
use crate::rows::{
    ChangeVersion, Code, MerchantId, MissionClaim, Purchase, Referral, Row, RowChange, RowId, Table, UserId,
};

/// The version of the shape of every event; changes with a schema.
const V: &str = "2026-11-22.1";

/// What the database decides and writes down (`schemas/postgres`); sent as it is, with this `v`.
pub const ANNOUNCED: [&str; 4] = [
    "loyalty/tier.upgraded",
    "loyalty/tier_upgrade.scheduled",
    "loyalty/tier.review_requested",
    "loyalty/mission.evaluated",
];
pub const ANNOUNCED_V: &str = V;

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
    RewardGranted(Reward),
    /// The same with nothing to be granted any more.
    RewardRevoked(Reward),
    CodeRedeemed(Redemption),
}

/// What both award events carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Award {
    /// The row decided on; written as ids and as `basis`, every column the decision reads.
    pub purchase: Purchase,
    pub effect_key: EffectKey,
    /// 0 = none.
    pub program_rev: u32,
    /// How far the settlement may take back; `None` without a rule.
    pub refund_policy: Option<RefundPolicy>,
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
    pub triggers: Vec<Trigger>,
    pub reason: Reason,
    /// For whoever evaluates in the database; an event has only the revision.
    #[serde(skip)]
    pub rule: Arc<TierRule>,
    #[serde(skip)]
    pub zone: TimeZone,
}

/// A change that asks for an evaluation. The event names only the change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trigger {
    pub change: RowRef,
    /// When the row was earned.
    pub at: Timestamp,
    /// When an upgrade because of it takes effect, if upgrades wait for the next month.
    pub due_at: Option<DueAt>,
    /// The change may have taken something away.
    pub lowers: bool,
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
    /// The row decided on, for whoever keeps the progress in the database.
    #[serde(skip)]
    pub row: Row,
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

/// A grant, or that there is none any more. Whoever settles it compares the basis with the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    pub source: RewardSource,
    pub effect_key: EffectKey,
    /// Commit time, ms.
    pub as_of_ms: i64,
    pub reason: Reason,
}

/// The row that a grant is for.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardSource {
    MissionClaim(MissionClaim),
    Referral(Referral, Side),
}

/// Both sides of a referral are granted, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Referrer,
    Referee,
}

/// A redeemed code, which is to be fulfilled once. The event never carries the code itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Redemption {
    pub code: Code,
    pub effect_key: EffectKey,
    /// Commit time, ms.
    pub as_of_ms: i64,
    pub reason: Reason,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
            v: V,
            data: &self.data,
        };
        super::json::write(&envelope, out);
    }
}

impl EventData {
    /// Every name, in the order of the variants.
    pub const NAMES: [&'static str; 7] = [
        "loyalty/award.scheduled",
        "loyalty/award.cancelled",
        "loyalty/tier.evaluation_requested",
        "loyalty/mission.evaluation_requested",
        "loyalty/reward.granted",
        "loyalty/reward.revoked",
        "loyalty/code.redeemed",
    ];

    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [scheduled, cancelled, tier, mission, granted, revoked, redeemed] = Self::NAMES;
        match self {
            Self::AwardScheduled { .. } => scheduled,
            Self::AwardCancelled(_) => cancelled,
            Self::TierEvaluationRequested(_) => tier,
            Self::MissionEvaluationRequested(_) => mission,
            Self::RewardGranted(_) => granted,
            Self::RewardRevoked(_) => revoked,
            Self::CodeRedeemed(_) => redeemed,
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
            Self::RewardGranted(reward) | Self::RewardRevoked(reward) => write_reward(reward, serializer),
            Self::CodeRedeemed(redemption) => write_redemption(redemption, serializer),
        }
    }
}

fn write_award<S: Serializer>(
    award: &Award,
    target: Points,
    due_at: Option<&DueAt>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let fields = 7 + usize::from(due_at.is_some()) + usize::from(award.refund_policy.is_some());
    let mut data = serializer.serialize_struct("Award", fields)?;
    // Whose it is stands in the basis alone: this is what most of all bytes are sent for.
    data.serialize_field("purchase_id", &award.purchase.id)?;
    data.serialize_field("effect_key", &award.effect_key)?;
    data.serialize_field("target_points", &Text(target))?;
    if let Some(due_at) = due_at {
        data.serialize_field("due_at", due_at)?;
    }
    data.serialize_field("program_rev", &award.program_rev)?;
    if let Some(policy) = award.refund_policy {
        data.serialize_field("refund_policy", &policy)?;
    }
    data.serialize_field("basis", &Basis::Purchase(&award.purchase))?;
    data.serialize_field("as_of_ms", &award.as_of_ms)?;
    data.serialize_field("reason", &award.reason)?;
    data.end()
}

fn write_reward<S: Serializer>(reward: &Reward, serializer: S) -> Result<S::Ok, S::Error> {
    let mut data = serializer.serialize_struct("Reward", 11)?;
    data.serialize_field("effect_key", &reward.effect_key)?;
    match &reward.source {
        RewardSource::MissionClaim(claim) => {
            data.serialize_field("source", "mission_claim")?;
            data.serialize_field("claim_id", &claim.id)?;
            data.serialize_field("merchant_id", &claim.merchant_id)?;
            data.serialize_field("user_id", &claim.user_id)?;
            data.serialize_field("mission_id", &claim.mission_id)?;
            if let Some(period) = &claim.period {
                data.serialize_field("period", &**period)?;
            }
        }
        RewardSource::Referral(referral, side) => {
            data.serialize_field("source", "referral")?;
            data.serialize_field("referral_id", &referral.id)?;
            data.serialize_field("side", side)?;
            data.serialize_field("merchant_id", &referral.merchant_id)?;
            data.serialize_field("user_id", reward.source.user())?;
        }
    }
    data.serialize_field("basis", &reward.source.basis())?;
    // No rule decides on a grant: the row says it all.
    data.serialize_field("program_rev", &0)?;
    data.serialize_field("as_of_ms", &reward.as_of_ms)?;
    data.serialize_field("reason", &reward.reason)?;
    data.end()
}

fn write_redemption<S: Serializer>(redemption: &Redemption, serializer: S) -> Result<S::Ok, S::Error> {
    let code = &redemption.code;
    let mut data = serializer.serialize_struct("Redemption", 8)?;
    data.serialize_field("effect_key", &redemption.effect_key)?;
    data.serialize_field("code_id", &code.id)?;
    data.serialize_field("merchant_id", &code.merchant_id)?;
    data.serialize_field("user_id", &code.user_id)?;
    data.serialize_field("redeemed_at", &code.redeemed_at)?;
    data.serialize_field("basis", &Basis::Code(code))?;
    data.serialize_field("as_of_ms", &redemption.as_of_ms)?;
    data.serialize_field("reason", &redemption.reason)?;
    data.end()
}

impl RewardSource {
    /// Who receives it.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        match self {
            Self::MissionClaim(claim) => &claim.user_id,
            Self::Referral(referral, Side::Referrer) => &referral.referrer_user_id,
            Self::Referral(referral, Side::Referee) => &referral.referee_user_id,
        }
    }

    #[must_use]
    pub const fn basis(&self) -> Basis<'_> {
        match self {
            Self::MissionClaim(claim) => Basis::MissionClaim(claim),
            Self::Referral(referral, _) => Basis::Referral(referral),
        }
    }
}

impl Side {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Referrer => "referrer",
            Self::Referee => "referee",
        }
    }
}

impl Serialize for Trigger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.change.serialize(serializer)
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
pub(super) struct Text<T>(pub(super) T);

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
