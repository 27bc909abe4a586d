//! Names for services: answers DNS queries from the current route table, and passes other names on
//! to the host's resolvers.
//!
//! [`zone`] turns one snapshot of the route table into an index of encoded records and looks names
//! up in it; it is pure. [`respond()`] turns the bytes of a query into the bytes of its answer, also
//! without touching the world. [`DnsServer`] carries both over UDP and TCP and decides who is served, and
//! asks others about other names ([`Upstreams`]).
//!
//! # Which names there are
//!
//! Below the suffix (`dunlin.internal` unless configured):
//!
//! | name | A, AAAA | SRV |
//! |---|---|---|
//! | `<service>.<namespace>` | its virtual addresses | every port of every ready replica |
//! | `tasks.<service>.<namespace>` | the addresses of all its ready replicas | |
//! | `<slot>.<service>.<namespace>` | that replica | |
//! | `_<port>._tcp.<service>.<namespace>` | | that port of every ready replica |
//! | `<node>.node` | that node | |
//!
//! and, for an address that belongs to one service, one ready replica or one node alone, its
//! reverse name. A service that exists and has no ready replica keeps its names; only what does not
//! exist is denied. `docs/protocols/dns.md` has the rest: lifetimes, limits, who is refused.
//!
//! # What is not here
//!
//! - No signatures (DNSSEC) for the cluster's own names, no zone transfers, no dynamic updates.
//! - It resolves nothing itself: other names are asked of the resolvers that the host has.

mod answer;
mod forward;
mod respond;
mod server;
mod suffix;
mod tally;
mod wire;
pub mod zone;

pub use answer::Manner;
pub use forward::{Upstreams, relay};
pub use respond::{Outcome, respond};
pub use server::{Allow, BindError, Bound, DnsServer, ServeError};
pub use suffix::{BadSuffix, Suffix};
pub use tally::{Counters, DnsTally};
pub use wire::{Edns, Packet, Query, Transport, WireName};
pub use zone::{Found, RecordSet, Zone};
