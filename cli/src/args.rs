//! The words of the command line. Each command's own words stand with the command.

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    audit, completions, context, cordon, deploy, diff, dns, doctor, drain, events, exec, explain,
    history, inspect, install, item, job, label, leave, logs, ls, maintenance, man, metrics,
    namespace, nodes, plan, ps, rebalance, remove, rm, rollout, root, routes, run, scale, start,
    stats, stop, ticket, up, version, volume,
};
use crate::demo::DemoArgs;
use crate::whoami::WhoamiArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0    it worked
  1    something went wrong that has no code of its own
  2    the words on the command line, or the file they name, make no sense
  3    the daemon, or a node that had to be asked, does not answer
  4    what was asked for is under way and was not reached in time (--timeout)
  5    no such service, node, slot, secret, config or volume
  6    understood and refused: a conflict, an ambiguous name, an invalid specification
  7    not allowed: by role, namespace or certificate
  130  Ctrl-C ended the waiting; what was asked for goes on
`dunlin exec` ends with the exit code of its command.

A service is named NAME or NAMESPACE/NAME; a node by its name, its id, or a unique beginning of
its id.";

/// Runs containers and processes on a flock of hosts with no master.
#[derive(Debug, Parser)]
#[command(
    name = "dunlin",
    version,
    after_help = EXIT_CODES,
    max_term_width = 100,
    disable_help_subcommand = false,
    propagate_version = false
)]
pub struct Cli {
    /// What all commands understand.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands understand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The daemon to talk to: unix:///run/dunlin/api.sock, or tcp://10.0.0.5:7443 with a context
    #[arg(
        short = 'H',
        long,
        global = true,
        env = "DUNLIN_HOST",
        value_name = "URL"
    )]
    pub host: Option<String>,
    /// The cluster to ask, by the name that `dunlin context add` gave it
    #[arg(long, global = true, env = "DUNLIN_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The namespace of services that name none
    #[arg(
        short,
        long,
        global = true,
        env = "DUNLIN_NAMESPACE",
        value_name = "NAME"
    )]
    pub namespace: Option<String>,
}

impl Global {
    /// The daemon to talk to, if one was named. An empty word names none: that is how a shell
    /// unsets a variable for one command.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref().filter(|host| !host.is_empty())
    }

    /// The context, if one was named.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref().filter(|name| !name.is_empty())
    }

    /// The namespace of services that name none, if one was given.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon of this host in the foreground
    Up(Box<up::UpArgs>),
    /// Print a ticket with which another host can join
    Ticket(ticket::TicketArgs),
    /// List the nodes
    #[command(visible_alias = "node")]
    Nodes(nodes::NodesArgs),
    /// Create or change the services of a Compose file
    Deploy(deploy::DeployArgs),
    /// Show what a deploy would change and where replicas would go, and do nothing
    Plan(plan::PlanArgs),
    /// Show namespaces, and bound what the services of one may reserve
    #[command(visible_alias = "namespaces")]
    Namespace(namespace::NamespaceArgs),
    /// Create one service without a file
    Run(Box<run::RunArgs>),
    /// List the services
    #[command(visible_alias = "services")]
    Ls(ls::LsArgs),
    /// List the replicas
    Ps(ps::PsArgs),
    /// Show services in full
    Inspect(inspect::InspectArgs),
    /// Change how many replicas services have
    Scale(scale::ScaleArgs),
    /// Stop services and keep them
    Stop(stop::StopArgs),
    /// Start stopped services
    Start(start::StartArgs),
    /// Remove services
    Rm(rm::RmArgs),
    /// Manage secrets: sealed to the nodes that need them, and files in memory there
    #[command(visible_alias = "secrets")]
    Secret(item::ItemArgs),
    /// Manage configs: files that every member may read
    #[command(visible_alias = "configs")]
    Config(item::ItemArgs),
    /// Run jobs, list their runs, show what they write, cancel them
    #[command(visible_alias = "jobs")]
    Job(job::JobArgs),
    /// Show what replicas write
    Logs(logs::LogsArgs),
    /// Show what replicas use
    Stats(stats::StatsArgs),
    /// Run a command beside a replica, wherever that runs
    Exec(exec::ExecArgs),
    /// List, inspect and remove volumes, and bring their data elsewhere
    Volume(volume::VolumeArgs),
    /// Say why a service is as it is, and what each node says to it
    Explain(explain::ExplainArgs),
    /// Show who changed what about a service, also edits that lost
    History(history::HistoryArgs),
    /// Show what differs between two specifications of a service
    Diff(diff::DiffArgs),
    /// Show how far an update is, pause it, resume it, promote or abort it
    Rollout(rollout::RolloutArgs),
    /// Go back to an earlier specification of a service
    Rollback(rollout::RollbackArgs),
    /// Show where this node's proxies and DNS lead now, and which replicas they do not use and why
    Routes(routes::RoutesArgs),
    /// Print what this node counts, as Prometheus reads it
    Metrics(metrics::MetricsArgs),
    /// Show what the node saw happen
    Events(events::EventsArgs),
    /// Hand a node's replicas to others and give it no new ones
    Drain(drain::DrainArgs),
    /// Give a node no new replicas; it keeps what it has
    Cordon(cordon::CordonArgs),
    /// Let a cordoned or drained node take replicas again
    Uncordon(cordon::UncordonArgs),
    /// Say when nodes are worked on: they are drained then, and come back by themselves
    Maintenance(maintenance::MaintenanceArgs),
    /// Move replicas that run so that nodes are evenly used, or show what would move
    Rebalance(rebalance::RebalanceArgs),
    /// Change the labels that the cluster gives a node
    Label(label::LabelArgs),
    /// Remove a node from the cluster for good: its key is refused from then on
    Remove(remove::RemoveArgs),
    /// Show who changed what, with which key
    Audit(audit::AuditArgs),
    /// Move the cluster's root key to a safe place and back
    Root(root::RootArgs),
    /// Take this node out of its cluster for good and end its daemon
    Leave(leave::LeaveArgs),
    /// Ask a node's DNS server, or have this host ask it
    Dns(dns::DnsArgs),
    /// Check how well this node is set up
    Doctor(doctor::DoctorArgs),
    /// Show a cluster at work on this host, with a crash, and clean up
    Demo(DemoArgs),
    /// Serve HTTP and say which replica answers; a workload for demos and tests
    Whoami(WhoamiArgs),
    /// Manage the clusters that are asked from this host
    Context(context::ContextArgs),
    /// Have this host start the daemon at boot: program, systemd unit, manual pages, completions
    Install(install::InstallArgs),
    /// Write the manual pages
    Man(man::ManArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Show the versions of this program and of the daemon
    Version(version::VersionArgs),
}
