//! Waiting until services are as wanted, and telling how far they are.
//!
//! On a terminal each service has a line that moves; elsewhere a line is printed whenever something
//! changed. A service that takes long gets its reason beside it. Nothing that happens here changes
//! the cluster: whoever stops waiting leaves the work going on.

mod display;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use dunlin_api::client::{Client, ClientError};
use dunlin_api::{ConvergenceQuery, Exit, ServiceProgress};
use dunlin_state::model::ServiceKey;
use serde::Serialize;
use tokio::time::Instant;

use self::display::{Display, Line};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::duration;
use crate::words;

/// Time between two questions at first: a person sees no shorter steps.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Time between two questions once it is slow: an hour of waiting must not load a small host.
const ASK_EVERY_SLOWLY: Duration = Duration::from_millis(500);

/// After so long a service that is not there gets its reason shown. Shorter waits are normal, and
/// their reasons would only flicker.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// A daemon that was there may be away for so long, as in a restart, before the waiting ends.
const AWAY_FOR: Duration = Duration::from_secs(10);

/// A service that was changed may be missing from answers for so long; later it has been removed.
const MISSING_FOR: Duration = Duration::from_secs(2);

/// What is as wanted has to stay so for this long before it counts: a program that ends at once runs
/// for a moment too. Longer would only be felt; what fails later is shown by `dunlin ps`.
const SETTLE: Duration = Duration::from_secs(1);

/// Words of commands that wait.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Do not wait until the change is carried out
    #[arg(short, long)]
    pub detach: bool,
    /// Give up waiting after this time, with exit code 4; 0 waits for ever
    #[arg(long, default_value = "10m", value_parser = words::duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    service: ServiceKey,
    revision: Option<String>,
    wanted: Option<u32>,
    started: bool,
}

impl Target {
    /// Whatever is wanted of this service.
    pub(crate) fn new(service: ServiceKey) -> Self {
        Self {
            service,
            revision: None,
            wanted: None,
            started: false,
        }
    }

    /// This specification, so that an answer from before the change does not count.
    #[must_use]
    pub(crate) fn of_revision(mut self, revision: String) -> Self {
        self.revision = Some(revision);
        self
    }

    /// This number of replicas, for the same reason.
    #[must_use]
    pub(crate) fn of_scale(mut self, replicas: u32) -> Self {
        self.wanted = Some(replicas);
        self
    }

    /// At least one replica, for the same reason.
    #[must_use]
    pub(crate) fn started(mut self) -> Self {
        self.started = true;
        self
    }

    fn is_reached(&self, progress: &ServiceProgress) -> bool {
        progress.converged && self.is_about(progress)
    }

    /// Whether the answer is about the change that this command made.
    fn is_about(&self, progress: &ServiceProgress) -> bool {
        self.revision
            .as_ref()
            .is_none_or(|r| *r == progress.revision)
            && self.wanted.is_none_or(|w| w == progress.wanted)
            && (!self.started || progress.wanted > 0)
    }
}

/// How the waiting ended, for programs.
#[derive(Debug, Serialize)]
struct Summary {
    converged: bool,
    elapsed_ms: u64,
    services: Vec<ServiceProgress>,
}

/// Waits, telling the progress, and then tells how it ended.
pub(crate) async fn wait(
    targets: &[Target],
    args: &WaitArgs,
    context: &mut Context,
) -> Result<Exit, Failure> {
    if args.detach {
        return detached(targets, context);
    }
    let mut watch = Watch::new(targets, context);
    let waited = tokio::select! {
        waited = watch.run(args.timeout, context) => Some(waited?),
        _ = tokio::signal::ctrl_c() => None,
    };
    watch.display.clear();
    match waited {
        Some(exit) => {
            watch.tell_end(exit, context)?;
            Ok(exit)
        }
        None => {
            let note = "Not waiting any longer; the cluster goes on with it. See `dunlin ls`.";
            context.out.note(note)?;
            Ok(Exit::Interrupted)
        }
    }
}

fn detached(targets: &[Target], context: &mut Context) -> Result<Exit, Failure> {
    let names: Vec<String> = targets
        .iter()
        .map(|t| context.display(&t.service))
        .collect();
    if context.json {
        context
            .out
            .json(&serde_json::json!({ "detached": true, "services": names }))?;
    } else {
        for name in names {
            context.out.line(name)?;
        }
    }
    Ok(Exit::Ok)
}

struct Watch<'t> {
    targets: &'t [Target],
    query: ConvergenceQuery,
    started: Instant,
    newest: BTreeMap<ServiceKey, ServiceProgress>,
    display: Display,
    away_since: Option<Instant>,
    /// Since when everything has been as wanted, if it is.
    reached: Option<Instant>,
}

impl<'t> Watch<'t> {
    fn new(targets: &'t [Target], context: &Context) -> Self {
        let names = targets.iter().map(|t| context.display(&t.service));
        Self {
            targets,
            query: query(targets),
            started: Instant::now(),
            newest: BTreeMap::new(),
            display: Display::new(names.collect(), context.out.look().live && !context.json),
            away_since: None,
            reached: None,
        }
    }

    async fn run(&mut self, timeout: Duration, context: &mut Context) -> Result<Exit, Failure> {
        let client = context.client.clone();
        loop {
            self.ask(&client).await?;
            let slow = self.started.elapsed() >= SLOW_AFTER;
            self.show(slow, context)?;
            if self.targets.iter().all(|t| self.is_reached(t)) {
                let reached = *self.reached.get_or_insert_with(Instant::now);
                if reached.elapsed() >= SETTLE || !self.could_fail() {
                    return Ok(Exit::Ok);
                }
            } else {
                self.reached = None;
                if let Some(exit) = self.check_halted(context)? {
                    return Ok(exit);
                }
                self.check_missing(context)?;
                if !timeout.is_zero() && self.started.elapsed() >= timeout {
                    return Ok(Exit::TimedOut);
                }
            }
            let settling = self.reached.is_some();
            tokio::time::sleep(if slow && !settling {
                ASK_EVERY_SLOWLY
            } else {
                ASK_EVERY
            })
            .await;
        }
    }

    async fn ask(&mut self, client: &Client) -> Result<(), ClientError> {
        match client.convergence(&self.query).await {
            Ok(services) => {
                self.away_since = None;
                self.newest = services
                    .into_iter()
                    .map(|p| (p.service.clone(), p))
                    .collect();
                Ok(())
            }
            Err(error) if error.exit() == Exit::Unreachable => {
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() < AWAY_FOR {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    fn is_reached(&self, target: &Target) -> bool {
        let progress = self.newest.get(&target.service);
        progress.is_some_and(|p| target.is_reached(p))
    }

    /// Whether anything runs that could end before long.
    fn could_fail(&self) -> bool {
        let mut known = self.targets.iter();
        known.any(|t| self.newest.get(&t.service).is_some_and(|p| p.wanted > 0))
    }

    /// A rollout that goes no further, or that was undone, is not waited for.
    fn check_halted(&self, context: &mut Context) -> Result<Option<Exit>, Failure> {
        for target in self.targets.iter().filter(|t| t.revision.is_some()) {
            let progress = self.newest.get(&target.service);
            if let Some(progress) = progress
                && let Some(why) = &progress.halted
            {
                let name = context.display(&target.service);
                context.out.note(format!("{name}: {why}"))?;
                context.out.note(format!(
                    "see `dunlin rollout status {name}` and `dunlin explain {name}`"
                ))?;
                return Ok(Some(Exit::Failed));
            }
        }
        Ok(None)
    }

    fn check_missing(&self, context: &Context) -> Result<(), Failure> {
        if self.away_since.is_some() || self.started.elapsed() < MISSING_FOR {
            return Ok(());
        }
        let missing = self
            .targets
            .iter()
            .find(|t| !self.newest.contains_key(&t.service));
        match missing {
            None => Ok(()),
            Some(target) => Err(Failure::Refused {
                message: format!(
                    "{} has been removed meanwhile",
                    context.display(&target.service)
                ),
                hint: None,
            }),
        }
    }

    fn show(&mut self, slow: bool, context: &mut Context) -> Result<(), Failure> {
        for (index, target) in self.targets.iter().enumerate() {
            let line = match self.newest.get(&target.service) {
                Some(progress) => line(target, progress, slow),
                None => Line::waiting(),
            };
            let changed = self.display.set(index, line);
            if let Some(text) = changed
                && !context.json
            {
                context.out.note(text)?;
            }
        }
        Ok(())
    }

    fn tell_end(&self, exit: Exit, context: &mut Context) -> Result<(), Failure> {
        let until = self.reached.unwrap_or_else(Instant::now);
        let elapsed = until.duration_since(self.started).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        if context.json {
            let all = self
                .targets
                .iter()
                .filter_map(|t| self.newest.get(&t.service));
            context.out.json(&Summary {
                converged: exit == Exit::Ok,
                elapsed_ms: elapsed,
                services: all.cloned().collect(),
            })?;
            return Ok(());
        }
        if exit == Exit::Ok {
            let names: Vec<String> = self
                .targets
                .iter()
                .map(|t| context.display(&t.service))
                .collect();
            let text = format!("{} as wanted after {}", names.join(", "), duration(elapsed));
            context.out.line(text)?;
            return Ok(());
        }
        context
            .out
            .note(format!("not as wanted after {}:", duration(elapsed)))?;
        for target in self.targets.iter().filter(|t| !self.is_reached(t)) {
            let name = context.display(&target.service);
            let state = match self.newest.get(&target.service) {
                Some(progress) => line(target, progress, true).text(),
                None => "nothing is known of it".to_owned(),
            };
            context.out.note(format!("  {name}: {state}"))?;
            context.out.note(format!("  see `dunlin explain {name}`"))?;
        }
        context.out.note("the cluster goes on with it")?;
        Ok(())
    }
}

fn line(target: &Target, progress: &ServiceProgress, slow: bool) -> Line {
    let reason = match (slow, target.is_about(progress)) {
        (false, _) => None,
        (true, true) => progress.reason.clone(),
        (true, false) => Some("someone else has changed it meanwhile".to_owned()),
    };
    Line {
        ready: progress.ready,
        updated: progress.updated,
        wanted: progress.wanted,
        done: target.is_reached(progress),
        reason: if progress.converged && target.is_about(progress) {
            None
        } else {
            reason
        },
    }
}

/// The narrowest question that covers all targets.
fn query(targets: &[Target]) -> ConvergenceQuery {
    if let [one] = targets {
        return ConvergenceQuery {
            service: Some(one.service.clone()),
            ..ConvergenceQuery::default()
        };
    }
    let mut namespaces = targets.iter().map(|t| t.service.namespace());
    let first = namespaces.next();
    let same = namespaces.all(|n| Some(n) == first);
    ConvergenceQuery {
        namespace: first.filter(|_| same).map(str::to_owned),
        ..ConvergenceQuery::default()
    }
}
