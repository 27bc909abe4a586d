//! Other names: asked of the resolvers that the host has, and kept for as long as they say.
//!
//! [`Forwarder`] is what the servers hold: it answers from the cache, or hands the question over.
//! [`Asking`] is the one task that asks. Questions in flight are bounded, and the same question is
//! asked once however many clients wait for it, which also ends every loop: a question that comes
//! back to us joins those who wait for its answer.
//!
//! Nothing is rewritten: an answer is passed on byte by byte, with its lifetimes counted down, the
//! client's id, question and EDNS, and only after it has been found well-formed and an answer to
//! what was asked (RFC 5452).

mod cache;
mod exchange;
mod local;
mod stored;
mod task;
mod upstreams;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use tokio::sync::{mpsc, oneshot};

use crate::answer::{Manner, Out};
use crate::server::Datagrams;
use crate::wire::{Packet, Query, Transport, flag};

use cache::Cache;
pub(crate) use task::Asking;
pub use upstreams::Upstreams;

/// Questions that may wait for the task that asks. It only starts exchanges and never waits for
/// one, so this fills only when it does not get to run.
const QUEUE: usize = 256;

/// Longest cached lifetime: an answer that says "for a week" may still be wrong tomorrow, and a day
/// of one question is cheap.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Longest lifetime of a denial in the cache. Resolvers that lose their network for some seconds
/// deny what exists; names must not stay away for long after that.
const LONGEST_DENIAL: Duration = Duration::from_secs(30);

/// How long a failure is kept: long enough that a program which repeats a hopeless question at once
/// does not repeat it upstream (RFC 9520, 3.2 asks for a second), short enough that nobody notices
/// after the cause is gone.
const FAILURE: Duration = Duration::from_secs(1);

/// What is asked: the same for all clients who may share an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// In wire form and lower case, with the root label.
    name: Box<[u8]>,
    record_type: u16,
    class: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Key {
    fn of(query: &Query<'_>) -> Self {
        let (_, fourth) = query.flags();
        Self {
            name: [query.name.as_bytes(), &[0]].concat().into(),
            record_type: query.record_type.into(),
            class: query.class.into(),
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: fourth & flag::CD != 0,
        }
    }
}

/// Where an answer goes.
pub(crate) enum Back {
    /// To a client that asked over UDP.
    Datagram {
        /// The socket that its question came to.
        socket: Arc<Datagrams>,
        /// The client.
        client: SocketAddr,
        /// The address that its question was sent to.
        local: Option<IpAddr>,
    },
    /// To the task that serves a TCP client.
    Stream(oneshot::Sender<Vec<u8>>),
}

/// Somebody who waits for an answer.
pub(crate) struct Waiter {
    /// The whole query.
    packet: Vec<u8>,
    client: IpAddr,
    back: Back,
}

/// What the servers ask of the task.
enum Job {
    Ask(Arc<Key>, Waiter),
    /// The probe that was sent to this upstream has come back.
    Looped(usize),
}

/// The answer to a question about a name that is not ours, as far as it is known at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// It has been written.
    Answered,
    /// Others must be asked.
    Ask,
}

/// Answers other names from the cache, and has them asked for.
#[derive(Clone)]
pub(crate) struct Forwarder {
    cache: Arc<Mutex<Cache>>,
    jobs: mpsc::Sender<Job>,
    policy: Arc<local::Policy>,
    manner: Manner,
}

/// Makes a forwarder and the task that it hands questions to. `own` are the addresses that the
/// servers answer on, which are never asked.
pub(crate) fn forwarder(upstreams: Upstreams, own: Vec<SocketAddr>) -> (Forwarder, Asking) {
    let (jobs, received) = mpsc::channel(QUEUE);
    let manner = Manner { recursion: true };
    let forwarder = Forwarder {
        cache: Arc::new(Mutex::new(Cache::default())),
        jobs,
        policy: Arc::new(local::Policy::new()),
        manner,
    };
    let asking = Asking::new(forwarder.clone(), received, upstreams, own);
    (forwarder, asking)
}

impl Forwarder {
    /// Answers at once when that is possible: names that are nobody's, and what is cached.
    pub(crate) fn try_now(
        &self,
        query: &Query<'_>,
        transport: Transport,
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Now {
        let mut out = Out {
            query,
            limit: query.limit(transport),
            manner: self.manner,
            reply,
        };
        if let Some(index) = self.policy.probe_index(&query.name) {
            // A full queue loses a report, and the next probe makes another.
            let _full = self.jobs.try_send(Job::Looped(index));
            out.empty(ResponseCode::Refused, 0);
            return Now::Answered;
        }
        if query.class != DNSClass::IN {
            out.empty(ResponseCode::Refused, 0);
            return Now::Answered;
        }
        if let Some(answer) = self.policy.answer(&query.name, query.record_type) {
            answer.write(&mut out);
            return Now::Answered;
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        match cache.get(&Key::of(query), now) {
            Some((stored, age)) => {
                let stored = stored.clone();
                drop(cache);
                stored.write(&mut out, age);
                Now::Answered
            }
            None => Now::Ask,
        }
    }

    /// Has a question asked; the answer goes `back`. False when too many wait already.
    pub(crate) fn ask(&self, query: &Query<'_>, client: IpAddr, back: Back) -> bool {
        let waiter = Waiter {
            packet: query.packet().to_vec(),
            client,
            back,
        };
        let job = Job::Ask(Arc::new(Key::of(query)), waiter);
        self.jobs.try_send(job).is_ok()
    }

    /// What answers say of this server.
    pub(crate) fn manner(&self) -> Manner {
        self.manner
    }
}

/// What a client that asked `query` is told when an upstream answers `reply` under the id that it
/// was asked with; `None` when the query is none, or the reply no answer to it. For tests with
/// hostile input.
pub fn relay(query: &[u8], reply: &[u8], transport: Transport, age: Duration) -> Option<Vec<u8>> {
    let Packet::Query(query) = Packet::read(query) else {
        return None;
    };
    let id = u16::from_be_bytes(*reply.first_chunk()?);
    let stored = stored::Stored::read(reply, id, &Key::of(&query)).ok()?;
    let mut told = Vec::new();
    let mut out = Out {
        limit: query.limit(transport),
        query: &query,
        manner: Manner { recursion: true },
        reply: &mut told,
    };
    stored.write(&mut out, age);
    Some(told)
}

impl Waiter {
    /// Writes the answer for this client and sends it.
    fn deliver(self, stored: Option<&stored::Stored>, manner: Manner) {
        // It was read before, so it is a query.
        let Packet::Query(query) = Packet::read(&self.packet) else {
            return;
        };
        let transport = match &self.back {
            Back::Datagram { .. } => Transport::Udp,
            Back::Stream(_) => Transport::Tcp,
        };
        let mut reply = Vec::new();
        let mut out = Out {
            query: &query,
            limit: query.limit(transport),
            manner,
            reply: &mut reply,
        };
        match stored {
            Some(stored) => stored.write(&mut out, Duration::ZERO),
            None => out.empty(ResponseCode::ServFail, 0),
        }
        match self.back {
            Back::Datagram {
                socket,
                client,
                local,
            } => {
                socket.send_one(&reply, client, local);
            }
            Back::Stream(sender) => {
                // The client may have gone.
                let _gone = sender.send(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests;
