//! `dunlin version`

use clap::Args;
use dunlin_api::{Exit, VersionInfo};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin version`.
#[derive(Debug, Args)]
pub struct VersionArgs {}

#[derive(Serialize)]
struct Versions {
    client: VersionInfo,
    /// Absent when no daemon answers, which is no failure: the client's version is still told.
    daemon: Option<VersionInfo>,
}

/// Shows both versions.
pub async fn run(_args: &VersionArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (daemon, missing) = match context.client.version().await {
        Ok(version) => (Some(version), String::new()),
        Err(error) => (None, error.to_string()),
    };
    let versions = Versions {
        client: VersionInfo::of_this_host(env!("CARGO_PKG_VERSION")),
        daemon,
    };
    if context.json {
        context.out.json(&versions)?;
        return Ok(Exit::Ok);
    }
    let show = |v: &VersionInfo| format!("{} (API {}, {}/{})", v.version, v.api, v.os, v.arch);
    context
        .out
        .line(format!("client  {}", show(&versions.client)))?;
    match &versions.daemon {
        Some(daemon) => context.out.line(format!("daemon  {}", show(daemon)))?,
        None => context.out.line(format!("daemon  {missing}"))?,
    }
    Ok(Exit::Ok)
}
