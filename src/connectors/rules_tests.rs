use super::*;

/// As it is sent.
fn filled(platform: Platform) -> Config {
    let mut config = platform.template();
    for (key, value) in [
        ("database.hostname", "db.example"),
        ("database.port", "5432"),
        ("database.dbname", "crm"),
        ("database.user", "crm_cdc"),
        ("database.password", "sentinel-1"),
    ] {
        config.set(key, value);
    }
    match platform {
        Platform::ConfluentCloud => config.set("kafka.service.account.id", "sa-abc"),
        Platform::KafkaConnect => {}
    }
    config
}

fn findings(config: &Config, platform: Platform) -> Vec<Finding> {
    check(&Question {
        config,
        platform,
        topic_prefix: "crm",
    })
}

fn broken(config: &Config, platform: Platform) -> Vec<(String, Severity)> {
    let findings = findings(config, platform);
    findings
        .into_iter()
        .map(|finding| (finding.key, finding.severity))
        .collect()
}

#[test]
fn both_templates_keep_every_rule_filled_or_not() {
    for platform in Platform::ALL {
        assert_eq!(findings(&filled(platform), platform), [], "{platform:?}");
    }
    for platform in Platform::ALL {
        assert_eq!(findings(&platform.template(), platform), [], "{platform:?}");
    }
}

/// Each is what somebody set, or is known to have set.
const FAULTS: [(&str, &str, Severity); 53] = [
    ("snapshot.mode", "never", Error),
    ("snapshot.mode", "no_data", Error),
    ("snapshot.mode", "initial", Error),
    ("decimal.handling.mode", "precise", Error),
    ("decimal.handling.mode", "double", Error),
    ("errors.tolerance", "all", Error),
    ("event.processing.failure.handling.mode", "warn", Error),
    ("publication.autocreate.mode", "all_tables", Error),
    ("publication.autocreate.mode", "filtered", Error),
    ("publication.name", "dbz_publication", Error),
    ("slot.name", "debezium", Error),
    ("slot.drop.on.stop", "true", Error),
    ("lsn.flush.mode", "manual", Error),
    ("flush.lsn.source", "false", Error),
    ("offset.mismatch.strategy", "trust_slot", Error),
    ("offset.mismatch.strategy", "trust_greater_lsn", Error),
    ("heartbeat.interval.ms", "0", Error),
    ("heartbeat.interval.ms", "3600000", Error),
    ("heartbeat.action.query", "select 1", Error),
    ("heartbeat.action.query", "select * from public.dbz_heartbeat", Error),
    (
        "heartbeat.action.query",
        "UPDATE public.dbz_heartbeat SET beat_at = now()",
        Error,
    ),
    (
        "heartbeat.action.query",
        "INSERT INTO public.dbz_heartbeat (id, beat_at) VALUES (1, now()) ON CONFLICT DO NOTHING",
        Error,
    ),
    (
        "heartbeat.action.query",
        "INSERT INTO public.dbz_heartbeat_old (id, beat_at) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET beat_at = now()",
        Error,
    ),
    ("database.sslmode", "prefer", Error),
    ("signal.data.collection", "dbz_signal", Warning),
    ("topic.prefix", "crm2", Error),
    ("topic.delimiter", "_", Error),
    (
        "topic.naming.strategy",
        "io.debezium.schema.DefaultUnicodeTopicNamingStrategy",
        Error,
    ),
    ("message.key.columns", "public.codes:code", Error),
    ("after.state.only", "true", Error),
    ("transforms", "unwrap", Error),
    ("time.precision.mode", "connect", Error),
    ("unavailable.value.placeholder", "?", Error),
    ("value.converter.replace.null.with.default", "true", Error),
    ("value.converter.schemas.enable", "true", Warning),
    ("tombstones.on.delete", "false", Warning),
    ("tasks.max", "2", Error),
    ("name", "crm cdc", Error),
    (
        "table.include.list",
        "public.purchase_ledger,public.wallet_ledger",
        Error,
    ),
    ("table.include.list", "public\\..*", Error),
    ("table.exclude.list", "public.codes", Error),
    ("schema.exclude.list", "public", Error),
    ("column.exclude.list", "public.codes.code", Warning),
    ("skipped.operations", "u,d", Error),
    ("snapshot.include.collection.list", "public.codes", Error),
    ("snapshot.select.statement.overrides", "public.codes", Error),
    ("database.hostname", "aws-0-eu-central-1.pooler.supabase.com", Error),
    ("database.port", "6543", Error),
    ("database.port", "", Error),
    ("database.user", "", Error),
    ("database.dbname", "", Error),
    ("database.password", "****************", Error),
    ("connector.class", "PostgresCdcSource", Error),
];

#[test]
fn each_fault_is_found_by_the_rule_of_its_key_and_by_no_other() {
    for platform in Platform::ALL {
        for (key, value, severity) in FAULTS {
            let mut config = filled(platform);
            config.set(key, value);
            assert_eq!(
                broken(&config, platform),
                [(key.to_owned(), severity)],
                "{key} = {value:?} on {platform:?}"
            );
        }
    }
}

#[test]
fn each_fault_of_one_platform_alone_is_found_there() {
    let table = [
        (Platform::ConfluentCloud, "database.sslmode", "verify-full", Error),
        (
            Platform::ConfluentCloud,
            "key.converter.schemas.enable",
            "true",
            Warning,
        ),
        (Platform::KafkaConnect, "key.converter.schemas.enable", "true", Warning),
        (Platform::KafkaConnect, "provide.transaction.metadata", "true", Warning),
        (Platform::KafkaConnect, "plugin.name", "wal2json", Error),
        (Platform::ConfluentCloud, "output.data.format", "AVRO", Error),
        (Platform::ConfluentCloud, "output.key.format", "STRING", Error),
        (Platform::ConfluentCloud, "kafka.auth.mode", "KAFKA_API_KEY", Warning),
        (Platform::ConfluentCloud, "kafka.service.account.id", "u-123", Error),
        (
            Platform::KafkaConnect,
            "value.converter",
            "io.confluent.connect.avro.AvroConverter",
            Error,
        ),
        (Platform::KafkaConnect, "key.converter", "", Error),
        (Platform::KafkaConnect, "plugin.name", "", Error),
    ];
    for (platform, key, value, severity) in table {
        let mut config = filled(platform);
        config.set(key, value);
        assert_eq!(
            broken(&config, platform),
            [(key.to_owned(), severity)],
            "{key} = {value:?}"
        );
    }
}

#[test]
fn what_is_missing_is_found_wherever_its_default_is_not_what_is_needed() {
    for platform in Platform::ALL {
        let whole = filled(platform);
        for (missing, _) in whole.iter() {
            let config: Vec<String> = whole
                .iter()
                .filter(|(key, _)| *key != missing)
                .map(|(key, value)| format!("{}: {}", serde_json::Value::from(key), serde_json::Value::from(value)))
                .collect();
            let config = Config::parse(&format!("{{{}}}", config.join(","))).expect("a configuration");
            let found = broken(&config, platform);
            let default_will_do = match missing {
                "tasks.max"
                | "time.precision.mode"
                | "tombstones.on.delete"
                | "provide.transaction.metadata"
                | "event.processing.failure.handling.mode"
                | "errors.tolerance"
                | "after.state.only"
                | "output.key.format"
                | "output.data.format"
                | "header.converter"
                | "header.converter.schemas.enable" => true,
                // Some databases ask for none.
                "database.password" => true,
                _ => missing.starts_with("topic.creation."),
            };
            let expected: &[&str] = if default_will_do { &[] } else { &[missing] };
            let found: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(found, expected, "without {missing} on {platform:?}");
        }
    }
}

#[test]
fn what_is_right_in_other_words_is_no_finding() {
    for (key, value) in [
        (
            "table.include.list",
            "public\\.codes, public.wallet_ledger,public.purchase_ledger,public.form_submissions,public.mission_claims,public.referral_ledger",
        ),
        ("skipped.operations", "none"),
        ("transforms", ""),
        ("database.hostname", "${file:/etc/connect/db.properties:host}"),
        ("heartbeat.interval.ms", "60000"),
        (
            "heartbeat.action.query",
            "insert  into public.dbz_heartbeat(id, beat_at)\nvalues (1, now()) on conflict (id) do update set beat_at = now()",
        ),
        ("offset.mismatch.strategy", "trust_offset"),
        ("flush.lsn.source", "true"),
        ("database.sslmode", "verify-full"),
    ] {
        let mut config = filled(Platform::KafkaConnect);
        config.set(key, value);
        assert_eq!(findings(&config, Platform::KafkaConnect), [], "{key} = {value}");
    }
    let mut config = filled(Platform::KafkaConnect);
    config.set("database.hostname", "127.0.0.1");
    config.set("database.sslmode", "disable");
    assert_eq!(findings(&config, Platform::KafkaConnect), []);
    // No host is Confluent Cloud's own.
    let mut config = filled(Platform::ConfluentCloud);
    config.set("database.hostname", "127.0.0.1");
    config.set("database.sslmode", "disable");
    assert_eq!(
        broken(&config, Platform::ConfluentCloud),
        [("database.sslmode".to_owned(), Error)]
    );
    let mut masked = filled(Platform::KafkaConnect);
    masked.set("column.mask.with.12.chars", "public.codes.code");
    assert_eq!(
        broken(&masked, Platform::KafkaConnect),
        [("column.mask".to_owned(), Warning)]
    );
}

#[test]
fn a_host_that_is_not_known_excuses_only_an_sslmode_that_is_not_set() {
    for (mode, broken) in [("", false), ("require", false), ("disable", true), ("prefer", true)] {
        let mut config = Platform::KafkaConnect.template();
        config.set("database.sslmode", mode);
        let found = findings(&config, Platform::KafkaConnect);
        assert_eq!(found.len(), usize::from(broken), "{mode:?}: {found:?}");
    }
    let mut config = Platform::ConfluentCloud.template();
    config.set("database.sslmode", "");
    assert_eq!(findings(&config, Platform::ConfluentCloud).len(), 1);
}

#[test]
fn a_value_that_is_not_known_here_is_not_judged_and_its_key_is_named() {
    let unknown = "${file:/etc/connect/x.properties:mode}";
    for (platform, left, keys) in [
        (Platform::KafkaConnect, unknown, vec!["slot.name", "snapshot.mode"]),
        (Platform::KafkaConnect, "${lower}", vec!["slot.name", "snapshot.mode"]),
        // It would take this for the mode.
        (Platform::ConfluentCloud, unknown, vec!["slot.name"]),
        (Platform::ConfluentCloud, "${lower}", vec!["slot.name"]),
    ] {
        let mut config = filled(platform);
        config.set("slot.name", "${SLOT}");
        config.set("snapshot.mode", left);
        let question = Question {
            config: &config,
            platform,
            topic_prefix: "crm",
        };
        assert_eq!(unjudged(&question), keys, "{left}");
        let is_judged = check(&question).iter().any(|finding| finding.key == "snapshot.mode");
        assert_eq!(is_judged, !keys.contains(&"snapshot.mode"), "{platform:?}: {left}");
    }
}

#[test]
fn a_finding_tells_what_is_there_what_is_wanted_and_why_and_no_secret() {
    let mut config = filled(Platform::ConfluentCloud);
    config.set("snapshot.mode", "never");
    config.set("kafka.auth.mode", "KAFKA_API_KEY");
    config.set("kafka.api.secret", "sentinel-2");
    config.set("tombstones.on.delete", "false");
    let found = findings(&config, Platform::ConfluentCloud);
    assert!(found.is_sorted_by_key(|finding| finding.severity), "{found:?}");
    let first = found.first().expect("a finding");
    assert_eq!(
        (first.key.as_str(), first.found.as_deref(), first.wanted.as_str()),
        ("snapshot.mode", Some("never"), "when_needed")
    );
    assert!(first.why.contains("gap"));
    assert_eq!(why("snapshot.mode", Platform::KafkaConnect), Some(first.why));
    assert!(!format!("{found:?}").contains("sentinel"));
}

#[test]
fn every_rule_has_a_name_of_its_own_and_stands_in_the_readme() {
    let readme = include_str!("../../connectors/README.md");
    for platform in Platform::ALL {
        let keys: Vec<&str> = RULES
            .iter()
            .filter(|rule| rule.is_on(platform))
            .map(|rule| rule.key)
            .collect();
        let distinct: BTreeSet<&str> = keys.iter().copied().collect();
        assert_eq!(keys.len(), distinct.len());
        for key in keys {
            assert!(
                readme.contains(&format!("`{key}")),
                "{key} is not in connectors/README.md"
            );
        }
    }
}
