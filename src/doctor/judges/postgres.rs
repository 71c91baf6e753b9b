//! The source: schema, roles, publication, WAL, tables, transactions, beat.

use jiff::Timestamp;

use crate::doctor::catalogue::{
    Area, HEARTBEAT_STALE, POSTGRES_AUTH, POSTGRES_UNREACHABLE, PUBLICATION_MISSING, PUBLICATION_TABLE_MISSING,
    ROLE_CONNECTOR, ROLE_MISSING, SCHEMA_BEHIND, SCHEMA_CHANGED, SCHEMA_CUT_OFF, TABLE_REPLICA_IDENTITY,
    TRANSACTION_LONG, WAL_LEVEL, WAL_SLOT_KEEP,
};
use crate::doctor::finding::{Finding, Verdicts};
use crate::postgres::LedgerError;
use crate::postgres::survey::{CAPTURED, Publication, Roles, Schema, Server, Source, Table, Transactions};

use super::slot::{self, Names};
use super::{bytes, span};

/// The old row is compared where a status changes.
const WHOLE_OLD_ROWS: [&str; 4] = ["purchase_ledger", "referral_ledger", "mission_claims", "codes"];
const OUR_ROLES: [&str; 3] = ["crm_worker", "crm_workflows", "crm_connector"];
/// The connector beats every ten seconds; a restart of it takes a few beats.
const STALE_S: i64 = 120;
/// A transaction holds back WAL, and a new slot waits for it.
const LONG_S: i64 = 15 * 60;
const TOO_LONG_S: i64 = 3600;
/// Supabase had as little as this once: hours of a busy ledger.
const LITTLE_BYTES: i64 = 1 << 30;

/// What the database is compared with.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub names: &'a Names,
    /// Where the connector says that it is; or why nobody knows.
    pub read: &'a Result<Option<i64>, String>,
    pub effective_from: Option<Timestamp>,
}

#[must_use]
pub fn judge(seen: &Result<Source, LedgerError>, wanted: &Wanted<'_>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let source = match seen {
        Ok(source) => source,
        Err(error) => {
            let (finding, first) = of_error(error);
            verdicts.push(finding);
            verdicts.rest_after(&[Area::Postgres], first);
            return verdicts;
        }
    };
    let server = &source.server;
    verdicts.push(Finding::ok(
        POSTGRES_UNREACHABLE,
        format!("database {} answers", server.database),
    ));
    verdicts.push(Finding::ok(POSTGRES_AUTH, format!("{} is let in", server.user)));
    schema(&mut verdicts, source, wanted.effective_from);
    let applied = matches!(&source.schema, Schema::Pending(pending) if pending.is_empty());
    of_roles(&mut verdicts, &source.roles, server, wanted.names, applied);
    wal(&mut verdicts, server);
    publication(&mut verdicts, &source.publications, wanted.names);
    match &source.slots {
        Ok(slots) => verdicts.append(slot::judge(slots, server, wanted.names, wanted.read)),
        Err(why) => verdicts.push(Finding::unknown(crate::doctor::catalogue::SLOT_MISSING, why)),
    }
    verdicts.push(identities(&source.tables));
    verdicts.push(transactions(&source.transactions, &server.user));
    verdicts.push(beat(&source.heartbeat));
    verdicts
}

fn of_error(error: &LedgerError) -> (Finding, crate::doctor::catalogue::Id) {
    let saw = error.to_string();
    match error {
        LedgerError::Configuration(_) => {
            let fix = "Correct DATABASE_URL: user, password, name of the database, sslrootcert (docs/runbook.md#the-database)";
            let finding = Finding::failed(POSTGRES_AUTH, "the database of DATABASE_URL does not let us in");
            (finding.saw(saw).fix(fix), POSTGRES_AUTH)
        }
        LedgerError::Unavailable(_) | LedgerError::TooLong(_) | LedgerError::Rejected(_) | LedgerError::Unknown(_) => {
            let fix = "Check host and port of DATABASE_URL, the network, and whether the server runs: `pg_isready -d \
                       \"$DATABASE_URL\"`";
            let finding = Finding::failed(POSTGRES_UNREACHABLE, "the database of DATABASE_URL does not answer");
            (finding.saw(saw).fix(fix), POSTGRES_UNREACHABLE)
        }
    }
}

fn schema(verdicts: &mut Verdicts, source: &Source, effective_from: Option<Timestamp>) {
    match &source.schema {
        Schema::Pending(pending) if pending.is_empty() => {
            verdicts.push(Finding::ok(SCHEMA_BEHIND, "every migration is applied"));
            verdicts.push(Finding::ok(SCHEMA_CHANGED, "the schema is that of this binary"));
        }
        Schema::Pending(pending) => {
            let finding = Finding::failed(SCHEMA_BEHIND, format!("{} migrations are not applied", pending.len()));
            verdicts.push(
                finding
                    .saw(pending.join(", "))
                    .fix("DATABASE_URL='<as the owner of the tables>' crm-event-processors migrate"),
            );
            verdicts.push(Finding::ok(SCHEMA_CHANGED, "what is applied is that of this binary"));
        }
        Schema::Other(why) => {
            let finding = Finding::failed(SCHEMA_CHANGED, "the schema is not that of this binary").saw(why);
            verdicts.push(finding.fix("Run the binary that the database was migrated with, or a newer one"));
            verdicts.push(Finding::unknown(
                SCHEMA_BEHIND,
                format!("{} first", SCHEMA_CHANGED.name()),
            ));
        }
        Schema::Unknown(why) => {
            for id in [SCHEMA_BEHIND, SCHEMA_CHANGED] {
                verdicts.push(Finding::unknown(id, why).fix(format!("grant crm_worker to \"{}\"", source.server.user)));
            }
        }
    }
    verdicts.push(cut_off(source, effective_from));
}

fn cut_off(source: &Source, given: Option<Timestamp>) -> Finding {
    let stored = match &source.cut_off {
        Ok(stored) => stored.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        Err(why) => return Finding::unknown(SCHEMA_CUT_OFF, why),
    };
    match (given, stored) {
        (None, None) => Finding::failed(SCHEMA_CUT_OFF, "nothing says from which time on ledgers are ours")
            .fix("LEDGER_EFFECTIVE_FROM=<time>, e.g. 1970-01-01T00:00:00Z for everything; the first start stores it"),
        (Some(given), None) => Finding::ok(SCHEMA_CUT_OFF, format!("the first start stores {given}")),
        // The database rounds to microseconds.
        (Some(given), Some(stored)) if given.duration_since(stored).abs().as_nanos() >= 1_000 => {
            let what = format!("LEDGER_EFFECTIVE_FROM is {given}, but {stored} is stored and stays in force");
            Finding::failed(SCHEMA_CUT_OFF, what).fix(format!("Remove the setting, or: LEDGER_EFFECTIVE_FROM={stored}"))
        }
        (_, Some(stored)) => Finding::ok(SCHEMA_CUT_OFF, format!("rows count from {stored} on")),
    }
}

fn of_roles(verdicts: &mut Verdicts, roles: &Result<Roles, String>, server: &Server, names: &Names, applied: bool) {
    let roles = match roles {
        Ok(roles) => roles,
        Err(why) => {
            verdicts.push(Finding::unknown(ROLE_MISSING, why));
            verdicts.push(Finding::unknown(ROLE_CONNECTOR, why));
            return;
        }
    };
    let user = &server.user;
    let absent: Vec<&str> = OUR_ROLES
        .into_iter()
        .filter(|role| !roles.known.iter().any(|known| known == role))
        .collect();
    verdicts.push(match &roles.may_not_call {
        _ if applied && !absent.is_empty() => {
            // Roles belong to the server: a dump that was restored elsewhere brings none.
            let commands: Vec<String> = absent.iter().map(|role| format!("create role {role} nologin;")).collect();
            Finding::failed(ROLE_MISSING, format!("roles are missing: {}", absent.join(", "))).fix(format!(
                "{}\nthen, as the owner of the tables, run schemas/postgres/0013_roles.sql, 0014_reconcile.sql, 0015_lift.sql and \
                 0016_beat.sql for their grants",
                commands.join(" ")
            ))
        }
        None => Finding::unknown(ROLE_MISSING, format!("{} first", SCHEMA_BEHIND.name())),
        Some(denied) if denied.is_empty() => Finding::ok(ROLE_MISSING, format!("{user} may call what the worker calls")),
        Some(denied) => Finding::failed(ROLE_MISSING, format!("{user} may not call what the worker calls"))
            .saw(denied.join(", "))
            .fix(format!("grant crm_worker to \"{user}\";")),
    });
    verdicts.push(match &names.user {
        None => Finding::unknown(
            ROLE_CONNECTOR,
            "the connector's configuration, which names its login, is not known: set CONNECT_URL",
        ),
        Some(login) => match roles.replicate.iter().find(|(known, _)| known == login) {
            Some((_, true)) => Finding::ok(
                ROLE_CONNECTOR,
                format!("{login} may replicate, and read every captured table"),
            ),
            Some((_, false)) => Finding::warning(
                ROLE_CONNECTOR,
                format!("{login} may not read every captured table: a snapshot would fail"),
            )
            .fix(format!("grant crm_connector to \"{login}\";")),
            // Hosted servers have other ways to allow it, and a connector that runs is proof enough.
            None => Finding::warning(ROLE_CONNECTOR, format!("{login} has no attribute REPLICATION")).fix(format!(
                "alter role \"{login}\" replication; -- as a superuser, or as your provider has it"
            )),
        },
    });
}

fn wal(verdicts: &mut Verdicts, server: &Server) {
    verdicts.push(if server.wal_level == "logical" {
        Finding::ok(WAL_LEVEL, "wal_level is logical")
    } else {
        Finding::failed(WAL_LEVEL, "the server writes no logical WAL: nothing can be captured")
            .saw(format!("wal_level is {}", server.wal_level))
            .fix("alter system set wal_level = 'logical'; -- then restart the server")
    });
    let fix = "alter system set max_slot_wal_keep_size = '4GB'; select pg_reload_conf();";
    verdicts.push(match server.slot_keep_bytes {
        None => Finding::warning(
            WAL_SLOT_KEEP,
            "a connector that stays away fills the disk: slots keep WAL without limit",
        )
        .saw("max_slot_wal_keep_size is -1")
        .fix(fix),
        Some(limit) if limit < LITTLE_BYTES => {
            Finding::warning(WAL_SLOT_KEEP, "a connector that stays away for a while loses its slot")
                .saw(format!("max_slot_wal_keep_size is {}", bytes(limit)))
                .fix(fix)
        }
        Some(limit) => Finding::ok(WAL_SLOT_KEEP, format!("a slot may hold back {}", bytes(limit))),
    });
}

fn publication(verdicts: &mut Verdicts, publications: &Result<Vec<Publication>, String>, names: &Names) {
    let name = &names.publication;
    let all = CAPTURED.map(|table| format!("public.{table}"));
    let publications = match publications {
        Ok(publications) => publications,
        Err(why) => {
            verdicts.push(Finding::unknown(PUBLICATION_MISSING, why));
            verdicts.push(Finding::unknown(PUBLICATION_TABLE_MISSING, why));
            return;
        }
    };
    let Some(found) = publications.iter().find(|publication| publication.name == *name) else {
        let finding = Finding::failed(PUBLICATION_MISSING, format!("there is no publication {name}"));
        verdicts.push(finding.fix(format!(
            "create publication {name} for table {};\nthen restart the connector: its task has failed",
            all.join(", ")
        )));
        let why = format!("{} first", PUBLICATION_MISSING.name());
        verdicts.push(Finding::unknown(PUBLICATION_TABLE_MISSING, why));
        return;
    };
    verdicts.push(if found.lacks.is_empty() {
        Finding::ok(PUBLICATION_MISSING, format!("publication {name} is there"))
    } else {
        let finding = Finding::failed(
            PUBLICATION_MISSING,
            format!("publication {name} leaves out what happens to rows"),
        );
        finding
            .saw(format!("it publishes no {}", found.lacks.join(", no ")))
            .fix(format!(
                "alter publication {name} set (publish = 'insert, update, delete, truncate');"
            ))
    });
    let lacking: Vec<String> = CAPTURED
        .into_iter()
        .filter(|table| !found.tables.iter().any(|known| known == table))
        .map(|table| format!("public.{table}"))
        .collect();
    verdicts.push(if lacking.is_empty() {
        Finding::ok(PUBLICATION_TABLE_MISSING, format!("{} tables are published", found.tables.len()))
    } else {
        let tables = lacking.join(", ");
        let what = format!("{tables}: not in publication {name}; a snapshot has their rows, and no change follows, without a word");
        let asked = lacking.iter().map(|table| format!("\"{table}\"")).collect::<Vec<_>>().join(", ");
        Finding::failed(PUBLICATION_TABLE_MISSING, what).fix(format!(
            "alter publication {name} add table {tables};\nand for what happened meanwhile, as the owner of the tables:\ninsert into \
             public.dbz_signal values ('repair-1', 'execute-snapshot', '{{\"data-collections\": [{asked}], \"type\": \"incremental\"}}');"
        ))
    });
}

fn identities(tables: &Result<Vec<Table>, String>) -> Finding {
    let tables = match tables {
        Ok(tables) => tables,
        Err(why) => return Finding::unknown(TABLE_REPLICA_IDENTITY, why),
    };
    let whole = |table: &&&str| {
        tables
            .iter()
            .any(|known| known.name == **table && known.identity == "f")
    };
    let (full, lacking): (Vec<&str>, Vec<&str>) = WHOLE_OLD_ROWS.iter().partition(|table| whole(table));
    if lacking.is_empty() {
        return Finding::ok(
            TABLE_REPLICA_IDENTITY,
            format!("{} have REPLICA IDENTITY FULL", full.join(", ")),
        );
    }
    let commands: Vec<String> = lacking
        .iter()
        .map(|table| format!("alter table public.{table} replica identity full;"))
        .collect();
    let what = format!("updates of {} do not carry the whole old row", lacking.join(", "));
    Finding::failed(TABLE_REPLICA_IDENTITY, what).fix(commands.join("\n"))
}

fn transactions(transactions: &Result<Transactions, String>, user: &str) -> Finding {
    let Transactions { all, open } = match transactions {
        Ok(transactions) => transactions,
        Err(why) => return Finding::unknown(TRANSACTION_LONG, why),
    };
    let long: Vec<_> = open.iter().filter(|one| one.seconds >= LONG_S).collect();
    let Some(longest) = long.first() else {
        return match all {
            true => Finding::ok(TRANSACTION_LONG, "no transaction is open for long"),
            // Nothing but our own sessions and what is prepared shows.
            false => Finding::unknown(TRANSACTION_LONG, format!("{user} does not see the sessions of others"))
                .fix(format!("grant pg_read_all_stats to \"{user}\";")),
        };
    };
    let said: Vec<String> = long
        .iter()
        .map(|one| format!("{}: {} for {}", one.ends_with, one.who, span(one.seconds)))
        .collect();
    let fix = match longest.ends_with.starts_with('\'') {
        true => format!("rollback prepared {}; -- after a look at what it is", longest.ends_with),
        false => format!(
            "select pg_terminate_backend({}); -- after a look at what it is",
            longest.ends_with
        ),
    };
    let what = format!(
        "a transaction is open for {}: it holds back WAL, and a new slot waits for it",
        span(longest.seconds)
    );
    Finding::graded(TRANSACTION_LONG, longest.seconds >= TOO_LONG_S, what)
        .saw(said.join("; "))
        .fix(fix)
}

fn beat(heartbeat: &Result<Option<i64>, String>) -> Finding {
    let look = "Look at the connector: `crm-event-processors connectors status`; does it have heartbeat.interval.ms and \
                heartbeat.action.query? A snapshot that takes long beats no more until it is done";
    match heartbeat {
        Err(why) => Finding::unknown(HEARTBEAT_STALE, why),
        Ok(None) => Finding::warning(
            HEARTBEAT_STALE,
            "the connector never beat: a slot of a database at rest holds back WAL for ever",
        )
        .saw("public.dbz_heartbeat is empty")
        .fix(look),
        Ok(Some(seconds)) if *seconds > STALE_S => Finding::failed(
            HEARTBEAT_STALE,
            format!("the connector beat {} ago, and should every 10 s", span(*seconds)),
        )
        .fix(look),
        Ok(Some(seconds)) => Finding::ok(
            HEARTBEAT_STALE,
            format!("the connector beat {} ago", span((*seconds).max(0))),
        ),
    }
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
