//! Keeps what outsiders wrote from steering a terminal or forging a line: takes any text, gives one without control
//! characters, line breaks, or marks that reorder or hide what stands around them. Letters of every script stay as they are.
//! Whatever leaves the process for people or for a log goes through here.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text for a person, on one line. Inside a JSON text the result is still the same JSON.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        push(&mut clean, character);
    }
    clean
}

/// The same, but for the ends of lines, which are ours: a list of problems, or JSON over several lines.
#[cfg(feature = "io")]
pub(crate) fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(clean).collect();
    lines.join("\n")
}

/// What a server said, without the secret that it was told: some repeat whatever they refuse. Before anything is cut off, since
/// half a secret is still one.
pub(crate) fn without<'a>(text: &'a str, secret: &str) -> Cow<'a, str> {
    if secret.is_empty() || !text.contains(secret) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.replace(secret, "***"))
    }
}

/// An error with its causes: the outermost one alone says only that a request failed. Not clean yet.
#[cfg(feature = "io")]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Appends one character, `\u`-escaped as JSON does where it could do harm.
pub(crate) fn push(out: &mut String, character: char) {
    if !is_harmful(character) {
        out.push(character);
        return;
    }
    match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                // Writing into a String cannot fail.
                let _infallible = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_repeated_is_not_told() {
        assert_eq!(without("no: p-1 and p-1", "p-1"), "no: *** and ***");
        assert_eq!(without("no", "p-1"), "no");
        assert_eq!(without("no", ""), "no");
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor_or_hides_text() {
        assert_eq!(
            clean("a\u{1b}[2J\n\u{9b}\u{202e}\u{e0041}"),
            "a\\u001b[2J\\n\\u009b\\u202e\\udb40\\udc41"
        );
        assert_eq!(clean("{\"id\":\"p-1\"} \\ สวัสดี é"), "{\"id\":\"p-1\"} \\ สวัสดี é");
        assert_eq!(clean_lines("a\r\n\u{1b}b\n"), "a\\r\n\\u001bb\n");
    }
}
