//! Every setting as an environment variable and a flag. Only texts here; [`super::Settings`] gives them meaning.
#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "these comments are the help texts of a terminal"
)]

use clap::Args;

/// The settings of the worker, as given.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Brokers, `host:port` separated by commas.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOSTS", help_heading = "Kafka")]
    pub kafka_bootstrap_servers: Option<String>,
    /// API key (SASL/PLAIN user name).
    #[arg(
        long,
        env = "KAFKA_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Kafka"
    )]
    pub kafka_api_key: Option<String>,
    /// API secret (SASL/PLAIN password).
    #[arg(
        long,
        env = "KAFKA_API_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        help_heading = "Kafka"
    )]
    pub kafka_api_secret: Option<String>,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. Default: SASL_SSL if an API key is set, else PLAINTEXT.
    #[arg(
        long,
        env = "KAFKA_SECURITY_PROTOCOL",
        value_name = "PROTOCOL",
        help_heading = "Kafka"
    )]
    pub kafka_security_protocol: Option<String>,
    /// A CA bundle (PEM) instead of the system's.
    #[arg(long, env = "KAFKA_CA_FILE", value_name = "FILE", help_heading = "Kafka")]
    pub kafka_ca_file: Option<String>,
    /// After this long without a heartbeat a member's partitions go to others. Default 45000.
    #[arg(long, env = "KAFKA_SESSION_TIMEOUT_MS", value_name = "MS", help_heading = "Kafka")]
    pub kafka_session_timeout_ms: Option<String>,
    /// The connector's topic.prefix: `<prefix>.public.<table>` is read, `<prefix>.dlq.*` written. Default crm.
    #[arg(long, env = "TOPIC_PREFIX", value_name = "PREFIX", help_heading = "Kafka")]
    pub topic_prefix: Option<String>,
    /// The consumer group. Default crm-event-processors.
    #[arg(long, env = "CONSUMER_GROUP_ID", value_name = "GROUP", help_heading = "Kafka")]
    pub consumer_group_id: Option<String>,
    /// Where a committed offset lies outside the log, go on at the log's begin instead of halting the partition.
    #[arg(long, help_heading = "Kafka")]
    pub accept_gap: bool,
    /// Give up what a consumer that runs nowhere any more has not read; its watermark would hold the committed offset for ever.
    #[arg(long, value_name = "NAME", help_heading = "Kafka")]
    pub drop_consumer: Vec<String>,
    /// Where a subset of the consumers starts that the main group knows nothing of, or a new shadow: `begin`, `end`, or a time (RFC 3339).
    #[arg(long, value_name = "PLACE", help_heading = "Kafka")]
    pub start_at: Option<String>,
    /// Write dead letters however many there are, instead of halting the consumer.
    #[arg(long, help_heading = "Kafka")]
    pub accept_dead_letters: bool,

    /// Decide everything and do nothing about it: decisions are written to --shadow-out, in the group `<group>-shadow`. Needs
    /// neither REDIS_URL nor INNGEST_EVENT_KEY, and no right to write.
    #[arg(long, help_heading = "Shadow")]
    pub shadow: bool,
    /// Where a shadow writes its decisions, a line of JSON each: a file, which is continued, or `-` for standard output. Default -.
    #[arg(long, value_name = "FILE", help_heading = "Shadow")]
    pub shadow_out: Option<String>,

    /// The consumers that run, separated by commas. Default: all, currency,tier,mission,reward,marketplace.
    #[arg(long, env = "CONSUMERS", value_name = "NAMES", help_heading = "Consumers")]
    pub consumers: Option<String>,
    /// Lanes of the currency consumer: deliveries in parallel. Default 5.
    #[arg(long, env = "CURRENCY_CONCURRENCY", value_name = "LANES", help_heading = "Consumers")]
    pub currency_concurrency: Option<String>,
    /// Lanes of the tier consumer. Default 3.
    #[arg(long, env = "TIER_CONCURRENCY", value_name = "LANES", help_heading = "Consumers")]
    pub tier_concurrency: Option<String>,
    /// Lanes of the mission consumer. Default 3.
    #[arg(long, env = "MISSION_CONCURRENCY", value_name = "LANES", help_heading = "Consumers")]
    pub mission_concurrency: Option<String>,
    /// Lanes of the reward consumer. Default 2.
    #[arg(long, env = "REWARD_CONCURRENCY", value_name = "LANES", help_heading = "Consumers")]
    pub reward_concurrency: Option<String>,
    /// Lanes of the marketplace consumer. Default 2.
    #[arg(
        long,
        env = "MARKETPLACE_CONCURRENCY",
        value_name = "LANES",
        help_heading = "Consumers"
    )]
    pub marketplace_concurrency: Option<String>,
    /// How the connector writes numeric columns: `string`, or `precise:<scale>`. Default string.
    #[arg(long, env = "DECIMAL_MODE", value_name = "MODE", help_heading = "Consumers")]
    pub decimal_mode: Option<String>,
    /// The loyalty programs (JSON). Required without DATABASE_URL; beside it, the file's programs are used.
    #[arg(long, env = "PROGRAM_FILE", value_name = "FILE", help_heading = "Consumers")]
    pub program_file: Option<String>,
    /// Rows created before this instant (RFC 3339) are ignored. Required without DATABASE_URL, and at the first start with it.
    #[arg(long, env = "LEDGER_EFFECTIVE_FROM", value_name = "TIME", help_heading = "Consumers")]
    pub ledger_effective_from: Option<String>,
    /// Records that may be a repetition, without DATABASE_URL: `deliver`, or `deadletter`. Default deliver.
    #[arg(long, env = "OLD_RECORDS", value_name = "WHAT", help_heading = "Consumers")]
    pub old_records: Option<String>,

    /// The database with the ledgers and what was settled: postgres://user:password@host:port/name. Certificates are checked
    /// unless the host is this machine; sslrootcert=FILE names the authorities, sslmode=disable goes without.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Database"
    )]
    pub database_url: Option<String>,
    /// The Redis that keeps the last good programs of the database, for a start while it is away. Default: REDIS_URL.
    #[arg(
        long,
        env = "CRM_CACHE_REDIS_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Database"
    )]
    pub crm_cache_redis_url: Option<String>,

    /// The dedupe store: redis:// or rediss:// (TLS), Redis 7 or newer, without eviction.
    #[arg(
        long,
        env = "REDIS_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Dedupe"
    )]
    pub redis_url: Option<String>,
    /// How long a delivered change is remembered. Default 300.
    #[arg(long, env = "DEDUP_WINDOW_SECS", value_name = "SECONDS", help_heading = "Dedupe")]
    pub dedup_window_secs: Option<String>,

    /// Event key of the Inngest environment. Not needed with INNGEST_DEV.
    #[arg(
        long,
        env = "INNGEST_EVENT_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Inngest"
    )]
    pub inngest_event_key: Option<String>,
    /// Where the event API is. Default https://inn.gs, with INNGEST_DEV http://localhost:8288.
    #[arg(
        long,
        env = "INNGEST_BASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Inngest"
    )]
    pub inngest_base_url: Option<String>,
    /// `1`, or the URL of a dev server.
    #[arg(
        long,
        env = "INNGEST_DEV",
        value_name = "1|URL",
        hide_env_values = true,
        help_heading = "Inngest"
    )]
    pub inngest_dev: Option<String>,
    /// A branch environment.
    #[arg(long, env = "INNGEST_ENV", value_name = "NAME", help_heading = "Inngest")]
    pub inngest_env: Option<String>,
    /// Requests a second and process, 0 for no limit. Default 15, with INNGEST_DEV no limit.
    #[arg(long, env = "INNGEST_RATE_PER_SEC", value_name = "N", help_heading = "Inngest")]
    pub inngest_rate_per_sec: Option<String>,

    /// Where /livez, /readyz, /statusz and /metrics are served. Default 127.0.0.1:8080; `off` for nowhere.
    #[arg(long, env = "HTTP_ADDR", value_name = "ADDRESS", help_heading = "Operations")]
    pub http_addr: Option<String>,
    /// `1`: the console at /console as well, for whoever sits at this machine; `exposed`: for whoever reaches HTTP_ADDR. Default 0.
    #[arg(long, env = "CONSOLE", value_name = "0|1|exposed", help_heading = "Operations")]
    pub console: Option<String>,
    /// json or text. Default json.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", help_heading = "Operations")]
    pub log_format: Option<String>,
    /// Log filter. Default info.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", help_heading = "Operations")]
    pub rust_log: Option<String>,

    /// Push metrics by OTLP over HTTP to this address with /v1/metrics behind it, and traces to /v1/traces if OTEL_TRACES_SAMPLER
    /// says how many. Unset: no push.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Push"
    )]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// The same for metrics, as the whole address.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Push"
    )]
    pub otel_exporter_otlp_metrics_endpoint: Option<String>,
    /// The same for traces, as the whole address. Without OTEL_TRACES_SAMPLER every batch is traced.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Push"
    )]
    pub otel_exporter_otlp_traces_endpoint: Option<String>,
    /// Which batches are traced: always_on, always_off, traceidratio, or one of these behind `parentbased_`, which means the same here.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "SAMPLER", help_heading = "Push")]
    pub otel_traces_sampler: Option<String>,
    /// The part that traceidratio traces, from 0 to 1. Default 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", help_heading = "Push")]
    pub otel_traces_sampler_arg: Option<String>,
    /// Headers of a push, `name=value` separated by commas, values percent-encoded.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        value_name = "HEADERS",
        hide_env_values = true,
        help_heading = "Push"
    )]
    pub otel_exporter_otlp_headers: Option<String>,
    /// Milliseconds between pushes of metrics. Default 60000.
    #[arg(long, env = "OTEL_METRIC_EXPORT_INTERVAL", value_name = "MS", help_heading = "Push")]
    pub otel_metric_export_interval: Option<String>,
    /// The service's name in a push. Default crm-event-processors.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME", help_heading = "Push")]
    pub otel_service_name: Option<String>,
    /// What else a push says of us, `name=value` separated by commas, values percent-encoded.
    #[arg(
        long,
        env = "OTEL_RESOURCE_ATTRIBUTES",
        value_name = "ATTRIBUTES",
        help_heading = "Push"
    )]
    pub otel_resource_attributes: Option<String>,
    /// `true`: no push, whatever else is set.
    #[arg(long, env = "OTEL_SDK_DISABLED", value_name = "true|false", help_heading = "Push")]
    pub otel_sdk_disabled: Option<String>,
}

/// Every variable of `run`, for `.env.example` and its test.
#[must_use]
pub fn variables() -> Vec<String> {
    let command = super::RunFlags::augment_args(clap::Command::new("run"));
    command
        .get_arguments()
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect()
}
