//! What is fed with hostile bytes: takes any bytes, gives nothing, and panics where a promise about such bytes is broken.
//!
//! It stands here once and is called twice: by the fuzzer (`fuzz/main.rs`), which looks for bytes that nobody thought of, and by
//! `make test` (`tests/hostile`), which feeds it everything that is committed. It calls what the worker calls, in the same
//! order, and compares with oracles that are slow and plain. It never does I/O and never reads a clock.

mod answer;
mod decide;
mod envelope;
mod frame;
mod letters;
mod money;
mod program;
mod values;
mod wire;

/// One kind of bytes from outside. Its inputs lie in `fuzz/corpus/<name>` and `fuzz/found/<name>`.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

pub(crate) const ALL: [Target; 8] = [
    Target {
        name: "wire",
        run: wire::run,
    },
    Target {
        name: "envelope",
        run: envelope::run,
    },
    Target {
        name: "values",
        run: values::run,
    },
    Target {
        name: "decide",
        run: decide::run,
    },
    Target {
        name: "frame",
        run: frame::run,
    },
    Target {
        name: "letters",
        run: letters::run,
    },
    Target {
        name: "program",
        run: program::run,
    },
    Target {
        name: "answer",
        run: answer::run,
    },
];

/// Longer messages fill logs and headers with what somebody else wrote.
const LONGEST_MESSAGE: usize = 1_500;

/// The parts of an input, each ended by ASCII's record separator, which no JSON holds; the last takes what is left. Parts
/// that are not there are empty; where there is none but the last, it is the whole input.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts: [&[u8]; N] = [b""; N];
    let given: Vec<&[u8]> = data.splitn(N, |byte| *byte == 0x1e).collect();
    for (part, given) in parts.iter_mut().rev().zip(given.into_iter().rev()) {
        *part = given;
    }
    parts
}

/// A message about bytes from outside: there, short, and without a character that steers a terminal, breaks a line, or
/// reorders or hides what stands around it.
fn assert_inert(message: &str) {
    assert!(!message.is_empty(), "an empty message");
    assert!(message.len() <= LONGEST_MESSAGE, "{} bytes of message", message.len());
    let steering = message.chars().find(|c| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    });
    assert_eq!(steering, None, "in {message:?}");
}

/// A word for metric labels and headers.
fn assert_word(word: &str) {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(!word.is_empty() && word.bytes().all(is_plain), "{word:?}");
}
