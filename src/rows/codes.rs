//! `codes`: takes a row image, gives a [`Code`]. The code itself must be there and is never read: what is not kept cannot
//! reach a log or an event.

use super::image::{Image, ids, word};
use super::{Code, CodeStatus, MerchantId, RouteError, RowId, UserId};
use crate::debezium::{Column, ValueError};

pub(super) fn read(image: Image<'_, '_>) -> Result<Code, RouteError> {
    let [row_id, _code, merchant_id, status] = image.required(["id", "code", "merchant_id", "status"])?;
    let [user_id, redeemed_at] = image.optional(["user_id", "redeemed_at"]);
    let read = || -> Result<Code, ValueError> {
        let [row_id, merchant_id] = ids([row_id, merchant_id])?;
        Ok(Code {
            id: RowId::of(row_id),
            merchant_id: MerchantId::of(merchant_id),
            status: word(status, known_status)?,
            user_id: user_id.optional(user)?,
            redeemed_at: redeemed_at.optional(|column| column.timestamp())?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}

fn user(column: Column<'_>) -> Result<UserId, ValueError> {
    let [user] = ids([column])?;
    Ok(UserId::of(user))
}

fn known_status(word: &str) -> Option<CodeStatus> {
    match word {
        "issued" => Some(CodeStatus::Issued),
        "redeemed" => Some(CodeStatus::Redeemed),
        "expired" => Some(CodeStatus::Expired),
        "void" => Some(CodeStatus::Void),
        _ => None,
    }
}
