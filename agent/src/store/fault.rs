//! Test equipment: a repository that fails on demand.
//!
//! [`Store::with_faults`] puts it in front of any repository; which operation fails, and how, is
//! scripted by the test or drawn from a seed. Nothing here is reached in an agent that runs.

mod script;

pub use script::{Fault, Faults};

use super::backend::Store;
use super::error::Operation;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;
use std::sync::Arc;

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
        Some(Fault::Vanished) => {
            let source = "injected: No data in memory found. Location".into();
            Err(Error::NotFound { path, source })
        }
        Some(Fault::NotFoundByProxy) => {
            Err(Error::NotFound { path, source: "injected: 404 Not Found: <html>no such page</html>".into() })
        }
        Some(Fault::Slow(wait)) => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
        Some(Fault::AnswerLost | Fault::CorruptRead | Fault::Overwrite | Fault::LockDropped) | None => Ok(()),
    }
}

/// What becomes of the lock, which is an extension of the request.
fn kept(fault: Option<Fault>, extensions: Extensions) -> Extensions {
    if fault == Some(Fault::LockDropped) { Extensions::new() } else { extensions }
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
        let extensions = kept(fault, opts.extensions);
        let opts = PutOptions { extensions, ..opts };
        after(fault, self.objects.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.faults.next(Operation::Upload);
        before(fault, location).await?;
        let opts = PutMultipartOptions { extensions: kept(fault, opts.extensions), ..opts };
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
