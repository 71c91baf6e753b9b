//! What a platform says, as it may be shown: takes any text, gives one line without secrets and control characters.
//!
//! Traces and messages hold what the connector was doing: rows, addresses, passwords. So no more than the first line leaves here.

use crate::inert::clean;

const LONGEST: usize = 300;
/// A secret that is shorter counts only where it stands alone: `crm` is a part of too many names.
const UNMISTAKABLE: usize = 8;

/// The first line, at most 300 characters. Secrets go first: half a key is still a secret.
#[must_use]
pub fn presentable(text: &str, secrets: &[&str]) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let mut line = line.unwrap_or_default().to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        line = without(&line, secret);
    }
    let whole = clean(&line);
    let mut shown: String = whole.chars().take(LONGEST).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    shown
}

fn without(line: &str, secret: &str) -> String {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once(secret) {
        out.push_str(before);
        let part_of_a_word = inside(out.chars().next_back()) || inside(behind.chars().next());
        out.push_str(if part_of_a_word && secret.len() < UNMISTAKABLE {
            secret
        } else {
            "***"
        });
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_left_without_secrets_and_control_characters() {
        let table = [
            ("\n  first \r\n\tat row (1, secret)", "x", "first"),
            ("a\u{1b}[2Jb", "x", "a\\u001b[2Jb"),
            (
                "password=sentinel-1&x sentinel-1sentinel-1",
                "sentinel-1",
                "password=***&x ******",
            ),
            (
                "user crm, slot crm_cdc_slot, \"crm\"",
                "crm",
                "user ***, slot crm_cdc_slot, \"***\"",
            ),
            ("", "x", ""),
        ];
        for (text, secret, wanted) in table {
            assert_eq!(presentable(text, &[secret, ""]), wanted, "{text}");
        }
        let long = format!("{}sentinel-1", "ä".repeat(LONGEST - 3));
        let shown = presentable(&long, &["sentinel-1"]);
        assert!(shown.ends_with("ä***"), "{shown}");
        assert!(presentable(&"ä".repeat(400), &[]).ends_with("ä…"));
    }
}
