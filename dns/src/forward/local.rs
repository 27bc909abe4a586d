//! Names that no resolver is asked about.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::stored::{LOOPBACK_4, LOOPBACK_6};
use crate::answer::{Counts, Out};
use crate::wire::WireName;
use crate::zone::reverse;

/// Lifetime of the addresses of `localhost`, in seconds: they never change.
const LOCALHOST_TTL: u32 = 3_600;

/// What questions are for that would find a loop. `test` is nobody's (RFC 6761, 6.2), so that an
/// honest resolver denies them at once.
const PROBE: &[u8] = b"\x0bdunlin-loop\x04test";

/// Digits of the number that makes a probe ours, and of the upstream that it was sent to.
const NONCE_DIGITS: usize = 16;
const INDEX_DIGITS: usize = 4;

/// What is answered here, and whom questions about private addresses may be sent to.
#[derive(Debug)]
pub(super) struct Policy {
    /// Chosen at each start: a probe that comes back was sent by this process.
    nonce: u64,
    /// Whether all upstreams are on this host or in a private network.
    private_upstreams: AtomicBool,
}

/// An answer that needs nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    NoSuchName,
    Empty,
    Loopback(IpAddr),
}

impl Policy {
    pub(super) fn new() -> Self {
        Self {
            nonce: rand::random(),
            private_upstreams: AtomicBool::new(false),
        }
    }

    /// Says what the upstreams are.
    pub(super) fn set_upstreams(&self, all_private: bool) {
        self.private_upstreams.store(all_private, Ordering::Relaxed);
    }

    /// The name whose question is sent to the upstream with this index to see whether it comes
    /// back, in wire form with the root label.
    pub(super) fn probe(&self, index: usize) -> Box<[u8]> {
        let label = format!("{:016x}{:04x}", self.nonce, index & 0xffff);
        let length = [(NONCE_DIGITS + INDEX_DIGITS) as u8];
        [&length, label.as_bytes(), PROBE, &[0]].concat().into()
    }

    /// The upstream that a probe of this process was sent to.
    pub(super) fn probe_index(&self, name: &WireName) -> Option<usize> {
        if name.from_label(1) != PROBE {
            return None;
        }
        let label = name.as_bytes().get(1..=NONCE_DIGITS + INDEX_DIGITS)?;
        let (nonce, index) = std::str::from_utf8(label)
            .ok()?
            .split_at_checked(NONCE_DIGITS)?;
        let ours = u64::from_str_radix(nonce, 16) == Ok(self.nonce);
        ours.then(|| usize::from_str_radix(index, 16).ok())
            .flatten()
    }

    /// The answer about a name that is nobody's, or not the business of whoever would be asked.
    pub(super) fn answer(&self, name: &WireName, kind: RecordType) -> Option<Local> {
        let last = |back: usize| name.labels().checked_sub(back).map(|i| name.from_label(i));
        let top = last(1)?;
        match top {
            b"\x09localhost" => {
                return Some(match kind {
                    RecordType::A => Local::Loopback(LOOPBACK_4.into()),
                    RecordType::AAAA => Local::Loopback(LOOPBACK_6.into()),
                    _other => Local::Empty,
                });
            }
            // RFC 6761, 6.4 and RFC 7686, 2.
            b"\x07invalid" | b"\x05onion" => return Some(Local::NoSuchName),
            _other => {}
        }
        // A designated resolver of ours would bypass this one (RFC 9462, 6.4).
        if last(2) == Some(b"\x08resolver\x04arpa") {
            return Some(Local::Empty);
        }
        let of_host = matches!(kind, RecordType::A | RecordType::AAAA | RecordType::HTTPS);
        if name.labels() == 1 && of_host {
            // The name of a machine or a service, asked for without a search domain. The root
            // servers do not know it and need not hear of it.
            return Some(Local::NoSuchName);
        }
        let address = reverse::address(name)?;
        let hidden = is_of_one_link(address)
            || (is_private(address) && !self.private_upstreams.load(Ordering::Relaxed));
        hidden.then_some(Local::NoSuchName)
    }
}

impl Local {
    pub(super) fn write(self, out: &mut Out<'_, '_>) {
        let data: &[u8] = match self {
            Self::NoSuchName => return out.empty(ResponseCode::NXDomain, 0),
            Self::Empty => return out.empty(ResponseCode::NoError, 0),
            Self::Loopback(IpAddr::V4(_)) => &LOOPBACK_4,
            Self::Loopback(IpAddr::V6(_)) => &LOOPBACK_6,
        };
        out.start(ResponseCode::NoError, 0);
        let kind = u16::from(out.query.record_type).to_be_bytes();
        let length = u16::try_from(data.len()).unwrap_or_default();
        // The owner is the name in the question.
        out.reply.extend_from_slice(&[0xc0, 12]);
        out.reply.extend_from_slice(&kind);
        out.reply.extend_from_slice(&[0, 1]);
        out.reply.extend_from_slice(&LOCALHOST_TTL.to_be_bytes());
        out.reply.extend_from_slice(&length.to_be_bytes());
        out.reply.extend_from_slice(data);
        let counts = Counts {
            answers: 1,
            ..Counts::default()
        };
        out.finish(ResponseCode::NoError, counts);
    }
}

/// Addresses that mean something on one host or link only (RFC 6303, 4.2 and 4.3).
fn is_of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.is_loopback() || a.is_link_local() || a.octets()[0] == 0 || a.is_broadcast()
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unspecified() || a.is_unicast_link_local(),
    }
}

/// Addresses of private networks (RFC 1918, RFC 6598, RFC 4193), whose names are known inside.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_private() || (a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64),
        IpAddr::V6(a) => a.is_unique_local(),
    }
}

/// Whether a resolver at this address is inside: on this host, or in a private network.
pub(super) fn is_inside(address: IpAddr) -> bool {
    is_private(address) || is_of_one_link(address)
}
