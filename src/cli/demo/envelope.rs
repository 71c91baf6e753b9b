//! Records as the connector writes them: bare JSON envelopes, decimals and times as text.
//!
//! Takes row images, gives the bytes. It knows no rule and no label.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::label::{CODE, Ledger, claimed_mission};
use super::tickets::Ticket;
use super::workload::{Purchase, Status};

/// A change as the connector read it from the log: what it repeats after a restart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub(super) ledger: Ledger,
    pub(super) key: String,
    pub(super) before: Option<String>,
    pub(super) after: String,
    pub(super) lsn: u64,
    pub(super) tx: u64,
    pub(super) commit_ms: i64,
}

/// The whole envelope. A repetition has the same `lsn`, `txId`, key and `source.ts_ms`, and differs in the connector's own
/// time and in the first part of `sequence`, the last commit it knew.
pub(super) fn write(sent: &Sent, processed_ms: i64, last_commit_lsn: u64) -> String {
    let Sent {
        ledger,
        before,
        after,
        lsn,
        tx,
        commit_ms,
        ..
    } = sent;
    let (table, op) = (ledger.table(), if before.is_some() { 'u' } else { 'c' });
    let before = before.as_deref().unwrap_or("null");
    let mut text = String::with_capacity(before.len() + after.len() + 512);
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "{{\"before\":{before},\"after\":{after},\"source\":{{\"version\":\"3.6.3.Final\",\"connector\":\"postgresql\",\
         \"name\":\"crm\",\"ts_ms\":{commit_ms},\"snapshot\":\"false\",\"db\":\"crm\",\
         \"sequence\":\"[\\\"{last_commit_lsn}\\\",\\\"{lsn}\\\"]\",\"ts_us\":{commit_ms}207,\
         \"ts_ns\":{commit_ms}207000,\"schema\":\"public\",\"table\":\"{table}\",\"txId\":{tx},\"lsn\":{lsn},\
         \"xmin\":null,\"origin\":null,\"origin_lsn\":null}},\"transaction\":null,\"op\":\"{op}\",\
         \"ts_ms\":{processed_ms},\"ts_us\":{processed_ms}808,\"ts_ns\":{processed_ms}808322}}"
    );
    text
}

pub(super) fn key(ledger: Ledger, row: u32) -> String {
    format!("{{\"id\":\"{}\"}}", ledger.row_id(row))
}

pub(super) fn purchase(purchase: &Purchase, merchant: &str) -> String {
    let id = Ledger::Purchases.row_id(purchase.row);
    let status = match purchase.status {
        Status::Pending => "pending",
        Status::Completed => "completed",
        Status::PartiallyRefunded => "partially_refunded",
        Status::Refunded => "refunded",
        Status::Cancelled => "cancelled",
    };
    let completed = purchase
        .completed_us
        .map_or_else(|| "null".to_owned(), |at_us| format!("\"{}\"", time(at_us)));
    format!(
        "{{\"id\":\"{id}\",\"user_id\":\"{}\",\"merchant_id\":\"{merchant}\",\"final_amount\":\"{}\",\
         \"refunded_amount\":\"{}\",\"status\":\"{status}\",\"earn_currency\":{},\"created_at\":\"{}\",\
         \"completed_at\":{completed},\"metadata\":\"{{\\\"channel\\\": \\\"till\\\", \\\"note\\\": {}}}\"}}",
        user_id(purchase.user),
        decimal(purchase.cents),
        decimal(purchase.refunded_cents),
        purchase.earns,
        time(purchase.created_us),
        purchase.note,
    )
}

pub(super) fn wallet_entry(row: u32, user: u32, merchant: &str, (amount, kind): (i64, &str), at_ms: i64) -> String {
    format!(
        "{{\"id\":\"{}\",\"user_id\":\"{}\",\"merchant_id\":\"{merchant}\",\"amount\":{amount},\"kind\":\"{kind}\",\
         \"source_type\":\"purchase\",\"source_id\":\"p-{row:08}\",\"created_at\":\"{}\"}}",
        Ledger::Wallet.row_id(row),
        user_id(user),
        time(at_ms * 1000),
    )
}

pub(super) fn form(row: u32, user: u32, merchant: &str, form: &str, at_ms: i64) -> String {
    format!(
        "{{\"id\":\"{}\",\"form_id\":\"{form}\",\"user_id\":\"{}\",\"merchant_id\":\"{merchant}\",\
         \"submitted_at\":\"{}\",\"answers\":\"{{\\\"likes\\\": \\\"coffee\\\"}}\"}}",
        Ledger::Forms.row_id(row),
        user_id(user),
        time(at_ms * 1000),
    )
}

/// A claim, a referral or a code.
pub(super) fn ticket(ticket: &Ticket, merchant: &str) -> String {
    let user = |user: Option<u32>| user.map_or_else(|| "null".to_owned(), |user| format!("\"{}\"", user_id(user)));
    let [first, second] = ticket.users.map(user);
    let created = time(ticket.created_us);
    let own = match ticket.ledger {
        Ledger::Referrals => {
            format!("\"referrer_user_id\":{first},\"referee_user_id\":{second},\"created_at\":\"{created}\"")
        }
        Ledger::Codes => {
            let redeemed = ticket
                .redeemed_us
                .map_or_else(|| "null".to_owned(), |at_us| format!("\"{}\"", time(at_us)));
            let row = ticket.row;
            format!("\"code\":\"{CODE}{row:08}\",\"user_id\":{first},\"redeemed_at\":{redeemed}")
        }
        Ledger::Claims | Ledger::Purchases | Ledger::Wallet | Ledger::Forms => {
            let mission = claimed_mission(ticket.row);
            format!("\"user_id\":{first},\"mission_id\":\"{mission}\",\"period\":null,\"claimed_at\":\"{created}\"")
        }
    };
    format!(
        "{{\"id\":\"{}\",\"merchant_id\":\"{merchant}\",\"status\":\"{}\",{own},\
         \"metadata\":\"{{\\\"channel\\\": \\\"app\\\", \\\"note\\\": {}}}\"}}",
        ticket.ledger.row_id(ticket.row),
        ticket.state.word(),
        ticket.note,
    )
}

pub(super) fn user_id(user: u32) -> String {
    format!("u-{user:05}")
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn time(at_us: i64) -> String {
    Timestamp::from_microsecond(at_us).map_or_else(|_outside| String::new(), |at| format!("{at:.6}"))
}
