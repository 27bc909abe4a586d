//! Why a command was refused.

use thiserror::Error;

use super::validate::{MAX_REPLICAS, SpecFault};
use crate::model::{Excess, ItemKey, ItemKind, NodeId, Protocol, QuotaOf, RunId, ServiceKey};

/// Why a command was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No such service.
    #[error("no service is named '{service}'{}", hint(.similar))]
    NoSuchService {
        /// The name asked for.
        service: ServiceKey,
        /// Services with similar names, at most three.
        similar: Vec<ServiceKey>,
    },
    /// More replicas than allowed.
    #[error(
        "service '{service}' cannot have {replicas} replicas; at most {MAX_REPLICAS} are allowed"
    )]
    TooManyReplicas {
        /// Which service.
        service: ServiceKey,
        /// How many were asked for.
        replicas: u32,
    },
    /// A namespace has no more of something.
    #[error(
        "namespace '{namespace}' would want {excess} of its quota, and wants {used} now{}; remove or shrink something there, or have an admin raise it with 'dunlin namespace set-quota {namespace}'", unit(.excess)
    )]
    OverQuota {
        /// Which namespace.
        namespace: String,
        /// What would be exceeded.
        excess: Excess,
        /// What it wants now, in the unit of the excess.
        used: u64,
    },
    /// Who votes about what runs cannot be changed.
    #[error(
        "the voters of '{0}' cannot be changed while it runs, since the old ones and the new ones could each let a replica run: 'dunlin stop {0}', wait until 'dunlin ps' shows no replica of it, deploy it with the new voters, then 'dunlin start {0}'"
    )]
    VotersInUse(ServiceKey),
    /// A time to work on a node that cannot be kept.
    #[error("{fault}")]
    BadWindow {
        /// Which node.
        node: NodeId,
        /// What is wrong.
        fault: crate::windows::BadWindow,
    },
    /// Not the name of a namespace.
    #[error("{0}")]
    BadNamespace(String),
    /// A daemon service has no scale.
    #[error(
        "service '{0}' runs once on every matching node and cannot be scaled; change its placement, or deploy it with mode 'replicated'"
    )]
    GlobalHasNoScale(ServiceKey),
    /// Nothing to go back to.
    #[error(
        "service '{0}' has no specification before this one to go back to; see 'dunlin history {0}'"
    )]
    NothingBefore(ServiceKey),
    /// The specification is not valid.
    #[error("service '{service}': {fault}")]
    InvalidSpec {
        /// Which service.
        service: ServiceKey,
        /// What is wrong with it.
        fault: SpecFault,
    },
    /// Services that wait for each other.
    #[error(
        "these services would wait for each other for ever: {}; remove one of these dependencies", arrows(.0)
    )]
    DependencyCycle(Vec<ServiceKey>),
    /// A job has no replicas to scale, and other services have no runs.
    #[error("service '{0}' is a job: its runs have as many replicas as 'completions' says")]
    JobHasNoScale(ServiceKey),
    /// The load decides about the number of replicas.
    #[error(
        "service '{service}' follows its load, between {min} and {max} replicas; deploy it with other bounds, or without 'x-dunlin.autoscale' to scale it by hand"
    )]
    FollowsLoad {
        /// Which service.
        service: ServiceKey,
        /// Its fewest replicas.
        min: u32,
        /// Its most replicas.
        max: u32,
    },
    /// Only jobs run.
    #[error("service '{0}' is no job; give it 'x-dunlin: {{job: {{}}}}' to make it one")]
    NoJob(ServiceKey),
    /// No such run.
    #[error("job '{service}' has no run '{run}'; see 'dunlin job ls {service}'")]
    NoSuchRun {
        /// Which job.
        service: ServiceKey,
        /// Which run.
        run: RunId,
    },
    /// Too many runs.
    #[error("job '{service}' has {max} runs that were asked for; wait for some to end")]
    TooManyRuns {
        /// Which job.
        service: ServiceKey,
        /// The bound.
        max: usize,
    },
    /// A name that the runs of a job need.
    #[error("service '{service}' cannot have that name: {why}")]
    BadJobName {
        /// Which service.
        service: ServiceKey,
        /// What is wrong with it.
        why: String,
    },
    /// The labels are not valid.
    #[error("labels of node {}: {fault}", .node.short())]
    InvalidLabels {
        /// Which node.
        node: NodeId,
        /// What is wrong with them.
        fault: SpecFault,
    },
    /// Another service publishes the port on every node.
    #[error(
        "service '{service}' cannot publish port {port}/{protocol}: service '{holder}' already does; choose another port, or remove '{holder}' first"
    )]
    PortTaken {
        /// Which service.
        service: ServiceKey,
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// Who has it.
        holder: ServiceKey,
    },
    /// A value does not fit into a register.
    #[error("{what} takes {bytes} bytes, at most {max} are allowed; make it smaller")]
    ValueTooLarge {
        /// Which value.
        what: String,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The cluster has too many services.
    #[error("the cluster would have more than {max} services; remove some first")]
    TooManyServices {
        /// The bound.
        max: usize,
    },
    /// Too much in one request.
    #[error(
        "this request writes {bytes} bytes in one change, at most {max} are allowed; split it into several"
    )]
    ChangeTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Too many commands in one request.
    #[error("this request has {count} commands, at most {max} are allowed; split it into several")]
    TooManyCommands {
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// No such secret or config.
    #[error(
        "no {kind} is named '{item}'; see 'dunlin {kind} ls' for those that exist, and make one with 'dunlin {kind} create'"
    )]
    NoSuchItem {
        /// Which kind.
        kind: ItemKind,
        /// The name asked for.
        item: ItemKey,
    },
    /// The name is taken.
    #[error("{kind} '{item}' exists already; give it another content with 'dunlin {kind} update'")]
    ItemExists {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
    },
    /// A service uses it.
    #[error(
        "{kind} '{item}' is used by service '{service}'; remove that service, or deploy it without the {kind}, first"
    )]
    ItemInUse {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
        /// By which service.
        service: ServiceKey,
    },
    /// Too much content.
    #[error(
        "{kind} '{item}' takes {bytes} bytes, at most {max} are allowed; larger content belongs into an image or a volume"
    )]
    ItemTooLarge {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The labels are not valid.
    #[error("labels of {kind} '{item}': {fault}")]
    InvalidItemLabels {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
        /// What is wrong with them.
        fault: SpecFault,
    },
    /// The cluster has too many.
    #[error("the cluster would have more than {max} {kind}s; remove some first")]
    TooManyItems {
        /// Which kind.
        kind: ItemKind,
        /// The bound.
        max: usize,
    },
    /// The node's disk refused the change.
    #[error(
        "this node's disk refused the change ({reason}); nothing has changed: free some space, or ask another node"
    )]
    DiskRefused {
        /// The disk's words.
        reason: String,
    },
    /// Too many changes wait for the node's disk.
    #[error("{waiting} changes wait for this node's disk already; try again in a moment")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// Nobody has let this node in yet.
    #[error("this node has not joined its cluster yet; nothing can be changed from here")]
    NotJoined,
    /// Nothing that this node holds allows it.
    #[error(
        "this node's certificate ({}) may not write '{what}'; do it on a node of an operator or admin, or join with a ticket of `dunlin ticket --role operator`", roles_or_none(.roles)
    )]
    NotAllowed {
        /// The key of desired state.
        what: String,
        /// The roles that this node has.
        roles: String,
    },
    /// The certificate that would allow it is not valid now.
    #[error("the certificate that would allow this is not valid: {0}")]
    Certificate(String),
    /// Its author, or who vouched for its author, was removed: nobody would take it.
    #[error(
        "this node's certificate is void, because the member that granted it was removed since; make a ticket of the same role on an admin's node ('dunlin ticket --role ...') and start this daemon with it ('dunlin up --join TICKET')"
    )]
    GrantorRemoved,
    /// A text of a trust command is not what it should be.
    #[error("'{0}' is no key or role")]
    BadTrust(String),
    /// The document failed; it is as it was before.
    #[error("the state document could not be written ({0}); nothing has changed, try again")]
    Internal(String),
}

fn roles_or_none(roles: &str) -> &str {
    match roles {
        "" => "none",
        roles => roles,
    }
}

fn hint(similar: &[ServiceKey]) -> String {
    match similar {
        [] => "; see 'dunlin ls' for those that exist".to_owned(),
        some => {
            let names: Vec<String> = some.iter().map(|s| format!("'{s}'")).collect();
            format!("; did you mean {}?", names.join(" or "))
        }
    }
}

/// Finds names that a person may have meant: the same name in another namespace, or at most two
/// typing errors away.
pub(super) fn similar<'a>(
    wanted: &ServiceKey,
    existing: impl Iterator<Item = &'a ServiceKey>,
) -> Vec<ServiceKey> {
    let mut near: Vec<(usize, &ServiceKey)> = existing
        .filter_map(|key| {
            let distance = distance(wanted.name(), key.name());
            (distance <= 2 && distance < wanted.name().len()).then_some((distance, key))
        })
        .collect();
    near.sort();
    near.into_iter()
        .take(3)
        .map(|(_, key)| key.clone())
        .collect()
}

/// Levenshtein distance; both are DNS labels, so it is at most 63 by 63 steps.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A cycle as a person follows it, the first service again at its end.
pub(super) fn arrows(cycle: &[ServiceKey]) -> String {
    let names = cycle.iter().chain(cycle.first());
    let names: Vec<String> = names.map(ToString::to_string).collect();
    names.join(" -> ")
}

/// What a bare number of a quota counts.
fn unit(excess: &Excess) -> &'static str {
    match excess.of {
        QuotaOf::Cpu => " (thousandths of a core)",
        QuotaOf::Memory => " (bytes)",
        QuotaOf::Replicas => "",
    }
}
