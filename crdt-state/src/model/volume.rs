//! Volumes: what keeps data beyond the replicas that write it, and who has it.
//!
//! The data of a volume is on the disk of a node and stays there. Which nodes have some is an
//! observed fact, which each of them tells in its register; where it has to be read next follows
//! from these facts alone ([`HeldVolume::precedence`]), the same on every node.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{NodeId, RunId, ServiceKey, Slot, SlotId, check_label};

/// Volumes of which a node may hold data: the more there are, the longer its register, which every
/// node keeps.
pub const MAX_VOLUMES: usize = 512;

/// Bytes of a volume's name.
pub const MAX_VOLUME_NAME: usize = 128;

/// Who shares the data of a named volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VolumeScope {
    /// All replicas that name it, which therefore run on one node.
    #[default]
    Node,
    /// Nobody: each slot of each service has its own.
    Replica,
}

/// A named volume, or a directory of the host, in a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeMount {
    /// The volume's name, or for a bind mount the absolute host path.
    pub source: String,
    /// Where it appears.
    pub target: String,
    /// Whether the replica may only read it.
    pub read_only: bool,
    /// Who shares its data. Without meaning for a bind mount.
    #[serde(skip_serializing_if = "is_node_scope")]
    pub scope: VolumeScope,
    /// Whether a replica may start with an empty one where another node has the data.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
}

/// What is absent from a specification must not change its hash, which is its revision.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference.
fn is_node_scope(scope: &VolumeScope) -> bool {
    *scope == VolumeScope::Node
}

impl VolumeMount {
    /// Whether it is a directory of the host, which is nobody's to keep.
    pub fn is_bind(&self) -> bool {
        self.source.starts_with('/')
    }

    /// The volume that this slot gets; `None` for a bind mount, and where the name is none.
    pub fn volume(&self, slot: &SlotId) -> Option<VolumeId> {
        if self.is_bind() {
            return None;
        }
        let service = &slot.service;
        let own = match (self.scope, slot.slot) {
            (VolumeScope::Replica, Slot::Replica(index)) => {
                // Every run of a job goes on with what the one before has left.
                let job = RunId::of_service(service).map(|(job, _)| job);
                let name = job.as_ref().unwrap_or(service).name().to_owned();
                Some((name, index))
            }
            // A node has one replica of a daemon service.
            (VolumeScope::Replica, Slot::Node(_)) | (VolumeScope::Node, _) => None,
        };
        VolumeId::new(service.namespace(), &self.source, own).ok()
    }

    /// The same if the slot has to run where its data is. Daemon services run on every node, each
    /// with its own data.
    pub fn pinning(&self, slot: &SlotId) -> Option<VolumeId> {
        match slot.slot {
            Slot::Replica(_) if !self.allow_empty => self.volume(slot),
            Slot::Replica(_) | Slot::Node(_) => None,
        }
    }
}

/// Names the data of a volume: `[namespace/]name`, and of one that a replica has for itself
/// `[namespace/]name@service.slot`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId {
    namespace: String,
    name: String,
    replica: Option<(String, u32)>,
}

/// A text that names no volume.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not the name of a volume: use up to 128 letters, digits, '_', '-' and '.', as in \
     [namespace/]name, and name@service.slot for one that a replica has for itself"
)]
pub struct BadVolumeName(pub String);

impl VolumeId {
    /// Checks the parts; `replica` is whose own it is.
    ///
    /// # Errors
    /// When one of them is no name.
    pub fn new(
        namespace: &str,
        name: &str,
        replica: Option<(String, u32)>,
    ) -> Result<Self, BadVolumeName> {
        let service = replica.as_ref().map(|(service, _)| service);
        let labels = check_label("namespace", namespace).is_ok()
            && service.is_none_or(|service| check_label("service", service).is_ok());
        if !labels || !is_volume_name(name) {
            let text: String = format!("{namespace}/{name}").chars().take(80).collect();
            return Err(BadVolumeName(text));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            replica,
        })
    }

    /// Whose it is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// As specifications name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Service and slot that have it for themselves.
    pub fn replica(&self) -> Option<(&str, u32)> {
        let (service, slot) = self.replica.as_ref()?;
        Some((service, *slot))
    }

    /// The name with its slot, without the namespace: unique within that, and fit for a file.
    pub fn local_name(&self) -> String {
        match &self.replica {
            Some((service, slot)) => format!("{}@{service}.{slot}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether replicas of the service with this specification get it.
    pub fn is_used_by(&self, service: &ServiceKey, mounts: &[VolumeMount]) -> bool {
        let owner = self.replica().map(|(owner, _)| owner);
        let mut mounts = mounts.iter();
        service.namespace() == self.namespace
            && owner.is_none_or(|owner| owner == service.name())
            && mounts.any(|mount| {
                let own = mount.scope == VolumeScope::Replica;
                mount.source == self.name && (own || owner.is_none())
            })
    }
}

/// Whether a text can be the name of a volume, as Docker has it.
pub fn is_volume_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    let bytes = name.as_bytes();
    bytes.len() <= MAX_VOLUME_NAME
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| inner(*c))
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.local_name())
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VolumeId {
    type Err = BadVolumeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadVolumeName(text.chars().take(80).collect());
        let (namespace, rest) = text
            .split_once('/')
            .unwrap_or((ServiceKey::DEFAULT_NAMESPACE, text));
        let (name, replica) = match rest.split_once('@') {
            None => (rest, None),
            Some((name, slot)) => {
                let (service, index) = slot.rsplit_once('.').ok_or_else(bad)?;
                let number: u32 = index.parse().map_err(|_not_a_number| bad())?;
                // One volume has one name: neither `01` nor `+1`.
                if number.to_string() != index {
                    return Err(bad());
                }
                (name, Some((service.to_owned(), number)))
            }
        };
        Self::new(namespace, name, replica)
    }
}

impl TryFrom<String> for VolumeId {
    type Error = BadVolumeName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VolumeId> for String {
    fn from(volume: VolumeId) -> Self {
        volume.to_string()
    }
}

/// A node's word that it has the data of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldVolume {
    /// Which.
    pub volume: VolumeId,
    /// Counts how often a person, or an `allow_empty`, has begun anew although there was data.
    pub generation: u64,
    /// Whether a replica may have written to it; before that it is only reserved.
    pub used: bool,
    /// When the data came here, in milliseconds since the Unix epoch by the node's clock.
    pub since: u64,
}

impl HeldVolume {
    /// The one total order among the copies of a volume: the greatest is the one that is used. The
    /// later generation goes first, then what was written to, then the older; then the smaller
    /// node id.
    pub fn precedence(&self, node: NodeId) -> impl Ord + use<> {
        (
            self.generation,
            self.used,
            Reverse(self.since),
            Reverse(node),
        )
    }

    /// Compares two copies by [`Self::precedence`].
    pub fn compare(a: (NodeId, &Self), b: (NodeId, &Self)) -> Ordering {
        a.1.precedence(a.0).cmp(&b.1.precedence(b.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(service: &str, slot: u32) -> SlotId {
        SlotId {
            service: service.parse().unwrap(),
            slot: Slot::Replica(slot),
        }
    }

    #[test]
    fn a_volume_has_one_name() {
        for text in ["shop/data", "shop/data@db.0", "default/a_b.c-d"] {
            assert_eq!(text.parse::<VolumeId>().unwrap().to_string(), text);
        }
        assert_eq!(
            "data".parse::<VolumeId>().unwrap().to_string(),
            "default/data"
        );
        for bad in [
            "",
            "/",
            "a/",
            "a/../b",
            "a/.hidden",
            "data@",
            "data@db",
            "data@db.01",
            "data@db.+1",
            "data@db.x",
            "data@DB.1",
            "Shop/data",
            "a b",
            "data@db.4294967296",
            "a/b/c",
        ] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
        let long = "x".repeat(MAX_VOLUME_NAME + 1);
        assert!(long.parse::<VolumeId>().is_err());
    }

    #[test]
    fn the_scope_decides_who_shares_it() {
        let mut mount = VolumeMount {
            source: "data".to_owned(),
            ..VolumeMount::default()
        };
        let name = |mount: &VolumeMount, slot: &SlotId| mount.volume(slot).unwrap().to_string();
        assert_eq!(name(&mount, &slot("shop/db", 1)), "shop/data");
        mount.scope = VolumeScope::Replica;
        assert_eq!(name(&mount, &slot("shop/db", 1)), "shop/data@db.1");
        let run = RunId::Asked(7).service(&"shop/db".parse().unwrap());
        let run = SlotId {
            service: run.unwrap(),
            slot: Slot::Replica(1),
        };
        assert_eq!(name(&mount, &run), "shop/data@db.1");
        let daemon = SlotId {
            slot: Slot::Node(NodeId::from_bytes([1; 32])),
            ..slot("shop/db", 0)
        };
        assert_eq!(name(&mount, &daemon), "shop/data");
        assert_eq!(mount.pinning(&daemon), None);
        mount.allow_empty = true;
        assert_eq!(mount.pinning(&slot("shop/db", 1)), None);
        mount.source = "/srv".to_owned();
        assert_eq!(mount.volume(&slot("shop/db", 1)), None);
    }

    #[test]
    fn the_later_generation_goes_first_then_what_was_written_to() {
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let copy = |generation, used, since| HeldVolume {
            volume: "data".parse().unwrap(),
            generation,
            used,
            since,
        };
        let beats = |x: HeldVolume, y: HeldVolume| {
            assert_eq!(HeldVolume::compare((a, &x), (b, &y)), Ordering::Greater);
            assert_eq!(HeldVolume::compare((b, &y), (a, &x)), Ordering::Less);
        };
        beats(copy(2, false, 9), copy(1, true, 1));
        beats(copy(1, true, 9), copy(1, false, 1));
        beats(copy(1, true, 1), copy(1, true, 2));
        beats(copy(1, true, 1), copy(1, true, 1));
    }
}
