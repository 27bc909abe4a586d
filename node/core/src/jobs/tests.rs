//! Runs of jobs: which there are, and what becomes of them in a flock of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::desired::{Ask, Jobs, Outcome, RunRecord, RunResult, RunState, Service};
use dunlin_state::model::{
    CatchUp, Condition, Dependency, Job, Mode, Outputs, Overlap, RunId, Schedule, ServiceSpec,
};

use super::derive::{Runs, runs};
use crate::agent::tests::flock::{Flock, key, node_id, process_spec, service};
use crate::io::WorkloadId;

/// The instant from which the tests of schedules count: 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000_000;
/// The first full minute after it.
const FIRST: u64 = 1_700_000_040_000;
const MINUTE: u64 = 60_000;

fn job(change: impl FnOnce(&mut Job)) -> ServiceSpec {
    let mut job = Job::default();
    change(&mut job);
    ServiceSpec {
        job: Some(Box::new(job)),
        ..process_spec()
    }
}

fn minutely(overlap: Overlap, catch_up: CatchUp) -> Service {
    let spec = job(|job| {
        job.schedule = Some(Schedule {
            cron: "* * * * *".to_owned(),
            overlap,
            catch_up,
            ..Schedule::default()
        });
    });
    let mut service = service(spec, 1);
    Arc::make_mut(&mut service.jobs).since = START;
    service
}

fn at(minute: u64) -> RunId {
    RunId::Instant((FIRST + minute * MINUTE) / 1_000)
}

fn active(service: &Service, wall: u64) -> Vec<RunId> {
    runs(service, wall, |_| false).active.into_iter().collect()
}

fn record(service: &mut Service, minute: u64, outcome: Option<Outcome>) {
    let result = outcome.map(|outcome| RunResult {
        outcome,
        at: FIRST + minute * MINUTE,
        reason: None,
    });
    let state = RunState {
        result,
        ..RunState::default()
    };
    Arc::make_mut(&mut service.jobs).record(&RunRecord {
        until: FIRST + minute * MINUTE,
        runs: [(at(minute), state)].into(),
        forget: BTreeSet::new(),
    });
}

#[test]
fn a_run_begins_at_its_instant_and_not_for_instants_before_the_deploy() {
    let service = minutely(Overlap::Forbid, CatchUp::Last);
    assert_eq!(active(&service, FIRST - 1), []);
    assert_eq!(active(&service, FIRST), [at(0)]);
    let found = runs(&service, FIRST + 1, |_| false);
    assert_eq!(found.again, Some(FIRST + MINUTE));
}

#[test]
fn what_was_missed_is_left_out_made_up_for_once_or_all_of_it() {
    let gone = FIRST + 10 * MINUTE;
    for (catch_up, expected) in [
        (CatchUp::None, at(10)),
        (CatchUp::Last, at(10)),
        (CatchUp::All, at(0)),
    ] {
        let mut service = minutely(Overlap::Forbid, catch_up);
        assert_eq!(active(&service, gone), [expected], "{catch_up:?}");
        if catch_up == CatchUp::All {
            record(&mut service, 0, Some(Outcome::Failed));
            assert_eq!(active(&service, gone), [at(1)]);
        }
    }
    // A yearly one, missed by hours.
    let mut service = minutely(Overlap::Forbid, CatchUp::None);
    let mut spec = ServiceSpec::clone(&service.spec);
    let schedule = spec.job.as_mut().and_then(|j| j.schedule.as_mut()).unwrap();
    schedule.cron = "14 22 14 11 *".to_owned();
    service.spec = Arc::new(spec);
    assert_eq!(active(&service, FIRST + 59_999), [at(0)]);
    assert_eq!(active(&service, FIRST + 600 * MINUTE), []);
    let held = runs(&service, FIRST + 600 * MINUTE, |id| *id == at(0));
    assert_eq!(held.active, [at(0)].into(), "what runs here goes on");
}

#[test]
fn runs_that_overlap_wait_join_or_replace() {
    let later = FIRST + MINUTE;
    let mut forbid = minutely(Overlap::Forbid, CatchUp::Last);
    record(&mut forbid, 0, None);
    assert_eq!(active(&forbid, later), [at(0)]);
    record(&mut forbid, 0, Some(Outcome::Succeeded));
    assert_eq!(active(&forbid, later), [at(1)]);

    let mut allow = minutely(Overlap::Allow, CatchUp::Last);
    record(&mut allow, 0, None);
    assert_eq!(active(&allow, later), [at(0), at(1)]);

    let mut replace = minutely(Overlap::Replace, CatchUp::Last);
    record(&mut replace, 0, None);
    let found = runs(&replace, later, |_| false);
    let expected = Runs {
        active: [at(1)].into(),
        replaced: [at(0)].into(),
        again: found.again,
    };
    assert_eq!(found, expected);
}

#[test]
fn a_recorded_run_goes_on_past_its_time_and_an_ended_one_never_comes_back() {
    let mut service = minutely(Overlap::Forbid, CatchUp::None);
    record(&mut service, 0, None);
    assert_eq!(active(&service, FIRST + 500 * MINUTE), [at(0)]);
    record(&mut service, 0, Some(Outcome::Cancelled));
    assert_eq!(active(&service, FIRST + 59_000), []);
    let mut jobs = Jobs::clone(&service.jobs);
    jobs.asks.insert(RunId::Asked(5), Ask::default());
    service.jobs = Arc::new(jobs);
    assert_eq!(active(&service, FIRST + 59_000), [RunId::Asked(5)]);
}

/// The service that stands for the run which comes with the revision.
fn own_run(flock: &Flock, name: &str) -> String {
    let revision = flock.desired.services[&key(name)].revision.clone();
    RunId::Revision(revision)
        .service(&key(name))
        .unwrap()
        .to_string()
}

fn deploy(flock: &mut Flock, name: &str, spec: ServiceSpec) {
    flock.edit(|d| {
        let mut new = service(spec.clone(), 1);
        new.revision = blake3::hash(new.revision.as_bytes()).to_hex()[..16].to_owned();
        Arc::make_mut(&mut new.jobs).since = START;
        d.services.insert(key(name), new);
    });
}

fn running_of(flock: &Flock, run: &str) -> usize {
    let running = flock.running();
    running
        .iter()
        .filter(|(_, w)| w.slot.service == key(run))
        .count()
}

fn result_of(flock: &Flock, name: &str) -> Option<RunResult> {
    let jobs = &flock.desired.services[&key(name)].jobs;
    jobs.runs.values().next()?.result.clone()
}

/// Ends one replica of the run.
fn end_one(flock: &mut Flock, run: &str, code: i32) {
    let running = flock.running();
    let found = running
        .into_iter()
        .find(|(_, w)| w.slot.service == key(run));
    let (node, workload) = found.expect("a replica of the run runs");
    flock.exit(node, workload, code);
}

#[test]
fn a_job_runs_each_of_its_parts_once_and_remembers_it_without_the_nodes() {
    let mut flock = Flock::new(4);
    deploy(
        &mut flock,
        "batch",
        job(|job| {
            job.completions = 5;
            job.parallelism = 2;
        }),
    );
    let run = own_run(&flock, "batch");
    for _ in 0..5 {
        assert!(
            flock
                .run_until(10_000, |f| running_of(f, &run) > 0)
                .is_some()
        );
        assert!(running_of(&flock, &run) <= 2);
        end_one(&mut flock, &run, 0);
        flock.run(300);
        assert!(running_of(&flock, &run) <= 2);
    }
    let done = |f: &Flock| result_of(f, "batch").is_some();
    assert!(flock.run_until(30_000, done).is_some());
    let result = result_of(&flock, "batch").unwrap();
    assert_eq!((result.outcome, result.reason), (Outcome::Succeeded, None));
    assert_eq!(flock.started.len(), 5);
    // All that ran it go, one after the other.
    for index in 0..3 {
        flock.kill(node_id(index));
        flock.run(20_000);
    }
    assert_eq!(flock.started.len(), 5);
    assert_eq!(running_of(&flock, &run), 0);
}

#[test]
fn a_part_is_tried_again_and_then_the_run_has_failed() {
    let mut flock = Flock::new(3);
    deploy(
        &mut flock,
        "batch",
        job(|job| {
            job.completions = 2;
            job.retries = 2;
        }),
    );
    let run = own_run(&flock, "batch");
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &run) == 2)
            .is_some()
    );
    let slot = flock.running()[0].1.slot.clone();
    for attempt in 0..3 {
        let is_next = |f: &Flock| {
            let running = f.running();
            running
                .iter()
                .any(|(_, w)| w.slot == slot && w.attempt == attempt)
        };
        assert!(flock.run_until(60_000, is_next).is_some(), "{attempt}");
        let running = flock.running();
        let (node, workload) = running.into_iter().find(|(_, w)| w.slot == slot).unwrap();
        flock.exit(node, workload, 3);
        flock.run(10);
    }
    let ended = |f: &Flock| result_of(f, "batch").is_some() && running_of(f, &run) == 0;
    assert!(
        flock.run_until(30_000, ended).is_some(),
        "the other part is stopped"
    );
    let result = result_of(&flock, "batch").unwrap();
    assert_eq!(result.outcome, Outcome::Failed);
    let reason = result.reason.unwrap();
    assert!(reason.contains("exited with code 3"), "{reason}");
    let starts = flock.started.len();
    flock.run(120_000);
    assert_eq!(flock.started.len(), starts);
}

#[test]
fn what_cannot_be_started_fails_instead_of_going_round() {
    let mut flock = Flock::new(3);
    flock.broken.insert("nonsense".to_owned());
    let mut spec = job(|_| {});
    spec.image = "nonsense".to_owned();
    deploy(&mut flock, "batch", spec);
    let ended = |f: &Flock| result_of(f, "batch").is_some();
    assert!(flock.run_until(60_000, ended).is_some());
    let result = result_of(&flock, "batch").unwrap();
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.reason.unwrap().contains("no such program"));
}

#[test]
fn a_run_whose_node_dies_runs_elsewhere_and_takes_no_longer_than_it_may() {
    let mut flock = Flock::new(3);
    deploy(
        &mut flock,
        "batch",
        job(|job| job.deadline_ms = Some(40_000)),
    );
    let run = own_run(&flock, "batch");
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &run) == 1)
            .is_some()
    );
    let (node, _) = flock.running()[0].clone();
    flock.kill(node);
    let elsewhere = |f: &Flock| running_of(f, &run) == 1;
    assert!(flock.run_until(30_000, elsewhere).is_some());
    assert!(flock.running()[0].0 != node);
    let ended = |f: &Flock| result_of(f, "batch").is_some() && running_of(f, &run) == 0;
    assert!(flock.run_until(60_000, ended).is_some());
    let reason = result_of(&flock, "batch").and_then(|r| r.reason).unwrap();
    assert!(reason.contains("deadline"), "{reason}");
}

#[test]
fn whoever_may_write_records_it_sooner_or_later() {
    let mut flock = Flock::new(4);
    // All but one, whichever ranks first.
    flock.unheard = (0..3).map(node_id).collect();
    deploy(&mut flock, "batch", job(|_| {}));
    let run = own_run(&flock, "batch");
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &run) == 1)
            .is_some()
    );
    end_one(&mut flock, &run, 0);
    let ended = |f: &Flock| result_of(f, "batch").is_some();
    assert!(flock.run_until(30_000, ended).is_some());
    assert_eq!(flock.started.len(), 1);
}

#[test]
fn a_job_that_is_done_lets_others_start_and_a_failed_one_blocks_them() {
    let mut flock = Flock::new(3);
    deploy(&mut flock, "migrate", job(|job| job.retries = 0));
    let mut web = process_spec();
    web.depends_on.push(Dependency {
        service: key("migrate"),
        condition: Condition::ServiceCompletedSuccessfully,
        required: true,
    });
    flock.deploy("web", web, 2);
    let run = own_run(&flock, "migrate");
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &run) == 1)
            .is_some()
    );
    flock.run(5_000);
    assert_eq!(running_of(&flock, "web"), 0);
    end_one(&mut flock, &run, 1);
    flock.run(10_000);
    let agent = flock.nodes[&node_id(0)].agent.as_ref().unwrap();
    let wait = agent.waits_for(&key("web")).unwrap();
    assert!(
        wait.in_vain && wait.text.contains("exited with code 1"),
        "{}",
        wait.text
    );
    assert_eq!(running_of(&flock, "web"), 0);
    // Asked for again, it ends well.
    flock.edit(|d| {
        let job = d.services.get_mut(&key("migrate")).unwrap();
        let asks = &mut Arc::make_mut(&mut job.jobs).asks;
        asks.insert(RunId::Asked(1), Ask::default());
    });
    let again = RunId::Asked(1)
        .service(&key("migrate"))
        .unwrap()
        .to_string();
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &again) == 1)
            .is_some()
    );
    end_one(&mut flock, &again, 0);
    assert!(
        flock
            .run_until(30_000, |f| running_of(f, "web") == 2)
            .is_some()
    );
}

#[test]
fn a_job_of_every_node_runs_once_on_each() {
    let mut flock = Flock::new(3);
    let mut spec = job(|_| {});
    spec.mode = Mode::Global;
    deploy(&mut flock, "sweep", spec);
    let run = own_run(&flock, "sweep");
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &run) == 3)
            .is_some()
    );
    for _ in 0..3 {
        end_one(&mut flock, &run, 0);
        flock.run(100);
    }
    flock.run(30_000);
    assert_eq!((flock.started.len(), running_of(&flock, &run)), (3, 0));
}

#[test]
fn a_schedule_is_followed_by_the_clock_of_whoever_looks() {
    let mut flock = Flock::new(3);
    let spec = job(|job| {
        job.ttl_ms = 30_000;
        job.schedule = Some(Schedule {
            cron: "* * * * *".to_owned(),
            ..Schedule::default()
        });
    });
    deploy(&mut flock, "tick", spec);
    for minute in 0..3 {
        let run = at(minute).service(&key("tick")).unwrap().to_string();
        assert!(
            flock
                .run_until(90_000, |f| running_of(f, &run) == 1)
                .is_some(),
            "{minute}"
        );
        flock.run(1_000);
        end_one(&mut flock, &run, 0);
    }
    flock.run(1_000);
    assert_eq!(flock.started.len(), 3);
    // What has ended is kept for a while, and not longer.
    assert_eq!(flock.claims().count(), 1);
    flock.run(35_000);
    assert_eq!(flock.claims().count(), 0);
}

fn hooked(version: &str, pre: bool, post: bool) -> ServiceSpec {
    let hook = |wanted: bool| {
        wanted.then(|| dunlin_state::model::Hook {
            command: vec!["hook".to_owned()],
            ..Default::default()
        })
    };
    let mut spec = process_spec();
    spec.environment.insert("V".to_owned(), version.to_owned());
    spec.hooks = Some(Box::new(dunlin_state::model::Hooks {
        pre_deploy: hook(pre),
        post_deploy: hook(post),
    }));
    spec
}

fn scale_to(flock: &mut Flock, name: &str, replicas: u32) {
    flock.edit(|d| d.services.get_mut(&key(name)).unwrap().replicas = replicas);
}

fn hook_of(flock: &Flock, name: &str, hook: fn(&Service) -> Option<RunId>) -> String {
    let run = hook(&flock.desired.services[&key(name)]).expect("it has the hook");
    run.service(&key(name)).unwrap().to_string()
}

#[test]
fn a_hook_runs_before_a_deploy_and_holds_it_when_it_fails() {
    let mut flock = Flock::new(3);
    deploy(&mut flock, "web", hooked("1", true, false));
    scale_to(&mut flock, "web", 3);
    let pre = hook_of(&flock, "web", Service::pre_hook);
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &pre) == 1)
            .is_some()
    );
    flock.run(3_000);
    assert_eq!(running_of(&flock, "web"), 0);
    end_one(&mut flock, &pre, 0);
    assert!(
        flock
            .run_until(30_000, |f| running_of(f, "web") == 3)
            .is_some()
    );
    flock.run(3_000);

    // The next revision: its hook fails, and what there is goes on.
    flock.edit(|d| {
        let web = d.services.get_mut(&key("web")).unwrap();
        web.spec = Arc::new(hooked("2", true, false));
        web.revision = "0123456789abcdef".to_owned();
    });
    let pre = hook_of(&flock, "web", Service::pre_hook);
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &pre) == 1)
            .is_some()
    );
    end_one(&mut flock, &pre, 7);
    flock.run(20_000);
    let agent = flock.nodes[&node_id(0)].agent.as_ref().unwrap();
    let wait = agent.waits_for(&key("web")).unwrap();
    assert!(
        wait.in_vain && wait.text.contains("exited with code 7"),
        "{}",
        wait.text
    );
    let old = |f: &Flock| {
        f.claims()
            .filter(|(_, c)| c.ready && c.revision != "0123456789abcdef")
            .count()
    };
    assert_eq!(old(&flock), 3);

    // Resuming the rollout tries it again.
    flock.edit(|d| {
        let web = d.services.get_mut(&key("web")).unwrap();
        Arc::make_mut(&mut web.rollout).round = 1;
    });
    let again = hook_of(&flock, "web", Service::pre_hook);
    assert!(
        flock
            .run_until(10_000, |f| running_of(f, &again) == 1)
            .is_some()
    );
    end_one(&mut flock, &again, 0);
    let new = |f: &Flock| f.served().len() == 3 && old(f) == 0;
    assert!(flock.run_until(60_000, new).is_some());
}

#[test]
fn a_hook_after_a_deploy_waits_for_all_of_it_and_runs_once() {
    let mut flock = Flock::new(3);
    flock.broken.insert("nonsense".to_owned());
    let mut spec = hooked("1", false, true);
    deploy(&mut flock, "web", spec.clone());
    scale_to(&mut flock, "web", 3);
    let post = hook_of(&flock, "web", Service::post_hook);
    assert!(
        flock
            .run_until(30_000, |f| running_of(f, &post) == 1)
            .is_some()
    );
    let proven = flock.claims().filter(|(_, c)| c.slot.service == key("web"));
    assert!(
        proven
            .into_iter()
            .all(|(_, c)| c.trial == dunlin_state::model::Trial::Proven)
    );
    end_one(&mut flock, &post, 0);
    flock.run(30_000);
    let runs = flock
        .started
        .iter()
        .filter(|w| w.slot.service == key(&post));
    assert_eq!(runs.count(), 1);
    // One that is never rolled out has none.
    spec.image = "nonsense".to_owned();
    deploy(&mut flock, "web", spec);
    let post = hook_of(&flock, "web", Service::post_hook);
    flock.run(30_000);
    assert_eq!(running_of(&flock, &post), 0);
}

/// A job of two parts and a service that waits for it, with what their replicas are given.
fn telling() -> (Flock, String) {
    let mut flock = Flock::new(3);
    deploy(
        &mut flock,
        "migrate-db",
        job(|job| {
            job.completions = 2;
            job.retries = 1;
        }),
    );
    let mut web = process_spec();
    web.depends_on.push(Dependency {
        service: key("migrate-db"),
        condition: Condition::ServiceCompletedSuccessfully,
        required: true,
    });
    flock.deploy("web", web, 2);
    let run = own_run(&flock, "migrate-db");
    let both = |f: &Flock| running_of(f, &run) == 2;
    assert!(flock.run_until(10_000, both).is_some());
    (flock, run)
}

/// A slot of the run ends and has written this.
fn tell(flock: &mut Flock, run: &str, slot: u32, text: &str) {
    let running = flock.running();
    let of_slot = |w: &WorkloadId| {
        w.slot.service == key(run) && w.slot.slot == dunlin_state::model::Slot::Replica(slot)
    };
    let found = running.into_iter().find(|(_, w)| of_slot(w));
    let (node, workload) = found.expect("that slot runs");
    flock.tell_and_exit(node, workload, 0, Outputs::parse(text.as_bytes()));
}

fn given_to_web(flock: &Flock) -> Vec<BTreeMap<String, String>> {
    let web = flock.environments.iter();
    web.filter(|(w, _)| w.slot.service == key("web"))
        .map(|(_, given)| given.clone())
        .collect()
}

#[test]
fn what_a_job_has_told_is_given_to_what_waits_for_it_also_when_its_nodes_are_gone() {
    let (mut flock, run) = telling();
    tell(&mut flock, &run, 1, "VERSION=1\nONE=1\n");
    flock.run(3_000);
    assert_eq!(given_to_web(&flock).len(), 0, "the other part runs");
    tell(&mut flock, &run, 0, "VERSION=0\nZERO=a b\n");
    let there = |f: &Flock| running_of(f, "web") == 2;
    assert!(flock.run_until(30_000, there).is_some());
    let expected = [
        ("MIGRATE_DB_ONE", "1"),
        ("MIGRATE_DB_VERSION", "1"),
        ("MIGRATE_DB_ZERO", "a b"),
    ];
    let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    assert_eq!(given_to_web(&flock), vec![expected; 2]);
    // The job is deployed anew, and its new run has not ended; whoever takes over gets what is known.
    let before = flock.environments.len();
    flock.edit(|d| {
        let job = d.services.get_mut(&key("migrate-db")).unwrap();
        job.revision = "0123456789abcdef".to_owned();
    });
    let (node, _) = flock
        .running()
        .into_iter()
        .find(|(_, w)| w.slot.service == key("web"))
        .unwrap();
    flock.kill(node);
    let again = |f: &Flock| running_of(f, "web") == 2 && f.environments.len() > before;
    assert!(flock.run_until(60_000, again).is_some());
    let given = given_to_web(&flock);
    assert!(
        given.len() > 2 && given.iter().all(|g| *g == given[0]),
        "{given:?}"
    );
}

#[test]
fn a_file_of_outputs_that_cannot_be_taken_fails_its_part() {
    let (mut flock, run) = telling();
    tell(&mut flock, &run, 0, "VERSION=1");
    tell(&mut flock, &run, 1, "version=1");
    let again = |f: &Flock| {
        let started = f.started.iter().filter(|w| w.slot.service == key(&run));
        started.count() == 3 && running_of(f, &run) == 1
    };
    assert!(
        flock.run_until(30_000, again).is_some(),
        "it is tried again"
    );
    tell(&mut flock, &run, 1, "version=1");
    let ended = |f: &Flock| result_of(f, "migrate-db").is_some();
    assert!(flock.run_until(30_000, ended).is_some());
    let result = result_of(&flock, "migrate-db").unwrap();
    assert_eq!(result.outcome, Outcome::Failed);
    let reason = result.reason.unwrap();
    assert!(
        reason.contains("slot 1 has written outputs that cannot be taken: 'version'"),
        "{reason}"
    );
    assert_eq!(given_to_web(&flock).len(), 0);
}

#[test]
fn parts_that_tell_more_than_a_run_may_fail_it() {
    let (mut flock, run) = telling();
    for slot in [0, 1] {
        let text = format!("S{slot}={}", "x".repeat(3_000));
        tell(&mut flock, &run, slot, &text);
    }
    let ended = |f: &Flock| result_of(f, "migrate-db").is_some();
    assert!(flock.run_until(30_000, ended).is_some());
    let result = result_of(&flock, "migrate-db").unwrap();
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.reason.unwrap().contains("4096 bytes"));
}

#[test]
fn retries_are_those_of_all_nodes_together() {
    let mut flock = Flock::new(3);
    deploy(&mut flock, "batch", job(|job| job.retries = 1));
    let run = own_run(&flock, "batch");
    let runs = |f: &Flock| running_of(f, &run) == 1;
    assert!(flock.run_until(10_000, runs).is_some());
    end_one(&mut flock, &run, 3);
    flock.run(10);
    assert!(flock.run_until(60_000, runs).is_some(), "it is tried again");
    let (node, _) = flock.running()[0].clone();
    flock.kill(node);
    assert!(flock.run_until(30_000, runs).is_some(), "and elsewhere");
    end_one(&mut flock, &run, 3);
    let ended = |f: &Flock| result_of(f, "batch").is_some();
    assert!(flock.run_until(30_000, ended).is_some());
    assert_eq!(result_of(&flock, "batch").unwrap().outcome, Outcome::Failed);
    assert_eq!(flock.started.len(), 3);
}

#[test]
fn a_replica_that_is_stopping_for_an_update_does_not_come_back_with_a_newer_one_that_waits() {
    let mut flock = Flock::new(1);
    deploy(&mut flock, "web", hooked("1", false, false));
    scale_to(&mut flock, "web", 1);
    let runs = |f: &Flock| running_of(f, "web") == 1;
    assert!(flock.run_until(30_000, runs).is_some());
    flock.run(5_000);
    let update = |flock: &mut Flock, spec: ServiceSpec, revision: &str| {
        flock.edit(|d| {
            let web = d.services.get_mut(&key("web")).unwrap();
            web.spec = Arc::new(spec);
            web.revision = revision.to_owned();
        });
    };
    update(&mut flock, hooked("2", false, false), "aaaaaaaaaaaaaaaa");
    let stops = |f: &Flock| {
        f.claims()
            .any(|(_, c)| c.phase == dunlin_state::model::Phase::Stopping)
    };
    assert!(flock.run_until(30_000, stops).is_some());
    update(&mut flock, hooked("3", true, false), "bbbbbbbbbbbbbbbb");
    flock.run(5_000);
    let newest = |f: &Flock| {
        f.claims()
            .any(|(_, c)| c.slot.service == key("web") && c.revision == "bbbbbbbbbbbbbbbb")
    };
    assert!(!newest(&flock), "its hook has not ended");
    let pre = hook_of(&flock, "web", Service::pre_hook);
    end_one(&mut flock, &pre, 0);
    assert!(flock.run_until(60_000, newest).is_some());
}
