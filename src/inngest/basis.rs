//! The basis of a decision: every column of the row that it reads, as events and calls to the database carry it. Pure.
//!
//! Takes a row, gives texts and booleans, times in UTC. The database compares it with the row as values, never as text.
//! It never holds a column that no decision reads.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::event::Text;
use crate::rows::{
    ClaimStatus, Code, FormSubmission, MerchantId, MissionClaim, MissionId, Purchase, Referral, ReferralStatus, Row,
    UserId,
};

/// What a decision about a row was based on.
#[derive(Debug, Clone, Copy)]
pub enum Basis<'a> {
    Purchase(&'a Purchase),
    FormSubmission(&'a FormSubmission),
    MissionClaim(&'a MissionClaim),
    Referral(&'a Referral),
    Code(&'a Code),
}

impl<'a> Basis<'a> {
    /// `None` for a wallet entry: it only tells that something is to be looked at.
    #[must_use]
    pub const fn of(row: &'a Row) -> Option<Self> {
        match row {
            Row::Purchase(row) => Some(Self::Purchase(row)),
            Row::WalletEntry(_) => None,
            Row::FormSubmission(row) => Some(Self::FormSubmission(row)),
            Row::MissionClaim(row) => Some(Self::MissionClaim(row)),
            Row::Referral(row) => Some(Self::Referral(row)),
            Row::Code(row) => Some(Self::Code(row)),
        }
    }
}

/// Two rows that no decision can tell apart. Columns outside of the basis do not count.
impl PartialEq for Basis<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Purchase(one), Self::Purchase(other)) => one == other,
            (Self::FormSubmission(one), Self::FormSubmission(other)) => one == other,
            (Self::MissionClaim(one), Self::MissionClaim(other)) => claim(one) == claim(other),
            (Self::Referral(one), Self::Referral(other)) => referral(one) == referral(other),
            (Self::Code(one), Self::Code(other)) => one == other,
            (
                Self::Purchase(_) | Self::FormSubmission(_) | Self::MissionClaim(_) | Self::Referral(_) | Self::Code(_),
                _,
            ) => false,
        }
    }
}

type ClaimBasis<'a> = (&'a UserId, &'a MerchantId, &'a MissionId, ClaimStatus, Option<&'a str>);
type ReferralBasis<'a> = (&'a UserId, &'a UserId, &'a MerchantId, ReferralStatus);

fn claim(row: &MissionClaim) -> ClaimBasis<'_> {
    let (user, merchant, mission) = (&row.user_id, &row.merchant_id, &row.mission_id);
    (user, merchant, mission, row.status, row.period.as_deref())
}

const fn referral(row: &Referral) -> ReferralBasis<'_> {
    let (referrer, referee) = (&row.referrer_user_id, &row.referee_user_id);
    (referrer, referee, &row.merchant_id, row.status)
}

impl Serialize for Basis<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Purchase(row) => {
                let mut basis = serializer.serialize_struct("Basis", 8)?;
                basis.serialize_field("user_id", &row.user_id)?;
                basis.serialize_field("merchant_id", &row.merchant_id)?;
                basis.serialize_field("final_amount", &Text(row.final_amount))?;
                basis.serialize_field("refunded_amount", &Text(row.refunded_amount))?;
                basis.serialize_field("status", &row.status)?;
                basis.serialize_field("earn_currency", &row.earn_currency)?;
                basis.serialize_field("created_at", &row.created_at)?;
                basis.serialize_field("completed_at", &row.completed_at)?;
                basis.end()
            }
            Self::FormSubmission(row) => {
                let mut basis = serializer.serialize_struct("Basis", 4)?;
                basis.serialize_field("form_id", &row.form_id)?;
                basis.serialize_field("user_id", &row.user_id)?;
                basis.serialize_field("merchant_id", &row.merchant_id)?;
                basis.serialize_field("submitted_at", &row.submitted_at)?;
                basis.end()
            }
            Self::MissionClaim(row) => {
                let mut basis = serializer.serialize_struct("Basis", 5)?;
                basis.serialize_field("user_id", &row.user_id)?;
                basis.serialize_field("merchant_id", &row.merchant_id)?;
                basis.serialize_field("mission_id", &row.mission_id)?;
                basis.serialize_field("status", &row.status)?;
                basis.serialize_field("period", &row.period.as_deref())?;
                basis.end()
            }
            Self::Referral(row) => {
                let mut basis = serializer.serialize_struct("Basis", 4)?;
                basis.serialize_field("referrer_user_id", &row.referrer_user_id)?;
                basis.serialize_field("referee_user_id", &row.referee_user_id)?;
                basis.serialize_field("merchant_id", &row.merchant_id)?;
                basis.serialize_field("status", &row.status)?;
                basis.end()
            }
            Self::Code(row) => {
                let mut basis = serializer.serialize_struct("Basis", 4)?;
                basis.serialize_field("merchant_id", &row.merchant_id)?;
                basis.serialize_field("user_id", &row.user_id)?;
                basis.serialize_field("status", &row.status)?;
                basis.serialize_field("redeemed_at", &row.redeemed_at)?;
                basis.end()
            }
        }
    }
}
