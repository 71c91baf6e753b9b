//! The files of `schemas/postgres`: takes a database, gives one that has them all, or says why not.
//!
//! Forward only: a file that was applied never changes and is never taken back. Each is one transaction with the note that
//! it was applied, under a lock, so that two who migrate at once apply it once. It works through a transaction-mode pooler.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::LedgerError;
use super::failure::Failure;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The file's name without its end.
    pub name: &'static str,
    sql: &'static str,
}

/// What seeding found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Seeded {
    pub settled: i64,
    pub open: i64,
    pub open_purchases: Vec<OpenPurchase>,
}

/// A purchase older than the cut-off that nothing was booked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OpenPurchase {
    pub purchase_id: String,
    pub merchant_id: String,
    pub status: String,
    pub final_amount: String,
    pub refunded_amount: String,
    pub created_at: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "migration {0} was changed after it was applied to this database: take the file as it was, and put the change into a new \
         one"
    )]
    Changed(&'static str),
    #[error("this database has migration {0}, which is newer than this binary: use the newer binary")]
    Unknown(String),
    #[error("migration {name}: {message}")]
    Failed {
        name: &'static str,
        message: String,
        kind: LedgerError,
    },
    #[error("the cut-off of this database is {stored} and stays so: seed before that time")]
    OtherCutOff { stored: String },
    #[error(transparent)]
    Database(#[from] LedgerError),
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        [$(Migration {
            name: $name,
            sql: include_str!(concat!("../../schemas/postgres/", $name, ".sql")),
        }),*]
    };
}

/// All, in the order in which they are applied.
pub const MIGRATIONS: [Migration; 16] = migrations![
    "0001_ledgers",
    "0002_publication",
    "0003_programs",
    "0004_effects",
    "0005_basis",
    "0006_awards",
    "0007_grants",
    "0008_tiers",
    "0009_missions",
    "0010_worker",
    "0011_sweeper",
    "0012_cut_off",
    "0013_roles",
    "0014_reconcile",
    "0015_lift",
    "0016_beat",
];

/// Where it is noted what was applied; may be run again and again.
const NOTES: &str = include_str!("../../schemas/postgres/0000_migrations.sql");

/// Anything that nobody else locks.
const LOCK: i64 = 0x6372_6d5f_6d69_6772;

/// What this database lacks.
///
/// # Errors
/// A file that was applied was changed, or the database is newer than this binary.
pub async fn pending(client: &impl GenericClient) -> Result<Vec<&'static Migration>, MigrationError> {
    let noted = "select to_regclass('crm_events.migrations') is not null";
    let known: bool = one(client, noted).await?;
    let mut applied = Vec::new();
    if known {
        let notes = "select name, checksum from crm_events.migrations order by name";
        let rows = client.query_typed(notes, &[]).await.map_err(database)?;
        for row in rows {
            applied.push((
                row.try_get::<_, String>(0).map_err(database)?,
                row.try_get::<_, String>(1).map_err(database)?,
            ));
        }
    }
    let mut pending = Vec::new();
    for (migration, checksum) in MIGRATIONS.iter().zip(checksums(client).await?) {
        match applied.iter().find(|(name, _)| name == migration.name) {
            Some((_, noted)) if *noted != checksum => {
                return Err(MigrationError::Changed(migration.name));
            }
            Some(_) => {}
            None => pending.push(migration),
        }
    }
    let unknown = |(name, _): &(String, String)| MIGRATIONS.iter().all(|migration| migration.name != name);
    match applied.into_iter().find(unknown) {
        Some((name, _)) => Err(MigrationError::Unknown(name)),
        None => Ok(pending),
    }
}

/// Applies what is missing; gives the names of what it applied.
///
/// # Errors
/// As [`pending`], or a file fails: then those before it are applied, and nothing of it is.
pub async fn apply(client: &mut Client) -> Result<Vec<&'static str>, MigrationError> {
    // The database is looked at before anything is written to it.
    pending(client).await?;
    let transaction = begin(client).await?;
    transaction.batch_execute(NOTES).await.map_err(database)?;
    transaction.commit().await.map_err(database)?;
    let mut applied = Vec::new();
    for migration in &MIGRATIONS {
        let transaction = begin(client).await?;
        // Looked at again under the lock: somebody else may have applied it meanwhile.
        if pending(&transaction).await?.contains(&migration) {
            let failed = |error: tokio_postgres::Error| MigrationError::Failed {
                name: migration.name,
                message: explained(&error),
                kind: Failure::of_statement(&error).error,
            };
            transaction.batch_execute(migration.sql).await.map_err(failed)?;
            let note = "insert into crm_events.migrations (name, checksum) \
                        values ($1, encode(sha256(convert_to($2, 'UTF8')), 'hex'))";
            let values = [(&migration.name as _, Type::TEXT), (&migration.sql as _, Type::TEXT)];
            transaction.query_typed(note, &values).await.map_err(failed)?;
            applied.push(migration.name);
        }
        transaction.commit().await.map_err(database)?;
    }
    Ok(applied)
}

/// What the application hung on the wallet, and what would look for its tables in vain when points are booked: the functions
/// that book have a search path of their own, and it holds for what their insert calls. Code in C names what it uses.
const LOOSE: &str = "\
    with called as (\
        select 'trigger ' || quote_ident(hook.tgname) as place, hook.tgfoid as func \
        from pg_catalog.pg_trigger hook \
        where hook.tgrelid = to_regclass('public.wallet_ledger') and not hook.tgisinternal and hook.tgenabled in ('O', 'A') \
          and hook.tgtype::integer & 4 <> 0 \
        union all \
        select 'default of column ' || quote_ident(col.attname), uses.refobjid \
        from pg_catalog.pg_attrdef preset \
        join pg_catalog.pg_attribute col on col.attrelid = preset.adrelid and col.attnum = preset.adnum \
        join pg_catalog.pg_depend uses on uses.classid = 'pg_catalog.pg_attrdef'::regclass and uses.objid = preset.oid \
          and uses.refclassid = 'pg_catalog.pg_proc'::regclass \
        where preset.adrelid = to_regclass('public.wallet_ledger')) \
    select distinct called.place || ' calls ' || space.nspname || '.' || func.proname \
    from called \
    join pg_catalog.pg_proc func on func.oid = called.func \
    join pg_catalog.pg_namespace space on space.oid = func.pronamespace \
    join pg_catalog.pg_language lang on lang.oid = func.prolang \
    where space.nspname <> 'pg_catalog' and lang.lanname not in ('c', 'internal') \
      and not exists (select from unnest(func.proconfig) setting where setting like 'search_path=%') \
    order by 1";

/// The triggers and defaults of the wallet whose functions have no search path of their own.
///
/// # Errors
/// The database cannot be asked.
pub async fn loose_functions(client: &impl GenericClient) -> Result<Vec<String>, MigrationError> {
    let rows = client.query_typed(LOOSE, &[]).await.map_err(database)?;
    rows.iter().map(|row| row.try_get(0).map_err(database)).collect()
}

/// Writes an effect for every purchase older than the cut-off, and stores the cut-off, so that the two cannot disagree.
/// With `only_look` everything is found out and nothing kept.
///
/// # Errors
/// Another cut-off is stored.
pub async fn seed(client: &mut Client, cut_off: jiff::Timestamp, only_look: bool) -> Result<Seeded, MigrationError> {
    let cut_off = cut_off.to_string();
    let given = [(&cut_off as _, Type::TEXT)];
    let transaction = begin(client).await?;
    let statement = "select stored::text, stored = $1::text::timestamptz \
                     from crm_events.effective_from($1::text::timestamptz) stored";
    let row = transaction.query_typed(statement, &given).await.map_err(database)?;
    if let Some(row) = row.first()
        && !row.try_get::<_, bool>(1).map_err(database)?
    {
        let stored = row.try_get(0).map_err(database)?;
        return Err(MigrationError::OtherCutOff { stored });
    }
    let statement = "select settled, open from crm_events.seed_effects($1::text::timestamptz)";
    let rows = transaction.query_typed(statement, &given).await.map_err(database)?;
    let mut seeded = Seeded {
        settled: 0,
        open: 0,
        open_purchases: Vec::new(),
    };
    for row in rows {
        seeded.settled = row.try_get(0).map_err(database)?;
        seeded.open = row.try_get(1).map_err(database)?;
    }
    let statement = "select purchase_id, merchant_id, status, final_amount::text, refunded_amount::text, \
                     crm_events.rfc3339(created_at) from crm_events.open_purchases($1::text::timestamptz)";
    for row in transaction.query_typed(statement, &given).await.map_err(database)? {
        let text = |index: usize| row.try_get::<_, String>(index).map_err(database);
        seeded.open_purchases.push(OpenPurchase {
            purchase_id: text(0)?,
            merchant_id: text(1)?,
            status: text(2)?,
            final_amount: text(3)?,
            refunded_amount: text(4)?,
            created_at: text(5)?,
        });
    }
    if only_look {
        transaction.rollback().await.map_err(database)?;
    } else {
        transaction.commit().await.map_err(database)?;
    }
    Ok(seeded)
}

async fn begin(client: &mut Client) -> Result<Transaction<'_>, MigrationError> {
    let transaction = client.transaction().await.map_err(database)?;
    let locked = transaction
        .query_typed("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])
        .await;
    locked.map_err(database)?;
    Ok(transaction)
}

/// The database computes it: no hash of ours is needed, and `stack/postgres.sh` gets the same.
/// Of all, in their order, in one question: the server may be far away.
async fn checksums(client: &impl GenericClient) -> Result<Vec<String>, MigrationError> {
    let statement = "select encode(sha256(convert_to(file.sql, 'UTF8')), 'hex') \
                     from unnest($1::text[]) with ordinality file (sql, place) order by file.place";
    let files: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.sql).collect();
    let rows = client.query_typed(statement, &[(&files, Type::TEXT_ARRAY)]).await;
    let rows = rows.map_err(database)?;
    rows.iter().map(|row| row.try_get(0).map_err(database)).collect()
}

async fn one(client: &impl GenericClient, statement: &str) -> Result<bool, MigrationError> {
    let rows = client.query_typed(statement, &[]).await.map_err(database)?;
    let missing = || LedgerError::Unknown("no row".to_owned());
    rows.first().ok_or_else(missing)?.try_get(0).map_err(database)
}

/// What the server says about a file of ours, with its hint: there are no values of rows in it.
fn explained(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        return error.to_string();
    };
    let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{} {}{hint}", db.code().code(), db.message())
}

fn database(error: tokio_postgres::Error) -> MigrationError {
    MigrationError::Database(Failure::of_statement(&error).error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_applied_and_in_the_order_of_its_number() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/postgres");
        let files = std::fs::read_dir(folder).expect("the folder");
        let mut names: Vec<String> = files
            .map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"))
            .filter_map(|name| name.strip_suffix(".sql").map(str::to_owned))
            .filter(|name| name != "0000_migrations")
            .collect();
        names.sort();
        assert_eq!(names, MIGRATIONS.map(|migration| migration.name.to_owned()));
    }
}
