//! Step 1: looks at every condition, changes nothing. Also what `--dry-run` prints.

use super::error::PromoteError;
use super::journal::Facts;
use super::look::{self, OldLook};
use super::options::PromoteOptions;
use super::{archive, fence, routes};
use crate::database::{Database, DatabaseError, Right, parsed, value};
use crate::repository::Repository;
use jiff::Timestamp;
use std::path::Path;
use std::time::{Duration, Instant};
use wald_core::lsn::Lsn;
use wald_core::promotion::Server;
use wald_core::promotion::archive_check::{self, Archive, ArchiveState, TAIL_SEGMENTS_MAX};
use wald_core::promotion::condition::{Condition, Finding, Lag, judge_lag};
use wald_core::promotion::conninfo;
use wald_core::promotion::fence::{Answer, Evidence, proven};
use wald_core::promotion::pgbouncer_file::Target;
use wald_core::quantity::Bytes;
use wald_core::system_id::SystemId;
use wald_core::timeline::TimelineId;

/// How often the positions are read while the lag is measured.
const POLL: Duration = Duration::from_millis(50);

/// What came of looking.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Every condition that was looked at.
    pub findings: Vec<Finding>,
    /// What else is worth knowing.
    pub warnings: Vec<String>,
    /// What was learned.
    pub facts: Facts,
}

impl Checked {
    /// The findings that stand in the way, as one text.
    pub fn refused(&self) -> Result<(), PromoteError> {
        let refused: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| finding.refuses())
            .map(|finding| format!("{}: {}", finding.condition, finding.detail))
            .collect();
        if refused.is_empty() { Ok(()) } else { Err(PromoteError::Conditions(refused.join("; "))) }
    }
}

/// What a standby says about itself.
struct Standby {
    may_promote: bool,
    system_id: SystemId,
    timeline: TimelineId,
    replayed: Option<Lsn>,
    replay_paused: bool,
    apply_delay_millis: i64,
    upstream: Option<Target>,
    receiving: bool,
    synchronous_standby_names: String,
    trigger_file: Option<String>,
    backups: i64,
}

/// Looks at all conditions.
pub async fn check(options: &PromoteOptions, now: Timestamp) -> Result<Checked, PromoteError> {
    let forced = &options.forced;
    let here = look::here(options).await;
    let Some(database) = here.database.filter(|_| here.server == Server::Standby) else {
        let detail = match here.problem {
            Some(error) => return Err(error.into()),
            None => "this server is a primary: run `wald promote` on the standby that shall take over",
        };
        let findings = vec![Finding::unmet(Condition::Standby, forced, detail)];
        return Ok(Checked { findings, warnings: Vec::new(), facts: Facts::default() });
    };
    let standby = ask_standby(&database).await?;
    let old = look::old_primary(options).await;
    let mut checked = Checked {
        findings: vec![Finding::met(Condition::Standby, "this server is in recovery")],
        warnings: warnings(options, &standby),
        facts: Facts {
            timeline_before: Some(standby.timeline),
            old_data_directory: old.data_directory.clone(),
            old_took_writes: old.lsn.is_some(),
            primary_lsn: old.lsn,
            ..Facts::default()
        },
    };
    let findings = &mut checked.findings;
    findings.push(rights(&standby, options));
    findings.push(upstream(options, &standby).await);
    let lag = measure_lag(options, &database).await?;
    if let Lag::ReplayedAfter { millis, .. } = lag {
        checked.facts.lag_millis = u64::try_from(millis).ok();
    }
    findings.push(judge_lag(lag, forced));
    findings.extend(replay(&standby, forced));
    let opened = archive::open(options).await;
    findings.push(same_cluster(options, opened.as_ref().ok(), standby.system_id, &old));
    let state = archive_state(opened, &standby, forced, findings).await;
    findings.push(disk_space(options));
    findings.push(backup_running(&standby, forced));
    findings.push(fence_possible(options, &old, state.as_ref(), now));
    routes::check(options, findings, &mut checked.facts).await;
    findings.sort_by_key(|finding| finding.condition);
    Ok(checked)
}

async fn ask_standby(database: &Database) -> Result<Standby, DatabaseError> {
    const ACTION: &str = "tell what kind of standby it is";
    // What the role may not see is NULL here, and told as such by the conditions. The control file
    // knows of a new timeline from the next restart point on only, and the receiver as long as it
    // runs: the segments in pg_wal tell at any time.
    let sql = "\
        SELECT pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE') AS may_promote, \
               (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_id, \
               greatest(c.timeline_id, m.min_recovery_end_timeline, r.received_tli, \
                   (SELECT ('x' || max(substr(name, 1, 8)))::bit(32)::int8 FROM pg_catalog.pg_ls_waldir() \
                    WHERE name ~ '^[0-9A-F]{24}$'))::int8 AS timeline, \
               pg_catalog.pg_last_wal_replay_lsn()::text AS replayed, \
               pg_catalog.pg_is_wal_replay_paused() AS replay_paused, \
               r.pid IS NOT NULL AS receiving, r.sender_host, r.sender_port, \
               (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'recovery_min_apply_delay') AS apply_delay, \
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'primary_conninfo') AS conninfo, \
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'synchronous_standby_names') AS sync_names, \
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'promote_trigger_file') AS trigger_file, \
               (SELECT count(*) FROM pg_catalog.pg_stat_progress_basebackup) \
               + (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid <> pg_catalog.pg_backend_pid() \
                  AND (application_name = 'wald backup' OR query ~* '^\\s*select\\M.*\\mpg_(backup_start|start_backup)\\s*\\(')) AS backups \
        FROM pg_catalog.pg_control_checkpoint() AS c CROSS JOIN pg_catalog.pg_control_recovery() AS m \
             LEFT JOIN pg_catalog.pg_stat_wal_receiver AS r ON true";
    let row = database.query_one(ACTION, Right::Monitor, sql, &[]).await?;
    let timeline: i64 = value(&row, "timeline", ACTION)?;
    let timeline = u32::try_from(timeline).ok().and_then(TimelineId::new);
    let conninfo: Option<String> = value(&row, "conninfo", ACTION)?;
    let sender_host: Option<String> = value(&row, "sender_host", ACTION)?;
    let sender_port: Option<i32> = value(&row, "sender_port", ACTION)?;
    let sender = sender_host.zip(sender_port.and_then(|port| u16::try_from(port).ok()));
    let configured = conninfo.as_deref().and_then(conninfo::target);
    let replayed: Option<String> = value(&row, "replayed", ACTION)?;
    Ok(Standby {
        may_promote: value(&row, "may_promote", ACTION)?,
        system_id: parsed(&row, "system_id", ACTION)?,
        timeline: timeline
            .ok_or_else(|| DatabaseError::Answer { action: ACTION, found: "no timeline".to_owned() })?,
        replayed: replayed.and_then(|text| text.parse().ok()),
        replay_paused: value(&row, "replay_paused", ACTION)?,
        apply_delay_millis: value::<Option<i64>>(&row, "apply_delay", ACTION)?.unwrap_or(0),
        // A receiver that runs knows best; after the primary's end only the setting is left.
        upstream: sender.map(|(host, port)| Target { host, port }).or(configured),
        receiving: value(&row, "receiving", ACTION)?,
        synchronous_standby_names: value::<Option<String>>(&row, "sync_names", ACTION)?.unwrap_or_default(),
        trigger_file: value(&row, "trigger_file", ACTION)?,
        backups: value(&row, "backups", ACTION)?,
    })
}

fn warnings(options: &PromoteOptions, standby: &Standby) -> Vec<String> {
    let mut warnings = Vec::new();
    if !standby.synchronous_standby_names.is_empty() {
        warnings.push(format!(
            "synchronous_standby_names is {:?} on this server: once it is the primary, commits wait for a standby \
             of that name",
            standby.synchronous_standby_names
        ));
    }
    if options.routers.is_empty() {
        warnings.push(
            "no PgBouncer and no HAProxy is configured: clients must find the new primary themselves"
                .to_owned(),
        );
    }
    if options.fence_command.is_some() && options.unfence_command.is_none() {
        warnings.push(
            "there is no unfence_command: if the promotion is taken back after the fence, the old primary must be \
             started by hand"
                .to_owned(),
        );
    }
    warnings
}

fn rights(standby: &Standby, options: &PromoteOptions) -> Finding {
    let wanted = options.trigger_file.as_ref().map(|path| path.to_string_lossy().into_owned());
    match (wanted, &standby.trigger_file) {
        (Some(wanted), found) if found.as_deref() != Some(wanted.as_str()) => Finding::unmet(
            Condition::Rights,
            &[],
            format!("promotion.trigger_file is {wanted}, and the server's promote_trigger_file is {found:?}"),
        ),
        (Some(wanted), _) => Finding::met(Condition::Rights, format!("the server waits for {wanted}")),
        (None, _) if standby.may_promote => Finding::met(Condition::Rights, "the role may run pg_promote"),
        (None, _) => Finding::unmet(
            Condition::Rights,
            &[],
            "the role may not run pg_promote: `wald role sql` prints the grant, to be run on the primary",
        ),
    }
}

async fn upstream(options: &PromoteOptions, standby: &Standby) -> Finding {
    let Some(found) = &standby.upstream else {
        let detail = "nobody can tell where this server received from: primary_conninfo names no host, or is \
                      hidden from this role (it needs pg_monitor)";
        return Finding::unmet(Condition::Upstream, &options.forced, detail);
    };
    let state = if standby.receiving { "is receiving" } else { "was receiving, and is not now," };
    if *found == options.old || same_place(found, &options.old).await {
        Finding::met(Condition::Upstream, format!("it {state} from {found}"))
    } else {
        let detail = format!("it {state} from {found}, and promotion.primary is {}", options.old);
        Finding::unmet(Condition::Upstream, &options.forced, detail)
    }
}

/// Whether two names mean one address.
async fn same_place(a: &Target, b: &Target) -> bool {
    if a.port != b.port || a.host.starts_with('/') || b.host.starts_with('/') {
        return false;
    }
    let resolve = |target: &Target| tokio::net::lookup_host((target.host.clone(), target.port));
    let (Ok(a), Ok(b)) = (resolve(a).await, resolve(b).await) else { return false };
    let b: Vec<_> = b.collect();
    a.into_iter().any(|address| b.contains(&address))
}

/// Waits, for `lag_max` at most, until what the primary had written is replayed here.
async fn measure_lag(options: &PromoteOptions, database: &Database) -> Result<Lag, DatabaseError> {
    let started = Instant::now();
    let primary_lsn = look::old_primary(options).await.lsn;
    let first = look::positions(database).await?;
    let Some(target) = primary_lsn.max(first.received).or(first.replayed) else { return Ok(Lag::Nothing) };
    loop {
        let now = look::positions(database).await?;
        let Some(replayed) = now.replayed else { return Ok(Lag::Nothing) };
        let waited = started.elapsed();
        if replayed >= target {
            return Ok(Lag::ReplayedAfter {
                millis: waited.as_millis(),
                primary_answered: primary_lsn.is_some(),
            });
        }
        if waited > options.lag_max {
            let received = now.received.unwrap_or(replayed);
            return Ok(Lag::Behind {
                unreplayed_bytes: received.bytes_since(replayed),
                unreceived_bytes: primary_lsn.map(|lsn| lsn.bytes_since(received)),
                waited_millis: options.lag_max.as_millis(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn replay(standby: &Standby, forced: &[Condition]) -> [Finding; 2] {
    let paused = if standby.replay_paused {
        let detail = "replay is paused: SELECT pg_wal_replay_resume()";
        Finding::unmet(Condition::ReplayPaused, forced, detail)
    } else {
        Finding::met(Condition::ReplayPaused, "replay is not paused")
    };
    let delay = match standby.apply_delay_millis {
        0 => Finding::met(Condition::ApplyDelay, "recovery_min_apply_delay is 0"),
        millis => Finding::unmet(
            Condition::ApplyDelay,
            forced,
            format!("recovery_min_apply_delay is {millis} ms: this standby is behind on purpose"),
        ),
    };
    [paused, delay]
}

fn same_cluster(
    options: &PromoteOptions,
    repository: Option<&Repository>,
    here: SystemId,
    old: &OldLook,
) -> Finding {
    let others = [
        (repository.map(Repository::system_id), format!("the repository {}", options.repository.url)),
        (old.system_id, format!("the server at {}", options.old)),
    ];
    let other = others.into_iter().find(|(system_id, _)| system_id.is_some_and(|found| found != here));
    match other {
        Some((Some(found), name)) => Finding::unmet(
            Condition::SameCluster,
            &[],
            format!("{name} belongs to system {found}, and this server to {here}"),
        ),
        _ => Finding::met(Condition::SameCluster, format!("system {here}")),
    }
}

async fn archive_state(
    opened: Result<Repository, String>,
    standby: &Standby,
    forced: &[Condition],
    findings: &mut Vec<Finding>,
) -> Option<ArchiveState> {
    let listed = match opened {
        Ok(repository) => archive::list(&repository).await,
        Err(problem) => Err(problem),
    };
    let inventory = match listed {
        Ok(inventory) => inventory,
        Err(problem) => {
            findings.push(Finding::unmet(Condition::ArchiveReachable, forced, problem));
            return None;
        }
    };
    findings.push(Finding::met(Condition::ArchiveReachable, "the repository was read"));
    let archive = Archive {
        coverage: &inventory.coverage,
        histories: &inventory.histories,
        catalog: &inventory.catalog,
    };
    let state = archive_check::look(archive, standby.timeline, standby.replayed.unwrap_or(Lsn::MIN));
    findings.push(if !state.gaps.is_empty() {
        let detail = format!("segments are missing in the repository: {}", state.gaps.join(", "));
        Finding::unmet(Condition::ArchiveGap, forced, detail)
    } else if state.tail_count > TAIL_SEGMENTS_MAX {
        let detail = format!("the last {} whole segments are not in the repository yet", state.tail_count);
        Finding::unmet(Condition::ArchiveGap, forced, detail)
    } else {
        let detail = format!("no gap; {} whole segments are still to be archived", state.tail_count);
        Finding::met(Condition::ArchiveGap, detail)
    });
    findings.push(match state.later_timelines.last() {
        None => Finding::met(Condition::Timeline, format!("timeline {} is the latest", standby.timeline)),
        Some(later) => Finding::unmet(
            Condition::Timeline,
            forced,
            format!(
                "the repository knows timeline {later}, and this server is on {}: another server may have been \
                 promoted",
                standby.timeline
            ),
        ),
    });
    Some(state)
}

fn disk_space(options: &PromoteOptions) -> Finding {
    let Some(data_dir) = &options.data_dir else {
        return Finding::unmet(Condition::DiskSpace, &options.forced, "cluster.data_dir is not set");
    };
    let free = |path: &Path| {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| format!("can't look at {}: {error}", path.display()))?;
        Ok::<u64, String>(stat.f_bavail.saturating_mul(stat.f_frsize))
    };
    let mut least = u64::MAX;
    for path in [data_dir.clone(), data_dir.join("pg_wal")] {
        match free(&path) {
            Ok(bytes) => least = least.min(bytes),
            Err(problem) => return Finding::unmet(Condition::DiskSpace, &options.forced, problem),
        }
    }
    let detail = format!("{} free, {} wanted", Bytes(least), Bytes(options.disk_free_min_bytes));
    if least >= options.disk_free_min_bytes {
        Finding::met(Condition::DiskSpace, detail)
    } else {
        Finding::unmet(Condition::DiskSpace, &options.forced, detail)
    }
}

fn backup_running(standby: &Standby, forced: &[Condition]) -> Finding {
    match standby.backups {
        0 => Finding::met(Condition::BackupRunning, "no backup is taken from this server"),
        count => Finding::unmet(
            Condition::BackupRunning,
            forced,
            format!("{count} backups are taken from this server: wait, or end them"),
        ),
    }
}

/// Whether the fence could be proven later: without a hook it must be so already, because clients
/// would be held for nothing.
fn fence_possible(
    options: &PromoteOptions,
    old: &OldLook,
    state: Option<&ArchiveState>,
    now: Timestamp,
) -> Finding {
    let condition = Condition::OldPrimarySilent;
    if options.fence_command.is_some() {
        return Finding::met(condition, "fence_command will see to it");
    }
    let evidence = fence::evidence_without_hook(options, state.and_then(|state| state.last_stored_at), now);
    match proven(&old.answer, evidence) {
        Ok(how) if evidence == Evidence::Forced => Finding::unmet(condition, &options.forced, how),
        Ok(how) => Finding::met(condition, how),
        // Only silence may be believed on the operator's word.
        Err(why) if matches!(old.answer, Answer::None { .. }) => {
            Finding::unmet(condition, &options.forced, why)
        }
        Err(why) => Finding::unmet(condition, &[], why),
    }
}
