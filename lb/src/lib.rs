//! Spreads connections over the ready replicas of a service.
//!
//! [`balance`] decides which replica gets a connection; it is pure. [`proxy`] carries the
//! connections: to replicas on this node directly, to those on others through its
//! [`Hop`](proxy::hop::Hop). [`Publisher`] opens and closes the listeners of all services, on their
//! virtual addresses and on published ports, as the route table says; [`publish::plan`] holds the
//! rules for that, pure again.
//!
//! # What is not here
//!
//! - Ports published in host mode are bound by the replicas themselves and are none of this crate's
//!   business.
//! - Nothing looks into what is carried: no HTTP, no TLS of applications.

pub mod balance;
pub mod origin;
pub mod proxy;
pub mod publish;

pub use balance::{Balancer, Policy, Target};
pub use origin::{Origin, Origins, Peer};
pub use proxy::{LATENCY_BUCKETS, Limits, PortKey, PortView, Proxy, Tally};
pub use publish::{PublishError, PublishEvent, Publisher};
