//! One request at a time for one destination.
//!
//! Invariant: two requests for the same destination are served whole, one after the other, in
//! the order in which they came; so what stands there after an answer is what was asked for,
//! and not what an older request, whose PostgreSQL is gone, finished later.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

type Queue = tokio::sync::Mutex<()>;

/// The destinations that somebody asks for.
#[derive(Clone, Default)]
pub(super) struct Turns {
    queues: Arc<Mutex<HashMap<PathBuf, Weak<Queue>>>>,
}

/// While this lives, nobody else is served for the destination.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits until every earlier request for `destination` is over.
    pub(super) async fn take(&self, destination: &Path) -> Turn {
        let queue = self.queue(destination);
        Turn { _guard: queue.lock_owned().await }
    }

    fn queue(&self, destination: &Path) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(destination).and_then(Weak::upgrade) {
            return queue;
        }
        // Few are in use at a time, and what is not in use is not kept.
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Queue::default());
        queues.insert(destination.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn requests_for_one_destination_take_turns_and_leave_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take(Path::new("/a")).await;
        let mut second = Box::pin(turns.take(Path::new("/a")));
        assert!((&mut second).now_or_never().is_none(), "it is the first one's turn");
        let other = turns.take(Path::new("/b")).now_or_never();
        assert!(other.is_some(), "another destination is no concern of theirs");
        drop((first, other));
        drop(second.await);
        turns.take(Path::new("/c")).await;
        assert_eq!(turns.queues.lock().unwrap().len(), 1);
    }
}
