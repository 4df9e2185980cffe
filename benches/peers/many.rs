//! A cluster with segments of 1 MiB of which thousands wait: little data, many names.
//!
//! The segments are made here and not by PostgreSQL: each is a real one's beginning under a name and
//! with an address of its own, and holes behind it. Who archives them sees a segment of this cluster;
//! PostgreSQL itself never reads them.

use crate::stage::Stage;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use wald_integration::postgres::{Cluster, ClusterOptions, Shutdown};

/// Small enough for thousands of them.
pub const SEGMENT_BYTES: u64 = 1 << 20;
/// How much of a segment is real.
const REAL_BYTES: u64 = 64 << 10;
/// `xlp_pageaddr` in `XLogPageHeaderData` (`access/xlog_internal.h`).
const ADDRESS_AT: usize = 8;
/// A name's last third counts the segments of 4 GiB.
const PER_LOG: u64 = (4 << 30) / SEGMENT_BYTES;
/// Where the made segments begin, and where the cluster itself goes on behind them.
const FIRST_LOG: u64 = 1;
const CLUSTER_GOES_ON: &str = "000000010000001000000001";

/// The template.
#[derive(Debug)]
pub struct Many {
    data_dir: PathBuf,
    /// A real segment's beginning.
    beginning: Vec<u8>,
}

impl Many {
    /// Makes the cluster.
    pub fn make(stage: &Stage, name: &str) -> Result<Many> {
        let options = ClusterOptions { segment_size_mib: 1, ..ClusterOptions::default() };
        let lines = ["wal_level = replica", "archive_mode = on", "archive_command = ''", "autovacuum = off"];
        let options = lines.into_iter().fold(options, ClusterOptions::setting);
        let mut cluster = Cluster::create(stage.sandbox(), name, &options)?;
        cluster.start()?;
        cluster.exec("create table t as select g, md5(g::text) from generate_series(1, 50000) g")?;
        cluster.stop(Shutdown::Fast)?;
        let real = crate::template::ready(cluster.data_dir())?;
        let real = real.get(real.len() / 2).context("no segment was filled")?;
        let path = cluster.data_dir().join("pg_wal").join(real);
        let mut beginning = vec![0; usize::try_from(REAL_BYTES)?];
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        file.read_exact_at(&mut beginning, 0).with_context(|| format!("reading {}", path.display()))?;
        let data = cluster.data_dir().to_string_lossy().into_owned();
        cluster.run("pg_resetwal", &["-l", CLUSTER_GOES_ON, "-D", &data])?;
        Ok(Many { data_dir: cluster.data_dir().to_owned(), beginning })
    }

    /// A copy of it in which `count` segments wait.
    pub fn copy(&self, stage: &Stage, name: &str, count: u64) -> Result<(Cluster, Vec<String>)> {
        if count >= (0x10 - FIRST_LOG) * PER_LOG {
            bail!("{count} segments reach into where the cluster goes on");
        }
        let to = stage.path(&format!("{name}-data"));
        stage.copy(&self.data_dir, &to)?;
        let status = to.join("pg_wal/archive_status");
        for entry in fs::read_dir(&status).context("listing marks")?.flatten() {
            fs::remove_file(entry.path()).context("removing a mark")?;
        }
        let mut names = Vec::new();
        for number in 0..count {
            let number = FIRST_LOG * PER_LOG + number;
            let segment = format!("00000001{:08X}{:08X}", number / PER_LOG, number % PER_LOG);
            let path = to.join("pg_wal").join(&segment);
            let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            file.set_len(SEGMENT_BYTES).context("sizing a segment")?;
            file.write_all_at(&self.beginning, 0).context("writing a segment")?;
            let address = (number * SEGMENT_BYTES).to_le_bytes();
            file.write_all_at(&address, u64::try_from(ADDRESS_AT)?).context("writing a segment's address")?;
            let mark = status.join(format!("{segment}.ready"));
            fs::write(&mark, "").context("writing a mark")?;
            stage.sandbox().account().own(&path)?;
            stage.sandbox().account().own(&mark)?;
            names.push(segment);
        }
        Ok((Cluster::adopt(stage.sandbox(), name, &to)?, names))
    }
}
