//! `deploy`, and the older keys of the service that mean the same.

use std::collections::BTreeMap;

use dunlin_state::desired::MAX_REPLICAS;
use dunlin_state::model::{
    FailureAction, Mode, Placement, Resources, RestartCondition, RestartPolicy, ServiceSpec,
    UpdateOrder, UpdatePolicy,
};

use super::fault::Position;
use super::placement::placement;
use super::read::View;
use super::report::Report;
use super::suggest::closest;
use super::support::{
    DEPLOY, LIMITS, RESERVATIONS, RESOURCES, RESTART_POLICY, ROLLBACK_CONFIG, Section,
    UPDATE_CONFIG,
};
use super::units::{bytes, cpu_millis, duration_ms};

/// The modes of a service, and whether it is a job.
const MODES: &[(&str, (Mode, bool))] = &[
    ("replicated", (Mode::Replicated, false)),
    ("global", (Mode::Global, false)),
    ("replicated-job", (Mode::Replicated, true)),
    ("global-job", (Mode::Global, true)),
];

const ORDERS: &[(&str, UpdateOrder)] = &[
    ("stop-first", UpdateOrder::StopFirst),
    ("start-first", UpdateOrder::StartFirst),
];

const ACTIONS: &[(&str, FailureAction)] = &[
    ("pause", FailureAction::Pause),
    ("continue", FailureAction::Continue),
    ("rollback", FailureAction::Rollback),
];

const CONDITIONS: &[(&str, RestartCondition)] = &[
    ("none", RestartCondition::Never),
    ("on-failure", RestartCondition::OnFailure),
    ("any", RestartCondition::Any),
];

/// A value that the file may give in two places, which must then agree.
#[derive(Debug)]
pub(super) struct Once<T> {
    value: Option<(T, Position, String)>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: None }
    }
}

impl<T: PartialEq + Copy> Once<T> {
    /// Takes the value, or reports that it contradicts the one from elsewhere.
    pub(super) fn set(&mut self, report: &mut Report, view: &View<'_>, value: Option<T>) {
        let Some(value) = value else {
            return;
        };
        match &self.value {
            None => self.value = Some((value, view.at(), view.path.clone())),
            Some((first, _, _)) if *first == value => {}
            Some((_, at, path)) => {
                let text = format!("{} and {path} differ", view.path);
                let related = (*at, "the other one is");
                report.error_related(view.at(), &view.path, text, related);
            }
        }
    }

    pub(super) fn get(&self) -> Option<T> {
        self.value.as_ref().map(|(value, _, _)| *value)
    }

    fn place(&self) -> Option<(Position, &str)> {
        self.value
            .as_ref()
            .map(|(_, at, path)| (*at, path.as_str()))
    }
}

/// Everything that `deploy` and its older forms say.
#[derive(Debug, Default)]
pub(super) struct Deployment {
    pub(super) mode: Mode,
    pub(super) is_job: bool,
    pub(super) replicas: Once<u32>,
    pub(super) limit_cpu: Once<u64>,
    pub(super) limit_memory: Once<u64>,
    pub(super) reserved_cpu: Once<u64>,
    pub(super) reserved_memory: Once<u64>,
    pub(super) placement: Placement,
    pub(super) restart: Option<RestartPolicy>,
    pub(super) update: Option<UpdatePolicy>,
    pub(super) rollback: Option<UpdatePolicy>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Deployment {
    /// Reads `deploy`.
    pub(super) fn read(&mut self, report: &mut Report, view: &View<'_>) {
        for (key, field) in report.section(view, &DEPLOY) {
            match key {
                "mode" => {
                    (self.mode, self.is_job) = report.choice(&field, MODES).unwrap_or_default();
                }
                "replicas" => self.replicas(report, &field),
                "resources" => self.resources(report, &field),
                "placement" => self.placement = placement(report, &field),
                "restart_policy" => self.restart = Some(restart_policy(report, &field)),
                "update_config" => {
                    self.update = Some(update_config(report, &field, &UPDATE_CONFIG));
                }
                "rollback_config" => {
                    self.rollback = Some(update_config(report, &field, &ROLLBACK_CONFIG));
                }
                "labels" => self.labels = labels(report, &field),
                _ => report.unhandled(&field),
            }
        }
    }

    /// Reads a number of replicas.
    pub(super) fn replicas(&mut self, report: &mut Report, view: &View<'_>) {
        let replicas = report.number(view, 0, MAX_REPLICAS);
        self.replicas.set(report, view, replicas);
    }

    fn resources(&mut self, report: &mut Report, view: &View<'_>) {
        for (key, field) in report.section(view, &RESOURCES) {
            match key {
                "limits" => {
                    for (key, field) in report.section(&field, &LIMITS) {
                        match key {
                            "cpus" => cpus(&mut self.limit_cpu, report, &field),
                            "memory" => memory(&mut self.limit_memory, report, &field),
                            _ => report.unhandled(&field),
                        }
                    }
                }
                "reservations" => {
                    for (key, field) in report.section(&field, &RESERVATIONS) {
                        match key {
                            "cpus" => cpus(&mut self.reserved_cpu, report, &field),
                            "memory" => memory(&mut self.reserved_memory, report, &field),
                            _ => report.unhandled(&field),
                        }
                    }
                }
                _ => report.unhandled(&field),
            }
        }
    }

    /// Puts it all into the specification, and returns the number of replicas.
    pub(super) fn apply(self, report: &mut Report, spec: &mut ServiceSpec) -> Option<u32> {
        let replicas = self.replicas.get();
        if let (Mode::Global, Some((at, path))) = (self.mode, self.replicas.place()) {
            let text = "a global service has one replica on every node";
            report.error_hint(at, path, text, "remove the number, or 'mode: global'");
        }
        spec.mode = self.mode;
        spec.limit = Resources {
            cpu_millis: self.limit_cpu.get().unwrap_or(0),
            memory: self.limit_memory.get().unwrap_or(0),
            disk: 0,
        };
        spec.reservation.cpu_millis = self.reserved_cpu.get().unwrap_or(0);
        spec.reservation.memory = self.reserved_memory.get().unwrap_or(0);
        within(report, "CPU", &self.reserved_cpu, &self.limit_cpu);
        within(report, "memory", &self.reserved_memory, &self.limit_memory);
        spec.placement
            .constraints
            .extend(self.placement.constraints);
        spec.placement.max_per_node = self.placement.max_per_node;
        // Those of `x-dunlin` may have been read before.
        spec.placement.spread.extend(self.placement.spread);
        if let Some(restart) = self.restart {
            spec.restart = restart;
        }
        if let Some(update) = self.update {
            spec.update = update;
        }
        spec.rollback = self.rollback;
        for (key, value) in self.labels {
            spec.labels.entry(key).or_insert(value);
        }
        replicas
    }
}

/// Reads a number of cores.
pub(super) fn cpus(slot: &mut Once<u64>, report: &mut Report, view: &View<'_>) {
    let value = report.parsed(view, cpu_millis);
    slot.set(report, view, value);
}

/// Reads an amount of memory.
pub(super) fn memory(slot: &mut Once<u64>, report: &mut Report, view: &View<'_>) {
    let value = report.parsed(view, bytes);
    slot.set(report, view, value);
}

/// Reads labels.
pub(super) fn labels(report: &mut Report, view: &View<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, item) in report.assignments(view) {
        if labels
            .insert(key.clone(), value.unwrap_or_default())
            .is_some()
        {
            report.fault(&item, format!("the label {key} is given twice"));
        }
    }
    labels
}

/// Zero is no limit.
fn within(report: &mut Report, what: &str, reserved: &Once<u64>, limit: &Once<u64>) {
    let (Some(reservation), Some(most)) = (reserved.get(), limit.get()) else {
        return;
    };
    if most == 0 || reservation <= most {
        return;
    }
    if let (Some((at, path)), Some((other, _))) = (reserved.place(), limit.place()) {
        let text = format!("more {what} is reserved than a replica may use");
        report.error_related(at, path, text, (other, "the limit stands"));
    }
}

/// How replicas move to a specification, or back.
fn update_config(report: &mut Report, view: &View<'_>, section: &Section) -> UpdatePolicy {
    let mut policy = UpdatePolicy::default();
    for (key, field) in report.section(view, section) {
        match key {
            "parallelism" => {
                // Docker takes 0 for all at once.
                if let Some(number) = report.number(&field, 0, MAX_REPLICAS) {
                    policy.parallelism = if number == 0 { MAX_REPLICAS } else { number };
                }
            }
            "delay" => set(&mut policy.delay_ms, report.parsed(&field, duration_ms)),
            "monitor" => set(&mut policy.monitor_ms, report.parsed(&field, duration_ms)),
            "order" => set(&mut policy.order, report.choice(&field, ORDERS)),
            "failure_action" => set(&mut policy.failure_action, report.choice(&field, ACTIONS)),
            "max_failure_ratio" => {
                let ratio = report.parsed(&field, permille);
                set(&mut policy.max_failure_permille, ratio);
            }
            _ => report.unhandled(&field),
        }
    }
    policy
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn permille(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        // Between 0 and 1000 after the check.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok((ratio * 1_000.0).round() as u32),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a ratio from 0 to 1")),
    }
}

fn restart_policy(report: &mut Report, view: &View<'_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    for (key, field) in report.section(view, &RESTART_POLICY) {
        match key {
            "condition" => {
                policy.condition = report.choice(&field, CONDITIONS).unwrap_or_default();
            }
            "delay" => {
                if let Some(ms) = report.parsed(&field, duration_ms) {
                    policy.delay_ms = ms;
                }
            }
            "max_attempts" => {
                // Docker takes 0 for no limit.
                policy.max_attempts = report.number(&field, 0, u32::MAX).filter(|n| *n > 0);
            }
            "window" => {
                if let Some(ms) = report.parsed(&field, duration_ms) {
                    policy.window_ms = ms;
                }
            }
            _ => report.unhandled(&field),
        }
    }
    policy
}

/// Reads `restart`.
pub(super) fn restart(report: &mut Report, view: &View<'_>) -> Option<RestartPolicy> {
    let text = report.filled(view)?;
    let (word, attempts) = match text.split_once(':') {
        Some((word, attempts)) => (word, Some(attempts)),
        None => (text, None),
    };
    let condition = match (word, attempts) {
        ("no", None) => Some(RestartCondition::Never),
        ("always" | "unless-stopped", None) => Some(RestartCondition::Any),
        ("on-failure", _) => Some(RestartCondition::OnFailure),
        _ => None,
    };
    let Some(condition) = condition else {
        let words = ["no", "always", "on-failure", "unless-stopped"];
        let hint = match closest(word, words.into_iter()) {
            Some(near) if near != word => format!("did you mean '{near}'?"),
            Some(_) | None => "use no, always, on-failure[:attempts] or unless-stopped".to_owned(),
        };
        report.fault_hint(view, format!("unknown restart policy '{text}'"), hint);
        return None;
    };
    let mut policy = RestartPolicy {
        condition,
        ..RestartPolicy::default()
    };
    if let Some(attempts) = attempts {
        match attempts.parse::<u32>() {
            Ok(attempts) => policy.max_attempts = Some(attempts).filter(|n| *n > 0),
            Err(_) => report.fault(view, format!("'{attempts}' is not a number of attempts")),
        }
    }
    Some(policy)
}
