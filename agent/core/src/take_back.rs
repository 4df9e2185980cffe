//! Taking back a change to a setting, once it may have been made, may not have been made, or may
//! have been made over by somebody else.
//!
//! Invariants: what a person set after wald did is never overwritten; a change that never happened
//! and one that was taken back already both end as nothing to do, so that taking back can be
//! repeated after a crash at any point.

/// What has to be done so that a setting is again what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeBack<'a> {
    /// It is as it was before.
    Nothing,
    /// Set it to this again.
    Set(&'a str),
    /// It was not set before: reset it.
    Reset,
    /// Somebody has changed it since, to this or to nothing: leave it.
    ChangedSince(Option<&'a str>),
}

/// Compares what was there `before`, what wald set (`ours`) and what is there `now`. `None` means
/// that the setting is not set at all.
pub fn take_back<'a>(before: Option<&'a str>, ours: &str, now: Option<&'a str>) -> TakeBack<'a> {
    // Before comes first: where wald set what was there already, nothing is to be done.
    if now == before {
        return TakeBack::Nothing;
    }
    match (now == Some(ours), before) {
        (true, Some(before)) => TakeBack::Set(before),
        (true, None) => TakeBack::Reset,
        (false, _) => TakeBack::ChangedSince(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_goes_back_and_what_was_not_set_is_reset() {
        assert_eq!(take_back(Some("64MB"), "2GB", Some("2GB")), TakeBack::Set("64MB"));
        assert_eq!(take_back(None, "2GB", Some("2GB")), TakeBack::Reset);
    }

    #[test]
    fn a_change_that_was_never_made_or_taken_back_already_is_nothing_to_do() {
        assert_eq!(take_back(Some("64MB"), "2GB", Some("64MB")), TakeBack::Nothing);
        assert_eq!(take_back(None, "2GB", None), TakeBack::Nothing);
        assert_eq!(take_back(Some("2GB"), "2GB", Some("2GB")), TakeBack::Nothing);
    }

    #[test]
    fn what_somebody_set_meanwhile_is_left_alone() {
        assert_eq!(take_back(Some("64MB"), "2GB", Some("1GB")), TakeBack::ChangedSince(Some("1GB")));
        assert_eq!(take_back(None, "2GB", Some("1GB")), TakeBack::ChangedSince(Some("1GB")));
        assert_eq!(take_back(Some("64MB"), "2GB", None), TakeBack::ChangedSince(None));
    }
}
