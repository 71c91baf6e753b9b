//! A look at the source of the changes, for somebody who stands by: takes an address, gives what the catalogues say about
//! replication, roles and schema.
//!
//! It works with the rights of the worker, through a pooler, on PostgreSQL 13 and later. It changes nothing and judges
//! nothing. What a role may not see is told as such, beside what it may.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client as Session, Row};

use super::failure::Failure;
use super::migrations::{self, MigrationError};
use super::{Client, DatabaseUrl, LedgerError};
use crate::clock::Clock;

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub server: Server,
    pub slots: Look<Vec<Slot>>,
    pub publications: Look<Vec<Publication>>,
    /// Of the captured tables that are there.
    pub tables: Look<Vec<Table>>,
    pub transactions: Look<Transactions>,
    /// Seconds since the connector's last beat; `None`: it never beat.
    pub heartbeat: Look<Option<i64>>,
    pub roles: Look<Roles>,
    /// Bytes of WAL a second, on average.
    pub wal_rate: Look<f64>,
    pub schema: Schema,
    /// What `LEDGER_EFFECTIVE_FROM` is stored as, in microseconds.
    pub cut_off: Look<Option<i64>>,
}

/// The answer to one question, or in words why there is none.
pub type Look<T> = Result<T, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub user: String,
    pub database: String,
    /// How far its clock is before ours, and how long the question took.
    pub ahead_ms: i64,
    pub took_ms: i64,
    pub wal_level: String,
    /// `None`: without limit.
    pub slot_keep_bytes: Option<i64>,
    pub max_slots: i64,
    /// Of every kind: replicas take some as well.
    pub slots: i64,
}

/// A logical replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub database: String,
    pub active: bool,
    /// reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// How much more may be written until it is lost.
    pub safe_bytes: Option<i64>,
    /// `None`: it holds nothing any more.
    pub restart_lsn: Option<i64>,
    pub confirmed_lsn: Option<i64>,
    pub retained_bytes: Option<i64>,
    pub invalidated: Option<String>,
    pub inactive_since: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub name: String,
    /// Which of insert, update, delete it leaves out.
    pub lacks: Vec<String>,
    /// Of the captured tables.
    pub tables: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    /// d, n, f or i, as the catalogue has it.
    pub identity: String,
    pub has_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transactions {
    /// Whether those of others show as well.
    pub all: bool,
    /// The longest, the longest first.
    pub open: Vec<Open>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Of the session, or the name of a prepared transaction.
    pub ends_with: String,
    pub who: String,
    pub seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roles {
    /// Those of ours that the server knows.
    pub known: Vec<String>,
    /// Functions of the worker that this login may not call. `None`: there are none yet.
    pub may_not_call: Option<Vec<String>>,
    /// Those that were not granted to `crm_worker` itself.
    pub not_granted: Vec<String>,
    /// Those that may replicate.
    pub replicate: Vec<Login>,
}

/// What a login may read of the captured tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    pub reads_all: bool,
    /// Whether row security hides rows from it.
    pub is_kept_from_rows: bool,
}

/// How the schema stands to this binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// What is not applied yet.
    Pending(Vec<&'static str>),
    /// A file was changed after it was applied.
    Changed(String),
    /// A later binary has migrated it.
    Newer(String),
    Unknown(String),
}

/// Tables that the publication must have.
pub const CAPTURED: [&str; 8] = [
    "purchase_ledger",
    "wallet_ledger",
    "referral_ledger",
    "mission_claims",
    "codes",
    "form_submissions",
    "dbz_heartbeat",
    "dbz_signal",
];

/// Functions that are granted to `crm_worker`: the worker calls them, or `explain` and `reconcile` do.
pub const CALLED: [&str; 27] = [
    "announced",
    "announcement_rejected",
    "clock",
    "compare_effects",
    "drop_lease",
    "effective_from",
    "evaluate_tiers",
    "found_settled",
    "ledger_rows",
    "ledger_rows_of",
    "lift_dead",
    "mark_dead",
    "member_state",
    "ms",
    "not_healed",
    "plan_heals",
    "programs_documents",
    "recent_rows",
    "record_progress",
    "rfc3339",
    "still_dead",
    "suspect_effects",
    "take_lease",
    "turn_page",
    "unbalanced_awards",
    "unbalanced_entries",
    "unsent_announcements",
];

const LATE: &str = "no answer in time";

const SERVER: &str = "\
    select current_user::text, current_database()::text, (extract(epoch from clock_timestamp()) * 1000)::int8, \
      current_setting('wal_level'), (select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'), \
      current_setting('max_replication_slots')::int8, (select count(*) from pg_replication_slots)";

/// What later versions know besides is read through JSON, so that one question fits them all.
const SLOTS: &str = "\
    select s.slot_name::text, s.database::text, s.active, to_jsonb(s)->>'wal_status', (to_jsonb(s)->>'safe_wal_size')::int8, \
      (s.restart_lsn - '0/0'::pg_lsn)::int8, (s.confirmed_flush_lsn - '0/0'::pg_lsn)::int8, \
      pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, s.restart_lsn)::int8, \
      to_jsonb(s)->>'invalidation_reason', to_jsonb(s)->>'inactive_since' \
    from pg_replication_slots s where s.slot_type = 'logical' order by 1";

const PUBLICATIONS: &str = "\
    select p.pubname::text, p.pubinsert, p.pubupdate, p.pubdelete, \
      array(select t.tablename::text from pg_publication_tables t \
            where t.pubname = p.pubname and t.schemaname = 'public' and t.tablename::text = any($1)) \
    from pg_publication p order by 1";

const TABLES: &str = "\
    select c.relname::text, c.relreplident::text, \
      exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) \
    from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname::text = any($1) order by 1";

/// A session of somebody else hides its transaction from those who may not see statistics.
const TRANSACTIONS: &str = "\
    select a.pid::text, coalesce(a.usename::text, '?') || ' ' || coalesce(nullif(a.application_name, ''), a.backend_type), \
      extract(epoch from clock_timestamp() - a.xact_start)::int8 \
    from pg_stat_activity a where a.xact_start is not null and a.backend_type = 'client backend' and a.pid <> pg_backend_pid() \
    union all \
    select quote_literal(p.gid), p.owner::text || ' prepared', extract(epoch from clock_timestamp() - p.prepared)::int8 \
    from pg_prepared_xacts p \
    order by 3 desc limit 5";

const SEES_ALL: &str = "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')";

const HEARTBEAT: &str = "select extract(epoch from clock_timestamp() - max(beat_at))::int8 from public.dbz_heartbeat";

const OUR_ROLES: &str =
    "select rolname::text from pg_roles where rolname in ('crm_worker', 'crm_workflows', 'crm_connector') order by 1";

const CALLS: &str = "\
    select p.proname::text, has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute'), \
      coalesce(has_function_privilege(to_regrole('crm_worker')::oid, p.oid, 'execute'), false) \
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
    where n.nspname = 'crm_events' and p.proname::text = any($1) order by 1";

/// An owner is not kept from rows, unless row security is forced.
const REPLICATE: &str = "\
    select r.rolname::text, coalesce(bool_and(has_table_privilege(r.oid, c.oid, 'select')), false), \
      coalesce(bool_or(c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))), false) \
        and not (r.rolsuper or r.rolbypassrls) \
    from pg_roles r left join (pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public') \
      on c.relkind in ('r', 'p') and c.relname::text = any($1) \
    where r.rolcanlogin and (r.rolreplication or r.rolsuper) \
    group by r.oid, r.rolname, r.rolsuper, r.rolbypassrls order by 1";

/// Since PostgreSQL 14.
const WAL_RATE: &str =
    "select (wal_bytes / greatest(extract(epoch from clock_timestamp() - stats_reset), 1))::float8 from pg_stat_wal";

const CUT_OFF: &str = "select (extract(epoch from crm_events.effective_from(null::timestamptz)) * 1000000)::int8";

/// Asks everything at once, over one connection of its own. What is not answered when the patience ends is told as such.
///
/// # Errors
/// The database is away or refuses us.
pub async fn survey(url: &DatabaseUrl, clock: &dyn Clock, patience: Duration) -> Result<Source, LedgerError> {
    let until = Instant::now() + patience;
    let beginning = async {
        let session = Client::new(url)?.connect_alone().await?;
        let server = server(&session, clock).await?;
        Ok((session, server))
    };
    let late = |_elapsed| LedgerError::Unavailable(LATE.to_owned());
    let (session, server) = timeout_at(until, beginning).await.map_err(late)??;
    let ask = |statement, names| ask(&session, statement, names, until);
    // Sent one behind the other, without waiting for each other. Nobody locks the catalogues for long.
    let plain = [SLOTS, TRANSACTIONS, SEES_ALL, OUR_ROLES, WAL_RATE];
    let plain = join_all(plain.map(|statement| ask(statement, &[])));
    let of_names = [
        (PUBLICATIONS, &CAPTURED[..]),
        (TABLES, &CAPTURED),
        (REPLICATE, &CAPTURED),
        (CALLS, &CALLED),
    ];
    let of_names = join_all(of_names.map(|(statement, names)| ask(statement, names)));
    // Tables that somebody may have locked come last: whoever waits for a lock holds up those behind him.
    let of_tables = async {
        let pending = timeout_at(until, migrations::pending(&session)).await;
        (pending, ask(CUT_OFF, &[]).await, ask(HEARTBEAT, &[]).await)
    };
    let (plain, of_names, (pending, cut_off, heartbeat)) = futures::join!(plain, of_names, of_tables);
    let [slots, transactions, sees_all, our_roles, wal_rate] = in_order(plain);
    let [publications, captured, replicate, calls] = in_order(of_names);
    Ok(Source {
        server,
        slots: slots.and_then(|rows| rows.iter().map(slot).collect()),
        publications: publications.and_then(|rows| rows.iter().map(publication).collect()),
        tables: captured.and_then(|rows| {
            let table = |row: &Row| {
                Ok(Table {
                    name: column(row, 0)?,
                    identity: column(row, 1)?,
                    has_key: column(row, 2)?,
                })
            };
            rows.iter().map(table).collect()
        }),
        transactions: open_transactions(sees_all, transactions),
        heartbeat: first(heartbeat),
        roles: roles(our_roles, calls, replicate),
        wal_rate: first(wal_rate),
        schema: match pending {
            Ok(Ok(pending)) => Schema::Pending(pending.iter().map(|migration| migration.name).collect()),
            Ok(Err(changed @ MigrationError::Changed(_))) => Schema::Changed(changed.to_string()),
            Ok(Err(newer @ MigrationError::Unknown(_))) => Schema::Newer(newer.to_string()),
            Ok(Err(error)) => Schema::Unknown(error.to_string()),
            Err(_elapsed) => Schema::Unknown(LATE.to_owned()),
        },
        cut_off: first(cut_off),
    })
}

async fn server(session: &Session, clock: &dyn Clock) -> Result<Server, LedgerError> {
    let asked_ms = clock.now_ms();
    let rows = session.query_typed(SERVER, &[]).await;
    let answered_ms = clock.now_ms();
    let rows = rows.map_err(|error| Failure::of_statement(&error).error)?;
    let unknown = |text: String| LedgerError::Unknown(text);
    let row = rows.first().ok_or_else(|| unknown("no row".to_owned()))?;
    let now_ms: i64 = column(row, 2).map_err(unknown)?;
    // In megabytes; negative is without limit. PostgreSQL 12 does not know it.
    let keep_mb: Option<i64> = column(row, 4).map_err(unknown)?;
    Ok(Server {
        user: column(row, 0).map_err(unknown)?,
        database: column(row, 1).map_err(unknown)?,
        ahead_ms: now_ms - (asked_ms + (answered_ms - asked_ms) / 2),
        took_ms: answered_ms - asked_ms,
        wal_level: column(row, 3).map_err(unknown)?,
        slot_keep_bytes: keep_mb.filter(|mb| *mb >= 0).map(|mb| mb.saturating_mul(1 << 20)),
        max_slots: column(row, 5).map_err(unknown)?,
        slots: column(row, 6).map_err(unknown)?,
    })
}

/// `names` are the statement's only parameter, where it has one.
async fn ask(session: &Session, statement: &str, names: &[&str], until: Instant) -> Look<Vec<Row>> {
    let parameter = [(&names as _, Type::TEXT_ARRAY)];
    let parameters = if names.is_empty() { &[] } else { &parameter[..] };
    let rows = timeout_at(until, session.query_typed(statement, parameters)).await;
    let rows = rows.map_err(|_elapsed| LATE.to_owned())?;
    rows.map_err(|error| Failure::of_statement(&error).error.to_string())
}

/// As many as were asked for.
fn in_order<const N: usize>(answers: Vec<Look<Vec<Row>>>) -> [Look<Vec<Row>>; N] {
    let missing = |_| std::array::from_fn(|_| Err("not asked".to_owned()));
    answers.try_into().unwrap_or_else(missing)
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Look<T> {
    row.try_get(index).map_err(|error| format!("column {index}: {error}"))
}

fn first<T: for<'a> FromSql<'a>>(rows: Look<Vec<Row>>) -> Look<T> {
    let rows = rows?;
    column(rows.first().ok_or_else(|| "no row".to_owned())?, 0)
}

fn slot(row: &Row) -> Look<Slot> {
    Ok(Slot {
        name: column(row, 0)?,
        database: column(row, 1)?,
        active: column(row, 2)?,
        wal_status: column(row, 3)?,
        safe_bytes: column(row, 4)?,
        restart_lsn: column(row, 5)?,
        confirmed_lsn: column(row, 6)?,
        retained_bytes: column(row, 7)?,
        invalidated: column(row, 8)?,
        inactive_since: column(row, 9)?,
    })
}

fn publication(row: &Row) -> Look<Publication> {
    let mut lacks = Vec::new();
    for (index, operation) in [(1, "insert"), (2, "update"), (3, "delete")] {
        if !column::<bool>(row, index)? {
            lacks.push(operation.to_owned());
        }
    }
    Ok(Publication {
        name: column(row, 0)?,
        lacks,
        tables: column(row, 4)?,
    })
}

fn open_transactions(sees_all: Look<Vec<Row>>, rows: Look<Vec<Row>>) -> Look<Transactions> {
    let open = |row: &Row| {
        Ok(Open {
            ends_with: column(row, 0)?,
            who: column(row, 1)?,
            seconds: column(row, 2)?,
        })
    };
    Ok(Transactions {
        all: first(sees_all)?,
        open: rows?.iter().map(open).collect::<Look<_>>()?,
    })
}

fn roles(known: Look<Vec<Row>>, calls: Look<Vec<Row>>, replicate: Look<Vec<Row>>) -> Look<Roles> {
    let calls = calls?;
    // Those of which this column says no.
    let denied = |index| -> Look<Vec<String>> {
        let denied = calls
            .iter()
            .map(|row| Ok((!column::<bool>(row, index)?).then_some(column(row, 0)?)));
        denied.filter_map(Result::transpose).collect()
    };
    Ok(Roles {
        known: known?.iter().map(|row| column(row, 0)).collect::<Look<_>>()?,
        may_not_call: (!calls.is_empty()).then(|| denied(1)).transpose()?,
        not_granted: denied(2)?,
        replicate: replicate?.iter().map(login).collect::<Look<_>>()?,
    })
}

fn login(row: &Row) -> Look<Login> {
    Ok(Login {
        name: column(row, 0)?,
        reads_all: column(row, 1)?,
        is_kept_from_rows: column(row, 2)?,
    })
}
