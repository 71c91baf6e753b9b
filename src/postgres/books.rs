//! The ledgers and what is noted about their effects: for whoever decides rows again, to heal or to explain.
//!
//! Takes keys, ids and pages, gives rows as a snapshot would, states of effects, and what is to be sent again. It never
//! decides what a row means, and writes nothing but notes: when a fact is missed, when it is found, how far a pass has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::client::Parameter;
use super::ledger::announcement;
use super::{Announcement, Client, LedgerError, field};
use crate::consumers::{Effect, Fact};
use crate::rows::Table;

/// Shared by everybody who asks.
#[derive(Debug, Clone)]
pub struct Books {
    pub(super) client: Arc<Client>,
}

/// A row of a ledger, as a connector would write it.
#[derive(Debug, Clone)]
pub struct LedgerRow {
    pub id: String,
    /// A JSON object.
    pub image: String,
    /// When it was read, ms: what was committed later is not in it.
    pub read_at_ms: i64,
}

/// Where a page of recent rows ended.
#[derive(Debug, Clone)]
pub struct Place {
    /// As the database writes it.
    pub time: String,
    pub id: String,
}

/// What is to be done about a missed effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heal {
    /// The number of the re-send that is due now, 0 if none is, -1 if there were enough.
    pub number: i32,
    /// Since when it is missed.
    pub missed_ms: i64,
}

/// An effect whose row should be decided again.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub effect_key: String,
    pub table: Table,
    pub row_id: String,
    pub why: String,
}

/// What `effects` holds of a fact. Times as they are written in events.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EffectState {
    pub effect_key: String,
    pub kind: String,
    pub source_table: Option<String>,
    pub source_id: Option<String>,
    pub merchant_id: String,
    pub user_id: Option<String>,
    pub state: String,
    pub basis: Option<serde_json::Value>,
    pub target: i64,
    pub booked: i64,
    pub program_rev: i64,
    pub refund_policy: Option<String>,
    pub due_at: Option<String>,
    pub settled_at: Option<String>,
    pub stale_at: Option<String>,
    pub dead_reason: Option<String>,
    pub missed_since: Option<String>,
    pub heals: i64,
    pub healed_at: Option<String>,
    pub next_attempt_at: Option<String>,
    pub updated_at: String,
    /// Due, and not settled; ms since then.
    pub overdue_ms: Option<i64>,
    pub detail: serde_json::Value,
}

/// A member's points and tier.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MemberState {
    /// In the wallet, as of now.
    pub balance: i64,
    pub entries: i64,
    pub tier: Option<serde_json::Value>,
    /// Oldest first.
    pub history: Vec<serde_json::Value>,
}

/// An announcement that was written down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Noted {
    pub id: String,
    pub name: String,
    pub created_at: String,
    pub announced_at: Option<String>,
    pub dead_reason: Option<String>,
}

/// An announcement that is never accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rejected {
    pub id: String,
    pub name: String,
    pub reason: String,
}

/// A purchase whose entries in the wallet do not add up to what was booked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unbalanced {
    pub purchase_id: String,
    pub merchant_id: String,
    pub user_id: Option<String>,
    pub in_wallet: i64,
    pub booked: i64,
}

/// A page of the wallet, or of what was booked.
#[derive(Debug, serde::Deserialize)]
struct Compared {
    next: Option<String>,
    unbalanced: Vec<Unbalanced>,
}

/// Purchases that are compared by one call.
const COMPARED: i32 = 1000;

impl Books {
    #[must_use]
    pub const fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    async fn call(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<(), LedgerError> {
        self.client.query(statement, parameters).await.map(drop)
    }

    /// Ours until then, unless it is somebody else's.
    ///
    /// # Errors
    /// As every call: see [`LedgerError`].
    pub async fn take_lease(&self, name: &str, owner: &str, seconds: i32) -> Result<bool, LedgerError> {
        let statement = "select crm_events.take_lease($1, $2, $3)";
        let parameters = [
            (&name as _, Type::TEXT),
            (&owner as _, Type::TEXT),
            (&seconds as _, Type::INT4),
        ];
        one(&self.client.query(statement, &parameters).await?)
    }

    /// # Errors
    /// See [`LedgerError`].
    pub async fn drop_lease(&self, name: &str, owner: &str) -> Result<(), LedgerError> {
        let statement = "select crm_events.drop_lease($1, $2)";
        self.call(statement, &[(&name, Type::TEXT), (&owner, Type::TEXT)]).await
    }

    /// A page of a ledger in the order of its ids, behind `after`.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn page(&self, table: Table, after: Option<&str>, max: i32) -> Result<Vec<LedgerRow>, LedgerError> {
        let statement = "select id, image::text, read_at_ms from crm_events.ledger_rows($1, $2, $3)";
        let parameters = [
            (&table.name() as _, Type::TEXT),
            (&after as _, Type::TEXT),
            (&max as _, Type::INT4),
        ];
        let rows = self.client.query(statement, &parameters).await?;
        rows.iter().map(ledger_row).collect()
    }

    /// A page of the rows that have a time of `since_ms` or later, in the order of that time, and where it ended; `None`
    /// behind the last.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn recent(
        &self,
        table: Table,
        since_ms: i64,
        after: Option<&Place>,
        max: i32,
    ) -> Result<(Vec<LedgerRow>, Option<Place>), LedgerError> {
        let statement = "select id, image::text, read_at_ms, row_time from crm_events.recent_rows($1, \
                         to_timestamp($2::int8 / 1000.0), $3, $4, $5)";
        let (time, id) = (after.map(|place| &place.time), after.map(|place| &place.id));
        let parameters = [
            (&table.name() as _, Type::TEXT),
            (&since_ms as _, Type::INT8),
            (&time as _, Type::TEXT),
            (&id as _, Type::TEXT),
            (&max as _, Type::INT4),
        ];
        let rows = self.client.query(statement, &parameters).await?;
        let place = |row| {
            Ok(Place {
                id: field(row, 0)?,
                time: field(row, 3)?,
            })
        };
        let ended = rows.last().map(place).transpose()?;
        let rows: Vec<LedgerRow> = rows.iter().map(ledger_row).collect::<Result<_, LedgerError>>()?;
        Ok((rows, ended))
    }

    /// These rows, as far as they are there.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn rows_of(&self, table: Table, ids: &[&str]) -> Result<Vec<LedgerRow>, LedgerError> {
        let statement = "select id, image::text, read_at_ms from crm_events.ledger_rows_of($1, $2)";
        let parameters = [(&table.name() as _, Type::TEXT), (&ids as _, Type::TEXT_ARRAY)];
        let rows = self.client.query(statement, &parameters).await?;
        rows.iter().map(ledger_row).collect()
    }

    /// Effects that are stale, missing or overdue, those first that were not looked at for longest.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn suspects(&self, max: i32) -> Result<Vec<Suspect>, LedgerError> {
        let statement = "select effect_key, source_table, source_id, why from crm_events.suspect_effects($1)";
        let rows = self.client.query(statement, &[(&max, Type::INT4)]).await?;
        let mut suspects = Vec::new();
        for row in &rows {
            if let Some(table) = Table::from_name(field(row, 1)?) {
                suspects.push(Suspect {
                    effect_key: field(row, 0)?,
                    table,
                    row_id: field(row, 2)?,
                    why: field(row, 3)?,
                });
            }
        }
        Ok(suspects)
    }

    /// Notes that these effects are missed. Gives for each, in their order, what is to be done now.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn plan_heals(&self, effects: &[&Effect]) -> Result<Vec<Heal>, LedgerError> {
        let records = records(effects)?;
        let statement = "select heal, missed_ms from crm_events.plan_heals($1::text::jsonb) order by ordinal";
        let rows = self.client.query(statement, &[(&records, Type::TEXT)]).await?;
        let heal = |row| {
            Ok(Heal {
                number: field(row, 0)?,
                missed_ms: field(row, 1)?,
            })
        };
        let heals: Vec<Heal> = rows.iter().map(heal).collect::<Result<_, LedgerError>>()?;
        if heals.len() != effects.len() {
            let (got, asked) = (heals.len(), effects.len());
            return Err(LedgerError::Unknown(format!("{got} heals of {asked} effects")));
        }
        Ok(heals)
    }

    /// Which of these are in the dead letters with this very state of their row.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn still_dead(&self, effects: &[&Effect]) -> Result<Vec<bool>, LedgerError> {
        let records = records(effects)?;
        let statement = "select crm_events.still_dead($1::text::jsonb)";
        let rows = self.client.query(statement, &[(&records, Type::TEXT)]).await?;
        let mut dead = vec![false; effects.len()];
        for row in &rows {
            let ordinal: i32 = field(row, 0)?;
            let place = usize::try_from(ordinal).ok().and_then(|ordinal| ordinal.checked_sub(1));
            if let Some(dead) = place.and_then(|place| dead.get_mut(place)) {
                *dead = true;
            }
        }
        Ok(dead)
    }

    /// What was planned for these keys was not sent.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn not_healed(&self, keys: &[&str]) -> Result<(), LedgerError> {
        let statement = "select crm_events.not_healed($1)";
        self.call(statement, &[(&keys, Type::TEXT_ARRAY)]).await
    }

    /// Nothing is missed of these keys, as their rows were at that time.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn found_settled(&self, keys: &[&str], as_of_ms: i64) -> Result<(), LedgerError> {
        let statement = "select crm_events.found_settled($1, $2)";
        self.call(statement, &[(&keys, Type::TEXT_ARRAY), (&as_of_ms, Type::INT8)])
            .await
    }

    /// Announcements that nobody has sent for so long.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn unsent(&self, older_than_s: i32, max: i32) -> Result<Vec<Announcement>, LedgerError> {
        let statement = "select id, effect_key, name, ts_ms, data::text from \
                         crm_events.unsent_announcements(make_interval(secs => $1::int4), $2)";
        let parameters = [(&older_than_s as _, Type::INT4), (&max as _, Type::INT4)];
        let rows = self.client.query(statement, &parameters).await?;
        rows.iter().map(announcement).collect()
    }

    /// Announcements that are never accepted and that nobody has dealt with.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn rejected(&self) -> Result<Vec<Rejected>, LedgerError> {
        let statement = "select jsonb_build_object('id', id, 'name', name, 'reason', dead_reason)::text \
                         from crm_events.announcements where announced_at is null and dead_at is not null order by seq";
        self.objects(statement, &[]).await
    }

    /// Every announcement of these keys.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn noted(&self, keys: &[&str]) -> Result<Vec<Noted>, LedgerError> {
        let statement = "select jsonb_build_object('id', id, 'name', name, 'created_at', crm_events.rfc3339(created_at), \
                         'announced_at', crm_events.rfc3339(announced_at), 'dead_reason', dead_reason)::text \
                         from crm_events.announcements where effect_key = any ($1) order by seq";
        self.objects(statement, &[(&keys, Type::TEXT_ARRAY)]).await
    }

    /// A member's points and tier.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn member(&self, merchant: &str, user: &str) -> Result<MemberState, LedgerError> {
        let statement = "select crm_events.member_state($1, $2)::text";
        let parameters = [(&merchant as _, Type::TEXT), (&user as _, Type::TEXT)];
        let mut states = self.objects(statement, &parameters).await?;
        states.pop().ok_or_else(|| LedgerError::Unknown("no answer".to_owned()))
    }

    /// The id behind which a slow pass goes on.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn bookmark(&self, name: &str) -> Result<Option<String>, LedgerError> {
        let statement = "select after_id from crm_events.bookmarks where name = $1";
        let rows = self.client.query(statement, &[(&name, Type::TEXT)]).await?;
        rows.first().map_or(Ok(None), |row| field(row, 0))
    }

    /// # Errors
    /// See [`LedgerError`].
    pub async fn turn_page(&self, name: &str, after: Option<&str>) -> Result<(), LedgerError> {
        let statement = "select crm_events.turn_page($1, $2)";
        self.call(statement, &[(&name, Type::TEXT), (&after, Type::TEXT)]).await
    }

    /// How many effects are due for longer than a quarter of an hour and not settled.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn overdue(&self) -> Result<i64, LedgerError> {
        let statement = "select count(*) from crm_events.effects where state = 'pending' \
                         and coalesce(due_at, updated_at) <= crm_events.clock() - interval '15 minutes'";
        one(&self.client.query(statement, &[]).await?)
    }

    /// When these tiers were last evaluated, ms.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn evaluated_at(&self, keys: &[&str]) -> Result<BTreeMap<String, i64>, LedgerError> {
        let statement = "select effect_key, floor(extract(epoch from updated_at) * 1000)::int8 from crm_events.effects \
                         where effect_key = any ($1)";
        let rows = self.client.query(statement, &[(&keys, Type::TEXT_ARRAY)]).await?;
        rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
    }

    /// What `effects` holds of these keys.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn states(&self, keys: &[&str]) -> Result<BTreeMap<String, EffectState>, LedgerError> {
        let statement = format!("{STATE} where effect.effect_key = any ($1)");
        let states: Vec<EffectState> = self.objects(&statement, &[(&keys, Type::TEXT_ARRAY)]).await?;
        Ok(states
            .into_iter()
            .map(|state| (state.effect_key.clone(), state))
            .collect())
    }

    /// What `effects` holds of a row.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn states_of_row(&self, table: Table, id: &str) -> Result<Vec<EffectState>, LedgerError> {
        let statement =
            format!("{STATE} where effect.source_table = $1 and effect.source_id = $2 order by effect.effect_key");
        self.objects(&statement, &[(&table.name(), Type::TEXT), (&id, Type::TEXT)])
            .await
    }

    /// What `effects` holds of a member, and of what a source row led to.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn states_of_member(&self, merchant: &str, user: &str) -> Result<Vec<EffectState>, LedgerError> {
        let statement =
            format!("{STATE} where effect.merchant_id = $1 and effect.user_id = $2 order by effect.effect_key");
        self.objects(&statement, &[(&merchant, Type::TEXT), (&user, Type::TEXT)])
            .await
    }

    /// Purchases whose entries in the wallet do not add up to what was booked.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn unbalanced(&self) -> Result<Vec<Unbalanced>, LedgerError> {
        let mut found = Vec::new();
        for statement in [
            "select crm_events.unbalanced_entries($1, $2)::text",
            "select crm_events.unbalanced_awards($1, $2)::text",
        ] {
            let mut after: Option<String> = None;
            loop {
                let parameters = [(&after as _, Type::TEXT), (&COMPARED as _, Type::INT4)];
                let pages: Vec<Compared> = self.objects(statement, &parameters).await?;
                after = None;
                for page in pages {
                    found.extend(page.unbalanced);
                    after = page.next;
                }
                if after.is_none() {
                    break;
                }
            }
        }
        found.sort_by(|one: &Unbalanced, other| one.purchase_id.cmp(&other.purchase_id));
        Ok(found)
    }

    /// One JSON object a row, as a query writes them.
    ///
    /// # Errors
    /// See [`LedgerError`]; or an object is not what is asked for.
    async fn objects<T: serde::de::DeserializeOwned>(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<T>, LedgerError> {
        let rows = self.client.query(statement, parameters).await?;
        let read = |row| {
            let text: String = field(row, 0)?;
            serde_json::from_str(&text)
                .map_err(|error| LedgerError::Unknown(format!("an answer that is not understood: {error}")))
        };
        rows.iter().map(read).collect()
    }
}

const STATE: &str = "select jsonb_build_object('effect_key', effect.effect_key, 'kind', effect.kind, \
    'source_table', effect.source_table, 'source_id', effect.source_id, 'merchant_id', effect.merchant_id, \
    'user_id', effect.user_id, 'state', effect.state, 'basis', effect.basis, 'target', effect.target, \
    'booked', effect.booked, 'program_rev', effect.program_rev, 'refund_policy', effect.refund_policy, \
    'due_at', crm_events.rfc3339(effect.due_at), 'settled_at', crm_events.rfc3339(effect.settled_at), \
    'stale_at', crm_events.rfc3339(effect.stale_at), 'dead_reason', effect.dead_reason, \
    'missed_since', crm_events.rfc3339(effect.missed_since), 'heals', effect.heals, \
    'healed_at', crm_events.rfc3339(effect.healed_at), 'next_attempt_at', crm_events.rfc3339(effect.next_attempt_at), \
    'updated_at', crm_events.rfc3339(effect.updated_at), \
    'overdue_ms', case when effect.state = 'pending' and coalesce(effect.due_at, effect.updated_at) <= crm_events.clock() \
        then crm_events.ms(crm_events.clock()) - crm_events.ms(coalesce(effect.due_at, effect.updated_at)) end, \
    'detail', effect.detail)::text from crm_events.effects effect";

fn records(effects: &[&Effect]) -> Result<String, LedgerError> {
    let facts: Vec<Fact<'_>> = effects.iter().map(|effect| effect.fact()).collect();
    let unwritable = |error| LedgerError::Unknown(format!("facts cannot be written: {error}"));
    serde_json::to_string(&facts).map_err(unwritable)
}

fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(rows: &[Row]) -> Result<T, LedgerError> {
    match rows {
        [row] => field(row, 0),
        _ => Err(LedgerError::Unknown(format!("{} rows instead of one", rows.len()))),
    }
}

fn ledger_row(row: &Row) -> Result<LedgerRow, LedgerError> {
    Ok(LedgerRow {
        id: field(row, 0)?,
        image: field(row, 1)?,
        read_at_ms: field(row, 2)?,
    })
}
