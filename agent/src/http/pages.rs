//! What the pages say, whoever asks.

use crate::archive::give_up::count_on_record;
use crate::clock::Clock;
use crate::codec::aside;
use crate::explain::chain;
use crate::metrics::Metrics;
use crate::observe::{Observatory, Observed, not_ready};
use crate::runs::{self, LastRuns, RunKind};
use crate::status::AgentStatus;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the pages come from.
#[derive(Clone)]
pub struct Pages {
    /// All figures.
    pub metrics: Arc<Metrics>,
    /// What was seen.
    pub observatory: Observatory,
    /// What the agent says of itself.
    pub status: Arc<Mutex<AgentStatus>>,
    /// Where the runs of the night are recorded.
    pub state_dir: PathBuf,
    /// For the ages.
    pub clock: Clock,
}

/// `/status.json`.
#[derive(Serialize)]
struct Status {
    ready: bool,
    /// Why not.
    reasons: Vec<String>,
    agent: serde_json::Value,
    observed: Observed,
    runs: BTreeMap<&'static str, Option<LastRuns>>,
}

impl Pages {
    pub(super) async fn metrics(&self) -> Result<String, String> {
        let metrics = Arc::clone(&self.metrics);
        // Reads the records of the nightly runs: not on the runtime's threads.
        let text = aside(move || metrics.text()).await.map_err(|error| chain(&error))?;
        text.map_err(|error| chain(&error))
    }

    pub(super) fn not_ready(&self) -> Vec<String> {
        not_ready(&self.observatory.observed(), &self.agent(), self.clock.now())
    }

    pub(super) async fn status(&self) -> Result<String, String> {
        let this = self.clone();
        // Reads the records of the nightly runs, as above.
        aside(move || this.status_now()).await.map_err(|error| chain(&error))?
    }

    fn status_now(&self) -> Result<String, String> {
        let observed = self.observatory.observed();
        let reasons = not_ready(&observed, &self.agent(), self.clock.now());
        let mut agent = self.agent().with_figures(&self.metrics, None, 0, count_on_record(&self.state_dir));
        agent.backlog_files = observed.backlog.as_ref().map(|backlog| backlog.files);
        agent.backlog_oldest = observed.backlog.as_ref().and_then(|backlog| backlog.oldest.clone());
        let mut agent = serde_json::to_value(agent).map_err(|error| chain(&error))?;
        if let Some(fields) = agent.as_object_mut() {
            // Known to the requests' side of the agent only, and asked for over its socket.
            fields.remove("ahead_segments");
        }
        let runs = RunKind::ALL.map(|kind| (kind.name(), runs::read(&self.state_dir, kind).ok().flatten()));
        let status = Status { ready: reasons.is_empty(), reasons, agent, observed, runs: runs.into() };
        let mut text = serde_json::to_string_pretty(&status).map_err(|error| chain(&error))?;
        text.push('\n');
        Ok(text)
    }

    fn agent(&self) -> AgentStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
