//! A quick no for services that this node does not watch.
//!
//! Every claim of every changed register is looked up among the watched services, and in a large
//! cluster all but one in a hundred are not there. Finding that out by comparing names costs ten
//! times as much as one hash (Fowler, Noll, Vo: FNV-1a) and one bit.

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

/// The namespace is left out: most services share it.
fn place(service: &ServiceKey) -> (usize, u64) {
    let hash = service.name().bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let hash = hash ^ (hash >> 16);
    (hash as usize / 64 % WORDS, 1 << (hash % 64))
}
