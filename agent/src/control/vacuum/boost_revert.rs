//! Taking a boost back.
//!
//! Invariants: it can be repeated from any point until it has succeeded once; what somebody changed
//! since the boost is left and said; a statement that a killed wald had sent is over before anything
//! is compared.

use super::boost::{APPLICATION, BoostError, BoostOptions, COMMAND, in_words, system_id};
use super::boost_journal::{Boost, BoostJournal, BoostedSetting};
use super::server_settings::{alter, in_file, reload, same};
use crate::control::audit::{AuditLog, Stage};
use crate::control::claim::Claim;
use crate::control::databases::STATEMENT_TIMEOUT;
use crate::database::{Database, Right, value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wald_core::take_back::{TakeBack, take_back};

/// The server carries out a statement whose sender was killed. Whoever has the claim is the only wald
/// that boosts, so a session of that name, or one that changes settings just now, is such a one.
const SETTLED_QUERY: &str = "\
    SELECT pg_catalog.count(*) = 0 AS settled FROM pg_catalog.pg_stat_activity \
    WHERE pid <> pg_catalog.pg_backend_pid() \
      AND (application_name = $1 OR (state = 'active' AND query LIKE 'ALTER SYSTEM %'))";
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How one setting was taken back.
#[derive(Debug, Serialize)]
pub struct TakenBack {
    /// Its name.
    pub name: String,
    /// What came of it, in words.
    pub detail: String,
    /// Whether somebody changed it since, so that it was left.
    pub left: bool,
}

/// Takes the boost back, whether its time is over or not. `None` where there is none.
pub async fn revert(options: &BoostOptions, audit: &AuditLog) -> Result<Option<Vec<TakenBack>>, BoostError> {
    let journal = BoostJournal::below(&options.state_dir);
    if journal.read()?.is_none() {
        return Ok(None);
    }
    let _claim = Claim::take_to_undo(&options.state_dir, "boost")?;
    // Under the claim again: it may have been taken back meanwhile.
    let Some(boost) = journal.read()? else { return Ok(None) };
    let session = Database::connect(&options.connection, APPLICATION, STATEMENT_TIMEOUT).await?;
    let found = system_id(&session).await?;
    if found != boost.system_id {
        let path = journal.path().to_owned();
        return Err(BoostError::Another { path, expected: boost.system_id, found });
    }
    undo(&session, &journal, &boost, audit).await.map(Some)
}

pub(super) async fn undo(
    session: &Database,
    journal: &BoostJournal,
    boost: &Boost,
    audit: &AuditLog,
) -> Result<Vec<TakenBack>, BoostError> {
    // A log that can't be written does not keep a boost in force: that would be the worse harm.
    let note = |stage, detail: &str| {
        if let Err(error) = audit.write(COMMAND, stage, detail) {
            tracing::error!(error = %crate::explain::chain(&error), "this is missing in the audit log: {detail}");
        }
    };
    note(Stage::Intended, &format!("take back: {}", in_words(boost)));
    settle(session).await?;
    let names: Vec<String> = boost.settings.iter().map(|setting| setting.name.clone()).collect();
    let file = in_file(session, &names).await?;
    let mut taken = Vec::new();
    for setting in &boost.settings {
        let now = file.get(&setting.name).map(String::as_str);
        taken.push(one(session, setting, now).await?);
    }
    // Also where nothing was to be done: a crash may have come between the change and its reload.
    let ended = |force: &BTreeMap<String, f64>| {
        boost.settings.iter().zip(&taken).all(|(setting, taken)| taken.left || is_over(setting, force))
    };
    if !reload(session, &names, ended).await? {
        let file = in_file(session, &names).await?;
        let is_ours = |setting: &BoostedSetting| {
            setting.before.as_deref() != Some(setting.ours.as_str())
                && file.get(&setting.name) == Some(&setting.ours)
        };
        if boost.settings.iter().any(is_ours) {
            return Err(BoostError::Overruled(names.join(", ")));
        }
        // It is in force although postgresql.auto.conf has lost it: another file has made it permanent,
        // and there is nothing left that is ours to take back.
        note(Stage::Reverted, "a boosted value stays in force: it stands in another configuration file now");
    }
    journal.remove()?;
    let words: Vec<String> = taken.iter().map(|taken| format!("{} {}", taken.name, taken.detail)).collect();
    note(Stage::Reverted, &words.join("; "));
    Ok(taken)
}

async fn one(
    session: &Database,
    setting: &BoostedSetting,
    now: Option<&str>,
) -> Result<TakenBack, BoostError> {
    let (detail, left) = match take_back(setting.before.as_deref(), &setting.ours, now) {
        TakeBack::Nothing => ("was as before already".to_owned(), false),
        TakeBack::Set(before) => {
            alter(session, &setting.name, Some(before)).await?;
            (format!("set to {before} again"), false)
        }
        TakeBack::Reset => {
            alter(session, &setting.name, None).await?;
            ("reset".to_owned(), false)
        }
        TakeBack::ChangedSince(now) => {
            let now = now.map_or("was reset".to_owned(), |now| format!("was set to {now}"));
            let before = setting.before.as_deref().unwrap_or("not set");
            (format!("{now} by somebody since the boost, and is left so (before the boost: {before})"), true)
        }
    };
    Ok(TakenBack { name: setting.name.clone(), detail, left })
}

/// Whether the boosted value is no longer in force. What is in force instead may have been changed
/// in other files meanwhile.
fn is_over(setting: &BoostedSetting, force: &BTreeMap<String, f64>) -> bool {
    let now = force.get(&setting.name).copied();
    let still = now.is_some_and(|now| same(now, setting.in_force_ours));
    !still || same(setting.in_force_before, setting.in_force_ours)
}

async fn settle(session: &Database) -> Result<(), BoostError> {
    const ACTION: &str = "tell whether its settings are being changed";
    let (name, since) = (format!("wald {APPLICATION}"), Instant::now());
    while since.elapsed() < SETTLED_WITHIN {
        let row = session.query_one(ACTION, Right::Monitor, SETTLED_QUERY, &[&name]).await?;
        if value::<bool>(&row, "settled", ACTION)? {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(BoostError::Unsettled)
}
