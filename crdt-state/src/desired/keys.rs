//! The keys of the flat map.
//!
//! | key | value |
//! |---|---|
//! | `svc/<namespace>/<name>/<aspect>` | the newest register of one aspect of a service |
//! | `rev/<namespace>/<name>/<aspect>/<counter>-<actor>` | an older or newer version of it, never changed |
//! | `vip/<namespace>/<name>` | the number of its virtual address |
//! | `node/<id>/<aspect>` | the newest register of what people said about a node |
//! | `meta/format` | written by genesis and by compaction, so that no document is empty |
//!
//! Every other key (`job/…`, `config/…`, `secret/…`, `trust/…`, or something that a newer version
//! invents) is kept and carried along untouched.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::register::{Actor, Stamp};
use crate::model::{NodeId, ServiceKey};

/// The longest key in bytes. The longest of our own, a revision, has fewer than 200.
pub(super) const MAX_KEY_BYTES: usize = 512;

/// The key that every document has.
pub(super) const FORMAT_KEY: &str = "meta/format";

/// An independently editable part of a service: concurrent edits of different aspects both win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// The specification without its image. A service exists while this one is live.
    Spec,
    /// The image.
    Image,
    /// The number of replicas.
    Scale,
    /// Whether it runs.
    Run,
    /// How its rollout fares: what it replaces, and whether it is held.
    Rollout,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Spec,
        Self::Image,
        Self::Scale,
        Self::Run,
        Self::Rollout,
    ];

    /// As written in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Image => "image",
            Self::Scale => "scale",
            Self::Run => "run",
            Self::Rollout => "rollout",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An independently editable part of what people said about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum NodeAspect {
    /// Active, cordoned or drained.
    Availability,
    /// The labels that the cluster gives it.
    Labels,
}

/// A key that this version understands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The newest register of an aspect of a service.
    Service(ServiceKey, Aspect),
    /// One version of it.
    Revision(ServiceKey, Aspect, Stamp),
    /// The virtual address of a service. People do not edit it, so it has no history.
    Vip(ServiceKey),
    /// What people said about a node.
    Node(NodeId, NodeAspect),
}

impl Key {
    /// Reads a key; `None` for one that this version does not understand.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let key = match parts.next()? {
            "svc" => {
                let service = ServiceKey::new(parts.next()?, parts.next()?).ok()?;
                Self::Service(service, Aspect::parse(parts.next()?)?)
            }
            "rev" => {
                let service = ServiceKey::new(parts.next()?, parts.next()?).ok()?;
                let aspect = Aspect::parse(parts.next()?)?;
                Self::Revision(service, aspect, parse_stamp(parts.next()?)?)
            }
            "vip" => Self::Vip(ServiceKey::new(parts.next()?, parts.next()?).ok()?),
            "node" => {
                let node = parts.next()?.parse().ok()?;
                match parts.next()? {
                    "availability" => Self::Node(node, NodeAspect::Availability),
                    "labels" => Self::Node(node, NodeAspect::Labels),
                    _ => return None,
                }
            }
            _ => return None,
        };
        // Only the canonical spelling counts, so that one aspect has one key.
        (parts.next().is_none() && key.to_string() == text).then_some(key)
    }
}

fn parse_stamp(text: &str) -> Option<Stamp> {
    let (counter, actor) = text.split_once('-')?;
    Some(Stamp {
        counter: u64::from_str_radix(counter, 16).ok()?,
        actor: Actor::from_hex(actor)?,
    })
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service, aspect) => write!(f, "svc/{service}/{aspect}"),
            Self::Revision(service, aspect, stamp) => {
                let Stamp { counter, actor } = stamp;
                write!(f, "rev/{service}/{aspect}/{counter:016x}-{actor}")
            }
            Self::Vip(service) => write!(f, "vip/{service}"),
            Self::Node(node, NodeAspect::Availability) => write!(f, "node/{node}/availability"),
            Self::Node(node, NodeAspect::Labels) => write!(f, "node/{node}/labels"),
        }
    }
}
