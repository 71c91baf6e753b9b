//! What a start needs of the database: the cut-off, and the first rules.
//!
//! Takes what the settings give, gives the [`RuleBook`]. While the database is away it begins with the last good snapshot, or
//! waits. It never goes on with a cut-off that somebody may have meant otherwise.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::cache::Snapshot;
use super::programs::{ProgramReader, known_rules};
use super::{Client, LedgerError, RulesCache, field};
use crate::loyalty::Programs;
use crate::pipeline::{ReadRules as _, RuleBook};

/// Why there can be no start until somebody acts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "LEDGER_EFFECTIVE_FROM is {given}, but {stored} is stored in the database and stays in force: remove the setting, or give \
         the stored value"
    )]
    OtherCutOff { given: Timestamp, stored: Timestamp },
    #[error(
        "LEDGER_EFFECTIVE_FROM is missing: the database holds no cut-off yet. Rows created before it are none of ours \
         (1970-01-01T00:00:00Z: none)"
    )]
    NoCutOff,
    #[error(transparent)]
    Database(LedgerError),
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whom to tell why the start waits, each time that the database did not do.
pub type Waits<'a> = &'a (dyn Fn(&LedgerError) + Send + Sync);

/// The rules to begin with. With `fixed` programs only the cut-off is the database's.
///
/// # Errors
/// The cut-off is not clear, or the database refuses us.
pub async fn rule_book(
    client: Arc<Client>,
    cache: Option<RulesCache>,
    given: Option<Timestamp>,
    fixed: Option<Programs>,
    waits: Waits<'_>,
) -> Result<RuleBook, StartError> {
    begin(client, cache, given, true, fixed, waits).await
}

/// The same for whoever leaves nothing behind: a cut-off that is given is not stored, and no snapshot is kept.
///
/// # Errors
/// As [`rule_book`].
pub async fn rule_book_of_shadow(
    client: Arc<Client>,
    given: Option<Timestamp>,
    fixed: Option<Programs>,
    waits: Waits<'_>,
) -> Result<RuleBook, StartError> {
    begin(client, None, given, false, fixed, waits).await
}

async fn begin(
    client: Arc<Client>,
    mut cache: Option<RulesCache>,
    given: Option<Timestamp>,
    stores: bool,
    fixed: Option<Programs>,
    waits: Waits<'_>,
) -> Result<RuleBook, StartError> {
    let fixed = fixed.map(Arc::new);
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match cut_off(&client, given, stores).await {
            Ok(effective_from) => match &fixed {
                Some(programs) => {
                    let rules = known_rules(Arc::clone(programs), effective_from);
                    return Ok(RuleBook::fixed(Arc::new(rules)));
                }
                None => {
                    let mut reader = ProgramReader::new(Arc::clone(&client), cache.take(), effective_from);
                    let begun = Instant::now();
                    match reader.read().await {
                        Ok(rules) => return Ok(RuleBook::refreshed(rules, Some(begun), Box::new(reader))),
                        Err(error) => {
                            cache = reader.into_cache();
                            error
                        }
                    }
                }
            },
            Err(StartError::Database(error)) => error,
            Err(unclear) => return Err(unclear),
        };
        if let LedgerError::Configuration(_) = failed {
            return Err(StartError::Database(failed));
        }
        tracing::warn!(error = %failed, "the database is not there yet");
        waits(&failed);
        if fixed.is_none()
            && let Some(snapshot) = last_good(cache.as_ref()).await
        {
            let effective_from = agreed(given, Some(snapshot.effective_from))?;
            let mut reader = ProgramReader::new(client, cache, effective_from);
            let rules = reader.resume(&snapshot);
            tracing::warn!(
                programs = snapshot.programs.len(),
                "beginning with the programs of CRM_CACHE_REDIS_URL"
            );
            return Ok(RuleBook::refreshed(rules, None, Box::new(reader)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The cut-off that is stored; stored now, if this is the first to be given and `stores` says so.
async fn cut_off(client: &Client, given: Option<Timestamp>, stores: bool) -> Result<Timestamp, StartError> {
    let text = given.filter(|_| stores).map(|given| given.to_string());
    // Microseconds are what the database keeps.
    let statement = "select (extract(epoch from crm_events.effective_from($1::text::timestamptz)) * 1000000)::int8";
    let rows = client.query(statement, &[(&text, Type::TEXT)]).await;
    let rows = rows.map_err(StartError::Database)?;
    let stored: Option<i64> = match rows.first() {
        Some(row) => field(row, 0).map_err(StartError::Database)?,
        None => None,
    };
    let stored = stored.map(Timestamp::from_microsecond).transpose();
    let stored = stored.map_err(|error| StartError::Database(LedgerError::Unknown(format!("the cut-off: {error}"))))?;
    agreed(given, stored.or(given.filter(|_| !stores)))
}

fn agreed(given: Option<Timestamp>, stored: Option<Timestamp>) -> Result<Timestamp, StartError> {
    match (given, stored) {
        (_, None) => Err(StartError::NoCutOff),
        // The database rounds to microseconds.
        (Some(given), Some(stored)) if given.duration_since(stored).abs().as_nanos() >= 1_000 => {
            Err(StartError::OtherCutOff { given, stored })
        }
        (_, Some(stored)) => Ok(stored),
    }
}

async fn last_good(cache: Option<&RulesCache>) -> Option<Snapshot> {
    match cache?.load().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(error, "CRM_CACHE_REDIS_URL cannot give the last good programs");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_cut_off_wins_and_another_one_is_named_beside_it() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let stored = Some(at("2026-11-20T00:00:00.000001Z"));
        assert_eq!(agreed(None, stored).ok(), stored);
        assert_eq!(agreed(Some(at("2026-11-20T00:00:00.0000014Z")), stored).ok(), stored);
        let other = agreed(Some(at("2026-11-21T00:00:00Z")), stored).expect_err("another one");
        let text = other.to_string();
        assert!(
            text.contains("2026-11-21T00:00:00Z") && text.contains("2026-11-20T00:00:00.000001Z"),
            "{text}"
        );
        assert!(matches!(agreed(None, None), Err(StartError::NoCutOff)));
    }
}
