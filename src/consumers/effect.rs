//! An effect: what must reach the workflows, under the name of its business fact and the name of this change of it.

use std::collections::HashSet;

use super::Reason;
use crate::debezium::Op;
use crate::dedupe::{ClaimKey, escape};
use crate::inngest::{Award, Basis, Event, EventData, RewardSource, RowRef, Side};
use crate::loyalty::DueAt;
use crate::parts::Part;
use crate::rows::{ChangeVersion, MerchantId, RowChange, RowId, Table, UserId};

/// What one change leads to: one effect, or two where it concerns two members (both sides of a referral, the old and the
/// new member of a row). Each has its own claim. The record is finished when all of them are.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    first: Effect,
    /// Rare, so that the box costs nobody else anything.
    second: Option<Box<Effect>>,
}

/// Something that must reach Inngest.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Names the business fact, e.g. `award:<purchase>`; components escaped.
    pub key: EffectKey,
    /// Names this change of it; dedupe and the event's `id`.
    pub claim: ClaimKey,
    /// The change that leads to it.
    pub source: RowRef,
    /// Whether a newer effect of the same key in the same batch makes this one needless.
    pub state_like: bool,
    pub event: Event,
    pub reason: Reason,
    pub proof: Proof,
}

/// What an effect says of its fact: what a comparison with `effects` needs, and what a dead letter leaves there.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Fact<'a> {
    pub effect_key: &'a EffectKey,
    pub source_table: Table,
    pub source_id: &'a RowId,
    pub merchant_id: &'a MerchantId,
    /// `None` for a code that is nobody's.
    pub user_id: Option<&'a UserId>,
    /// `None` for a tier: it rests on many rows.
    pub basis: Option<Basis<'a>>,
    /// The points of an award; 1 or 0 for a grant and a code. Always 0 for a tier and for a row of a mission, whose targets
    /// are not the decision's.
    pub target: i64,
    pub due_at: Option<DueAt>,
    /// 0 = none.
    pub program_rev: u32,
}

/// What shows that an effect must be delivered. With a database the rest is compared with `effects` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The change itself: a new row, or an old image that counts for something else.
    Change,
    /// Nothing: a snapshot row, or an update whose old image is missing or counts for the same.
    Nothing,
    /// The row is older than the cut-off, or does not tell and nothing shows that it is not: ours if and only if `effects`
    /// knows this key.
    IfKnown(EffectKey),
}

/// `award:<purchase>`, `tier:<merchant>:<user>`, `mission:<merchant>:<mission>:<user>:<period>`: one row in `effects` some day.
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey(Part);

impl Effects {
    #[must_use]
    pub fn both(first: Effect, second: Effect) -> Self {
        Self {
            first,
            second: Some(Box::new(second)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        std::iter::once(&self.first).chain(self.second.as_deref())
    }

    #[must_use]
    pub fn into_parts(self) -> (Effect, Option<Box<Effect>>) {
        (self.first, self.second)
    }

    #[must_use]
    pub fn map(self, change: impl Fn(Effect) -> Effect) -> Self {
        Self {
            first: change(self.first),
            second: self.second.map(|second| Box::new(change(*second))),
        }
    }
}

impl From<Effect> for Effects {
    fn from(first: Effect) -> Self {
        Self { first, second: None }
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::iter::Chain<std::iter::Once<Effect>, std::option::IntoIter<Effect>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.second.map(|second| *second))
    }
}

impl Effect {
    /// What it says of its fact.
    #[must_use]
    pub fn fact<'a>(&'a self) -> Fact<'a> {
        let of = |merchant_id: &'a MerchantId, user_id: Option<&'a UserId>| Fact {
            effect_key: &self.key,
            source_table: self.source.table,
            source_id: &self.source.row_id,
            merchant_id,
            user_id,
            basis: None,
            target: 0,
            due_at: None,
            program_rev: 0,
        };
        let of_award = |award: &'a Award| Fact {
            basis: Some(Basis::Purchase(&award.purchase)),
            program_rev: award.program_rev,
            ..of(&award.purchase.merchant_id, Some(&award.purchase.user_id))
        };
        match &self.event.data {
            EventData::AwardScheduled {
                award,
                target_points,
                due_at,
            } => Fact {
                target: target_points.get(),
                due_at: Some(*due_at),
                ..of_award(award)
            },
            EventData::AwardCancelled(award) => of_award(award),
            EventData::TierEvaluationRequested(data) => Fact {
                program_rev: data.program_rev,
                ..of(&data.merchant_id, Some(&data.user_id))
            },
            EventData::MissionEvaluationRequested(data) => Fact {
                basis: Basis::of(&data.row),
                program_rev: data.program_rev,
                ..of(&data.merchant_id, Some(&data.user_id))
            },
            EventData::RewardGranted(reward) | EventData::RewardRevoked(reward) => {
                let merchant = match &reward.source {
                    RewardSource::MissionClaim(row) => &row.merchant_id,
                    RewardSource::Referral(row, _) => &row.merchant_id,
                };
                Fact {
                    basis: Some(reward.source.basis()),
                    target: i64::from(matches!(self.event.data, EventData::RewardGranted(_))),
                    ..of(merchant, Some(reward.source.user()))
                }
            }
            EventData::CodeRedeemed(redemption) => {
                let row = &redemption.code;
                Fact {
                    basis: Some(Basis::Code(row)),
                    target: 1,
                    ..of(&row.merchant_id, row.user_id.as_ref())
                }
            }
        }
    }

    /// The same as of a state that no change told of: its version is a fingerprint of what it says of its fact.
    #[must_use]
    pub fn of_state(mut self) -> Self {
        let fact = self.fact();
        // Writing texts, numbers and booleans into memory cannot fail.
        let basis = serde_json::to_string(&fact.basis).unwrap_or_default();
        let version = ChangeVersion::State(super::fnv1a([&basis, &fact.target.to_string()]));
        self.source.version = version;
        self.claim = self.claim.at(version);
        self.event.id = self.claim.clone();
        self
    }

    /// The same, sent once more on purpose.
    #[must_use]
    pub fn marked(mut self, mark: &str) -> Self {
        self.claim = self.claim.marked(mark);
        self.event.id = self.claim.clone();
        self
    }

    /// The same of a record that may have been here before: nothing about it proves that it is new.
    #[must_use]
    pub fn unproven(mut self) -> Self {
        if self.proof == Proof::Change {
            self.proof = Proof::Nothing;
        }
        self
    }

    /// Takes over what older effects of the same key were for, oldest first, when this one makes them needless.
    ///
    /// An award carries an absolute target and needs nothing of the older ones. A tier evaluation covers their triggers as
    /// well: they are listed first, none twice. Each claim stays; the caller confirms them all. An effect of another key,
    /// or one that is not state-like, is left alone.
    pub fn absorb<'a>(&mut self, older: impl IntoIterator<Item = &'a Self>) {
        if !self.state_like {
            return;
        }
        let mut covered = Vec::new();
        for older in older.into_iter().filter(|older| older.key == self.key) {
            self.event.ts_ms = self.event.ts_ms.max(older.event.ts_ms);
            if let EventData::TierEvaluationRequested(older) = &older.event.data {
                covered.push(older);
            }
        }
        if let EventData::TierEvaluationRequested(newer) = &mut self.event.data {
            let newest_ms = covered.iter().map(|older| older.as_of_ms).max();
            newer.as_of_ms = newer.as_of_ms.max(newest_ms.unwrap_or(i64::MIN));
            // A busy member has hundreds of changes in a batch.
            let mut seen = HashSet::new();
            let triggers = covered.iter().flat_map(|older| &older.triggers).chain(&newer.triggers);
            newer.triggers = triggers.filter(|trigger| seen.insert(*trigger)).cloned().collect();
        }
    }
}

impl Proof {
    /// `before_differs`: the old image counts for something else.
    pub(super) const fn of(change: &RowChange, before_differs: bool) -> Self {
        match change.op {
            Op::Create => Self::Change,
            Op::Update if before_differs => Self::Change,
            Op::Update | Op::Read | Op::Delete | Op::Truncate => Self::Nothing,
        }
    }
}

/// Old records are compared with `effects`; this is how old, ms: well inside of the day for which Inngest knows an id.
const OLD_MS: i64 = 20 * 60 * 60 * 1000;

/// Whether only `effects` can tell if this was settled before: without a database, `OLD_RECORDS=deadletter` sets such
/// records aside. Tier evaluations always run: they sum up what is there.
#[must_use]
pub const fn needs_effects_check(effect: &Effect, op: Op, commit_ms: i64, now_ms: i64) -> bool {
    let is_old = now_ms.saturating_sub(commit_ms) > OLD_MS;
    match &effect.event.data {
        EventData::TierEvaluationRequested(_) => false,
        EventData::AwardScheduled { .. }
        | EventData::AwardCancelled(_)
        | EventData::MissionEvaluationRequested(_)
        | EventData::RewardGranted(_)
        | EventData::RewardRevoked(_)
        | EventData::CodeRedeemed(_) => matches!(op, Op::Read) || is_old || !matches!(effect.proof, Proof::Change),
    }
}

impl EffectKey {
    #[must_use]
    pub fn award(purchase: &RowId) -> Self {
        Self::join("award", [purchase.as_str()])
    }

    /// The same, and the name of this change of it.
    pub(super) fn award_at(purchase: &RowId, version: ChangeVersion) -> (Self, ClaimKey) {
        let (table, names) = (Table::PurchaseLedger, ["currency", "award"]);
        let key = |text: &mut String| Self::write(text, "award", [purchase.as_str()]);
        let claim = |text: &mut String| ClaimKey::write(text, names, table, purchase, version);
        let [key, claim] = Part::written([&key, &claim]);
        (Self(key), ClaimKey::of(claim))
    }

    #[must_use]
    pub fn tier(merchant: &MerchantId, user: &UserId) -> Self {
        Self::join("tier", [merchant.as_str(), user.as_str()])
    }

    /// The progress of one member in one period of one mission.
    #[must_use]
    pub fn mission(merchant: &MerchantId, mission: &str, user: &UserId, period: &str) -> Self {
        Self::join("mission", [merchant.as_str(), mission, user.as_str(), period])
    }

    /// What one source row counts for, over all missions it concerns: `mission_source:<merchant>:<user>:<table>:<row>`.
    #[must_use]
    pub fn mission_source(merchant: &MerchantId, user: &UserId, table: Table, row: &RowId) -> Self {
        Self::join(
            "mission_source",
            [merchant.as_str(), user.as_str(), table.name(), row.as_str()],
        )
    }

    #[must_use]
    pub fn grant(claim: &RowId) -> Self {
        Self::join("grant", [claim.as_str()])
    }

    #[must_use]
    pub fn referral(referral: &RowId, side: Side) -> Self {
        Self::join("referral", [referral.as_str(), side.name()])
    }

    #[must_use]
    pub fn code(code: &RowId) -> Self {
        Self::join("code", [code.as_str()])
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn join<const N: usize>(kind: &str, components: [&str; N]) -> Self {
        let [key] = Part::written([&|text| Self::write(text, kind, components)]);
        Self(key)
    }

    fn write<const N: usize>(text: &mut String, kind: &str, components: [&str; N]) {
        text.push_str(kind);
        for component in components {
            text.push(':');
            text.push_str(&escape(component));
        }
    }
}

impl serde::Serialize for EffectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::fmt::Display for EffectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_can_imitate_another_effect() {
        let merchant = |text| MerchantId::new(text).expect("not empty");
        let user = |text| UserId::new(text).expect("not empty");
        assert_eq!(EffectKey::tier(&merchant("m"), &user("u")).as_str(), "tier:m:u");
        assert_ne!(
            EffectKey::tier(&merchant("m:u"), &user("x")),
            EffectKey::tier(&merchant("m"), &user("u:x"))
        );
        let row = RowId::new("p:%1").expect("not empty");
        assert_eq!(EffectKey::award(&row).as_str(), "award:p%3A%251");
        assert_eq!(
            EffectKey::mission(&merchant("m"), "spend:100", &user("u"), "2026-11").as_str(),
            "mission:m:spend%3A100:u:2026-11"
        );
        assert_eq!(
            EffectKey::mission_source(&merchant("m"), &user("u"), Table::FormSubmissions, &row).as_str(),
            "mission_source:m:u:form_submissions:p%3A%251"
        );
    }
}
