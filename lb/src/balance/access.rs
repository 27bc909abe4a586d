//! Who may connect at all.

use std::net::IpAddr;

use dunlin_state::model::Cidr;

/// Whether a source may connect: it is in none of the denied networks, and in one of the allowed
/// ones if there are any.
pub fn admits(allow: &[Cidr], deny: &[Cidr], source: IpAddr) -> bool {
    let within = |networks: &[Cidr]| networks.iter().any(|n| n.contains(source));
    !within(deny) && (allow.is_empty() || within(allow))
}
