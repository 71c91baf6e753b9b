//! Keys to pipelines of `SET`. Pure: it never talks to a server.

use std::time::Duration;

use redis::{Cmd, Pipeline};

use crate::dedupe::ClaimKey;

/// What a confirmed key holds.
pub(super) const DONE: &[u8] = b"done";

/// The arguments that are the same for every key, rendered once.
#[derive(Debug)]
pub(super) struct Commands {
    owner: Box<[u8]>,
    lease_ms: Box<[u8]>,
    window_ms: Box<[u8]>,
}

impl Commands {
    pub(super) fn new(owner: &str, lease: Duration, window: Duration) -> Self {
        Self {
            // The prefix keeps any owner apart from the done marker.
            owner: format!("lease:{owner}").into_bytes().into(),
            lease_ms: lease.as_millis().to_string().into_bytes().into(),
            window_ms: window.as_millis().to_string().into_bytes().into(),
        }
    }

    /// What a key holds while it is ours.
    pub(super) fn owner(&self) -> &[u8] {
        &self.owner
    }

    /// `SET key <owner> NX GET PX <lease>` for each key: needs Redis 7.0, which allows NX and GET together.
    pub(super) fn claim(&self, keys: &[ClaimKey]) -> Pipeline {
        pipeline(keys, &[&self.owner, b"NX", b"GET", b"PX", &self.lease_ms])
    }

    /// `SET key done PX <window>` for each key, whoever holds it.
    pub(super) fn confirm(&self, keys: &[ClaimKey]) -> Pipeline {
        pipeline(keys, &[DONE, b"PX", &self.window_ms])
    }
}

fn pipeline(keys: &[ClaimKey], rest: &[&[u8]]) -> Pipeline {
    const SET: &[u8] = b"SET";
    let fixed_bytes = SET.len() + rest.iter().map(|argument| argument.len()).sum::<usize>();
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        let key = key.as_str().as_bytes();
        // The exact size: two allocations a key, none of them grown.
        let mut command = Cmd::with_capacity(2 + rest.len(), fixed_bytes + key.len());
        command.arg(SET).arg(key);
        for argument in rest {
            command.arg(*argument);
        }
        pipeline.add_command(command);
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ChangeVersion, RowId, Table};

    fn sent(pipeline: &Pipeline) -> String {
        let bytes = String::from_utf8(pipeline.get_packed_pipeline()).expect("ASCII");
        let words = bytes.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_claim_never_overwrites_and_a_confirm_always_does() {
        let row = RowId::new("p").expect("not empty");
        let key = ClaimKey::new("tier", "evaluation", Table::WalletLedger, &row, ChangeVersion::Lsn(7));
        let commands = Commands::new("us", Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(
            sent(&commands.claim(&[key.clone(), key.clone()])).trim_end(),
            "SET tier:evaluation:wallet_ledger:p:7 lease:us NX GET PX 10000 \
             SET tier:evaluation:wallet_ledger:p:7 lease:us NX GET PX 10000"
        );
        assert_eq!(
            sent(&commands.confirm(&[key])).trim_end(),
            "SET tier:evaluation:wallet_ledger:p:7 done PX 300000"
        );
    }
}
