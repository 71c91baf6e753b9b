//! What the tables share: one row image in, its required columns checked together, words and ids out. Never knows a table.

use std::borrow::Cow;

use super::{RouteError, Table};
use crate::debezium::{Column, Columns, DecimalMode, ValueError, shown};
use crate::parts::Part;

/// The image of one row of a known table, and how to read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'i, 'a> {
    pub(super) table: Table,
    pub(super) columns: &'i Columns<'a>,
    pub(super) mode: DecimalMode,
}

impl<'a> Image<'_, 'a> {
    /// All required columns, or an error that names every one that is missing: a person mends the table once.
    pub(super) fn required<const N: usize>(&self, names: [&'static str; N]) -> Result<[Column<'a>; N], RouteError> {
        let columns = self.columns.pick(names);
        if columns.iter().any(Column::is_missing) {
            let missing = columns
                .iter()
                .filter(|column| column.is_missing())
                .map(Column::name)
                .collect();
            return Err(RouteError::MissingColumns {
                table: self.table,
                columns: missing,
            });
        }
        Ok(columns)
    }

    pub(super) fn optional<const N: usize>(&self, names: [&'static str; N]) -> [Column<'a>; N] {
        self.columns.pick(names)
    }
}

/// The ids of a row, in one piece of memory. None of them is empty.
pub(super) fn ids<const N: usize>(columns: [Column<'_>; N]) -> Result<[Part; N], ValueError> {
    let mut texts = [const { Cow::Borrowed("") }; N];
    for (text, column) in texts.iter_mut().zip(columns) {
        *text = column.id()?;
    }
    Ok(Part::of(&texts.each_ref().map(|text| &**text)))
}

/// One of the words a column may hold; any other is named in the error.
pub(super) fn word<T>(column: Column<'_>, known: fn(&str) -> Option<T>) -> Result<T, ValueError> {
    let text = column.text()?;
    known(&text).ok_or_else(|| ValueError::UnknownValue {
        column: column.name(),
        value: shown(&text),
    })
}
