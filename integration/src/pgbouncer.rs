//! A real PgBouncer in front of PostgreSQL, in a private directory, in the foreground.
//!
//! It pools by transaction, as most do, and lets everybody in who reaches it: on loopback and on
//! its Unix socket.

use crate::parts;
use crate::ports::Reserved;
use crate::process::Process;
use crate::run::{Finished, run};
use crate::sandbox::Sandbox;
use crate::wait;
use anyhow::{Context, Result};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running PgBouncer.
#[derive(Debug)]
pub struct PgBouncer {
    process: Process,
    account: crate::account::Account,
    port: u16,
    config: PathBuf,
    socket_dir: PathBuf,
}

impl PgBouncer {
    /// Starts it with these lines as its `[databases]`.
    pub fn start(sandbox: &Sandbox, name: &str, databases: &[String]) -> Result<PgBouncer> {
        let port = Reserved::new(1)?.release().into_iter().next().context("a port")?;
        let socket_dir = sandbox.dir(&format!("{name}-socket"))?;
        let users = sandbox.write(&format!("{name}-users"), "\"postgres\" \"\"\n")?;
        let text = format!(
            "; for a suite\n[databases]\n{}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\nadmin_users = postgres\n\
             pool_mode = transaction\nserver_login_retry = 1\nquery_wait_timeout = 120\n",
            databases.join("\n"),
            socket_dir.display(),
            users.display(),
        );
        let config = sandbox.write(&format!("{name}.ini"), &text)?;
        let mut command = sandbox.account().command(parts::daemon("pgbouncer")?);
        command.arg(&config);
        let process = Process::spawn("PgBouncer", command, &sandbox.path().join(format!("{name}.log")))?;
        let mut bouncer = PgBouncer { process, account: sandbox.account().clone(), port, config, socket_dir };
        wait::until_true("PgBouncer to listen", READY_WITHIN, || {
            bouncer.process.must_run()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(bouncer)
    }

    /// Where clients connect to, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// How its admin console is reached.
    pub fn admin(&self) -> String {
        format!("host={} port={} user=postgres dbname=pgbouncer", self.socket_dir.display(), self.port)
    }

    /// How a database behind it is reached.
    pub fn connection(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port)
    }

    /// A client program of PostgreSQL that connects to a database behind it.
    pub fn client(&self, program: &str, database: &str) -> Result<Command> {
        let mut command = self.account.command(parts::postgres_program(program)?);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        Ok(command)
    }

    /// Runs statements through it. Any exit code is `Ok`.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<Finished> {
        let mut psql = self.client("psql", database)?;
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--command", sql]);
        run(psql)
    }

    /// Asks its admin console.
    pub fn console(&self, command: &str) -> Result<String> {
        Ok(self.try_sql("pgbouncer", command)?.success()?.stdout)
    }
}
