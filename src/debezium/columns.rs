//! The columns of a row image. Takes JSON text, gives names and values that still are JSON text, borrowed. Never
//! interprets a value: that is asked for column by column, with the name at hand for the error.
//!
//! A column that stands twice in one image: the last one wins, as in Postgres `jsonb` and every JSON reader downstream.
//! (Refusing it would need a set of names for each row, to catch what no connector writes.)

use std::borrow::Cow;
use std::cell::Cell;
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
    let mut columns = Columns { cells: SPARE.take() };
    if columns.cells.capacity() == 0 {
        // The other image of an update.
        columns.cells.reserve(USUAL);
    }
    while let Some(Text(name)) = map.next_key()? {
        columns.cells.push((name, map.next_value()?));
    }
    Ok(columns)
}

thread_local! {
    /// The list of the last image that was read here, emptied: the next one takes its memory.
    static SPARE: Cell<Vec<(Cow<'static, str>, &'static RawValue)>> = const { Cell::new(Vec::new()) };
}

/// As many columns as the tables that are read have.
const USUAL: usize = 16;

/// A wider table's list is not kept.
const MOST_SPARE: usize = 256;

impl Drop for Columns<'_> {
    fn drop(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        if cells.capacity() <= MOST_SPARE {
            #[expect(
                clippy::unnecessary_filter_map,
                reason = "`filter` would keep the lifetime, which is what must go"
            )]
            // The standard library collects in place: an empty list in the same memory, which borrows from nobody.
            SPARE.set(cells.into_iter().filter_map(|_| None).collect());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_takes_the_memory_of_the_one_before() {
        let read = |json| -> Columns<'_> { serde_json::from_str(json).expect("a row") };
        // More columns than a list begins with: its size tells whose memory it is.
        let wide: Vec<String> = (0..40).map(|number| format!(r#""column {number}":{number}"#)).collect();
        let wide = format!("{{{}}}", wide.join(","));
        let first = read(&wide);
        assert_eq!(first.get("column 39"), Some("39"));
        let room = first.cells.capacity();
        drop(first);
        let second = read(r#"{"id":"b","n\u0061me":1}"#);
        assert_eq!((second.get("id"), second.get("name")), (Some(r#""b""#), Some("1")));
        assert_eq!(second.get("column 1"), None, "nothing is left of the one before");
        assert_eq!(second.cells.capacity(), room);
        let beside = read(r#"{"id":"c"}"#);
        assert_eq!(beside.cells.capacity(), USUAL);
    }
}
