//! What people deploy: a specification for each kind of service, by its number.

use dunlin_state::model::{
    Aim, Autoscale, CatchUp, Condition, Constraint, ConstraintOp, Dependency, FailureAction,
    HealthCheck, HealthTest, Hook, Hooks, HttpTest, Job, Metric, Mode, PortSpec, PublishMode,
    Resources, Schedule, ServiceSpec, SpreadRule, UpdateOrder, UpdatePolicy, VolumeMount,
    VolumeScope,
};

use super::{MISSING_IMAGE, Variety, service};
use crate::sim::load::{MOST, TARGET};

/// What the n-th service runs.
pub(super) fn spec(number: usize, version: u32, variety: Variety) -> ServiceSpec {
    let missing = variety == Variety::Missing && number % 6 == 5;
    let registry = if missing { MISSING_IMAGE } else { "registry/" };
    let cpu_millis = if variety == Variety::Large {
        2_500
    } else {
        100 + 50 * (number as u64 % 5)
    };
    let mut spec = ServiceSpec {
        image: format!("{registry}s{number}:{version}"),
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        reservation: Resources {
            cpu_millis,
            memory: 64 << 20,
            disk: 0,
        },
        ..ServiceSpec::default()
    };
    if number >= RIVALS {
        spec.ports[0].published = Some(RIVALS_PORT);
        return spec;
    }
    match variety {
        Variety::Plain | Variety::Missing | Variety::Bounded => {}
        Variety::Checked => check_health(&mut spec, number),
        Variety::Chained => chain(&mut spec, number),
        Variety::Jobs => work(&mut spec, number),
        Variety::Strict => {}
        Variety::Volumes => hold(&mut spec, number),
        Variety::Following => follow(&mut spec, number),
        Variety::Ranked => rank(&mut spec, number),
        Variety::Rolling => roll(&mut spec, number, version),
        Variety::Mixed | Variety::Large => vary(&mut spec, number),
    }
    spec
}

fn roll(spec: &mut ServiceSpec, number: usize, version: u32) {
    // One in four updates names an image that nobody has; the first does not.
    if version > 1 && (version as usize + number).is_multiple_of(4) {
        spec.image = format!("{MISSING_IMAGE}s{number}:{version}");
    }
    spec.reservation.cpu_millis = 50;
    spec.drain_ms = Some(500);
    spec.update = UpdatePolicy {
        parallelism: 1 + number as u32 % 2,
        order: if number.is_multiple_of(3) {
            UpdateOrder::StartFirst
        } else {
            UpdateOrder::StopFirst
        },
        monitor_ms: 500,
        failure_action: FailureAction::Rollback,
        ..UpdatePolicy::default()
    };
}

/// One that its replicas share, one that each has for itself, one that two services share, and one
/// that may be empty.
fn hold(spec: &mut ServiceSpec, number: usize) {
    let mount = |source: String, scope, allow_empty| VolumeMount {
        target: format!("/{source}"),
        source,
        scope,
        allow_empty,
        ..VolumeMount::default()
    };
    let own = format!("v{number}");
    let volumes = &mut spec.volumes;
    match number % 4 {
        0 => volumes.push(mount(own, VolumeScope::Node, false)),
        1 => volumes.push(mount(own, VolumeScope::Replica, false)),
        2 => volumes.push(mount(own, VolumeScope::Node, true)),
        _ => volumes.push(mount("shared".to_owned(), VolumeScope::Node, false)),
    }
    spec.reservation.cpu_millis = 50;
}

/// Follows its load, every second one down to nothing; in seconds instead of minutes.
fn follow(spec: &mut ServiceSpec, number: usize) {
    spec.reservation.cpu_millis = 50;
    spec.drain_ms = Some(500);
    spec.autoscale = Some(Box::new(Autoscale {
        min: u32::from(number.is_multiple_of(2)),
        max: MOST,
        targets: [(Metric::Connections, Aim::Each(TARGET))].into(),
        down_window_ms: Some(6_000),
        zero_after_ms: (!number.is_multiple_of(2)).then_some(8_000),
        season_ms: number.is_multiple_of(3).then_some(Autoscale::MIN_SEASON_MS),
        ..Autoscale::default()
    }));
}

/// Two or three fit on a host.
fn rank(spec: &mut ServiceSpec, number: usize) {
    spec.reservation.cpu_millis = 2_000 + 1_000 * (number as u64 % 3);
    spec.policy.priority = 10 * (number as i32 % 4);
    spec.drain_ms = Some(500);
}

/// Of three services the second waits for the first, and the third for both.
fn chain(spec: &mut ServiceSpec, number: usize) {
    let first = number - number % 3;
    let conditions = [Condition::ServiceHealthy, Condition::ServiceStarted];
    let earlier = (first..number).zip(conditions);
    spec.depends_on = earlier
        .map(|(number, condition)| Dependency {
            service: service(number),
            condition,
            required: true,
        })
        .collect();
}

/// A hook before each deploy, that holds it now and then, and one after it.
fn hooks(number: usize) -> Hooks {
    let hook = |retries| {
        Some(Hook {
            command: vec!["hook".to_owned()],
            retries,
            deadline_ms: None,
        })
    };
    Hooks {
        pre_deploy: hook(if number.is_multiple_of(2) { 6 } else { 0 }),
        post_deploy: hook(6),
    }
}

/// Of three services the first is a job, the second one that runs every ten seconds, and the third
/// waits for the first, and has hooks.
fn work(spec: &mut ServiceSpec, number: usize) {
    let mut job = Job {
        completions: 3,
        parallelism: 2,
        retries: 6,
        backoff_ms: 200,
        ..Job::default()
    };
    match number % 3 {
        0 => {}
        1 => {
            job.completions = 1;
            job.schedule = Some(Schedule {
                cron: "*/10 * * * * *".to_owned(),
                catch_up: CatchUp::Last,
                ..Schedule::default()
            });
        }
        _ => {
            spec.depends_on.push(Dependency {
                service: service(number - 2),
                condition: Condition::ServiceCompletedSuccessfully,
                required: true,
            });
            spec.hooks = Some(Box::new(hooks(number)));
            return;
        }
    }
    spec.ports.clear();
    spec.job = Some(Box::new(job));
}

/// Checks quick enough for everything to happen several times in a run.
fn check_health(spec: &mut ServiceSpec, number: usize) {
    let check = HealthCheck {
        test: HealthTest::Http(HttpTest::default()),
        interval_ms: 1_000,
        timeout_ms: 500,
        retries: 2,
        successes: 1 + number as u32 % 2,
        ..HealthCheck::default()
    };
    match number % 3 {
        0 => spec.readiness = Some(check),
        _ => spec.health = Some(check),
    }
}

/// Services from this number on publish one and the same port on all nodes: only one of them can be
/// had, but in a divided cluster.
pub(in crate::sim) const RIVALS: usize = 1_000_000;

/// The port that they want.
const RIVALS_PORT: u16 = 9_000;

/// A pattern for the names of the first five hosts.
pub(in crate::sim) const SMALL_NUMBERS: &str = "^n[0-4]$";

/// Gives each service another trait.
fn vary(spec: &mut ServiceSpec, number: usize) {
    spec.policy.stop_isolated_after_ms = number.is_multiple_of(2).then_some(1_000);
    let zone = |op, value: &str| Constraint::new("node.labels.zone", op, value);
    let constraints = &mut spec.placement.constraints;
    match number % 6 {
        0 if number % 12 == 6 => spec.placement.affinity.push(service(number - 1)),
        0 => spec.placement.anti_affinity.push(service(number + 2)),
        1 => {
            // Two of these services want the same port.
            spec.ports[0].published = Some(8_000 + (number as u16 % 4));
            spec.ports[0].publish_mode = PublishMode::Host;
        }
        3 => {
            spec.mode = Mode::Global;
            spec.reservation.cpu_millis = 100;
            if number % 12 == 9 {
                constraints.push(zone(ConstraintOp::NotEqual, "z0"));
            }
        }
        2 => constraints.push(match number % 24 {
            8 => zone(ConstraintOp::In, "z0, z1"),
            14 => Constraint::new("node.kernel", ConstraintOp::AtLeast, "6.1.10"),
            _ => zone(ConstraintOp::NotEqual, "z2"),
        }),
        4 => constraints.push(match number % 24 {
            10 => Constraint::new("node.hostname", ConstraintOp::Matches, SMALL_NUMBERS),
            16 => zone(ConstraintOp::NotIn, "z0, z2"),
            _ => zone(ConstraintOp::Equal, "z1"),
        }),
        5 if number % 12 == 11 => spec.placement.spread.push(SpreadRule {
            max_skew: Some(1),
            ..SpreadRule::over("node.labels.zone")
        }),
        5 => spec.placement.max_per_node = Some(2),
        _ => {}
    }
}
