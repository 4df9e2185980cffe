//! Test equipment: a repository that fails on demand.
//!
//! [`Store::with_faults`] puts it in front of any repository; which operation fails, and how, is
//! scripted by the test or drawn from a seed. Nothing here is reached in an agent that runs.

use super::backend::Store;
use super::error::Operation;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::collections::VecDeque;
use std::fmt;
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
    /// Something in between answers that there is no such page.
    NotFoundByProxy,
}

impl Fault {
    const fn fits(self, operation: Operation) -> bool {
        match self {
            Fault::CorruptRead => matches!(operation, Operation::Read),
            Fault::ExistsWithoutObject | Fault::Overwrite => matches!(operation, Operation::Create),
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

    fn next(&self, operation: Operation) -> Option<Fault> {
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

impl Store {
    /// The same repository behind a script of faults.
    pub fn with_faults(&self, faults: &Faults) -> Store {
        self.in_front(|objects| Arc::new(FaultyStore { objects, faults: faults.clone() }))
    }
}

/// An `ObjectStore` in front of another that carries out the script.
#[derive(Debug)]
struct FaultyStore {
    objects: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.objects)
    }
}

fn lost() -> Error {
    Error::Generic { store: "faulty", source: "injected: the connection was cut".into() }
}

/// What is done before the request, or instead of it.
async fn before(fault: Option<Fault>, location: &Path) -> Result<()> {
    let path = location.to_string();
    match fault {
        Some(Fault::Unreachable) => Err(lost()),
        Some(Fault::ExistsWithoutObject) => {
            Err(Error::AlreadyExists { path, source: "injected: 409 Conflict".into() })
        }
        Some(Fault::NotFoundByProxy) => {
            Err(Error::NotFound { path, source: "injected: 404 Not Found: <html>no such page</html>".into() })
        }
        Some(Fault::Slow(wait)) => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
        Some(Fault::AnswerLost | Fault::CorruptRead | Fault::Overwrite) | None => Ok(()),
    }
}

/// What becomes of the answer.
fn after<T>(fault: Option<Fault>, answer: Result<T>) -> Result<T> {
    if fault == Some(Fault::AnswerLost) { Err(lost()) } else { answer }
}

async fn with_a_wrong_bit(found: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
    let extensions = found.extensions.clone();
    let mut bytes = found.bytes().await?.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    let payload = GetResultPayload::Stream(stream::iter([Ok(Bytes::from(bytes))]).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.faults.next(Operation::Create);
        before(fault, location).await?;
        let overwrites = fault == Some(Fault::Overwrite);
        let opts = if overwrites { PutOptions { mode: PutMode::Overwrite, ..opts } } else { opts };
        after(fault, self.objects.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.faults.next(Operation::Upload);
        before(fault, location).await?;
        let upload = after(fault, self.objects.put_multipart_opts(location, opts).await)?;
        Ok(Box::new(FaultyUpload { upload, location: location.clone(), faults: self.faults.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.faults.next(if options.head { Operation::Stat } else { Operation::Read });
        before(fault, location).await?;
        let found = after(fault, self.objects.get_opts(location, options).await)?;
        if fault == Some(Fault::CorruptRead) { with_a_wrong_bit(found).await } else { Ok(found) }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fault = self.faults.next(Operation::Delete);
        match fault {
            Some(Fault::Unreachable) => stream::iter([Err(lost())]).boxed(),
            _ => self.objects.delete_stream(locations).map(move |answer| after(fault, answer)).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.faults.next(Operation::List);
        let listed = self.objects.list(prefix);
        let begun = async move { before(fault, &Path::default()).await };
        match fault {
            // The cut comes after the first object: the list must not pass for complete.
            Some(Fault::AnswerLost) => listed.take(1).chain(stream::iter([Err(lost())])).boxed(),
            Some(_) => stream::once(begun)
                .flat_map(move |begun| match begun {
                    Ok(()) => stream::empty().boxed(),
                    Err(error) => stream::iter([Err(error)]).boxed(),
                })
                .chain(if matches!(fault, Some(Fault::Slow(_))) { listed } else { stream::empty().boxed() })
                .boxed(),
            None => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// The upload that goes with [`FaultyStore`].
#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    faults: Faults,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.faults.next(Operation::Upload);
        let location = self.location.clone();
        let part = self.upload.put_part(data);
        async move {
            before(fault, &location).await?;
            after(fault, part.await)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.faults.next(Operation::Upload);
        before(fault, &self.location).await?;
        after(fault, self.upload.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
