//! Why a decoded change is no row of ours. Takes the table and what was wrong, gives a sentence for a person and a word
//! for machines. Never repeats a row's values; a status word is the exception.

use crate::debezium::{ValueError, shown};

use super::Table;

/// What somebody did to a ledger that is only ever appended to and amended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    Delete,
    Truncate,
    /// The row's primary key was changed: a delete and a create, of which the create would be awarded again.
    Rekey,
}

/// Why a change could not be routed: the record goes to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("{table}: a row was {rewrite}: ledgers are amended by new rows or states, never rewritten; decide by hand")]
    LedgerRewritten { table: Table, rewrite: Rewrite },
    #[error(
        "{table}: its topic holds a row of table {}, which no consumer reads: publish partitioned tables through their root \
         (publish_via_partition_root), and give every table its own topic",
        shown(found)
    )]
    UnexpectedTable { table: Table, found: Box<str> },
    #[error("{table}: the change has no source.lsn, so a repetition could not be told from a new change")]
    MissingLsn { table: Table },
    #[error("{table}: the snapshot row has neither source.ts_ms nor source.lsn, so a repetition could not be told")]
    MissingSnapshotTime { table: Table },
    #[error("{table}: the change has no row image: after is null")]
    MissingAfter { table: Table },
    #[error(
        "{table}: required columns are missing or null: {}: fill the row, or send the columns (connector and publication)",
        .columns.join(", ")
    )]
    MissingColumns { table: Table, columns: Box<[&'static str]> },
    #[error("{table}: {error}")]
    Value {
        table: Table,
        #[source]
        error: ValueError,
    },
}

impl RouteError {
    /// A stable word for dead-letter headers and metric labels.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::LedgerRewritten { .. } => "ledger_rewritten",
            Self::UnexpectedTable { .. } => "unexpected_table",
            Self::MissingLsn { .. } => "missing_lsn",
            Self::MissingSnapshotTime { .. } => "missing_snapshot_time",
            Self::MissingAfter { .. } => "missing_after",
            Self::MissingColumns { .. } => "missing_columns",
            Self::Value { error, .. } => error.reason(),
        }
    }

    /// Whether the dead letter is our rule rather than a fault: such ones never count towards a halt.
    #[must_use]
    pub const fn is_policy(&self) -> bool {
        match self {
            Self::LedgerRewritten { .. } => true,
            Self::UnexpectedTable { .. }
            | Self::MissingLsn { .. }
            | Self::MissingSnapshotTime { .. }
            | Self::MissingAfter { .. }
            | Self::MissingColumns { .. }
            | Self::Value { .. } => false,
        }
    }

    /// The table the change was for.
    #[must_use]
    pub const fn table(&self) -> Table {
        match self {
            Self::LedgerRewritten { table, .. }
            | Self::UnexpectedTable { table, .. }
            | Self::MissingLsn { table }
            | Self::MissingSnapshotTime { table }
            | Self::MissingAfter { table }
            | Self::MissingColumns { table, .. }
            | Self::Value { table, .. } => *table,
        }
    }
}

impl std::fmt::Display for Rewrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Delete => "deleted",
            Self::Truncate => "truncated away",
            Self::Rekey => "given another primary key",
        })
    }
}
