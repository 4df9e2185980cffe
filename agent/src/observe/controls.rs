//! Changes of the operators that are under way, from their journals: whether there is one, and at
//! which step it is. What else a journal says is its command's business.

use super::{Observatory, SeenControls, repeat};
use crate::codec::aside;
use crate::control::state_file::StateFile;
use crate::metrics::{Observer, Seen, figures, seconds};
use jiff::Timestamp;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(10);
const BOOST: &str = "controls/boost.json";
const PROMOTION: &str = "controls/promotion.json";
/// A step is a word.
const STEP_CHARS_MAX: usize = 40;

/// A journal.
#[derive(Debug, PartialEq)]
struct Journal {
    /// When it was last written.
    changed_at: Option<Timestamp>,
    /// What it says of itself, as far as that can be read.
    step: String,
}

impl Journal {
    fn read(state_dir: &Path, name: &str) -> Option<Self> {
        let file = StateFile::below(state_dir, name);
        let changed_at = std::fs::metadata(file.path()).ok()?.modified().ok();
        let changed_at = changed_at.and_then(|changed_at| Timestamp::try_from(changed_at).ok());
        // One that can't be understood is under way, until somebody has looked.
        let step = file.read::<Value>().ok().flatten().as_ref().and_then(step);
        Some(Self { changed_at, step: step.unwrap_or_else(|| "unknown".to_owned()) })
    }

    fn is_over(&self) -> bool {
        matches!(
            self.step.as_str(),
            "done" | "finished" | "completed" | "aborted" | "reverted" | "rolled_back"
        )
    }
}

/// A word in `state`, else in `step`; an over `state` outweighs a step.
fn step(journal: &Value) -> Option<String> {
    let word = |key| journal.get(key).and_then(Value::as_str).map(str::to_owned);
    let found = word("state").or_else(|| word("step"))?;
    let plain = found.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    Some(plain.take(STEP_CHARS_MAX).collect())
}

pub(super) async fn watch(at: Observatory) {
    let at = &at;
    repeat(|| async {
        let state_dir = at.options.state_dir.clone();
        let read = move || (Journal::read(&state_dir, BOOST), Journal::read(&state_dir, PROMOTION));
        if let Ok((boost, promotion)) = aside(read).await {
            publish(at, boost, promotion);
        }
        LOOK_EVERY
    })
    .await;
}

fn publish(at: &Observatory, boost: Option<Journal>, promotion: Option<Journal>) {
    let (boost, promotion) =
        (boost.filter(|journal| !journal.is_over()), promotion.filter(|journal| !journal.is_over()));
    let mut seen = Seen::default();
    let active = |journal: &Option<Journal>| if journal.is_some() { 1.0 } else { 0.0 };
    let since = |journal: &Option<Journal>| journal.as_ref()?.changed_at.map(seconds);
    seen.set(&figures::BOOST_ACTIVE, active(&boost));
    seen.set_known(&figures::BOOST_SINCE, since(&boost));
    seen.set(&figures::PROMOTION_ACTIVE, active(&promotion));
    seen.set_known(&figures::PROMOTION_SINCE, since(&promotion));
    if let Some(promotion) = &promotion {
        seen.set_for(&figures::PROMOTION_STEP, &[&promotion.step], 1.0);
    }
    at.metrics.publish(Observer::Controls, seen);
    at.lock().controls =
        SeenControls { boost: boost.is_some(), promotion: promotion.map(|promotion| promotion.step) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_under_way_until_it_says_that_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(dir.path(), PROMOTION), None);
        let file = StateFile::below(dir.path(), PROMOTION);
        for (value, step, over) in [
            (serde_json::json!({ "step": "Fence" }), "fence", false),
            (serde_json::json!({ "state": "done", "step": "report" }), "done", true),
            (serde_json::json!({ "other": 1 }), "unknown", false),
        ] {
            file.replace(&value).unwrap();
            let journal = Journal::read(dir.path(), PROMOTION).unwrap();
            assert_eq!((journal.step.as_str(), journal.is_over()), (step, over));
            assert!(journal.changed_at.is_some());
        }
        std::fs::write(file.path(), b"{").unwrap();
        assert_eq!(Journal::read(dir.path(), PROMOTION).unwrap().step, "unknown");
    }
}
