//! [`Ledger`] by the functions of `schemas/postgres`: each call one statement, its batch one JSON argument.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use super::client::Parameter;
use super::{Announcement, Client, Ledger, LedgerError, Standing, calls, field};
use crate::consumers::{Consumer, Effect, EffectKey};
use crate::rows::Row;

/// The real one.
#[derive(Debug)]
pub struct PostgresLedger {
    client: Arc<Client>,
}

impl PostgresLedger {
    #[must_use]
    pub const fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    async fn call(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<(), LedgerError> {
        self.client.query(statement, parameters).await.map(drop)
    }

    async fn announcements(&self, statement: &str, batch: String) -> Result<Vec<Announcement>, LedgerError> {
        let rows = self.client.query(statement, &[(&batch, Type::TEXT)]).await?;
        rows.iter().map(announcement).collect()
    }
}

impl Ledger for PostgresLedger {
    fn compare<'a>(&'a self, effects: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Standing>, LedgerError>> {
        async move {
            if effects.is_empty() {
                return Ok(Vec::new());
            }
            let statement = "select standing::text from crm_events.compare_effects($1::text::jsonb) order by ordinal";
            let batch = calls::compared(effects);
            let rows = self.client.query(statement, &[(&batch, Type::TEXT)]).await?;
            let standings: Vec<Standing> = rows.iter().map(standing).collect::<Result<_, _>>()?;
            if standings.len() != effects.len() {
                let (got, asked) = (standings.len(), effects.len());
                return Err(LedgerError::Unknown(format!("{got} standings of {asked} effects")));
            }
            Ok(standings)
        }
        .boxed()
    }

    fn evaluate_tiers<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        async move {
            let statement =
                "select id, effect_key, name, ts_ms, data::text from crm_events.evaluate_tiers($1::text::jsonb)";
            self.announcements(statement, calls::tiers(effects)).await
        }
        .boxed()
    }

    fn record_progress<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        async move {
            let statement =
                "select id, effect_key, name, ts_ms, data::text from crm_events.record_progress($1::text::jsonb)";
            self.announcements(statement, calls::progress(effects)).await
        }
        .boxed()
    }

    fn announced<'a>(&'a self, ids: &'a [&'a str]) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            let statement = "select crm_events.announced($1)";
            self.call(statement, &[(&ids, Type::TEXT_ARRAY)]).await
        }
        .boxed()
    }

    fn announcement_rejected<'a>(&'a self, id: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            let statement = "select crm_events.announcement_rejected($1, $2)";
            self.call(statement, &[(&id, Type::TEXT), (&reason, Type::TEXT)]).await
        }
        .boxed()
    }

    fn knows<'a>(&'a self, key: &'a EffectKey) -> BoxFuture<'a, Result<bool, LedgerError>> {
        async move {
            let statement = "select exists (select from crm_events.effects where effect_key = $1)";
            let rows = self.client.query(statement, &[(&key.as_str(), Type::TEXT)]).await?;
            let row = rows.first();
            row.map_or_else(|| Err(LedgerError::Unknown("no row".to_owned())), |row| field(row, 0))
        }
        .boxed()
    }

    fn bury<'a>(&'a self, consumer: Consumer, row: &'a Row, reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            let Some(batch) = calls::buried(consumer, row, reason) else {
                return Ok(());
            };
            let statement = "select crm_events.mark_dead($1::text::jsonb)";
            self.call(statement, &[(&batch, Type::TEXT)]).await
        }
        .boxed()
    }
}

fn standing(row: &tokio_postgres::Row) -> Result<Standing, LedgerError> {
    match field::<&str>(row, 0)? {
        "absent" => Ok(Standing::Absent),
        "zero" => Ok(Standing::Zero),
        "equal" => Ok(Standing::Equal),
        "differs" => Ok(Standing::Differs),
        other => Err(LedgerError::Unknown(format!(
            "a standing that is unknown here: {other}"
        ))),
    }
}

pub(super) fn announcement(row: &tokio_postgres::Row) -> Result<Announcement, LedgerError> {
    let data: String = field(row, 4)?;
    let unreadable = |error| LedgerError::Unknown(format!("an announcement that is no JSON: {error}"));
    Ok(Announcement {
        id: field(row, 0)?,
        effect_key: field(row, 1)?,
        name: field(row, 2)?,
        ts_ms: field(row, 3)?,
        data: RawValue::from_string(data).map_err(unreadable)?,
    })
}
