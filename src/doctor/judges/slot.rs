//! The replication slot: whether the way from the ledgers to Kafka is whole.
//!
//! A slot that is lost looks harmless in numbers: it retains NULL bytes. So what is NULL is never read as nothing.

use crate::doctor::catalogue::{
    Id, SLOT_INACTIVE, SLOT_LOST, SLOT_LSN_GONE, SLOT_MISSING, SLOT_RETAINED, SLOT_UNRESERVED,
};
use crate::doctor::finding::{Finding, Verdicts};
use crate::postgres::survey::{Server, Slot};

use super::names::Names;
use super::{bytes, set_server};

/// Without a limit, a slot that holds so much is on its way to fill the disk.
const MUCH_BYTES: i64 = 10 << 30;

/// All that is said of the slot; the other findings follow from none if it is not there.
const OF_A_SLOT: [Id; 5] = [SLOT_LOST, SLOT_LSN_GONE, SLOT_UNRESERVED, SLOT_INACTIVE, SLOT_RETAINED];

/// `read` is where the connector says that it is.
#[must_use]
pub fn judge(slots: &[Slot], server: &Server, names: &Names, read: &Result<Option<i64>, String>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let found = slots.iter().find(|slot| slot.name == names.slot);
    let Some(slot) = found.filter(|slot| slot.database == server.database) else {
        verdicts.push(missing(found, slots, server, names, read));
        verdicts.rest_of(&OF_A_SLOT, SLOT_MISSING);
        return verdicts;
    };
    verdicts.push(Finding::ok(SLOT_MISSING, format!("slot {} is there", slot.name)));
    if is_lost(slot) {
        verdicts.push(lost(slot, names));
        verdicts.rest_of(&OF_A_SLOT[1..], SLOT_LOST);
        return verdicts;
    }
    verdicts.push(Finding::ok(SLOT_LOST, format!("slot {} holds its place", slot.name)));
    verdicts.push(place(slot, names, read));
    verdicts.push(if slot.wal_status.as_deref() == Some("unreserved") {
        Finding::failed(
            SLOT_UNRESERVED,
            format!(
                "slot {} is about to be lost: the next checkpoint may take its WAL",
                slot.name
            ),
        )
        .saw(seen(slot))
        .fix(format!(
            "{}\nthen let the connector catch up: {}",
            more_wal(slot, server),
            names.start()
        ))
    } else {
        let status = slot.wal_status.as_deref().unwrap_or("not told");
        Finding::ok(SLOT_UNRESERVED, format!("its WAL is {status}"))
    });
    verdicts.push(if slot.active {
        Finding::ok(SLOT_INACTIVE, "somebody reads from it")
    } else {
        let since = slot
            .inactive_since
            .as_ref()
            .map(|since| format!(", since {since}"))
            .unwrap_or_default();
        Finding::failed(
            SLOT_INACTIVE,
            format!("nobody reads from slot {}: no change reaches Kafka", slot.name),
        )
        .saw(format!("{}{since}", seen(slot)))
        .fix(names.start())
    });
    verdicts.push(retained(slot, server, names));
    verdicts
}

fn missing(
    found: Option<&Slot>,
    slots: &[Slot],
    server: &Server,
    names: &Names,
    read: &Result<Option<i64>, String>,
) -> Finding {
    let (name, database) = (&names.slot, &server.database);
    let mut saw = format!(
        "{} slots of {} on this server, {} of them logical",
        server.slots,
        server.max_slots,
        slots.len()
    );
    if let Some(other) = found {
        saw = format!(
            "a slot of this name belongs to database {}, not to {database}",
            other.database
        );
    }
    let full = server.slots >= server.max_slots && found.is_none();
    let fix = if full {
        "No slot is free: `select slot_name, active from pg_replication_slots`, drop one that nobody needs, or raise \
         max_replication_slots; then start the connector"
            .to_owned()
    } else if matches!(read, Ok(Some(_))) {
        format!(
            "{}Start the connector: {}\nIt makes the slot anew and snapshots every ledger; what is settled is not settled again: \
             docs/runbook.md#recovery-of-a-lost-slot",
            names.before_a_snapshot(),
            names.start()
        )
    } else {
        format!("The connector makes it when it starts: {}", names.start())
    };
    Finding::failed(SLOT_MISSING, format!("there is no slot {name} in database {database}"))
        .saw(saw)
        .fix(fix)
}

/// A lost slot keeps its name, and often its last words say no more than that nothing is held.
pub(in crate::doctor) fn is_lost(slot: &Slot) -> bool {
    slot.wal_status.as_deref() == Some("lost") || slot.restart_lsn.is_none() || slot.invalidated.is_some()
}

fn lost(slot: &Slot, names: &Names) -> Finding {
    let what = format!(
        "slot {} is lost: it never recovers, and the connector only waits for it",
        slot.name
    );
    Finding::failed(SLOT_LOST, what).saw(seen(slot)).fix(names.recovery())
}

/// Whether the slot can still give what the connector will ask for. Whatever it confirmed it has stored before.
fn place(slot: &Slot, names: &Names, read: &Result<Option<i64>, String>) -> Finding {
    let read = match read {
        Ok(Some(read)) => *read,
        Ok(None) => {
            return Finding::ok(
                SLOT_LSN_GONE,
                "the connector has stored no position yet: it begins with a snapshot",
            );
        }
        Err(why) => return Finding::unknown(SLOT_LSN_GONE, why),
    };
    let begins = [slot.restart_lsn, slot.confirmed_lsn]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(0);
    if read >= begins {
        return Finding::ok(SLOT_LSN_GONE, "the slot can give what the connector has not read yet");
    }
    let snapshots = slot.restart_lsn.is_some_and(|restart| restart > read);
    let consequence = if snapshots {
        "the connector snapshots again when it starts, if snapshot.mode is when_needed"
    } else {
        "the connector goes on behind the gap, in silence"
    };
    let (name, lsn) = (&slot.name, show);
    Finding::failed(
        SLOT_LSN_GONE,
        format!("slot {name} was moved past what the connector has read: changes are missing, and {consequence}"),
    )
    .saw(format!(
        "the connector stored {}, the slot begins at {} ({} between them)",
        lsn(read),
        lsn(begins),
        bytes(begins - read)
    ))
    .fix(names.recovery())
}

fn retained(slot: &Slot, server: &Server, names: &Names) -> Finding {
    let Some(retained) = slot.retained_bytes else {
        return Finding::unknown(SLOT_RETAINED, "the server does not say how much it holds");
    };
    let held = format!("it holds back {} of WAL", bytes(retained));
    let Some(limit) = server.slot_keep_bytes else {
        if retained <= MUCH_BYTES {
            return Finding::ok(SLOT_RETAINED, held);
        }
        return Finding::warning(SLOT_RETAINED, format!("slot {} fills the disk: {held}", slot.name))
            .saw(seen(slot))
            .fix(format!("Let the connector catch up: {}", names.start()));
    };
    let safe = slot.safe_bytes.unwrap_or(limit - retained);
    if safe > limit / 2 {
        return Finding::ok(SLOT_RETAINED, format!("{held} of {}", bytes(limit)));
    }
    let what = format!(
        "slot {} is lost when another {} is written: {held} of {}",
        slot.name,
        bytes(safe),
        bytes(limit)
    );
    Finding::graded(SLOT_RETAINED, safe < limit / 4, what)
        .saw(seen(slot))
        .fix(format!(
            "Let the connector catch up: {}\nor gain time:\n{}",
            names.start(),
            more_wal(slot, server)
        ))
}

fn seen(slot: &Slot) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    let lsn = |value: Option<i64>| value.map_or_else(|| "NULL".to_owned(), show);
    let reason = slot
        .invalidated
        .as_ref()
        .map(|reason| format!(", invalidated: {reason}"))
        .unwrap_or_default();
    format!(
        "wal_status {}, active {}, restart_lsn {}, confirmed_flush_lsn {}{reason}",
        text(&slot.wal_status),
        slot.active,
        lsn(slot.restart_lsn),
        lsn(slot.confirmed_lsn)
    )
}

/// Twice what there is, and what the slot holds.
fn more_wal(slot: &Slot, server: &Server) -> String {
    let wanted = (2 * server.slot_keep_bytes.unwrap_or(0)).max(2 * slot.retained_bytes.unwrap_or(0));
    keep_wal(wanted)
}

/// Lets slots hold back so much, rounded up; never less than is of use.
pub fn keep_wal(wanted_bytes: i64) -> String {
    let gib = (wanted_bytes + (1 << 30) - 1) >> 30;
    set_server("max_slot_wal_keep_size", &format!("{}GB", gib.max(4)))
}

/// As PostgreSQL writes it.
fn show(lsn: i64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::names;
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::doctor::finding::Severity;

    const GIB: i64 = 1 << 30;

    fn server(keep: Option<i64>) -> Server {
        Server {
            user: "w".to_owned(),
            database: "crm".to_owned(),
            ahead_ms: 0,
            took_ms: 1,
            wal_level: "logical".to_owned(),
            slot_keep_bytes: keep,
            max_slots: 5,
            slots: 1,
        }
    }

    fn slot() -> Slot {
        Slot {
            name: "s".to_owned(),
            database: "crm".to_owned(),
            active: true,
            wal_status: Some("reserved".to_owned()),
            safe_bytes: Some(4 * GIB),
            restart_lsn: Some(90),
            confirmed_lsn: Some(100),
            retained_bytes: Some(1000),
            invalidated: None,
            inactive_since: None,
        }
    }

    fn judged(change: impl FnOnce(&mut Slot), keep: Option<i64>, read: Option<i64>) -> Verdicts {
        let mut slot = slot();
        change(&mut slot);
        judge(&[slot], &server(keep), &names(), &Ok(read))
    }

    #[test]
    fn a_slot_that_is_read_is_well() {
        let verdicts = judged(|_| {}, Some(4 * GIB), Some(100));
        assert_eq!(troubles(&verdicts), []);
        assert_eq!(verdicts.findings().len(), 6);
        assert!(
            verdicts.findings().iter().all(|one| one.severity == Severity::Ok),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_slot_is_lost_by_its_status_by_a_null_position_or_by_a_reason() {
        let changes: [fn(&mut Slot); 3] = [
            |slot| slot.wal_status = Some("lost".to_owned()),
            |slot| (slot.restart_lsn, slot.retained_bytes, slot.wal_status) = (None, None, None),
            |slot| slot.invalidated = Some("wal_removed".to_owned()),
        ];
        for change in changes {
            let verdicts = judged(change, Some(GIB), Some(100));
            assert_eq!(troubles(&verdicts), [("slot.lost", Severity::Failed)]);
            let fix = of(&verdicts, SLOT_LOST).fix.expect("a fix");
            let order = [
                "connectors/cdc/stop",
                "\nselect pg_drop_replication_slot('s');\n",
                "connectors/cdc/resume",
            ];
            let places = order.map(|part| fix.find(part).unwrap_or_else(|| panic!("{part}: {fix}")));
            assert!(places.is_sorted(), "{fix}");
            assert_eq!(
                of(&verdicts, SLOT_RETAINED).what,
                "slot.lost first",
                "NULL is not nothing"
            );
        }
    }

    #[test]
    fn a_slot_past_the_connectors_place_is_a_gap_whether_it_snapshots_or_not() {
        for (read, what) in [(99, "in silence"), (89, "snapshots again")] {
            let finding = of(&judged(|_| {}, None, Some(read)), SLOT_LSN_GONE);
            assert_eq!(finding.severity, Severity::Failed);
            assert!(finding.what.contains(what), "{finding:?}");
        }
        assert_eq!(of(&judged(|_| {}, None, None), SLOT_LSN_GONE).severity, Severity::Ok);
        let unknown = judge(&[slot()], &server(None), &names(), &Err("no CONNECT_URL".to_owned()));
        assert_eq!(of(&unknown, SLOT_LSN_GONE).severity, Severity::NotVerifiable);
        assert_eq!(show(0x16_B374_D848), "16/B374D848");
    }

    #[test]
    fn a_slot_that_nobody_reads_or_that_is_about_to_go_fails() {
        let verdicts = judged(|slot| slot.active = false, None, Some(100));
        assert_eq!(troubles(&verdicts), [("slot.inactive", Severity::Failed)]);
        let verdicts = judged(|slot| slot.wal_status = Some("unreserved".to_owned()), None, Some(100));
        assert_eq!(troubles(&verdicts), [("slot.unreserved", Severity::Failed)]);
        let fix = of(&verdicts, SLOT_UNRESERVED).fix.expect("a fix");
        assert!(
            fix.starts_with("alter system set max_slot_wal_keep_size = '4GB';\n"),
            "{fix}"
        );
    }

    #[test]
    fn a_new_limit_is_above_what_the_slot_holds() {
        let holds = |slot: &mut Slot| (slot.safe_bytes, slot.retained_bytes) = (Some(0), Some(20 * GIB));
        let fix = of(&judged(holds, Some(GIB), Some(100)), SLOT_RETAINED)
            .fix
            .expect("a fix");
        assert!(fix.contains("'40GB'"), "{fix}");
    }

    #[test]
    fn what_is_left_of_the_limit_decides_and_without_a_limit_the_size() {
        for (safe, keep, retained, severity) in [
            (Some(3 * GIB), Some(4 * GIB), GIB, Severity::Ok),
            (Some(2 * GIB), Some(4 * GIB), 2 * GIB, Severity::Warning),
            (Some(GIB - 1), Some(4 * GIB), 3 * GIB, Severity::Failed),
            (None, Some(4 * GIB), 4 * GIB, Severity::Failed),
            (None, None, 10 * GIB, Severity::Ok),
            (None, None, 11 * GIB, Severity::Warning),
        ] {
            let set = |slot: &mut Slot| (slot.safe_bytes, slot.retained_bytes) = (safe, Some(retained));
            let finding = of(&judged(set, keep, Some(100)), SLOT_RETAINED);
            assert_eq!(finding.severity, severity, "{finding:?}");
        }
    }

    #[test]
    fn a_slot_of_another_database_is_none_and_a_full_server_is_told() {
        let verdicts = judged(|slot| slot.database = "other".to_owned(), None, Some(100));
        assert_eq!(troubles(&verdicts), [("slot.missing", Severity::Failed)]);
        assert!(
            of(&verdicts, SLOT_MISSING)
                .evidence
                .is_some_and(|saw| saw.contains("database other"))
        );
        let others: Vec<Slot> = (0..5)
            .map(|n| Slot {
                name: format!("o{n}"),
                ..slot()
            })
            .collect();
        let full = Server {
            slots: 5,
            ..server(None)
        };
        // Of the five some may be of replicas.
        let full = judge(&others[..3], &full, &names(), &Ok(None));
        assert!(
            of(&full, SLOT_MISSING)
                .fix
                .is_some_and(|fix| fix.contains("max_replication_slots"))
        );
    }
}
