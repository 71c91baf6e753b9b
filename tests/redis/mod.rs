//! The Redis dedupe store against real servers.
//!
//! What only needs keys of its own runs on the stack's Redis; what breaks a server runs on one that the test starts itself.

pub(crate) mod server;

use std::path::Path;
use std::time::{Duration, Instant};

use crm_event_processors::dedupe::{Claim, ClaimKey, Dedupe as _, DedupeError, RedisDedupe, RedisSettings, RedisUrl};
use crm_event_processors::rows::{ChangeVersion, RowId, Table};

use self::server::Server;
use crate::PATIENCE;

/// `REDIS_URL` of the running stack.
fn stack_url() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("stack/.run/env");
    let env = std::fs::read_to_string(path).expect("stack/.run/env is missing: run `make stack-up` first");
    let url = env.lines().find_map(|line| line.strip_prefix("REDIS_URL="));
    url.expect("REDIS_URL in stack/.run/env: run `make stack-up` again")
        .trim()
        .to_owned()
}

/// No lease ends and no answer is late on a busy machine.
fn settings(url: &str, owner: &str) -> RedisSettings {
    RedisSettings {
        lease: Duration::from_secs(300),
        response_timeout: PATIENCE,
        ..RedisSettings::new(RedisUrl::parse(url).expect("an address"), owner.to_owned())
    }
}

fn dedupe(url: &str, owner: &str) -> RedisDedupe {
    RedisDedupe::new(&settings(url, owner)).expect("settings")
}

/// A key that no other run has used.
fn fresh_key() -> ClaimKey {
    key(&format!("{:016x}", fastrand::u64(..)))
}

fn key(row: &str) -> ClaimKey {
    let row = RowId::new(row).expect("not empty");
    ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(1))
}

async fn claim(dedupe: &RedisDedupe, key: &ClaimKey) -> Result<Claim, DedupeError> {
    let claims = patiently(async || dedupe.claim(std::slice::from_ref(key)).await).await?;
    Ok(claims[0])
}

/// Asks again while there is no answer in time: a busy machine may take longer to connect than the three seconds it is given.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, DedupeError>) -> Result<T, DedupeError> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(DedupeError::Unavailable(text)) if text.contains("no answer in time") && begun.elapsed() < PATIENCE => {
            }
            answer => return answer,
        }
    }
}

fn assert_unavailable<T: std::fmt::Debug>(result: &Result<T, DedupeError>, says: &str) {
    assert!(
        matches!(result, Err(DedupeError::Unavailable(text)) if text.contains(says)),
        "{result:?} says {says}"
    );
}

fn assert_configuration<T: std::fmt::Debug>(result: &Result<T, DedupeError>, says: &str) {
    assert!(
        matches!(result, Err(DedupeError::Configuration(text)) if text.contains(says)),
        "{result:?} says {says}"
    );
}

#[tokio::test]
async fn a_key_is_free_then_ours_then_foreign_then_done() {
    let url = stack_url();
    let (first, second) = (dedupe(&url, "first"), dedupe(&url, "second"));
    let key = fresh_key();
    assert_eq!(claim(&first, &key).await, Ok(Claim::Granted));
    assert_eq!(claim(&first, &key).await, Ok(Claim::Granted));
    assert_eq!(claim(&second, &key).await, Ok(Claim::Foreign));
    // A confirm records a fact, whoever holds the lease.
    assert_eq!(second.confirm(std::slice::from_ref(&key)).await, Ok(()));
    assert_eq!(claim(&first, &key).await, Ok(Claim::Done));
    assert_eq!(claim(&second, &key).await, Ok(Claim::Done));
}

#[tokio::test]
async fn one_pipeline_gives_mixed_answers_in_the_order_of_the_keys() {
    let url = stack_url();
    let (first, second) = (dedupe(&url, "first"), dedupe(&url, "second"));
    let [free, own, foreign, done] = [(); 4].map(|()| fresh_key());
    claim(&first, &own).await.expect("own");
    claim(&second, &foreign).await.expect("foreign");
    second.confirm(std::slice::from_ref(&done)).await.expect("done");
    let claims = first.claim(&[done, foreign, free.clone(), own, free]).await;
    use Claim::{Done, Foreign, Granted};
    assert_eq!(claims, Ok(vec![Done, Foreign, Granted, Granted, Granted]));
}

#[tokio::test]
async fn a_batch_beyond_one_pipeline_keeps_its_order() {
    let dedupe = dedupe(&stack_url(), "us");
    let keys: Vec<ClaimKey> = (0..1_203).map(|_| fresh_key()).collect();
    let odd: Vec<ClaimKey> = keys.iter().skip(1).step_by(2).cloned().collect();
    patiently(async || dedupe.confirm(&odd).await).await.expect("confirms");
    let expected = (0..keys.len()).map(|index| if index % 2 == 1 { Claim::Done } else { Claim::Granted });
    assert_eq!(dedupe.claim(&keys).await, Ok(expected.collect()));
    assert_eq!(dedupe.claim(&[]).await, Ok(vec![]));
}

#[tokio::test]
async fn leases_and_windows_carry_their_time() {
    let server = Server::start(&[]);
    let mut brief = settings(&server.url(), "first");
    brief.lease = Duration::from_millis(100);
    let first = RedisDedupe::new(&brief).expect("settings");
    let (leased, done) = (fresh_key(), fresh_key());
    claim(&first, &leased).await.expect("claims");
    let begun = Instant::now();
    first.confirm(std::slice::from_ref(&done)).await.expect("confirms");
    let window = server.ask(&["PTTL", done.as_str()]).await;
    let window: u128 = window.parse().expect("milliseconds");
    // The server's clock is its own.
    let passed = begun.elapsed().as_millis() + 1_000;
    assert!(
        window <= 300_000 && window + passed >= 300_000,
        "{window} after {passed}"
    );
    // Asked again and again until the server says so: no guess at its clock.
    let second = dedupe(&server.url(), "second");
    while claim(&second, &leased).await.expect("claims") == Claim::Foreign {}
    assert_eq!(claim(&first, &leased).await, Ok(Claim::Foreign));
}

#[tokio::test]
async fn lost_keys_cost_a_repeat() {
    let server = Server::start(&[]);
    let dedupe = dedupe(&server.url(), "us");
    let key = fresh_key();
    patiently(async || dedupe.confirm(std::slice::from_ref(&key)).await)
        .await
        .expect("confirms");
    server.ask(&["FLUSHALL"]).await;
    assert_eq!(claim(&dedupe, &key).await, Ok(Claim::Granted));
}

#[tokio::test]
async fn a_full_server_is_unavailable_and_recovers_on_the_same_connection() {
    let server = Server::start(&[]);
    let dedupe = dedupe(&server.url(), "us");
    patiently(async || dedupe.connect().await).await.expect("connects");
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_unavailable(&claim(&dedupe, &fresh_key()).await, "OOM");
    assert_unavailable(&dedupe.confirm(&[fresh_key()]).await, "OOM");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(claim(&dedupe, &fresh_key()).await, Ok(Claim::Granted));
}

#[tokio::test]
async fn a_read_only_server_is_unavailable() {
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]);
    let dedupe = dedupe(&server.url(), "us");
    assert_unavailable(&claim(&dedupe, &fresh_key()).await, "READONLY");
}

#[tokio::test]
async fn a_missing_or_wrong_password_is_configuration_and_is_not_named() {
    let server = Server::start(&["--requirepass", "right"]);
    assert_configuration(&claim(&dedupe(&server.url(), "us"), &fresh_key()).await, "NOAUTH");
    let wrong = dedupe(&server.url_with("default:sentinel-password"), "us");
    let refused = patiently(async || wrong.connect().await).await;
    assert_configuration(&refused, "WRONGPASS");
    assert!(!format!("{refused:?} {wrong:?}").contains("sentinel"));
    let right = dedupe(&server.url_with("default:right"), "us");
    assert_eq!(claim(&right, &fresh_key()).await, Ok(Claim::Granted));
}

#[tokio::test]
async fn an_account_without_the_right_to_write_is_configuration() {
    let server = Server::start(&[]);
    let account = ["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get"];
    server.ask(&account).await;
    let dedupe = dedupe(&server.url_with("reader:pw"), "us");
    // INFO is denied too: the version check must not stand in the way of the real reason.
    assert_configuration(&claim(&dedupe, &fresh_key()).await, "NOPERM");
    server.ask(&["ACL", "SETUSER", "reader", "+set"]).await;
    assert_eq!(claim(&dedupe, &fresh_key()).await, Ok(Claim::Granted));
    let warning = patiently(async || dedupe.policy_warning().await).await.expect("asked");
    assert!(warning.is_some_and(|text| text.contains("does not tell")));
}

#[tokio::test]
async fn a_database_the_server_does_not_have_is_configuration() {
    let server = Server::start(&[]);
    let dedupe = dedupe(&format!("{}/99", server.url()), "us");
    assert_configuration(&patiently(async || dedupe.connect().await).await, "login refused");
}

#[tokio::test]
async fn a_killed_server_is_unavailable_until_it_is_back() {
    let mut server = Server::start(&[]);
    let dedupe = dedupe(&server.url(), "us");
    let key = fresh_key();
    assert_eq!(claim(&dedupe, &key).await, Ok(Claim::Granted));
    server.kill();
    assert_unavailable(&claim(&dedupe, &key).await, "");
    assert_unavailable(&dedupe.confirm(std::slice::from_ref(&key)).await, "");
    server.restart();
    assert_eq!(claim(&dedupe, &key).await, Ok(Claim::Granted));
    assert_eq!(dedupe.confirm(std::slice::from_ref(&key)).await, Ok(()));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unavailable_and_the_next_call_reconnects() {
    let server = Server::start(&[]);
    let mut impatient = settings(&server.url(), "us");
    impatient.response_timeout = Duration::from_millis(200);
    let dedupe = RedisDedupe::new(&impatient).expect("settings");
    patiently(async || dedupe.connect().await).await.expect("connects");
    let key = fresh_key();
    server.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    assert_unavailable(&dedupe.claim(std::slice::from_ref(&key)).await, "no answer in time");
    server.ask(&["CLIENT", "UNPAUSE"]).await;
    // Whether or not the first one was executed: the lease is ours.
    assert_eq!(claim(&dedupe, &key).await, Ok(Claim::Granted));
}

#[tokio::test]
async fn callers_that_come_together_share_one_connection() {
    let server = Server::start(&[]);
    let dedupe = dedupe(&server.url(), "us");
    let key = fresh_key();
    let claims = futures::future::join_all((0..50).map(|_| claim(&dedupe, &key))).await;
    assert!(claims.iter().all(|claim| *claim == Ok(Claim::Granted)));
    let clients = server.ask(&["CLIENT", "LIST"]).await;
    // The other one is the test's own.
    assert_eq!(clients.lines().filter(|line| !line.is_empty()).count(), 2, "{clients}");
}

#[tokio::test]
async fn a_server_that_may_evict_our_keys_is_warned_about() {
    let server = Server::start(&[]);
    let dedupe = dedupe(&server.url(), "us");
    assert_eq!(patiently(async || dedupe.policy_warning().await).await, Ok(None));
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let warning = patiently(async || dedupe.policy_warning().await).await.expect("asked");
    assert!(warning.is_some_and(|text| text.contains("volatile-ttl")));
    // The same where CONFIG is denied.
    server.ask(&["ACL", "SETUSER", "default", "-config"]).await;
    let warning = patiently(async || dedupe.policy_warning().await).await.expect("asked");
    assert!(warning.is_some_and(|text| text.contains("volatile-ttl")));
}
