//! What `effects` holds of facts that have a target, page by page: for whoever compares all of them with something else.

use tokio_postgres::types::Type;

use super::{Books, LedgerError, field};

/// A fact that was applied or settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub effect_key: String,
    pub target: i64,
    pub due_ms: Option<i64>,
    /// When the row of `effects` last changed.
    pub changed_ms: i64,
    /// Commit time of the change that it is about; 0: seeded, from before the cut-off.
    pub as_of_ms: i64,
}

impl Books {
    /// In the order of their keys, behind `after`.
    ///
    /// # Errors
    /// As every call: see [`LedgerError`].
    pub async fn settled(&self, after: &str, max: i32) -> Result<Vec<Settled>, LedgerError> {
        let statement = "select effect_key, target, floor(extract(epoch from due_at) * 1000)::int8, \
                         floor(extract(epoch from updated_at) * 1000)::int8, coalesce(as_of_ms, 0) \
                         from crm_events.effects \
                         where effect_key > $1 and kind in ('award', 'grant', 'referral', 'code') \
                         and state in ('pending', 'settled', 'review') order by effect_key limit $2::int4";
        let parameters = [(&after as _, Type::TEXT), (&max as _, Type::INT4)];
        let rows = self.client.query(statement, &parameters).await?;
        let settled = |row| {
            Ok(Settled {
                effect_key: field(row, 0)?,
                target: field(row, 1)?,
                due_ms: field(row, 2)?,
                changed_ms: field(row, 3)?,
                as_of_ms: field(row, 4)?,
            })
        };
        rows.iter().map(settled).collect()
    }
}
