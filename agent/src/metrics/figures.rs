//! The figures that are looked up now and then rather than counted: their names, once.
//!
//! Invariant: a figure that is not in [`ALL`] can't be published; labels are closed sets, or names
//! that the database has a limit for (standbys, slots).

/// What a figure does over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up, until what counts it starts anew.
    Counter,
}

/// A figure.
#[derive(PartialEq, Eq, Debug)]
pub struct Figure {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

macro_rules! figures {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Figure =
                Figure { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };
        )*
        /// All of them.
        pub static ALL: &[&Figure] = &[$(&$constant),*];
    };
}

figures! {
    BUILD = Gauge "wald_build_info" ["version"] "1, with the agent's version";
    RPO_BUDGET = Gauge "wald_rpo_budget_seconds" [] "The oldest committed byte that is not in the repository shall be no older";
    RTO_BUDGET = Gauge "wald_rto_budget_seconds" [] "A recovery shall take no longer";

    BACKLOG_FILES = Gauge "wald_archive_backlog_files" [] "WAL files that wait to be archived";
    BACKLOG_BYTES = Gauge "wald_archive_backlog_bytes" [] "Their bytes, about";
    BACKLOG_OLDEST = Gauge "wald_archive_backlog_oldest_seconds" [] "How long the oldest of them has waited, 0 without one: the RPO at this moment";

    REPOSITORY_UP = Gauge "wald_repository_up" [] "1 if the repository's identity could be read at the last look, else 0";
    REPOSITORY_CONTACT = Gauge "wald_repository_last_contact_timestamp_seconds" [] "When the repository last answered a look";
    REPOSITORY_LISTED = Gauge "wald_repository_listed_timestamp_seconds" [] "When the figures on backups, windows and the estimate were read";
    BACKUPS = Gauge "wald_backups" [] "Backups in the repository";
    BACKUP_END = Gauge "wald_last_backup_end_timestamp_seconds" [] "When the newest backup ended";
    BACKUP_RAW_BYTES = Gauge "wald_last_backup_raw_bytes" [] "Size of the newest backup on disk";
    BACKUP_STORED_BYTES = Gauge "wald_last_backup_stored_bytes" [] "Size of the newest backup in the repository";
    BACKUP_DURATION = Gauge "wald_last_backup_duration_seconds" [] "How long the newest backup took";
    WINDOW_START = Gauge "wald_recovery_window_start_timestamp_seconds" [] "The earliest point that can be recovered to, in the window that reaches furthest";
    WINDOW_END = Gauge "wald_recovery_window_end_timestamp_seconds" [] "The latest point that can be recovered to";
    WAL_GAPS = Gauge "wald_repository_wal_gaps" [] "Gaps in the stored WAL";
    LOCK_HORIZON = Gauge "wald_lock_horizon_timestamp_seconds" [] "Until when the newest backup is locked; wald expire makes it later each night";

    RTO_ESTIMATE = Gauge "wald_rto_estimate_seconds" [] "How long a recovery to the newest point would take now";
    RTO_RATE = Gauge "wald_rto_rate_bytes_per_second" ["phase"] "The rate that this is reckoned with, measured or the default";
    RTO_MEASURED = Gauge "wald_rto_rate_is_measured" ["phase"] "1 if that rate was measured on this host, 0 if it is the default";

    DATABASE_UP = Gauge "wald_database_up" [] "1 if PostgreSQL answered all questions of the last look, else 0";
    DATABASE_SAMPLED = Gauge "wald_database_sampled_timestamp_seconds" [] "When it last did";
    IN_RECOVERY = Gauge "wald_database_in_recovery" [] "1 on a standby, 0 on a primary";
    LAG_STATE = Gauge "wald_lag_state" [] "What `wald lag --check` would exit with: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN";
    LAG_WARNING = Gauge "wald_lag_warning_seconds" [] "[lag] warning";
    LAG_CRITICAL = Gauge "wald_lag_critical_seconds" [] "[lag] critical";
    WAL_RATE = Gauge "wald_wal_bytes_per_second" [] "How fast the log grows: written on a primary, received on a standby";

    REPLAY_LAG_SECONDS = Gauge "wald_replay_lag_seconds" [] "How late replay on this standby is at most; 0 only if all that the primary told of is replayed; absent if unknown";
    REPLAY_LAG_KNOWN = Gauge "wald_replay_lag_is_exact" [] "1 if this standby is streaming and has replayed everything, 0 if its lag is only bounded or unknown";
    REPLAY_LAG_BYTES = Gauge "wald_replay_lag_bytes" [] "Received and not replayed";
    RECEIVE_LAG_BYTES = Gauge "wald_receive_lag_bytes" [] "Told of by the primary and not received";
    REPLAY_PAUSED = Gauge "wald_replay_paused" [] "1 if replay is paused on this standby, or a pause was requested";
    RECEIVER_STREAMING = Gauge "wald_wal_receiver_streaming" [] "1 if this standby's WAL receiver streams and is heard from";
    APPLY_DELAY = Gauge "wald_recovery_min_apply_delay_seconds" [] "recovery_min_apply_delay of this standby";
    CONFLICTS = Counter "wald_recovery_conflicts_total" ["cause"] "Queries that replay cancelled on this standby";

    STANDBY_LAG_SECONDS = Gauge "wald_standby_lag_seconds" ["standby", "stage"] "How late a standby of this server is at a stage";
    STANDBY_LAG_BYTES = Gauge "wald_standby_lag_bytes" ["standby", "stage"] "The same in bytes";
    STANDBY_STREAMING = Gauge "wald_standby_streaming" ["standby"] "1 if this standby streams";
    SYNC_REQUIRED = Gauge "wald_synchronous_standbys_required" [] "Standbys that must confirm a commit, by synchronous_standby_names";
    SYNC_STREAMING = Gauge "wald_synchronous_standbys_streaming" [] "Standbys that are there to confirm commits";

    SLOT_ACTIVE = Gauge "wald_slot_active" ["slot"] "1 if somebody uses the replication slot";
    SLOT_LOST = Gauge "wald_slot_lost" ["slot"] "1 if WAL that the slot needs is gone";
    SLOT_RETAINED = Gauge "wald_slot_retained_bytes" ["slot"] "WAL that is kept for the slot";
    SLOT_SAFE = Gauge "wald_slot_safe_bytes" ["slot"] "What can be written until the slot may be lost; absent without max_slot_wal_keep_size";
    SLOT_UNTIL_LOST = Gauge "wald_slot_until_lost_seconds" ["slot"] "How long that takes at the present rate; absent while nothing is written";

    FREEZE_AGE = Gauge "wald_database_freeze_age_transactions" [] "Age of the oldest datfrozenxid";
    MULTIXACT_AGE = Gauge "wald_database_freeze_age_multixacts" [] "Age of the oldest datminmxid";
    CONNECTIONS_USED = Gauge "wald_connections_used" [] "Clients connected to PostgreSQL";
    CONNECTIONS_MAX = Gauge "wald_connections_max" [] "Clients that may connect: max_connections without what is reserved";
    ARCHIVE_TIMEOUT = Gauge "wald_archive_timeout_seconds" [] "archive_timeout: without one, a segment that fills slowly is archived late";
    ARCHIVE_MODE = Gauge "wald_archive_mode_enabled" [] "1 if PostgreSQL archives on this server in its present role";

    BOOST_ACTIVE = Gauge "wald_boost_active" [] "1 while autovacuum is boosted";
    BOOST_SINCE = Gauge "wald_boost_changed_timestamp_seconds" [] "When the journal of the boost was last written";
    BOOST_UNTIL = Gauge "wald_boost_until_timestamp_seconds" [] "When the boost is to be taken back";
    PROMOTION_ACTIVE = Gauge "wald_promotion_in_progress" [] "1 while a promotion has begun and is neither finished nor taken back";
    PROMOTION_SINCE = Gauge "wald_promotion_changed_timestamp_seconds" [] "When the journal of the promotion was last written";
    PROMOTION_STEP = Gauge "wald_promotion_step_info" ["step"] "1, with the step at which the promotion is";
}
