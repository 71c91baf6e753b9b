//! `connectors`, as people call it: offline, and against a double of Confluent Cloud's API. Against the real Kafka Connect and
//! Debezium it is in `tests/real/connectors.rs`.

mod cloud;
mod confluent;
mod offline;

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs the real binary with these variables and no others.
pub(crate) async fn connectors(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("connectors")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A file that goes with its test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Not there yet.
    pub(crate) fn new() -> Self {
        let name = format!("crm-connector-{:016x}.json", fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn holding(text: &str) -> Self {
        let scratch = Self::new();
        std::fs::write(&scratch.0, text).expect("written");
        scratch
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been written.
        let _gone = std::fs::remove_file(&self.0);
    }
}
