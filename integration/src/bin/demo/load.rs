//! What is in the demo's database, who writes to it, and what goes wrong in it.

use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use wald_integration::postgres::Cluster;
use wald_integration::process::Process;
use wald_integration::sandbox::Sandbox;

/// Beside pgbench's tables: documents, arrays and exact numbers, large values out of line, and a
/// table in a tablespace of its own.
const TABLES: &str = "
create table events (
    id uuid primary key default gen_random_uuid(),
    at timestamptz not null default clock_timestamp(),
    body jsonb not null
);
create index on events using gin (body);
create table ledger (
    entry bigint generated always as identity primary key,
    account int not null,
    amount numeric(14, 2) not null,
    tags text[] not null
);
create table documents (name text primary key, content text not null);
create table history_cold (id bigint primary key, note text not null) tablespace cold;
insert into events (body)
    select jsonb_build_object('n', i, 'kind', (array['paid', 'sent', 'late'])[1 + i % 3], 'weight', i / 7.0)
    from generate_series(1, 40000) i;
insert into ledger (account, amount, tags)
    select i % 1000, (i * 37 % 100000) / 100.0, array['t' || i % 10, 'u' || i % 7]
    from generate_series(1, 60000) i;
insert into documents
    select 'document ' || i, (select string_agg(md5((i * j)::text), ' ') from generate_series(1, 400) j)
    from generate_series(1, 200) i;
insert into history_cold select i, repeat('cold ', 20) || i from generate_series(1, 50000) i;
";

/// What happens after the noted second: the mistake that the recovery undoes.
const MISTAKE: &str = "
drop table ledger;
truncate history_cold;
update events set body = '{}' where body ->> 'kind' = 'paid';
delete from documents;
create table should_not_come_back as select generate_series(1, 1000) i;
";

/// Makes and fills all tables; the tablespace is put into `cold_dir`, which must be empty.
pub fn fill(cluster: &Cluster, cold_dir: &Path, scale: u32) -> Result<()> {
    cluster.exec(&format!("create tablespace cold location '{}'", cold_dir.display()))?;
    cluster.run("pgbench", &["--initialize", "--quiet", &format!("--scale={scale}")])?;
    cluster.exec(TABLES)
}

/// The mistake.
pub fn make_mistake(cluster: &Cluster) -> Result<()> {
    cluster.exec(MISTAKE)
}

/// pgbench, running beside whatever else happens.
pub struct Spell {
    process: Process,
    seconds: u32,
}

impl Spell {
    /// Starts four clients for a time.
    pub fn start(sandbox: &Sandbox, cluster: &Cluster, name: &str, seconds: u32) -> Result<Spell> {
        let mut command = cluster.command("pgbench")?;
        command.args(["--client=4", "--jobs=2", "--no-vacuum", &format!("--time={seconds}")]);
        let log = sandbox.path().join(format!("pgbench-{name}.log"));
        Ok(Spell { process: Process::spawn("pgbench", command, &log)?, seconds })
    }

    /// Waits for its end and returns the number of transactions that were committed.
    pub fn finish(mut self) -> Result<u64> {
        let deadline = Duration::from_secs(u64::from(self.seconds) + 120);
        let status = self.process.wait_end(deadline)?;
        let log = self.process.log_text();
        anyhow::ensure!(status.success(), "pgbench ended with {status}:\n{log}");
        let line = log.lines().find_map(|l| l.strip_prefix("number of transactions actually processed: "));
        let count = line.and_then(|rest| rest.split('/').next()?.trim().parse().ok());
        count.with_context(|| format!("pgbench did not say what it did:\n{log}"))
    }
}
