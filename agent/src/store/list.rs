//! Listing a repository.
//!
//! Invariant: a list that ends without an error is complete: a disk that is not there, or goes
//! away while it is listed, is an error and not a shorter list.

use super::ListedObject;
use super::backend::{Inner, Store};
use super::error::{Operation, StoreError};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::{ObjectMeta, ObjectStore};
use std::sync::Arc;

impl Store {
    /// Lists the objects whose names, relative to the URL, begin with `prefix`, in no order that
    /// could be relied on. A prefix ending in `/` costs least. Ends after the first error.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<ListedObject, StoreError>> {
        let store = self.clone();
        let prefix = prefix.to_owned();
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let listed = async move {
            let started = store.inner.check_listed(&folder).await;
            let objects = Arc::clone(&store.inner.objects);
            let path = store.inner.path(&folder);
            let metas = objects.list((!path.is_root()).then_some(&path));
            let names = started.map(|()| store.listed(metas, prefix, folder));
            match names {
                Ok(names) => names,
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    fn listed(
        self,
        metas: BoxStream<'static, object_store::Result<ObjectMeta>>,
        prefix: String,
        folder: String,
    ) -> BoxStream<'static, Result<ListedObject, StoreError>> {
        stream::try_unfold((metas, Some(self)), move |(mut metas, store)| {
            let (prefix, folder) = (prefix.clone(), folder.clone());
            async move {
                let Some(store) = store else { return Ok(None) };
                let inner = Arc::clone(&store.inner);
                loop {
                    match inner.within_deadline(Operation::List, &folder, metas.next()).await? {
                        Some(Ok(meta)) => {
                            let Some(name) = inner.name_of(&meta).filter(|name| name.starts_with(&prefix))
                            else {
                                continue;
                            };
                            let object = ListedObject { name, stat: inner.stat_of(&meta)? };
                            return Ok(Some((object, (metas, Some(store)))));
                        }
                        Some(Err(error)) => return Err(inner.error(Operation::List, &folder, &error).await),
                        // A disk that went away in between would have shortened the list.
                        None => return inner.check_listed(&folder).await.map(|()| None),
                    }
                }
            }
        })
        .boxed()
    }
}

impl Inner {
    fn name_of(&self, meta: &ObjectMeta) -> Option<String> {
        let name = meta.location.as_ref();
        if self.prefix.is_empty() {
            return Some(name.to_owned());
        }
        name.strip_prefix(&self.prefix)?.strip_prefix('/').map(str::to_owned)
    }

    async fn check_listed(&self, folder: &str) -> Result<(), StoreError> {
        self.on_directory(Operation::List, folder, |directory, path| directory.check_listed(&path)).await
    }
}
