//! What `check` sees of a database, on a real one.

use std::time::Duration;

use crm_event_processors::clock::SystemClock;
use crm_event_processors::postgres::DatabaseUrl;
use crm_event_processors::postgres::survey::{CALLED, Schema, Source, survey};

use super::Database;
use crate::PATIENCE;
use crate::postgres_client::server::Server;

async fn seen(db: &Database) -> Source {
    let url = DatabaseUrl::parse(&db.url()).expect("an address");
    survey(&url, &SystemClock, PATIENCE)
        .await
        .expect("a database that answers")
}

#[tokio::test]
async fn the_functions_that_it_asks_about_are_those_that_the_worker_was_granted() {
    let db = Database::new().await;
    let granted = "select string_agg(p.proname, ',' order by p.proname) from pg_proc p \
                   where p.pronamespace = 'crm_events'::regnamespace and has_function_privilege('crm_worker', p.oid, 'execute')";
    let granted = db.own.text(granted).await;
    assert_eq!(granted.split(',').collect::<Vec<_>>(), CALLED);
    db.done().await;
}

#[tokio::test]
async fn a_database_as_migrate_makes_it_lacks_nothing() {
    let db = Database::new().await;
    let source = seen(&db).await;
    assert_eq!(source.schema, Schema::Pending(Vec::new()));
    let roles = source.roles.expect("seen");
    assert_eq!(roles.may_not_call, Some(Vec::new()));
    assert_eq!(roles.not_granted, Vec::<String>::new());
    let tables = source.tables.expect("seen");
    assert_eq!(tables.len(), 8);
    assert!(
        tables.iter().all(|table| table.identity == "f" || table.has_key),
        "{tables:?}"
    );
    assert_eq!(source.publications.expect("seen")[0].tables.len(), 8);
    db.done().await;
}

#[tokio::test]
async fn a_grant_that_was_taken_and_a_later_migration_are_seen() {
    let db = Database::new().await;
    db.own
        .run(
            "revoke execute on function crm_events.mark_dead(jsonb) from crm_worker; \
             insert into crm_events.migrations (name, checksum) values ('9999_later', 'x')",
        )
        .await;
    let source = seen(&db).await;
    // The session is the owner's, who may call everything.
    let roles = source.roles.expect("seen");
    assert_eq!(roles.not_granted, ["mark_dead"]);
    assert!(
        matches!(&source.schema, Schema::Newer(why) if why.contains("9999_later")),
        "{:?}",
        source.schema
    );
    db.done().await;
}

#[tokio::test]
async fn row_security_hides_rows_from_a_login_that_may_read_the_table() {
    // Only a superuser makes a login that replicates, and roles belong to the server.
    let server = Server::start().await;
    let db = Database::on(&server.url()).await;
    let login = "crm_cdc";
    db.own
        .run(&format!(
            "create role {login} login replication; grant crm_connector to {login}"
        ))
        .await;
    let url = DatabaseUrl::parse(&server.url()).expect("an address");
    let of = async || {
        let source = survey(&url, &SystemClock, PATIENCE)
            .await
            .expect("a database that answers");
        let roles = source.roles.expect("seen");
        let found = roles.replicate.into_iter().find(|known| known.name == login);
        found
            .map(|known| (known.reads_all, known.is_kept_from_rows))
            .expect("it may replicate")
    };
    assert_eq!(of().await, (true, false));
    db.own.run("alter table codes enable row level security").await;
    assert_eq!(of().await, (true, true));
    db.own.run(&format!("alter role {login} bypassrls")).await;
    assert_eq!(of().await, (true, false));
    db.own.run("revoke select on codes from crm_connector").await;
    assert_eq!(of().await, (false, false));
}

#[tokio::test]
async fn a_table_that_somebody_has_locked_costs_only_its_own_answer() {
    let db = Database::new().await;
    let other = db.session().await;
    other
        .run("begin; lock table dbz_heartbeat in access exclusive mode")
        .await;
    let url = DatabaseUrl::parse(&db.url()).expect("an address");
    // What nobody holds up is answered long before.
    let source = survey(&url, &SystemClock, Duration::from_secs(10))
        .await
        .expect("a database that answers");
    assert_eq!(source.heartbeat, Err("no answer in time".to_owned()));
    assert_eq!(source.schema, Schema::Pending(Vec::new()));
    assert!(source.slots.is_ok() && source.tables.is_ok() && source.roles.is_ok() && source.cut_off.is_ok());
    drop(other);
    db.done().await;
}
