//! Which operation fails, and how.

use super::super::error::Operation;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One way to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The request never arrives.
    Unreachable,
    /// The request is carried out, and its answer is lost.
    AnswerLost,
    /// The request is carried out after a wait.
    Slow(Duration),
    /// One bit of what was read is wrong. Fits reading only.
    CorruptRead,
    /// "Already exists" is answered, and nothing is stored. Fits creating only.
    ExistsWithoutObject,
    /// What is there is replaced, although the request says "only if absent". Fits creating only.
    Overwrite,
    /// The object went away after it was listed. Fits reading only, from a repository in memory.
    Vanished,
    /// Something in between answers that there is no such page.
    NotFoundByProxy,
    /// The object is stored without the lock that was asked for. Fits creating and uploading only.
    LockDropped,
}

impl Fault {
    const fn fits(self, operation: Operation) -> bool {
        match self {
            Fault::CorruptRead | Fault::Vanished => matches!(operation, Operation::Read),
            Fault::ExistsWithoutObject | Fault::Overwrite => matches!(operation, Operation::Create),
            Fault::LockDropped => matches!(operation, Operation::Create | Operation::Upload),
            _ => true,
        }
    }
}

/// The script of a faulty repository; clones share it.
#[derive(Clone, Default, Debug)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Default, Debug)]
struct Script {
    once: VecDeque<(Operation, Fault)>,
    always: Vec<(Operation, Fault)>,
    random: Option<Random>,
    injected: u64,
}

#[derive(Debug)]
struct Random {
    state: u64,
    per_thousand: u64,
    faults: Vec<Fault>,
}

impl Faults {
    /// No faults until some are asked for.
    pub fn none() -> Self {
        Self::default()
    }

    /// In `per_thousand` of 1000 operations one of `faults`, the same for the same seed and the
    /// same order of operations. Print the seed where a test fails.
    pub fn seeded(seed: u64, per_thousand: u64, faults: &[Fault]) -> Self {
        let random = Random { state: seed, per_thousand, faults: faults.to_vec() };
        Self(Arc::new(Mutex::new(Script { random: Some(random), ..Script::default() })))
    }

    /// The next such operation fails so; several queue up.
    pub fn once(&self, operation: Operation, fault: Fault) {
        self.script().once.push_back((operation, fault));
    }

    /// Every such operation fails so, until [`Faults::clear`].
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.script().always.push((operation, fault));
    }

    /// Every operation fails as if the network were cut, until [`Faults::clear`].
    pub fn cut(&self) {
        for operation in [
            Operation::Create,
            Operation::Read,
            Operation::Stat,
            Operation::List,
            Operation::Upload,
            Operation::Delete,
            Operation::Lock,
        ] {
            self.always(operation, Fault::Unreachable);
        }
    }

    /// No more faults, random ones included.
    pub fn clear(&self) {
        let mut script = self.script();
        *script = Script { injected: script.injected, ..Script::default() };
    }

    /// How many operations failed on purpose: a test whose faults were never reached proves
    /// nothing.
    pub fn injected(&self) -> u64 {
        self.script().injected
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next(&self, operation: Operation) -> Option<Fault> {
        let mut script = self.script();
        let fits = |(wanted, fault): &(Operation, Fault)| *wanted == operation && fault.fits(operation);
        let scripted = match script.once.iter().position(fits) {
            Some(place) => script.once.remove(place),
            None => script.always.iter().copied().find(fits),
        };
        let fault = match scripted {
            Some((_, fault)) => Some(fault),
            None => script.random.as_mut().and_then(|random| random.draw(operation)),
        };
        script.injected += u64::from(fault.is_some());
        fault
    }
}

impl Random {
    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        if self.number() % 1000 >= self.per_thousand {
            return None;
        }
        let fitting: Vec<Fault> = self.faults.iter().copied().filter(|f| f.fits(operation)).collect();
        let count = u64::try_from(fitting.len()).ok().filter(|count| *count > 0)?;
        fitting.get(usize::try_from(self.number() % count).ok()?).copied()
    }

    /// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
