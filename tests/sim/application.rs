//! The application and the connector: rows that are written, and how they come into the log.
//!
//! The connector writes what changed in the order of the changes; it may repeat itself, snapshot everything again, lose its
//! slot, leave old images out. Poison and gaps are written beside.

use std::sync::{Arc, Mutex, PoisonError};

use crm_event_processors::consumers::Rules;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::rows::Table;
use serde_json::json;

use super::database::{Database, Written};
use super::log::Log;
use super::oracle::Oracle;
use super::world::World;

/// Of each topic; the first has most of the rows.
pub(super) const PARTITIONS: i32 = 2;

pub(super) struct Application {
    world: Arc<World>,
    log: Arc<Log>,
    oracle: Arc<Oracle>,
    database: Arc<Mutex<Database>>,
    truth: Arc<Mutex<Arc<Rules>>>,
    /// How much of the changes is in the log.
    position: usize,
    /// Behind it nothing is repeated: the last snapshot.
    horizon: usize,
    /// When it was made.
    snapshot_at: Option<i64>,
    rows: usize,
    /// Merchants that have a program, and others.
    pub(super) merchants: Vec<&'static str>,
    with_before: bool,
    /// No faults any more.
    pub(super) is_calm: bool,
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(super) fn topic_of(table: Table) -> String {
    format!("crm.public.{}", table.name())
}

impl Application {
    pub(super) fn new(
        world: &Arc<World>,
        log: &Arc<Log>,
        oracle: &Arc<Oracle>,
        database: &Arc<Mutex<Database>>,
        truth: &Arc<Mutex<Arc<Rules>>>,
    ) -> Self {
        let with_before = world.die(4) > 0;
        if !with_before {
            world.fault("connector:no_before");
        }
        Self {
            world: Arc::clone(world),
            log: Arc::clone(log),
            oracle: Arc::clone(oracle),
            database: Arc::clone(database),
            truth: Arc::clone(truth),
            position: 0,
            horizon: 0,
            snapshot_at: None,
            rows: 0,
            merchants: vec!["m-unlimited", "m-within"],
            with_before,
            is_calm: false,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Database) -> T) -> T {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.now_ms = self.world.now_ms();
        work(&mut database)
    }

    fn now(&self) -> String {
        jiff::Timestamp::from_millisecond(self.world.now_ms())
            .unwrap_or_default()
            .to_string()
    }

    /// Writes something of that table: a new row, or a new state of one.
    pub(super) fn write(&mut self, table: Table) {
        let known: Vec<String> = self.with(|database| {
            let rows = database.rows.range((table, String::new())..);
            rows.take_while(|((of, _), _)| *of == table)
                .map(|((_, id), _)| id.clone())
                .collect()
        });
        let is_new = known.is_empty()
            || self.world.chance(45)
            || table == Table::FormSubmissions
            || table == Table::WalletLedger;
        if is_new {
            self.create(table);
        } else if let Some(id) = self.world.pick(&known) {
            self.change(table, id);
        }
    }

    fn create(&mut self, table: Table) {
        self.rows += 1;
        let (now, n) = (self.now(), self.rows);
        let user = format!("u{}", self.world.die(3));
        let merchant = self.world.pick(&self.merchants).copied().unwrap_or("m-unlimited");
        let image = match table {
            Table::PurchaseLedger => {
                let id = if self.world.chance(2) {
                    format!("x{n:03}")
                } else {
                    format!("p{n:03}")
                };
                let huge = self.world.chance(1);
                let amounts = ["10.00", "50.00", "100.00", "260.00"];
                let amount = if huge {
                    "99999999999999999999.00"
                } else {
                    self.world.pick(&amounts).copied().unwrap_or("1.00")
                };
                let status = if self.world.chance(60) { "completed" } else { "pending" };
                json!({"id": id, "user_id": user, "merchant_id": merchant, "final_amount": amount, "refunded_amount": "0.00",
                    "status": status, "earn_currency": true, "created_at": now, "completed_at": null})
            }
            Table::WalletLedger => {
                let amount = i64::try_from(self.world.die(40)).unwrap_or(0) + 1;
                // Nobody spends what a refund may have to take back: the books of that merchant are exact.
                self.with(|database| database.enter("m-unlimited", &user, amount, "adjust", None));
                return;
            }
            Table::FormSubmissions => {
                json!({"id": format!("f{n:03}"), "form_id": "welcome", "user_id": user, "merchant_id": merchant, "submitted_at": now})
            }
            Table::MissionClaims => json!({"id": format!("c{n:03}"), "user_id": user, "merchant_id": merchant,
                "mission_id": "visits", "status": "claimed", "period": null, "claimed_at": now}),
            Table::ReferralLedger => {
                json!({"id": format!("r{n:03}"), "referrer_user_id": user, "referee_user_id": format!("new{n}"),
                "merchant_id": merchant, "status": self.world.pick(&["pending", "qualified"]).copied(), "created_at": now})
            }
            Table::Codes => {
                let is_redeemed = self.world.chance(30);
                json!({"id": format!("k{n:03}"), "code": "-", "merchant_id": merchant, "user_id": user,
                    "status": if is_redeemed { "redeemed" } else { "issued" }, "redeemed_at": is_redeemed.then_some(now)})
            }
        };
        self.with(|database| database.write(table, image.to_string()));
    }

    fn change(&mut self, table: Table, id: &str) {
        let image = self.with(|database| {
            database
                .rows
                .get(&(table, id.to_owned()))
                .map(|stored| stored.image.clone())
        });
        let Some(mut row) = image.and_then(|image| serde_json::from_str::<serde_json::Value>(&image).ok()) else {
            return;
        };
        let statuses: &[&str] = match table {
            Table::PurchaseLedger => &["completed", "partially_refunded", "refunded", "cancelled", "completed"],
            Table::MissionClaims => &["claimed", "revoked"],
            Table::ReferralLedger => &["pending", "qualified", "cancelled"],
            Table::Codes => &["redeemed", "redeemed", "expired"],
            Table::WalletLedger | Table::FormSubmissions => return,
        };
        let status = self.world.pick(statuses).copied().unwrap_or_default();
        let was = row
            .get("status")
            .and_then(|status| status.as_str())
            .unwrap_or_default()
            .to_owned();
        if table == Table::Codes && was == "redeemed" {
            // What was fulfilled stays so; the row is only touched.
        } else {
            row["status"] = json!(status);
        }
        if table == Table::PurchaseLedger {
            row["refunded_amount"] = json!(if status == "partially_refunded" { "5.00" } else { "0.00" });
        }
        if table == Table::Codes && status == "redeemed" && was != "redeemed" {
            row["redeemed_at"] = json!(self.now());
        }
        self.with(|database| database.write(table, row.to_string()));
    }

    fn append(&self, table: Table, id: &str, value: String) {
        let topic = Table::ALL
            .iter()
            .position(|of| *of == table)
            .and_then(|topic| u16::try_from(topic).ok())
            .unwrap_or(0);
        let partition = i32::from(fnv(id).is_multiple_of(4));
        let place = TopicPartition { topic, partition };
        let gap = if !self.is_calm && self.world.chance(10) {
            self.world.fault("log:gap");
            1 + i64::try_from(self.world.die(3)).unwrap_or(0)
        } else {
            0
        };
        let rules = Arc::clone(&self.truth.lock().unwrap_or_else(PoisonError::into_inner));
        let offset = self.log.append(place, value.clone(), gap);
        self.world.tell(format_args!("log {place:?}@{offset} {value}"));
        self.oracle.appended(place, offset, &value, &rules);
    }

    fn stream(&self, lsn: usize, change: &Written) {
        let (table, at) = (change.table.name(), change.at_ms);
        let op = if change.before.is_some() { "u" } else { "c" };
        let before = change.before.as_deref().filter(|_| self.with_before).unwrap_or("null");
        let value = format!(
            r#"{{"op":"{op}","before":{before},"after":{},"source":{{"table":"{table}","lsn":{},"ts_ms":{at}}},"ts_ms":{at}}}"#,
            change.after,
            lsn + 1000
        );
        self.append(change.table, &change.id, value);
    }

    /// What was written and is not in the log yet, so many changes at most.
    pub(super) fn connect(&mut self, most: usize) {
        let changes: Vec<Written> =
            self.with(|database| database.wal.iter().skip(self.position).take(most).cloned().collect());
        for change in changes {
            self.stream(self.position, &change);
            self.position += 1;
        }
        if !self.is_calm && self.world.chance(2) {
            self.world.fault("log:poison");
            let table = *self.world.pick(&Table::ALL).unwrap_or(&Table::Codes);
            self.append(table, "poison", "{ this is not JSON".to_owned());
        }
    }

    /// The connector starts behind what it has written, and writes the last changes again.
    pub(super) fn repeat(&mut self) {
        let back = self.world.die(8) + 1;
        self.position = self.position.saturating_sub(back).max(self.horizon);
        self.world.fault("connector:repeats");
        self.connect(back);
    }

    /// Every row as it is now. No connector begins two snapshots in one millisecond, and the claim of a snapshot row names it
    /// (SPEC section 3, claim).
    pub(super) fn snapshot(&mut self, slot_lost: bool) {
        let at = self.world.now_ms();
        if self.snapshot_at.replace(at) == Some(at) {
            return;
        }
        self.world.fault(if slot_lost {
            "connector:slot_lost"
        } else {
            "connector:snapshot"
        });
        if !slot_lost {
            self.connect(usize::MAX);
        }
        let rows: Vec<(Table, String, String)> = self.with(|database| {
            let rows = database.rows.iter();
            rows.map(|((table, id), stored)| (*table, id.clone(), stored.image.clone()))
                .collect()
        });
        for (table, id, image) in rows {
            let name = table.name();
            let value = format!(
                r#"{{"op":"r","before":null,"after":{image},"source":{{"table":"{name}","ts_ms":{at}}},"ts_ms":{at}}}"#
            );
            self.append(table, &id, value);
        }
        self.position = self.with(|database| database.wal.len());
        self.horizon = self.position;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.with(|database| database.wal.len()) == self.position
    }
}
