//! `wald sessions`, `wald indexes` and `wald connections` on a real server, with a real PgBouncer, and
//! all of them with no more rights than `wald role sql` grants.

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::time::Duration;
use wald_integration::parts;
use wald_integration::postgres::{Cluster, ClusterOptions};
use wald_integration::process::Process;
use wald_integration::run::run;
use wald_integration::sandbox::Sandbox;
use wald_integration::wait;
use wald_integration::wald::{Place, Settings, Wald};

const DEADLINE: Duration = Duration::from_secs(60);

/// A running cluster without an agent.
fn cluster(sandbox: &Sandbox, options: &ClusterOptions) -> Result<Cluster> {
    let mut cluster = Cluster::create(sandbox, "primary", options)?;
    cluster.start()?;
    Ok(cluster)
}

fn wald(sandbox: &Sandbox, name: &str, cluster: &Cluster, settings: Settings) -> Result<Wald> {
    Wald::configure(sandbox, name, cluster, &Place::directory(sandbox)?, settings)
}

/// What a command that may have findings prints.
fn json(wald: &Wald, arguments: &[&str]) -> Result<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let finished = wald.run(&arguments)?;
    serde_json::from_str(&finished.stdout)
        .with_context(|| format!("no JSON from {arguments:?}: {}", finished.said()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn named<'v>(entries: &'v Value, key: &str, name: &str) -> Result<&'v Value> {
    list(entries).iter().find(|entry| entry[key] == name).with_context(|| format!("no {name} in {entries:#}"))
}

/// Sessions of psql that stay as their statements leave them.
struct Stage<'a> {
    cluster: &'a Cluster,
    sandbox: &'a Sandbox,
    actors: Vec<Process>,
}

impl Stage<'_> {
    /// Runs the statements one after the other as `role`, called `name`, and stays connected.
    fn enter(&mut self, name: &str, role: &str, statements: &[&str]) -> Result<()> {
        let mut psql = self.cluster.command("psql")?;
        psql.env("PGAPPNAME", name).env("PGUSER", role).args(["--no-psqlrc", "--quiet"]);
        for statement in statements {
            psql.args(["--command", statement]);
        }
        psql.args(["--command", "\\! sleep 600"]);
        let log = self.sandbox.path().join(format!("{}.log", name.replace(' ', "-")));
        self.actors.push(Process::spawn(name, psql, &log)?);
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<i64> {
        let query =
            format!("select coalesce(min(pid), 0) from pg_stat_activity where application_name = '{name}'");
        Ok(self.cluster.scalar(&query)?.parse()?)
    }

    /// Waits until the session of this name is in this state, and returns its process id.
    fn wait(&self, name: &str, condition: &str) -> Result<i64> {
        wait::until(&format!("{name} to be in {condition}"), DEADLINE, || {
            let query = format!(
                "select count(*) from pg_stat_activity where application_name = '{name}' and {condition}"
            );
            Ok((self.cluster.scalar(&query)? == "1").then_some(self.pid(name)?))
        })
    }
}

const IDLE: &str = "state = 'idle in transaction'";
const WAITS: &str = "wait_event_type = 'Lock'";

#[test]
fn sessions_show_who_blocks_whom_and_only_sleepers_are_ended_when_asked() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = cluster(&sandbox, &ClusterOptions::default().setting("max_prepared_transactions = 5"))?;
    let wald = wald(&sandbox, "wald", &cluster, Settings::new())?;
    cluster.exec("create role app login superuser")?;
    cluster.exec("create table t (id int primary key, n int)")?;
    cluster.exec("insert into t values (1, 0), (2, 0), (3, 0)")?;
    cluster.exec("begin; update t set n = 3 where id = 3; prepare transaction 'forgotten'")?;
    let mut stage = Stage { cluster: &cluster, sandbox: &sandbox, actors: Vec::new() };
    stage.enter("first", "app", &["begin", "update t set n = 1 where id = 1"])?;
    let first = stage.wait("first", IDLE)?;
    stage.enter(
        "second",
        "app",
        &["begin", "update t set n = 2 where id = 2", "update t set n = 2 where id = 1"],
    )?;
    let second = stage.wait("second", WAITS)?;
    stage.enter("third", "app", &["update t set n = 3 where id = 2"])?;
    let third = stage.wait("third", WAITS)?;
    stage.enter("behind prepared", "app", &["update t set n = 4 where id = 3"])?;
    let behind = stage.wait("behind prepared", WAITS)?;
    stage.enter("wald of another kind", "app", &["begin", "select 1"])?;
    let own = stage.wait("wald of another kind", IDLE)?;
    // As the leader of `pg_dump --jobs` is until all of the dump is written.
    stage.enter("pg_dump", "app", &["begin", "select 1"])?;
    let dump = stage.wait("pg_dump", IDLE)?;
    stage.enter("only idle", "app", &["select 1"])?;
    let idle = stage.wait("only idle", "state = 'idle'")?;

    let report = json(&wald, &["sessions"])?;
    let root = |pid: i64| list(&report["blockers"]).iter().find(|root| root["pid"] == pid).context("a root");
    let chain = root(first)?;
    assert_eq!(chain["waiting"][0]["pid"], second, "{chain:#}");
    assert_eq!(chain["waiting"][0]["waiting"][0]["pid"], third, "{chain:#}");
    assert_eq!(root(0)?["waiting"][0]["pid"], behind);
    assert_eq!(report["prepared"][0]["gid"], "forgotten");
    assert!(
        list(&report["kinds"])
            .iter()
            .any(|kind| kind["state"] == "active" && kind["wait_type"] == "Lock" && kind["sessions"] == 3)
    );
    assert!(list(&report["idle_in_transaction"]).is_empty(), "none for five minutes");
    assert!(
        list(&report["horizon_holders"])
            .iter()
            .any(|holder| holder["what"].to_string().contains("forgotten"))
    );
    let text = wald.succeed(&["sessions"])?.stdout;
    for wanted in ["a prepared transaction", "waits for Lock: transactionid", "ROLLBACK PREPARED"] {
        assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
    }

    // All that sleep have done so for a second.
    wait::until_true("three sleepers", DEADLINE, || {
        let report = json(&wald, &["sessions", "--idle-longer-than", "1s"])?;
        Ok(list(&report["idle_in_transaction"]).len() == 3)
    })?;
    let refused = wald.run(&["sessions", "--kill-idle-in-transaction", "1s"])?.exited_with(1)?.stderr;
    assert!(refused.contains("--yes") && refused.contains("1 session"), "{refused}");
    assert_eq!(stage.pid("first")?, first);
    // Nobody has slept for an hour.
    let none = json(&wald, &["sessions", "--kill-idle-in-transaction", "1h", "--yes"])?;
    assert_eq!(list(&none["ended"]).len(), 0);

    let ended = json(&wald, &["sessions", "--kill-idle-in-transaction", "1s", "--yes"])?;
    assert_eq!(list(&ended["ended"]).len(), 1, "{:#}", ended["ended"]);
    assert_eq!((&ended["ended"][0]["pid"], &ended["ended"][0]["outcome"]), (&first.into(), &"ended".into()));
    assert_eq!(stage.pid("first")?, 0);
    assert_eq!(stage.pid("wald of another kind")?, own, "wald's own are kept");
    assert_eq!(stage.pid("pg_dump")?, dump, "a dump's is kept");
    assert_eq!(stage.pid("only idle")?, idle);
    // Those behind it go on.
    stage.wait("second", IDLE)?;
    let audit = fs::read_to_string(sandbox.path().join("wald-state/audit.log"))?;
    assert!(audit.contains(&format!("end pid {first}")) && audit.contains("\"stage\":\"done\""), "{audit}");
    Ok(())
}

#[test]
fn indexes_that_are_broken_double_idle_or_missing_are_told_with_their_statements() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = cluster(&sandbox, &ClusterOptions::default())?;
    let wald = wald(&sandbox, "wald", &cluster, Settings::new())?;
    cluster.exec("create database shop")?;
    for sql in [
        "create table orders (id int primary key, customer int, code text)",
        "create table lines (order_id int references orders, \"Weird col\" int references orders, n int)",
        "create index on lines (order_id, n)",
        "insert into orders select g, g % 10, 'same' from generate_series(1, 1000) g",
        "create index customer_a on orders (customer)",
        "create index customer_b on orders (customer)",
        "create index customer_desc on orders (customer desc)",
        "create index customer_some on orders (customer) where id > 5",
        "create unique index orders_also on orders (id)",
        "create index orders_plain on orders (id)",
    ] {
        cluster.try_sql_in("shop", sql)?.success()?;
    }
    // The failure of a real CREATE INDEX CONCURRENTLY.
    let failed = cluster.try_sql_in("shop", "create unique index concurrently broken on orders (code)")?;
    assert_ne!(failed.code(), 0);
    // customer_b is used, customer_a is not: that one is superfluous.
    let used = "set enable_seqscan = off; drop index customer_a; select count(*) from orders where customer = 3; \
                select count(*) from orders where customer = 4";
    cluster.try_sql_in("shop", used)?.success()?;
    cluster.try_sql_in("shop", "create index customer_a on orders (customer)")?.success()?;

    let report = wait::until("the use of an index to be counted", DEADLINE, || {
        let report = json(&wald, &["indexes", "--unused-days", "0"])?;
        let unused = named(&report["databases"], "name", "shop")?["unused"].to_string();
        Ok((!unused.contains("public.customer_b") || !unused.contains("customer_desc")).then_some(report))
    })?;
    let shop = named(&report["databases"], "name", "shop")?;
    let broken = named(&shop["invalid"], "index", "public.broken")?;
    assert_eq!(broken["statement"], "REINDEX INDEX CONCURRENTLY public.broken;");
    assert!(broken["remark"].to_string().contains("duplicate keys"));

    let primary = named(&shop["duplicate"], "keep", "public.orders_pkey")?;
    let superfluous: Vec<&Value> =
        list(&primary["superfluous"]).iter().map(|other| &other["index"]).collect();
    assert_eq!(superfluous, ["public.orders_also", "public.orders_plain"]);
    let customers: Vec<&Value> = list(&shop["duplicate"])
        .iter()
        .filter(|group| group["keep"].to_string().contains("customer"))
        .collect();
    assert_eq!(customers.len(), 1, "another order or a predicate is another index: {customers:#?}");
    assert_eq!(list(&customers[0]["superfluous"]).len(), 1);

    let missing = &shop["missing"];
    assert_eq!(list(missing).len(), 1, "{missing:#}");
    assert_eq!(missing[0]["statement"], "CREATE INDEX CONCURRENTLY ON public.lines (\"Weird col\");");
    let unused = shop["unused"].to_string();
    assert!(unused.contains("public.customer_some") && !unused.contains("orders_pkey"), "{unused}");
    assert!(!unused.contains("orders_also"), "a unique index is never called unused: {unused}");
    assert!(!shop["statistics_since"].is_null());

    // The statistics of a new cluster are too young for anything.
    let young = json(&wald, &["indexes"])?;
    let shop = named(&young["databases"], "name", "shop")?;
    assert!(list(&shop["unused"]).iter().all(|index| index["statement"].is_null()), "{:#}", shop["unused"]);

    // What is printed can be pasted, and then nothing is left to mend but what needs a person.
    cluster.try_sql_in("shop", "update orders set code = id::text")?.success()?;
    let text = wald.succeed(&["indexes", "--database", "shop", "--unused-days", "0"])?.stdout;
    for statement in text.lines().filter(|line| !line.starts_with("--") && !line.is_empty()) {
        cluster.try_sql_in("shop", statement)?.success()?;
    }
    let mended = json(&wald, &["indexes", "--database", "shop"])?;
    let shop = &mended["databases"][0];
    for kind in ["invalid", "duplicate", "missing"] {
        assert!(list(&shop[kind]).is_empty(), "{kind}: {:#}", shop[kind]);
    }
    Ok(())
}

/// A PgBouncer in front of a cluster, on a Unix socket in the sandbox.
fn pgbouncer(sandbox: &Sandbox, cluster: &Cluster) -> Result<(Process, String)> {
    let dir = sandbox.dir("pgbouncer")?;
    let users = sandbox.write("pgbouncer/users", "\"app\" \"\"\n\"stats\" \"\"\n\"postgres\" \"\"\n")?;
    let ini = format!(
        "[databases]\nshop = host={} port=5432 dbname=shop\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
         unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\nstats_users = stats\npool_mode = transaction\n\
         default_pool_size = 1\n",
        cluster.socket_dir().display(),
        dir.display(),
        users.display()
    );
    let ini = sandbox.write("pgbouncer/pgbouncer.ini", &ini)?;
    let mut command = sandbox.account().command(parts::daemon("pgbouncer")?);
    command.arg(ini);
    let mut process = Process::spawn("pgbouncer", command, &sandbox.path().join("pgbouncer.log"))?;
    let socket = dir.join(".s.PGSQL.6432");
    wait::until_true("PgBouncer's socket", DEADLINE, || {
        process.must_run()?;
        Ok(socket.exists())
    })?;
    Ok((process, format!("host={} port=6432 user=stats dbname=pgbouncer", dir.display())))
}

#[test]
fn connections_are_counted_against_the_policy_and_pgbouncer_is_asked() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = cluster(&sandbox, &ClusterOptions::default())?;
    cluster.exec("create database shop")?;
    cluster.exec("create role app login")?;
    cluster.exec("create role analyst login")?;
    let (mut bouncer, console) = pgbouncer(&sandbox, &cluster)?;
    let limits = "[{ name = \"pool\", role = \"app\", max = 2 }, \
                  { name = \"workers\", application = \"worker*\", max = 20 }, \
                  { name = \"analytics\", role = \"analyst\", only_on = \"standby\" }]";
    let settings = Settings::new()
        .set("connections", "max_total", "30")
        .set("connections", "limit", limits)
        .set_text("connections", "pgbouncer", &console);
    let wald = wald(&sandbox, "wald", &cluster, settings)?;

    let mut stage = Stage { cluster: &cluster, sandbox: &sandbox, actors: Vec::new() };
    stage.enter("worker 1", "app", &["select 1"])?;
    stage.wait("worker 1", "state = 'idle'")?;
    let report = json(&wald, &["connections"])?;
    assert_eq!((report["max_connections"].as_u64(), report["reserved"].as_u64()), (Some(40), Some(3)));
    assert_eq!(report["headroom"].as_u64(), report["used"].as_u64().map(|used| 37 - used));
    assert_eq!(report["total_state"], "ok");
    assert_eq!(named(&report["limits"], "name", "pool")?["state"], "ok");
    assert_eq!(named(&report["limits"], "name", "workers")?["used"], 1);
    wald.succeed(&["connections"])?;

    // A client through PgBouncer holds the pool's only connection, and another one waits for it.
    let through = |name: &str, seconds: u32| -> Result<Process> {
        let mut psql = cluster.command("psql")?;
        psql.env("PGHOST", sandbox.path().join("pgbouncer")).env("PGPORT", "6432").env("PGUSER", "app");
        psql.env("PGDATABASE", "shop").args([
            "--no-psqlrc",
            "--command",
            &format!("select pg_sleep({seconds})"),
        ]);
        Process::spawn(name, psql, &sandbox.path().join(format!("{name}.log")))
    };
    let clients = [through("holder", 600)?, through("waiter", 600)?];
    let pool = wait::until("a client that waits", DEADLINE, || {
        let report = json(&wald, &["connections"])?;
        let pools = list(&report["pgbouncer"]["pools"]).to_vec();
        let pool = pools.into_iter().find(|pool| pool["database"] == "shop" && pool["user"] == "app");
        // While the first connection to the server is made, its client waits as well.
        Ok(pool.filter(|pool| pool["cl_waiting"] == "1" && pool["sv_active"] == "1"))
    })?;
    assert_eq!(pool["pool_mode"], "transaction");
    let text = wald.succeed(&["connections"])?.stdout;
    for wanted in [
        "PgBouncer's pools",
        "avg_query_time",
        "1 clients of app in shop wait",
        "pool: 2 of 2  NEARLY USED UP",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
    }
    drop(clients);

    stage.enter("worker 2", "app", &["select 1"])?;
    stage.enter("worker 3", "app", &["select 1"])?;
    stage.enter("report", "analyst", &["select 1"])?;
    for name in ["worker 2", "worker 3", "report"] {
        stage.wait(name, "state = 'idle'")?;
    }
    let text = wald.run(&["connections"])?.exited_with(1)?.stdout;
    assert!(
        text.contains("PASSED") && text.contains("analytics: 1 of 0  PASSED: they belong on a standby"),
        "{text}"
    );
    assert_eq!(named(&json(&wald, &["connections"])?["limits"], "name", "pool")?["state"], "passed");
    drop(stage);

    bouncer.stop(Signal::INT, DEADLINE)?;
    let said = wald.run(&["connections"])?.exited_with(1)?.stdout;
    assert!(said.contains("can't connect to PgBouncer's console: check [connections] pgbouncer"), "{said}");
    Ok(())
}

#[test]
fn the_role_of_role_sql_is_enough_and_a_right_that_is_missing_is_named() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = cluster(&sandbox, &ClusterOptions::default())?;
    let postgres = wald(&sandbox, "wald", &cluster, Settings::new())?;
    let sql = postgres.succeed(&["role", "sql"])?.stdout;
    cluster.exec(&sql)?;
    cluster.exec("create role app login")?;
    cluster.exec("create table hot (id int)")?;
    cluster.exec("insert into hot select generate_series(1, 2000)")?;
    cluster.exec("analyze hot")?;
    cluster.exec("update hot set id = id")?;
    let connection = cluster.connection().replace("user=postgres", "user=wald");
    let settings = Settings::new()
        .set_text("cluster", "connection", &connection)
        .set_text("vacuum", "bloat_size_min", "8KiB")
        .set("vacuum", "large_rows", "1000");
    let least = wald(&sandbox, "least", &cluster, settings)?;
    let mut stage = Stage { cluster: &cluster, sandbox: &sandbox, actors: Vec::new() };
    stage.enter("sleeper", "app", &["begin", "select 1"])?;
    stage.enter("superuser", "postgres", &["begin", "select 1"])?;
    let sleeper = stage.wait("sleeper", IDLE)?;
    let superuser = stage.wait("superuser", IDLE)?;

    for command in
        [&["vacuum", "report"] as &[&str], &["vacuum", "tune"], &["sessions"], &["indexes"], &["connections"]]
    {
        least.succeed(command)?;
    }
    let report = json(&least, &["vacuum", "report"])?;
    assert!(
        report.to_string().contains("GRANT SELECT ON public.hot TO"),
        "bloat of what it may not read is not known"
    );
    const BOOST: [&str; 8] =
        ["vacuum", "boost", "--maintenance-work-mem", "2GB", "--for", "1h", "--without-agent", "--yes"];
    const REVERT: [&str; 4] = ["vacuum", "boost", "--revert", "--yes"];
    const KILL: [&str; 4] = ["sessions", "--kill-idle-in-transaction", "1s", "--yes"];
    least.succeed(&BOOST)?;
    assert_eq!(cluster.scalar("show maintenance_work_mem")?, "2GB");
    least.succeed(&REVERT)?;
    assert_eq!(cluster.scalar("show maintenance_work_mem")?, "64MB");

    wait::until_true("the sleeper to have slept", DEADLINE, || {
        let report = json(&least, &["sessions", "--idle-longer-than", "1s"])?;
        Ok(list(&report["idle_in_transaction"]).len() == 2)
    })?;
    let missing = |revoke: &str, command: &[&str], grant: &str, give: &str| -> Result<()> {
        cluster.exec(revoke)?;
        let said = least.run(command)?.exited_with(1)?.stderr;
        assert!(said.contains(grant) && said.contains("wald role sql"), "{revoke}: {said}");
        cluster.exec(give)
    };
    missing(
        "revoke pg_signal_backend from wald",
        &KILL,
        "GRANT pg_signal_backend TO",
        "grant pg_signal_backend to wald",
    )?;
    assert_eq!(stage.pid("sleeper")?, sleeper);
    let ended = json(&least, &KILL)?;
    assert_eq!(list(&ended["ended"]).len(), 1, "{:#}", ended["ended"]);
    assert_eq!((stage.pid("sleeper")?, stage.pid("superuser")?), (0, superuser));

    for command in
        [&["vacuum", "report"] as &[&str], &["vacuum", "tune"], &["sessions"], &["indexes"], &["connections"]]
    {
        missing("revoke pg_monitor from wald", command, "GRANT pg_monitor TO", "grant pg_monitor to wald")?;
    }
    let function = "pg_catalog.pg_show_all_file_settings()";
    missing(
        &format!("revoke execute on function {function} from wald"),
        &BOOST,
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings()",
        &format!("grant execute on function {function} to wald"),
    )?;
    missing(
        "revoke execute on function pg_catalog.pg_reload_conf() from wald",
        &BOOST,
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf()",
        "grant execute on function pg_catalog.pg_reload_conf() to wald",
    )?;
    // It could neither be put in force nor taken back; with the right it can.
    least.run(&REVERT)?;
    missing(
        "revoke alter system on parameter maintenance_work_mem from wald",
        &BOOST,
        "GRANT ALTER SYSTEM ON PARAMETER maintenance_work_mem",
        "grant alter system on parameter maintenance_work_mem to wald",
    )?;
    assert_eq!(cluster.scalar("show maintenance_work_mem")?, "64MB");
    assert!(
        !fs::read_to_string(cluster.data_dir().join("postgresql.auto.conf"))?
            .contains("maintenance_work_mem")
    );

    // What stays with the owner says so, and the table is as it was.
    let said = least.run(&["vacuum", "tune", "--apply", "--yes"])?.exited_with(1)?.stdout;
    assert!(said.contains("public.hot: NOT changed") && said.contains("owner of the table"), "{said}");
    assert!(!sandbox.path().join("least-state/controls/tune.json").exists());

    // A database that it may not connect to is named, and the others are looked into.
    cluster.exec("create database closed")?;
    cluster.exec("revoke connect on database closed from public")?;
    let said = least.run(&["indexes"])?.exited_with(1)?.stdout;
    assert!(
        said.contains("GRANT CONNECT ON DATABASE \"closed\"") && said.contains("-- database postgres"),
        "{said}"
    );
    Ok(())
}

#[test]
fn another_user_than_the_agents_changes_nothing() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let cluster = cluster(&sandbox, &ClusterOptions::default())?;
    // Root runs wald where the state directory is the cluster's account's; anybody else where it is
    // root's.
    let root = rustix::process::geteuid().is_root();
    let settings = if root { Settings::new() } else { Settings::new().set_text("agent", "state_dir", "/") };
    let wald = wald(&sandbox, "wald", &cluster, settings)?;
    let mut command = wald_integration::account::clean_command(wald.binaries().wald());
    command.arg("--config").arg(wald.config());
    command.args([
        "vacuum",
        "boost",
        "--maintenance-work-mem",
        "2GB",
        "--for",
        "1h",
        "--without-agent",
        "--yes",
    ]);
    let said = run(command)?.exited_with(1)?.stderr;
    assert!(said.contains("sudo -u postgres wald"), "{said}");
    assert_eq!(cluster.scalar("show maintenance_work_mem")?, "64MB");
    Ok(())
}
