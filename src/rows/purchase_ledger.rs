//! `purchase_ledger`: takes a row image, gives a [`Purchase`]. Never judges the amounts: a refund above the amount, or a
//! negative one, is kept exactly, and the rules clamp it.

use rust_decimal::Decimal;

use super::image::{Image, ids, word};
use super::{MerchantId, Purchase, PurchaseStatus, RouteError, RowId, UserId};
use crate::debezium::ValueError;

pub(super) fn read(image: Image<'_, '_>) -> Result<Purchase, RouteError> {
    let required = image.required([
        "id",
        "user_id",
        "merchant_id",
        "final_amount",
        "status",
        "earn_currency",
        "created_at",
    ])?;
    let optional = image.optional(["refunded_amount", "completed_at"]);
    let [
        row_id,
        user_id,
        merchant_id,
        final_amount,
        status,
        earn_currency,
        created_at,
    ] = required;
    let [refunded_amount, completed_at] = optional;
    let read = || -> Result<Purchase, ValueError> {
        let [row_id, user_id, merchant_id] = ids([row_id, user_id, merchant_id])?;
        Ok(Purchase {
            id: RowId::of(row_id),
            user_id: UserId::of(user_id),
            merchant_id: MerchantId::of(merchant_id),
            final_amount: final_amount.decimal(image.mode)?,
            refunded_amount: refunded_amount
                .optional(|column| column.decimal(image.mode))?
                .unwrap_or(Decimal::ZERO),
            status: word(status, known_status)?,
            earn_currency: earn_currency.bool()?,
            created_at: created_at.timestamp()?,
            completed_at: completed_at.optional(|column| column.timestamp())?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}

fn known_status(word: &str) -> Option<PurchaseStatus> {
    match word {
        "pending" => Some(PurchaseStatus::Pending),
        "completed" => Some(PurchaseStatus::Completed),
        "partially_refunded" => Some(PurchaseStatus::PartiallyRefunded),
        "refunded" => Some(PurchaseStatus::Refunded),
        "cancelled" => Some(PurchaseStatus::Cancelled),
        _ => None,
    }
}
