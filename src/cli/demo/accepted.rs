//! Accepted events as the checker reads them: its own small shapes of what the schemas promise, and nothing more.

use std::borrow::Cow;

use jiff::Timestamp;

#[derive(Debug, serde::Deserialize)]
pub(super) struct Award<'a> {
    #[serde(borrow)]
    pub(super) purchase_id: Cow<'a, str>,
    pub(super) target_points: Cow<'a, str>,
    pub(super) due_at: Option<Cow<'a, str>>,
    /// The commit time of the change: with the purchase it names the change.
    pub(super) as_of_ms: i64,
    pub(super) basis: Basis<'a>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Basis<'a> {
    #[serde(borrow)]
    pub(super) user_id: Cow<'a, str>,
    pub(super) merchant_id: Cow<'a, str>,
    pub(super) final_amount: Cow<'a, str>,
    pub(super) refunded_amount: Cow<'a, str>,
    pub(super) status: Cow<'a, str>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Tier<'a> {
    #[serde(borrow)]
    pub(super) merchant_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    pub(super) metric: Cow<'a, str>,
    pub(super) triggers: Vec<RowRef<'a>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Mission<'a> {
    #[serde(borrow)]
    pub(super) merchant_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    pub(super) source: RowRef<'a>,
    pub(super) missions: Vec<Share<'a>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Share<'a> {
    #[serde(borrow)]
    pub(super) mission_id: Cow<'a, str>,
    pub(super) counted: Cow<'a, str>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct RowRef<'a> {
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    pub(super) row_id: Cow<'a, str>,
    pub(super) version: Cow<'a, str>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Grant<'a> {
    #[serde(borrow)]
    pub(super) source: Cow<'a, str>,
    pub(super) claim_id: Option<Cow<'a, str>>,
    pub(super) mission_id: Option<Cow<'a, str>>,
    pub(super) referral_id: Option<Cow<'a, str>>,
    pub(super) side: Option<Cow<'a, str>>,
    pub(super) merchant_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    pub(super) as_of_ms: i64,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Redemption<'a> {
    #[serde(borrow)]
    pub(super) code_id: Cow<'a, str>,
    pub(super) merchant_id: Cow<'a, str>,
    pub(super) user_id: Option<Cow<'a, str>>,
    pub(super) as_of_ms: i64,
}

/// What every event has.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Fact<'a> {
    #[serde(borrow)]
    pub(super) effect_key: Cow<'a, str>,
}

/// A time as microseconds since the epoch.
pub(super) fn micros(rfc3339: &str) -> Option<i64> {
    rfc3339.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// A decimal text of at most two places, in hundredths.
pub(super) fn hundredths(decimal: &str) -> Option<i64> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 2 {
        return None;
    }
    whole
        .parse::<i64>()
        .ok()?
        .checked_mul(100)?
        .checked_add(format!("{fraction:0<2}").parse().ok()?)
}
