//! `form_submissions`: takes a row image, gives a [`FormSubmission`]. Never looks into the answers.

use super::image::{Image, id};
use super::{FormId, FormSubmission, MerchantId, RouteError, RowId, UserId};
use crate::debezium::ValueError;

pub(super) fn read(image: Image<'_, '_>) -> Result<FormSubmission, RouteError> {
    let required = image.required(["id", "form_id", "user_id", "merchant_id", "submitted_at"])?;
    let [row_id, form_id, user_id, merchant_id, submitted_at] = required;
    let read = || -> Result<FormSubmission, ValueError> {
        Ok(FormSubmission {
            id: id(row_id, RowId::new)?,
            form_id: id(form_id, FormId::new)?,
            user_id: id(user_id, UserId::new)?,
            merchant_id: id(merchant_id, MerchantId::new)?,
            submitted_at: submitted_at.timestamp()?,
        })
    };
    read().map_err(|error| RouteError::Value {
        table: image.table,
        error,
    })
}
