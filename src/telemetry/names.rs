//! Every metric, without the suffixes that the unit and the kind add on a scrape. The runbook explains each.

/// Always 1; its label says which version runs.
pub const BUILD: &str = "crm_build_info";
/// When the process began, seconds since 1970.
pub const START: &str = "crm_start_time";
pub const RECEIVED: &str = "crm_records_received";
pub const OUTCOMES: &str = "crm_record_outcomes";
pub const DEAD_LETTERS: &str = "crm_dead_letters";
/// What lanes took at once.
pub const BATCHES: &str = "crm_lane_batches";
pub const CLAIMS: &str = "crm_dedupe_claims";
pub const LATENCY: &str = "crm_commit_to_accepted";
pub const REQUESTS: &str = "crm_inngest_requests";
pub const REQUEST_DURATION: &str = "crm_inngest_request_duration";
pub const IN_FLIGHT: &str = "crm_events_in_flight";
pub const DATABASE_CALLS: &str = "crm_database_calls";
pub const DATABASE_CALL_DURATION: &str = "crm_database_call_duration";
pub const RETRIES: &str = "crm_retries";
pub const COMMITS: &str = "crm_offset_commits";
pub const COMMIT_AGE: &str = "crm_commit_age";
pub const REBALANCES: &str = "crm_rebalances";
pub const ROOM_PAUSES: &str = "crm_room_pauses";
pub const PAUSED: &str = "crm_paused_partitions";
pub const LAG: &str = "crm_consumer_lag";
pub const SKEW: &str = "crm_consumer_skew";
pub const ASSIGNED: &str = "crm_assigned_partitions";
pub const HALTED: &str = "crm_halted_partitions";
/// Held by consumers that do not run here.
pub const HELD: &str = "crm_held_partitions";
pub const OUTSTANDING: &str = "crm_outstanding_records";
pub const STANDING_STILL: &str = "crm_consumer_standing_still";
pub const RECONCILER_PASSES: &str = "crm_reconciler_passes";
pub const RECONCILER_ROWS: &str = "crm_reconciler_rows";
pub const RECONCILER_HEALS: &str = "crm_reconciler_heals";
/// As far as this process knows: it has the lease, and has made a pass.
pub const RECONCILER_FINDINGS: &str = "crm_reconciler_findings";
pub const EFFECTS_OVERDUE: &str = "crm_effects_overdue";
/// Of the last look at what is around the worker; those of the source are there only while they are known.
pub const CONNECTOR_RUNNING: &str = "crm_connector_running";
pub const CONNECTOR_TASKS: &str = "crm_connector_tasks";
pub const SLOT_ACTIVE: &str = "crm_slot_active";
pub const SLOT_LOST: &str = "crm_slot_lost";
pub const SLOT_RETAINED: &str = "crm_slot_retained";
pub const SLOT_SAFE: &str = "crm_slot_safe";
pub const HEARTBEAT_AGE: &str = "crm_heartbeat_age";
pub const CHECK_FINDINGS: &str = "crm_check_findings";
pub const CHECK_FAILED: &str = "crm_check_failed";
pub const SOURCE_LOOKS: &str = "crm_source_looks";
pub const SOURCE_LOOK_AGE: &str = "crm_source_look_age";
pub const POLL_AGE: &str = "crm_poll_age";
pub const TICK_AGE: &str = "crm_tick_age";

pub const ALL: [&str; 44] = [
    BUILD,
    START,
    RECEIVED,
    OUTCOMES,
    DEAD_LETTERS,
    BATCHES,
    CLAIMS,
    LATENCY,
    REQUESTS,
    REQUEST_DURATION,
    IN_FLIGHT,
    DATABASE_CALLS,
    DATABASE_CALL_DURATION,
    RETRIES,
    COMMITS,
    COMMIT_AGE,
    REBALANCES,
    ROOM_PAUSES,
    PAUSED,
    LAG,
    SKEW,
    ASSIGNED,
    HALTED,
    HELD,
    OUTSTANDING,
    STANDING_STILL,
    RECONCILER_PASSES,
    RECONCILER_ROWS,
    RECONCILER_HEALS,
    RECONCILER_FINDINGS,
    EFFECTS_OVERDUE,
    CONNECTOR_RUNNING,
    CONNECTOR_TASKS,
    SLOT_ACTIVE,
    SLOT_LOST,
    SLOT_RETAINED,
    SLOT_SAFE,
    HEARTBEAT_AGE,
    CHECK_FINDINGS,
    CHECK_FAILED,
    SOURCE_LOOKS,
    SOURCE_LOOK_AGE,
    POLL_AGE,
    TICK_AGE,
];
