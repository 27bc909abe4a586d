//! A service of the file, turned into a specification.

use dunlin_state::desired::{SpecFault, check_spec};
use dunlin_state::model::{
    Constraint, ConstraintOp, ItemKind, Mode, RuntimeKind, Schedule, ServiceKey, ServiceSpec,
};

use super::deploy::{Deployment, cpus, labels, memory, restart};
use super::environment::environment;
use super::fault::Position;
use super::health::{health, own_health};
use super::ports::{PlacedPort, ports};
use super::read::View;
use super::report::Report;
use super::support::{LIVENESS, READINESS, SERVICE, SERVICE_DUNLIN};
use super::traffic;
use super::units::{bytes, duration_ms};
use super::volumes::mounts;
use super::words::{Unsplittable, split};
use super::{ProjectService, Scope, autoscale, depend, items, job, networks, policy, wishes};

/// Longest image reference: those of registries stay below 300 characters.
const MAX_IMAGE_CHARS: usize = 512;

/// Signals that may ask a replica to stop, by name without `SIG` and by number on Linux.
const SIGNALS: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("WINCH", 28),
    ("PWR", 30),
];

/// A service, and where its ports are written.
pub(super) struct Read {
    pub(super) service: ProjectService,
    pub(super) ports: Vec<PlacedPort>,
    pub(super) depends_on: Vec<depend::Placed>,
    /// Whether anything is said of restarts.
    pub(super) restart_said: bool,
    pub(super) at: Position,
    pub(super) path: String,
}

/// Reads one service. `None` when its profiles are not active.
pub(super) fn service(
    report: &mut Report,
    scope: &Scope<'_>,
    key: &ServiceKey,
    view: &View<'_>,
) -> Option<Read> {
    let faults = report.faults();
    let mut reader = Reader::default();
    for (name, field) in report.section(view, &SERVICE) {
        reader.field(report, scope, key, name, &field);
    }
    if let Some(profiles) = &reader.profiles
        && !profiles.iter().any(|p| scope.profiles.contains(p))
    {
        let text = format!(
            "the service was left out: none of its profiles ({}) is in COMPOSE_PROFILES",
            profiles.join(", ")
        );
        report.warn_key(view, text);
        return None;
    }
    let environment = reader.environment.clone().or(reader.env_file.clone());
    let autoscale = reader.autoscale.clone();
    let read = reader.finish(report, scope, key, view);
    if report.faults() == faults
        && let Err(fault) = check_spec(&read.service.spec)
    {
        // What the readers let through and the cluster would refuse: bounds, above all.
        let place = match (&fault, &environment) {
            (SpecFault::EnvironmentTooLarge { .. }, Some(environment)) => environment,
            (SpecFault::BadAutoscale(_), _) => autoscale.as_ref().unwrap_or(view),
            _ => view,
        };
        report.error(place.key_at, &place.path, fault.to_string());
    }
    Some(read)
}

#[derive(Default)]
struct Reader<'n> {
    spec: ServiceSpec,
    deployment: Deployment,
    profiles: Option<Vec<String>>,
    restart: Option<View<'n>>,
    environment: Option<View<'n>>,
    env_file: Option<View<'n>>,
    ports: Option<View<'n>>,
    depends_on: Vec<depend::Placed>,
    schedule: Option<Schedule>,
    expose: Option<View<'n>>,
    image: Option<View<'n>>,
    runtime: Option<View<'n>>,
    build: Option<View<'n>>,
    autoscale: Option<View<'n>>,
}

impl<'n> Reader<'n> {
    fn field(
        &mut self,
        report: &mut Report,
        scope: &Scope<'_>,
        key: &ServiceKey,
        name: &str,
        field: &View<'n>,
    ) {
        let spec = &mut self.spec;
        match name {
            "image" => {
                self.image = Some(field.clone());
                spec.image = report.parsed(field, image).unwrap_or_default();
            }
            "command" => spec.command = command(report, field),
            "entrypoint" => spec.entrypoint = command(report, field),
            "environment" => self.environment = Some(field.clone()),
            "env_file" => self.env_file = Some(field.clone()),
            "ports" => self.ports = Some(field.clone()),
            "depends_on" => self.depends_on = depend::depends_on(report, key, field),
            "expose" => self.expose = Some(field.clone()),
            "deploy" => self.deployment.read(report, field),
            "scale" => self.deployment.replicas(report, field),
            "restart" => self.restart = Some(field.clone()),
            "labels" => spec.labels = labels(report, field),
            "healthcheck" => spec.health = health(report, field),
            "volumes" => spec.volumes = mounts(report, scope, field),
            "networks" => spec.networks = networks::joined(report, scope, field),
            "secrets" => spec.secrets = items::mounts(report, scope, ItemKind::Secret, field),
            "configs" => spec.configs = items::mounts(report, scope, ItemKind::Config, field),
            "stop_signal" => spec.stop_signal = report.parsed(field, signal),
            "stop_grace_period" => spec.stop_grace_ms = report.parsed(field, grace_ms),
            "user" => spec.user = report.line(field).map(str::to_owned),
            "working_dir" => spec.working_dir = report.parsed(field, absolute),
            "hostname" => spec.hostname = report.parsed(field, hostname),
            "cpus" => cpus(&mut self.deployment.limit_cpu, report, field),
            "mem_limit" => memory(&mut self.deployment.limit_memory, report, field),
            "mem_reservation" => memory(&mut self.deployment.reserved_memory, report, field),
            "platform" => {
                let constraints = report.parsed(field, platform).unwrap_or_default();
                spec.placement.constraints.extend(constraints);
            }
            "profiles" => {
                let items = report.list(field);
                let names = items.iter().filter_map(|item| report.filled(item));
                self.profiles = Some(names.map(str::to_owned).collect());
            }
            "build" => self.build = Some(field.clone()),
            "x-dunlin" => self.dunlin(report, key, field),
            _ => report.unhandled(field),
        }
    }

    /// Reads `x-dunlin`.
    fn dunlin(&mut self, report: &mut Report, key: &ServiceKey, view: &View<'n>) {
        let runtimes = [
            ("process", RuntimeKind::Process),
            ("docker", RuntimeKind::Docker),
            ("auto", RuntimeKind::Auto),
        ];
        for (name, field) in report.section(view, &SERVICE_DUNLIN) {
            match name {
                "runtime" => {
                    self.spec.runtime = report.choice(&field, &runtimes).unwrap_or_default();
                    self.runtime = Some(field);
                }
                "disk" => {
                    self.spec.reservation.disk = report.parsed(&field, bytes).unwrap_or_default();
                }
                "secret_signal" => self.spec.secret_signal = report.parsed(&field, signal),
                "stop_delay" => self.spec.drain_ms = report.parsed(&field, grace_ms),
                "readiness" => {
                    self.spec.readiness = own_health(report, &field, &READINESS);
                }
                "liveness" => self.spec.liveness = own_health(report, &field, &LIVENESS),
                "job" => self.spec.job = Some(Box::new(job::job(report, &field))),
                "autoscale" => {
                    self.spec.autoscale = autoscale::autoscale(report, &field).map(Box::new);
                    self.autoscale = Some(field);
                }
                "hooks" => self.spec.hooks = Some(Box::new(job::hooks(report, &field))),
                "schedule" => self.schedule = Some(job::schedule(report, &field)),
                name if policy::read(report, name, &field, &mut self.spec.policy) => {}
                name if wishes::read(report, key, name, &field, &mut self.spec.placement) => {}
                name if traffic::read(report, key, name, &field, &mut self.spec.traffic) => {}
                _ => report.unhandled(&field),
            }
        }
    }

    fn finish(
        mut self,
        report: &mut Report,
        scope: &Scope<'_>,
        key: &ServiceKey,
        view: &View<'_>,
    ) -> Read {
        if let Some(field) = &self.restart {
            if let Some(policy) = restart(report, field) {
                self.spec.restart = policy;
            }
            if self.deployment.restart.is_some() {
                let text = "restart was ignored: deploy.restart_policy goes before it";
                report.warn_key(field, text);
            }
        }
        self.spec.environment = environment(
            report,
            scope,
            self.env_file.as_ref(),
            self.environment.as_ref(),
        );
        let ports = ports(report, self.ports.as_ref(), self.expose.as_ref());
        self.spec.ports = ports.iter().map(|p| p.spec.clone()).collect();
        self.runnable(report, view);
        let restart_said = self.restart.is_some() || self.deployment.restart.is_some();
        let is_job = self.deployment.is_job;
        let replicas = self.deployment.apply(report, &mut self.spec);
        if is_job {
            job::by_mode(&mut self.spec, replicas);
        }
        if let Some(schedule) = self.schedule {
            let job = self.spec.job.get_or_insert_default();
            job.schedule = Some(schedule);
        }
        let lasting = self.spec.mode == Mode::Replicated && self.spec.job.is_none();
        let replicas = replicas.filter(|_| lasting);
        let service = ProjectService {
            key: key.clone(),
            spec: self.spec,
            replicas,
        };
        Read {
            service,
            ports,
            depends_on: self.depends_on,
            restart_said,
            at: view.key_at,
            path: view.path.clone(),
        }
    }

    /// Checks that there is something to run.
    fn runnable(&mut self, report: &mut Report, view: &View<'_>) {
        let process = self.spec.runtime == RuntimeKind::Process;
        let faulty_runtime = self.runtime.is_some() && self.spec.runtime == RuntimeKind::Auto;
        if process && self.spec.command.is_empty() && self.spec.entrypoint.is_empty() {
            let text = "a service of the process runtime needs a command";
            report.error(view.key_at, &view.path, text);
        }
        if process && let Some(image) = &self.image {
            report.warn_key(image, "image was ignored: the process runtime uses none");
            self.spec.image.clear();
        }
        if process || self.image.is_some() {
            if let Some(build) = &self.build {
                let text = "build is not honoured yet and was ignored: build the image and push \
                            it where the nodes can pull it";
                report.warn_key(build, text);
            }
            return;
        }
        if let Some(build) = &self.build {
            let hint = "build the image, push it where the nodes can pull it, and name it with \
                        'image:'";
            let text = "Dunlin builds no images";
            report.error_hint(build.key_at, &build.path, text, hint);
            return;
        }
        let hint = if faulty_runtime || self.spec.runtime == RuntimeKind::Docker {
            "add 'image:'"
        } else {
            "add 'image:', or 'x-dunlin: {runtime: process}' to run 'command:' on the host itself"
        };
        report.error_hint(view.key_at, &view.path, "the service has no image", hint);
    }
}

/// A command: a list of words, or a line that is split into words.
pub(super) fn command(report: &mut Report, view: &View<'_>) -> Vec<String> {
    if view.is_null() {
        return Vec::new();
    }
    let words = if view.is_list() {
        let items = report.list(view);
        let words = items.iter().filter_map(|item| report.text(item));
        words.map(str::to_owned).collect()
    } else {
        let Some(line) = report.text(view) else {
            return Vec::new();
        };
        match split(line) {
            Ok(words) => {
                if let Some(c) = words.shell_syntax {
                    let text = format!(
                        "no shell runs this, so '{c}' is passed on as it is: write \
                         [\"sh\", \"-c\", \"…\"] if a shell should"
                    );
                    report.warn(view.at(), &view.path, text);
                }
                words.words
            }
            Err(Unsplittable::Quote(quote)) => {
                report.fault(view, format!("the quote {quote} is not closed"));
                return Vec::new();
            }
            Err(Unsplittable::Backslash) => {
                report.fault(view, "nothing follows the last backslash");
                return Vec::new();
            }
        }
    };
    let words: Vec<String> = words;
    if words.is_empty() {
        let text = "an empty command does not clear that of the image, and was ignored";
        report.warn_key(view, text);
    } else if words[0].is_empty() {
        report.fault(view, "the program to run is empty");
    }
    words
}

fn image(text: &str) -> Result<String, String> {
    let shown: String = text.chars().take(64).collect();
    let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]+".contains(c);
    if let Some(bad) = text.chars().find(|c| !known(*c)) {
        let bad = bad.escape_debug();
        return Err(format!(
            "'{shown}' is not an image reference: it has '{bad}'"
        ));
    }
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !starts || !ends || text.len() > MAX_IMAGE_CHARS {
        return Err(format!("'{shown}' is not an image reference"));
    }
    Ok(text.to_owned())
}

fn signal(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name);
    let number = text.parse::<u8>().ok();
    let by_number = SIGNALS.iter().find(|(_, n)| Some(*n) == number);
    match by_name.or(by_number) {
        Some((name, _)) => Ok(format!("SIG{name}")),
        None => Err(format!(
            "'{text}' is not a signal; write for example 'SIGINT'"
        )),
    }
}

/// Longest grace, in milliseconds: a drain waits for it.
const MAX_GRACE_MS: u64 = 3_600_000;

fn grace_ms(text: &str) -> Result<u64, String> {
    match duration_ms(text)? {
        ms if ms > MAX_GRACE_MS => Err(format!("'{text}' is longer than an hour")),
        ms => Ok(ms),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}' is not an absolute path"))
    }
}

fn hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}' is not a host name (RFC 1123)"))
    }
}

/// `os[/arch[/variant]]`, as constraints. Nodes do not tell variants apart.
fn platform(text: &str) -> Result<Vec<Constraint>, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    if parts.len() > 3 || !parts.iter().all(word) {
        return Err(format!(
            "'{text}' is not a platform; write for example 'linux/arm64'"
        ));
    }
    let keys = ["node.platform.os", "node.platform.arch"];
    let pairs = keys.iter().zip(&parts);
    let constraints = pairs.map(|(key, value)| Constraint::new(*key, ConstraintOp::Equal, *value));
    Ok(constraints.collect())
}
