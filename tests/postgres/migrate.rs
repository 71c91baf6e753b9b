//! `migrate`, as people call it.

use std::process::Stdio;

use crm_event_processors::postgres::migrations::MIGRATIONS;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::Config;

use super::{Database, Purchase, Session, connect, empty_database};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn url(config: &Config) -> String {
    let port = config.get_ports()[0];
    let name = config.get_dbname().expect("a name");
    format!("postgres://crm:crm@127.0.0.1:{port}/{name}")
}

async fn migrate(config: &Config, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("migrate")
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", url(config))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

async fn names(session: &Session) -> Vec<Value> {
    session
        .rows("select name from crm_events.migrations order by name")
        .await
}

async fn drop_database(config: &Config) {
    super::drop_database(config.get_dbname().expect("a name")).await;
}

#[tokio::test]
async fn an_empty_database_gets_everything_once_and_a_dry_run_gives_nothing() {
    let (_, config) = empty_database().await;
    let session = connect(&config).await;
    let dry = migrate(&config, &["--dry-run"]).await;
    assert_eq!(
        (dry.code, dry.out.lines().count()),
        (0, MIGRATIONS.len()),
        "{}",
        dry.err
    );
    assert!(dry.out.starts_with("would be applied: 0001_ledgers\n"), "{}", dry.out);
    assert_eq!(
        session.text("select to_regclass('crm_events.migrations')::text").await,
        "null"
    );
    let first = migrate(&config, &["--format", "json"]).await;
    assert_eq!(first.code, 0, "{}", first.err);
    let report: Value = serde_json::from_str(&first.out).expect("JSON");
    let all: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.name).collect();
    assert_eq!(report, json!({"dry_run": false, "applied": all}));
    assert_eq!(names(&session).await.len(), MIGRATIONS.len());
    let again = migrate(&config, &[]).await;
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "nothing to apply: the schema is that of this binary\n")
    );
    drop_database(&config).await;
}

#[tokio::test]
async fn two_who_migrate_at_once_apply_everything_once() {
    let (_, config) = empty_database().await;
    let (one, two) = tokio::join!(migrate(&config, &[]), migrate(&config, &[]));
    assert_eq!((one.code, two.code), (0, 0), "{} {}", one.err, two.err);
    let applied = |ran: &Ran| ran.out.lines().filter(|line| line.starts_with("applied: ")).count();
    assert_eq!(applied(&one) + applied(&two), MIGRATIONS.len());
    drop_database(&config).await;
}

#[tokio::test]
async fn a_file_that_was_changed_or_a_newer_database_is_refused() {
    let db = Database::new().await;
    db.own
        .run("insert into crm_events.migrations values ('9999_future', 'x')")
        .await;
    let newer = migrate(&db.config, &[]).await;
    assert_eq!(newer.code, 78);
    assert!(
        newer.err.contains("9999_future, which is newer than this binary"),
        "{}",
        newer.err
    );
    db.own
        .run(
            "delete from crm_events.migrations where name = '9999_future'; \
             update crm_events.migrations set checksum = 'other' where name = '0005_basis'",
        )
        .await;
    for arguments in [&["--dry-run"][..], &[]] {
        let changed = migrate(&db.config, arguments).await;
        assert_eq!(changed.code, 78);
        assert!(
            changed.err.contains("migration 0005_basis was changed after"),
            "{}",
            changed.err
        );
    }
    db.done().await;
}

#[tokio::test]
async fn ledgers_that_lack_a_column_are_named_and_left_alone() {
    let (_, config) = empty_database().await;
    let session = connect(&config).await;
    session
        .run("create table purchase_ledger (id text primary key, user_id text, merchant_id text, final_amount numeric, status text)")
        .await;
    let ran = migrate(&config, &[]).await;
    assert_eq!(ran.code, 78, "{}", ran.out);
    for missing in [
        "0001_ledgers",
        "public.purchase_ledger.completed_at",
        "public.purchase_ledger.earn_currency",
    ] {
        assert!(ran.err.contains(missing), "{}", ran.err);
    }
    assert_eq!(
        session.text("select to_regclass('wallet_ledger')::text").await,
        "null",
        "rolled back as a whole"
    );
    assert_eq!(names(&session).await, Vec::<Value>::new());
    session
        .run(
            "drop table purchase_ledger; create table wallet_ledger (id text primary key, user_id text, merchant_id text, \
             amount bigint, kind text, source_type text, source_id text, created_at timestamptz)",
        )
        .await;
    let ran = migrate(&config, &[]).await;
    assert!(
        ran.err.contains("public.wallet_ledger.id has no default"),
        "{}",
        ran.err
    );
    drop_database(&config).await;
}

#[tokio::test]
async fn a_publication_that_is_there_gains_what_it_lacks() {
    let (_, config) = empty_database().await;
    let session = connect(&config).await;
    session
        .run("create table other (id int primary key); create publication crm_cdc_publication for table other")
        .await;
    assert_eq!(migrate(&config, &[]).await.code, 0);
    let published = "select count(*)::text from pg_publication_tables where pubname = 'crm_cdc_publication'";
    assert_eq!(session.text(published).await, "9");
    let identity = "select string_agg(relname, ' ' order by relname) from pg_class where relreplident = 'f'";
    assert_eq!(
        session.text(identity).await,
        "codes mission_claims purchase_ledger referral_ledger"
    );
    drop_database(&config).await;
}

#[tokio::test]
async fn seeding_says_what_is_settled_and_lists_what_is_open() {
    let db = Database::new().await;
    for id in ["booked", "open"] {
        db.own.run(&Purchase::new(id).of("secret-user").sql()).await;
    }
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at) \
             values ('secret-user', 'm-1', 95, 'earn', 'purchase', 'booked', now())",
        )
        .await;
    let cut_off = ["--seed-before", "2026-06-01T00:00:00Z"];
    let dry = migrate(&db.config, &[&cut_off[..], &["--dry-run"]].concat()).await;
    assert!(
        dry.out.contains("would be seeded: 1 settled, 1 open"),
        "{} {}",
        dry.out,
        dry.err
    );
    assert_eq!(db.own.text("select count(*)::text from crm_events.effects").await, "0");
    let seeded = migrate(&db.config, &cut_off).await;
    assert_eq!(seeded.code, 0, "{}", seeded.err);
    assert!(seeded.out.contains("\nseeded: 1 settled, 1 open\n"), "{}", seeded.out);
    assert!(
        seeded.out.contains("100.00") && !seeded.out.contains("secret-user"),
        "{}",
        seeded.out
    );
    let again = migrate(&db.config, &[&cut_off[..], &["--format", "json"]].concat()).await;
    let report: Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!(
        (&report["seeded"]["settled"], &report["seeded"]["open"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        report["seeded"]["open_purchases"][0]["purchase_id"], "open",
        "still open"
    );
    // The cut-off is one and the same for ever.
    let stored = "select crm_events.rfc3339(crm_events.effective_from(null))";
    assert_eq!(db.own.text(stored).await, "2026-06-01T00:00:00.000000Z");
    let other = migrate(&db.config, &["--seed-before", "2026-07-01T00:00:00Z"]).await;
    assert_eq!(other.code, 78);
    assert!(
        other.err.contains("cut-off of this database is 2026-06-01"),
        "{}",
        other.err
    );
    assert_eq!(migrate(&db.config, &["--seed-before", "yesterday"]).await.code, 64);
    db.done().await;
}

#[tokio::test]
async fn a_database_that_is_away_or_refuses_us_is_told_apart_and_nothing_secret_is_printed() {
    let db = Database::new().await;
    let mut away = db.config.clone();
    away = {
        let mut other = Config::new();
        other
            .host("127.0.0.1")
            .port(9)
            .dbname(away.get_dbname().expect("a name"));
        other
    };
    let ran = migrate(&away, &[]).await;
    assert_eq!(ran.code, 69, "{}", ran.err);
    let mut missing = db.config.clone();
    missing.dbname("crm_not_there");
    let ran = migrate(&missing, &[]).await;
    assert_eq!(ran.code, 78, "{}", ran.err);
    assert!(!ran.err.contains("crm:crm"), "{}", ran.err);
    db.done().await;
}

/// A wallet whose application keeps balances beside it.
const HOOKED: &str = "
    create table balances (user_id text primary key, points bigint not null);
    create function keep_balance() returns trigger language plpgsql as $$ begin
        insert into balances values (new.user_id, new.amount)
        on conflict (user_id) do update set points = balances.points + excluded.points;
        return new;
    end $$;
    create function entry_id() returns text language sql as $$ select 'e-' || gen_random_uuid() $$;
    create table wallet_ledger (id text primary key default entry_id(), user_id text, merchant_id text, amount bigint, kind text,
        source_type text, source_id text, created_at timestamptz);
    create trigger balance after insert on wallet_ledger for each row execute function keep_balance();
    create trigger guard before delete on wallet_ledger for each row execute function keep_balance();";

#[tokio::test]
async fn what_would_not_find_its_tables_when_points_are_booked_is_named() {
    let (_, config) = empty_database().await;
    let session = connect(&config).await;
    session.run(HOOKED).await;
    let ran = migrate(&config, &["--format", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let warnings: Vec<&str> = report["warnings"]
        .as_array()
        .expect("warnings")
        .iter()
        .map(|one| one.as_str().expect("a text"))
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("wallet_ledger: default of column id calls public.entry_id,"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("wallet_ledger: trigger balance calls public.keep_balance,"),
        "{warnings:?}"
    );
    // It is so, and what the warning says helps.
    let purchase = Purchase::new("p");
    session.run(&purchase.sql()).await;
    let event = purchase.scheduled(5, super::CREATED, "unlimited");
    session.call("apply_award", &event).await;
    let settle = "select crm_events.settle_award('award:p')";
    assert_eq!(session.refusal(settle).await, "42P01");
    session
        .run(
            "alter function keep_balance() set search_path = public, pg_temp; \
             alter function entry_id() set search_path = public, pg_temp",
        )
        .await;
    session.run(settle).await;
    assert_eq!(session.text("select points::text from balances").await, "5");
    let ran = migrate(&config, &[]).await;
    assert_eq!(ran.out, "nothing to apply: the schema is that of this binary\n");
    drop_database(&config).await;
}
