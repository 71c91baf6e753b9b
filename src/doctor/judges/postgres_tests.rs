use super::super::names::tests::names;
use super::super::tests::{of, troubles};
use super::*;
use crate::doctor::finding::Severity;
use crate::postgres::survey::{Login, Open};

pub(crate) fn source() -> Source {
    let table = |name: &str| Table {
        name: name.to_owned(),
        identity: "f".to_owned(),
        has_key: true,
    };
    Source {
        server: Server {
            user: "w".to_owned(),
            database: "crm".to_owned(),
            ahead_ms: 0,
            took_ms: 1,
            wal_level: "logical".to_owned(),
            slot_keep_bytes: Some(4 << 30),
            max_slots: 5,
            slots: 1,
        },
        slots: Ok(vec![Slot {
            name: "s".to_owned(),
            database: "crm".to_owned(),
            active: true,
            wal_status: Some("reserved".to_owned()),
            safe_bytes: Some(4 << 30),
            restart_lsn: Some(1),
            confirmed_lsn: Some(1),
            retained_bytes: Some(0),
            invalidated: None,
            inactive_since: None,
        }]),
        publications: Ok(vec![Publication {
            name: "p".to_owned(),
            lacks: Vec::new(),
            tables: CAPTURED.map(ToOwned::to_owned).into(),
        }]),
        tables: Ok(CAPTURED.map(table).into()),
        transactions: Ok(Transactions {
            all: true,
            open: Vec::new(),
        }),
        heartbeat: Ok(Some(3)),
        roles: Ok(Roles {
            known: OUR_ROLES.map(ToOwned::to_owned).into(),
            may_not_call: Some(Vec::new()),
            not_granted: Vec::new(),
            replicate: vec![Login {
                name: "cdc_user".to_owned(),
                reads_all: true,
                is_kept_from_rows: false,
            }],
        }),
        wal_rate: Ok(1.0),
        schema: Schema::Pending(Vec::new()),
        cut_off: Ok(Some(0)),
    }
}

fn judged(change: impl FnOnce(&mut Source)) -> Verdicts {
    let mut source = source();
    change(&mut source);
    with(&Ok(source), None)
}

fn with(seen: &Result<Source, LedgerError>, effective_from: Option<Timestamp>) -> Verdicts {
    let names = names();
    let wanted = Wanted {
        names: &names,
        read: &Ok(Some(1)),
        effective_from,
    };
    judge(seen, &wanted)
}

#[test]
fn what_is_well_is_said_of_every_id() {
    let verdicts = judged(|_| {});
    assert_eq!(troubles(&verdicts), []);
    for id in crate::doctor::catalogue::ALL
        .iter()
        .filter(|id| id.area() == Area::Postgres)
    {
        assert_eq!(of(&verdicts, *id).severity, Severity::Ok, "{id:?}");
    }
}

#[test]
fn a_database_that_is_away_or_refuses_us_explains_the_rest() {
    for (error, name) in [
        (LedgerError::Unavailable("x".to_owned()), "postgres.unreachable"),
        (LedgerError::Configuration("x".to_owned()), "postgres.auth"),
    ] {
        let verdicts = with(&Err(error), None);
        assert_eq!(troubles(&verdicts), [(name, Severity::Failed)]);
        assert_eq!(of(&verdicts, SCHEMA_BEHIND).what, format!("{name} first"));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_trouble_of_the_source_has_its_name() {
    let open = |seconds| {
        move |source: &mut Source| {
            let open = Open {
                ends_with: "77".to_owned(),
                who: "app".to_owned(),
                seconds,
            };
            source.transactions.as_mut().expect("seen").open.push(open);
        }
    };
    type Change = Box<dyn FnOnce(&mut Source)>;
    let table: [(Change, &str, Severity, &str); 22] = [
        (
            Box::new(|source| source.schema = Schema::Pending(vec!["0016_beat"])),
            "schema.behind",
            Severity::Failed,
            "crm-event-processors migrate",
        ),
        (
            Box::new(|source| source.schema = Schema::Changed("0001".to_owned())),
            "schema.changed",
            Severity::Failed,
            "binary",
        ),
        (
            Box::new(|source| source.schema = Schema::Newer("9999".to_owned())),
            "schema.newer",
            Severity::Warning,
            "after a roll-back",
        ),
        (
            Box::new(|source| source.cut_off = Ok(None)),
            "schema.cut-off",
            Severity::Failed,
            "LEDGER_EFFECTIVE_FROM=",
        ),
        (
            Box::new(|source| {
                source.roles.as_mut().expect("seen").may_not_call = Some(vec!["mark_dead".to_owned()]);
            }),
            "role.missing",
            Severity::Failed,
            "grant crm_worker to \"w\"",
        ),
        (
            Box::new(|source| {
                let roles = source.roles.as_mut().expect("seen");
                roles.may_not_call = Some(vec!["mark_dead".to_owned()]);
                roles.not_granted = vec!["mark_dead".to_owned()];
            }),
            "role.missing",
            Severity::Failed,
            "grant execute on function crm_events.mark_dead to crm_worker;\ngrant crm_worker to \"w\"",
        ),
        (
            Box::new(|source| drop(source.roles.as_mut().expect("seen").known.remove(0))),
            "role.missing",
            Severity::Failed,
            "psql -f schemas/postgres/0013_roles.sql",
        ),
        (
            Box::new(|source| drop(source.roles.as_mut().expect("seen").known.remove(1))),
            "role.missing",
            Severity::Warning,
            "psql -f schemas/postgres/0013_roles.sql",
        ),
        (
            Box::new(|source| source.roles.as_mut().expect("seen").replicate[0].reads_all = false),
            "role.connector",
            Severity::Warning,
            "grant crm_connector to \"cdc_user\"",
        ),
        (
            Box::new(|source| source.roles.as_mut().expect("seen").replicate[0].is_kept_from_rows = true),
            "role.connector",
            Severity::Warning,
            "bypassrls",
        ),
        (
            Box::new(|source| source.roles.as_mut().expect("seen").replicate.clear()),
            "role.connector",
            Severity::Warning,
            "alter role \"cdc_user\" replication",
        ),
        (
            Box::new(|source| source.server.wal_level = "replica".to_owned()),
            "wal.level",
            Severity::Failed,
            "wal_level = 'logical'",
        ),
        (
            Box::new(|source| source.server.slot_keep_bytes = None),
            "wal.slot-keep",
            Severity::Warning,
            "max_slot_wal_keep_size",
        ),
        (
            Box::new(|source| source.publications = Ok(Vec::new())),
            "publication.missing",
            Severity::Failed,
            "create publication p for table public.purchase_ledger",
        ),
        (
            Box::new(|source| {
                source.publications.as_mut().expect("seen")[0]
                    .lacks
                    .push("update".to_owned());
            }),
            "publication.missing",
            Severity::Failed,
            "publish =",
        ),
        (
            Box::new(|source| {
                source.publications.as_mut().expect("seen")[0]
                    .tables
                    .retain(|table| table != "codes");
            }),
            "publication.table-missing",
            Severity::Failed,
            "alter publication p add table public.codes;",
        ),
        (
            Box::new(|source| source.tables.as_mut().expect("seen")[0].identity = "d".to_owned()),
            "table.replica-identity",
            Severity::Failed,
            "alter table public.purchase_ledger replica identity full;",
        ),
        (
            Box::new(|source| {
                let table = &mut source.tables.as_mut().expect("seen")[1];
                (table.identity, table.has_key) = ("d".to_owned(), false);
            }),
            "table.replica-identity",
            Severity::Failed,
            "alter table public.wallet_ledger replica identity full;",
        ),
        (
            Box::new(open(LONG_S)),
            "transaction.long",
            Severity::Warning,
            "pg_terminate_backend(77)",
        ),
        (
            Box::new(open(TOO_LONG_S)),
            "transaction.long",
            Severity::Failed,
            "pg_terminate_backend(77)",
        ),
        (
            Box::new(|source| source.heartbeat = Ok(Some(STALE_S + 1))),
            "heartbeat.stale",
            Severity::Failed,
            "connectors status",
        ),
        (
            Box::new(|source| source.heartbeat = Ok(None)),
            "heartbeat.stale",
            Severity::Warning,
            "connectors status",
        ),
    ];
    for (change, name, severity, fix) in table {
        let verdicts = judged(change);
        assert_eq!(troubles(&verdicts), [(name, severity)]);
        let told = verdicts
            .findings()
            .iter()
            .find(|finding| finding.id.name() == name)
            .expect("told");
        assert!(told.fix.as_deref().is_some_and(|told| told.contains(fix)), "{told:?}");
    }
}

#[test]
fn a_limit_for_slots_is_never_below_what_they_hold() {
    let fix = |held: Option<i64>| {
        let verdicts = judged(|source| {
            source.server.slot_keep_bytes = None;
            source.slots.as_mut().expect("seen")[0].retained_bytes = held;
        });
        of(&verdicts, WAL_SLOT_KEEP).fix.expect("a fix")
    };
    assert!(fix(Some(0)).starts_with("alter system set max_slot_wal_keep_size = '4GB';\nselect"));
    assert!(fix(Some((20 << 30) + 1)).contains("'41GB'"));
    let blind = judged(|source| (source.server.slot_keep_bytes, source.slots) = (None, Err("late".to_owned())));
    assert!(!of(&blind, WAL_SLOT_KEEP).fix.expect("a fix").contains("alter system"));
}

#[test]
fn a_beat_is_late_by_the_connectors_own_measure() {
    let mut names = names();
    names.beat_s = 180;
    let at = |seconds| {
        let mut source = source();
        source.heartbeat = Ok(Some(seconds));
        let wanted = Wanted {
            names: &names,
            read: &Ok(Some(1)),
            effective_from: None,
        };
        of(&judge(&Ok(source), &wanted), HEARTBEAT_STALE).severity
    };
    assert_eq!((at(720), at(721)), (Severity::Ok, Severity::Failed));
}

#[test]
fn what_may_not_be_seen_is_not_taken_for_well() {
    let blind = || "42501 permission denied".to_owned();
    let verdicts = judged(|source| {
        source.slots = Err(blind());
        source.publications = Err(blind());
        source.tables = Err(blind());
        source.heartbeat = Err(blind());
        source.roles = Err(blind());
        source.cut_off = Err(blind());
        source.schema = Schema::Unknown(blind());
        source.transactions.as_mut().expect("seen").all = false;
    });
    assert_eq!(troubles(&verdicts), []);
    for id in [
        crate::doctor::catalogue::SLOT_MISSING,
        PUBLICATION_MISSING,
        PUBLICATION_TABLE_MISSING,
        TABLE_REPLICA_IDENTITY,
        HEARTBEAT_STALE,
        ROLE_MISSING,
        SCHEMA_CUT_OFF,
        SCHEMA_BEHIND,
        TRANSACTION_LONG,
    ] {
        assert_eq!(of(&verdicts, id).severity, Severity::NotVerifiable, "{id:?}");
    }
}

#[test]
fn a_cut_off_other_than_the_stored_one_fails() {
    let at = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
    for (given, severity) in [
        (at("1970-01-01T00:00:00Z"), Severity::Ok),
        (at("1970-01-01T00:00:01Z"), Severity::Failed),
        (None, Severity::Ok),
    ] {
        assert_eq!(
            of(&with(&Ok(source()), given), SCHEMA_CUT_OFF).severity,
            severity,
            "{given:?}"
        );
    }
}
