//! The columns of a row image. Takes JSON text, gives names and values that still are JSON text, borrowed. Never
//! interprets a value: that is asked for column by column, with the name at hand for the error.
//!
//! A column that stands twice in one image: the last one wins, as in Postgres `jsonb` and every JSON reader downstream.
//! (Refusing it would need a set of names for each row, to catch what no connector writes.)

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The columns of one row image, by name, each value still its own JSON text.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    cells: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// One column asked for by name: perhaps not there, perhaps null.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    pub(super) name: &'static str,
    /// The value's JSON text; `None` if the column is absent or null.
    pub(super) token: Option<&'a str>,
}

impl<'a> Columns<'a> {
    /// The value's JSON text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.cells
            .iter()
            .rev()
            .find(|(column, _)| column == name)
            .map(|(_, value)| value.get())
    }

    /// One column, to be read.
    #[must_use]
    pub fn column(&self, name: &'static str) -> Column<'a> {
        Column::new(name, self.get(name))
    }

    /// Several columns in one pass over the row.
    #[must_use]
    pub fn pick<const N: usize>(&self, names: [&'static str; N]) -> [Column<'a>; N] {
        let mut columns = names.map(|name| Column::new(name, None));
        for (name, value) in &self.cells {
            if let Some(column) = columns.iter_mut().find(|column| column.name == name) {
                *column = Column::new(column.name, Some(value.get()));
            }
        }
        columns
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|(name, _)| &**name)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

impl<'a> Column<'a> {
    fn new(name: &'static str, token: Option<&'a str>) -> Self {
        Self {
            name,
            token: token.filter(|token| *token != "null"),
        }
    }

    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Absent or null. Connectors that replace nulls by defaults make the two one anyway.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        self.token.is_none()
    }
}

impl<'de> Deserialize<'de> for Columns<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_columns(map)
    }
}

pub(super) fn read_columns<'de, A: MapAccess<'de>>(mut map: A) -> Result<Columns<'de>, A::Error> {
    // One allocation for the rows we know.
    let mut cells = Vec::with_capacity(16);
    while let Some(Text(name)) = map.next_key()? {
        cells.push((name, map.next_value()?));
    }
    Ok(Columns { cells })
}

/// A text that borrows from the input unless it holds an escape. (Serde's own `Cow` is always owned.)
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}
