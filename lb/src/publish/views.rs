//! What the proxies of a node see, for those who show it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_state::model::{ServiceKey, Slot};
use tokio::sync::Notify;

use super::plan::{Place, Refusal};
use crate::proxy::{Pool, PortKey, PortView};

/// What the proxies of a node see. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Views(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pools: Mutex<BTreeMap<PortKey, Arc<Pool>>>,
    listeners: Mutex<Arc<Listeners>>,
    bell: Arc<Notify>,
}

/// Where this node answers, and where it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// All there should be, ordered by place.
    pub all: Vec<ListenerView>,
    /// Published ports that get none.
    pub refused: Vec<Refusal>,
}

/// A place where this node should answer for a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerView {
    /// Where.
    pub place: Place,
    /// Whose.
    pub port: PortKey,
    /// Whether it is a virtual address, and not a published port.
    pub virtual_address: bool,
    /// The one replica that it leads to; any when absent.
    pub only: Option<Slot>,
    /// Why it does not answer there.
    pub failure: Option<String>,
}

impl Views {
    /// All ports of all services, or of one.
    pub fn ports(&self, service: Option<&ServiceKey>) -> Vec<PortView> {
        let pools = self.pools();
        let wanted = pools
            .iter()
            .filter(|(key, _)| service.is_none_or(|s| *s == key.service));
        wanted.map(|(_, pool)| pool.view()).collect()
    }

    /// Rings when a connection begins to wait for the first replica of a service that has none
    /// unless somebody connects ([`PortView::waits`]).
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.0.bell)
    }

    /// The listeners of all services.
    pub fn listeners(&self) -> Arc<Listeners> {
        let listeners = self.0.listeners.lock();
        Arc::clone(&listeners.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_listeners(&self, all: Vec<ListenerView>, refused: Vec<Refusal>) {
        let listeners = self.0.listeners.lock();
        let mut listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        *listeners = Arc::new(Listeners { all, refused });
    }

    /// Nothing panics while it holds this lock.
    pub(super) fn pools(&self) -> MutexGuard<'_, BTreeMap<PortKey, Arc<Pool>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
