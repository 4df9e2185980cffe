//! What time it is, by two clocks.
//!
//! A clock that is a year ahead would make everything look expired, and lock what is needed for a
//! year too long, which nobody can take back. So the repository's own clock is asked: where
//! this host's is ahead, nothing is deleted, and locks are reckoned by the repository's. A
//! directory has no clock of its own; there the age of the newest WAL or backup tells something.

use super::RunTime;
use crate::clock::Clock;
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use wald_core::retention::{ListedVersion, ObjectName, Policy};

/// Clocks that differ by less than this are right.
const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// The time to go by. A clock that is fixed is a test's, and is believed.
pub(super) async fn read(store: &Store, clock: Clock) -> Result<RunTime, StoreError> {
    let host = clock.now();
    match clock {
        Clock::Fixed(_) => Ok(RunTime { now: host, doubt: None, is_checked: true }),
        Clock::System => Ok(judge(host, store.server_time().await?)),
    }
}

fn judge(host: Timestamp, server: Option<Timestamp>) -> RunTime {
    let ahead = |server: &Timestamp| host.duration_since(*server) > CLOCK_AHEAD_MAX;
    match server.filter(ahead) {
        None => RunTime { now: host, doubt: None, is_checked: server.is_some() },
        Some(server) => RunTime {
            now: server,
            doubt: Some(format!(
                "this host's clock says {host} and the repository's {server}, so nothing is deleted: set this host's clock"
            )),
            is_checked: true,
        },
    }
}

/// Whether a repository without a clock was left alone for so long that this host's may be wrong.
pub(super) fn doubt_of_silence<V>(
    versions: &[ListedVersion<V>],
    now: Timestamp,
    policy: Policy,
) -> Option<String> {
    let tells = |version: &&ListedVersion<V>| {
        let name = ObjectName::parse(&version.name);
        matches!(name, Some(ObjectName::Wal(_) | ObjectName::Catalog(_) | ObjectName::BackupObject(_)))
    };
    let newest = versions.iter().filter(tells).map(|version| version.stored_at).max()?;
    (now.duration_since(newest) > policy.window).then(|| {
        format!(
            "nothing was archived since {newest}, longer ago than the window: either this host's clock is wrong or \
             the cluster is not archived any more, so nothing is deleted"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wald_core::retention::VersionKind;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_that_is_ahead_deletes_nothing_and_locks_by_the_other() {
        let (host, server) = (at("2026-11-22T20:05:01Z"), at("2026-11-22T20:00:00Z"));
        let time = judge(host, Some(server));
        assert!(time.now == server && time.doubt.unwrap().contains("set this host's clock"));
        for right in [Some(at("2026-11-22T20:00:01Z")), Some(at("2026-11-23T20:00:00Z")), None] {
            let time = judge(host, right);
            assert!(time.now == host && time.doubt.is_none());
        }
    }

    #[test]
    fn a_directory_that_was_silent_for_longer_than_the_window_is_left_alone() {
        let version = |name: &str, stored_at| ListedVersion {
            name: name.to_owned(),
            id: (),
            is_latest: true,
            kind: VersionKind::Object,
            size_bytes: 1,
            stored_at,
        };
        let (now, policy) = (at("2026-11-22T20:00:00Z"), Policy::new(7, 1));
        let segment = "wal/000000010000000000000042.zst";
        let own = version("expire/20261122T000000Z.json", now);
        let old = [version(segment, at("2026-11-15T19:59:59Z")), own.clone()];
        assert!(doubt_of_silence(&old, now, policy).is_some());
        let young = [version(segment, at("2026-11-15T20:00:01Z")), own];
        assert_eq!(doubt_of_silence(&young, now, policy), None);
    }
}
