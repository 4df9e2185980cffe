//! Ceph's S3 server, radosgw, on a cluster of one host: mon, mgr, one osd in memory, radosgw.
//!
//! It is the weak store that wald must be right on: version 16, which Debian 12 has, ignores
//! `If-None-Match` on a bucket with object lock, drops the lock of an upload in parts, and checks no
//! checksum. Everything lives in the sandbox and listens on loopback; nothing of the machine's own
//! configuration is read. What it needs, found the hard way:
//! - cephx and keys: without authentication radosgw finds no method that the mon takes.
//! - Pools of one replica must be allowed, and few placement groups, or the osd refuses new pools.

use crate::account::clean_command;
use crate::ports::Reserved;
use crate::process::Process;
use crate::run::run;
use crate::s3_client::S3Client;
use crate::sandbox::Sandbox;
use crate::seaweed::{ACCESS_KEY, SECRET_KEY};
use crate::wait;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The line that installs it.
pub const INSTALL: &str =
    "apt-get install -y --no-install-recommends ceph-mon ceph-mgr ceph-osd ceph-common radosgw";

const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running cluster.
#[derive(Debug)]
pub struct Radosgw {
    /// Ended in this order: the gateway first, the mon last.
    daemons: Vec<Process>,
    conf: PathBuf,
    port: u16,
}

impl Radosgw {
    /// Starts a cluster with an empty store, and waits until it answers.
    pub fn start(sandbox: &Sandbox) -> Result<Radosgw> {
        let dir = sandbox.path().join("ceph");
        for name in ["mon", "mgr", "osd", "rgw", "log", "run"] {
            fs::create_dir_all(dir.join(name)).with_context(|| format!("making {name} for Ceph"))?;
        }
        let ports = Reserved::new(3)?.release();
        let &[mon, mon_v1, port] = ports.as_slice() else { bail!("asked for 3 ports") };
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("a cluster id")?;
        let mon = format!("[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]");
        let conf = dir.join("ceph.conf");
        fs::write(&conf, configuration(&dir, id.trim(), &mon, port)).context("writing ceph.conf")?;
        let mut ceph = Radosgw { daemons: Vec::new(), conf, port };
        ceph.make_keys(&dir)?;
        ceph.start_mon(&dir, id.trim(), &mon)?;
        ceph.launch(&dir, "ceph-mgr", &["-i", "x"])?;
        ceph.start_osd(&dir)?;
        ceph.launch(&dir, "radosgw", &["-n", "client.rgw"])?;
        wait::until_true("radosgw to answer", READY_WITHIN, || {
            ceph.daemons.iter_mut().try_for_each(Process::must_run)?;
            Ok(answers(port))
        })?;
        let user = ["--uid=wald", "--display-name=wald", "--access-key", ACCESS_KEY, "--secret", SECRET_KEY];
        ceph.tool("radosgw-admin", &[&["user", "create"], user.as_slice()].concat())?;
        Ok(ceph)
    }

    /// The URL of the S3 port.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client with the user's keys, which are those of [`crate::seaweed`].
    pub fn client(&self) -> S3Client {
        S3Client::new(&format!("127.0.0.1:{}", self.port), ACCESS_KEY, SECRET_KEY)
    }

    /// The environment that gives wald the user's keys.
    pub fn credentials(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn make_keys(&self, dir: &Path) -> Result<()> {
        let keyring = dir.join("keyring");
        let keyring = keyring.to_str().context("a path")?;
        let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        self.tool(
            "ceph-authtool",
            &[keyring, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"],
        )?;
        for name in ["client.admin", "mgr.x", "osd.0", "client.rgw"] {
            self.tool("ceph-authtool", &[&[keyring, "--gen-key", "-n", name], all.as_slice()].concat())?;
        }
        Ok(())
    }

    fn start_mon(&mut self, dir: &Path, id: &str, mon: &str) -> Result<()> {
        let (map, keyring) = (dir.join("monmap"), dir.join("keyring"));
        let (map, keyring) = (map.to_str().context("a path")?, keyring.to_str().context("a path")?);
        self.tool("monmaptool", &["--create", "--fsid", id, "--addv", "a", mon, map])?;
        self.tool("ceph-mon", &["-i", "a", "--mkfs", "--monmap", map, "--keyring", keyring])?;
        self.launch(dir, "ceph-mon", &["-i", "a"])?;
        self.tool("ceph", &["--connect-timeout", "60", "auth", "import", "-i", keyring])
    }

    fn start_osd(&mut self, dir: &Path) -> Result<()> {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("an osd's id")?;
        self.tool("ceph", &["osd", "create", id.trim()])?;
        self.tool("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", id.trim()])?;
        self.launch(dir, "ceph-osd", &["-i", "0"])
    }

    /// Runs one of Ceph's tools to its end.
    fn tool(&self, name: &str, arguments: &[&str]) -> Result<()> {
        run(self.command(name, arguments)?)?.success()?;
        Ok(())
    }

    fn launch(&mut self, dir: &Path, name: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(name, arguments)?;
        // In the foreground.
        command.arg("-f");
        let daemon = Process::spawn(name, command, &dir.join("log").join(format!("{name}.out")))?;
        self.daemons.insert(0, daemon);
        Ok(())
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let program = Path::new("/usr/bin").join(name);
        if !program.is_file() {
            bail!("{name} is not at {}: run {INSTALL}", program.display());
        }
        let mut command = clean_command(program);
        command.arg("--conf").arg(&self.conf).args(arguments);
        Ok(command)
    }
}

impl Drop for Radosgw {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            if let Err(error) = daemon.kill_hard() {
                eprintln!("Ceph may be left running: {error:#}");
            }
        }
    }
}

fn configuration(dir: &Path, id: &str, mon: &str, port: u16) -> String {
    let dir = dir.display();
    format!(
        "[global]
fsid = {id}
mon_host = {mon}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
run_dir = {dir}/run
log_file = {dir}/log/$name.log
admin_socket = {dir}/run/$name.asok
pid_file = {dir}/run/$name.pid
crash_dir = {dir}/log
keyring = {dir}/keyring
[mon]
mon_data = {dir}/mon
mon_cluster_log_file = {dir}/log/cluster.log
[mgr]
mgr_data = {dir}/mgr
[osd]
osd_data = {dir}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {dir}/rgw
"
    )
}

fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.contains("ListAllMyBucketsResult"))
    };
    ask().unwrap_or(false)
}
