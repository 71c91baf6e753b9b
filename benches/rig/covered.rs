//! Which changes an event covers: an evaluation of a tier those that it names, another event its own. Pure.
//!
//! Takes what arrives as it is, a line for each event, because to read it would cost what is being measured; gives ids when
//! everything is over, of the form that `ids.rs` compares.

use serde::Deserialize;

/// The name of the events that cover more than their own change.
const EVALUATION: &str = "loyalty/tier.evaluation_requested";

#[derive(Debug, Deserialize)]
struct Evaluation<'a> {
    #[serde(borrow)]
    triggers: Vec<Trigger<'a>>,
}

#[derive(Debug, Deserialize)]
struct Trigger<'a> {
    table: &'a str,
    row_id: &'a str,
    version: &'a str,
}

/// How many changes it covers, without reading it.
pub(crate) fn count(name: &str, data: &str) -> u64 {
    if name == EVALUATION {
        data.matches("\"op\":").count() as u64
    } else {
        1
    }
}

/// Adds its line.
pub(crate) fn keep(lines: &mut String, id: &str, name: &str, data: &str) {
    lines.push_str(if name == EVALUATION { data } else { id });
    lines.push('\n');
}

/// The ids of all changes covered, a line each, as if each had an event of its own.
pub(crate) fn ids(lines: &str) -> serde_json::Result<String> {
    let mut ids = String::with_capacity(lines.len());
    for line in lines.split_terminator('\n') {
        if line.starts_with('{') {
            for Trigger { table, row_id, version } in serde_json::from_str::<Evaluation<'_>>(line)?.triggers {
                ids.extend(["tier:evaluation:", table, ":", row_id, ":", version, "\n"]);
            }
        } else {
            ids.extend([line, "\n"]);
        }
    }
    Ok(ids)
}
