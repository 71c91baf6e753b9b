//! The settings that a replay shares with `run`, under the same names.

use crate::config::Flags;

/// How to reach the brokers.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct KafkaFlags {
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOSTS", help_heading = "Kafka")]
    kafka_bootstrap_servers: Option<String>,
    #[arg(
        long,
        env = "KAFKA_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Kafka"
    )]
    kafka_api_key: Option<String>,
    #[arg(
        long,
        env = "KAFKA_API_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        help_heading = "Kafka"
    )]
    kafka_api_secret: Option<String>,
    #[arg(
        long,
        env = "KAFKA_SECURITY_PROTOCOL",
        value_name = "PROTOCOL",
        help_heading = "Kafka"
    )]
    kafka_security_protocol: Option<String>,
    #[arg(long, env = "KAFKA_CA_FILE", value_name = "FILE", help_heading = "Kafka")]
    kafka_ca_file: Option<String>,
    /// The connector's topic.prefix. Default crm.
    #[arg(long, env = "TOPIC_PREFIX", value_name = "PREFIX", help_heading = "Kafka")]
    topic_prefix: Option<String>,
    /// The worker's group: named to the brokers, never joined. Default crm-event-processors.
    #[arg(long, env = "CONSUMER_GROUP_ID", value_name = "GROUP", help_heading = "Kafka")]
    consumer_group_id: Option<String>,
}

/// What decides, and where what is decided goes. See `run --help` for the meaning of each.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct WorkFlags {
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Work"
    )]
    database_url: Option<String>,
    #[arg(
        long,
        env = "CRM_CACHE_REDIS_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Work"
    )]
    crm_cache_redis_url: Option<String>,
    #[arg(
        long,
        env = "REDIS_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Work"
    )]
    redis_url: Option<String>,
    #[arg(long, env = "DEDUP_WINDOW_SECS", value_name = "SECONDS", help_heading = "Work")]
    dedup_window_secs: Option<String>,
    #[arg(
        long,
        env = "INNGEST_EVENT_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Work"
    )]
    inngest_event_key: Option<String>,
    #[arg(
        long,
        env = "INNGEST_BASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Work"
    )]
    inngest_base_url: Option<String>,
    #[arg(
        long,
        env = "INNGEST_DEV",
        value_name = "1|URL",
        hide_env_values = true,
        help_heading = "Work"
    )]
    inngest_dev: Option<String>,
    #[arg(long, env = "INNGEST_ENV", value_name = "NAME", help_heading = "Work")]
    inngest_env: Option<String>,
    #[arg(long, env = "INNGEST_RATE_PER_SEC", value_name = "N", help_heading = "Work")]
    inngest_rate_per_sec: Option<String>,
    #[arg(long, env = "PROGRAM_FILE", value_name = "FILE", help_heading = "Work")]
    program_file: Option<String>,
    #[arg(long, env = "LEDGER_EFFECTIVE_FROM", value_name = "TIME", help_heading = "Work")]
    ledger_effective_from: Option<String>,
    #[arg(long, env = "OLD_RECORDS", value_name = "WHAT", help_heading = "Work")]
    old_records: Option<String>,
    #[arg(long, env = "DECIMAL_MODE", value_name = "MODE", help_heading = "Work")]
    decimal_mode: Option<String>,
    /// json or text, on standard error. Default text.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", help_heading = "Work")]
    log_format: Option<String>,
    /// Log filter. Default warn.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", help_heading = "Work")]
    rust_log: Option<String>,
}

impl KafkaFlags {
    pub(in crate::cli) fn flags(&self) -> Flags {
        Flags {
            kafka_bootstrap_servers: self.kafka_bootstrap_servers.clone(),
            kafka_api_key: self.kafka_api_key.clone(),
            kafka_api_secret: self.kafka_api_secret.clone(),
            kafka_security_protocol: self.kafka_security_protocol.clone(),
            kafka_ca_file: self.kafka_ca_file.clone(),
            topic_prefix: self.topic_prefix.clone(),
            consumer_group_id: self.consumer_group_id.clone(),
            ..Flags::default()
        }
    }
}

impl WorkFlags {
    pub(in crate::cli) fn flags(&self, kafka: &KafkaFlags) -> Flags {
        Flags {
            database_url: self.database_url.clone(),
            crm_cache_redis_url: self.crm_cache_redis_url.clone(),
            redis_url: self.redis_url.clone(),
            dedup_window_secs: self.dedup_window_secs.clone(),
            inngest_event_key: self.inngest_event_key.clone(),
            inngest_base_url: self.inngest_base_url.clone(),
            inngest_dev: self.inngest_dev.clone(),
            inngest_env: self.inngest_env.clone(),
            inngest_rate_per_sec: self.inngest_rate_per_sec.clone(),
            program_file: self.program_file.clone(),
            ledger_effective_from: self.ledger_effective_from.clone(),
            old_records: self.old_records.clone(),
            decimal_mode: self.decimal_mode.clone(),
            // A person stands by, and a progress bar is on the same terminal.
            log_format: self.log_format.clone().or_else(|| Some("text".to_owned())),
            rust_log: self.rust_log.clone().or_else(|| Some("warn".to_owned())),
            ..kafka.flags()
        }
    }
}
