//! `dunlin dns`: asking a node's DNS server, and having the host ask it.

mod install;
mod query;

use clap::{Args, Subcommand};
use dunlin_api::{DnsStatus, Exit};

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin dns`.
#[derive(Debug, Args)]
pub struct DnsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: DnsAction,
}

/// What to do with names.
#[derive(Debug, Subcommand)]
pub enum DnsAction {
    /// Ask this node's DNS server for a name, as a replica would
    Query(query::QueryArgs),
    /// Have programs of this host find the cluster's names: a drop-in of systemd-resolved where that
    /// runs, else /etc/resolv.conf
    Install(install::InstallArgs),
    /// Undo `dunlin dns install`
    Uninstall(install::InstallArgs),
}

/// Runs it.
pub async fn run(args: &DnsArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.action {
        DnsAction::Query(args) => query::run(args, context).await,
        DnsAction::Install(args) => install::install(args, context).await,
        DnsAction::Uninstall(args) => install::uninstall(args, context),
    }
}

/// The server of the node that is asked.
async fn server(context: &Context) -> Result<DnsStatus, Failure> {
    context.client.node().await?.dns.ok_or(Failure::Refused {
        message: "this node answers no names".to_owned(),
        hint: Some(
            "say where with `dunlin up --dns ADDR:PORT`; `dunlin doctor` may say why".to_owned(),
        ),
    })
}
