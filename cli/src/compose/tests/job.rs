//! Work that ends.

use dunlin_state::model::{CatchUp, Job, Mode, Overlap};

use super::{bad, good};

fn job_of(text: &str, at: usize) -> Job {
    let project = good(text);
    let job = project.services[at].spec.job.as_deref();
    job.expect("a job").clone()
}

#[test]
fn a_job_and_its_schedule_are_read() {
    let job = job_of(
        "services:\n  a:\n    image: a\n    x-dunlin:\n      job: {completions: 5, parallelism: 2, \
         retries: 1, backoff: 2s, deadline: 1h, ttl: 5m}\n      schedule: {cron: '30 3 * * mon-fri', \
         timezone: Europe/Berlin, overlap: replace, catch_up: all}\n",
        0,
    );
    assert_eq!((job.completions, job.parallelism, job.retries), (5, 2, 1));
    assert_eq!(
        (job.backoff_ms, job.deadline_ms, job.ttl_ms),
        (2_000, Some(3_600_000), 300_000)
    );
    let schedule = job.schedule.expect("a schedule");
    assert_eq!(schedule.timezone, "Europe/Berlin");
    assert_eq!(
        (schedule.overlap, schedule.catch_up),
        (Overlap::Replace, CatchUp::All)
    );
    let short = "services: {a: {image: a, x-dunlin: {schedule: '@daily'}}}";
    assert_eq!(job_of(short, 0).schedule.expect("one").cron, "@daily");
}

#[test]
fn what_never_fires_is_told_with_its_place() {
    let shown = bad("services: {a: {image: a, x-dunlin: {schedule: '0 0 31 2 *'}}}");
    assert!(shown.contains("never fires"), "{shown}");
    let shown = bad(
        "services: {a: {image: a, x-dunlin: {schedule: {cron: '@daily', timezone: Mars/Base}}}}",
    );
    assert!(shown.contains("no time zone"), "{shown}");
}

#[test]
fn the_modes_of_docker_make_jobs() {
    let text = "services: {a: {image: a, deploy: {mode: replicated-job, replicas: 4}}}";
    assert_eq!(job_of(text, 0).completions, 4);
    assert_eq!(good(text).services[0].replicas, None);
    let project = good("services: {a: {image: a, deploy: {mode: global-job}}}");
    assert_eq!(project.services[0].spec.mode, Mode::Global);
    assert!(project.services[0].spec.job.is_some());
}

#[test]
fn what_others_wait_for_to_end_is_a_job_with_the_retries_of_its_restarts() {
    let text = |restart: &str| {
        format!(
            "services:\n  web:\n    image: a\n    depends_on:\n      migrate: {{condition: \
             service_completed_successfully}}\n  migrate: {{image: a{restart}}}\n"
        )
    };
    assert_eq!(job_of(&text(""), 1).retries, 0);
    assert_eq!(job_of(&text(", restart: 'no'"), 1).retries, 0);
    assert_eq!(job_of(&text(", restart: 'on-failure:4'"), 1).retries, 4);
    let shown = bad(&text(", restart: always"));
    assert!(shown.contains("started again for ever"), "{shown}");
}

#[test]
fn hooks_are_read_in_both_forms() {
    let project = good(
        "services:\n  a:\n    image: a\n    x-dunlin:\n      hooks:\n        pre_deploy: ./migrate up\n        \
         post_deploy: {command: [notify, done], retries: 2, deadline: 30s}\n",
    );
    let hooks = project.services[0].spec.hooks.as_deref().expect("hooks");
    let (pre, post) = (hooks.pre_deploy.as_ref(), hooks.post_deploy.as_ref());
    assert_eq!(pre.expect("one").command, ["./migrate", "up"]);
    let post = post.expect("one");
    assert_eq!(post.command, ["notify", "done"]);
    assert_eq!((post.retries, post.deadline_ms), (2, Some(30_000)));
    let shown = bad("services: {a: {image: a, x-dunlin: {hooks: {pre_deploy: {retries: 1}}}}}");
    assert!(shown.contains("a hook needs a command"), "{shown}");
}
