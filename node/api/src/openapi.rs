//! The generated description of the contract. Each operation is a marker function that carries
//! its description; the daemon's handlers live elsewhere and use the same [`routes`] and types.

use dunlin_state::model::Quota;
use utoipa::OpenApi;

use crate::*;

/// The OpenAPI document of this version.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Contract::openapi()
}

/// The document as it is served and checked in: indented JSON. What makes it is run by a test only, and
/// takes no room in the daemon.
pub const OPENAPI_JSON: &str = include_str!("../../../docs/openapi.json");

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dunlin node API",
        version = "1",
        description = "Answered by every node, on a Unix socket, and over TLS where it is told to. Instants are milliseconds since \
            the Unix epoch, durations milliseconds, sizes bytes. Every failure has an `ErrorBody`."
    ),
    paths(
        redeem,
        version,
        openapi_document,
        node,
        nodes,
        availability,
        labels,
        maintenance,
        remove_node,
        audit,
        deploy,
        plan,
        remove_services,
        services,
        inspect,
        remove,
        scale,
        stop,
        start,
        explain,
        history,
        revisions,
        rollout,
        steer,
        ask_run,
        cancel_run,
        jobs,
        logs,
        exec,
        namespaces,
        quota,
        rebalance_plan,
        rebalance,
        secrets,
        secret,
        put_secret,
        remove_secret,
        configs,
        config,
        put_config,
        remove_config,
        volumes,
        volume,
        create_volume,
        remove_volume,
        export_volume,
        import_volume,
        replicas,
        convergence,
        routing,
        metrics,
        ticket,
        leave,
        doctor,
        events,
        stats,
    )
)]
struct Contract;

/// Writes the attribute that all operations share: a 200 with a body, and errors.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident: $method:ident $path:ident $(in $tag:literal)?
        $(, params($($params:tt)*))? $(, takes $request:ident)? => $answer:ident $($kind:literal)?) => {
        $(#[$doc])*
        #[utoipa::path(
            $method,
            path = routes::$path,
            $(tag = $tag,)?
            $(params($($params)*),)?
            $(request_body = $request,)?
            responses(
                (status = 200, description = "Done", body = $answer $(, content_type = $kind)?),
                (status = "default", description = "Failed", body = ErrorBody)
            )
        )]
        #[expect(dead_code, reason = "only its description is used")]
        fn $name() {}
    };
}

operation! {
    /// Turns a ticket for a person into a certificate for the key of this TLS connection. Also
    /// answered without a certificate: the ticket's proof is the credential.
    redeem: post REDEEM in "nodes",
    takes RedeemRequest
    => Membership
}

operation! {
    /// What software answers.
    version: get VERSION in "nodes"
    => VersionInfo
}

operation! {
    /// This document.
    openapi_document: get OPENAPI in "nodes"
    => Object
}

operation! {
    /// The node that answers, in detail.
    node: get NODE in "nodes"
    => NodeStatus
}

operation! {
    /// All nodes.
    nodes: get NODES in "nodes"
    => NodeList
}

operation! {
    /// Cordons, drains or re-activates a node.
    availability: post NODE_AVAILABILITY in "nodes",
    params(("node" = String, Path, description = "The node's id, a unique beginning of it, or its name")),
    takes AvailabilityRequest
    => ChangeResponse
}

operation! {
    /// Changes the labels that the cluster gives a node.
    labels: post NODE_LABELS in "nodes",
    params(("node" = String, Path, description = "The node's id, a unique beginning of it, or its name")),
    takes LabelsRequest
    => ChangeResponse
}

operation! {
    /// Changes when a node is worked on: it is drained then, and comes back by itself.
    maintenance: post NODE_MAINTENANCE in "nodes",
    params(("node" = String, Path, description = "The node's id, a unique beginning of it, or its name")),
    takes MaintenanceRequest
    => ChangeResponse
}

operation! {
    /// Removes a node's key from the cluster for good.
    remove_node: delete NODE_MEMBER in "nodes",
    params(("node" = String, Path, description = "The node's id, a unique beginning of it, or its name"), RemoveQuery)
    => ChangeResponse
}

operation! {
    /// Who changed what, with which key.
    audit: get AUDIT in "nodes"
    => AuditList
}

operation! {
    /// Creates services or gives them new specifications, all or none.
    deploy: post DEPLOY in "services",
    takes DeployRequest
    => DeployResponse
}

operation! {
    /// All namespaces, what their services want together, and their quotas.
    namespaces: get NAMESPACES in "services"
    => NamespaceList
}

operation! {
    /// Bounds what the services of a namespace may reserve together; an empty quota bounds nothing.
    quota: put QUOTA in "services",
    params(("name" = String, Path, description = "The namespace")),
    takes Quota
    => ChangeResponse
}

operation! {
    /// Says which replicas would be moved so that nodes are evenly used, and whether they are.
    rebalance_plan: get REBALANCE in "nodes"
    => RebalancePlan
}

operation! {
    /// Has replicas moved so that nodes are evenly used, or says whether they move by themselves.
    rebalance: post REBALANCE in "nodes",
    takes RebalanceRequest
    => ChangeResponse
}

operation! {
    /// Removes services, all or none.
    remove_services: post REMOVE in "services",
    takes RemoveRequest
    => ChangeResponse
}

operation! {
    /// Says what a deploy would do and where replicas would go, and changes nothing.
    plan: post PLAN in "services",
    takes DeployRequest
    => DeployPlan
}

operation! {
    /// Services.
    services: get SERVICES in "services",
    params(ServiceQuery)
    => ServiceList
}

operation! {
    /// A service in full.
    inspect: get SERVICE in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => ServiceDetail
}

operation! {
    /// Removes a service with its replicas.
    remove: delete SERVICE in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => ChangeResponse
}

operation! {
    /// Changes the number of replicas.
    scale: post SERVICE_SCALE in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service")),
    takes ScaleRequest
    => ChangeResponse
}

operation! {
    /// Stops all replicas and keeps the service.
    stop: post SERVICE_STOP in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => ChangeResponse
}

operation! {
    /// Starts a stopped service.
    start: post SERVICE_START in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => ChangeResponse
}

operation! {
    /// Why a service is as it is.
    explain: get SERVICE_EXPLAIN in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => Explanation
}

operation! {
    /// Who changed what about a service.
    history: get SERVICE_HISTORY in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => History
}

operation! {
    /// The specifications that a service had and has.
    revisions: get SERVICE_REVISIONS in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => RevisionList
}

operation! {
    /// How far a rollout is.
    rollout: get SERVICE_ROLLOUT in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"))
    => RolloutStatus
}

operation! {
    /// Steers a rollout.
    steer: post SERVICE_ROLLOUT in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service")),
    takes RolloutRequest
    => ChangeResponse
}

operation! {
    /// Has a job run now.
    ask_run: post SERVICE_RUNS in "services",
    params(("namespace" = String, Path, description = "Namespace of the job"), ("name" = String, Path, description = "Name of the job"))
    => RunResponse
}

operation! {
    /// Ends a run of a job, or keeps it from beginning.
    cancel_run: delete SERVICE_RUN in "services",
    params(("namespace" = String, Path, description = "Namespace of the job"), ("name" = String, Path, description = "Name of the job"), ("run" = String, Path, description = "Name of the run"))
    => ChangeResponse
}

operation! {
    /// Jobs and their runs.
    jobs: get JOBS in "services",
    params(JobQuery)
    => JobList
}

operation! {
    /// What the replicas of a service wrote: one record per line.
    logs: get SERVICE_LOGS in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service"), LogQuery)
    => LogRecord "application/x-ndjson"
}

operation! {
    /// Runs a command beside a replica. Both bodies are streams of frames at the same time: a byte
    /// for the kind, four for the length (big-endian), the content. To the command: 1 what to run
    /// (ExecStart), first; 2 input; 3 the end of input; 4 a new size of the terminal (TerminalSize);
    /// 5 a ping, every 3 s. From it: 6 where it runs (ExecStarted), first; 7 standard output;
    /// 8 standard error; 5 a ping; 9 the exit code (four bytes), last; or 10 why there is none
    /// (ErrorBody). Closing the connection ends the command.
    exec: post SERVICE_EXEC in "services",
    params(("namespace" = String, Path, description = "Namespace of the service"), ("name" = String, Path, description = "Name of the service")),
    takes ExecStart
    => ExecStarted "application/vnd.dunlin.exec"
}

operation! {
    /// Volumes, and which nodes have their data.
    volumes: get VOLUMES in "volumes",
    params(VolumeQuery)
    => VolumeList
}

operation! {
    /// A volume, and which nodes have its data.
    volume: get VOLUME in "volumes",
    params(("namespace" = String, Path, description = "Its namespace"), ("volume" = String, Path, description = "Its name, and @service.slot of one that a replica has for itself"))
    => Volume
}

operation! {
    /// Begins an empty volume on a node: the one that is asked unless another is named. One that is
    /// there already is answered with. `force` begins anew although a node that does not answer has
    /// data, which does not count from then on.
    create_volume: post VOLUME in "volumes",
    params(("namespace" = String, Path, description = "Its namespace"), ("volume" = String, Path, description = "Its name, and @service.slot of one that a replica has for itself"), VolumeTarget)
    => VolumeCreated
}

operation! {
    /// Deletes the data of a volume that no service names.
    remove_volume: delete VOLUME in "volumes",
    params(("namespace" = String, Path, description = "Its namespace"), ("volume" = String, Path, description = "Its name, and @service.slot of one that a replica has for itself"), VolumeTarget)
    => VolumeRemoval
}

operation! {
    /// Sends the data of a volume as a tar archive, in frames as those of a command: 7 a piece of the
    /// archive; 5 a ping; 8 a note; 9 the end (0); or 10 why it is not whole (ErrorBody). The request
    /// stays open until then.
    export_volume: post VOLUME_EXPORT in "volumes",
    params(("namespace" = String, Path, description = "Its namespace"), ("volume" = String, Path, description = "Its name, and @service.slot of one that a replica has for itself"), VolumeTarget)
    => String "application/vnd.dunlin.exec"
}

operation! {
    /// Takes a tar archive as the data of a volume, in frames as those of a command: 2 a piece of the
    /// archive; 5 a ping, every 3 s; 3 the end. The answer's frames: 5 a ping; 9 the end (0), when the
    /// data counts; or 10 why nothing was changed (ErrorBody). The request stays open until then.
    import_volume: post VOLUME_IMPORT in "volumes",
    params(("namespace" = String, Path, description = "Its namespace"), ("volume" = String, Path, description = "Its name, and @service.slot of one that a replica has for itself"), VolumeTarget)
    => String "application/vnd.dunlin.exec"
}

operation! {
    /// Secrets, without what they hold.
    secrets: get SECRETS in "secrets",
    params(ItemQuery)
    => ItemList
}

operation! {
    /// A secret in full; its value is told to nobody.
    secret: get SECRET in "secrets",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name"))
    => ItemDetail
}

operation! {
    /// Creates a secret or gives it another content or labels.
    put_secret: put SECRET in "secrets",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name")),
    takes ItemRequest
    => ChangeResponse
}

operation! {
    /// Removes a secret that no service uses.
    remove_secret: delete SECRET in "secrets",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name"))
    => ChangeResponse
}

operation! {
    /// Configs, without what they hold.
    configs: get CONFIGS in "configs",
    params(ItemQuery)
    => ItemList
}

operation! {
    /// A config in full, with its content.
    config: get CONFIG in "configs",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name"))
    => ItemDetail
}

operation! {
    /// Creates a config or gives it another content or labels.
    put_config: put CONFIG in "configs",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name")),
    takes ItemRequest
    => ChangeResponse
}

operation! {
    /// Removes a config that no service uses.
    remove_config: delete CONFIG in "configs",
    params(("namespace" = String, Path, description = "Its namespace"), ("name" = String, Path, description = "Its name"))
    => ChangeResponse
}

operation! {
    /// Replicas.
    replicas: get REPLICAS in "services",
    params(ReplicaQuery)
    => ReplicaList
}

operation! {
    /// How far the cluster is from what is wanted.
    convergence: get CONVERGENCE in "services",
    params(ConvergenceQuery)
    => Convergence
}

operation! {
    /// Where the proxies and the DNS server of this node lead now.
    routing: get ROUTES in "services",
    params(RouteQuery)
    => RouteList
}

operation! {
    /// What this node counts, for Prometheus. Of services only those whose namespaces the caller may read.
    metrics: get METRICS in "nodes"
    => String "text/plain"
}

operation! {
    /// A ticket with which another host may join.
    ticket: post TICKET in "nodes",
    takes TicketRequest
    => Ticket
}

operation! {
    /// The node says goodbye for good and its daemon ends.
    leave: post LEAVE in "nodes"
    => ChangeResponse
}

operation! {
    /// How well this node is set up.
    doctor: get DOCTOR in "nodes"
    => DoctorReport
}

operation! {
    /// What this node saw happen: one record per line.
    events: get EVENTS in "nodes",
    params(EventQuery)
    => EventRecord "application/x-ndjson"
}

operation! {
    /// What replicas use, on all nodes: one record per line.
    stats: get STATS in "services",
    params(StatsQuery)
    => StatsRecord "application/x-ndjson"
}
