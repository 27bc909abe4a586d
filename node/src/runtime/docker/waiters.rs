//! Who waits for which container's end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::oneshot;

use super::super::Ending;

/// One waiter per container that runs, and the names of those that are being made.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the engine's id of the container.
    waiting: BTreeMap<String, oneshot::Sender<Ending>>,
    starting: BTreeSet<String>,
    /// Whether what ran from an earlier life has been taken over.
    adopted: bool,
}

impl Waiters {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; its content is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a container. A second waiter takes the place of the first.
    pub(super) fn wait(&self, container: &str) -> BoxFuture<'static, Ending> {
        let (sender, receiver) = oneshot::channel();
        self.state().waiting.insert(container.to_owned(), sender);
        async move { receiver.await.unwrap_or(Ending::Lost) }.boxed()
    }

    /// Tells how a container ended; nothing if nobody waits.
    pub(super) fn settle(&self, container: &str, ending: Ending) {
        let waiter = self.state().waiting.remove(container);
        if let Some(waiter) = waiter {
            // Its task may be gone.
            let _ = waiter.send(ending);
        }
    }

    /// Whether somebody waits for it.
    pub(super) fn has(&self, container: &str) -> bool {
        self.state().waiting.contains_key(container)
    }

    /// The containers that are waited for.
    pub(super) fn all(&self) -> Vec<String> {
        self.state().waiting.keys().cloned().collect()
    }

    /// Marks a name as being started, until the returned value is dropped: such a container is
    /// nobody's orphan though nobody waits for it yet.
    pub(super) fn starting(&self, name: &str) -> Starting<'_> {
        self.state().starting.insert(name.to_owned());
        Starting {
            waiters: self,
            name: name.to_owned(),
        }
    }

    /// From now on, a running container that nobody waits for is an orphan.
    pub(super) fn set_adopted(&self) {
        self.state().adopted = true;
    }

    /// Whether this running container is one that nobody knows of.
    pub(super) fn is_orphan(&self, container: &str, name: &str) -> bool {
        let state = self.state();
        state.adopted && !state.waiting.contains_key(container) && !state.starting.contains(name)
    }
}

/// See [`Waiters::starting`].
#[derive(Debug)]
pub(super) struct Starting<'a> {
    waiters: &'a Waiters,
    name: String,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.waiters.state().starting.remove(&self.name);
    }
}
