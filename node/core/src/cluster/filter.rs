//! A quick no for services that this node does not watch.
//!
//! Every claim of every changed register is looked up among the watched services, and in a large
//! cluster all but one in a hundred are not there. Finding that out by comparing names costs ten
//! times as much as looking at one bit.

use dunlin_state::model::ServiceKey;

/// 4,096 bits: with a hundred watched services one lookup in forty is in vain.
const WORDS: usize = 64;

/// A set of services that may answer yes wrongly, and never no.
#[derive(Debug)]
pub(super) struct Filter([u64; WORDS]);

impl Default for Filter {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Filter {
    pub(super) fn of<'a>(services: impl Iterator<Item = &'a ServiceKey>) -> Self {
        let mut filter = Self::default();
        for service in services {
            filter.add(service);
        }
        filter
    }

    pub(super) fn add(&mut self, service: &ServiceKey) {
        let (word, bit) = place(service);
        self.0[word] |= bit;
    }

    pub(super) fn may_contain(&self, service: &ServiceKey) -> bool {
        let (word, bit) = place(service);
        self.0[word] & bit != 0
    }
}

fn place(service: &ServiceKey) -> (usize, u64) {
    let hash = service.quick_hash();
    (hash as usize / 64 % WORDS, 1 << (hash % 64))
}
