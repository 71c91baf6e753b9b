//! Hostile input, in front of the real binary where it can be: bytes that nobody sends by mistake, texts that steer a
//! terminal or forge a line of a log, servers that repeat what they are told, settings that would switch a check off.
//!
//! `corpus` replays what the fuzzer starts from (`make fuzz`, `fuzz/`).

mod checked;
mod corpus;
mod echo;
mod secrets;
#[path = "../../fuzz/targets/mod.rs"]
mod targets;
mod text;
mod worker;

use std::process::{Command, Stdio};
use std::time::Duration;

/// What a command said and how it ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// The real binary with these arguments and nothing in its environment but this; one that does not end is ended.
async fn command(arguments: &[String], environment: &[(String, String)]) -> Ended {
    const PATIENCE: Duration = Duration::from_secs(300);
    let mut command = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended
        .unwrap_or_else(|_elapsed| panic!("{arguments:?} does not end"))
        .expect("its output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

/// A character that steers a terminal, or reorders or hides text; the end of a line is none.
fn steers(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
