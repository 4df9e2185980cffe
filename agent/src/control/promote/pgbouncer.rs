//! PgBouncer: its admin console, and the target in its configuration file.
//!
//! Every command can be given again: "already paused" and "not paused" are what was wanted
//! (PgBouncer 1.18, `admin.c`). The console speaks the simple protocol only.

use super::error::PromoteError;
use super::options::PgBouncer;
use crate::database::{Link, quote_identifier};
use crate::explain::chain;
use crate::fs::FsError;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};
use wald_core::promotion::pgbouncer_file::{Replaced, replace_target};

/// For everything but PAUSE.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came of a PAUSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paused {
    /// No transaction is running; whoever asks for one waits.
    All,
    /// Transactions were running until the time was over; whoever asks for a new one waits.
    StillRunning,
}

impl PgBouncer {
    fn failed(&self, reason: impl Into<String>) -> PromoteError {
        PromoteError::Router { router: self.name(), reason: reason.into() }
    }

    async fn console(&self) -> Result<Link, PromoteError> {
        let config: tokio_postgres::Config = self.admin.parse().unwrap_or_default();
        let database = config.get_dbname().is_none().then_some("pgbouncer");
        match tokio::time::timeout(TIMEOUT, Link::connect(&self.admin, "wald promote", database)).await {
            Ok(Ok(link)) => Ok(link),
            // The text of a ConnectError speaks of [cluster] connection: its cause is what matters.
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), chain);
                Err(self.failed(format!("its admin console can't be reached: {cause}")))
            }
            Err(_) => Err(self.failed("its admin console does not answer")),
        }
    }

    async fn ask(
        &self,
        command: &str,
        timeout: Duration,
    ) -> Result<Option<Vec<SimpleQueryRow>>, PromoteError> {
        let link = self.console().await?;
        match tokio::time::timeout(timeout, link.client().simple_query(command)).await {
            Err(_) => Ok(None),
            Ok(Ok(messages)) => {
                let rows = messages.into_iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                Ok(Some(rows.collect()))
            }
            Ok(Err(error)) => {
                let said =
                    error.as_db_error().map_or_else(|| chain(&error), |error| error.message().to_owned());
                Err(self.failed(format!("{command}: {said}")))
            }
        }
    }

    /// A command that is done at once, or was done before.
    async fn tell(&self, command: &str, done_before: &str) -> Result<(), PromoteError> {
        match self.ask(command, TIMEOUT).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.failed(format!("{command}: no answer within {} s", TIMEOUT.as_secs()))),
            Err(PromoteError::Router { reason, .. }) if reason.contains(done_before) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `PAUSE`, `RESUME`, for all databases or for each that is named.
    fn commands(&self, verb: &str) -> Vec<String> {
        if self.databases.is_empty() {
            return vec![verb.to_owned()];
        }
        self.databases.iter().map(|name| format!("{verb} {}", quote_identifier(name))).collect()
    }

    /// Waits until no transaction is running, and lets none begin. When the time is over it stays
    /// so: new ones wait, and [`PgBouncer::resume`] lets them go.
    pub(super) async fn pause(&self, timeout: Duration) -> Result<Paused, PromoteError> {
        let mut paused = Paused::All;
        for command in self.commands("PAUSE") {
            match self.ask(&command, timeout).await {
                Ok(Some(_)) => {}
                Ok(None) => paused = Paused::StillRunning,
                // From a run that was killed, or by hand: it may still be waiting for the last ones.
                Err(PromoteError::Router { reason, .. }) if reason.contains("already") => {
                    if !self.is_drained(timeout).await? {
                        paused = Paused::StillRunning;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(paused)
    }

    /// Waits until no server connection of its databases is in a transaction.
    async fn is_drained(&self, timeout: Duration) -> Result<bool, PromoteError> {
        let started = std::time::Instant::now();
        loop {
            let rows = self.ask("SHOW POOLS", TIMEOUT).await?.unwrap_or_default();
            let column =
                |row: &SimpleQueryRow, name: &str| row.try_get(name).ok().flatten().map(str::to_owned);
            let busy = rows.iter().any(|row| {
                let database = column(row, "database").unwrap_or_default();
                let ours = database != "pgbouncer"
                    && (self.databases.is_empty() || self.databases.contains(&database));
                ours && column(row, "sv_active").is_none_or(|count| count != "0")
            });
            if !busy || started.elapsed() > timeout {
                return Ok(!busy);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets transactions begin.
    pub(super) async fn resume(&self) -> Result<(), PromoteError> {
        for command in self.commands("RESUME") {
            self.tell(&command, "not paused").await?;
        }
        Ok(())
    }

    /// Whether it answers, and its file holds a target that can be replaced; what will be.
    pub(super) async fn check(&self) -> Result<String, PromoteError> {
        let rows = self.ask("SHOW DATABASES", TIMEOUT).await?.unwrap_or_default();
        let known: Vec<&str> = rows.iter().filter_map(|row| row.try_get("name").ok().flatten()).collect();
        if let Some(missing) = self.databases.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(self.failed(format!("it has no database {missing:?}")));
        }
        let Some(path) = &self.config_file else { return Ok(format!("{} answers", self.name())) };
        let (_, new) = self.replaced(path)?;
        let names: Vec<String> = new.replaced.iter().chain(&new.already).cloned().collect();
        Ok(format!(
            "{} answers; in {} the target of {} changes",
            self.name(),
            path.display(),
            names.join(", ")
        ))
    }

    /// The file, and as it shall be.
    fn replaced(&self, path: &Path) -> Result<(String, Replaced), PromoteError> {
        let text = fs::read_to_string(path).map_err(|error| FsError::new("read", path, error))?;
        let new = replace_target(&text, &self.from, &self.to);
        if new.replaced.is_empty() && new.already.is_empty() {
            let place = path.display();
            return Err(self.failed(format!("{place} has no database with the target {}", self.from)));
        }
        Ok((text, new))
    }

    /// Writes the new target into the file; gives the file as it was. Done before, it changes
    /// nothing.
    pub(super) fn retarget(
        &self,
        before: impl FnOnce(&str) -> Result<(), FsError>,
    ) -> Result<Option<String>, PromoteError> {
        let Some(path) = &self.config_file else { return Ok(None) };
        let (text, new) = self.replaced(path)?;
        if new.replaced.is_empty() {
            return Ok(Some(format!("{} had the new target already", path.display())));
        }
        before(&text)?;
        replace_file(path, &new.text)?;
        Ok(Some(format!("{}: {} now lead to {}", path.display(), new.replaced.join(", "), self.to)))
    }

    /// Makes it read its file; without one there is nothing to read.
    pub(super) async fn reload(&self) -> Result<(), PromoteError> {
        let Some(path) = &self.config_file else { return Ok(()) };
        self.tell("RELOAD", "\u{0}").await?;
        // What it took from the file is what counts.
        let rows = self.ask("SHOW DATABASES", TIMEOUT).await?.unwrap_or_default();
        let (_, file) = self.replaced(path)?;
        let port = self.to.port.to_string();
        let (host, port) = (self.to.host.as_str(), port.as_str());
        let column = |row: &SimpleQueryRow, name: &str| row.try_get(name).ok().flatten().map(str::to_owned);
        for name in file.already.iter().filter(|name| *name != "*") {
            let row = rows.iter().find(|row| column(row, "name").as_ref() == Some(name));
            let leads_here = row.is_some_and(|row| {
                column(row, "host").as_deref() == Some(host) && column(row, "port").as_deref() == Some(port)
            });
            if !leads_here {
                return Err(
                    self.failed(format!("after RELOAD its database {name} does not lead to {}", self.to))
                );
            }
        }
        Ok(())
    }
}

/// Replaces a file whole, with its mode and owner.
fn replace_file(path: &Path, text: &str) -> Result<(), FsError> {
    let failed = |error: std::io::Error| FsError::new("replace", path, error);
    // A link stays a link: what it leads to is replaced.
    let path = fs::canonicalize(path).map_err(failed)?;
    let before = fs::metadata(&path).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".wald-new");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.set_permissions(before.permissions())?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| FsError::new("write", &temporary, error))?;
    fs::rename(&temporary, &path).map_err(failed)?;
    let Some(dir) = path.parent() else { return Ok(()) };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| FsError::new("sync", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_through_its_link_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.ini"), dir.path().join("link.ini"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace_file(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
