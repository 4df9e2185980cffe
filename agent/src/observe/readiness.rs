//! Whether WAL is being archived as it should: what `/readyz` answers.

use super::Observed;
use super::backlog::age;
use crate::metrics::seconds;
use crate::status::AgentStatus;
use jiff::Timestamp;
use wald_core::rto::RPO_BUDGET;

/// The repository is asked every 10 s; past this several questions in a row had no answer.
const CONTACT_SECONDS_MAX: f64 = 60.0;

/// Why it is not; empty if all is well. PostgreSQL's own state is no reason: the agent archives and
/// restores whether or not it answers questions.
pub fn not_ready(observed: &Observed, status: &AgentStatus, now: Timestamp) -> Vec<String> {
    let mut reasons = Vec::new();
    if !observed.serving {
        reasons.push("the agent takes no requests yet: it waits for the repository".to_owned());
    }
    match (&observed.repository.error, observed.repository.answered_at) {
        (Some(error), _) => reasons.push(format!("the repository does not answer: {error}")),
        (None, None) => reasons.push("the repository has not been asked yet".to_owned()),
        (None, Some(at)) if seconds(now) - seconds(at) > CONTACT_SECONDS_MAX => {
            reasons.push(format!("the repository has not answered since {at}"));
        }
        (None, Some(_)) => {}
    }
    if let Some(failure) = &status.last_failure {
        reasons.push(format!("archiving fails: {failure}"));
    }
    if let Some(error) = &observed.backlog_error {
        reasons.push(format!("what waits for the archive can't be seen: {error}"));
    }
    let oldest = observed.backlog.as_ref().and_then(|backlog| backlog.oldest_since);
    if let Some(since) = oldest.filter(|since| age(*since, now) > RPO_BUDGET.as_secs_f64()) {
        let budget = RPO_BUDGET.as_secs();
        reasons.push(format!(
            "WAL has waited for the archive since {since}, more than the {budget} s of the RPO"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::{SeenBacklog, SeenRepository};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn well() -> (Observed, AgentStatus) {
        let repository = SeenRepository { answered_at: Some(at(0)), error: None };
        (Observed { serving: true, repository, ..Observed::default() }, AgentStatus::new(at(-100)))
    }

    #[test]
    fn each_trouble_is_told_and_none_is_ready() {
        let (observed, status) = well();
        assert_eq!(not_ready(&observed, &status, at(50)), Vec::<String>::new());
        assert!(not_ready(&observed, &status, at(61))[0].contains("has not answered since"));
        let mut trouble = observed.clone();
        trouble.serving = false;
        trouble.repository.error = Some("no route".to_owned());
        let reasons = not_ready(&trouble, &status, at(1));
        assert!(reasons.len() == 2 && reasons[1].contains("no route"), "{reasons:?}");
        let mut failing = status.clone();
        failing.archive_failed("disk full", at(1));
        assert!(not_ready(&observed, &failing, at(1))[0].contains("disk full"));
    }

    #[test]
    fn a_backlog_that_can_t_be_seen_is_not_ready() {
        let (mut observed, status) = well();
        observed.backlog_error = Some("can't list pg_wal/archive_status".to_owned());
        let reasons = not_ready(&observed, &status, at(1));
        assert!(reasons.len() == 1 && reasons[0].contains("archive_status"), "{reasons:?}");
    }

    #[test]
    fn wal_that_waits_for_longer_than_the_rpo_is_not_ready() {
        let (mut observed, status) = well();
        for (since, reasons) in [(-299, 0), (-302, 1)] {
            observed.backlog =
                Some(SeenBacklog { files: 1, bytes: 1, oldest: None, oldest_since: Some(at(since)) });
            assert_eq!(not_ready(&observed, &status, at(1)).len(), reasons);
        }
    }
}
