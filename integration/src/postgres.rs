//! A throw-away PostgreSQL 15 cluster: made, started, asked, crashed and thrown away.
//!
//! It listens on a Unix socket in its sandbox and nowhere else, unless a suite wants loopback. Where it listens and who may log
//! in is said on the server's command line, never in `postgresql.conf`: a cluster restored from
//! a backup carries its origin's configuration, and both must be able to run side by side.

mod archiving;
mod fingerprint;
mod psql;

pub use fingerprint::{Fingerprint, TableFingerprint};

use crate::account::Account;
use crate::process::{self, Process};
use crate::run::{Finished, run};
use crate::sandbox::Sandbox;
use crate::{parts, wait};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Part of the socket's name; no TCP port is opened by default.
const PORT: u16 = 5432;
/// Crash recovery of what the suites write takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// What `initdb` is told.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// `--wal-segsize`, in MiB.
    pub segment_size_mib: u32,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
    /// Lines for `postgresql.conf`.
    pub settings: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { segment_size_mib: 16, data_checksums: true, settings: Vec::new() }
    }
}

impl ClusterOptions {
    /// Adds a line for `postgresql.conf`.
    pub fn setting(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }
}

/// How a running server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, writes a checkpoint, archives what is left.
    Fast,
    /// Stops at once, as after a crash, but in an orderly way.
    Immediate,
}

/// A cluster's data directory and, when it runs, its server.
#[derive(Debug)]
pub struct Cluster {
    account: Account,
    data_dir: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    port: u16,
    listens: bool,
    server: Option<Process>,
}

impl Cluster {
    /// Makes a new cluster in the sandbox; it is not started.
    ///
    /// `fsync` is off: the suites kill processes, and what a process has written survives that.
    pub fn create(sandbox: &Sandbox, name: &str, options: &ClusterOptions) -> Result<Cluster> {
        let data_dir = sandbox.path().join(format!("{name}-data"));
        let mut initdb = sandbox.account().command(parts::postgres_program("initdb")?);
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--wal-segsize={}", options.segment_size_mib))
            .arg("-D")
            .arg(&data_dir);
        if options.data_checksums {
            initdb.arg("--data-checksums");
        }
        run(initdb)?.success().context("making a cluster")?;
        let cluster = Cluster::adopt(sandbox, name, &data_dir)?;
        let small = ["fsync = off", "shared_buffers = 32MB", "max_connections = 40", "max_wal_senders = 5"];
        for line in small.into_iter().map(str::to_owned).chain(options.settings.iter().cloned()) {
            cluster.configure(&line)?;
        }
        Ok(cluster)
    }

    /// Takes over a data directory that something else made, for example `wald restore`.
    pub fn adopt(sandbox: &Sandbox, name: &str, data_dir: &Path) -> Result<Cluster> {
        let socket_dir = sandbox.dir(&format!("{name}-socket"))?;
        Ok(Cluster {
            account: sandbox.account().clone(),
            data_dir: data_dir.to_owned(),
            socket_dir,
            log: sandbox.path().join(format!("{name}.log")),
            environment: Vec::new(),
            port: PORT,
            listens: false,
            server: None,
        })
    }

    /// A standby of this running cluster, made with `pg_basebackup` and streaming from it.
    pub fn standby(&self, sandbox: &Sandbox, name: &str) -> Result<Cluster> {
        let data_dir = sandbox.path().join(format!("{name}-data"));
        let mut command = self.command("pg_basebackup")?;
        command.args([
            "--checkpoint=fast",
            "--no-sync",
            "--wal-method=stream",
            "--write-recovery-conf",
            "-D",
        ]);
        run({
            command.arg(&data_dir);
            command
        })?
        .success()
        .context("making a standby")?;
        Cluster::adopt(sandbox, name, &data_dir)
    }

    /// From its next start on it listens on this port of 127.0.0.1 too, which is then part of its
    /// socket's name.
    pub fn listen_on_loopback(&mut self, port: u16) {
        self.port = port;
        self.listens = true;
    }

    /// The port, on loopback or in its socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The directory of its socket: what `host=` is given.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// How libpq reaches it, in keyword/value form.
    pub fn connection(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir.display(), self.port)
    }

    /// Appends a line to `postgresql.conf`; a later line wins over an earlier one.
    pub fn configure(&self, line: &str) -> Result<()> {
        let path = self.data_dir.join("postgresql.conf");
        let mut file = File::options()
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))
    }

    /// Makes the running server read its configuration again.
    pub fn reload(&mut self) -> Result<()> {
        self.running()?.signal(Signal::HUP)
    }

    /// One of PostgreSQL's client programs, to be run against this cluster as its account.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.account.command(parts::postgres_program(program)?);
        command.env("PGHOST", &self.socket_dir).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        Ok(command)
    }

    /// One of PostgreSQL's client programs, run to its end; a failure is an error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(program)?;
        command.args(arguments);
        run(command)?.success()
    }

    /// Starts the server and waits until it answers, in hot standby or as a primary.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready(READY_WITHIN)
    }

    /// Sets the environment of all later starts: what `archive_command` will see.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    }

    /// Starts the server without waiting: for a recovery that is meant to stop or to take long.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.account.command(parts::postgres_program("postgres")?);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("-D")
            .arg(&self.data_dir)
            .args(["-p", &self.port.to_string(), "-c", "logging_collector=off"])
            .args(["-c", if self.listens { "listen_addresses=127.0.0.1" } else { "listen_addresses=" }])
            .args(["-c", "log_line_prefix=%m [%p] "])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.socket_dir.display()));
        self.server = Some(Process::spawn("PostgreSQL", command, &self.log)?);
        Ok(())
    }

    /// Waits until the launched server answers; fails at once, with its log, if it ends instead.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        wait::until_true("PostgreSQL to answer", deadline, || {
            self.running()?.must_run()?;
            Ok(self.try_sql("select 1")?.code() == 0)
        })
        .with_context(|| self.log_tail())
    }

    /// Waits until recovery is over and the cluster takes writes.
    pub fn wait_primary(&mut self, deadline: Duration) -> Result<()> {
        wait::until_true("PostgreSQL to leave recovery", deadline, || {
            self.running()?.must_run()?;
            let answer = self.try_sql("select pg_is_in_recovery()")?;
            Ok(answer.code() == 0 && answer.stdout.trim() == "f")
        })
        .with_context(|| self.log_tail())
    }

    /// Waits until the server ends by itself, as it does when a recovery can't go on.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = self.running()?.wait_end(deadline)?;
        self.server = None;
        Ok(status)
    }

    /// Whether a server runs.
    pub fn is_running(&mut self) -> Result<bool> {
        match self.server.as_mut() {
            Some(server) => Ok(server.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// The server's process, while there is one.
    pub fn server_id(&self) -> Option<u32> {
        self.server.as_ref().map(Process::id)
    }

    /// Stops the server and waits until it has ended.
    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        if let Some(mut server) = self.server.take() {
            server.stop(signal, STOPPED_WITHIN)?;
        }
        Ok(())
    }

    /// Kills the server and all of its children with SIGKILL, and waits until they are gone.
    pub fn kill_hard(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill_hard(),
            None => Ok(()),
        }
    }

    /// Stops (fast) and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Shutdown::Fast)?;
        self.start()
    }

    /// Ends recovery; the cluster goes on along a new timeline.
    pub fn promote(&mut self) -> Result<()> {
        self.scalar("select pg_promote(true, 60)")?;
        self.wait_primary(READY_WITHIN)
    }

    /// Everything that the server has logged, over all of its starts.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Gives a file in its data directory to its account.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        self.account.own(path)
    }

    fn log_tail(&self) -> String {
        process::tail(&self.log_text(), process::LINES_SHOWN)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.server.as_mut().context("the server has not been started")
    }
}
