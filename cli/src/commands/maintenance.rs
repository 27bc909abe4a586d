//! `dunlin maintenance`

use clap::{Args, Subcommand};
use dunlin_api::{Exit, MaintenanceRequest, NamedWindow, Node};
use dunlin_state::model::{Opens, Window};
use dunlin_state::windows;

use crate::compose::duration_ms;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin maintenance`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MaintenanceCommand,
}

/// What to do with maintenance windows.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Drain a node at a time, once or again and again; afterwards it takes work again by itself
    Add(AddArgs),
    /// List the windows of all nodes, or of one
    Ls(LsArgs),
    /// Remove windows; one that is open ends at once
    Rm(RmArgs),
}

/// Words of `dunlin maintenance add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The node
    pub node: String,
    /// When it begins, once, such as '2026-12-01 02:00'
    #[arg(
        long,
        value_name = "TIME",
        required_unless_present = "cron",
        conflicts_with = "cron"
    )]
    pub at: Option<String>,
    /// When it begins, again and again, as in crontab: '0 2 * * sun'
    #[arg(long, value_name = "PATTERN")]
    pub cron: Option<String>,
    /// How long it lasts, such as 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration_ms)]
    pub lasts: u64,
    /// Whose clocks show that time, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub time_zone: String,
}

/// Words of `dunlin maintenance ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The node; all when absent
    pub node: Option<String>,
}

/// Words of `dunlin maintenance rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The node
    pub node: String,
    /// The windows, as `dunlin maintenance ls` names them
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// Adds, lists or removes windows.
pub async fn run(args: &MaintenanceArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.command {
        MaintenanceCommand::Add(args) => add(args, context).await,
        MaintenanceCommand::Ls(args) => list(args, context).await,
        MaintenanceCommand::Rm(args) => {
            let request = MaintenanceRequest {
                remove: args.ids.clone(),
                ..MaintenanceRequest::default()
            };
            send(&args.node, &request, context).await
        }
    }
}

async fn add(args: &AddArgs, context: &mut Context) -> Result<Exit, Failure> {
    let bad = |error: windows::BadWindow| Failure::usage(error.to_string());
    let opens = match (&args.at, &args.cron) {
        (Some(at), _) => Opens::At(windows::instant(at, &args.time_zone).map_err(bad)?),
        (None, cron) => Opens::Cron {
            cron: cron.clone().unwrap_or_default(),
            timezone: args.time_zone.clone(),
        },
    };
    let window = Window {
        opens,
        lasts_ms: args.lasts,
    };
    windows::check(std::slice::from_ref(&window)).map_err(bad)?;
    let request = MaintenanceRequest {
        add: vec![window],
        ..MaintenanceRequest::default()
    };
    send(&args.node, &request, context).await
}

async fn send(
    node: &str,
    request: &MaintenanceRequest,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let answer = context.client.set_maintenance(node, request).await?;
    if context.json {
        context.out.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let word = match answer.changed {
        true => "changed",
        false => "as they were",
    };
    context.out.line(format!("windows of {node}: {word}"))?;
    Ok(Exit::Ok)
}

async fn list(args: &LsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let mut nodes = context.client.nodes().await?;
    if let Some(wanted) = &args.node {
        nodes.retain(|node| node.name == *wanted || node.id.to_string().starts_with(wanted));
        if nodes.is_empty() {
            return Err(Failure::usage(format!("no node is called '{wanted}'")));
        }
    }
    if context.json {
        let all = nodes.iter().map(|node| (&node.name, &node.maintenance));
        context.out.json(&all.collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["NODE", "ID", "OPENS", "LASTS", "STATE"]);
    for node in &nodes {
        for window in &node.maintenance.windows {
            table.row([
                Cell::from(&node.name),
                Cell::from(&window.id),
                Cell::from(opens(window)),
                Cell::from(lasts(window.window.lasts_ms)),
                state(node),
            ]);
        }
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn opens(named: &NamedWindow) -> String {
    match &named.window.opens {
        Opens::At(at) => windows::in_words(*at),
        Opens::Cron { cron, timezone } => format!("{cron} {timezone}"),
    }
}

/// How long a window is open, to the second.
fn lasts(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    let parts = [
        (seconds / 3_600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    parts
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

fn state(node: &Node) -> Cell {
    let maintenance = &node.maintenance;
    match (maintenance.until, maintenance.next) {
        (Some(until), _) => {
            let text = format!("in maintenance until {}", windows::in_words(until));
            Cell::toned(text, Tone::Warn)
        }
        (None, Some(next)) => Cell::from(format!("next {}", windows::in_words(next))),
        (None, None) => Cell::from("over"),
    }
}
