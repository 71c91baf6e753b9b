//! The faults of the incident, made for real one after the other, and each found by its name by the real binary; then a
//! slot that is lost, and its recovery as docs/runbook.md has it.

use std::collections::BTreeSet;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::NoTls;

use super::workflows::Workflows;
use super::{House, plain_currency};
use crate::postgres::Database;
use crate::postgres_client::server::Server;
use crate::real::check::{self, Told};
use crate::real::stack;
use crate::real::worker::{Inbox, PATIENCE, Worker, receiver};

/// A house whose connector may be looked at.
fn looking(house: &House, inngest: &str) -> Worker {
    let mut worker = house.worker(inngest);
    worker.set("CONNECT_URL", &stack("CONNECT_URL"));
    worker
}

/// Looks until an id fails, and the same report says the rest.
async fn until_failed(house: &House, worker: &Worker, fault: &str, id: &str, rest: impl Fn(&Told) -> bool) -> Told {
    let told = check::until(worker, &["--connector", &house.name], |told| {
        told.failed().contains(&id) && told.code == 1 && rest(told)
    })
    .await;
    println!("{fault}: {id} in {:.1?}", told.took);
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_the_incident_is_found_by_its_name() {
    let house = House::new(1).await;
    house
        .program(
            "UTC",
            &json!({"currency": plain_currency(), "refund_policy": "within_balance"}),
        )
        .await;
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = looking(&house, &receiver.base_url());
    worker.is_missed_soon();
    worker.start().await;
    let connector = house.connector().await;
    house.purchase("p-1", "u-1", "10.00", "completed").await;
    inbox.wait_until("the award", |events| !events.is_empty()).await;
    house
        .until("a beat", "select (count(*) > 0)::text from dbz_heartbeat", "true")
        .await;
    let name = house.name.clone();
    // Its slot has a name of its own, which is what its settings are blamed for.
    check::until(&worker, &["--connector", &name], |told| {
        told.failed() == ["connector.config"]
    })
    .await;

    worker.kill().await;
    // The broker believes in a member that was killed for a session.
    until_failed(&house, &worker, "worker not running", "group.empty", |told| {
        told.failed() == ["group.empty", "connector.config"]
    })
    .await;

    house
        .sql("alter publication crm_cdc_publication drop table codes")
        .await;
    let told = until_failed(
        &house,
        &worker,
        "table missing from the publication",
        "publication.table-missing",
        |_| true,
    )
    .await;
    let fix = told.finding("publication.table-missing")["fix"]
        .as_str()
        .expect("a fix")
        .to_owned();
    // The fix is SQL up to the sentence behind it.
    let (command, _) = fix.split_once('\n').expect("several lines");
    assert_eq!(command, "alter publication crm_cdc_publication add table public.codes;");
    house.sql(command).await;

    connector.stop().await;
    until_failed(&house, &worker, "slot inactive", "slot.inactive", |told| {
        told.says("connector.paused", "severity", "failed") && told.says("slot.lsn-gone", "severity", "ok")
    })
    .await;

    house.purchase("p-2", "u-1", "10.00", "completed").await;
    house
        .sql(&format!(
            "select pg_replication_slot_advance('{name}', pg_current_wal_lsn())"
        ))
        .await;
    until_failed(&house, &worker, "LSN gone", "slot.lsn-gone", |told| {
        told.says("slot.lost", "severity", "ok")
    })
    .await;

    house.sql("drop publication crm_cdc_publication").await;
    connector.resume_into_failure().await;
    until_failed(
        &house,
        &worker,
        "task failed under a RUNNING connector",
        "connector.task-failed",
        |told| {
            told.says("connector.failed", "severity", "ok") && told.says("publication.missing", "severity", "failed")
        },
    )
    .await;

    plugin_gone(&name).await;
    let told = until_failed(&house, &worker, "connector failed", "connector.failed", |_| true).await;
    let said = told.finding("connector.failed")["evidence"].as_str().expect("evidence");
    assert!(said.starts_with("FAILED"), "{said}");
    house.done(connector).await;
}

/// As an image that was built without the plugin: what the worker of Kafka Connect has stored names a class that it lacks.
async fn plugin_gone(name: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"));
    let producer: FutureProducer = config.create().expect("a producer");
    let stored = json!({"properties": {"name": name, "connector.class": "gone.PostgresConnector", "tasks.max": "1"}})
        .to_string();
    let key = format!("connector-{name}");
    let record = FutureRecord::to("crm-connect-configs").key(&key).payload(&stored);
    producer.send(record, PATIENCE).await.expect("written");
}

/// The points of every purchase in the wallet.
async fn booked(house: &House) -> BTreeSet<(String, i64)> {
    let sums = "select source_id, sum(amount)::int8 as points from wallet_ledger group by 1 order by 1";
    let rows = house.database.own.rows(sums).await;
    let sums = rows.iter().map(|row: &Value| {
        let id = row["source_id"].as_str().expect("an id");
        (id.to_owned(), row["points"].as_i64().expect("points"))
    });
    sums.collect()
}

/// Its exit code and what it prints. Nothing counts as on its way.
async fn reconcile(worker: &Worker) -> (i32, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(["reconcile", "--grace", "0"])
        .env_clear()
        .envs(worker.variables())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the binary runs");
    let told = [ran.stdout, ran.stderr].concat();
    (
        ran.status.code().expect("not killed"),
        String::from_utf8(told).expect("UTF-8"),
    )
}

/// What the runbook says about it.
fn recovery() -> String {
    let runbook = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook.md");
    let runbook = std::fs::read_to_string(runbook).expect("the runbook");
    let (_, chapter) = runbook
        .split_once("\n## Recovery of a lost slot\n")
        .expect("the chapter");
    let (chapter, _) = chapter.split_once("\n## ").expect("another one");
    chapter.to_owned()
}

/// A server that keeps two segments for a slot that nobody reads.
async fn stingy() -> Server {
    let mut server = Server::start().await;
    let (session, connection) = tokio_postgres::connect(&server.url(), NoTls).await.expect("the server");
    tokio::spawn(connection);
    for setting in [
        "alter system set wal_level = 'logical'",
        "alter system set max_slot_wal_keep_size = '32MB'",
        "create role crm_cdc login replication password 'crm'",
    ] {
        session.batch_execute(setting).await.expect("set");
    }
    drop(session);
    server.shut_down();
    server.come_back().await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_slot_is_found_and_recovered_as_the_runbook_says_and_exactly_the_missed_is_awarded() {
    let server = stingy().await;
    let house = House::with(Database::on(&server.url()).await, 1).await;
    house.sql("grant crm_connector to crm_cdc").await;
    house
        .program(
            "UTC",
            &json!({"currency": plain_currency(), "refund_policy": "within_balance"}),
        )
        .await;
    let workflows = Workflows::start(&house).await;
    let mut worker = looking(&house, &workflows.url);
    worker.start().await;
    let connector = house.connector().await;
    for number in 1..=5 {
        house
            .purchase(&format!("p-{number}"), "u-1", "100.00", "completed")
            .await;
    }
    let entries = "select count(*)::text from wallet_ledger";
    house.until("five awards", entries, "5").await;
    house.read_through("wallet_ledger", 5).await;
    workflows.idle().await;
    let before = workflows.events().await.len();

    // A weekend without a connector.
    connector.stop().await;
    house.purchase("p-missed", "u-2", "70.00", "completed").await;
    let name = house.name.clone();
    for _ in 0..6 {
        house
            .sql("select pg_logical_emit_message(false, 'weekend', repeat('x', 100000)), pg_switch_wal()")
            .await;
    }
    house.sql("checkpoint").await;
    let lost = format!("select wal_status from pg_replication_slots where slot_name = '{name}'");
    house.until("the slot lost", &lost, "lost").await;

    let told = until_failed(&house, &worker, "slot lost", "slot.lost", |told| {
        let follow = ["slot.inactive", "slot.retained", "slot.lsn-gone"];
        follow.iter().all(|id| told.says(id, "what", "slot.lost first"))
    })
    .await;
    assert_eq!(reconcile(&worker).await.0, 1, "it is missed");
    // As it stands there: the SQL, then the connector.
    let fix = told.finding("slot.lost")["fix"].as_str().expect("a fix");
    let sql = format!("select pg_drop_replication_slot('{name}');");
    assert!(fix.lines().any(|line| line == sql), "{fix}");
    house.sql(&sql).await;
    connector.resume().await;

    house.until("the missed award", entries, "6").await;
    house.read_through("purchase_ledger", 5 + 6).await;
    workflows.idle().await;
    let events = workflows.events().await;
    let delivered: Vec<&str> = events[before..]
        .iter()
        .filter_map(|event| event["data"]["purchase_id"].as_str())
        .collect();
    assert_eq!(delivered, ["p-missed"], "exactly the missed");
    let mut expected: BTreeSet<(String, i64)> = (1..=5).map(|number| (format!("p-{number}"), 100)).collect();
    expected.insert(("p-missed".to_owned(), 70));
    assert_eq!(booked(&house).await, expected, "none twice");
    let (code, told) = reconcile(&worker).await;
    assert_eq!(code, 0, "{told}");
    let chapter = recovery().replace("crm_cdc_slot", &name);
    for step in [
        &format!("4. `{sql}`"),
        "5. Start it: `curl -X PUT \"$CONNECT_URL/connectors/crm-cdc-source/resume\"`",
        "7. `crm-event-processors reconcile` when lag is gone: exit 0",
    ] {
        assert!(chapter.contains(step), "{step}");
    }
    check::until(&worker, &["--connector", &name], |told| {
        let sound = !told.failed().iter().any(|id| id.starts_with("slot."));
        sound && told.says("slot.lost", "severity", "ok")
    })
    .await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    // The rest goes with its server.
    connector.remove(&house.database).await;
}
