//! `referral_ledger`: takes a row image, gives a [`Referral`]. Never judges who may refer whom: the reward consumer does.

use super::image::{Image, ids, word};
use super::{MerchantId, Referral, ReferralStatus, RouteError, RowId, UserId};
use crate::debezium::ValueError;

pub(super) fn read(image: Image<'_, '_>) -> Result<Referral, RouteError> {
    let required = image.required([
        "id",
        "referrer_user_id",
        "referee_user_id",
        "merchant_id",
        "status",
        "created_at",
    ])?;
    let [row_id, referrer, referee, merchant_id, status, created_at] = required;
    let read = || -> Result<Referral, ValueError> {
        let [row_id, referrer, referee, merchant_id] = ids([row_id, referrer, referee, merchant_id])?;
        Ok(Referral {
            id: RowId::of(row_id),
            referrer_user_id: UserId::of(referrer),
            referee_user_id: UserId::of(referee),
            merchant_id: MerchantId::of(merchant_id),
            status: word(status, known_status)?,
            created_at: created_at.timestamp()?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}

fn known_status(word: &str) -> Option<ReferralStatus> {
    match word {
        "pending" => Some(ReferralStatus::Pending),
        "qualified" => Some(ReferralStatus::Qualified),
        "cancelled" => Some(ReferralStatus::Cancelled),
        _ => None,
    }
}
