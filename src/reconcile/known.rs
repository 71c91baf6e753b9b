//! What a database knows to be done: takes its books, gives a [`System`] for a shadow to be compared with.
//!
//! First the table `effects`; then, of purchases that it knows nothing of, what the wallet has for them: a ledger that another
//! worker settles has nothing else. It only reads, page by page, and keeps a short note a fact.

use std::collections::BTreeMap;

use super::shadow::{Known, Shadow, System, table_of};
use super::state::{newest_ms, read};
use crate::consumers::EffectKey;
use crate::postgres::{Books, LedgerError};
use crate::rows::{Row, RowId, Table, WalletEntryKind};

/// Rows of one call.
const PAGE: i32 = 2000;
/// Ids of one call.
const IDS: usize = 400;

/// Points that the wallet has for one purchase.
#[derive(Debug, Default)]
struct Booked {
    points: i64,
    newest_ms: i64,
}

/// Everything that was done about facts that have a target. `shadow`: of what it tells nothing, the age is looked up.
///
/// # Errors
/// The database fails.
pub async fn known(books: &Books, shadow: &Shadow) -> Result<System, LedgerError> {
    let mut system = System::default();
    let mut after = String::new();
    loop {
        let page = books.settled(&after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.effect_key);
        for settled in page {
            let known = Known {
                target: Some(settled.target),
                due_ms: settled.due_ms,
                changed_ms: Some(settled.changed_ms),
                of_ms: Some(settled.as_of_ms),
                table: table_of(&settled.effect_key),
                booked_when_due: false,
            };
            system.knows(settled.effect_key, known);
        }
    }
    let mut booked = wallet(books).await?;
    booked.retain(|purchase, _| key(purchase).is_some_and(|key| !system.has(&key)));
    let unseen: Vec<&str> = booked
        .keys()
        .filter(|purchase| key(purchase).is_some_and(|key| !shadow.tells_of(&key)))
        .map(String::as_str)
        .collect();
    let ages = ages(books, &unseen).await?;
    for (purchase, Booked { points, newest_ms }) in booked {
        let known = Known {
            target: Some(points),
            due_ms: None,
            changed_ms: Some(newest_ms),
            // A purchase that is no longer there is older than anything.
            of_ms: Some(ages.get(&purchase).copied().unwrap_or_default()),
            table: Some(Table::PurchaseLedger),
            booked_when_due: true,
        };
        if let Some(key) = key(&purchase) {
            system.knows(key, known);
        }
    }
    Ok(system)
}

fn key(purchase: &str) -> Option<String> {
    RowId::new(purchase).map(|row| EffectKey::award(&row).as_str().to_owned())
}

/// What was earned and taken back, by purchase. Whatever else moved points for it is none of the award.
async fn wallet(books: &Books) -> Result<BTreeMap<String, Booked>, LedgerError> {
    let mut booked: BTreeMap<String, Booked> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = books.page(Table::WalletLedger, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for row in &page {
            // An entry that cannot be read is the business of `reconcile` without a shadow: it names it.
            let Ok(change) = read(Table::WalletLedger, row) else {
                continue;
            };
            let Row::WalletEntry(entry) = change.row else { continue };
            let is_award = matches!(entry.kind, WalletEntryKind::Earn | WalletEntryKind::Clawback)
                && entry.source_type.as_deref() == Some("purchase");
            if let (true, Some(purchase)) = (is_award, entry.source_id) {
                let one = booked.entry(purchase.into()).or_default();
                one.points = one.points.saturating_add(entry.amount);
                one.newest_ms = one.newest_ms.max(entry.created_at.as_millisecond());
            }
        }
    }
    Ok(booked)
}

/// The newest time in each of these purchases, ms.
async fn ages(books: &Books, purchases: &[&str]) -> Result<BTreeMap<String, i64>, LedgerError> {
    let mut ages = BTreeMap::new();
    for ids in purchases.chunks(IDS) {
        for row in books.rows_of(Table::PurchaseLedger, ids).await? {
            let newest = read(Table::PurchaseLedger, &row).ok();
            if let Some(newest_ms) = newest.and_then(|change| newest_ms(&change.row)) {
                ages.insert(row.id, newest_ms);
            }
        }
    }
    Ok(ages)
}
