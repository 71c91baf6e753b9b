//! Money. Takes a column in the connector's decimal mode, gives a [`Decimal`] that is the written value, exactly. Never
//! goes through a float, never rounds, never guesses the mode: what does not fit the configured one is an error of its
//! own, because then it is the configuration that is wrong and not the row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rust_decimal::Decimal;

use super::cell::Cell;
use super::columns::Column;
use super::{DecimalMode, ValueError};

/// `Decimal` holds 28 digits for certain (96 bits).
const MOST_DIGITS: u32 = 28;
/// More base64 than any integer of 28 digits needs, sign extension included.
const LONGEST_BASE64: usize = 64;

impl Column<'_> {
    /// A `numeric`. A JSON number (`decimal.format=NUMERIC`) is taken from its text in either mode.
    ///
    /// # Errors
    /// Not a decimal, not finite, more than 28 digits, or written in another decimal mode.
    pub fn decimal(self, mode: DecimalMode) -> Result<Decimal, ValueError> {
        let column = self.name;
        let cell = self.cell()?;
        let found = cell.found();
        let wrong_mode = ValueError::WrongDecimalMode { column, found, mode };
        let read = match (&cell, mode) {
            (Cell::Number(token), _) => parse(token),
            (Cell::Text(text), _) if not_finite(text).is_some() => {
                Err(Problem::NotFinite(not_finite(text).unwrap_or("")))
            }
            (Cell::Text(text), DecimalMode::Text) => match parse_text(text) {
                Err(Problem::NotDecimal) if looks_like_base64(text) => return Err(wrong_mode),
                read => read,
            },
            (Cell::Text(text), DecimalMode::Precise { scale }) => match parse_base64(text, i64::from(scale)) {
                Err(Problem::NotDecimal) if !matches!(parse_text(text), Err(Problem::NotDecimal)) => {
                    return Err(wrong_mode);
                }
                read => read,
            },
            // An unconstrained numeric in mode precise: every value names its scale.
            (Cell::Json(json), DecimalMode::Precise { .. }) => parse_scaled(json),
            (Cell::Json(json), DecimalMode::Text) if !matches!(parse_scaled(json), Err(Problem::NotDecimal)) => {
                return Err(wrong_mode);
            }
            _ => return Err(self.wrong_type("a decimal", &cell)),
        };
        read.map_err(|problem| match problem {
            Problem::NotDecimal => ValueError::NotDecimal { column, found, mode },
            Problem::TooManyDigits => ValueError::TooManyDigits { column },
            Problem::NotFinite(word) => ValueError::NotFinite { column, word },
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    NotDecimal,
    TooManyDigits,
    NotFinite(&'static str),
}

/// Debezium's words, and Postgres's own.
fn not_finite(text: &str) -> Option<&'static str> {
    [
        "NAN",
        "POSITIVE_INFINITY",
        "NEGATIVE_INFINITY",
        "NaN",
        "Infinity",
        "-Infinity",
    ]
    .into_iter()
    .find(|word| *word == text)
}

/// Decimal text as Java and Postgres write it. An exponent only as `E-8` (Java's zero of scale 8): `12e4` and `1E+3` are
/// base64 as well, and taking one for the other would book a wrong amount.
fn parse_text(text: &str) -> Result<Decimal, Problem> {
    match text.find(['e', 'E']) {
        Some(at) if !text.get(at..).is_some_and(|exponent| exponent.starts_with("E-")) => Err(Problem::NotDecimal),
        _ => parse(text),
    }
}

/// The grammar of a JSON number, value kept exactly, written zeros kept where they fit: `100.00` has scale 2.
fn parse(token: &str) -> Result<Decimal, Problem> {
    let (negative, unsigned) = match token.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, token),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return Err(Problem::NotDecimal),
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(Problem::NotDecimal);
    }
    // Zeros wait until a digit follows them, so that trailing ones cost no digits.
    let (mut value, mut zeros) = (0_i128, 0_u32);
    for byte in whole.bytes().chain(fraction.bytes()) {
        match byte {
            b'0' => zeros = zeros.saturating_add(1),
            b'1'..=b'9' => {
                let digit = i128::from(byte.saturating_sub(b'0'));
                let shift = if value == 0 {
                    Some(0)
                } else {
                    pow10(zeros.saturating_add(1))
                };
                value = shift
                    .and_then(|shift| value.checked_mul(shift))
                    .and_then(|value| value.checked_add(digit))
                    .ok_or(Problem::TooManyDigits)
                    .and_then(within_digits)?;
                zeros = 0;
            }
            _ => return Err(Problem::NotDecimal),
        }
    }
    let written_scale = i64::try_from(fraction.len())
        .unwrap_or(i64::MAX)
        .saturating_sub(exponent);
    let least_scale = written_scale.saturating_sub(i64::from(zeros));
    compose(
        if negative { value.saturating_neg() } else { value },
        least_scale,
        written_scale,
    )
}

/// An exponent beyond all sense is clamped: it is too large for a decimal either way.
fn parse_exponent(text: &str) -> Result<i64, Problem> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::NotDecimal);
    }
    let value = digits.parse().unwrap_or(i64::MAX / 4);
    Ok(if text.starts_with('-') {
        value.saturating_neg()
    } else {
        value
    })
}

/// `value * 10^-least_scale`, with as many of the written trailing zeros as fit.
fn compose(value: i128, least_scale: i64, written_scale: i64) -> Result<Decimal, Problem> {
    let most = i64::from(MOST_DIGITS);
    if value == 0 {
        let scale = u32::try_from(written_scale.clamp(0, most)).unwrap_or(0);
        return Decimal::try_from_i128_with_scale(0, scale).map_err(|_scale| Problem::TooManyDigits);
    }
    let room = most.saturating_sub(i64::from(digits(value)));
    let scale = written_scale
        .min(most)
        .min(least_scale.saturating_add(room))
        .max(least_scale)
        .max(0);
    let padding = scale.saturating_sub(least_scale);
    if scale > most || padding > room {
        return Err(Problem::TooManyDigits);
    }
    let (Ok(scale), Ok(padding)) = (u32::try_from(scale), u32::try_from(padding)) else {
        return Err(Problem::TooManyDigits);
    };
    pow10(padding)
        .and_then(|shift| value.checked_mul(shift))
        .and_then(|value| Decimal::try_from_i128_with_scale(value, scale).ok())
        .ok_or(Problem::TooManyDigits)
}

/// Base64 of an unscaled integer, big-endian two's complement: `MDk=` is 12345.
fn parse_base64(text: &str, scale: i64) -> Result<Decimal, Problem> {
    if text.is_empty() || !looks_like_base64(text) {
        return Err(Problem::NotDecimal);
    }
    if text.len() > LONGEST_BASE64 {
        return Err(Problem::TooManyDigits);
    }
    let mut buffer = [0_u8; LONGEST_BASE64];
    let length = STANDARD
        .decode_slice(text, &mut buffer)
        .map_err(|_bytes| Problem::NotDecimal)?;
    let bytes = buffer.get(..length).unwrap_or_default();
    let extension = match bytes.first() {
        None => return Err(Problem::NotDecimal),
        Some(first) if first & 0x80 == 0 => 0x00,
        Some(_) => 0xff,
    };
    let mut wide = [extension; 16];
    let (surplus, low) = bytes.split_at(bytes.len().saturating_sub(wide.len()));
    if surplus.iter().any(|byte| *byte != extension) {
        return Err(Problem::TooManyDigits);
    }
    for (to, from) in wide.iter_mut().rev().zip(low.iter().rev()) {
        *to = *from;
    }
    let unscaled = i128::from_be_bytes(wide);
    // 16 bytes of the other sign bit were cut from a wider integer.
    if !surplus.is_empty() && unscaled.is_negative() != (extension == 0xff) {
        return Err(Problem::TooManyDigits);
    }
    let (mut value, mut least_scale) = (unscaled, scale);
    while value != 0 && value.checked_rem(10) == Some(0) {
        value = value.checked_div(10).unwrap_or(0);
        least_scale = least_scale.saturating_sub(1);
    }
    compose(within_digits(value)?, least_scale, scale)
}

/// `{"scale":3,"value":"/w=="}`
fn parse_scaled(json: &str) -> Result<Decimal, Problem> {
    #[derive(serde::Deserialize)]
    struct Scaled {
        scale: i32,
        value: String,
    }
    let Scaled { scale, value } = serde_json::from_str(json).map_err(|_shape| Problem::NotDecimal)?;
    parse_base64(&value, i64::from(scale))
}

fn looks_like_base64(text: &str) -> bool {
    let data = text.trim_end_matches('=');
    let padding = text.len().saturating_sub(data.len());
    !data.is_empty()
        && padding <= 2
        && text.len().is_multiple_of(4)
        && data
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

fn pow10(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

fn digits(value: i128) -> u32 {
    value
        .unsigned_abs()
        .checked_ilog10()
        .map_or(0, |log| log.saturating_add(1))
}

fn within_digits(value: i128) -> Result<i128, Problem> {
    if digits(value) > MOST_DIGITS {
        Err(Problem::TooManyDigits)
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_debezium_is_a_signed_big_endian_integer() {
        let cases = [
            ("MDk=", 2, "123.45"),
            ("/gw=", 2, "-5.00"),
            ("AA==", 2, "0.00"),
            ("/w==", 3, "-0.001"),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(
                parse_base64(text, scale).map(|value| value.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        // More bytes than the number needs, of either sign, change nothing; 17 significant bytes are too many.
        for (fill, last, expected) in [(0x00, 7, "7"), (0xff, 0xf9, "-7")] {
            let mut bytes = [fill; 20];
            bytes[19] = last;
            assert_eq!(
                parse_base64(&STANDARD.encode(bytes), 0).map(|value| value.to_string()),
                Ok(expected.to_owned())
            );
        }
        let mut wide = [0_u8; 17];
        wide[1] = 0x80;
        assert_eq!(parse_base64(&STANDARD.encode(wide), 0), Err(Problem::TooManyDigits));
        assert_eq!(parse_base64(&"AAAA".repeat(1_000), 0), Err(Problem::TooManyDigits));
    }

    #[test]
    fn a_number_keeps_its_value_and_where_it_fits_its_written_zeros() {
        let cases = [
            ("100.00", "100.00"),
            ("-0.001", "-0.001"),
            ("0", "0"),
            ("0.00", "0.00"),
            ("1e2", "100"),
            ("1.5E+3", "1500"),
            ("12345e-2", "123.45"),
            ("0E-8", "0.00000000"),
            ("0e999999999999999999999", "0"),
            ("9999999999999999999999999999", "9999999999999999999999999999"),
            ("0.1000000000000000055511151231", "0.1000000000000000055511151231"),
            (
                "1.00000000000000000000000000000000000000",
                "1.000000000000000000000000000",
            ),
            ("1234567890123456789012345678.0000", "1234567890123456789012345678"),
            ("1e-28", "0.0000000000000000000000000001"),
        ];
        for (token, expected) in cases {
            assert_eq!(
                parse(token).map(|value| value.to_string()),
                Ok(expected.to_owned()),
                "{token}"
            );
        }
    }

    #[test]
    fn a_number_that_would_have_to_be_rounded_is_refused() {
        for token in [
            "12345678901234567890123456789",
            "1.2345678901234567890123456789",
            "1e28",
            "1e-29",
            "1e999999999999999999999",
            "1e-999999999999999999999",
        ] {
            assert_eq!(parse(token), Err(Problem::TooManyDigits), "{token}");
        }
    }

    #[test]
    fn what_is_no_decimal_text_is_refused() {
        for text in [
            "", "-", ".", "1.", ".5", "+1", "01", "1,0", "0x1", "1e", "1e+", "--1", "1.2.3", "1_0", " 1", "\u{661}",
        ] {
            assert_eq!(parse_text(text), Err(Problem::NotDecimal), "{text}");
        }
        // Both are base64 too.
        for text in ["12e4", "1E+3"] {
            assert_eq!(parse_text(text), Err(Problem::NotDecimal), "{text}");
            assert!(looks_like_base64(text));
        }
    }
}
