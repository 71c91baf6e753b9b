//! Statements, errors, poolers and servers that go.

use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::postgres::{Ledger as _, LedgerError, MAX_CONNECTIONS, PostgresLedger};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::Server;
use super::{Database, assert_configuration, assert_unavailable, client, ledger, within};
use crate::PATIENCE;

/// Asks again where a busy machine used up a short patience; `sleep` is there to be cut off.
async fn asked(ledger: &PostgresLedger, id: &str) -> Result<(), LedgerError> {
    let asking = async {
        loop {
            match ledger.announced(&[id]).await {
                Err(LedgerError::TooLong(_)) if id != "sleep" => {}
                Err(LedgerError::Unavailable(text)) if text.contains("no answer in time") => {}
                answer => return answer,
            }
        }
    };
    within(asking).await
}

#[tokio::test]
async fn many_calls_at_once_share_few_sessions_of_a_pooler_in_transaction_mode() {
    let database = Database::create().await;
    let ledger = Arc::new(ledger(&database.pooled()));
    let calls = (0..2_000).map(|call| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let id = if call % 7 == 0 { "state:P0001" } else { "a" };
            (id, ledger.announced(&[id]).await)
        })
    });
    for call in futures::future::join_all(calls).await {
        match call.expect("no panic") {
            ("a", answer) => assert_eq!(answer, Ok(())),
            (_, answer) => assert!(matches!(answer, Err(LedgerError::Rejected(_))), "{answer:?}"),
        }
    }
    // What the server was asked by the pooler for this database: four sessions at most, nothing prepared under a name.
    let sessions = database
        .ask("select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await;
    let sessions: usize = sessions[0].parse().expect("a number");
    assert!((1..=4).contains(&sessions), "{sessions}");
}

#[tokio::test]
async fn connections_are_bounded_and_used_again() {
    let database = Database::create().await;
    let ledger = Arc::new(ledger(&database.url()));
    for _round in 0..3 {
        let ids = ["a"];
        let calls = futures::future::join_all((0..200).map(|_| ledger.announced(&ids)));
        assert!(calls.await.iter().all(Result::is_ok));
    }
    let own = "select count(*) from pg_stat_activity where datname = current_database() \
               and application_name = 'crm-event-processors'";
    let sessions: usize = database.ask(own).await[0].parse().expect("a number");
    assert!((1..=MAX_CONNECTIONS).contains(&sessions), "{sessions}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_and_others_do_not_wait_for_it() {
    let database = Database::create().await;
    for url in [database.url(), database.pooled()] {
        let ledger = PostgresLedger::new(Arc::new(client(&url).with_patience(Duration::from_millis(300))));
        let (late, prompt) = tokio::join!(asked(&ledger, "sleep"), asked(&ledger, "a"));
        assert!(
            matches!(&late, Err(LedgerError::TooLong(text)) if text.contains("57014")),
            "{late:?}"
        );
        assert_eq!(prompt, Ok(()));
        // Nothing goes on behind our back, and nothing stays set in the session of the next call.
        let asleep =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
        assert_eq!(database.ask(asleep).await, ["0"]);
        for _ in 0..20 {
            assert_eq!(asked(&ledger, "a").await, Ok(()));
        }
        assert_eq!(super::ask(&url, "show statement_timeout").await, ["0"]);
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_unavailable() {
    let database = Database::create().await;
    let proxy = Proxy::before(&database.url()).await;
    let url = database.url().replace(&proxy.behind, &proxy.address);
    let ledger = PostgresLedger::new(Arc::new(client(&url).with_patience(Duration::from_millis(300))));
    assert_eq!(asked(&ledger, "a").await, Ok(()));
    proxy.silent.send_replace(true);
    assert_unavailable(&ledger.announced(&["a"]).await, "no answer in time");
    proxy.silent.send_replace(false);
    assert_eq!(asked(&ledger, "a").await, Ok(()));
}

/// Passes bytes on, until it is told to swallow what the server says.
struct Proxy {
    behind: String,
    address: String,
    silent: watch::Sender<bool>,
}

impl Proxy {
    async fn before(url: &str) -> Self {
        let behind = url
            .split(['@', '/'])
            .nth(3)
            .expect("user:password@host:port")
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let silent = watch::Sender::new(false);
        let (server, told) = (behind.clone(), silent.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server is there");
                let mut told = told.clone();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                        if told.wait_for(|silent| !silent).await.is_err()
                            || to_client.write_all(&bytes[..read]).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            behind,
            address,
            silent,
        }
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_no_connection_in_use() {
    let database = Database::create().await;
    let ledger = ledger(&database.url());
    for _ in 0..MAX_CONNECTIONS * 2 {
        let given_up = tokio::time::timeout(Duration::from_millis(5), ledger.announced(&["sleep"])).await;
        assert!(given_up.is_err());
    }
    assert_eq!(ledger.announced(&["a"]).await, Ok(()));
}

#[tokio::test]
async fn what_the_server_raises_is_told_by_its_state_and_without_values() {
    let database = Database::create().await;
    let ledger = ledger(&database.pooled());
    type Kind = fn(String) -> LedgerError;
    let unavailable: Kind = LedgerError::Unavailable;
    for (state, kind) in [
        ("40001", unavailable),
        ("40P01", unavailable),
        ("53200", unavailable),
        ("25006", unavailable),
        ("57014", LedgerError::TooLong),
        ("42501", LedgerError::Configuration),
        ("23514", LedgerError::Rejected),
        ("P0001", LedgerError::Rejected),
        ("XX001", LedgerError::Unknown),
    ] {
        let answer = ledger.announced(&[&format!("state:{state}")]).await;
        assert_eq!(answer, Err(kind(format!("{state} as asked"))));
    }
    let quoted = ledger.announced(&["quote"]).await;
    let text = "22P02 invalid input syntax for type bigint";
    assert_eq!(quoted, Err(LedgerError::Rejected(text.to_owned())));
}

#[tokio::test]
async fn the_timeout_is_ours_whatever_the_database_sets() {
    let database = Database::create().await;
    let set = format!("alter database {} set statement_timeout = '1h'", database.name);
    database.ask(&set).await;
    let ledger = ledger(&database.url());
    assert_eq!(ledger.announced(&["timeout:10s"]).await, Ok(()));
}

#[tokio::test]
async fn who_is_not_let_in_and_what_is_not_there_is_configuration() {
    let database = Database::create().await;
    for url in [database.url(), database.pooled()] {
        let wrong_password = ledger(&url.replace("crm:crm@", "crm:sentinel@"))
            .announced(&["a"])
            .await;
        assert_configuration(&wrong_password, "authentication failed");
        assert!(!format!("{wrong_password:?}").contains("sentinel"));
        let nobody = ledger(&url.replace("crm:crm@", "nobody:crm@")).announced(&["a"]).await;
        assert_configuration(&nobody, "");
        let no_database = ledger(&format!("{url}_not")).announced(&["a"]).await;
        assert_configuration(&no_database, "does not exist");
        let missing = ledger(&url).announcement_rejected("a", "b").await;
        assert_configuration(&missing, "42883");
    }
    // The stack's own database may have the functions or not; a schema that is not there is the same.
    database.ask("drop schema crm_events cascade").await;
    assert_configuration(&ledger(&database.url()).announced(&["a"]).await, "3F000");
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    assert_unavailable(
        &ledger("postgres://crm:crm@127.0.0.1:9/crm").announced(&["a"]).await,
        "",
    );
    assert_unavailable(
        &ledger("postgres://crm:crm@no-such-host.invalid/crm")
            .announced(&["a"])
            .await,
        "",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_unavailable_and_then_everything_goes_on() {
    let mut server = Server::start().await;
    super::ask(&server.url(), include_str!("stub.sql")).await;
    // Whoever sleeps does so until the server goes.
    let ledger = Arc::new(PostgresLedger::new(Arc::new(
        client(&server.url()).with_patience(PATIENCE),
    )));
    assert_eq!(ledger.announced(&["a"]).await, Ok(()));
    let under_way: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let ledger = Arc::clone(&ledger);
                async move { ledger.announced(&["sleep"]).await }
            })
        })
        .collect();
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    within(async { while super::ask(&server.url(), asleep).await != ["4"] {} }).await;
    server.shut_down();
    for call in under_way {
        assert_unavailable(&call.await.expect("no panic"), "57P01");
    }
    assert_unavailable(&ledger.announced(&["a"]).await, "");
    server.come_back().await;
    for _ in 0..40 {
        assert_eq!(ledger.announced(&["a"]).await, Ok(()));
    }
}

#[tokio::test]
async fn sessions_that_somebody_ended_while_they_were_idle_are_not_used() {
    let database = Database::create().await;
    let ledger = ledger(&database.url());
    let ids = ["a"];
    assert!(
        futures::future::join_all((0..8).map(|_| ledger.announced(&ids)))
            .await
            .iter()
            .all(Result::is_ok)
    );
    let own = "from pg_stat_activity where datname = current_database() and application_name = 'crm-event-processors'";
    assert!(
        !database
            .ask(&format!("select pg_terminate_backend(pid) {own}"))
            .await
            .is_empty()
    );
    // They are told to, and then they end.
    let left = format!("select count(*) {own}");
    within(async { while database.ask(&left).await != ["0"] {} }).await;
    // One call may find out the hard way; then all the old ones are gone.
    let _found_out = ledger.announced(&ids).await;
    assert!(
        futures::future::join_all((0..8).map(|_| ledger.announced(&ids)))
            .await
            .iter()
            .all(Result::is_ok)
    );
}
