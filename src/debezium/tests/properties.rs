//! What holds for every input.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::super::{Columns, DecimalMode, Decoded, Decoder};
use super::{BARE, TOPIC, record, wrap};
use crate::rows::route;

/// Decodes and routes; what goes wrong must have a reason and a sentence.
fn survives(decoder: &mut Decoder, value: &[u8]) -> Result<(), TestCaseError> {
    match decoder.decode(&record(TOPIC, value)) {
        Ok(Decoded::Change(change)) => {
            for mode in [DecimalMode::Text, DecimalMode::Precise { scale: 2 }] {
                if let Err(error) = route(TOPIC, &change, mode) {
                    prop_assert!(!error.reason().is_empty() && !error.to_string().is_empty());
                }
            }
        }
        Ok(Decoded::Control(_)) => {}
        Err(error) => prop_assert!(!error.reason().is_empty() && !error.to_string().is_empty()),
    }
    Ok(())
}

fn seeds() -> Vec<String> {
    vec![
        BARE.to_owned(),
        wrap(BARE, 1),
        BARE.replace(r#""op":"c""#, r#""op":"u""#).replace(r#""before":null"#, r#""before":{"id":"p-1"}"#),
        r#"{"id":"p-11","__op":"u","__lsn":26505568,"__source_ts_ms":1795203742335,"__deleted":"false"}"#.to_owned(),
        r#"{"status":"BEGIN","id":"764:26505792","data_collections":null}"#.to_owned(),
        r#"{"op":"c","before":null,"after":{"id":1,"final_amount":{"scale":2,"value":"MDk="}},"source":{"lsn":1},"ts_ms":1767323045123}"#.to_owned(),
    ]
}

fn seed() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(seeds()).prop_map(String::into_bytes)
}

/// A valid record with flipped bits, cut off, spliced with another, and with tokens put where they do not belong.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let token = proptest::sample::select(vec![
        "null",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "1e999",
        "-0",
        "\"\\ud800\"",
        "18446744073709551616",
        "\\u0000",
        "\0",
        "\u{202e}",
        "1.5",
        "\"__debezium_unavailable_value\"",
        "\"MDk=\"",
    ]);
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 0..6);
    let inserts = proptest::collection::vec((any::<prop::sample::Index>(), token), 0..4);
    (
        seed(),
        seed(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..3_u8,
        flips,
        inserts,
    )
        .prop_map(|(mut bytes, other, at, from, how, flips, inserts)| {
            match how {
                0 => bytes.truncate(at.index(bytes.len())),
                1 => {
                    bytes.truncate(at.index(bytes.len()));
                    bytes.extend_from_slice(&other[from.index(other.len())..]);
                }
                _ => {}
            }
            for (at, bit) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
            }
            for (at, token) in inserts {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, token.bytes());
            }
            bytes
        })
}

/// The column `x` of a row with this value, as a decimal.
fn decimal(token: &str, mode: DecimalMode) -> Result<Decimal, &'static str> {
    let row = format!(r#"{{"x":{token}}}"#);
    let columns: Columns<'_> = serde_json::from_str(&row).expect("valid JSON");
    columns.column("x").decimal(mode).map_err(|error| error.reason())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        survives(&mut Decoder::default(), &value)?;
    }

    #[test]
    fn mutated_records_never_panic_and_a_known_schema_changes_no_answer(value in mutated()) {
        let mut primed = Decoder::default();
        prop_assert!(primed.decode(&record(TOPIC, wrap(BARE, 1).as_bytes())).is_ok());
        survives(&mut primed, &value)?;
        prop_assert_eq!(
            format!("{:?}", primed.decode(&record(TOPIC, &value))),
            format!("{:?}", Decoder::default().decode(&record(TOPIC, &value)))
        );
    }

    #[test]
    fn a_wrapped_record_means_the_same_with_and_without_a_cached_prefix(
        stream in proptest::collection::vec((proptest::sample::select(seeds()), 0..3_u32, "[ \n]{0,2}"), 1..12)
    ) {
        let mut cached = Decoder::default();
        for (payload, version, space) in stream {
            let value = format!("{}{space}", wrap(&payload, version));
            let uncached = format!("{:?}", Decoder::default().decode(&record(TOPIC, value.as_bytes())));
            prop_assert_eq!(format!("{:?}", cached.decode(&record(TOPIC, value.as_bytes()))), uncached);
        }
    }

    #[test]
    fn decimal_text_keeps_value_and_scale(mantissa in -9_999_999_999_999_999_999_999_999_999_i128..=9_999_999_999_999_999_999_999_999_999, scale in 0..=28_u32) {
        let oracle = Decimal::from_i128_with_scale(mantissa, scale);
        let text = oracle.to_string();
        let bare = decimal(&text, DecimalMode::Text).expect("at most 28 digits");
        prop_assert_eq!(bare, oracle);
        let quoted = decimal(&format!("\"{text}\""), DecimalMode::Text).expect("at most 28 digits");
        prop_assert_eq!((quoted, quoted.scale()), (bare, bare.scale()));
        // As many written zeros as 28 digits have room for.
        if mantissa.unsigned_abs().to_string().len() < 28 {
            prop_assert_eq!(bare.scale(), scale);
        }
    }

    #[test]
    fn an_exponent_only_moves_the_point(mantissa in any::<i64>(), exponent in -9..=9_i32) {
        let read = decimal(&format!("{mantissa}e{exponent}"), DecimalMode::Text).expect("at most 28 digits");
        let power = Decimal::from(10_i64.pow(exponent.unsigned_abs()));
        let oracle = Decimal::from(mantissa);
        let oracle = if exponent < 0 { oracle / power } else { oracle * power };
        prop_assert_eq!(read, oracle);
    }

    #[test]
    fn precise_decimals_are_exact_or_too_long(high in any::<i32>(), low in any::<u64>(), shift in 0..96_u32, scale in 0..=28_u32, pad in 0..6_usize) {
        let unscaled = ((i128::from(high) << 64) | i128::from(low)) >> shift;
        let fill = if unscaled < 0 { 0xff } else { 0x00 };
        let mut bytes = vec![fill; pad];
        bytes.extend_from_slice(&unscaled.to_be_bytes());
        // As short as Java writes it, then with needless bytes.
        let mut short = unscaled.to_be_bytes().to_vec();
        while short.len() > 1 && short[0] == fill && (short[1] ^ fill) & 0x80 == 0 {
            short.remove(0);
        }
        let read = decimal(&format!("\"{}\"", STANDARD.encode(&short)), DecimalMode::Precise { scale });
        prop_assert_eq!(decimal(&format!("\"{}\"", STANDARD.encode(&bytes)), DecimalMode::Precise { scale }), read);
        let object = format!(r#"{{"scale":{scale},"value":"{}"}}"#, STANDARD.encode(&short));
        prop_assert_eq!(decimal(&object, DecimalMode::Precise { scale: 0 }), read);
        match read {
            Ok(value) => prop_assert_eq!(value, Decimal::from_i128_with_scale(unscaled, scale)),
            Err(reason) => {
                prop_assert_eq!(reason, "too_many_digits");
                prop_assert!(unscaled.unsigned_abs() >= 10_u128.pow(28));
            }
        }
    }

    #[test]
    fn times_survive_every_unit(ns in 315_532_800_000_000_000_i64..4_102_444_800_000_000_000) {
        let read = |token: String| {
            let row = format!(r#"{{"x":{token}}}"#);
            let columns: Columns<'_> = serde_json::from_str(&row).expect("valid JSON");
            columns.column("x").timestamp().expect("a time").as_nanosecond()
        };
        prop_assert_eq!(read(ns.to_string()), i128::from(ns));
        prop_assert_eq!(read((ns / 1_000).to_string()), i128::from(ns / 1_000 * 1_000));
        prop_assert_eq!(read((ns / 1_000_000).to_string()), i128::from(ns / 1_000_000 * 1_000_000));
        let text = jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("in range");
        for digits in [None, Some(9)] {
            let text = digits.map_or_else(|| format!("\"{text}\""), |digits: usize| format!("\"{text:.digits$}\""));
            prop_assert_eq!(read(text), i128::from(ns));
        }
    }
}
