//! One value of one column. Takes its JSON text, gives what it is, and for a [`Column`] the type a table asks for. Never
//! guesses a type, never rounds, and its errors never repeat the value. Money is in `decimals`, times are in `times`.

use std::borrow::Cow;

use super::columns::Column;
use super::{Found, ValueError};

/// What Debezium writes for an out-of-line (TOAST) column that did not change (`unavailable.value.placeholder`), in the shape of the
/// column's type: text, array, array of its bytes, base64 for `bytea`, and a map for `hstore`.
const PLACEHOLDER: &str = "__debezium_unavailable_value";
const PLACEHOLDER_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// A value, as far as JSON and the placeholder tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    /// Not sent, because it did not change: unknown, and never a value.
    Unchanged,
    Bool(bool),
    /// The number exactly as written.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// An array or an object, as written.
    Json(&'a str),
}

impl<'a> Cell<'a> {
    /// Reads the text of one valid JSON value. `None` if it is a string whose escapes are no text (a lone surrogate).
    #[must_use]
    pub fn read(token: &'a str) -> Option<Self> {
        Some(match token.as_bytes().first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => {
                let text = unquote(token)?;
                if is_placeholder_text(&text) {
                    Self::Unchanged
                } else {
                    Self::Text(text)
                }
            }
            b'[' if is_placeholder_array(token) => Self::Unchanged,
            b'{' if is_placeholder_map(token) => Self::Unchanged,
            b'[' | b'{' => Self::Json(token),
            _ => Self::Number(token),
        })
    }

    /// The kind of the value, for errors.
    #[must_use]
    pub fn found(&self) -> Found {
        match self {
            Self::Null => Found::Null,
            Self::Bool(_) => Found::Bool,
            Self::Number(token) if token.parse::<i64>().is_ok() => Found::Integer,
            Self::Number(_) => Found::Number,
            Self::Unchanged => Found::Text {
                bytes: PLACEHOLDER.len(),
            },
            Self::Text(text) => Found::Text { bytes: text.len() },
            Self::Json(json) if json.starts_with('[') => Found::Array,
            Self::Json(_) => Found::Object,
        }
    }
}

impl<'a> Column<'a> {
    /// The value, which is there and known.
    ///
    /// # Errors
    /// The column is absent, null, unchanged, or a text with a broken escape.
    pub fn cell(self) -> Result<Cell<'a>, ValueError> {
        let column = self.name;
        let token = self.token.ok_or(ValueError::Missing { column })?;
        match Cell::read(token) {
            None => Err(ValueError::BrokenText { column }),
            Some(Cell::Null) => Err(ValueError::Missing { column }),
            Some(Cell::Unchanged) => Err(ValueError::Unchanged { column }),
            Some(cell) => Ok(cell),
        }
    }

    /// An optional column: `None` if it is absent or null, else what `read` makes of it. An unchanged value is unknown,
    /// which is not the same as absent, and stays an error.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn optional<T>(self, read: impl FnOnce(Self) -> Result<T, ValueError>) -> Result<Option<T>, ValueError> {
        if self.is_missing() {
            Ok(None)
        } else {
            read(self).map(Some)
        }
    }

    /// # Errors
    /// Not a text.
    pub fn text(self) -> Result<Cow<'a, str>, ValueError> {
        match self.cell()? {
            Cell::Text(text) => Ok(text),
            other => Err(self.wrong_type("a text", &other)),
        }
    }

    /// An identifier: a non-empty text, or an integer, taken as it is written.
    ///
    /// # Errors
    /// Neither, or empty.
    pub fn id(self) -> Result<Cow<'a, str>, ValueError> {
        match self.cell()? {
            Cell::Text(text) if text.is_empty() => Err(ValueError::Empty { column: self.name }),
            Cell::Text(text) => Ok(text),
            Cell::Number(token) if is_integer(token) => Ok(Cow::Borrowed(token)),
            other => Err(self.wrong_type("a text or an integer", &other)),
        }
    }

    /// # Errors
    /// Not a boolean.
    pub fn bool(self) -> Result<bool, ValueError> {
        match self.cell()? {
            Cell::Bool(value) => Ok(value),
            other => Err(self.wrong_type("a boolean", &other)),
        }
    }

    /// A `bigint`, exactly: `1.0` and `1e3` are refused.
    ///
    /// # Errors
    /// Not an integer, or beyond 64 bits.
    pub fn i64(self) -> Result<i64, ValueError> {
        match self.cell()? {
            Cell::Number(token) if is_integer(token) => token
                .parse()
                .map_err(|_range| ValueError::IntegerRange { column: self.name }),
            other => Err(self.wrong_type("an integer", &other)),
        }
    }

    pub(super) fn wrong_type(self, expected: &'static str, cell: &Cell<'_>) -> ValueError {
        ValueError::WrongType {
            column: self.name,
            expected,
            found: cell.found(),
        }
    }
}

/// Whether a JSON number has neither fraction nor exponent.
pub(super) fn is_integer(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A JSON string's text; borrowed if it holds no escape.
fn unquote(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(token).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn is_placeholder_text(text: &str) -> bool {
    text == PLACEHOLDER
        || text == PLACEHOLDER_BASE64
        // `hstore.handling.mode=json`, the default, writes the map as a text.
        || (text.starts_with('{') && is_placeholder_map(text))
}

/// `["__debezium_unavailable_value"]`, or the same as its bytes: `[95,95,100,...]`.
fn is_placeholder_array(token: &str) -> bool {
    let Some(inner) = between(token, '[', ']') else {
        return false;
    };
    is_quoted_placeholder(inner.trim())
        || (inner.starts_with(|first: char| first == '9' || first.is_ascii_whitespace())
            && inner
                .split(',')
                .map(|item| item.trim().parse().ok())
                .eq(PLACEHOLDER.bytes().map(Some)))
}

/// `{"__debezium_unavailable_value":"__debezium_unavailable_value"}`
fn is_placeholder_map(token: &str) -> bool {
    between(token, '{', '}')
        .and_then(|inner| inner.split_once(':'))
        .is_some_and(|(key, value)| is_quoted_placeholder(key.trim()) && is_quoted_placeholder(value.trim()))
}

fn between(token: &str, open: char, close: char) -> Option<&str> {
    token.strip_prefix(open)?.strip_suffix(close)
}

fn is_quoted_placeholder(token: &str) -> bool {
    between(token, '"', '"') == Some(PLACEHOLDER)
}
