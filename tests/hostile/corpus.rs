//! Everything in `fuzz/corpus` and `fuzz/found`, and what is too large to be kept there, through the very functions that the
//! fuzzer calls.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::targets;

/// Of all inputs together, as they are committed.
const MOST_BYTES: u64 = 1_000_000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Runs it; a panic names the input.
fn survives(target: &targets::Target, what: &str, bytes: &[u8]) {
    let ended = catch_unwind(|| (target.run)(bytes));
    assert!(ended.is_ok(), "{}: {what}", target.name);
}

#[test]
fn every_input_of_the_corpus_keeps_every_promise() {
    let corpus = folder("corpus");
    for target in &targets::ALL {
        let inputs = inside(&corpus.join(target.name));
        assert!(inputs.len() >= 20, "{} has {} inputs", target.name, inputs.len());
        for input in inputs {
            let bytes = fs::read(&input).expect("readable");
            survives(target, name_of(&input), &bytes);
        }
    }
}

#[test]
fn every_input_that_the_fuzzer_found_keeps_every_promise() {
    for target in &targets::ALL {
        let found = fs::read_to_string(folder("found").join(target.name)).expect("text");
        assert!(found.lines().count() >= 20, "{}", target.name);
        for line in found.lines() {
            let bytes = STANDARD.decode(line).expect("base64");
            survives(target, line, &bytes);
        }
    }
}

#[test]
fn every_target_has_inputs_and_all_of_them_stay_small() {
    let names: BTreeSet<&str> = targets::ALL.iter().map(|target| target.name).collect();
    let (corpus, found) = (inside(&folder("corpus")), inside(&folder("found")));
    for paths in [&corpus, &found] {
        assert_eq!(paths.iter().map(|path| name_of(path)).collect::<BTreeSet<_>>(), names);
    }
    let inputs = corpus.iter().flat_map(|folder| inside(folder)).chain(found);
    let bytes: u64 = inputs.map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

/// A purchase with this in the place of its amount, and behind its columns.
fn purchase(amount: &str, more: &str) -> String {
    format!(
        r#"{{"op":"c","before":null,"after":{{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":{amount},
        "status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z"{more}}},"source":{{"lsn":42}},
        "ts_ms":1795168800000}}"#
    )
}

#[test]
fn what_is_too_large_for_the_corpus_keeps_every_promise_as_well() {
    const DEPTH: usize = 100_000;
    const LONG: usize = 600_000;
    let (arrays, objects) = (
        format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH)),
    );
    let text = format!("\"{}\"", "x".repeat(LONG));
    let escaped = format!("\"{}\"", r"\u001b".repeat(LONG / 6));
    let columns: String = (0..50_000).map(|number| format!(r#","c{number}":{number}"#)).collect();
    let again: String = (0..50_000).map(|number| format!(r#","id":"p-{number}""#)).collect();
    let values = [
        ("arrays", arrays),
        ("objects", objects),
        ("a text", text.clone()),
        ("escapes", escaped.clone()),
        ("digits", "9".repeat(LONG)),
        ("decimals", format!("0.{}", "3".repeat(LONG))),
        ("zeros", format!("1{}.{}", "0".repeat(LONG), "0".repeat(LONG))),
        ("an exponent", format!("1e{}", "9".repeat(LONG))),
    ];
    let mut giants: Vec<(String, String)> = Vec::new();
    for (name, value) in &values {
        giants.push((format!("{name} as it is"), value.clone()));
        giants.push((format!("{name} as an amount"), purchase(value, "")));
        giants.push((
            format!("{name} in a field nobody reads"),
            purchase("1", &format!(r#","x":{value}"#)),
        ));
        giants.push((format!("{name} as an id"), purchase("1", &format!(r#","id":{value}"#))));
        giants.push((
            format!("{name} as a status"),
            purchase("1", &format!(r#","status":{value}"#)),
        ));
        giants.push((format!("{name} as programs"), format!(r#"{{"programs":{value}}}"#)));
        giants.push((
            format!("{name} as an error"),
            format!(r#"{{"ids":null,"error":{value}}}"#),
        ));
    }
    giants.push(("columns".to_owned(), purchase("1", &columns)));
    giants.push(("one column".to_owned(), purchase("1", &again)));
    giants.push(("a frame".to_owned(), format!("crm/1;{}", "currency=7,".repeat(100_000))));
    giants.push(("separators".to_owned(), "\u{1e}".repeat(10_000)));
    let fields: String = (0..3_000).map(|number| format!(r#""f{number}":1,"#)).collect();
    giants.push(("fields of a program".to_owned(), format!("{{{fields}\"programs\":[]}}")));
    for target in &targets::ALL {
        for (name, giant) in &giants {
            survives(target, name, giant.as_bytes());
        }
    }
}
