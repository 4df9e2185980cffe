//! Which segment is shipped next, and which is fetched next: two deciders without I/O.
//!
//! [`PushAhead`] looks ahead of what PostgreSQL's archiver asks for, [`Prefetch`] ahead of
//! what its recovery asks for. Both are told what happened and answer what to do; the shells
//! around them (`archive::look_ahead`, `restore::look_ahead`) do it and decide nothing.
//!
//! Invariants: a file is never answered as confirmed that was not reported confirmed; a
//! failure is forgotten at once, so that the next request tries afresh; an absence that a
//! prefetch met only ends the looking ahead, it is never an answer; what is held is bounded.

mod course;
mod depth;

use crate::history::TimelineHistory;
use crate::segment::{SegmentName, SegmentSize};
use course::Course;
use depth::Depth;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far ahead of PostgreSQL a decider may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Files in flight at once, the asked-for one included. At least 1.
    pub in_flight_max: usize,
    /// Files in flight or finished and not yet asked for. At least 1.
    pub held_max: usize,
}

/// WAL waits if so many segments are ready, the one that is being shipped included.
const WAITING_FROM: u64 = 3;

/// The segment that tells whether WAL waits when `name` is shipped: it does if that one is ready,
/// too. One look, however long the queue is.
pub fn waiting_if_ready(name: SegmentName, size: SegmentSize) -> Option<SegmentName> {
    let number = name.number(size)?.checked_add(WAITING_FROM - 1)?;
    SegmentName::from_number(name.timeline(), number, size)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    InFlight,
    Finished,
}

/// What to do about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is finished: confirmed, or proven and waiting in the spool.
    Finished,
    /// It is in flight: wait for it.
    Wait,
    /// Do it now; it counts as in flight from here on.
    Begin,
}

/// What both deciders share: what is held, and how far the look-ahead may go.
#[derive(Clone, Debug)]
struct Window {
    size: SegmentSize,
    limits: Limits,
    held: BTreeMap<SegmentName, Progress>,
    /// The segment that PostgreSQL asked for last; looking ahead starts behind it.
    asked: Option<SegmentName>,
    /// The look-ahead goes no further than this until PostgreSQL asks again.
    stop_at: Option<SegmentName>,
    /// How many may be held for now; at most `held_max`.
    depth: usize,
    /// What comes after what.
    course: Course,
}

impl Window {
    fn new(size: SegmentSize, limits: Limits) -> Self {
        let limits = Limits { in_flight_max: limits.in_flight_max.max(1), held_max: limits.held_max.max(1) };
        let depth = limits.held_max;
        let course = Course::default();
        Self { size, limits, held: BTreeMap::new(), asked: None, stop_at: None, depth, course }
    }

    fn request(&mut self, name: SegmentName) -> Answer {
        self.asked = Some(name);
        self.stop_at = None;
        match self.held.get(&name) {
            Some(Progress::Finished) => Answer::Finished,
            Some(Progress::InFlight) => Answer::Wait,
            None => {
                self.held.insert(name, Progress::InFlight);
                Answer::Begin
            }
        }
    }

    fn candidate(&self) -> Option<SegmentName> {
        let in_flight = self.held.values().filter(|progress| **progress == Progress::InFlight).count();
        if in_flight >= self.limits.in_flight_max || self.held.len() >= self.depth {
            return None;
        }
        let mut name = self.course.after(self.asked?, self.size)?;
        while self.held.contains_key(&name) {
            name = self.course.after(name, self.size)?;
        }
        // A window that reaches further than it is wide would leave holes behind it.
        let reach = self.course.distance(self.asked?, name, self.size)?;
        let within = usize::try_from(reach).is_ok_and(|reach| reach <= self.depth);
        (within && self.stop_at.is_none_or(|stop| name < stop)).then_some(name)
    }

    /// Whether PostgreSQL will ask for `name` soon after `asked`, or does so now.
    fn is_near(&self, asked: SegmentName, name: SegmentName) -> bool {
        let distance = self.course.distance(asked, name, self.size);
        distance.and_then(|d| usize::try_from(d).ok()).is_some_and(|d| d <= self.limits.held_max)
    }

    /// Drops finished segments that PostgreSQL will not ask for next: those behind `name`, off its
    /// course, or beyond the window.
    fn drop_outside(&mut self, name: SegmentName) -> Vec<SegmentName> {
        let outside: Vec<SegmentName> = self
            .held
            .iter()
            .filter(|(held, progress)| **progress == Progress::Finished && !self.is_near(name, **held))
            .map(|(held, _)| *held)
            .collect();
        for name in &outside {
            self.held.remove(name);
        }
        outside
    }
}

/// Decides which segments are shipped before PostgreSQL asks for them.
#[derive(Clone, Debug)]
pub struct PushAhead {
    window: Window,
}

impl PushAhead {
    /// Nothing shipped, nothing asked.
    pub fn new(size: SegmentSize, limits: Limits) -> Self {
        Self { window: Window::new(size, limits) }
    }

    /// PostgreSQL asks for `name`. The second value lists confirmed segments that it will not
    /// ask for next, whose results are to be dropped.
    pub fn request(&mut self, name: SegmentName) -> (Answer, Vec<SegmentName>) {
        let answer = self.window.request(name);
        (answer, self.window.drop_outside(name))
    }

    /// The next name to look for; whoever finds it `.ready` calls [`Self::begin`], whoever does
    /// not calls [`Self::end_at`].
    pub fn candidate(&self) -> Option<SegmentName> {
        self.window.candidate()
    }

    /// `name` is being shipped ahead.
    pub fn begin(&mut self, name: SegmentName) {
        self.window.held.entry(name).or_insert(Progress::InFlight);
    }

    /// `name` is not ready, or looking further makes no sense: go no further until asked.
    pub fn end_at(&mut self, name: SegmentName) {
        self.window.stop_at = Some(self.window.stop_at.map_or(name, |stop| stop.min(name)));
    }

    /// The repository has confirmed `name`.
    pub fn confirmed(&mut self, name: SegmentName) {
        if let Some(progress) = self.window.held.get_mut(&name) {
            *progress = Progress::Finished;
        }
    }

    /// `name` was not confirmed; the look-ahead pauses until PostgreSQL asks again, so that a
    /// repository that is down is not asked more often than PostgreSQL asks.
    pub fn failed(&mut self, name: SegmentName) {
        self.window.held.remove(&name);
        self.end_at(name);
    }

    /// The result for `name` is no longer to be used: it was answered, or the file changed.
    pub fn forget(&mut self, name: SegmentName) {
        self.window.held.remove(&name);
    }

    /// How many segments are in flight or confirmed and not yet asked for.
    pub fn held(&self) -> usize {
        self.window.held.len()
    }
}

/// Decides which segments are fetched before PostgreSQL asks for them. Times are since any fixed
/// moment.
#[derive(Clone, Debug)]
pub struct Prefetch {
    window: Window,
    depth: Depth,
}

/// What to do about a fetched file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Leave it in the spool.
    Keep,
    /// PostgreSQL has moved elsewhere meanwhile: delete it.
    Drop,
}

impl Prefetch {
    /// Nothing fetched, nothing asked.
    pub fn new(size: SegmentSize, limits: Limits) -> Self {
        let mut window = Window::new(size, limits);
        let depth = Depth::new(window.limits.in_flight_max, window.limits.held_max);
        window.depth = depth.get();
        Self { window, depth }
    }

    /// PostgreSQL asks for `name`. The second value lists spooled segments to be deleted: a
    /// request that leaves the window begins another recovery or another timeline.
    pub fn request(&mut self, name: SegmentName, now: Duration) -> (Answer, Vec<SegmentName>) {
        let answer = self.window.request(name);
        self.depth.asked(now, answer == Answer::Wait);
        self.window.depth = self.depth.get();
        (answer, self.window.drop_outside(name))
    }

    /// PostgreSQL was given this history: the timelines that it replays are those of one of the
    /// histories that it asks for, most likely of the last one that there is.
    pub fn follow(&mut self, history: &TimelineHistory) {
        self.window.course = Course::of(history, self.window.size);
    }

    /// The next segment to fetch.
    pub fn candidate(&self) -> Option<SegmentName> {
        self.window.candidate()
    }

    /// `name` is being fetched ahead.
    pub fn begin(&mut self, name: SegmentName) {
        self.window.held.entry(name).or_insert(Progress::InFlight);
    }

    /// `name` is in the spool, proven; to fetch it took so long.
    pub fn fetched(&mut self, name: SegmentName, took: Duration) -> Keep {
        self.depth.fetched(took);
        let near = self.window.asked.is_some_and(|asked| self.window.is_near(asked, name));
        match self.window.held.get_mut(&name) {
            Some(progress) if near => {
                *progress = Progress::Finished;
                Keep::Keep
            }
            _ => {
                self.window.held.remove(&name);
                Keep::Drop
            }
        }
    }

    /// `name` could not be fetched, for whatever reason: go no further until asked.
    pub fn failed(&mut self, name: SegmentName) {
        self.window.held.remove(&name);
        self.window.stop_at = Some(self.window.stop_at.map_or(name, |stop| stop.min(name)));
    }

    /// `name` was handed to PostgreSQL, or its fetch is over with nothing left in the spool.
    pub fn taken(&mut self, name: SegmentName) {
        self.window.held.remove(&name);
    }

    /// How many segments are in flight or in the spool.
    pub fn held(&self) -> usize {
        self.window.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::TimelineId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits { in_flight_max: 3, held_max: 5 };

    fn segment(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, SegmentSize::DEFAULT).unwrap()
    }

    #[test]
    fn the_next_names_are_asked_for_first_and_room_is_kept() {
        let mut ahead = PushAhead::new(SegmentSize::DEFAULT, LIMITS);
        assert_eq!(ahead.candidate(), None);
        assert_eq!(ahead.request(segment(1, 255)).0, Answer::Begin);
        assert_eq!(ahead.candidate(), Some(segment(1, 256)));
        ahead.begin(segment(1, 256));
        ahead.begin(segment(1, 257));
        assert_eq!(ahead.candidate(), None, "three are in flight");
        ahead.confirmed(segment(1, 257));
        assert_eq!(ahead.candidate(), Some(segment(1, 258)));
        assert_eq!(ahead.request(segment(1, 257)).0, Answer::Finished);
        assert_eq!(ahead.request(segment(1, 256)).0, Answer::Wait);
    }

    #[test]
    fn a_failure_is_tried_afresh_when_asked_and_ends_looking_ahead() {
        let mut ahead = PushAhead::new(SegmentSize::DEFAULT, LIMITS);
        ahead.request(segment(1, 1));
        ahead.begin(segment(1, 2));
        ahead.failed(segment(1, 2));
        assert_eq!(ahead.candidate(), None);
        assert_eq!(ahead.request(segment(1, 2)).0, Answer::Begin);
        assert_eq!(ahead.candidate(), Some(segment(1, 3)));
    }

    #[test]
    fn another_timeline_empties_the_spool() {
        let mut ahead = Prefetch::new(SegmentSize::DEFAULT, LIMITS);
        ahead.request(segment(1, 1), NOW);
        ahead.begin(segment(1, 2));
        ahead.begin(segment(1, 3));
        assert_eq!(ahead.fetched(segment(1, 2), NOW), Keep::Keep);
        let (answer, dropped) = ahead.request(segment(2, 2), NOW);
        assert_eq!((answer, dropped), (Answer::Begin, vec![segment(1, 2)]));
        assert_eq!(
            ahead.fetched(segment(1, 3), NOW),
            Keep::Drop,
            "it was in flight when the timeline changed"
        );
    }

    #[test]
    fn what_is_fetched_ahead_follows_the_history_to_the_next_timeline() {
        let mut ahead = Prefetch::new(SegmentSize::DEFAULT, LIMITS);
        let history = TimelineHistory::parse(TimelineId::new(2).unwrap(), b"1\t0/3000000\tx\n").unwrap();
        ahead.follow(&history);
        ahead.request(segment(1, 2), NOW);
        assert_eq!(ahead.candidate(), Some(segment(2, 3)));
        ahead.begin(segment(2, 3));
        assert_eq!(ahead.fetched(segment(2, 3), NOW), Keep::Keep);
        assert_eq!(ahead.request(segment(2, 3), NOW), (Answer::Finished, vec![]));
    }

    #[test]
    fn an_absence_met_ahead_is_never_an_answer() {
        let mut ahead = Prefetch::new(SegmentSize::DEFAULT, LIMITS);
        ahead.request(segment(1, 1), NOW);
        ahead.begin(segment(1, 2));
        ahead.failed(segment(1, 2));
        assert_eq!(ahead.request(segment(1, 2), NOW).0, Answer::Begin);
    }

    #[test]
    fn wal_waits_if_the_one_after_the_next_is_ready() {
        assert_eq!(waiting_if_ready(segment(3, 254), SegmentSize::DEFAULT), Some(segment(3, 256)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Request(u32, u64),
        LookAhead,
        Succeed(usize),
        Fail(usize),
        Restart,
        /// Timeline 2 begins in this segment.
        Follow(u64),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (1u32..3, 0u64..12).prop_map(|(timeline, number)| Event::Request(timeline, number)),
            4 => Just(Event::LookAhead),
            3 => (0usize..8).prop_map(Event::Succeed),
            1 => (0usize..8).prop_map(Event::Fail),
            1 => Just(Event::Restart),
            1 => (1u64..12).prop_map(Event::Follow),
        ]
    }

    proptest! {
        #[test]
        fn push_ahead_never_acknowledges_what_was_not_confirmed_and_stays_bounded(
            events in prop::collection::vec(any_event(), 0..200)
        ) {
            let mut ahead = PushAhead::new(SegmentSize::DEFAULT, LIMITS);
            let (mut in_flight, mut confirmed) = (Vec::new(), BTreeSet::new());
            for event in events {
                match event {
                    Event::Request(timeline, number) => {
                        let name = segment(timeline, number);
                        match ahead.request(name).0 {
                            Answer::Finished => prop_assert!(confirmed.contains(&name)),
                            Answer::Wait => prop_assert!(in_flight.contains(&name)),
                            Answer::Begin => {
                                prop_assert!(!in_flight.contains(&name), "never twice at once");
                                in_flight.push(name);
                            }
                        }
                    }
                    Event::LookAhead => if let Some(name) = ahead.candidate() {
                        prop_assert!(!in_flight.contains(&name));
                        prop_assert!(in_flight.len() < LIMITS.in_flight_max);
                        ahead.begin(name);
                        in_flight.push(name);
                    },
                    Event::Succeed(index) if index < in_flight.len() => {
                        let name = in_flight.swap_remove(index);
                        confirmed.insert(name);
                        ahead.confirmed(name);
                    }
                    Event::Fail(index) if index < in_flight.len() => ahead.failed(in_flight.swap_remove(index)),
                    Event::Succeed(_) | Event::Fail(_) | Event::Follow(_) => {}
                    Event::Restart => {
                        ahead = PushAhead::new(SegmentSize::DEFAULT, LIMITS);
                        in_flight.clear();
                        confirmed.clear();
                    }
                }
                // Requests for files that nobody looked ahead to come on top: PostgreSQL's own.
                let requested = ahead.held().saturating_sub(in_flight.len());
                prop_assert!(requested <= LIMITS.held_max + 1, "{} are remembered", ahead.held());
            }
        }

        #[test]
        fn prefetch_never_serves_what_is_not_spooled_and_loses_no_file(
            events in prop::collection::vec(any_event(), 0..200)
        ) {
            let mut ahead = Prefetch::new(SegmentSize::DEFAULT, LIMITS);
            let (mut in_flight, mut spool) = (Vec::new(), BTreeSet::new());
            for event in events {
                match event {
                    Event::Request(timeline, number) => {
                        let name = segment(timeline, number);
                        let (answer, dropped) = ahead.request(name, NOW);
                        for name in dropped {
                            prop_assert!(spool.remove(&name));
                        }
                        match answer {
                            Answer::Finished => {
                                prop_assert!(spool.remove(&name));
                                ahead.taken(name);
                            }
                            Answer::Wait => prop_assert!(in_flight.contains(&name)),
                            Answer::Begin => in_flight.push(name),
                        }
                    }
                    Event::LookAhead => if let Some(name) = ahead.candidate() {
                        prop_assert!(!in_flight.contains(&name) && !spool.contains(&name));
                        prop_assert!(spool.len() < LIMITS.held_max);
                        ahead.begin(name);
                        in_flight.push(name);
                    },
                    Event::Succeed(index) if index < in_flight.len() => {
                        let name = in_flight.swap_remove(index);
                        if ahead.fetched(name, NOW) == Keep::Keep {
                            spool.insert(name);
                        }
                    }
                    Event::Fail(index) if index < in_flight.len() => ahead.failed(in_flight.swap_remove(index)),
                    Event::Succeed(_) | Event::Fail(_) => {}
                    Event::Follow(number) => {
                        let text = format!("1\t{}\tx\n", segment(2, number).start(SegmentSize::DEFAULT).unwrap());
                        let history = TimelineHistory::parse(TimelineId::new(2).unwrap(), text.as_bytes());
                        ahead.follow(&history.unwrap());
                    }
                    Event::Restart => {
                        ahead = Prefetch::new(SegmentSize::DEFAULT, LIMITS);
                        in_flight.clear();
                        spool.clear();
                    }
                }
                // Every file in the spool is known to the decider, or it would never be deleted.
                prop_assert_eq!(ahead.held(), spool.len() + in_flight.len());
            }
        }
    }
}
