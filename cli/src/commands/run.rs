//! `dunlin run`
//!
//! The words become a Compose document in memory, which the Compose reader turns into a
//! specification: so a flag means exactly what the key of the same name means, and every rule about
//! it stands in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Args, ValueEnum};
use dunlin_api::{DeployRequest, DeployService, Exit, ServiceQuery};
use dunlin_state::model::ServiceKey;
use serde_json::{Value, json};

use super::deploy;
use crate::compose::{self, ComposeError, Disk, ProjectService};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::WaitArgs;

/// Words of `dunlin run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin run -p 8080:80 --replicas 3 nginx:1.27
  dunlin run --name clock -- sh -c 'while date; do sleep 1; done'")]
pub struct RunArgs {
    /// The service's name; by default made from the image or the program
    #[arg(long)]
    pub name: Option<String>,
    /// How many replicas
    #[arg(long, conflicts_with = "global")]
    pub replicas: Option<u32>,
    /// One replica on every node that matches
    #[arg(long)]
    pub global: bool,
    /// An environment variable; without a value, this one's
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// A port to publish
    #[arg(short, long, value_name = "[[IP:]PUBLISHED:]PORT[/udp]")]
    pub publish: Vec<String>,
    /// A named volume or a host's directory
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub volume: Vec<String>,
    /// A network that it is in, beside others of its namespace; '*/NAME' for one of the cluster
    #[arg(long, value_name = "NAME")]
    pub network: Vec<String>,
    /// Cores that each replica reserves and may use, such as 0.5
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<String>,
    /// Memory that each replica reserves and may use, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// A condition on nodes, such as node.labels.zone==north
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint: Vec<String>,
    /// What starts the replicas
    #[arg(long, value_enum)]
    pub runtime: Option<RuntimeWord>,
    /// When replicas that ended are started again: no, on-failure[:N], always
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// A label for the containers
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIRECTORY")]
    pub workdir: Option<String>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// The image
    #[arg(required_unless_present = "process", value_name = "IMAGE")]
    pub image: Option<String>,
    /// The command run in it
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// A command to run as a host process, or in the image when there is one
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "command")]
    pub process: Vec<String>,
}

/// A runtime on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeWord {
    /// Docker when its socket answers and the service names an image, else processes
    Auto,
    /// Supervised host processes
    Process,
    /// Docker or Podman
    Docker,
}

/// Creates the service and waits until it is there.
pub async fn run(args: &RunArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = name(args, context).await?;
    let service = read(args, &key, context)?;
    let request = DeployRequest {
        services: vec![DeployService {
            service: service.key,
            spec: service.spec,
            replicas: service.replicas,
            canary: None,
        }],
    };
    deploy::send(&request, &args.wait, context).await
}

impl RunArgs {
    fn words(&self) -> &[String] {
        if self.process.is_empty() {
            &self.command
        } else {
            &self.process
        }
    }

    fn runtime(&self) -> RuntimeWord {
        match (self.runtime, &self.image) {
            (Some(given), _) => given,
            (None, None) => RuntimeWord::Process,
            (None, Some(_)) => RuntimeWord::Auto,
        }
    }
}

/// The service's name: as given and not taken yet, or a free one made from what runs.
async fn name(args: &RunArgs, context: &Context) -> Result<ServiceKey, Failure> {
    let listed = context.client.services(&ServiceQuery::default()).await?;
    let taken: BTreeSet<ServiceKey> = listed.into_iter().map(|s| s.service).collect();
    if let Some(given) = &args.name {
        let key = context.service(given)?;
        if taken.contains(&key) {
            return Err(Failure::Refused {
                message: format!("a service {given} exists already"),
                hint: Some(format!(
                    "`dunlin rm {given}` removes it; `dunlin deploy` changes it"
                )),
            });
        }
        return Ok(key);
    }
    let runs = args.image.as_ref().or(args.words().first());
    let base = base_name(runs.map(String::as_str).unwrap_or_default());
    let mut key = context.service(&base)?;
    for number in 2_u32.. {
        if !taken.contains(&key) {
            break;
        }
        key = context.service(&format!("{base}-{number}"))?;
    }
    Ok(key)
}

/// A DNS label from an image reference or a program's path: `ghcr.io/a/Web_App:1.2` gives
/// `web-app`.
fn base_name(runs: &str) -> String {
    /// Room for `-` and a number within the 63 characters of a label.
    const MAX: usize = 50;
    let without_digest = runs.split('@').next().unwrap_or_default();
    let last = without_digest.rsplit('/').next().unwrap_or_default();
    let stem = last.split(':').next().unwrap_or_default();
    let label: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(MAX)
        .collect();
    match label.trim_matches('-') {
        "" => "service".to_owned(),
        label => label.to_owned(),
    }
}

fn read(
    args: &RunArgs,
    key: &ServiceKey,
    context: &mut Context,
) -> Result<ProjectService, Failure> {
    let here = std::env::current_dir().map_err(|source| Failure::System {
        message: "cannot find the working directory".to_owned(),
        source,
    })?;
    let project = parse(args, key, &here).map_err(|faults| refuse(&faults, key))?;
    for warning in &project.warnings {
        context.out.note(format!("warning: {}", warning.text))?;
    }
    let mut services = project.services;
    services
        .pop()
        .ok_or_else(|| Failure::usage("the words name no service"))
}

fn parse(
    args: &RunArgs,
    key: &ServiceKey,
    here: &Path,
) -> Result<compose::Project, Vec<ComposeError>> {
    // Only `-e KEY` looks at the environment; `$` stands for itself.
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    compose::parse(
        &document(args, key.name()).to_string(),
        &compose::Context {
            file: COMMAND_LINE,
            directory: Some(here),
            project: None,
            namespace: Some(key.namespace()),
            variables: &variables,
            files: &Disk,
        },
    )
}

const COMMAND_LINE: &str = "command line";

/// The words as a Compose document. JSON is YAML.
fn document(args: &RunArgs, name: &str) -> Value {
    let runtime = match args.runtime() {
        RuntimeWord::Auto => "auto",
        RuntimeWord::Process => "process",
        RuntimeWord::Docker => "docker",
    };
    let mut service = json!({ "x-dunlin": { "runtime": runtime } });
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if !empty {
            service[key] = value;
        }
    };
    set("image", literal(args.image.as_ref()));
    set("command", literals(args.words()));
    set("environment", literals(&args.env));
    set("ports", literals(&args.publish));
    set("volumes", literals(&args.volume));
    let networks: serde_json::Map<String, Value> =
        args.network.iter().map(|text| network(text)).collect();
    let joined: Vec<&String> = networks.keys().collect();
    set("networks", json!(joined));
    set("labels", literals(&args.label));
    set("restart", literal(args.restart.as_ref()));
    set("user", literal(args.user.as_ref()));
    set("working_dir", literal(args.workdir.as_ref()));
    set("deploy", deployment(args));
    let volumes: serde_json::Map<String, Value> = args
        .volume
        .iter()
        .filter_map(|volume| volume.split_once(':'))
        .filter(|(source, _)| !source.starts_with(['/', '.', '~']))
        .map(|(source, _)| (source.to_owned(), json!({ "name": dollars(source) })))
        .collect();
    json!({ "name": name, "services": { name: service }, "volumes": volumes, "networks": networks })
}

/// What declares a network of the command line.
fn network(text: &str) -> (String, Value) {
    match text.strip_prefix("*/") {
        Some(name) => (dollars(name), json!({ "external": true })),
        None => (dollars(text), json!({})),
    }
}

fn deployment(args: &RunArgs) -> Value {
    let mut amount = serde_json::Map::new();
    if let Some(cpus) = &args.cpus {
        amount.insert("cpus".to_owned(), literal(Some(cpus)));
    }
    if let Some(memory) = &args.memory {
        amount.insert("memory".to_owned(), literal(Some(memory)));
    }
    let mut deployment = serde_json::Map::new();
    if !amount.is_empty() {
        let both = json!({ "reservations": amount.clone(), "limits": amount });
        deployment.insert("resources".to_owned(), both);
    }
    if !args.constraint.is_empty() {
        let constraints = json!({ "constraints": literals(&args.constraint) });
        deployment.insert("placement".to_owned(), constraints);
    }
    if args.global {
        deployment.insert("mode".to_owned(), json!("global"));
    } else {
        deployment.insert("replicas".to_owned(), json!(args.replicas.unwrap_or(1)));
    }
    Value::Object(deployment)
}

fn literal(text: Option<&String>) -> Value {
    text.map_or(Value::Null, |text| Value::String(dollars(text)))
}

fn literals(texts: &[String]) -> Value {
    texts.iter().map(|text| dollars(text)).collect()
}

/// The shell has replaced variables already: what is left of `$` is meant literally.
fn dollars(text: &str) -> String {
    text.replace('$', "$$")
}

/// Faults by the flag that they are about.
fn refuse(faults: &[ComposeError], key: &ServiceKey) -> Failure {
    let prefix = format!("services.{}.", key.name());
    let each = faults.iter().map(|fault| {
        let path = fault.path.strip_prefix(&prefix).unwrap_or(&fault.path);
        match flag(path) {
            Some(flag) => format!("{flag}: {}", fault.message),
            None => fault.message.clone(),
        }
    });
    Failure::Usage {
        message: each
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join("; "),
        hint: faults.iter().find_map(|fault| fault.hint.clone()),
    }
}

/// The flag that fills in a key of the document.
fn flag(path: &str) -> Option<&'static str> {
    const FLAGS: [(&str, &str); 15] = [
        ("image", "IMAGE"),
        ("command", "COMMAND"),
        ("environment", "--env"),
        ("ports", "--publish"),
        ("volumes", "--volume"),
        ("networks", "--network"),
        ("labels", "--label"),
        ("restart", "--restart"),
        ("user", "--user"),
        ("working_dir", "--workdir"),
        ("deploy.replicas", "--replicas"),
        ("deploy.resources.reservations.cpus", "--cpus"),
        ("deploy.resources.limits.cpus", "--cpus"),
        ("deploy.resources.reservations.memory", "--memory"),
        ("deploy.resources.limits.memory", "--memory"),
    ];
    if path.starts_with("deploy.placement.constraints") {
        return Some("--constraint");
    }
    FLAGS
        .iter()
        .find(|(key, _)| path.starts_with(key))
        .map(|(_, flag)| *flag)
}
