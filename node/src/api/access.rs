//! Who asks, and what they may do.
//!
//! Every request passes [`authorize`] before any of it but the head is read. What a route needs is
//! decided by its template in one table, [`need`], which knows reading routes and those of one
//! namespace, and leaves everything else to admins: a route that is added and forgotten here is
//! closed, not open. Namespaces match exactly. Lists of several namespaces are not refused but cut
//! down to what the caller may read ([`Caller::sees`]).

use std::collections::BTreeSet;

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dunlin_api::{ErrorBody, ErrorCode, routes};
use dunlin_trust::{Namespaces, PublicKey, Role};

use super::failure::Failure;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    author: String,
    rights: Rights,
    key: Option<PublicKey>,
}

/// What a caller may do.
#[derive(Debug, Clone)]
enum Rights {
    /// Whatever the daemon may: a local user whom the socket lets in.
    Local,
    /// What a certificate says.
    Role(Role),
    /// Nothing, for this reason.
    None(String),
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing: it tells nothing.
    Nothing,
    /// A key that the connection has proven; the handler checks the ticket.
    Key,
    /// To be allowed to read something; the handler leaves out what is of other namespaces.
    Read,
    /// To read in all namespaces.
    ReadAll,
    /// To read in the namespace of the path.
    ReadIn,
    /// To write in the namespace of the path.
    WriteIn,
    /// To write somewhere; the handler checks the namespaces of the body.
    Write,
    /// To change what concerns all namespaces: nodes.
    Everywhere,
    /// To change who belongs to the cluster.
    Admin,
}

impl Caller {
    /// A local user, whom the kernel vouches for.
    pub(crate) fn local(author: String) -> Self {
        Self {
            author,
            rights: Rights::Local,
            key: None,
        }
    }

    /// The holder of a certificate.
    pub(crate) fn certified(key: PublicKey, role: Role) -> Self {
        Self {
            author: format!("{} ({role})", key.short()),
            rights: Rights::Role(role),
            key: Some(key),
        }
    }

    /// Somebody with no right to anything, and why.
    pub(crate) fn stranger(key: Option<PublicKey>, reason: impl Into<String>) -> Self {
        Self {
            author: "nobody".to_owned(),
            rights: Rights::None(reason.into()),
            key,
        }
    }

    /// Whether this is somebody with no right to anything.
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self.rights, Rights::None(_))
    }

    /// How the history names them.
    pub(crate) fn author(self) -> String {
        self.author
    }

    /// The key that the connection has proven.
    pub(crate) fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// Whether they may read in this namespace.
    pub(crate) fn sees(&self, namespace: &str) -> bool {
        match &self.rights {
            Rights::Local | Rights::Role(Role::Admin | Role::Viewer) => true,
            Rights::Role(Role::Operator(Namespaces::All)) => true,
            Rights::Role(Role::Operator(Namespaces::Only(names))) => names.contains(namespace),
            Rights::Role(Role::Node) | Rights::None(_) => false,
        }
    }

    /// The namespaces they may read, when that is not all of them.
    pub(crate) fn confined(&self) -> Option<&BTreeSet<String>> {
        match &self.rights {
            Rights::Role(Role::Operator(Namespaces::Only(names))) => Some(names),
            Rights::Local | Rights::Role(_) | Rights::None(_) => None,
        }
    }

    /// Checks that they may read in this namespace.
    pub(crate) fn may_read(&self, namespace: &str) -> Result<(), Failure> {
        match self.sees(namespace) {
            true => Ok(()),
            false => Err(self.refuse(&format!("read in namespace '{namespace}'"))),
        }
    }

    /// Checks that they may write in this namespace.
    pub(crate) fn may_write(&self, namespace: &str) -> Result<(), Failure> {
        let allowed = match &self.rights {
            Rights::Local => true,
            Rights::Role(role) => role.may_write_in(namespace),
            Rights::None(_) => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(self.refuse(&format!("change namespace '{namespace}'"))),
        }
    }

    fn check(&self, need: Need, namespace: Option<&str>) -> Result<(), Failure> {
        let allowed = match need {
            Need::Nothing => true,
            Need::Key => self.key.is_some(),
            Need::ReadIn => return self.may_read(namespace.unwrap_or_default()),
            Need::WriteIn => return self.may_write(namespace.unwrap_or_default()),
            Need::Read => !matches!(self.rights, Rights::None(_) | Rights::Role(Role::Node)),
            Need::ReadAll => match &self.rights {
                Rights::Local => true,
                Rights::Role(role) => !matches!(role, Role::Node) && self.confined().is_none(),
                Rights::None(_) => false,
            },
            Need::Write => matches!(
                self.rights,
                Rights::Local | Rights::Role(Role::Admin | Role::Operator(_))
            ),
            Need::Everywhere => matches!(
                self.rights,
                Rights::Local | Rights::Role(Role::Admin | Role::Operator(Namespaces::All))
            ),
            Need::Admin => matches!(self.rights, Rights::Local | Rights::Role(Role::Admin)),
        };
        match (allowed, need) {
            (true, _) => Ok(()),
            (false, Need::Nothing | Need::Key | Need::Read | Need::ReadIn | Need::ReadAll) => {
                Err(self.refuse("read this"))
            }
            (false, Need::Write | Need::WriteIn) => Err(self.refuse("change services")),
            (false, Need::Everywhere) => Err(self.refuse("change nodes")),
            (false, Need::Admin) => Err(self.refuse("do what only admins do")),
        }
    }

    fn refuse(&self, wish: &str) -> Failure {
        let body = match &self.rights {
            Rights::None(reason) => ErrorBody::new(ErrorCode::Forbidden, reason),
            Rights::Role(role) => ErrorBody::new(
                ErrorCode::Forbidden,
                format!("your certificate is for the role '{role}', which may not {wish}"),
            )
            .with_hint(
                "ask an admin for a ticket (`dunlin ticket --role ROLE`) and add it with `dunlin context add`",
            ),
            // Never asked for: local users may do everything.
            Rights::Local => ErrorBody::new(ErrorCode::Forbidden, format!("you may not {wish}")),
        };
        Failure(body)
    }
}

/// What a route needs. `GET` reads; what is not listed is for admins.
fn need(method: &Method, template: &str) -> Need {
    let read = matches!(*method, Method::GET | Method::HEAD);
    if template.contains("/{namespace}/") {
        return if read { Need::ReadIn } else { Need::WriteIn };
    }
    match (template, read) {
        (routes::HEALTH, true) => Need::Nothing,
        (routes::REDEEM, false) => Need::Key,
        (
            routes::VERSION
            | routes::OPENAPI
            | routes::NODE
            | routes::NODES
            | routes::SERVICES
            | routes::NAMESPACES
            | routes::SECRETS
            | routes::CONFIGS
            | routes::VOLUMES
            | routes::REPLICAS
            | routes::JOBS
            | routes::CONVERGENCE
            | routes::ROUTES
            | routes::METRICS
            | routes::STATS
            | routes::EVENTS,
            true,
        ) => Need::Read,
        (routes::DOCTOR | routes::REBALANCE, true) => Need::ReadAll,
        (routes::DEPLOY | routes::PLAN | routes::REMOVE, false) => Need::Write,
        (
            routes::NODE_AVAILABILITY
            | routes::NODE_LABELS
            | routes::NODE_MAINTENANCE
            | routes::REBALANCE,
            false,
        ) => Need::Everywhere,
        (_, _) => Need::Admin,
    }
}

/// Refuses a request that its caller may not make, before its body is read.
pub(super) async fn authorize(
    Extension(caller): Extension<Caller>,
    path: Option<MatchedPath>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let namespace = params.ok().and_then(|params| {
        let mut named = params.iter().filter(|(name, _)| *name == "namespace");
        named.next().map(|(_, value)| value.to_owned())
    });
    let need = match &path {
        Some(path) => need(request.method(), path.as_str()),
        // The answer will be that there is no such route; only those who may read are told.
        None => Need::Read,
    };
    match caller.check(need, namespace.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

#[cfg(test)]
mod tests;
