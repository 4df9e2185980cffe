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
    /// When what it speaks of is to end by itself.
    until: Option<Timestamp>,
    /// What it says of itself, as far as that can be read.
    step: String,
    /// Whether what it speaks of is over: the journal of a promotion stays until the next one.
    is_over: bool,
}

impl Journal {
    fn read(state_dir: &Path, name: &str) -> Option<Self> {
        let file = StateFile::below(state_dir, name);
        let changed_at = std::fs::metadata(file.path()).ok()?.modified().ok();
        let changed_at = changed_at.and_then(|changed_at| Timestamp::try_from(changed_at).ok());
        // One that can't be understood is under way, until somebody has looked.
        let journal = file.read::<Value>().ok().flatten().unwrap_or_default();
        Some(Self {
            changed_at,
            until: journal.get("until").and_then(Value::as_str).and_then(|until| until.parse().ok()),
            step: step(&journal).unwrap_or_else(|| "unknown".to_owned()),
            is_over: journal.get("ended").is_some_and(|ended| !ended.is_null()),
        })
    }
}

/// The last step that was begun, as a word.
fn step(journal: &Value) -> Option<String> {
    let last = journal.get("steps")?.as_array()?.last()?.get("act")?;
    // A step with particulars is written as an object with its name for the only key.
    let name = last.as_str().or_else(|| last.as_object()?.keys().next().map(String::as_str))?;
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
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
        (boost.filter(|journal| !journal.is_over), promotion.filter(|journal| !journal.is_over));
    let mut seen = Seen::default();
    let active = |journal: &Option<Journal>| if journal.is_some() { 1.0 } else { 0.0 };
    let since = |journal: &Option<Journal>| journal.as_ref()?.changed_at.map(seconds);
    seen.set(&figures::BOOST_ACTIVE, active(&boost));
    seen.set_known(&figures::BOOST_SINCE, since(&boost));
    seen.set_known(&figures::BOOST_UNTIL, boost.as_ref().and_then(|boost| boost.until).map(seconds));
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
    fn a_journal_is_under_way_until_it_says_that_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(dir.path(), PROMOTION), None);
        let file = StateFile::below(dir.path(), PROMOTION);
        let steps = serde_json::json!([{ "act": "check" }, { "act": { "Route-Away": 1 } }]);
        for (value, step, is_over) in [
            (serde_json::json!({ "ended": null, "steps": steps }), "route_away", false),
            (serde_json::json!({ "ended": null, "steps": [] }), "unknown", false),
            (
                serde_json::json!({ "ended": { "promoted": true }, "steps": [{ "act": "report" }] }),
                "report",
                true,
            ),
            (serde_json::json!({ "other": 1 }), "unknown", false),
        ] {
            file.replace(&value).unwrap();
            let journal = Journal::read(dir.path(), PROMOTION).unwrap();
            assert_eq!((journal.step.as_str(), journal.is_over), (step, is_over));
            assert!(journal.changed_at.is_some());
        }
        std::fs::write(file.path(), b"{").unwrap();
        let damaged = Journal::read(dir.path(), PROMOTION).unwrap();
        assert_eq!((damaged.step.as_str(), damaged.is_over), ("unknown", false));
    }

    #[test]
    fn a_boost_says_until_when() {
        let dir = tempfile::tempdir().unwrap();
        let boost = serde_json::json!({ "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T02:00:00Z" });
        StateFile::below(dir.path(), BOOST).replace(&boost).unwrap();
        let journal = Journal::read(dir.path(), BOOST).unwrap();
        assert_eq!(journal.until, "2026-01-01T02:00:00Z".parse().ok());
        assert!(!journal.is_over);
    }
}
