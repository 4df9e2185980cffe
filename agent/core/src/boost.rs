//! What a boost of autovacuum changes, and what it can't.
//!
//! Invariants: only settings that a reload puts in force are changed; nothing is ever lowered; what
//! needs a restart is said and left alone.

use serde::Serialize;

/// Which version is the first whose `autovacuum_max_workers` needs no restart, up to
/// `autovacuum_worker_slots` (<https://www.postgresql.org/docs/18/runtime-config-vacuum.html>).
const WORKERS_RELOADABLE_VERSION: u32 = 180_000;
/// Which version is the first where a vacuum uses more than 1 GB for dead rows.
const MEMORY_UNBOUND_VERSION: u32 = 170_000;
const GIGABYTE_KB: u64 = 1 << 20;

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BoostRequest {
    /// Workers at once.
    pub workers: Option<u32>,
    /// Memory of each, in kB.
    pub memory_kb: Option<u64>,
    /// Cost that all of them together may use up between two pauses.
    pub cost_limit: u32,
    /// The pause, in ms; as it is where absent.
    pub cost_delay_ms: Option<f64>,
}

/// What the server is set to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BoostableSettings {
    /// `server_version_num`
    pub version_num: u32,
    /// `autovacuum_max_workers`
    pub workers: u32,
    /// `autovacuum_worker_slots`, since 18.
    pub worker_slots: Option<u32>,
    /// `maintenance_work_mem`, in kB
    pub maintenance_memory_kb: u64,
    /// `autovacuum_work_mem`, in kB; absent where it follows the former.
    pub autovacuum_memory_kb: Option<u64>,
    /// `autovacuum_vacuum_cost_limit`, or what it follows.
    pub cost_limit: u32,
    /// `autovacuum_vacuum_cost_delay`, in ms, or what it follows.
    pub cost_delay_ms: f64,
}

/// One setting.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SettingChange {
    /// Its name.
    pub name: &'static str,
    /// What it is now, in words.
    pub now: String,
    /// What it becomes, as `ALTER SYSTEM` takes it.
    pub value: String,
    /// The same as `pg_settings.setting` shows it, in the setting's unit.
    pub in_force: f64,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BoostPlan {
    /// What is changed.
    pub changes: Vec<SettingChange>,
    /// What is not, and what to know.
    pub remarks: Vec<String>,
}

/// Makes the plan.
pub fn plan(request: &BoostRequest, now: &BoostableSettings) -> BoostPlan {
    let mut plan = BoostPlan { changes: Vec::new(), remarks: Vec::new() };
    let workers = plan_workers(&mut plan, request, now);
    plan_memory(&mut plan, request, now, workers);
    if request.cost_limit > now.cost_limit {
        plan.changes.push(SettingChange {
            name: "autovacuum_vacuum_cost_limit",
            now: now.cost_limit.to_string(),
            value: request.cost_limit.to_string(),
            in_force: f64::from(request.cost_limit),
        });
    }
    if let Some(delay) = request.cost_delay_ms.filter(|delay| *delay < now.cost_delay_ms) {
        plan.changes.push(SettingChange {
            name: "autovacuum_vacuum_cost_delay",
            now: format!("{}ms", now.cost_delay_ms),
            value: format!("{delay}ms"),
            in_force: delay,
        });
    }
    plan
}

/// How many workers there will be.
fn plan_workers(plan: &mut BoostPlan, request: &BoostRequest, now: &BoostableSettings) -> u32 {
    let Some(wanted) = request.workers.filter(|wanted| *wanted > now.workers) else { return now.workers };
    let slots = now.worker_slots.filter(|_| now.version_num >= WORKERS_RELOADABLE_VERSION);
    let Some(slots) = slots else {
        plan.remarks.push(format!(
            "autovacuum_max_workers is {} and becomes {wanted} only when the server is started again (before \
             PostgreSQL 18), so it is not changed. For that: ALTER SYSTEM SET autovacuum_max_workers = {wanted}; \
             and a restart. The {} workers are made faster instead",
            now.workers, now.workers
        ));
        return now.workers;
    };
    let reachable = wanted.min(slots);
    if reachable < wanted {
        plan.remarks.push(format!(
            "autovacuum_worker_slots is {slots}: more workers than that need it to be larger, and a restart"
        ));
    }
    if reachable > now.workers {
        plan.changes.push(SettingChange {
            name: "autovacuum_max_workers",
            now: now.workers.to_string(),
            value: reachable.to_string(),
            in_force: f64::from(reachable),
        });
    }
    reachable.max(now.workers)
}

fn plan_memory(plan: &mut BoostPlan, request: &BoostRequest, now: &BoostableSettings, workers: u32) {
    let Some(wanted) = request.memory_kb else { return };
    let own = now.autovacuum_memory_kb.map(|memory| ("autovacuum_work_mem", memory));
    for (name, memory) in [("maintenance_work_mem", now.maintenance_memory_kb)].into_iter().chain(own) {
        if wanted > memory {
            #[allow(clippy::cast_precision_loss)] // PostgreSQL takes at most 2^31 kB.
            let in_force = wanted as f64;
            let value = format!("{wanted}kB");
            plan.changes.push(SettingChange { name, now: format!("{memory}kB"), value, in_force });
        }
    }
    let total = wanted.saturating_mul(u64::from(workers)) / 1024;
    plan.remarks.push(format!(
        "{workers} workers may take {total} MB together, and each maintenance command by hand as much as one"
    ));
    if wanted > GIGABYTE_KB && now.version_num < MEMORY_UNBOUND_VERSION {
        plan.remarks.push("before PostgreSQL 17 a vacuum uses at most 1 GB of it for dead rows".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BoostableSettings = BoostableSettings {
        version_num: 150_018,
        workers: 3,
        worker_slots: None,
        maintenance_memory_kb: 65_536,
        autovacuum_memory_kb: None,
        cost_limit: 200,
        cost_delay_ms: 2.0,
    };
    const REQUEST: BoostRequest =
        BoostRequest { workers: Some(8), memory_kb: Some(2 << 20), cost_limit: 2000, cost_delay_ms: None };

    fn names(plan: &BoostPlan) -> Vec<&str> {
        plan.changes.iter().map(|change| change.name).collect()
    }

    #[test]
    fn before_18_workers_need_a_restart_which_is_said_and_not_done() {
        let plan = plan(&REQUEST, &NOW);
        assert_eq!(names(&plan), ["maintenance_work_mem", "autovacuum_vacuum_cost_limit"]);
        assert!(plan.remarks[0].contains("autovacuum_max_workers is 3"), "{:?}", plan.remarks);
        assert_eq!((plan.changes[0].value.as_str(), plan.changes[0].in_force), ("2097152kB", 2_097_152.0));
    }

    #[test]
    fn from_18_on_workers_are_reloaded_up_to_their_slots() {
        let now = BoostableSettings { version_num: 180_000, worker_slots: Some(6), ..NOW };
        let made = plan(&REQUEST, &now);
        assert_eq!((made.changes[0].name, made.changes[0].value.as_str()), ("autovacuum_max_workers", "6"));
        assert!(made.remarks[0].contains("autovacuum_worker_slots is 6"));
        let enough = plan(&REQUEST, &BoostableSettings { worker_slots: Some(16), ..now });
        assert_eq!(enough.changes[0].value, "8");
    }

    #[test]
    fn autovacuums_own_memory_is_raised_too_where_it_has_one() {
        let own = BoostableSettings { autovacuum_memory_kb: Some(1024), ..NOW };
        assert_eq!(
            names(&plan(&REQUEST, &own)),
            ["maintenance_work_mem", "autovacuum_work_mem", "autovacuum_vacuum_cost_limit"]
        );
    }

    #[test]
    fn nothing_is_lowered() {
        let strong = BoostableSettings {
            workers: 16,
            maintenance_memory_kb: 8 << 20,
            cost_limit: 10_000,
            cost_delay_ms: 0.0,
            ..NOW
        };
        let request = BoostRequest { cost_delay_ms: Some(1.0), ..REQUEST };
        assert!(plan(&request, &strong).changes.is_empty());
        let delayed = plan(&request, &NOW);
        assert_eq!(delayed.changes.last().unwrap().name, "autovacuum_vacuum_cost_delay");
        assert_eq!(delayed.changes.last().unwrap().value, "1ms");
    }
}
