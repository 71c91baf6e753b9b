//! One column at a time.

use super::super::{Cell, Columns, DecimalMode, Found, ValueError};

const TEXT: DecimalMode = DecimalMode::Text;
const CENTS: DecimalMode = DecimalMode::Precise { scale: 2 };

/// Reads the column `x` of a row that has this value there.
fn with<T>(token: &str, read: impl FnOnce(super::super::Column<'_>) -> Result<T, ValueError>) -> Result<T, ValueError> {
    let row = format!(r#"{{"y":1,"x": {token} }}"#);
    let columns: Columns<'_> = serde_json::from_str(&row).expect("valid JSON");
    read(columns.column("x"))
}

fn decimal(token: &str, mode: DecimalMode) -> Result<String, &'static str> {
    with(token, |x| x.decimal(mode))
        .map(|value| value.to_string())
        .map_err(|error| error.reason())
}

fn time(token: &str) -> Result<String, &'static str> {
    with(token, |x| x.timestamp())
        .map(|time| time.to_string())
        .map_err(|error| error.reason())
}

#[test]
fn a_placeholder_is_unknown_in_every_shape_it_was_seen_in() {
    for token in [
        r#""__debezium_unavailable_value""#,
        r#"["__debezium_unavailable_value"]"#,
        "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]",
        r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#,
        r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
        r#"{ "__debezium_unavailable_value" : "__debezium_unavailable_value" }"#,
        r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#,
    ] {
        assert_eq!(Cell::read(token), Some(Cell::Unchanged), "{token}");
        assert_eq!(
            with(token, |x| x.optional(|x| x.cell().map(drop))),
            Err(ValueError::Unchanged { column: "x" })
        );
    }
    for token in [
        r#""__debezium_unavailable_value ""#,
        "[95,95]",
        r#"["a"]"#,
        r#"{"a":"b"}"#,
        "[]",
        "{}",
        "[[95]]",
    ] {
        assert_ne!(Cell::read(token), Some(Cell::Unchanged), "{token}");
    }
}

#[test]
fn a_cell_is_what_its_json_is() {
    assert_eq!(Cell::read("null"), Some(Cell::Null));
    assert_eq!(Cell::read("-1.50e3"), Some(Cell::Number("-1.50e3")));
    assert_eq!(Cell::read(r#""a\nb""#), Some(Cell::Text("a\nb".into())));
    assert_eq!(Cell::read(r#"["a",null]"#), Some(Cell::Json(r#"["a",null]"#)));
    // A lone surrogate is valid JSON and no text.
    assert_eq!(Cell::read(r#""\ud800""#), None);
    assert_eq!(
        with(r#""\ud800""#, |x| x.text().map(drop)),
        Err(ValueError::BrokenText { column: "x" })
    );
}

#[test]
fn ids_are_texts_or_integers_and_never_empty() {
    let id = |token: &str| with(token, |x| x.id().map(std::borrow::Cow::into_owned)).map_err(|error| error.reason());
    for (token, expected) in [
        (r#""p-1""#, Ok("p-1")),
        ("9007199254740993", Ok("9007199254740993")),
        ("123456789012345678901234567890", Ok("123456789012345678901234567890")),
        (r#""""#, Err("empty_text")),
        ("1.0", Err("wrong_type")),
        ("1e3", Err("wrong_type")),
        ("true", Err("wrong_type")),
        ("null", Err("missing_columns")),
        (r#"["a"]"#, Err("wrong_type")),
    ] {
        assert_eq!(id(token), expected.map(str::to_owned), "{token}");
    }
}

#[test]
fn integers_are_exact_or_refused() {
    let integer = |token: &str| with(token, |x| x.i64()).map_err(|error| error.reason());
    assert_eq!(integer("9007199254740993"), Ok(9_007_199_254_740_993));
    assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(integer("9223372036854775808"), Err("integer_range"));
    for token in ["1.0", "1e3", "\"1\"", "true"] {
        assert_eq!(integer(token), Err("wrong_type"), "{token}");
    }
}

#[test]
fn a_json_number_is_exact_in_either_mode() {
    for mode in [TEXT, CENTS] {
        assert_eq!(decimal("100.00", mode), Ok("100.00".to_owned()));
        assert_eq!(
            decimal("0.1000000000000000055511151231", mode),
            Ok("0.1000000000000000055511151231".to_owned())
        );
        assert_eq!(decimal("12e4", mode), Ok("120000".to_owned()));
        assert_eq!(decimal("1e40", mode), Err("too_many_digits"));
    }
}

#[test]
fn each_decimal_mode_reads_its_own_form_and_knows_the_other() {
    for (token, as_text, as_precise) in [
        (r#""124.45""#, Ok("124.45"), Err("wrong_decimal_mode")),
        (r#""-5.00""#, Ok("-5.00"), Err("wrong_decimal_mode")),
        (r#""100""#, Ok("100"), Err("wrong_decimal_mode")),
        (r#""0E-8""#, Ok("0.00000000"), Err("wrong_decimal_mode")),
        (r#""MDk=""#, Err("wrong_decimal_mode"), Ok("123.45")),
        (r#""/gw=""#, Err("wrong_decimal_mode"), Ok("-5.00")),
        // Both a decimal and base64: only the configured mode can tell.
        (r#""1234""#, Ok("1234"), Ok("-26588.24")),
        (r#""12e4""#, Err("wrong_decimal_mode"), Ok("-26604.24")),
        (r#"{"scale":3,"value":"/w=="}"#, Err("wrong_decimal_mode"), Ok("-0.001")),
        (r#"{"scale":-2,"value":"Bw=="}"#, Err("wrong_decimal_mode"), Ok("700")),
        (r#"{"scale":3}"#, Err("wrong_type"), Err("not_decimal")),
        (r#""""#, Err("not_decimal"), Err("not_decimal")),
        (r#""twelve!""#, Err("not_decimal"), Err("not_decimal")),
        (r#""NAN""#, Err("not_finite"), Err("not_finite")),
        (r#""POSITIVE_INFINITY""#, Err("not_finite"), Err("not_finite")),
        (r#""NEGATIVE_INFINITY""#, Err("not_finite"), Err("not_finite")),
        ("true", Err("wrong_type"), Err("wrong_type")),
    ] {
        assert_eq!(decimal(token, TEXT), as_text.map(str::to_owned), "{token} as text");
        assert_eq!(
            decimal(token, CENTS),
            as_precise.map(str::to_owned),
            "{token} as precise"
        );
    }
}

#[test]
fn times_are_read_in_every_precision() {
    for (token, expected) in [
        (r#""2026-01-01T20:04:05.123456Z""#, "2026-01-01T20:04:05.123456Z"),
        (r#""2026-01-01T20:04:05Z""#, "2026-01-01T20:04:05Z"),
        (r#""2026-01-01T20:04:05.123456789Z""#, "2026-01-01T20:04:05.123456789Z"),
        (r#""2026-01-02T03:04:05.5+07:00""#, "2026-01-01T20:04:05.5Z"),
        ("1767323045123", "2026-01-02T03:04:05.123Z"),
        ("1767323045123456", "2026-01-02T03:04:05.123456Z"),
        ("1767323045123456789", "2026-01-02T03:04:05.123456789Z"),
    ] {
        assert_eq!(time(token), Ok(expected.to_owned()), "{token}");
    }
}

#[test]
fn what_is_no_time_of_ours_is_refused() {
    for (token, reason) in [
        (r#""infinity""#, "infinite_time"),
        (r#""-infinity""#, "infinite_time"),
        (r#""+294247-01-10T04:00:25.2Z""#, "not_a_time"),
        ("9223372036825200000", "implausible_time"),
        ("-2147472692", "implausible_time"),
        ("0", "implausible_time"),
        ("20455", "implausible_time"),
        ("99999999999999999999999", "implausible_time"),
        (r#""1970-01-01T00:00:00Z""#, "implausible_time"),
        (r#""2100-01-01T00:00:00Z""#, "implausible_time"),
        (r#""2026-02-30T00:00:00Z""#, "not_a_time"),
        (r#""2026-01-02Z""#, "not_a_time"),
        (r#""2026-01-02T03:04:05""#, "not_a_time"),
        (r#""2026-01-02T03:04:05.1234567890Z""#, "not_a_time"),
        (r#""2026-01-02T03:04:05+01:00[Europe/Berlin]""#, "not_a_time"),
        (r#""yesterday""#, "not_a_time"),
        ("1767323045123.5", "wrong_type"),
        ("true", "wrong_type"),
    ] {
        assert_eq!(time(token), Err(reason), "{token}");
    }
}

#[test]
fn an_error_names_the_column_and_the_kind_but_never_the_value() {
    let secret = r#""anna@example.com""#;
    for error in [
        with(secret, |x| x.bool().map(drop)),
        with(secret, |x| x.i64().map(drop)),
        with(secret, |x| x.decimal(TEXT).map(drop)),
        with(secret, |x| x.decimal(CENTS).map(drop)),
        with(secret, |x| x.timestamp().map(drop)),
    ] {
        let message = error.expect_err("no text is expected here").to_string();
        assert!(
            message.contains("column x") && message.contains("a string of 16 bytes"),
            "{message}"
        );
        assert!(!message.contains("anna"), "{message}");
    }
    assert_eq!(
        with("[1]", |x| x.text().map(drop)),
        Err(ValueError::WrongType {
            column: "x",
            expected: "a text",
            found: Found::Array
        })
    );
}
