//! The keys of the flat map.
//!
//! | key | value |
//! |---|---|
//! | `svc/<namespace>/<name>/<aspect>` | the newest register of one aspect of a service |
//! | `rev/<namespace>/<name>/<aspect>/<counter>-<actor>` | an older or newer version of it, never changed |
//! | `job/<namespace>/<name>/<run>` | what people said of one run of a job |
//! | `vip/<namespace>/<name>` | the number of its virtual address |
//! | `node/<id>/<aspect>` | the newest register of what people said about a node |
//! | `noderev/<id>/<aspect>/<counter>-<actor>` | a version of it, never changed |
//! | `secret/<namespace>/<name>` | a secret, sealed |
//! | `config/<namespace>/<name>` | a config |
//! | `quota/<namespace>` | what its services may reserve together |
//! | `rebalancing` | whether replicas are moved to even out nodes |
//! | these four with `/<counter>-<actor>` | a version of it, never changed |
//! | `trust/revoked/<key>` | an admin's order: this key was removed |
//! | `trust/invite/<role>/<invite>` | a ticket for that role |
//! | `trust/use/<invite>/<key>` | who was let in by it |
//! | `trust/keyring/<epoch>-<admission key>/<part>` | what members share, sealed to each |
//! | `meta/format` | written by genesis and by compaction, so that no document is empty |
//!
//! Every other key (something that a newer version invents) is kept and carried along
//! untouched.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::register::{Actor, Stamp};
use crate::model::{ItemKey, ItemKind, NodeId, RunId, ServiceKey, check_label};
use dunlin_trust::{KeyringOrder, PublicKey, Role};

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
    /// Of a job, what is recorded of its runs.
    Jobs,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Spec,
        Self::Image,
        Self::Scale,
        Self::Run,
        Self::Rollout,
        Self::Jobs,
    ];

    /// As written in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Image => "image",
            Self::Scale => "scale",
            Self::Run => "run",
            Self::Rollout => "rollout",
            Self::Jobs => "jobs",
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
    /// When it is to be worked on.
    Windows,
}

/// A key about who belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TrustKey {
    /// A key was removed.
    Revoked(PublicKey),
    /// A ticket, with the role it stands for.
    Invite(String, PublicKey),
    /// Who was let in by a ticket.
    Use(PublicKey, PublicKey),
    /// A part of a keyring.
    Keyring(KeyringOrder, u16),
}

/// A key that this version understands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The newest register of an aspect of a service.
    Service(ServiceKey, Aspect),
    /// One version of it.
    Revision(ServiceKey, Aspect, Stamp),
    /// What people said of a run of a job.
    Ask(ServiceKey, RunId),
    /// The virtual address of a service. People do not edit it, so it has no history.
    Vip(ServiceKey),
    /// What people said about a node.
    Node(NodeId, NodeAspect),
    /// One version of that.
    NodeRevision(NodeId, NodeAspect, Stamp),
    /// A secret or config.
    Item(ItemKind, ItemKey),
    /// One version of it.
    ItemRevision(ItemKind, ItemKey, Stamp),
    /// The quota of a namespace.
    Quota(String),
    /// One version of it.
    QuotaRevision(String, Stamp),
    /// Whether replicas are moved to even out nodes.
    Rebalancing,
    /// One version of that.
    RebalancingRevision(Stamp),
    /// Who belongs.
    Trust(TrustKey),
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
            "job" => {
                let service = ServiceKey::new(parts.next()?, parts.next()?).ok()?;
                Self::Ask(service, parts.next()?.parse().ok()?)
            }
            "vip" => Self::Vip(ServiceKey::new(parts.next()?, parts.next()?).ok()?),
            "node" => {
                let node = parts.next()?.parse().ok()?;
                Self::Node(node, NodeAspect::parse(parts.next()?)?)
            }
            "noderev" => {
                let node = parts.next()?.parse().ok()?;
                let aspect = NodeAspect::parse(parts.next()?)?;
                Self::NodeRevision(node, aspect, parse_stamp(parts.next()?)?)
            }
            "secret" => Self::parse_item(ItemKind::Secret, &mut parts)?,
            "config" => Self::parse_item(ItemKind::Config, &mut parts)?,
            "quota" => {
                let namespace = parts.next()?.to_owned();
                check_label("namespace", &namespace).ok()?;
                match parts.next() {
                    Some(stamp) => Self::QuotaRevision(namespace, parse_stamp(stamp)?),
                    None => Self::Quota(namespace),
                }
            }
            "rebalancing" => match parts.next() {
                Some(stamp) => Self::RebalancingRevision(parse_stamp(stamp)?),
                None => Self::Rebalancing,
            },
            "trust" => Self::Trust(TrustKey::parse(&mut parts)?),
            _ => return None,
        };
        // Only the canonical spelling counts, so that one aspect has one key.
        (parts.next().is_none() && key.to_string() == text).then_some(key)
    }

    fn parse_item<'a>(kind: ItemKind, parts: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let item = ItemKey::new(parts.next()?, parts.next()?).ok()?;
        Some(match parts.next() {
            Some(stamp) => Self::ItemRevision(kind, item, parse_stamp(stamp)?),
            None => Self::Item(kind, item),
        })
    }

    /// The key under which the newest version stands: what a signature is about.
    pub(super) fn current(&self) -> Self {
        match self {
            Self::Revision(service, aspect, _) => Self::Service(service.clone(), *aspect),
            Self::NodeRevision(node, aspect, _) => Self::Node(*node, *aspect),
            Self::ItemRevision(kind, item, _) => Self::Item(*kind, item.clone()),
            Self::QuotaRevision(namespace, _) => Self::Quota(namespace.clone()),
            Self::RebalancingRevision(_) => Self::Rebalancing,
            Self::Service(..)
            | Self::Ask(..)
            | Self::Node(..)
            | Self::Vip(_)
            | Self::Item(..)
            | Self::Quota(_)
            | Self::Rebalancing
            | Self::Trust(_) => self.clone(),
        }
    }

    /// The key under which one version is kept; `None` for what has no versions.
    pub(super) fn revision(&self, stamp: Stamp) -> Option<Self> {
        match self {
            // What is said of a rollout holds a whole specification already, and is no version of
            // anything.
            Self::Service(_, Aspect::Rollout) | Self::Revision(_, Aspect::Rollout, _) => None,
            // What happened is no wish that anybody would go back to.
            Self::Service(_, Aspect::Jobs) | Self::Revision(_, Aspect::Jobs, _) => None,
            Self::Service(service, aspect) | Self::Revision(service, aspect, _) => {
                Some(Self::Revision(service.clone(), *aspect, stamp))
            }
            Self::Node(node, aspect) | Self::NodeRevision(node, aspect, _) => {
                Some(Self::NodeRevision(*node, *aspect, stamp))
            }
            Self::Item(kind, item) | Self::ItemRevision(kind, item, _) => {
                Some(Self::ItemRevision(*kind, item.clone(), stamp))
            }
            Self::Quota(namespace) | Self::QuotaRevision(namespace, _) => {
                Some(Self::QuotaRevision(namespace.clone(), stamp))
            }
            Self::Rebalancing | Self::RebalancingRevision(_) => {
                Some(Self::RebalancingRevision(stamp))
            }
            Self::Ask(..) | Self::Vip(_) | Self::Trust(_) => None,
        }
    }

    /// The version that it names, if it names one.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Revision(_, _, stamp)
            | Self::NodeRevision(_, _, stamp)
            | Self::ItemRevision(_, _, stamp)
            | Self::QuotaRevision(_, stamp)
            | Self::RebalancingRevision(stamp) => Some(*stamp),
            Self::Service(..)
            | Self::Ask(..)
            | Self::Node(..)
            | Self::Vip(_)
            | Self::Item(..)
            | Self::Quota(_)
            | Self::Rebalancing
            | Self::Trust(_) => None,
        }
    }
}

impl NodeAspect {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "availability" => Some(Self::Availability),
            "labels" => Some(Self::Labels),
            "windows" => Some(Self::Windows),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Labels => "labels",
            Self::Windows => "windows",
        }
    }
}

impl TrustKey {
    fn parse<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let (kind, first) = (parts.next()?, parts.next()?);
        Some(match kind {
            "revoked" => Self::Revoked(first.parse().ok()?),
            "invite" => {
                let role: Role = first.parse().ok()?;
                Self::Invite(role.to_string(), parts.next()?.parse().ok()?)
            }
            "use" => Self::Use(first.parse().ok()?, parts.next()?.parse().ok()?),
            "keyring" => {
                let (epoch, admission) = first.split_once('-')?;
                let order = KeyringOrder {
                    epoch: u64::from_str_radix(epoch, 16).ok()?,
                    admission: admission.parse().ok()?,
                };
                Self::Keyring(order, parts.next()?.parse().ok()?)
            }
            _ => return None,
        })
    }
}

impl fmt::Display for TrustKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(key) => f.write_str(&dunlin_trust::rights::revocation_key(key)),
            Self::Invite(role, invite) => write!(f, "trust/invite/{role}/{invite}"),
            Self::Use(invite, node) => write!(f, "trust/use/{invite}/{node}"),
            Self::Keyring(order, part) => {
                let KeyringOrder { epoch, admission } = order;
                write!(f, "trust/keyring/{epoch:016x}-{admission}/{part}")
            }
        }
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
            Self::Ask(service, run) => write!(f, "job/{service}/{run}"),
            Self::Vip(service) => write!(f, "vip/{service}"),
            Self::Node(node, aspect) => write!(f, "node/{node}/{}", aspect.as_str()),
            Self::NodeRevision(node, aspect, stamp) => {
                let (aspect, Stamp { counter, actor }) = (aspect.as_str(), stamp);
                write!(f, "noderev/{node}/{aspect}/{counter:016x}-{actor}")
            }
            Self::Item(kind, item) => write!(f, "{kind}/{item}"),
            Self::ItemRevision(kind, item, stamp) => {
                let Stamp { counter, actor } = stamp;
                write!(f, "{kind}/{item}/{counter:016x}-{actor}")
            }
            Self::Quota(namespace) => write!(f, "quota/{namespace}"),
            Self::QuotaRevision(namespace, stamp) => {
                let Stamp { counter, actor } = stamp;
                write!(f, "quota/{namespace}/{counter:016x}-{actor}")
            }
            Self::Rebalancing => f.write_str("rebalancing"),
            Self::RebalancingRevision(stamp) => {
                let Stamp { counter, actor } = stamp;
                write!(f, "rebalancing/{counter:016x}-{actor}")
            }
            Self::Trust(key) => key.fmt(f),
        }
    }
}
