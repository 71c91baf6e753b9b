//! One value of one column: texts, ids, integers, amounts, times, and what is none of them. Inputs: a byte that chooses the
//! scale, and a JSON value; what is no JSON is taken for the content of a text.

use crm_event_processors::debezium::{Cell, Column, Columns, DecimalMode, ValueError, plausible_ms};
use serde_json::value::RawValue;

use super::money::Written;
use super::{assert_inert, assert_word, parts};

pub(super) fn run(data: &[u8]) {
    let [scale, token] = parts(data);
    let scale = u32::from(scale.first().copied().unwrap_or(2)) % 29;
    let token = match serde_json::from_slice::<&RawValue>(token) {
        Ok(raw) => raw.get().to_owned(),
        Err(_) => serde_json::Value::from(String::from_utf8_lossy(token)).to_string(),
    };
    let row = format!(r#"{{"other":1,"x":null,"x":{token}}}"#);
    let columns: Columns<'_> = serde_json::from_str(&row).expect("a row");
    let column = columns.column("x");
    let [picked] = columns.pick(["x"]);
    assert_eq!(format!("{column:?}"), format!("{picked:?}"), "the last one counts");
    let text: Option<String> = serde_json::from_str(&token).ok();
    check_text(column, &token, text.as_deref());
    check_integer(column, &token);
    check_time(column, text.as_deref());
    for mode in [DecimalMode::Text, DecimalMode::Precise { scale }] {
        check_decimal(column, mode, &token, text.as_deref());
    }
}

/// An error is fit to be shown; gives what was read.
fn read<T>(read: Result<T, ValueError>) -> Option<T> {
    if let Err(error) = &read {
        assert_inert(&error.to_string());
        assert_word(error.reason());
        assert_eq!(error.column(), "x");
    }
    read.ok()
}

fn check_text(column: Column<'_>, token: &str, text: Option<&str>) {
    if let Some(cell) = Cell::read(token) {
        let _kind = cell.found().to_string();
    } else {
        assert_eq!(text, None, "a text that any reader reads");
    }
    if let Some(read) = read(column.text()) {
        assert_eq!(Some(&*read), text);
    }
    match read(column.id()) {
        Some(id) if token.starts_with('"') => assert_eq!(Some(&*id), text),
        Some(id) => assert_eq!(id, token, "a number is taken as it is written"),
        None => {}
    }
    assert_eq!(read(column.bool()), token.parse::<bool>().ok());
}

fn check_integer(column: Column<'_>, token: &str) {
    // Rust takes a plus and leading zeros, which no JSON has.
    assert_eq!(read(column.i64()), token.parse::<i64>().ok());
    let optional = column.optional(Column::i64);
    if token == "null" {
        assert_eq!(optional, Ok(None));
    }
}

fn check_time(column: Column<'_>, text: Option<&str>) {
    let Some(time) = read(column.timestamp()) else {
        return;
    };
    assert!(plausible_ms(time.as_millisecond()), "{time}");
    if let Some(text) = text {
        // Whatever the format, the year and the second are written there, in UTC or not.
        assert!(text.len() >= "20260101T00Z".len() && text.is_ascii(), "{text}");
    }
}

fn check_decimal(column: Column<'_>, mode: DecimalMode, token: &str, text: Option<&str>) {
    let read = read(column.decimal(mode));
    if let Some(decimal) = read {
        let digits = decimal.mantissa().unsigned_abs().to_string();
        assert!(digits.len() <= 28 && decimal.scale() <= 28, "{decimal}");
    }
    // Base64 and its pairs of scale and value have their own properties (`src/debezium/tests`).
    let written = match (text, mode) {
        (None, _) if token.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => token,
        (Some(text), DecimalMode::Text) => text,
        _ => return,
    };
    match (read, Written::parse(written)) {
        (Some(decimal), Some(written)) => assert!(written.is(decimal), "{decimal} of {written:?}"),
        (Some(decimal), None) => panic!("{decimal} of {written:?}, which is no number"),
        // A JSON number that fits is never refused. Text may be base64, or have an exponent, which is not guessed at.
        (None, Some(number)) if text.is_none() => assert!(!number.fits(), "{written:?} was refused"),
        (None, _) => {}
    }
}
