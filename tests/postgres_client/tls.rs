//! TLS with certificates that are checked.

use crm_event_processors::postgres::{Client, DatabaseUrl, Ledger as _, LedgerError};

use super::{Database, assert_configuration, ledger, stack};

/// The stack's own authority signed for `localhost` and 127.0.0.1.
fn url(database: &Database, parameters: &str) -> String {
    format!("{}?{parameters}", database.url())
}

fn ca() -> String {
    format!("sslrootcert={}", stack("POSTGRES_CA_FILE"))
}

#[tokio::test]
async fn with_the_authority_named_a_connection_is_encrypted() {
    let database = Database::create().await;
    let statement = "create or replace function crm_events.announced(ids text[]) returns void language plpgsql as $$ begin \
                     if not (select ssl from pg_stat_ssl where pid = pg_backend_pid()) then raise 'not encrypted'; end if; \
                     end $$";
    database.ask(statement).await;
    let plain = ledger(&database.url()).announced(&[]).await;
    assert_eq!(plain, Err(LedgerError::Rejected("P0001 not encrypted".to_owned())));
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = url(&database, &format!("sslmode={mode}&{}", ca()));
        assert_eq!(ledger(&url).announced(&[]).await, Ok(()), "{mode}");
        let by_name = url.replace("@127.0.0.1:", "@localhost:");
        assert_eq!(ledger(&by_name).announced(&[]).await, Ok(()), "{mode}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let database = Database::create().await;
    let answer = ledger(&url(&database, "sslmode=require")).announced(&[]).await;
    assert_configuration(&answer, "UnknownIssuer");
}

#[tokio::test]
async fn another_host_than_the_certificate_names_is_refused() {
    let database = Database::create().await;
    let url = url(&database, &format!("hostaddr=127.0.0.1&{}", ca()));
    // Not this machine by its name, so certificates are checked without being asked for.
    let answer = ledger(&url.replace("@127.0.0.1:", "@database.example:"))
        .announced(&[])
        .await;
    assert_configuration(&answer, "not valid for name");
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let pooled = format!("{}?sslmode=require&{}", stack("POOLER_URL"), ca());
    assert_configuration(&ledger(&pooled).announced(&[]).await, "does not support TLS");
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let url = |file: &str| DatabaseUrl::parse(&format!("postgres://crm@database.example/crm?sslrootcert={file}"));
    for (file, says) in [("/nowhere/ca.pem", "/nowhere/ca.pem"), ("/dev/null", "no certificate")] {
        let made = Client::new(&url(file).expect("an address"));
        assert_configuration(&made, says);
    }
}
