//! That a server is who it says it is, and that nobody listens: settings that would give this up are refused by the real
//! binary, and certificates that nobody vouches for are refused on the wire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::clock::SystemClock;
use crm_event_processors::config::Secret;
use crm_event_processors::dedupe::{RedisDedupe, RedisSettings, RedisUrl};
use crm_event_processors::inngest::{Answer, Deliver as _, Endpoint, EventBatch, HttpDeliver, HttpSettings};

use super::{command, owned};
use crate::redis::server::Server;

const SECRET: &str = "SentinelOfChecks";

/// Settings that are sound.
fn sound() -> Vec<(String, String)> {
    owned(&[
        ("KAFKA_BOOTSTRAP_SERVERS", "broker.example:9092"),
        ("REDIS_URL", "rediss://:p@cache.example:6380"),
        ("INNGEST_EVENT_KEY", SECRET),
        ("PROGRAM_FILE", "programs.json"),
        ("LEDGER_EFFECTIVE_FROM", "2026-11-01T00:00:00Z"),
    ])
}

/// What is set, the variable that the message names, and what else it says.
const GIVEN_UP: [(&[&str], &str, &str); 14] = [
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?sslmode=prefer"],
        "DATABASE_URL",
        "no TLS",
    ),
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?sslmode=allow"],
        "DATABASE_URL",
        "no TLS",
    ),
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?sslmode=no-verify"],
        "DATABASE_URL",
        "sslmode",
    ),
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?sslmode=require&sslmode=disable"],
        "DATABASE_URL",
        "twice",
    ),
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?sslmode=disable&sslrootcert=/ca.pem"],
        "DATABASE_URL",
        "sslrootcert",
    ),
    (
        &["DATABASE_URL=postgres://u:SentinelOfChecks@db.example/crm?ssl=false"],
        "DATABASE_URL",
        "not understood",
    ),
    (
        &["REDIS_URL=rediss://:SentinelOfChecks@cache.example/#insecure"],
        "REDIS_URL",
        "unchecked certificates",
    ),
    (
        &[
            "DATABASE_URL=postgres://u@db.example/crm",
            "CRM_CACHE_REDIS_URL=rediss://:SentinelOfChecks@cache.example/#insecure",
        ],
        "CRM_CACHE_REDIS_URL",
        "unchecked certificates",
    ),
    (&["INNGEST_BASE_URL=http://inn.gs"], "INNGEST_BASE_URL", "https://"),
    (
        &["INNGEST_BASE_URL=https://u:SentinelOfChecks@inn.gs"],
        "INNGEST_BASE_URL",
        "password",
    ),
    (
        &["INNGEST_DEV=http://u:SentinelOfChecks@127.0.0.1:8288"],
        "INNGEST_DEV",
        "password",
    ),
    (
        &[
            "KAFKA_API_KEY=SentinelOfChecks",
            "KAFKA_API_SECRET=SentinelOfChecks",
            "KAFKA_SECURITY_PROTOCOL=PLAINTEXT",
        ],
        "KAFKA_SECURITY_PROTOCOL",
        "no SASL",
    ),
    (
        &[
            "KAFKA_API_KEY=SentinelOfChecks",
            "KAFKA_API_SECRET=SentinelOfChecks",
            "KAFKA_SECURITY_PROTOCOL=SASL_SSL_NO_VERIFY",
        ],
        "KAFKA_SECURITY_PROTOCOL",
        "must be PLAINTEXT, SSL",
    ),
    (&["KAFKA_CA_FILE=/etc/ca.pem"], "KAFKA_CA_FILE", "would not be used"),
];

#[tokio::test]
async fn a_setting_that_would_give_up_a_check_is_refused_by_its_name() {
    let understood = command(&["config".to_owned()], &sound()).await;
    assert_eq!(understood.code, Some(0), "{}", understood.said());
    for (settings, name, says) in GIVEN_UP {
        let settings = settings
            .iter()
            .map(|setting| setting.split_once('=').expect("name=value"));
        let settings: Vec<(&str, &str)> = settings.collect();
        let environment: Vec<(String, String)> = sound().into_iter().chain(owned(&settings)).collect();
        let ended = command(&["config".to_owned()], &environment).await;
        let said = ended.said();
        assert_eq!(ended.code, Some(78), "{environment:?}: {said}");
        assert!(said.contains(name) && said.contains(says), "{name}, {says}: {said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}

/// Variables with which other programs switch checks off, set in vain: nobody looks at them.
#[tokio::test]
async fn what_switches_checks_off_elsewhere_changes_nothing_here() {
    let elsewhere = owned(&[
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
        ("PGSSLMODE", "disable"),
        ("SSL_VERIFY", "none"),
        ("KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION", "false"),
        ("ENABLE_SSL_CERTIFICATE_VERIFICATION", "false"),
    ]);
    let plain = command(&["config".to_owned()], &sound()).await;
    let both: Vec<(String, String)> = sound().into_iter().chain(elsewhere).collect();
    let set = command(&["config".to_owned()], &both).await;
    assert_eq!((set.code, set.stdout), (Some(0), plain.stdout));
}

/// A server whose certificate the stack's own authority signed, of which no machine knows.
struct Stranger {
    _server: Server,
    port: u16,
}

impl Stranger {
    fn start() -> Self {
        let authority = crate::postgres::stack("POSTGRES_CA_FILE");
        let folder = Path::new(&authority).parent().expect("a folder");
        let file = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (file("server.crt"), file("server.key"));
        let (server, port) = Server::start_with(|port| {
            let tls = [
                "--tls-port",
                &port.to_string(),
                "--tls-cert-file",
                &certificate,
                "--tls-key-file",
                &key,
                "--tls-auth-clients",
                "no",
            ];
            tls.map(str::to_owned).into()
        });
        Self { _server: server, port }
    }
}

#[tokio::test]
async fn a_redis_whose_certificate_nobody_vouches_for_is_not_talked_to() {
    let stranger = Stranger::start();
    for host in ["127.0.0.1", "localhost"] {
        let url = RedisUrl::parse(&format!("rediss://:{SECRET}@{host}:{}", stranger.port)).expect("an address");
        let dedupe = RedisDedupe::new(&RedisSettings::new(url, "us".to_owned())).expect("settings");
        let refused = loop {
            let refused = dedupe.connect().await.expect_err("it is a stranger").to_string();
            // On a machine that has much to do.
            if !refused.contains("no answer in time") {
                break refused;
            }
        };
        assert!(refused.contains("UnknownIssuer"), "{refused}");
        assert!(!refused.contains(SECRET), "{refused}");
    }
}

#[tokio::test]
async fn an_event_api_whose_certificate_nobody_vouches_for_is_sent_nothing() {
    let stranger = Stranger::start();
    let base_url = format!("https://127.0.0.1:{}", stranger.port);
    let endpoint = Endpoint::new(&base_url, &Secret::new(SECRET), None).expect("an address");
    let settings = HttpSettings {
        request_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(60),
        ..HttpSettings::at_rate(None)
    };
    let deliver = HttpDeliver::new(endpoint, &settings, Arc::new(SystemClock)).expect("a client");
    let mut batch = EventBatch::default();
    batch.push_json(b"{}");
    let Answer::Unavailable { detail, .. } = deliver.send(&batch, 0..1).await else {
        panic!("a stranger answered");
    };
    assert!(detail.contains("UnknownIssuer"), "{detail}");
    assert!(!detail.contains(SECRET), "{detail}");
}
