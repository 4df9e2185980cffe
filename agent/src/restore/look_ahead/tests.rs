//! Requests, the look-ahead and the spool, on a repository in memory.

use super::*;
use crate::fs::place::Existing;
use crate::restore::tests::{
    SYSTEM, data_dir, names, options, repository_with, request, restore, segment, segments,
};
use crate::store::Operation;
use crate::store::fault::{Fault, Faults};
use std::fs;
use std::sync::mpsc;
use tempfile::TempDir;
use wald_core::outcome::RestoreFinding;

/// Long enough for a busy machine, and the end of a test that would wait for ever.
const DEADLINE: Duration = Duration::from_secs(30);

/// A data directory, a repository with segments 1 to 6, and what serves one from the other.
struct Place {
    restorer: Restorer,
    tasks: TaskTracker,
    stop: CancellationToken,
    data_dir: PathBuf,
    dir: TempDir,
}

impl Place {
    async fn new(faults: &Faults) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = repository_with(faults, &segments(6)).await;
        let spool = Spool::take(&options(dir.path()).spool_dir).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let restore = restore(repository, dir.path());
        let restorer = Restorer::new(restore, spool, tasks.clone(), stop.clone());
        let data_dir = data_dir(dir.path(), SYSTEM).canonicalize().unwrap();
        Self { restorer, tasks, stop, data_dir, dir }
    }

    fn request(&self, number: u8) -> Resolved {
        request(&self.data_dir, segment(number), "RECOVERYXLOG")
    }

    /// Asks and checks what was placed.
    async fn serve(&self, number: u8) {
        let request = self.request(number);
        tokio::time::timeout(DEADLINE, self.restorer.restore(&request)).await.unwrap().unwrap();
        assert_eq!(fs::read(&request.destination).unwrap()[..4], [number; 4]);
        fs::remove_file(&request.destination).unwrap();
    }

    fn spooled(&self) -> Vec<String> {
        names(&self.dir.path().join("spool")).into_iter().filter(|name| name != "lock").collect()
    }

    fn placed(&self) -> Vec<String> {
        names(&self.data_dir.join("pg_wal"))
    }

    fn held(&self) -> usize {
        self.restorer.lock().values().map(|window| window.ahead.held()).sum()
    }

    /// Until every task that looks ahead has ended.
    async fn quiet(&self) {
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.unwrap();
    }

    /// Keeps every thread of the codec busy until the value is dropped.
    async fn block_codec(&self) -> Vec<mpsc::Sender<()>> {
        let mut held = Vec::new();
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let (hold, wait) = mpsc::channel::<()>();
            let (running, runs) = tokio::sync::oneshot::channel();
            let codec = self.restorer.restore.codec.clone();
            tokio::spawn(async move {
                let _ = codec
                    .run(move || {
                        running.send(()).unwrap();
                        let _ = wait.recv();
                    })
                    .await;
            });
            runs.await.unwrap();
            held.push(hold);
        }
        held
    }

    /// Until every job that was queued before is over. On a runtime of [`with_one_aside`].
    async fn idle(&self) {
        drop(self.block_codec().await);
        aside(|| ()).await.unwrap();
    }
}

/// Runs a test where small jobs with files wait for each other.
fn with_one_aside(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(test);
}

/// Keeps the one thread for small jobs busy until the value is dropped.
async fn block_aside() -> mpsc::Sender<()> {
    let (hold, wait) = mpsc::channel::<()>();
    let (running, runs) = tokio::sync::oneshot::channel();
    tokio::spawn(aside(move || {
        running.send(()).unwrap();
        let _ = wait.recv();
    }));
    runs.await.unwrap();
    hold
}

fn name(number: u8) -> SegmentName {
    match segment(number) {
        WalFile::Segment(name) => name,
        other => panic!("{other}"),
    }
}

/// Polls a future until it can't go on by itself for a while.
async fn advance<F: Future + Unpin>(future: &mut F) {
    let ended = tokio::time::timeout(Duration::from_millis(200), future).await;
    assert!(ended.is_err(), "it was not held up");
}

#[tokio::test]
async fn segments_are_served_in_order_and_the_spool_empties() {
    let place = Place::new(&Faults::none()).await;
    for number in 1..=6 {
        place.serve(number).await;
    }
    place.quiet().await;
    assert_eq!((place.held(), place.spooled()), (0, vec![]));
}

#[tokio::test]
async fn another_cluster_is_refused_although_the_agent_serves_this_one() {
    let place = Place::new(&Faults::none()).await;
    let foreign = data_dir(&place.dir.path().join("b"), 4711);
    let request = request(&foreign, segment(9), "RECOVERYXLOG");
    let error = place.restorer.restore(&request).await.unwrap_err();
    assert_eq!(error.finding(), RestoreFinding::Failed);
    let said = chain(&error);
    assert!(said.contains("4711") && said.contains(&SYSTEM.to_string()), "{said}");
    assert_eq!(place.held(), 0, "nothing is fetched ahead for it either");
}

#[tokio::test]
async fn a_segment_under_its_own_name_is_not_replaced() {
    let place = Place::new(&Faults::none()).await;
    let by_name = request(&place.data_dir, segment(1), &segment(1).to_string());
    assert_eq!(by_name.existing, Existing::Kept);
    fs::write(&by_name.destination, "being written").unwrap();
    let error = place.restorer.restore(&by_name).await.unwrap_err();
    assert_eq!(error.finding(), RestoreFinding::Failed);
    assert_eq!(fs::read(&by_name.destination).unwrap(), b"being written");
    place.quiet().await;
    assert!(place.spooled().iter().all(|file| !file.starts_with(&segment(1).to_string())));
}

#[test]
fn a_request_that_is_given_up_places_nothing_afterwards() {
    with_one_aside(async {
        let place = Place::new(&Faults::none()).await;
        let proven = place.restorer.bring(segment(1)).await.unwrap();
        assert_eq!(place.spooled().len(), 1);
        let request = place.request(1);
        let held = block_aside().await;
        let mut placing = Box::pin(place.restorer.place(proven, &request));
        advance(&mut placing).await;
        drop(placing);
        drop(held);
        place.idle().await;
        assert_eq!((place.placed(), place.spooled()), (vec![], vec![]));
    });
}

/// The thread that places is not behind those that decompress.
#[tokio::test]
async fn what_is_in_the_spool_is_placed_while_everything_else_is_decompressed() {
    let place = Place::new(&Faults::none()).await;
    let proven = place.restorer.bring(segment(1)).await.unwrap();
    let request = place.request(1);
    let _held = place.block_codec().await;
    let placing = async {
        place.restorer.restore.check_cluster(&request).await.unwrap();
        place.restorer.place(proven, &request).await.unwrap();
    };
    tokio::time::timeout(DEADLINE, placing).await.expect("it waits behind what is decompressed");
}

#[test]
fn a_request_that_is_given_up_anywhere_leaves_no_file_and_no_count() {
    with_one_aside(async {
        for patience in (0..40).map(Duration::from_millis) {
            let place = Place::new(&Faults::none()).await;
            let request = place.request(6);
            let given_up = tokio::time::timeout(patience, place.restorer.restore(&request)).await.is_err();
            let then = place.placed();
            place.quiet().await;
            place.idle().await;
            assert_eq!((place.spooled(), place.held()), (vec![], 0), "{patience:?}");
            assert!(!given_up || place.placed() == then, "placed after {patience:?}");
        }
    });
}

#[tokio::test]
async fn a_file_that_nobody_waits_for_any_more_leaves_the_spool() {
    let place = Place::new(&Faults::none()).await;
    let (begun, begins) = mpsc::channel();
    let path = place.restorer.spool.fresh_path("x");
    let held = place.block_codec().await;
    let mut bringing = Box::pin(place.restorer.restore.bring(segment(1), move || {
        begun.send(()).unwrap();
        Draft::create(&path)
    }));
    advance(&mut bringing).await;
    drop(bringing);
    drop(held);
    place.idle().await;
    begins.try_recv().expect("the job was queued and ran");
    assert_eq!(place.spooled(), [""; 0]);
}

#[tokio::test]
async fn requests_for_one_destination_never_interleave() {
    let faults = Faults::none();
    let place = Place::new(&faults).await;
    // The first to come is the slow one; the answer to the second stands in the end.
    faults.once(Operation::Read, Fault::Slow(Duration::from_millis(300)));
    let (first, second) = (place.request(1), place.request(5));
    let mut slow = Box::pin(place.restorer.restore(&first));
    advance(&mut slow).await;
    let (slow, quick) = tokio::join!(slow, place.restorer.restore(&second));
    slow.and(quick).unwrap();
    assert_eq!(fs::read(&second.destination).unwrap()[..4], [5; 4]);
}

#[tokio::test]
async fn a_fetch_ahead_that_panics_is_made_again_by_the_request() {
    let place = Place::new(&Faults::none()).await;
    place.serve(1).await;
    place.quiet().await;
    place.tasks.reopen();
    let data_dir = place.data_dir.clone();
    {
        let mut windows = place.restorer.lock();
        let window = windows.get_mut(&data_dir).unwrap();
        let (_, dropped) = window.ahead.request(name(4), Duration::ZERO);
        dropped.into_iter().for_each(|name| drop(window.spooled.remove(&name)));
        window.ahead.taken(name(4));
        window.spooled.remove(&name(5));
        window.ahead.taken(name(5));
        place.restorer.begin(window, name(5), &data_dir, async { panic!("on purpose") });
    }
    place.quiet().await;
    assert!(
        !place.restorer.lock()[&data_dir].fetching.contains_key(&name(5)),
        "a request would wait for ever"
    );
    place.tasks.reopen();
    place.serve(5).await;
}

#[tokio::test]
async fn a_fetch_ahead_that_never_began_is_not_waited_for_again() {
    let place = Place::new(&Faults::none()).await;
    place.stop.cancel();
    place.serve(1).await;
    {
        // What a runtime that is shutting down leaves of a task.
        let mut windows = place.restorer.lock();
        let window = windows.get_mut(&place.data_dir).unwrap();
        window.ahead.begin(name(2));
        window.fetching.insert(name(2), std::future::ready(false).boxed().shared());
    }
    place.serve(2).await;
}

#[tokio::test]
async fn nothing_is_fetched_ahead_once_the_agent_is_stopping() {
    let place = Place::new(&Faults::none()).await;
    place.stop.cancel();
    place.serve(1).await;
    assert!(place.tasks.is_empty());
    assert_eq!(place.held(), 0);
}
