//! The sessions as a person reads them.

use super::{BlockerNode, Report, Session};
use std::fmt;
use wald_core::blockers::PREPARED;

/// As much of a statement as fits on a line.
const QUERY_CHARS_MAX: usize = 60;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions by state and wait")?;
        for kind in &self.kinds {
            let state = if kind.state.is_empty() { "(no state)" } else { &kind.state };
            write!(f, "  {:>4}  {state}", kind.sessions)?;
            if !kind.wait_type.is_empty() {
                write!(f, ", {}: {}", kind.wait_type, kind.wait)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\nblockers{}", if self.blockers.is_empty() { ": none" } else { "" })?;
        for root in &self.blockers {
            root.print(f, 1)?;
        }
        let none = if self.idle_in_transaction.is_empty() { ": none" } else { "" };
        writeln!(f, "\nidle in transaction for {:.0} s or longer{none}", self.idle_longer_than_s)?;
        for idle in &self.idle_in_transaction {
            write!(f, "  {}", idle.session)?;
            match idle.kept {
                Some(why) => writeln!(f, " ({why})")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "\nprepared transactions{}", if self.prepared.is_empty() { ": none" } else { "" })?;
        for prepared in &self.prepared {
            writeln!(
                f,
                "  {:?} of {} in {}, for {:.0} s, {} transactions old: COMMIT PREPARED or ROLLBACK PREPARED ends it",
                prepared.gid, prepared.owner, prepared.database, prepared.seconds, prepared.age
            )?;
        }
        let none = if self.horizon_holders.is_empty() { ": nothing" } else { "" };
        writeln!(f, "\nwhat keeps vacuum from removing dead rows{none}")?;
        for holder in &self.horizon_holders {
            writeln!(f, "  {} transactions old: {}", holder.age, holder.what)?;
        }
        Ok(())
    }
}

impl BlockerNode {
    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:1$}", "", depth * 2)?;
        match &self.session {
            Some(session) => write!(f, "{session}")?,
            None if self.pid == PREPARED => write!(f, "a prepared transaction (see below)")?,
            None => write!(f, "pid {}, which has ended", self.pid)?,
        }
        if !self.also_waits_for.is_empty() {
            let pids: Vec<String> = self.also_waits_for.iter().map(i32::to_string).collect();
            write!(f, "; waits for {} too", pids.join(", "))?;
        }
        writeln!(f, "{}", if self.shown_elsewhere { "; those behind it are shown elsewhere" } else { "" })?;
        self.waiting.iter().try_for_each(|below| below.print(f, depth + 1))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if self.role.is_empty() {
            write!(f, ", {}", self.backend_type)?;
        } else {
            write!(f, ", {} in {}", self.role, self.database)?;
        }
        if !self.application.is_empty() {
            write!(f, ", {}", self.application)?;
        }
        if !self.state.is_empty() {
            write!(f, ", {}", self.state)?;
        }
        if let Some(seconds) = self.state_s {
            write!(f, " for {seconds:.0} s")?;
        }
        if !self.wait_type.is_empty() && self.wait_type != "Client" {
            write!(f, ", waits for {}: {}", self.wait_type, self.wait)?;
        }
        let line: String = self.query.split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.is_empty() {
            let short: String = line.chars().take(QUERY_CHARS_MAX).collect();
            let dots = if short.len() < line.len() { "..." } else { "" };
            write!(f, ", {short}{dots}")?;
        }
        Ok(())
    }
}
