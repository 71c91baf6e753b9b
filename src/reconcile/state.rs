//! Rows of the ledgers decided again: takes a row as it is now, gives what the consumers would do, and what follows from how
//! `effects` stands to that. Pure.
//!
//! Decoder, router and decisions are the pipeline's: a row comes as a snapshot would bring it. It never asks anybody.

use jiff::Timestamp;

use crate::consumers::{self, Consumer, Decision, Effect, Proof, Rules};
use crate::debezium::{DecimalMode, Decoded, Decoder, Op};
use crate::inngest::EventData;
use crate::postgres::{LedgerRow, Standing};
use crate::record::{Headers, RecordView};
use crate::rows::{self, Routed, Row, RowChange, Table};

/// Who takes an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Inngest, whose functions settle it.
    Event,
    /// The database, which evaluates the member's tier.
    Tiers,
    /// The database, which adds the missions up.
    Progress,
}

/// How a fact stands that was decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Older than the cut-off, and nothing is known of it.
    NotOurs,
    /// There is nothing to do, and nothing was ever done.
    Nothing,
    /// Known as it was decided.
    Known,
    /// Something is to be done that nobody has begun.
    Missing,
    /// Another state of the row was worked on.
    Differs,
}

/// The row as a snapshot would bring it.
///
/// # Errors
/// Why it cannot be read: what the dead letter of its record says.
pub fn read(table: Table, row: &LedgerRow) -> Result<RowChange, String> {
    let (name, at) = (table.name(), row.read_at_ms);
    let text = format!(
        r#"{{"op":"r","after":{},"source":{{"table":"{name}","ts_ms":{at}}},"ts_ms":{at}}}"#,
        row.image
    );
    let record = RecordView {
        topic: name,
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(text.as_bytes()),
        headers: Headers::default(),
    };
    let change = match Decoder::default().decode(&record) {
        Ok(Decoded::Change(change)) => change,
        Ok(Decoded::Control(_)) => return Err("no row".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    match rows::route(name, &change, DecimalMode::Text) {
        Ok(Routed::Row(change)) => Ok(change),
        Ok(Routed::Unread { .. }) => Err("a table that nobody reads".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What this consumer would do about the row, under ids of the state it is in.
#[must_use]
pub fn decide(consumer: Consumer, change: &RowChange, rules: &Rules, now: Timestamp) -> Decision {
    match consumers::decide(consumer, change, rules, now) {
        Decision::Deliver(effects) => Decision::Deliver(effects.map(Effect::of_state)),
        other => other,
    }
}

/// Whether the row, were it new, would lead to no evaluation of its member's tier. As it stands here it may have counted once,
/// so that the decision above cannot tell.
#[must_use]
pub fn adds_nothing(change: &RowChange, rules: &Rules, now: Timestamp) -> bool {
    let new = RowChange {
        op: Op::Create,
        before: None,
        ..change.clone()
    };
    matches!(consumers::decide(Consumer::Tier, &new, rules, now), Decision::Ignore(_))
}

impl Way {
    #[must_use]
    pub const fn of(effect: &Effect) -> Self {
        match &effect.event.data {
            EventData::TierEvaluationRequested(_) => Self::Tiers,
            EventData::MissionEvaluationRequested(_) => Self::Progress,
            EventData::AwardScheduled { .. }
            | EventData::AwardCancelled(_)
            | EventData::RewardGranted(_)
            | EventData::RewardRevoked(_)
            | EventData::CodeRedeemed(_) => Self::Event,
        }
    }
}

impl Verdict {
    /// `standing`: how `effects` stands to the effect; of a row older than the cut-off, to the key by which it may be known.
    /// Tiers rest on many rows: of them it says only that.
    #[must_use]
    pub fn of(effect: &Effect, standing: Standing) -> Self {
        if matches!(effect.proof, Proof::IfKnown(_)) && standing == Standing::Absent {
            return Self::NotOurs;
        }
        match standing {
            Standing::Equal => Self::Known,
            Standing::Absent | Standing::Zero if counts_nothing(effect) => Self::Nothing,
            Standing::Absent | Standing::Zero => Self::Missing,
            Standing::Differs => Self::Differs,
        }
    }

    /// Whether something is to be done about it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Missing | Self::Differs)
    }
}

/// Whether the decision leaves a fact that nobody knows as it is.
fn counts_nothing(effect: &Effect) -> bool {
    match &effect.event.data {
        EventData::MissionEvaluationRequested(data) => data.missions.iter().all(|share| share.counted.is_zero()),
        EventData::TierEvaluationRequested(_) => false,
        EventData::AwardScheduled { .. }
        | EventData::AwardCancelled(_)
        | EventData::RewardGranted(_)
        | EventData::RewardRevoked(_)
        | EventData::CodeRedeemed(_) => effect.fact().target == 0,
    }
}

/// The newest time in the row, ms: it was not so before.
#[must_use]
pub fn newest_ms(row: &Row) -> Option<i64> {
    let created = row.created_at();
    let completed = match row {
        Row::Purchase(row) => row.completed_at,
        _ => None,
    };
    created.max(completed).map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::PurchaseStatus;

    fn row(image: &str) -> LedgerRow {
        LedgerRow {
            id: "1".to_owned(),
            image: image.to_owned(),
            read_at_ms: 1_795_000_000_000,
        }
    }

    #[test]
    fn a_row_of_the_database_is_read_as_a_snapshot_would_bring_it() {
        let image = r#"{"id": 7, "user_id": "0b1c", "merchant_id": "m", "final_amount": 100.10, "refunded_amount": null,
            "status": "completed", "earn_currency": true, "created_at": "2026-11-20T10:00:00.5+00:00", "completed_at": null}"#;
        let change = read(Table::PurchaseLedger, &row(image)).expect("a row");
        let Row::Purchase(purchase) = &change.row else {
            panic!("{change:?}");
        };
        assert_eq!(purchase.id.as_str(), "7");
        assert_eq!(purchase.final_amount.to_string(), "100.10");
        assert_eq!(purchase.status, PurchaseStatus::Completed);
        assert_eq!(newest_ms(&change.row), Some(1_795_168_800_500));
        assert_eq!(change.commit_ms, 1_795_000_000_000);
    }

    #[test]
    fn a_claim_and_a_code_that_do_not_tell_their_age_are_ours_only_if_they_are_known() {
        let rules = Rules {
            database: true,
            ..Rules::new(std::sync::Arc::default(), Some(Timestamp::UNIX_EPOCH))
        };
        let claim = r#"{"id": "c", "user_id": "u", "merchant_id": "m", "mission_id": "s", "status": "claimed", "period": null,
            "claimed_at": null}"#;
        let code = r#"{"id": "c", "code": "-", "merchant_id": "m", "status": "redeemed", "user_id": "u"}"#;
        for (table, consumer, image) in [
            (Table::MissionClaims, Consumer::Reward, claim),
            (Table::Codes, Consumer::Marketplace, code),
        ] {
            let change = read(table, &row(image)).expect("a row");
            let Decision::Deliver(effects) = decide(consumer, &change, &rules, Timestamp::UNIX_EPOCH) else {
                panic!("{change:?}");
            };
            let verdict = |standing| {
                effects
                    .iter()
                    .map(|effect| Verdict::of(effect, standing))
                    .collect::<Vec<_>>()
            };
            assert_eq!(verdict(Standing::Absent), [Verdict::NotOurs], "{table}");
            assert_eq!(verdict(Standing::Zero), [Verdict::Missing], "{table}");
        }
    }

    #[test]
    fn a_row_that_its_record_could_not_be_read_of_says_why() {
        let problem = read(
            Table::Codes,
            &row(r#"{"id": "c", "code": "-", "merchant_id": "m", "status": "lent"}"#),
        );
        assert!(problem.expect_err("unknown status").contains("lent"));
    }
}
