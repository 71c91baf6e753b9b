//! `mission_claims`: takes a row image, gives a [`MissionClaim`]. Never looks whether the mission was completed.

use super::image::{Image, id, word};
use super::{ClaimStatus, MerchantId, MissionClaim, MissionId, RouteError, RowId, UserId};
use crate::debezium::{Column, ValueError};

pub(super) fn read(image: Image<'_, '_>) -> Result<MissionClaim, RouteError> {
    let required = image.required(["id", "user_id", "merchant_id", "mission_id", "status"])?;
    let [row_id, user_id, merchant_id, mission_id, status] = required;
    let [period, claimed_at] = image.optional(["period", "claimed_at"]);
    let read = || -> Result<MissionClaim, ValueError> {
        Ok(MissionClaim {
            id: id(row_id, RowId::new)?,
            user_id: id(user_id, UserId::new)?,
            merchant_id: id(merchant_id, MerchantId::new)?,
            mission_id: id(mission_id, MissionId::new)?,
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
