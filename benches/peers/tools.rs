//! Those that are compared, a file each.

mod wald;
mod wal_rus;
mod pgbackrest;
mod barman;
mod plain;

pub use wald::programs;

use crate::tool::Tool;

/// All of them, in the order in which they take turns.
pub fn all() -> Vec<Box<dyn Tool>> {
    vec![
        Box::new(wald::Wald::on_s3()),
        Box::new(wal_rus::WalRus::through_daemon()),
        Box::new(wal_rus::WalRus::by_itself()),
        Box::new(pgbackrest::PgBackRest),
        Box::new(barman::Barman),
        Box::new(wald::Wald::in_a_directory()),
        Box::new(plain::Plain),
    ]
}
