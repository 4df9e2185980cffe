//! wald as an operator meets it: a configuration file, credentials in the environment, and the
//! command line.

use crate::account::Account;
use crate::binaries::Binaries;
use crate::postgres::Cluster;
use crate::run::{Finished, run, run_within};
use crate::sandbox::Sandbox;
use crate::seaweed::S3Server;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The prefix inside a bucket.
pub const PREFIX: &str = "wald";

/// Where a repository is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A directory; made when a configuration is written for it.
    Directory(PathBuf),
    /// A bucket of an S3 server, with a prefix inside it.
    Bucket {
        /// The server's URL.
        endpoint: String,
        /// The bucket's name.
        bucket: String,
        /// The environment that carries the keys.
        credentials: Vec<(String, String)>,
    },
}

impl Place {
    /// A new directory in the sandbox.
    pub fn directory(sandbox: &Sandbox) -> Result<Place> {
        Ok(Place::Directory(sandbox.dir("repository")?))
    }

    /// A new bucket with object lock.
    pub fn locked_bucket(server: &S3Server, bucket: &str) -> Result<Place> {
        server.client().create_locked_bucket(bucket)?;
        let credentials = server.credentials().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Place::Bucket {
            endpoint: server.endpoint(),
            bucket: bucket.to_owned(),
            credentials: credentials.into(),
        })
    }

    /// The repository's URL.
    pub fn url(&self) -> String {
        match self {
            Place::Directory(path) => format!("file://{}", path.display()),
            Place::Bucket { bucket, .. } => format!("s3://{bucket}/{PREFIX}"),
        }
    }
}

/// The configuration file's settings, by section and key; values are TOML.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Settings {
    /// None but the necessary ones, which are filled in when the file is written.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Sets one; `value` is TOML, for example `"\"5s\""` or `"4"`.
    pub fn set(mut self, section: &str, key: &str, value: impl Into<String>) -> Settings {
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.into());
        self
    }

    /// Sets one to a text.
    pub fn set_text(self, section: &str, key: &str, value: impl AsRef<str>) -> Settings {
        // A JSON string without control characters above 0x7e is a TOML basic string too.
        let quoted = serde_json::Value::from(value.as_ref()).to_string();
        self.set(section, key, quoted)
    }

    /// Takes one away.
    pub fn unset(mut self, section: &str, key: &str) -> Settings {
        if let Some(keys) = self.sections.get_mut(section) {
            keys.remove(key);
        }
        self
    }

    /// Sets one unless it is set.
    fn or_text(self, section: &str, key: &str, value: impl AsRef<str>) -> Settings {
        let present = self.sections.get(section).is_some_and(|keys| keys.contains_key(key));
        if present { self } else { self.set_text(section, key, value) }
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            let _ = writeln!(text, "[{section}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }
}

/// One installation of wald for one cluster: its programs, its configuration, its keys.
#[derive(Debug, Clone)]
pub struct Wald {
    binaries: Binaries,
    account: Account,
    config: PathBuf,
    socket: PathBuf,
    environment: Vec<(String, String)>,
}

impl Wald {
    /// Writes `<name>.toml` for a cluster and a repository. What `settings` holds is taken as it
    /// is; the rest is filled in so that nothing leaves the sandbox.
    pub fn configure(
        sandbox: &Sandbox,
        name: &str,
        cluster: &Cluster,
        place: &Place,
        settings: Settings,
    ) -> Result<Wald> {
        let socket = sandbox.dir(&format!("{name}-run"))?.join("wald.sock");
        let state = sandbox.dir(&format!("{name}-state"))?;
        let mut settings = settings
            .or_text("repository", "url", place.url())
            .or_text("cluster", "data_dir", cluster.data_dir().to_string_lossy())
            .or_text("cluster", "connection", cluster.connection())
            .or_text("agent", "socket", socket.to_string_lossy())
            .or_text("agent", "state_dir", state.to_string_lossy())
            .or_text("restore", "spool_dir", state.join("spool").to_string_lossy())
            // Suites run side by side, and most of them look at no metrics.
            .or_text("http", "listen", "none");
        let mut environment = Vec::new();
        if let Place::Bucket { endpoint, credentials, .. } = place {
            settings = settings.or_text("repository", "endpoint", endpoint);
            environment.clone_from(credentials);
        }
        let config = sandbox.write(&format!("{name}.toml"), &settings.toml())?;
        let account = sandbox.account().clone();
        Ok(Wald { binaries: Binaries::install(sandbox)?, account, config, socket, environment })
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The environment that wald, and PostgreSQL for the shims' fall-back, must be started with.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// `wald --config FILE ARGUMENTS`, as the account, to be adjusted and run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.account.command(self.binaries.wald());
        command.envs(self.environment()).arg("--config").arg(&self.config).args(arguments);
        command
    }

    /// Runs `wald ARGUMENTS` to its end. Any exit code is `Ok`.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        run(self.command(arguments))
    }

    /// As [`Wald::run`], killed after `deadline`.
    pub fn run_within(&self, arguments: &[&str], deadline: Duration) -> Result<Finished> {
        run_within(self.command(arguments), deadline)
    }

    /// Runs `wald ARGUMENTS`, which must exit with 0.
    pub fn succeed(&self, arguments: &[&str]) -> Result<Finished> {
        self.run(arguments)?.success()
    }

    /// Runs `wald ARGUMENTS --json`, which must exit with 0 and print one JSON value.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let text = self.succeed(&arguments)?.stdout;
        serde_json::from_str(&text)
            .with_context(|| format!("wald {} printed no JSON: {text}", arguments.join(" ")))
    }

    /// The archive shim, as PostgreSQL would start it, in a working directory.
    pub fn archive_shim(&self, directory: &Path, path: &str) -> Command {
        let mut command = self.shim(self.binaries.wald_archive(), directory);
        command.arg(path);
        command
    }

    /// The restore shim, as PostgreSQL would start it, in a working directory.
    pub fn restore_shim(&self, directory: &Path, name: &str, destination: &str) -> Command {
        let mut command = self.shim(self.binaries.wald_restore(), directory);
        command.args([name, destination]);
        command
    }

    /// The value for `archive_command`.
    pub fn archive_command(&self) -> String {
        self.shim_line(&self.binaries.wald_archive(), "%p")
    }

    /// The value for `restore_command`.
    pub fn restore_command(&self) -> String {
        self.shim_line(&self.binaries.wald_restore(), "%f %p")
    }

    fn shim(&self, program: PathBuf, directory: &Path) -> Command {
        let mut command = self.account.command(program);
        command.envs(self.environment()).current_dir(directory);
        command.arg("--socket").arg(&self.socket).arg("--config").arg(&self.config);
        command
    }

    fn shim_line(&self, program: &Path, operands: &str) -> String {
        let (socket, config) = (self.socket.display(), self.config.display());
        format!("{} --socket {socket} --config {config} {operands}", program.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_by_section_and_a_set_one_is_kept() {
        let settings =
            Settings::new().set("archive", "concurrency", "4").set_text("agent", "socket", "/a \"b\"");
        let settings = settings.or_text("agent", "socket", "/other").or_text("agent", "state_dir", "/s");
        let expected = "[agent]\nsocket = \"/a \\\"b\\\"\"\nstate_dir = \"/s\"\n[archive]\nconcurrency = 4\n";
        assert_eq!(settings.toml(), expected);
    }
}
