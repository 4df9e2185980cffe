//! Connections against a policy: so many in all, so many for each role or application, and some
//! only on a standby.
//!
//! Invariant: a limit is passed when more connections are there than it allows, and near from a
//! share of it on; a limit that allows none is passed by the first.

use serde::Serialize;

/// A text with `*` for any characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// From the text as it is written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        // Without a star the whole text was the prefix.
        let Some(last) = parts.pop() else { return rest.is_empty() };
        let mut rest = rest;
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Where connections that a limit is about belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Anywhere.
    Anywhere,
    /// On a standby only: on a primary not one is allowed.
    Standby,
}

/// A limit of the policy; it counts the connections that fit all of its patterns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// What it is called.
    pub name: String,
    /// Of these roles,
    pub role: Option<Pattern>,
    /// with this `application_name`,
    pub application: Option<Pattern>,
    /// to this database.
    pub database: Option<Pattern>,
    /// So many; absent for any number.
    pub max: Option<u32>,
    /// Where.
    pub place: Place,
}

/// Connections that agree in role, application and database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    /// The role.
    pub role: String,
    /// `application_name`
    pub application: String,
    /// The database.
    pub database: String,
    /// How many.
    pub connections: u32,
    /// How many of them are active.
    pub active: u32,
}

/// How a limit is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitState {
    /// There is room.
    Ok,
    /// Nearly used up.
    Near,
    /// More than allowed.
    Passed,
}

/// A limit and what is used of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Usage {
    /// The limit's name.
    pub name: String,
    /// Connections that it counts.
    pub used: u32,
    /// What is allowed on this server; absent for any number.
    pub max: Option<u32>,
    /// Whether they belong on a standby, and this is none.
    pub misplaced: bool,
    /// The verdict.
    pub state: LimitState,
}

/// `used` against `max`, near from `near_percent` on.
pub fn judge(used: u32, max: u32, near_percent: u32) -> LimitState {
    if used > max {
        LimitState::Passed
    } else if used > 0 && u64::from(used) * 100 >= u64::from(max) * u64::from(near_percent) {
        LimitState::Near
    } else {
        LimitState::Ok
    }
}

impl Limit {
    /// Whether it counts these connections.
    pub fn counts(&self, group: &Group) -> bool {
        let fits = |pattern: &Option<Pattern>, text: &str| pattern.as_ref().is_none_or(|p| p.matches(text));
        fits(&self.role, &group.role)
            && fits(&self.application, &group.application)
            && fits(&self.database, &group.database)
    }

    /// What is used of it on a server that is a standby (`in_recovery`) or a primary.
    pub fn usage(&self, groups: &[Group], in_recovery: bool, near_percent: u32) -> Usage {
        let used = groups.iter().filter(|group| self.counts(group)).map(|group| group.connections).sum();
        let elsewhere = self.place == Place::Standby && !in_recovery;
        let max = if elsewhere { Some(0) } else { self.max };
        let state = max.map_or(LimitState::Ok, |max| judge(used, max, near_percent));
        Usage { name: self.name.clone(), used, max, misplaced: elsewhere && used > 0, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(role: &str, application: &str, connections: u32) -> Group {
        Group {
            role: role.to_owned(),
            application: application.to_owned(),
            database: "shop".to_owned(),
            connections,
            active: 0,
        }
    }

    fn limit(role: Option<&str>, application: Option<&str>, max: u32) -> Limit {
        Limit {
            name: "a limit".to_owned(),
            role: role.map(Pattern::new),
            application: application.map(Pattern::new),
            database: None,
            max: Some(max),
            place: Place::Anywhere,
        }
    }

    #[test]
    fn a_star_stands_for_anything_and_nothing_else_does() {
        for (pattern, text, fits) in [
            ("app", "app", true),
            ("app", "apps", false),
            ("app*", "app", true),
            ("app*", "app-7", true),
            ("*worker", "shop worker", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
            ("a.c", "abc", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_limit_counts_what_fits_all_of_its_patterns() {
        let groups = [group("app", "web", 30), group("app", "worker 1", 15), group("report", "web", 5)];
        let used = |limit: Limit| limit.usage(&groups, false, 80).used;
        assert_eq!(used(limit(Some("app"), None, 50)), 45);
        assert_eq!(used(limit(Some("app"), Some("worker*"), 50)), 15);
        assert_eq!(used(limit(None, Some("web"), 50)), 35);
    }

    #[test]
    fn a_limit_is_near_before_it_is_passed() {
        let state = |used| judge(used, 50, 80);
        assert_eq!(state(39), LimitState::Ok);
        assert_eq!(state(40), LimitState::Near);
        assert_eq!(state(50), LimitState::Near);
        assert_eq!(state(51), LimitState::Passed);
        assert_eq!(judge(0, 0, 80), LimitState::Ok);
        assert_eq!(judge(1, 0, 80), LimitState::Passed);
    }

    #[test]
    fn what_belongs_on_a_standby_is_allowed_there_only() {
        let analytics = Limit { place: Place::Standby, max: None, ..limit(Some("report"), None, 0) };
        let groups = [group("report", "psql", 1)];
        let primary = analytics.usage(&groups, false, 80);
        assert_eq!((primary.state, primary.misplaced), (LimitState::Passed, true));
        let standby = analytics.usage(&groups, true, 80);
        assert_eq!((standby.state, standby.misplaced, standby.max), (LimitState::Ok, false, None));
        assert_eq!(analytics.usage(&[], false, 80).state, LimitState::Ok);
    }
}
