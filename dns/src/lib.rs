//! Names for services: answers DNS queries from the current route table.
//!
//! [`zone`] turns one snapshot of the route table into an index of ready records and looks names up
//! in it; it is pure. [`respond()`] turns the bytes of a query into the bytes of its answer, also
//! without touching the world. [`server`] carries both over UDP and TCP.
//!
//! # Which names there are
//!
//! Below the suffix (`dunlin.internal` unless configured):
//!
//! | name | A, AAAA | SRV |
//! |---|---|---|
//! | `<service>.<namespace>` | the addresses of its ready replicas, some of them in turn | every port of every ready replica |
//! | `tasks.<service>.<namespace>` | the addresses of all its ready replicas | |
//! | `<slot>.<service>.<namespace>` | that replica | |
//! | `_<port>._tcp.<service>.<namespace>` | | that port of every ready replica |
//!
//! and, for an address that belongs to one ready replica alone, its reverse name. A service that
//! exists and has no ready replica keeps its names and answers with no records; only what does not
//! exist is denied.
//!
//! # What is not here
//!
//! - Services have no virtual addresses yet. So a service's name gives addresses of replicas, and
//!   where replicas share their host's address (host processes do) only SRV tells their ports.
//! - Nothing is forwarded: a name outside the suffix is refused, and recursion is not offered.
//!   Point a resolver here for the suffix alone.
//! - It is no open resolver: who is neither on this host nor let in by the caller is refused.

pub mod respond;
pub mod server;
mod suffix;
pub mod zone;

pub use respond::{Transport, respond};
pub use server::{Allow, BindError, DnsServer, ServeError};
pub use suffix::{BadSuffix, Suffix};
pub use zone::{Answer, Rotated, Zone};
