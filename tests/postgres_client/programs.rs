//! Programs from the database: refreshed, kept, and the cut-off beside them.

use std::sync::Arc;

use crm_event_processors::dedupe::RedisUrl;
use crm_event_processors::loyalty::{Lookup, Programs};
use crm_event_processors::pipeline::RuleBook;
use crm_event_processors::postgres::{Client, DatabaseUrl, LedgerError, RulesCache, StartError, Waits};
use crm_event_processors::rows::MerchantId;
use jiff::Timestamp;
use tokio::time::Instant;

use super::server::Server;
use super::{Database, client, within};

const CUT_OFF: &str = "2026-11-20T00:00:00Z";

fn cut_off() -> Option<Timestamp> {
    Some(CUT_OFF.parse().expect("a time"))
}

fn document(merchant: &str, rev: u32) -> String {
    let document = format!(
        r#"{{"merchant_id": "{merchant}", "time_zone": "UTC",
            "versions": [{{"rev": {rev}, "effective_from": "2020-01-01", "refund_policy": "unlimited"}}]}}"#
    );
    format!(
        "insert into documents values ('{merchant}', '{document}') \
         on conflict (merchant_id) do update set document = excluded.document"
    )
}

fn rev(book: &RuleBook, merchant: &str) -> Option<u32> {
    let merchant = MerchantId::new(merchant).expect("not empty");
    match book
        .current()
        .programs
        .version_at(&merchant, "2026-01-01T00:00:00Z".parse().expect("a time"))
    {
        Lookup::Found(version, _) => Some(version.rev),
        Lookup::NoProgram | Lookup::NoVersionYet => None,
    }
}

async fn rule_book(
    client: Arc<Client>,
    cache: Option<RulesCache>,
    given: Option<Timestamp>,
    fixed: Option<Programs>,
) -> Result<RuleBook, StartError> {
    let nobody: Waits<'_> = &|_| {};
    within(crm_event_processors::postgres::rule_book(
        client, cache, given, fixed, nobody,
    ))
    .await
}

/// A database that no other run of a test has kept programs of.
fn new_name() -> String {
    format!("postgres://crm@127.0.0.1/programs_{:016x}", fastrand::u64(..))
}

/// In the stack's Redis, for the database of this address.
fn cache(database: &str) -> RulesCache {
    let redis = RedisUrl::parse(&super::stack("REDIS_URL")).expect("an address");
    let database = DatabaseUrl::parse(database).expect("an address");
    RulesCache::new(&redis, &database).expect("usable")
}

#[tokio::test]
async fn a_program_that_comes_is_seen_by_whoever_needs_newer_rules_and_a_bad_one_harms_nobody_else() {
    let database = Database::create().await;
    database.ask(&document("m", 1)).await;
    let client = Arc::new(client(&database.pooled()));
    let book = rule_book(client, None, cut_off(), None).await.expect("starts");
    assert_eq!((rev(&book, "m"), rev(&book, "n")), (Some(1), None));
    assert_eq!(book.current().effective_from, cut_off());
    database.ask(&document("n", 7)).await;
    // Revision 0 is not understood.
    database.ask(&document("m", 0)).await;
    within(book.newer_than(Instant::now())).await;
    assert_eq!((rev(&book, "m"), rev(&book, "n")), (Some(1), Some(7)));
}

#[tokio::test]
async fn the_cut_off_that_is_stored_first_stays_in_force() {
    let database = Database::create().await;
    let client = Arc::new(client(&database.url()));
    let start = |given| rule_book(Arc::clone(&client), None, given, None);
    assert!(matches!(start(None).await, Err(StartError::NoCutOff)));
    assert_eq!(
        start(cut_off()).await.expect("stores it").current().effective_from,
        cut_off()
    );
    assert_eq!(start(None).await.expect("has it").current().effective_from, cut_off());
    let other = Some("2026-11-21T00:00:00Z".parse().expect("a time"));
    let problem = start(other).await.expect_err("another one").to_string();
    assert!(
        problem.contains("2026-11-21T00:00:00Z") && problem.contains(CUT_OFF),
        "{problem}"
    );
}

#[tokio::test]
async fn programs_of_a_file_are_used_instead_and_the_cut_off_is_the_databases() {
    let database = Database::create().await;
    database.ask(&document("m", 1)).await;
    let file = r#"{"programs": [{"merchant_id": "f", "time_zone": "UTC",
        "versions": [{"rev": 3, "effective_from": "2020-01-01", "refund_policy": "unlimited"}]}]}"#;
    let programs = Programs::from_json(file).expect("valid");
    let client = Arc::new(client(&database.url()));
    let book = rule_book(client, None, cut_off(), Some(programs))
        .await
        .expect("starts");
    assert_eq!((rev(&book, "f"), rev(&book, "m")), (Some(3), None));
    assert_eq!(book.current().effective_from, cut_off());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_while_the_database_is_away_begins_with_the_last_good_programs() {
    let mut server = Server::start().await;
    super::ask(&server.url(), include_str!("stub.sql")).await;
    super::ask(&server.url(), &document("m", 4)).await;
    let name = new_name();
    let start = async |cache, given| rule_book(Arc::new(client(&server.url())), Some(cache), given, None).await;
    let first = start(cache(&name), cut_off()).await.expect("starts");
    assert_eq!(rev(&first, "m"), Some(4));
    drop(first);
    // What the cache does not know.
    super::ask(&server.url(), &document("n", 5)).await;
    server.shut_down();
    let start = async |cache, given| rule_book(Arc::new(client(&server.url())), Some(cache), given, None).await;
    let second = start(cache(&name), None).await.expect("starts");
    assert_eq!((rev(&second, "m"), rev(&second, "n")), (Some(4), None));
    assert_eq!(second.current().effective_from, cut_off());
    let other = Some("2026-11-21T00:00:00Z".parse().expect("a time"));
    let refused = start(cache(&name), other).await;
    assert!(matches!(refused, Err(StartError::OtherCutOff { .. })), "{refused:?}");
    // Nobody knows of a merchant that is not in it, until the database is back.
    let fetched = Instant::now();
    let newer = {
        let second = second.clone();
        tokio::spawn(async move { second.newer_than(fetched).await })
    };
    server.come_back().await;
    within(newer).await.expect("ends");
    assert_eq!((rev(&second, "m"), rev(&second, "n")), (Some(4), Some(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_neither_waits_for_the_database() {
    // Another database's programs, in the same Redis.
    let other = Database::create().await;
    other.ask(&document("m", 1)).await;
    let book = rule_book(
        Arc::new(client(&other.url())),
        Some(cache(&other.url())),
        cut_off(),
        None,
    )
    .await;
    assert_eq!(book.expect("starts").current().programs.merchants(), 1);
    let mut server = Server::start().await;
    super::ask(&server.url(), include_str!("stub.sql")).await;
    server.shut_down();
    let url = server.url();
    let cache = cache(&new_name());
    let (said_tx, mut said) = tokio::sync::mpsc::unbounded_channel();
    let starting = tokio::spawn(async move {
        let client = Arc::new(client(&url));
        let waits = |error: &LedgerError| said_tx.send(error.to_string()).expect("somebody listens");
        within(crm_event_processors::postgres::rule_book(
            client,
            Some(cache),
            cut_off(),
            None,
            &waits,
        ))
        .await
    });
    // It says what it waits for.
    let error = within(said.recv()).await.expect("an error");
    assert!(error.contains("cannot answer now"), "{error}");
    server.come_back().await;
    let book = starting.await.expect("no panic").expect("starts");
    assert_eq!(book.current().programs.merchants(), 0);
}

#[tokio::test]
async fn a_database_that_refuses_us_ends_the_start() {
    let database = Database::create().await;
    database.ask("drop function crm_events.programs_documents()").await;
    let client = Arc::new(client(&database.url()));
    let refused = rule_book(client, None, cut_off(), None).await;
    assert!(
        matches!(&refused, Err(StartError::Database(error)) if error.to_string().contains("42883")),
        "{refused:?}"
    );
}
