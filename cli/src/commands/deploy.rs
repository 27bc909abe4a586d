//! `dunlin deploy`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use dunlin_api::client::ClientError;
use dunlin_api::{DeployRequest, DeployService, DeployedService, ErrorCode, Exit, ItemRequest};

use crate::compose::{self, ComposeError, Project, ProjectItem};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::{self, Target, WaitArgs};

/// Services that are sent at a time: few enough for one change of the document, unless they are very long.
const MAX_PART: usize = 100;

/// Which file, and what it depends on.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The Compose file, '-' for standard input; by default compose.yaml, compose.yml,
    /// docker-compose.yaml or docker-compose.yml here
    #[arg(value_name = "FILE", conflicts_with = "file")]
    pub path: Option<PathBuf>,
    /// The same
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Take variables from this file too; they go before those of .env beside the Compose file
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Name of the project, before which the file's own name gives way
    #[arg(short, long, value_name = "NAME")]
    pub project_name: Option<String>,
}

/// Words of `dunlin deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The file.
    #[command(flatten)]
    pub file: FileArgs,
    /// Give only so many slots of each service, the lowest, what is new, until `dunlin rollout
    /// promote` or `abort`
    #[arg(long, value_name = "N")]
    pub canary: Option<u32>,
    /// Show what the file means, in JSON, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Reads the file, sends what it asks for, and waits until it is there.
pub async fn run(args: &DeployArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (mut request, items) = request(&args.file, context)?;
    for service in &mut request.services {
        service.canary = args.canary;
    }
    if args.dry_run {
        context.out.json(&request.services)?;
        return Ok(Exit::Ok);
    }
    // What services need is there before them.
    for item in &items {
        let request = ItemRequest {
            value: data_encoding::BASE64.encode(&item.value),
            labels: Some(item.labels.clone()),
            existing: None,
        };
        let (kind, key) = (item.kind, &item.key);
        context.client.put_item(kind, key, &request).await?;
    }
    send(&request, &args.wait, context).await
}

/// What a file asks for, and the secrets and configs that it brings; tells its warnings.
pub(super) fn request(
    args: &FileArgs,
    context: &mut Context,
) -> Result<(DeployRequest, Vec<ProjectItem>), Failure> {
    let project = read(args, context)?;
    for warning in &project.warnings {
        context.out.note(warning.to_string())?;
    }
    let services = project.services.into_iter().map(|service| DeployService {
        service: service.key,
        spec: service.spec,
        replicas: service.replicas,
        canary: None,
    });
    let services = services.collect();
    Ok((DeployRequest { services }, project.items))
}

/// Sends services and waits until they are there.
pub(super) async fn send(
    request: &DeployRequest,
    wait: &WaitArgs,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let deployed = in_parts(request, context).await?;
    let targets: Vec<Target> = deployed
        .into_iter()
        .map(|s| Target::new(s.service).of_revision(s.revision))
        .collect();
    progress::wait(&targets, wait, context).await
}

/// Sends services as one change, or as several where one would be too large.
async fn in_parts(
    request: &DeployRequest,
    context: &mut Context,
) -> Result<Vec<DeployedService>, Failure> {
    let parts = request.services.chunks(MAX_PART).rev();
    // The last is the next.
    let mut left: Vec<&[DeployService]> = parts.collect();
    let mut deployed = Vec::new();
    while let Some(part) = left.pop() {
        let services = part.to_vec();
        match context.client.deploy(&DeployRequest { services }).await {
            Ok(answer) => deployed.extend(answer.services),
            Err(ClientError::Answered(body))
                if body.code == ErrorCode::TooLarge && part.len() > 1 =>
            {
                let (first, second) = part.split_at(part.len() / 2);
                left.extend([second, first]);
            }
            Err(error) => {
                if !deployed.is_empty() {
                    let (done, all) = (deployed.len(), request.services.len());
                    let note = format!("{done} of {all} services are deployed, the others not");
                    context.out.note(note)?;
                }
                return Err(error.into());
            }
        }
    }
    Ok(deployed)
}

fn read(args: &FileArgs, context: &mut Context) -> Result<Project, Failure> {
    let path = match args.path.as_ref().or(args.file.as_ref()) {
        Some(path) => path.clone(),
        None => compose::find_file(Path::new(".")).ok_or_else(|| Failure::Usage {
            message: "there is no Compose file here".to_owned(),
            hint: Some("name one: dunlin deploy FILE".to_owned()),
        })?,
    };
    // Variables that are no UTF-8 cannot stand in a specification.
    let mut variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let namespace = context.namespace.clone();
    let read = match &args.env_file {
        None => Ok(()),
        Some(file) => compose::read_variables(file, &variables).map(|more| variables = more),
    };
    read.and_then(|()| {
        let project = args.project_name.as_deref();
        compose::load(&path, project, namespace.as_deref(), &variables)
    })
    .map_err(|faults| refuse(&path, &faults, context))
}

/// All faults of a file, each with its line.
fn refuse(path: &Path, faults: &[ComposeError], context: &mut Context) -> Failure {
    let each: Vec<String> = faults.iter().map(ToString::to_string).collect();
    if context.json {
        return Failure::usage(each.join("\n"));
    }
    for fault in each {
        if let Err(error) = context.out.note(fault + "\n") {
            return error.into();
        }
    }
    let count = match faults.len() {
        1 => "a fault".to_owned(),
        more => format!("{more} faults"),
    };
    Failure::usage(format!(
        "{} has {count}; nothing was changed",
        path.display()
    ))
}
