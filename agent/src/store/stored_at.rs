//! When a version was stored, on a server whose `Last-Modified` says something else.
//!
//! On Amazon S3 a change of a lock leaves `Last-Modified` alone. SeaweedFS sets it anew, so that an
//! object whose lock `wald expire` makes longer every other night would be young for ever, and what
//! goes by age would never go. Its version ids tell when a version was made (`generateVersionId`
//! in its `weed/s3api/s3api_version_id.go`): 32 hexadecimal digits, of which the first 16 are
//! nanoseconds since 1970, or, since 2025, 2^63 - 1 less these.
//!
//! Invariant: nothing becomes younger here, and only the server's own name makes an id be read so.
//! Elsewhere `Last-Modified` counts: where it moves, things are kept for longer, never for less.

use super::versions::VersionId;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, SERVER};

/// From here on a number is one that was taken from 2^63 - 1.
const INVERTED_FROM: u64 = 1 << 62;
/// SeaweedFS is younger.
const FIRST_SECOND: i64 = 1_420_070_400;

/// How a server's lists tell when a version was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoredAt {
    /// By `Last-Modified`.
    LastModified,
    /// By the version's id, too.
    VersionId,
}

impl StoredAt {
    /// By the headers of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let server = headers.get(SERVER).and_then(|server| server.to_str().ok());
        match server {
            Some(server) if server.starts_with("SeaweedFS") => StoredAt::VersionId,
            _ => StoredAt::LastModified,
        }
    }

    /// The earlier of the two.
    pub(super) fn read(self, version: &VersionId, last_modified: Timestamp) -> Timestamp {
        match self {
            StoredAt::LastModified => last_modified,
            StoredAt::VersionId => {
                made_at(version.as_str()).map_or(last_modified, |at| at.min(last_modified))
            }
        }
    }
}

fn made_at(id: &str) -> Option<Timestamp> {
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let told = u64::from_str_radix(id.get(..16)?, 16).ok()?;
    let nanoseconds =
        if told >= INVERTED_FROM { i64::MAX.checked_sub_unsigned(told)? } else { told.try_into().ok()? };
    let at = Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    (at.as_second() >= FIRST_SECOND).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_changed_lock_makes_nothing_younger_where_the_id_tells_its_age() {
        let id = VersionId::new("6713919d539cc01160bc70937441296e");
        let moved = at("2026-12-05T03:00:00Z");
        assert_eq!(StoredAt::VersionId.read(&id, moved).as_second(), at("2026-11-29T05:55:21Z").as_second());
        assert_eq!(StoredAt::LastModified.read(&id, moved), moved);
        // Before 2025 the number was not turned round.
        let id = VersionId::new("17a0d8ac1b2f3c000123456789abcdef");
        assert_eq!(StoredAt::VersionId.read(&id, moved).strftime("%Y").to_string(), "2023");
    }

    #[test]
    fn other_ids_and_other_servers_tell_nothing() {
        let listed = at("2026-12-05T03:00:00Z");
        for id in [
            "null",
            "",
            "6713919c",
            "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrH",
            "00000000000000000000000000000000",
            "ffffffffffffffffffffffffffffffff",
            "7fffffffffffffff0000000000000000",
            "é713919c539cc01160bc7093744129",
        ] {
            assert_eq!(StoredAt::VersionId.read(&VersionId::new(id), listed), listed, "{id}");
        }
        // An id from after the list is no reason to call anything younger.
        let id = VersionId::new("6713919d539cc01160bc70937441296e");
        let before = at("2026-11-01T00:00:00Z");
        assert_eq!(StoredAt::VersionId.read(&id, before), before);
        let headers = |server: &str| HeaderMap::from_iter([(SERVER, server.parse().unwrap())]);
        assert_eq!(StoredAt::of(&headers("SeaweedFS 30GB 4.48")), StoredAt::VersionId);
        assert_eq!(StoredAt::of(&headers("AmazonS3")), StoredAt::LastModified);
        assert_eq!(StoredAt::of(&HeaderMap::new()), StoredAt::LastModified);
    }

    proptest! {
        #[test]
        fn no_id_makes_anything_younger(id in "\\PC{0,40}|[0-9a-f]{32}", second in 0i64..4_000_000_000) {
            let listed = Timestamp::from_second(second).unwrap();
            prop_assert!(StoredAt::VersionId.read(&VersionId::new(id), listed) <= listed);
        }
    }
}
