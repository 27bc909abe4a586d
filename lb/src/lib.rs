//! Spreads connections over the ready replicas of a service.
//!
//! [`balance`] decides which replica gets a connection; it is pure. [`Proxy`] carries the TCP
//! connections of one listener, and [`Publisher`] opens and closes the listeners of all published
//! ports as the route table says. [`publish::plan`] holds the rules for that, pure again.
//!
//! # What is not here
//!
//! - A replica is reached by plain TCP at the address that its node reports. Nodes whose replicas
//!   listen on loopback addresses, or behind a firewall, are reached by nobody else; and nothing is
//!   encrypted on the way. There is no hop between nodes over QUIC yet.
//! - UDP ports are not published; each is named in a warning.
//! - Ports published in host mode are bound by the replicas themselves and are none of this crate's
//!   business.

pub mod balance;
mod proxy;
pub mod publish;

pub use balance::{Balancer, Policy, Target};
pub use proxy::{Limits, Proxy};
pub use publish::{PublishError, PublishEvent, Publisher};
