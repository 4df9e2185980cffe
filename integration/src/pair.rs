//! Two nodes that take turns as primary and standby, archiving into one repository, with a
//! PgBouncer in front of a HAProxy in front of the primary: where promotions are tried.
//!
//! PgBouncer stands before HAProxy here, because then a pause holds every client and no client
//! meets a proxy whose server is in maintenance. Its database `app` goes through HAProxy; `direct`
//! goes to the primary itself, so that its file has to change at a promotion.

use crate::agent::{Agent, archive_through};
use crate::haproxy::{BACKEND, HaProxy, SERVER};
use crate::parts;
use crate::pgbouncer::PgBouncer;
use crate::ports::Reserved;
use crate::postgres::{Cluster, ClusterOptions, Shutdown};
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::wait;
use crate::wald::{Place, Settings, Wald};
use anyhow::{Context, Result, bail};
use std::fs;
use std::time::Duration;

const STREAMING_WITHIN: Duration = Duration::from_secs(60);

/// A server and its agent.
#[derive(Debug)]
pub struct Node {
    /// The server.
    pub cluster: Cluster,
    /// Its agent, which archives for it.
    pub agent: Agent,
}

/// Everything, in the order in which it must end.
#[derive(Debug)]
pub struct Pair {
    /// The pooler.
    pub bouncer: PgBouncer,
    /// The proxy.
    pub proxy: HaProxy,
    /// The primary.
    pub primary: Node,
    /// The standby.
    pub standby: Node,
    /// The repository.
    pub place: Place,
    /// Where all of it lives.
    pub sandbox: Sandbox,
    configurations: usize,
}

impl Pair {
    /// Makes and starts everything.
    pub fn open() -> Result<Pair> {
        let sandbox = Sandbox::new()?;
        let place = Place::directory(&sandbox)?;
        let ports = Reserved::new(2)?.release();
        let [first, second] = ports.as_slice() else { bail!("two ports") };
        let options = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
        let mut cluster = Cluster::create(
            &sandbox,
            "a",
            &options.setting("wal_keep_size = '1GB'").setting("cluster_name = 'a'"),
        )?;
        cluster.listen_on_loopback(*first);
        let wald = Wald::configure(&sandbox, "a", &cluster, &place, Settings::new())?;
        wald.succeed(&["repo", "init"])?;
        let agent = Agent::start(&sandbox, "a", wald)?;
        archive_through(&mut cluster, &agent)?;
        cluster.configure(&format!("restore_command = '{}'", agent.restore_command()))?;
        cluster.start()?;
        let primary = Node { cluster, agent };
        let standby = primary.add_standby(&sandbox, &place, "b", *second)?;
        primary.wait_streaming("b")?;
        let proxy = HaProxy::start(&sandbox, "haproxy", *first)?;
        let databases = [
            format!("app = host=127.0.0.1 port={} dbname=postgres", proxy.port()),
            format!("direct = host=127.0.0.1 port={first} dbname=postgres"),
        ];
        let bouncer = PgBouncer::start(&sandbox, "pgbouncer", &databases)?;
        Ok(Pair { bouncer, proxy, primary, standby, place, sandbox, configurations: 0 })
    }

    /// What `[promotion]` of the standby says: fenced by stopping the primary, both routers moved.
    pub fn settings(&self) -> Settings {
        let (old, new) = (self.primary.cluster.port(), self.standby.cluster.port());
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let bouncer = format!(
            "[{{ admin = {}, config_file = {}, from = \"127.0.0.1:{old}\", to = \"127.0.0.1:{new}\" }}]",
            quoted(&self.bouncer.admin()),
            quoted(&self.bouncer.config().to_string_lossy()),
        );
        let proxy = format!(
            "[{{ socket = {}, backend = \"{BACKEND}\", server = \"{SERVER}\", address = \"127.0.0.1:{new}\" }}]",
            quoted(&self.proxy.socket().to_string_lossy()),
        );
        Settings::new()
            .set_text("promotion", "primary", self.primary.cluster.connection())
            .set_text("promotion", "host", "127.0.0.1")
            .set("promotion", "port", new.to_string())
            .set_text("promotion", "fence_command", self.stop_command())
            .set_text("promotion", "disk_free_min", "1MiB")
            .set_text("promotion", "lag_max", "30s")
            .set_text("promotion", "smoke_connection", self.bouncer.connection("app"))
            .set("promotion", "pgbouncer", bouncer)
            .set("promotion", "haproxy", proxy)
    }

    /// The same without one key.
    pub fn settings_without(&self, key: &str) -> Settings {
        self.settings().unset("promotion", key)
    }

    /// What stops the primary.
    pub fn stop_command(&self) -> String {
        let program = parts::postgres_program("pg_ctl").map(|path| path.display().to_string());
        let (program, data_dir) = (program.unwrap_or_default(), self.primary.cluster.data_dir().display());
        // A server that is down already is what was wanted.
        format!(
            "{program} -D {data_dir} status >/dev/null || exit 0; {program} -D {data_dir} -m fast -w stop"
        )
    }

    /// wald on the standby's host, with a state directory of its own.
    pub fn wald(&mut self, settings: Settings) -> Result<Wald> {
        self.configurations += 1;
        let name = format!("promote-{}", self.configurations);
        Wald::configure(&self.sandbox, &name, &self.standby.cluster, &self.place, settings)
    }

    /// After a promotion: the two change their names here, and nothing else happens.
    pub fn turn_over(&mut self) {
        std::mem::swap(&mut self.primary, &mut self.standby);
    }

    /// Starts the old primary, which was stopped in order, as the standby of the new one.
    pub fn rejoin(&mut self) -> Result<()> {
        let name = self.standby.cluster.configured_name()?;
        self.standby.cluster.stop(Shutdown::Fast)?;
        self.standby.cluster.follow(&self.primary.cluster)?;
        self.standby.cluster.start()?;
        self.primary.wait_streaming(&name)
    }

    /// Waits until the standby has replayed what there is.
    pub fn wait_streaming(&self) -> Result<()> {
        self.primary.wait_streaming(&self.standby.cluster.configured_name()?)
    }

    /// Fails unless exactly one of the two takes writes, and it is the one that is called the
    /// primary here; and unless the clients reach it both ways.
    pub fn assert_one_primary(&self) -> Result<()> {
        self.primary.cluster.exec("create table if not exists written (at timestamptz)")?;
        let other = self.standby.cluster.try_sql("insert into written values (now())")?;
        assert_ne!(other.code(), 0, "the other server takes writes too");
        for database in ["app", "direct"] {
            let wrote = self
                .bouncer
                .try_sql(database, "insert into written values (now()) returning pg_backend_pid()")?;
            let pid = wrote.success()?.stdout.trim().to_owned();
            let seen = self
                .primary
                .cluster
                .scalar(&format!("select count(*) from pg_stat_activity where pid = {pid}"))?;
            assert_eq!(seen, "1", "a client of {database} reached another server");
        }
        Ok(())
    }
}

impl Node {
    /// Another standby of this node, streaming from it, with an agent of its own.
    pub fn add_standby(&self, sandbox: &Sandbox, place: &Place, name: &str, port: u16) -> Result<Node> {
        let mut cluster = self.cluster.standby(sandbox, name)?;
        cluster.listen_on_loopback(port);
        let wald = Wald::configure(sandbox, name, &cluster, place, Settings::new())?;
        let agent = Agent::start(sandbox, name, wald)?;
        archive_through(&mut cluster, &agent)?;
        cluster.configure(&format!("restore_command = '{}'", agent.restore_command()))?;
        cluster.configure(&format!("cluster_name = '{name}'"))?;
        cluster.start()?;
        Ok(Node { cluster, agent })
    }

    /// Waits until a standby of this name streams from here and has replayed what there is.
    pub fn wait_streaming(&self, name: &str) -> Result<()> {
        let sql = format!(
            "select count(*) from pg_stat_replication where application_name = '{name}' and state = 'streaming' \
             and replay_lsn >= pg_current_wal_flush_lsn()"
        );
        wait::until_true(&format!("{name} to stream"), STREAMING_WITHIN, || {
            Ok(self.cluster.scalar(&sql)? == "1")
        })
    }
}

impl Cluster {
    /// Its name, from its configuration.
    fn configured_name(&self) -> Result<String> {
        let path = self.data_dir().join("postgresql.conf");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let line = text.lines().rev().find_map(|line| line.strip_prefix("cluster_name = '"));
        line.and_then(|line| line.strip_suffix('\'')).map(str::to_owned).context("a cluster's name")
    }

    /// Makes this stopped server a standby of another one from its next start on.
    pub fn follow(&self, primary: &Cluster) -> Result<()> {
        let path = self.data_dir().join("standby.signal");
        fs::write(&path, "").with_context(|| format!("writing {}", path.display()))?;
        self.own(&path)?;
        // What pg_basebackup wrote there would win over postgresql.conf.
        let path = self.data_dir().join("postgresql.auto.conf");
        fs::write(&path, format!("primary_conninfo = '{}'\n", primary.connection()))
            .with_context(|| format!("writing {}", path.display()))?;
        self.own(&path)
    }
}

/// A process that ran to its end beside the test, and what it said.
pub fn end_of(mut process: Process, deadline: Duration) -> Result<(i32, String)> {
    use std::os::unix::process::ExitStatusExt;
    let status = process.wait_end(deadline)?;
    Ok((status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)), process.log_text()))
}
