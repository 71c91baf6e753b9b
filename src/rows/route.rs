//! The way from a [`Change`] to a [`RowChange`]: which table, which change of the row, which image. Never reads a column
//! itself; the tables do.

use super::image::Image;
use super::{
    ChangeVersion, Rewrite, RouteError, Row, RowChange, Table, codes, form_submissions, mission_claims,
    purchase_ledger, referral_ledger, wallet_ledger,
};
use crate::debezium::{Change, Columns, DecimalMode, Op};

/// Where a change goes.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every change is a row; a box would cost each one an allocation"
)]
pub enum Routed {
    Row(RowChange),
    /// No consumer reads this table: counted, and done.
    Unread {
        table: Box<str>,
    },
}

/// `topic` is where the change was found: rows of a table nobody reads on the topic of one that is read are a mistake (a
/// child of a partitioned table, a rename), and passing over them would lose them in silence.
///
/// # Errors
/// The change is of a table we read, and is not a row it should hold.
pub fn route(topic: &str, change: &Change<'_>, mode: DecimalMode) -> Result<Routed, RouteError> {
    let Some(table) = Table::from_name(&change.table) else {
        let found: Box<str> = change.table.as_ref().into();
        return match topic.rsplit('.').next().and_then(Table::from_name) {
            Some(table) => Err(RouteError::UnexpectedTable { table, found }),
            None => Ok(Routed::Unread { table: found }),
        };
    };
    if let Some(rewrite) = rewrite(change) {
        return Err(RouteError::LedgerRewritten { table, rewrite });
    }
    let version = version(change, table)?;
    let after = change.after.as_ref().ok_or(RouteError::MissingAfter { table })?;
    let row = read(table, after, mode)?;
    // Only a complete image says anything: null, the bare key, a placeholder or another row's image prove nothing.
    let before = change
        .before
        .as_ref()
        .and_then(|columns| read(table, columns, mode).ok())
        .filter(|before| before.id() == row.id());
    Ok(Routed::Row(RowChange {
        op: change.op,
        version,
        commit_ms: change.commit_ms,
        row,
        before,
    }))
}

fn rewrite(change: &Change<'_>) -> Option<Rewrite> {
    match change.op {
        Op::Delete => Some(Rewrite::Delete),
        Op::Truncate => Some(Rewrite::Truncate),
        Op::Create if change.rekeyed => Some(Rewrite::Rekey),
        Op::Create | Op::Update | Op::Read => None,
    }
}

/// What stays the same when a connector repeats itself. Snapshot rows share one LSN a snapshot, or have none; their time
/// is that of the snapshot.
fn version(change: &Change<'_>, table: Table) -> Result<ChangeVersion, RouteError> {
    match change.op {
        Op::Read => change
            .source_ts_ms
            .map(ChangeVersion::Snapshot)
            .or(change.lsn.map(ChangeVersion::SnapshotLsn))
            .ok_or(RouteError::MissingSnapshotTime { table }),
        Op::Create | Op::Update | Op::Delete | Op::Truncate => change
            .lsn
            .map(ChangeVersion::Lsn)
            .ok_or(RouteError::MissingLsn { table }),
    }
}

fn read(table: Table, columns: &Columns<'_>, mode: DecimalMode) -> Result<Row, RouteError> {
    let image = Image { table, columns, mode };
    match table {
        Table::PurchaseLedger => purchase_ledger::read(image).map(Row::Purchase),
        Table::WalletLedger => wallet_ledger::read(image).map(Row::WalletEntry),
        Table::FormSubmissions => form_submissions::read(image).map(Row::FormSubmission),
        Table::MissionClaims => mission_claims::read(image).map(Row::MissionClaim),
        Table::ReferralLedger => referral_ledger::read(image).map(Row::Referral),
        Table::Codes => codes::read(image).map(Row::Code),
    }
}
