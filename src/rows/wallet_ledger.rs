//! `wallet_ledger`: takes a row image, gives a [`WalletEntry`]. Never judges the sign of an amount.

use super::image::{Image, ids, word};
use super::{MerchantId, RouteError, RowId, UserId, WalletEntry, WalletEntryKind};
use crate::debezium::{Column, ValueError};

pub(super) fn read(image: Image<'_, '_>) -> Result<WalletEntry, RouteError> {
    let required = image.required(["id", "user_id", "merchant_id", "amount", "kind", "created_at"])?;
    let [row_id, user_id, merchant_id, amount, kind, created_at] = required;
    let [source_type, source_id] = image.optional(["source_type", "source_id"]);
    let read = || -> Result<WalletEntry, ValueError> {
        let [row_id, user_id, merchant_id] = ids([row_id, user_id, merchant_id])?;
        Ok(WalletEntry {
            id: RowId::of(row_id),
            user_id: UserId::of(user_id),
            merchant_id: MerchantId::of(merchant_id),
            amount: amount.i64()?,
            kind: word(kind, known_kind)?,
            source_type: source_type.optional(Column::text)?.map(Into::into),
            source_id: source_id.optional(source)?.flatten(),
            created_at: created_at.timestamp()?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}

/// What a wallet entry came from: an id like any other, but an empty one says no more than null.
fn source(column: Column<'_>) -> Result<Option<Box<str>>, ValueError> {
    match column.id() {
        Ok(text) => Ok(Some(text.into())),
        Err(ValueError::Empty { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn known_kind(word: &str) -> Option<WalletEntryKind> {
    match word {
        "earn" => Some(WalletEntryKind::Earn),
        "spend" => Some(WalletEntryKind::Spend),
        "expire" => Some(WalletEntryKind::Expire),
        "adjust" => Some(WalletEntryKind::Adjust),
        "clawback" => Some(WalletEntryKind::Clawback),
        _ => None,
    }
}
