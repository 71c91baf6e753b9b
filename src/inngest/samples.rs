//! Sample events for the tests of this room.

#[cfg(feature = "io")]
use super::{Answer, Deliver, EventBatch};
use super::{Event, EventData, TierEvaluation};
use crate::consumers::{EffectKey, Reason};
use crate::dedupe::ClaimKey;
use crate::loyalty::{Metric, TierRule, Timing, Window};
use crate::rows::{ChangeVersion, MerchantId, RowId, Table, UserId};

/// A commit time, within what Inngest allows.
pub(super) const TS_MS: i64 = 1_790_000_000_000;

pub(super) fn event(row: &str) -> Event {
    let row = RowId::new(row).expect("not empty");
    Event {
        id: ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(1)),
        ts_ms: TS_MS,
        data: EventData::TierEvaluationRequested(evaluation()),
    }
}

pub(super) fn events(rows: &[&str]) -> Vec<Event> {
    rows.iter().map(|row| event(row)).collect()
}

/// The id an event of that row is sent with.
pub(super) fn id(row: &str) -> String {
    event(row).id.to_string()
}

/// Sends them as one request.
#[cfg(feature = "io")]
pub(super) async fn send(inngest: &dyn Deliver, events: &[Event]) -> Answer {
    let batch = EventBatch::of(events, i64::MAX);
    inngest.send(&batch, 0..batch.len()).await
}

fn evaluation() -> TierEvaluation {
    let merchant_id = MerchantId::new("m-1").expect("not empty");
    let user_id = UserId::new("u-1").expect("not empty");
    TierEvaluation {
        effect_key: EffectKey::tier(&merchant_id, &user_id),
        merchant_id,
        user_id,
        metric: Metric::Spend,
        program_rev: 1,
        as_of_ms: TS_MS,
        triggers: Vec::new(),
        reason: Reason::ALL[0],
        rule: std::sync::Arc::new(TierRule {
            ladder: Vec::new(),
            metric: Metric::Spend,
            window: Window::Lifetime,
            timing: Timing::Immediate,
        }),
        zone: jiff::tz::TimeZone::UTC,
    }
}
