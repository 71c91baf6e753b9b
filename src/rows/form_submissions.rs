//! `form_submissions`: takes a row image, gives a [`FormSubmission`]. Never looks into the answers.

use super::image::{Image, ids};
use super::{FormId, FormSubmission, MerchantId, RouteError, RowId, UserId};
use crate::debezium::ValueError;

pub(super) fn read(image: Image<'_, '_>) -> Result<FormSubmission, RouteError> {
    let required = image.required(["id", "form_id", "user_id", "merchant_id", "submitted_at"])?;
    let [row_id, form_id, user_id, merchant_id, submitted_at] = required;
    let read = || -> Result<FormSubmission, ValueError> {
        let [row_id, form_id, user_id, merchant_id] = ids([row_id, form_id, user_id, merchant_id])?;
        Ok(FormSubmission {
            id: RowId::of(row_id),
            form_id: FormId::of(form_id),
            user_id: UserId::of(user_id),
            merchant_id: MerchantId::of(merchant_id),
            submitted_at: submitted_at.timestamp()?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}
