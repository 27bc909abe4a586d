//! `dunlin job`

use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_api::{Exit, JobQuery, JobRun, JobSummary};
use dunlin_state::desired::Outcome;
use dunlin_state::model::{RunId, ServiceKey};

use super::logs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, timestamp};

/// How often is asked whether a run has ended: a person does not notice less.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Words of `dunlin job`.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// What to do
    #[command(subcommand)]
    pub step: Step,
}

/// What to do with a job.
#[derive(Debug, Subcommand)]
pub enum Step {
    /// Run a job now, and wait for its end
    Run(RunArgs),
    /// List jobs and their runs
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show what the replicas of a run write
    Logs(LogsArgs),
    /// End a run, or keep it from beginning
    Cancel(CancelArgs),
}

/// Words of `dunlin job run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The job
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
}

/// Words of `dunlin job ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only the runs of this job
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Words of `dunlin job logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The run; the newest one when absent
    pub run: Option<String>,
    /// Go on with lines as they are written
    #[arg(short, long)]
    pub follow: bool,
    /// Begin each line with its time
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Words of `dunlin job cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The run
    pub run: String,
}

/// Runs, lists, shows or cancels.
pub async fn run(args: &JobArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.step {
        Step::Run(args) => begin(args, context).await,
        Step::Ls(args) => list(args, context).await,
        Step::Logs(args) => show_logs(args, context).await,
        Step::Cancel(args) => cancel(args, context).await,
    }
}

async fn begin(args: &RunArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let asked = context.client.run_job(&key).await?;
    let name = context.display(&key);
    if args.detach {
        match context.json {
            true => context.out.json(&asked)?,
            false => context
                .out
                .line(format!("{name}: run {} is asked for", asked.run))?,
        }
        return Ok(Exit::Ok);
    }
    let ended = loop {
        let job = one(&key, context).await?;
        let found = job.runs.into_iter().find(|run| run.run == asked.run);
        if let Some(run) = found.filter(|run| run.outcome.is_some()) {
            break run;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if context.json {
        context.out.json(&ended)?;
    } else {
        let (state, _) = state(&ended);
        let reason = ended.reason.as_ref().map(|reason| format!(": {reason}"));
        let reason = reason.unwrap_or_default();
        context
            .out
            .line(format!("{name}: run {} {state}{reason}", ended.run))?;
    }
    Ok(match ended.outcome {
        Some(Outcome::Succeeded) => Exit::Ok,
        Some(Outcome::Failed | Outcome::Cancelled) | None => Exit::Failed,
    })
}

async fn one(key: &ServiceKey, context: &mut Context) -> Result<JobSummary, Failure> {
    let query = JobQuery {
        namespace: None,
        service: Some(key.clone()),
    };
    let mut jobs = context.client.jobs(&query).await?;
    jobs.pop()
        .ok_or_else(|| Failure::usage(format!("{key} is no job")))
}

async fn list(args: &LsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let service = args.service.as_deref();
    let query = JobQuery {
        service: service.map(|text| context.service(text)).transpose()?,
        namespace: match service {
            Some(_) => None,
            None => context.namespace.clone(),
        },
    };
    let jobs = context.client.jobs(&query).await?;
    if context.json {
        context.out.json(&jobs)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["JOB", "RUN", "STATUS", "DONE", "AGE", "NEXT", "MESSAGE"])
        .prose(&["MESSAGE"])
        .optional(&["AGE"]);
    for job in &jobs {
        let name = context.display(&job.service);
        let next = job.next.map(|at| timestamp(at)[..19].replace('T', " "));
        let next = next.map(|at| format!("{at} UTC")).unwrap_or_default();
        if job.runs.is_empty() {
            let status = match job.running {
                true => Cell::toned("idle", Tone::Dim),
                false => Cell::toned("stopped", Tone::Dim),
            };
            let schedule = job.schedule.clone().unwrap_or_default();
            let (nothing, age) = (Cell::from(""), Cell::from(""));
            let done = Cell::from("");
            table.row([
                Cell::from(name),
                nothing,
                status,
                done,
                age,
                Cell::from(next),
                Cell::from(schedule),
            ]);
            continue;
        }
        for run in &job.runs {
            table.row(row(&name, &next, run, context));
        }
    }
    context.out.table(&table)?;
    if args.service.is_some() {
        show_outputs(&jobs, context)?;
    }
    Ok(Exit::Ok)
}

/// What runs have told, below the table: values are as long as they like.
fn show_outputs(jobs: &[JobSummary], context: &mut Context) -> Result<(), Failure> {
    let runs = jobs.iter().flat_map(|job| &job.runs);
    for run in runs.filter(|run| !run.outputs.is_empty()) {
        context.out.line(format!("\nOutputs of {}:", run.run))?;
        for (name, value) in run.outputs.iter() {
            context.out.line(format!("  {name}={value}"))?;
        }
    }
    Ok(())
}

fn row(name: &str, next: &str, run: &JobRun, context: &Context) -> [Cell; 7] {
    let (text, tone) = state(run);
    let age = run.since.map(|at| context.out.age(at));
    [
        Cell::from(name),
        Cell::from(&run.run),
        Cell::toned(text, tone),
        Cell::from(format!("{}/{}", run.done, run.completions)),
        Cell::from(age.unwrap_or_default()),
        Cell::from(next),
        Cell::from(run.reason.clone().unwrap_or_default()),
    ]
}

fn state(run: &JobRun) -> (&'static str, Tone) {
    match run.outcome {
        Some(Outcome::Succeeded) => ("succeeded", Tone::Good),
        Some(Outcome::Failed) => ("failed", Tone::Bad),
        Some(Outcome::Cancelled) => ("cancelled", Tone::Dim),
        None if run.active > 0 => ("running", Tone::Warn),
        None => ("waiting", Tone::Warn),
    }
}

async fn show_logs(args: &LogsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let run = match &args.run {
        Some(run) => run.clone(),
        None => {
            let newest = one(&key, context).await?.runs.pop();
            let none = || Failure::usage(format!("{} has not run yet", args.service));
            newest.ok_or_else(none)?.run
        }
    };
    let run: RunId = run.parse().map_err(|e| Failure::usage(format!("{e}")))?;
    let long = || Failure::usage(format!("{run} is no run of {}", args.service));
    let service = run.service(&key).ok_or_else(long)?;
    let words = logs::LogsArgs {
        follow: args.follow,
        tail: logs::Tail::All,
        since: None,
        timestamps: args.timestamps,
        service: service.to_string(),
    };
    logs::run(&words, context).await
}

async fn cancel(args: &CancelArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let run: RunId = args
        .run
        .parse()
        .map_err(|e| Failure::usage(format!("{e}")))?;
    let changed = context.client.cancel_run(&key, &run).await?;
    if context.json {
        context.out.json(&changed)?;
    } else {
        let name = context.display(&key);
        let text = match changed.changed {
            true => format!("{name}: run {run} is cancelled"),
            false => format!("{name}: run {run} has ended already"),
        };
        context.out.line(text)?;
    }
    Ok(Exit::Ok)
}
