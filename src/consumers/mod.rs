//! Stage 5, decide: takes a [`RowChange`], the program rules and the time, gives a [`Decision`] as data, with a reason.
//!
//! One file a consumer. It never does I/O, never reads a clock (`now` only decides "already due"), never counts.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic
)]

mod currency;
mod effect;
mod marketplace;
mod mission;
mod reason;
mod reward;
mod tier;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod currency_tests;
#[cfg(test)]
mod effect_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod marketplace_tests;
#[cfg(test)]
mod mission_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reward_tests;
#[cfg(test)]
mod tier_tests;

use std::sync::Arc;

use jiff::Timestamp;

pub use effect::{Effect, EffectKey, Effects, Fact, Proof, needs_effects_check};
pub use reason::{Reason, Refusal};

use crate::debezium::Op;
use crate::loyalty::Programs;
use crate::rows::{ClaimStatus, CodeStatus, Row, RowChange, Table};

/// A logical consumer. All of them share one Kafka membership; each has its own lanes and its own progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    Currency,
    Tier,
    Mission,
    Reward,
    Marketplace,
}

/// What one consumer does with one row change.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a decision is moved once into its lane; a box would cost an allocation a record"
)]
pub enum Decision {
    /// Nothing to do; done at once.
    Ignore(Reason),
    Deliver(Effects),
    /// Cannot be decided, whatever is tried: dead letter.
    Refuse(Refusal),
    /// Neither can this, and the row is older than the cut-off: a dead letter if and only if `effects` knows this key.
    RefuseIfKnown(Refusal, EffectKey),
}

/// What every decision needs besides the row: one immutable snapshot, cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules {
    pub programs: Arc<Programs>,
    /// Rows created before this are none of our business (`LEDGER_EFFECTIVE_FROM`), unless `effects` knows them.
    pub effective_from: Option<Timestamp>,
    /// Whether there is a database whose `effects` can be asked.
    pub database: bool,
}

/// What this consumer does with this change. The same input gives the same decision, except that `now` tells a due time
/// that has passed from one to come, which shows in the reason alone.
#[must_use]
pub fn decide(consumer: Consumer, change: &RowChange, rules: &Rules, now: Timestamp) -> Decision {
    // Routing dead-letters deletes and truncates; if one came here all the same, it is refused rather than guessed at.
    if matches!(change.op, Op::Delete | Op::Truncate) {
        return Decision::Refuse(Refusal::LedgerRewritten);
    }
    if !consumer.reads(change.row.table()) {
        return Decision::Ignore(Reason::NotInterested);
    }
    let is_older = is_older_than_cut_off(change, rules);
    if is_older && !(rules.database && can_be_known(&change.row)) {
        return Decision::Ignore(Reason::BeforeCutOff);
    }
    let decided = match (consumer, &change.row) {
        (Consumer::Currency, Row::Purchase(purchase)) => currency::decide(purchase, change, &rules.programs, now),
        (Consumer::Tier, row) => tier::decide(row, change, &rules.programs),
        (Consumer::Mission, row) => mission::decide(row, change, rules),
        (Consumer::Reward, Row::MissionClaim(claim)) => Ok(reward::claim(claim, change)),
        (Consumer::Reward, Row::Referral(referral)) => Ok(reward::referral(referral, change)),
        (Consumer::Marketplace, Row::Code(code)) => Ok(marketplace::decide(code, change)),
        (Consumer::Currency | Consumer::Reward | Consumer::Marketplace, _) => {
            Ok(Decision::Ignore(Reason::NotInterested))
        }
    };
    // Seeding knows older purchases by their awards.
    let award = match &change.row {
        Row::Purchase(row) if is_older => Some(EffectKey::award(&row.id)),
        _ => None,
    };
    match (decided, award) {
        (Err(refusal), Some(award)) => Decision::RefuseIfKnown(refusal, award),
        (Err(refusal), None) => Decision::Refuse(refusal),
        (Ok(Decision::Deliver(effects)), award) if is_older => Decision::Deliver(effects.map(|effect| Effect {
            proof: Proof::IfKnown(award.clone().unwrap_or_else(|| effect.key.clone())),
            ..effect
        })),
        (Ok(decision), _) => decision,
    }
}

/// A row that does not tell when it came to be is as old as a change that shows that it counts only since then. Else it is
/// taken for older, where a database can know it: a snapshot must not grant again what was granted before the cut-off.
fn is_older_than_cut_off(change: &RowChange, rules: &Rules) -> bool {
    let Some(cut_off) = rules.effective_from else {
        return false;
    };
    match change.row.created_at() {
        Some(created) => created < cut_off,
        None if rules.database && !begins(change) => true,
        None => Timestamp::from_millisecond(change.commit_ms).is_ok_and(|changed| changed < cut_off),
    }
}

/// Whether the change itself shows that a claim or a code did not count before it.
fn begins(change: &RowChange) -> bool {
    match (change.op, &change.before) {
        (Op::Create, _) => true,
        (Op::Update, Some(Row::MissionClaim(before))) => before.status != ClaimStatus::Claimed,
        (Op::Update, Some(Row::Code(before))) => before.status != CodeStatus::Redeemed,
        (_, _) => false,
    }
}

/// When a row counts: the time whose period and rules decide.
fn happened_at(row: &Row) -> Timestamp {
    match row {
        Row::Purchase(row) => currency::earned_at(row),
        row => row.created_at().unwrap_or_default(),
    }
}

/// Whether a row older than the cut-off can have a row in `effects` that says it is ours all the same.
const fn can_be_known(row: &Row) -> bool {
    match row {
        Row::Purchase(_) | Row::MissionClaim(_) | Row::Referral(_) | Row::Code(_) => true,
        Row::WalletEntry(_) | Row::FormSubmission(_) => false,
    }
}

impl Rules {
    /// Without a database.
    #[must_use]
    pub const fn new(programs: Arc<Programs>, effective_from: Option<Timestamp>) -> Self {
        Self {
            programs,
            effective_from,
            database: false,
        }
    }
}

impl Consumer {
    pub const ALL: [Self; 5] = [
        Self::Currency,
        Self::Tier,
        Self::Mission,
        Self::Reward,
        Self::Marketplace,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Currency => "currency",
            Self::Tier => "tier",
            Self::Mission => "mission",
            Self::Reward => "reward",
            Self::Marketplace => "marketplace",
        }
    }

    /// Its place in [`Consumer::ALL`]: the bit in a consumer set.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether this consumer reads the table.
    #[must_use]
    pub const fn reads(self, table: Table) -> bool {
        match self {
            Self::Currency => matches!(table, Table::PurchaseLedger),
            Self::Tier => matches!(table, Table::PurchaseLedger | Table::WalletLedger),
            Self::Mission => matches!(table, Table::PurchaseLedger | Table::FormSubmissions),
            Self::Reward => matches!(table, Table::MissionClaims | Table::ReferralLedger),
            Self::Marketplace => matches!(table, Table::Codes),
        }
    }

    /// How many lanes it has unless `<CONSUMER>_CONCURRENCY` says otherwise.
    #[must_use]
    pub const fn default_lanes(self) -> usize {
        match self {
            Self::Currency => 5,
            Self::Tier | Self::Mission => 3,
            Self::Reward | Self::Marketplace => 2,
        }
    }

    /// What picks the lane: the member for tier and mission, the row for the others. Stable over processes and releases.
    #[must_use]
    pub fn lane_key(self, change: &RowChange) -> u64 {
        let member = match self {
            Self::Tier | Self::Mission => change.row.member(),
            Self::Currency | Self::Reward | Self::Marketplace => None,
        };
        match member {
            Some((merchant, user)) => fnv1a([merchant.as_str(), user.as_str()]),
            None => fnv1a([change.row.id().as_str(), ""]),
        }
    }
}

/// FNV-1a, 64 bits; 0xff, which no UTF-8 text holds, ends each part. Not the standard library's hasher, whose result may
/// change with the toolchain.
pub(crate) fn fnv1a(parts: [&str; 2]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
