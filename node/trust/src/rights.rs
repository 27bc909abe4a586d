//! Who may write which key of desired state. Decided by the key's text alone, so that every
//! version and every node comes to the same verdict.
//!
//! | key | who |
//! |---|---|
//! | `svc/`, `vip/`, `job/`, `config/`, `secret/`, `rev/` + `<namespace>/…` | operators of that namespace, admins |
//! | `node/…`, `noderev/…`, `rebalancing` | operators of all namespaces, admins |
//! | `trust/invite/node/…`, `trust/use/…` | nodes, admins |
//! | `trust/…` otherwise | admins |
//! | anything else | admins |
//!
//! Viewers write nothing.

use thiserror::Error;

use crate::keys::PublicKey;
use crate::power::{Namespaces, Power, Role};

/// Why a key must not be written by somebody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a certificate for '{power}' does not allow to write '{key}'")]
pub struct Forbidden {
    /// What the writer may do.
    pub power: String,
    /// What it wanted to write.
    pub key: String,
}

/// The key of desired state under which an admin says that a key was removed.
pub fn revocation_key(removed: &PublicKey) -> String {
    format!("trust/revoked/{removed}")
}

/// What a key is about, as far as rights go.
enum Scope<'a> {
    Namespace(&'a str),
    Nodes,
    Admission,
    Cluster,
}

/// Checks that who has this power may write this key.
pub fn check(power: &Power, key: &str) -> Result<(), Forbidden> {
    let Power::Role(role) = power else {
        return Err(forbidden(power, key));
    };
    let allowed = match scope(key) {
        Scope::Namespace(namespace) => role.may_write_in(namespace),
        Scope::Nodes => matches!(role, Role::Admin | Role::Operator(Namespaces::All)),
        Scope::Admission => matches!(role, Role::Admin | Role::Node),
        Scope::Cluster => matches!(role, Role::Admin),
    };
    match allowed {
        true => Ok(()),
        false => Err(forbidden(power, key)),
    }
}

fn scope(key: &str) -> Scope<'_> {
    let mut parts = key.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("svc" | "vip" | "job" | "config" | "secret" | "rev"), Some(namespace), Some(_)) => {
            Scope::Namespace(namespace)
        }
        (Some("node" | "noderev"), Some(_), Some(_)) => Scope::Nodes,
        (Some("rebalancing"), _, None) => Scope::Nodes,
        (Some("trust"), Some("invite"), Some("node")) => Scope::Admission,
        (Some("trust"), Some("use"), Some(_)) => Scope::Admission,
        _ => Scope::Cluster,
    }
}

fn forbidden(power: &Power, key: &str) -> Forbidden {
    Forbidden {
        power: power.to_string(),
        key: key.chars().take(200).collect(),
    }
}
