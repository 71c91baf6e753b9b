//! `mission_claims`: takes a row image, gives a [`MissionClaim`]. Never looks whether the mission was completed.

use super::image::{Image, ids, word};
use super::{ClaimStatus, MerchantId, MissionClaim, MissionId, RouteError, RowId, UserId};
use crate::debezium::{Column, ValueError};

pub(super) fn read(image: Image<'_, '_>) -> Result<MissionClaim, RouteError> {
    let required = image.required(["id", "user_id", "merchant_id", "mission_id", "status"])?;
    let [row_id, user_id, merchant_id, mission_id, status] = required;
    let [period, claimed_at] = image.optional(["period", "claimed_at"]);
    let read = || -> Result<MissionClaim, ValueError> {
        let [row_id, user_id, merchant_id, mission_id] = ids([row_id, user_id, merchant_id, mission_id])?;
        Ok(MissionClaim {
            id: RowId::of(row_id),
            user_id: UserId::of(user_id),
            merchant_id: MerchantId::of(merchant_id),
            mission_id: MissionId::of(mission_id),
            status: word(status, known_status)?,
            period: period.optional(Column::text)?.map(Into::into),
            claimed_at: claimed_at.optional(|column| column.timestamp())?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}

fn known_status(word: &str) -> Option<ClaimStatus> {
    match word {
        "claimed" => Some(ClaimStatus::Claimed),
        "revoked" => Some(ClaimStatus::Revoked),
        _ => None,
    }
}
