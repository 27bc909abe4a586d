//! The commands, one file each.

pub mod audit;
pub mod completions;
pub mod context;
pub mod cordon;
pub mod deploy;
pub mod diff;
pub mod dns;
pub mod doctor;
pub mod drain;
pub mod events;
pub mod exec;
pub mod explain;
pub mod history;
pub mod inspect;
pub mod install;
pub mod item;
pub mod job;
pub mod label;
pub mod leave;
pub mod logs;
pub mod ls;
pub mod maintenance;
pub mod man;
pub mod metrics;
pub mod namespace;
pub mod nodes;
pub mod plan;
pub mod ps;
pub mod rebalance;
pub mod remove;
pub mod rm;
pub mod rollout;
pub mod root;
pub mod routes;
pub mod run;
pub mod scale;
mod show;
pub mod start;
pub mod stats;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod ticket;
pub mod up;
pub mod version;
pub mod volume;

use dunlin_api::Exit;
use dunlin_state::model::ItemKind;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs a command that asks a daemon.
pub async fn dispatch(command: Command, context: &mut Context) -> Result<Exit, Failure> {
    match command {
        Command::Ticket(args) => ticket::run(&args, context).await,
        Command::Nodes(args) => nodes::run(&args, context).await,
        Command::Deploy(args) => deploy::run(&args, context).await,
        Command::Namespace(args) => namespace::run(&args, context).await,
        Command::Maintenance(args) => maintenance::run(&args, context).await,
        Command::Rebalance(args) => rebalance::run(&args, context).await,
        Command::Plan(args) => plan::run(&args, context).await,
        Command::Run(args) => run::run(&args, context).await,
        Command::Ls(args) => ls::run(&args, context).await,
        Command::Ps(args) => ps::run(&args, context).await,
        Command::Inspect(args) => inspect::run(&args, context).await,
        Command::Scale(args) => scale::run(&args, context).await,
        Command::Stop(args) => stop::run(&args, context).await,
        Command::Start(args) => start::run(&args, context).await,
        Command::Rm(args) => rm::run(&args, context).await,
        Command::Job(args) => job::run(&args, context).await,
        Command::Logs(args) => logs::run(&args, context).await,
        Command::Stats(args) => stats::run(&args, context).await,
        Command::Exec(args) => exec::run(&args, context).await,
        Command::Volume(args) => volume::run(&args, context).await,
        Command::Explain(args) => explain::run(&args, context).await,
        Command::History(args) => history::run(&args, context).await,
        Command::Diff(args) => diff::run(&args, context).await,
        Command::Rollout(args) => rollout::run(&args, context).await,
        Command::Rollback(args) => rollout::back(&args, context).await,
        Command::Routes(args) => routes::run(&args, context).await,
        Command::Metrics(args) => metrics::run(&args, context).await,
        Command::Events(args) => events::run(&args, context).await,
        Command::Drain(args) => drain::run(&args, context).await,
        Command::Cordon(args) => cordon::cordon(&args, context).await,
        Command::Uncordon(args) => cordon::uncordon(&args, context).await,
        Command::Label(args) => label::run(&args, context).await,
        Command::Remove(args) => remove::run(&args, context).await,
        Command::Audit(args) => audit::run(&args, context).await,
        Command::Secret(args) => item::run(ItemKind::Secret, &args, context).await,
        Command::Config(args) => item::run(ItemKind::Config, &args, context).await,
        Command::Leave(args) => leave::run(&args, context).await,
        Command::Dns(args) => dns::run(&args, context).await,
        Command::Doctor(args) => doctor::run(&args, context).await,
        Command::Version(args) => version::run(&args, context).await,
        Command::Up(_)
        | Command::Root(_)
        | Command::Demo(_)
        | Command::Whoami(_)
        | Command::Context(_)
        | Command::Install(_)
        | Command::Man(_)
        | Command::Completions(_) => Err(Failure::usage("this command asks no daemon")),
    }
}
