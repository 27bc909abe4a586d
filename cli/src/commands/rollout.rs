//! `dunlin rollout` and `dunlin rollback`

use clap::{Args, Subcommand};
use dunlin_api::{DeployRequest, DeployService, Exit, RolloutStatus, RolloutStep};

use super::{deploy, diff, show};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::{self, Target, WaitArgs};

/// Words of `dunlin rollout`.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// What to do
    #[command(subcommand)]
    pub step: Step,
}

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub enum Step {
    /// Show how far it is
    Status(Service),
    /// Let it go no further
    Pause(Service),
    /// Let it go on, and forgive what has failed
    Resume(Service),
    /// Give all slots what a canary has proven
    Promote(Service),
    /// Go back to the specification before
    Abort(Service),
}

/// Which service.
#[derive(Debug, Args)]
pub struct Service {
    /// The service
    pub service: String,
}

/// Words of `dunlin rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The service
    pub service: String,
    /// Go back to this revision, or a unique beginning of one, of `dunlin diff SERVICE --list`
    #[arg(long, value_name = "REVISION")]
    pub to: Option<String>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Shows or steers a rollout.
pub async fn run(args: &RolloutArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (service, step) = match &args.step {
        Step::Status(service) => (service, None),
        Step::Pause(service) => (service, Some(RolloutStep::Pause)),
        Step::Resume(service) => (service, Some(RolloutStep::Resume)),
        Step::Promote(service) => (service, Some(RolloutStep::Promote)),
        Step::Abort(service) => (service, Some(RolloutStep::Rollback)),
    };
    let key = context.service(&service.service)?;
    if let Some(step) = step {
        context.client.steer(&key, step).await?;
    }
    let status = context.client.rollout(&key).await?;
    if context.json {
        context.out.json(&status)?;
    } else {
        let name = context.display(&key);
        for line in lines(&name, &status) {
            context.out.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

fn lines(name: &str, status: &RolloutStatus) -> Vec<String> {
    let state = match (
        status.paused,
        status.canary,
        status.outdated + status.pending,
    ) {
        (true, ..) => "paused".to_owned(),
        (false, Some(slots), _) => format!("a canary of {slots}"),
        (false, None, 0) if status.failed == 0 => "complete".to_owned(),
        (false, None, _) if status.rollback => "rolling back".to_owned(),
        (false, None, _) => "under way".to_owned(),
    };
    let mut lines = vec![
        format!("{name}: {state}"),
        format!(
            "  {} of {} slots proven, {} on trial, {} failed, {} to go",
            status.proven, status.wanted, status.pending, status.failed, status.outdated
        ),
        format!("  revision {}", show::short(&status.revision)),
    ];
    if let Some(previous) = &status.previous {
        lines.push(format!("  replaces {}", show::short(previous)));
    }
    if let Some(reason) = &status.reason {
        lines.push(format!("  because {reason}"));
    }
    lines
}

/// Wants an earlier specification again.
pub async fn back(args: &RollbackArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let Some(to) = &args.to else {
        context.client.steer(&key, RolloutStep::Rollback).await?;
        let status = context.client.rollout(&key).await?;
        let target = Target::new(key).of_revision(status.revision);
        return progress::wait(&[target], &args.wait, context).await;
    };
    let list = context.client.revisions(&key).await?.revisions;
    let entry = diff::find(&list, to)?;
    let request = DeployRequest {
        services: vec![DeployService {
            service: key,
            spec: entry.spec.clone(),
            replicas: None,
            canary: None,
        }],
    };
    deploy::send(&request, &args.wait, context).await
}
