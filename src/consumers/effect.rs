//! An effect: what must reach the workflows, under the name of its business fact and the name of this change of it.

use std::sync::Arc;

use super::Reason;
use crate::dedupe::{ClaimKey, escape};
use crate::inngest::{Event, EventData};
use crate::rows::{MerchantId, RowId, Table, UserId};

/// Something that must reach Inngest.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Names the business fact, e.g. `award:<purchase>`; components escaped.
    pub key: EffectKey,
    /// Names this change of it; dedupe and the event's `id`.
    pub claim: ClaimKey,
    /// Whether a newer effect of the same key in the same batch makes this one needless.
    pub state_like: bool,
    pub event: Event,
    pub reason: Reason,
    pub proof: Proof,
}

/// What shows that an effect must be delivered. With a database the rest is compared with `effects` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The change itself: a new row, or an old image that counts for something else.
    Change,
    /// Nothing: a snapshot row, or an update whose old image is missing or counts for the same.
    Nothing,
    /// The row is older than the cut-off: ours if and only if `effects` knows this key.
    IfKnown(EffectKey),
}

/// `award:<purchase>`, `tier:<merchant>:<user>`, `mission:<merchant>:<mission>:<user>:<period>`: one row in `effects` some day.
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey(Arc<str>);

impl Effect {
    /// Takes over what an older effect of the same key was for, when this one makes it needless.
    ///
    /// An award carries an absolute target and needs nothing of the older one. A tier evaluation covers the older one's
    /// triggers as well: they are listed first, none twice. The claims stay two; the caller confirms both. An effect of
    /// another key, or one that is not state-like, is left alone.
    pub fn absorb(&mut self, older: &Self) {
        if !self.state_like || self.key != older.key {
            return;
        }
        self.event.ts_ms = self.event.ts_ms.max(older.event.ts_ms);
        if let (EventData::TierEvaluationRequested(newer), EventData::TierEvaluationRequested(older)) =
            (&mut self.event.data, &older.event.data)
        {
            newer.as_of_ms = newer.as_of_ms.max(older.as_of_ms);
            let mut triggers = older.triggers.clone();
            for trigger in std::mem::take(&mut newer.triggers) {
                if !triggers.contains(&trigger) {
                    triggers.push(trigger);
                }
            }
            newer.triggers = triggers;
        }
    }
}

impl EffectKey {
    #[must_use]
    pub fn award(purchase: &RowId) -> Self {
        Self::join("award", [purchase.as_str()])
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
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn join<const N: usize>(kind: &str, components: [&str; N]) -> Self {
        let mut text = String::with_capacity(96);
        text.push_str(kind);
        for component in components {
            text.push(':');
            text.push_str(&escape(component));
        }
        Self(text.into())
    }
}

impl serde::Serialize for EffectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl std::fmt::Display for EffectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
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
