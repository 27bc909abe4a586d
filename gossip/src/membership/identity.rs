//! Who a member is on the wire.

use std::net::{SocketAddr, SocketAddrV6};

use dunlin_state::model::NodeId;
use foca::Identity;

use super::MemberId;

/// A [`MemberId`] with what SWIM needs beside it and nobody else should see.
///
/// "Down" is final for an identity in SWIM. A process that was declared down while it lived can
/// not raise its boot count, so it raises `bump` and comes back as the same life of the same node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireId {
    pub(super) member: MemberId,
    /// How often this life of the node came back from "down".
    pub(super) bump: u32,
    /// Its last identity: it says goodbye with it.
    pub(super) left: bool,
}

impl WireId {
    /// The first identity of a process.
    pub(super) fn new(member: MemberId) -> Self {
        Self {
            member: MemberId {
                address: plain(member.address),
                ..member
            },
            bump: 0,
            left: false,
        }
    }

    /// Whoever listens at an address: for joining, when all that is known is the address.
    pub(super) fn anyone_at(address: SocketAddr) -> Self {
        Self::new(MemberId {
            node: NodeId::from_bytes([0; 32]),
            boot: 0,
            address,
        })
    }

    /// Whether this is [`Self::anyone_at`] some address.
    pub(super) fn is_anyone(&self) -> bool {
        self.member.node.as_bytes() == &[0; 32]
    }

    /// The identity with which to say goodbye.
    pub(super) fn leaving(&self) -> Self {
        Self {
            bump: self.bump.saturating_add(1),
            left: true,
            ..*self
        }
    }

    /// Total order over the identities of one node; the highest is current. The address comes last
    /// and only makes the order total: within a life it changes together with `bump`.
    fn rank(&self) -> (u64, u32, bool, SocketAddr) {
        (self.member.boot, self.bump, self.left, self.member.address)
    }

    /// Whether this identity supersedes `other` of the same node.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

impl Identity for WireId {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        if self.left {
            return None;
        }
        Some(Self {
            bump: self.bump.checked_add(1)?,
            ..*self
        })
    }

    fn addr(&self) -> NodeId {
        self.member.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.supersedes(adversary)
    }
}

/// The address without the parts of IPv6 that mean something on one host only and are not sent.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
    }
}
