//! A path below the data directory, as the lists of files in a backup give it.
//!
//! Invariant: joined to a directory it stays in that directory, as long as no symbolic link
//! stands in the way; links are the business of whoever writes.

use std::fmt;

/// A path below the data directory, `/`-separated: not empty, not absolute, without empty,
/// `.` or `..` components and without a NUL byte. Bytes, because file names are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Vec<u8>);

/// A path that could lead out of the data directory, or names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a path below the data directory", path.escape_ascii())]
pub struct RelativePathError {
    path: Vec<u8>,
}

impl RelativePath {
    /// The longest path, `PATH_MAX` on Linux.
    pub const BYTES_MAX: usize = 4096;

    /// Checks a path.
    pub fn new(path: impl Into<Vec<u8>>) -> Result<Self, RelativePathError> {
        let path = path.into();
        let inside = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
        let good =
            path.len() <= Self::BYTES_MAX && !path.contains(&0) && path.split(|b| *b == b'/').all(inside);
        if good { Ok(Self(path)) } else { Err(RelativePathError { path }) }
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The tablespace whose file this is, and the path below that tablespace's directory, for
    /// `pg_tblspc/<oid>/<path>`.
    pub fn in_tablespace(&self) -> Option<(u32, RelativePath)> {
        let rest = self.0.strip_prefix(b"pg_tblspc/")?;
        let slash = rest.iter().position(|b| *b == b'/')?;
        let (oid, path) = rest.split_at_checked(slash)?;
        let oid = std::str::from_utf8(oid).ok().filter(|oid| oid.bytes().all(|b| b.is_ascii_digit()))?;
        let path = RelativePath(path.get(1..)?.to_vec());
        Some((oid.parse().ok()?, path))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelativePath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_the_data_directory_are_refused() {
        for path in ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(RelativePath::new(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn tablespace_paths_are_taken_apart() {
        let path = RelativePath::new("pg_tblspc/16400/PG_15_202209061/5/1259").unwrap();
        let (oid, rest) = path.in_tablespace().unwrap();
        assert_eq!((oid, rest.to_string().as_str()), (16400, "PG_15_202209061/5/1259"));
        for other in ["pg_tblspc", "pg_tblspc/16400", "base/5/1259", "pg_tblspc/x/y", "pg_tblspc/+1/y"] {
            assert!(RelativePath::new(other).unwrap().in_tablespace().is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_checked_path_has_only_plain_components(bytes: Vec<u8>) {
            if let Ok(path) = RelativePath::new(bytes) {
                use std::path::{Component, Path};
                use std::os::unix::ffi::OsStrExt;
                let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).to_path_buf();
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
