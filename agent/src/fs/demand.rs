//! Whether somebody still waits for a file.
//!
//! Invariant: once a [`Demand`] is dropped, nothing is done on its behalf any more: what may
//! only be done while it lasts either was done before, whole, or never is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Held by whoever waits; dropping it says that nobody does.
#[derive(Debug)]
pub struct Demand {
    lasts: Arc<Mutex<bool>>,
}

/// The same, as seen by whoever does the work on another thread.
#[derive(Clone, Debug)]
pub struct Watch {
    lasts: Arc<Mutex<bool>>,
}

impl Demand {
    /// Somebody waits from now on.
    #[allow(clippy::new_without_default, reason = "a demand is made on purpose, never by default")]
    pub fn new() -> Self {
        Self { lasts: Arc::new(Mutex::new(true)) }
    }

    /// For the other thread.
    pub fn watch(&self) -> Watch {
        Watch { lasts: Arc::clone(&self.lasts) }
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        // Waits for an act under way: it is a rename and takes microseconds.
        *lock(&self.lasts) = false;
    }
}

impl Watch {
    /// Does `act` if the demand lasts, and keeps it from ending until `act` has. `act` must be
    /// short, because whoever gives up waits for it.
    pub fn while_it_lasts<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let lasts = lock(&self.lasts);
        lasts.then(act)
    }
}

fn lock(lasts: &Mutex<bool>) -> MutexGuard<'_, bool> {
    // A panic under the lock can't leave half a bool.
    lasts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_is_done_once_nobody_waits() {
        let demand = Demand::new();
        let watch = demand.watch();
        assert_eq!(watch.while_it_lasts(|| 1), Some(1));
        drop(demand);
        assert_eq!(watch.while_it_lasts(|| 1), None);
    }

    #[test]
    fn giving_up_waits_for_what_is_being_done() {
        let demand = Demand::new();
        let watch = demand.watch();
        let (begun, wait_begun) = std::sync::mpsc::channel();
        let (end, wait_end) = std::sync::mpsc::channel::<()>();
        let (dropped, wait_dropped) = std::sync::mpsc::channel();
        let work = std::thread::spawn(move || {
            watch.while_it_lasts(|| {
                begun.send(()).unwrap();
                wait_end.recv().unwrap();
            })
        });
        wait_begun.recv().unwrap();
        let giving_up = std::thread::spawn(move || {
            drop(demand);
            dropped.send(()).unwrap();
        });
        let early = wait_dropped.recv_timeout(Duration::from_millis(100));
        assert!(early.is_err(), "the act is not over");
        end.send(()).unwrap();
        wait_dropped.recv().unwrap();
        assert_eq!(work.join().unwrap(), Some(()));
        giving_up.join().unwrap();
    }
}
