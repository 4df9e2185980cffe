//! A repository seen from outside: which objects are there, how large, and what is in them.
//! Suites damage objects here as well, past wald and past object lock's front door.

use crate::s3_client::S3Client;
use crate::seaweed::{ACCESS_KEY, SECRET_KEY};
use crate::wald::{PREFIX, Place};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Its name relative to the repository's URL.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Place {
    /// Every object whose name starts with `prefix`, by name.
    pub fn objects(&self, prefix: &str) -> Result<Vec<Stored>> {
        let mut found = match self {
            Place::Directory(root) => {
                let mut found = Vec::new();
                walk(root, "", &mut found)?;
                found.retain(|stored| stored.name.starts_with(prefix));
                found
            }
            Place::Bucket { bucket, .. } => {
                let listed = self.s3()?.list(bucket, &format!("{PREFIX}/{prefix}"))?;
                let relative = |(key, bytes): (String, u64)| {
                    let name = key.strip_prefix(PREFIX)?.strip_prefix('/')?.to_owned();
                    Some(Stored { name, bytes })
                };
                listed.into_iter().filter_map(relative).collect()
            }
        };
        found.sort();
        Ok(found)
    }

    /// An object's content.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Place::Directory(root) => fs::read(root.join(name)).with_context(|| format!("reading {name}")),
            Place::Bucket { bucket, .. } => {
                Ok(self.s3()?.get(bucket, &format!("{PREFIX}/{name}"))?.success()?.body)
            }
        }
    }

    /// Puts other content in an object's place, as a broken disk or a rogue operator would.
    pub fn tamper(&self, name: &str, content: &[u8]) -> Result<()> {
        match self {
            Place::Directory(root) => {
                fs::write(root.join(name), content).with_context(|| format!("overwriting {name}"))
            }
            // A new version over the old one, which the lock permits.
            Place::Bucket { bucket, .. } => {
                self.s3()?.put(bucket, &format!("{PREFIX}/{name}"), content)?.success()?;
                Ok(())
            }
        }
    }

    fn s3(&self) -> Result<S3Client> {
        match self {
            Place::Directory(root) => bail!("{} is a directory", root.display()),
            Place::Bucket { endpoint, .. } => {
                let address = endpoint.strip_prefix("http://").context("an endpoint without http://")?;
                Ok(S3Client::new(address, ACCESS_KEY, SECRET_KEY))
            }
        }
    }
}

fn walk(root: &Path, below: &str, found: &mut Vec<Stored>) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        let name = entry.file_name().to_str().context("a name that is not UTF-8")?.to_owned();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().context("asking for a file's type")?;
        if kind.is_dir() {
            walk(root, &name, found)?;
        } else {
            let bytes = entry.metadata().context("asking for a file's size")?.len();
            found.push(Stored { name, bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_directory_are_named_from_its_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("wal/deep")).unwrap();
        fs::write(dir.path().join("wal/deep/b"), b"123").unwrap();
        fs::write(dir.path().join("a"), b"1").unwrap();
        let place = Place::Directory(dir.path().to_owned());
        assert_eq!(place.objects("wal/").unwrap(), [Stored { name: "wal/deep/b".to_owned(), bytes: 3 }]);
        place.tamper("wal/deep/b", b"x").unwrap();
        assert_eq!(place.read("wal/deep/b").unwrap(), b"x");
    }
}
