//! What is compared, a subject each.

pub mod drain;
pub mod replay;
pub mod backup;
pub mod waiting;
pub mod command;

use crate::figures::{Column, Figures, Ratio, number};
use crate::meter::Usage;
use crate::stage::Stage;
use crate::tool::Tool;

/// What every subject works with.
#[derive(Clone, Copy)]
pub struct Play<'a> {
    /// Where.
    pub stage: &'a Stage,
    /// Who takes part, in the order of their turns.
    pub tools: &'a [Box<dyn Tool>],
    /// How often each has its turn.
    pub rounds: u32,
    /// Files or parts at the same time, for WAL.
    pub workers: u32,
}

/// A mebibyte.
pub const MIB: f64 = 1_048_576.0;

const fn shown(key: &'static str, title: &'static str, digits: usize) -> Column {
    Column { key, title, digits, ratio: Ratio::Shown }
}

const fn plain(key: &'static str, title: &'static str, digits: usize) -> Column {
    Column { key, title, digits, ratio: Ratio::Hidden }
}

/// What a meter found, and the work per second.
fn figures_of(usage: &Usage, raw_bytes: u64) -> Figures {
    let seconds = usage.elapsed.as_secs_f64();
    Figures::from([
        ("seconds", seconds),
        ("mib_per_second", number(raw_bytes) / MIB / seconds),
        ("cpu_seconds", usage.cpu.as_secs_f64()),
        ("cpu_of_postgres_seconds", usage.cpu_of_postgres.as_secs_f64()),
        ("cpu_of_server_seconds", usage.cpu_apart.as_secs_f64()),
        ("memory_peak_mib", number(usage.memory_peak) / MIB),
        ("memory_largest_mib", number(usage.memory_largest) / MIB),
    ])
}
