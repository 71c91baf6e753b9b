//! The source: schema, roles, publication, WAL, tables, transactions, beat.

use jiff::Timestamp;

use crate::doctor::catalogue::{
    Area, HEARTBEAT_STALE, Id, POSTGRES_AUTH, POSTGRES_UNREACHABLE, PUBLICATION_MISSING, PUBLICATION_TABLE_MISSING,
    ROLE_CONNECTOR, ROLE_MISSING, SCHEMA_BEHIND, SCHEMA_CHANGED, SCHEMA_CUT_OFF, SCHEMA_NEWER, SLOT_MISSING,
    TABLE_REPLICA_IDENTITY, TRANSACTION_LONG, WAL_LEVEL, WAL_SLOT_KEEP,
};
use crate::doctor::finding::{Finding, Verdicts};
use crate::postgres::LedgerError;
use crate::postgres::survey::{CAPTURED, Look, Publication, Roles, Schema, Server, Slot, Source, Table, Transactions};

use super::names::Names;
use super::slot::{self, keep_wal};
use super::{bytes, set_server, span};

/// The old row is compared where a status changes.
const WHOLE_OLD_ROWS: [&str; 4] = ["purchase_ledger", "referral_ledger", "mission_claims", "codes"];
const WORKER: &str = "crm_worker";
const OUR_ROLES: [&str; 3] = [WORKER, "crm_workflows", "crm_connector"];
/// A restart of the connector takes a few beats, and a minute or two.
const STALE_S: i64 = 120;
const STALE_BEATS: i64 = 4;
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
            verdicts.push(of_error(error));
            verdicts.rest_after(&[Area::Postgres], first_of(error));
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
    of_roles(&mut verdicts, &source.roles, server, wanted.names);
    wal(&mut verdicts, server, &source.slots);
    publication(&mut verdicts, &source.publications, wanted.names);
    match &source.slots {
        Ok(slots) => verdicts.append(slot::judge(slots, server, wanted.names, wanted.read)),
        Err(why) => verdicts.push(Finding::unknown(SLOT_MISSING, why)),
    }
    verdicts.push(identities(&source.tables));
    verdicts.push(transactions(&source.transactions, &server.user));
    verdicts.push(beat(&source.heartbeat, wanted.names.beat_s));
    verdicts
}

/// The finding that explains why nothing was seen.
#[must_use]
pub const fn first_of(error: &LedgerError) -> Id {
    match error {
        LedgerError::Configuration(_) => POSTGRES_AUTH,
        LedgerError::Unavailable(_) | LedgerError::TooLong(_) | LedgerError::Rejected(_) | LedgerError::Unknown(_) => {
            POSTGRES_UNREACHABLE
        }
    }
}

fn of_error(error: &LedgerError) -> Finding {
    let (id, saw) = (first_of(error), error.to_string());
    match error {
        LedgerError::Configuration(_) => {
            let fix = "Correct DATABASE_URL: user, password, name of the database, sslrootcert (docs/runbook.md#the-database)";
            let finding = Finding::failed(id, "the database of DATABASE_URL does not let us in");
            finding.saw(saw).fix(fix)
        }
        LedgerError::Unavailable(_) | LedgerError::TooLong(_) | LedgerError::Rejected(_) | LedgerError::Unknown(_) => {
            let fix = "Check host and port of DATABASE_URL, the network, and whether the server runs: `pg_isready -d \
                       \"$DATABASE_URL\"`";
            let finding = Finding::failed(id, "the database of DATABASE_URL does not answer");
            finding.saw(saw).fix(fix)
        }
    }
}

fn schema(verdicts: &mut Verdicts, source: &Source, effective_from: Option<Timestamp>) {
    match &source.schema {
        Schema::Pending(pending) if pending.is_empty() => {
            verdicts.push(Finding::ok(SCHEMA_BEHIND, "every migration is applied"));
            verdicts.push(Finding::ok(SCHEMA_CHANGED, "the schema is that of this binary"));
            verdicts.push(Finding::ok(SCHEMA_NEWER, "no later binary has migrated it"));
        }
        Schema::Pending(pending) => {
            let finding = Finding::failed(SCHEMA_BEHIND, format!("{} migrations are not applied", pending.len()));
            verdicts.push(
                finding
                    .saw(pending.join(", "))
                    .fix("DATABASE_URL='<as the owner of the tables>' crm-event-processors migrate"),
            );
            verdicts.push(Finding::ok(SCHEMA_CHANGED, "what is applied is that of this binary"));
            verdicts.push(Finding::ok(SCHEMA_NEWER, "no later binary has migrated it"));
        }
        Schema::Changed(why) => {
            let finding = Finding::failed(SCHEMA_CHANGED, "the schema is not that of this binary").saw(why);
            verdicts.push(finding.fix("Run the binary that the database was migrated with, or a newer one"));
            verdicts.rest_of(&[SCHEMA_BEHIND, SCHEMA_NEWER], SCHEMA_CHANGED);
        }
        Schema::Newer(why) => {
            // Migrations only add: what an earlier binary calls is still there.
            let finding = Finding::warning(SCHEMA_NEWER, "a later binary has migrated the database").saw(why);
            verdicts.push(finding.fix("Nothing, after a roll-back; deploy the later version again when it is mended"));
            verdicts.push(Finding::ok(SCHEMA_BEHIND, "what this binary needs was applied before"));
            verdicts.push(Finding::ok(SCHEMA_CHANGED, "what is applied is that of this binary"));
        }
        Schema::Unknown(why) => {
            for id in [SCHEMA_BEHIND, SCHEMA_CHANGED, SCHEMA_NEWER] {
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

fn of_roles(verdicts: &mut Verdicts, roles: &Result<Roles, String>, server: &Server, names: &Names) {
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
        None => Finding::unknown(ROLE_MISSING, format!("{} first", SCHEMA_BEHIND.name())),
        Some(denied) if denied.is_empty() && absent.is_empty() => {
            Finding::ok(ROLE_MISSING, format!("{user} may call what the worker calls"))
        }
        // Roles belong to the server: a dump that was restored elsewhere brings none. The worker needs its own alone.
        _ if !absent.is_empty() => Finding::graded(
            ROLE_MISSING,
            absent.contains(&WORKER),
            format!("roles are missing: {}", absent.join(", ")),
        )
        .fix(
            "psql -f schemas/postgres/0013_roles.sql\nas the owner of the tables; it may be run again and again. Then look again: \
             grants that came later are named then",
        ),
        Some(denied) => Finding::failed(ROLE_MISSING, format!("{user} may not call what the worker calls"))
            .saw(denied.join(", "))
            .fix(grants(&roles.not_granted, user)),
    });
    verdicts.push(match &names.user {
        None => Finding::unknown(
            ROLE_CONNECTOR,
            "the connector's configuration, which names its login, is not known: set CONNECT_URL",
        ),
        Some(login) => match roles.replicate.iter().find(|known| known.name == *login) {
            Some(known) if !known.reads_all => Finding::warning(
                ROLE_CONNECTOR,
                format!("{login} may not read every captured table: a snapshot would fail"),
            )
            .fix(format!("grant crm_connector to \"{login}\";")),
            Some(known) if known.is_kept_from_rows => Finding::warning(
                ROLE_CONNECTOR,
                format!("row security hides rows from {login}: a snapshot would lack them, without a word"),
            )
            .fix(format!(
                "alter role \"{login}\" bypassrls; -- as a superuser, or as your provider has it"
            )),
            Some(_) => Finding::ok(
                ROLE_CONNECTOR,
                format!("{login} may replicate, and read every captured table"),
            ),
            // Hosted servers have other ways to allow it, and a connector that runs is proof enough.
            None => Finding::warning(ROLE_CONNECTOR, format!("{login} has no attribute REPLICATION")).fix(format!(
                "alter role \"{login}\" replication; -- as a superuser, or as your provider has it"
            )),
        },
    });
}

/// What makes the login able to call what the worker calls.
fn grants(not_granted: &[String], user: &str) -> String {
    let mut commands = Vec::new();
    if !not_granted.is_empty() {
        let functions: Vec<String> = not_granted.iter().map(|name| format!("crm_events.{name}")).collect();
        commands.push("grant usage on schema public, crm_events to crm_worker;".to_owned());
        commands.push("grant select on all tables in schema crm_events to crm_worker;".to_owned());
        commands.push(format!(
            "grant execute on function {} to crm_worker;",
            functions.join(", ")
        ));
    }
    commands.push(format!("grant crm_worker to \"{user}\";"));
    commands.join("\n")
}

fn wal(verdicts: &mut Verdicts, server: &Server, slots: &Look<Vec<Slot>>) {
    verdicts.push(if server.wal_level == "logical" {
        Finding::ok(WAL_LEVEL, "wal_level is logical")
    } else {
        Finding::failed(WAL_LEVEL, "the server writes no logical WAL: nothing can be captured")
            .saw(format!("wal_level is {}", server.wal_level))
            .fix(format!(
                "{}\nthen restart the server: it takes effect only then",
                set_server("wal_level", "logical")
            ))
    });
    // A limit below what is held would take a slot at the next checkpoint.
    let held = |slots: &Vec<Slot>| slots.iter().filter_map(|slot| slot.retained_bytes).max().unwrap_or(0);
    let fix = match slots {
        Ok(slots) => keep_wal(2 * held(slots)),
        Err(why) => format!("Find out first how much the slots hold: a limit below that loses them ({why})"),
    };
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
        verdicts.rest_of(&[PUBLICATION_TABLE_MISSING], PUBLICATION_MISSING);
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
        // The connector's own tables are not among those that it captures.
        let ledgers = lacking.iter().filter(|table| !table.starts_with("public.dbz_"));
        let asked = ledgers.map(|table| format!("\"{table}\"")).collect::<Vec<_>>().join(", ");
        let mut fix = format!("alter publication {name} add table {tables};");
        if !asked.is_empty() {
            fix.push_str("\nand for what happened meanwhile, as the owner of the tables:\n");
            fix.push_str(&format!(
                "insert into public.dbz_signal values ('repair-' || left(gen_random_uuid()::text, 8), 'execute-snapshot', \
                 '{{\"data-collections\": [{asked}], \"type\": \"incremental\"}}');"
            ));
        }
        Finding::failed(PUBLICATION_TABLE_MISSING, what).fix(fix)
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
    // Published, and nothing tells the rows apart.
    let nameless: Vec<&str> = tables
        .iter()
        .filter(|table| table.identity == "n" || (table.identity == "d" && !table.has_key))
        .map(|table| table.name.as_str())
        .collect();
    let (full, lacking): (Vec<&str>, Vec<&str>) = WHOLE_OLD_ROWS.iter().partition(|table| whole(table));
    if !nameless.is_empty() {
        let what = format!("PostgreSQL refuses to update or delete rows of {}", nameless.join(", "));
        return Finding::failed(TABLE_REPLICA_IDENTITY, what)
            .saw("they are published without a replica identity")
            .fix(identity_full(&nameless));
    }
    if lacking.is_empty() {
        return Finding::ok(
            TABLE_REPLICA_IDENTITY,
            format!("{} have REPLICA IDENTITY FULL", full.join(", ")),
        );
    }
    let what = format!("updates of {} do not carry the whole old row", lacking.join(", "));
    Finding::failed(TABLE_REPLICA_IDENTITY, what).fix(identity_full(&lacking))
}

fn identity_full(tables: &[&str]) -> String {
    let command = |table: &&str| format!("alter table public.{table} replica identity full;");
    tables.iter().map(command).collect::<Vec<_>>().join("\n")
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

fn beat(heartbeat: &Result<Option<i64>, String>, every_s: i64) -> Finding {
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
        Ok(Some(seconds)) if *seconds > STALE_S.max(STALE_BEATS * every_s) => Finding::failed(
            HEARTBEAT_STALE,
            format!(
                "the connector beat {} ago, and should every {every_s} s",
                span(*seconds)
            ),
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
pub(in crate::doctor) mod tests;
