//! Services that wait for each other, in a flock of nodes.

use dunlin_state::model::{Condition, Dependency, Resources, ServiceSpec};

use crate::agent::tests::flock::{Flock, key, node_id, process_spec};

fn waiting(on: &str, condition: Condition) -> ServiceSpec {
    ServiceSpec {
        depends_on: vec![Dependency {
            service: key(on),
            condition,
            required: true,
        }],
        ..process_spec()
    }
}

fn broken(flock: &mut Flock) -> ServiceSpec {
    flock.broken.insert("nonsense".to_owned());
    ServiceSpec {
        image: "nonsense".to_owned(),
        ..process_spec()
    }
}

fn wait_of(flock: &Flock, name: &str) -> Option<String> {
    let agent = flock.nodes[&node_id(0)].agent.as_ref()?;
    Some(agent.waits_for(&key(name))?.text)
}

#[test]
fn a_service_starts_when_what_it_waits_for_is_there_and_outlives_it() {
    let mut flock = Flock::new(3);
    let bad = broken(&mut flock);
    flock.deploy("db", bad, 1);
    flock.deploy("web", waiting("db", Condition::ServiceHealthy), 4);
    flock.run(10_000);
    assert!(flock.claims().all(|(_, c)| c.slot.service != key("web")));
    let said = wait_of(&flock, "web").unwrap();
    assert!(
        said.starts_with("waits for default/db to be ready: "),
        "{said}"
    );
    let agent = flock.nodes[&node_id(1)].agent.as_ref().unwrap();
    let explained = agent.explain(&key("web"), flock.now).unwrap();
    assert!(explained.summary.contains(&said), "{}", explained.summary);
    assert!(explained.slots[0].message.as_ref().unwrap().contains(&said));

    flock.deploy("db", process_spec(), 1);
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
    assert_eq!(wait_of(&flock, "web"), None);

    let bad = broken(&mut flock);
    flock.deploy("db", bad, 1);
    flock.run(10_000);
    assert!(flock.is_exact("web"), "{:?}", flock.served());
    // Nor is a replica held back that has to move.
    flock.kill(node_id(2));
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
}

#[test]
fn an_update_waits_with_all_its_old_replicas() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 3);
    assert!(flock.run_until(1_000, |f| f.is_exact("web")).is_some());
    flock.run(2_000);
    flock.lowest = usize::MAX;
    let mut spec = waiting("cache", Condition::ServiceStarted);
    spec.environment.insert("V".to_owned(), "2".to_owned());
    flock.deploy("web", spec, 3);
    flock.run(20_000);
    assert_eq!((flock.served().len(), flock.lowest), (3, usize::MAX));
    let agent = flock.nodes[&node_id(1)].agent.as_ref().unwrap();
    let summary = agent.explain(&key("web"), flock.now).unwrap().summary;
    assert!(
        summary.contains("its update waits for default/cache to be started: there is no such"),
        "{summary}"
    );
    assert!(agent.waits_for(&key("web")).unwrap().in_vain);
    flock.deploy("cache", process_spec(), 1);
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
    // With the one of what it waited for.
    assert_eq!(flock.lowest, 3);
}

#[test]
fn what_waits_takes_no_room_from_what_it_waits_for() {
    let mut flock = Flock::with(1, |config| {
        config.capacity = Resources {
            cpu_millis: 1_000,
            memory: 1_000,
            disk: 0,
        };
    });
    let reserving = |spec: ServiceSpec, cpu_millis| ServiceSpec {
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        ..spec
    };
    let web = waiting("db", Condition::ServiceHealthy);
    flock.deploy("web", reserving(web, 400), 2);
    flock.run(2_000);
    flock.deploy("db", reserving(process_spec(), 500), 1);
    assert!(flock.run_until(30_000, |f| f.is_exact("db")).is_some());
    let one = |f: &Flock| f.served().iter().filter(|(s, _)| *s == key("web")).count() == 1;
    assert!(flock.run_until(30_000, one).is_some());
}

#[test]
fn a_daemon_service_waits_as_well() {
    let mut flock = Flock::new(3);
    let spec = ServiceSpec {
        mode: dunlin_state::model::Mode::Global,
        ..waiting("db", Condition::ServiceStarted)
    };
    flock.deploy("agent", spec, 1);
    flock.run(5_000);
    assert_eq!(flock.claims().count(), 0);
    flock.deploy("db", process_spec(), 1);
    let all = |f: &Flock| {
        f.served()
            .iter()
            .filter(|(s, _)| *s == key("agent"))
            .count()
            == 3
    };
    assert!(flock.run_until(30_000, all).is_some());
}

#[test]
fn services_that_wait_for_each_other_wait_quietly() {
    let mut flock = Flock::new(3);
    flock.deploy("a", waiting("b", Condition::ServiceStarted), 1);
    flock.deploy("b", waiting("a", Condition::ServiceStarted), 1);
    flock.run(30_000);
    assert_eq!(flock.claims().count(), 0);
    assert_eq!(flock.calls, 0);
    assert!(wait_of(&flock, "a").unwrap().contains("default/b"));
}
