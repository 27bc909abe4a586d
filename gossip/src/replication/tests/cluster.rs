//! Convergence of clusters under faults.

use dunlin_state::desired::Command;

use super::super::*;
use super::world::{Weather, World, deploy, named, service};

#[test]
fn an_accepted_write_is_everywhere_within_a_moment() {
    let mut world = World::mesh(9, 1);
    world.run(1_000);
    let start = world.now;
    world.propose(4, vec![deploy("hello")]);
    let seen = |w: &World| {
        let mut hosts = 0..9;
        hosts.all(|host| {
            w.machine(host)
                .desired()
                .services
                .contains_key(&service("hello"))
        })
    };
    assert!(
        world.run_until(start + 50, seen),
        "disk at most 10 ms, one hop of 1 ms"
    );
}

#[test]
fn concurrent_edits_of_two_sides_both_survive_a_partition() {
    let mut world = World::mesh(5, 2);
    world.propose(0, vec![deploy("hello")]);
    world.run(1_000);
    for a in 0..2 {
        for b in 2..5 {
            world.unlink(a, b);
        }
    }
    let scale = Command::Scale {
        service: service("hello"),
        replicas: 7,
    };
    world.propose(0, vec![scale]);
    world.propose(3, vec![deploy("other")]);
    world.tell(1, Input::Report(named("one")));
    world.tell(4, Input::Report(named("four")));
    world.run(5_000);
    assert!(!world.agrees());
    world.link_all();
    world.run(500);
    assert!(world.agrees(), "a healed link compares at once");
    let desired = world.machine(2).desired();
    assert_eq!(desired.services[&service("hello")].replicas, 7);
    assert!(desired.services.contains_key(&service("other")));
    assert_eq!(world.offences(), 0);
}

#[test]
fn a_node_that_joins_gets_everything_at_once() {
    let mut world = World::new(3, 3);
    world.link(0, 1);
    for number in 0..100 {
        world.propose(0, vec![deploy(&format!("s{number}"))]);
        world.run(20);
    }
    world.tell(0, Input::Report(named("zero")));
    world.run(1_000);
    let start = world.now;
    world.link(1, 2);
    assert!(world.run_until(start + 200, World::agrees));
    assert_eq!(world.machine(2).desired().services.len(), 100);
    assert_eq!(world.offences(), 0);
}

#[test]
fn more_than_a_push_can_carry_travels_on_by_comparison() {
    let mut world = World::new(4, 6);
    world.link(0, 1);
    world.link(2, 3);
    for number in 0u32..60 {
        let mut command = deploy(&format!("s{number}"));
        if let Command::Deploy { spec, .. } = &mut command {
            let value = (0..200).map(|part| blake3::hash(&[number as u8, part]).to_string());
            spec.environment.insert("BLOB".to_owned(), value.collect());
        }
        world.propose(0, vec![command]);
        world.run(20);
    }
    let start = world.now;
    world.link(1, 2);
    assert!(world.run_until(start + 500, World::agrees));
    assert_eq!(world.machine(3).desired().services.len(), 60);
    let syncs = (0..4).map(|h| world.machine(h).metrics().syncs_opened);
    assert!(syncs.sum::<u64>() >= 2, "one on each hop");
    assert_eq!(world.offences(), 0);
}

#[test]
fn two_sides_that_compacted_apart_keep_the_writes_of_both() {
    let tuning = Tuning {
        compact_at: 30,
        ..Tuning::from(Profile::Lan)
    };
    let mut world = World::with_tuning(4, 4, tuning);
    world.link(0, 1);
    world.link(2, 3);
    for number in 0..40 {
        world.propose(0, vec![deploy(&format!("left{number}"))]);
        world.propose(2, vec![deploy(&format!("right{number}"))]);
        world.run(50);
    }
    world.run(10_000);
    let (left, right) = (
        world.machine(0).document_id(),
        world.machine(2).document_id(),
    );
    assert!(left.epoch >= 1 && right.epoch >= 1 && left != right);
    assert_eq!(world.machine(1).document_id(), left);
    world.link_all();
    world.run(20_000);
    assert!(world.agrees());
    assert_eq!(world.machine(3).desired().services.len(), 80);
    for host in 0..4 {
        let disk = world.hosts[host]
            .disk
            .load(dunlin_state::desired::Actor([1; 16]));
        assert_eq!(disk.fingerprint(), world.machine(host).fingerprint());
        assert_eq!(world.machine(host).invalid(), []);
    }
    assert_eq!(world.offences(), 0);
}

#[test]
fn a_proposal_made_during_a_compaction_lands_in_the_new_document() {
    let tuning = Tuning {
        compact_at: 5,
        ..Tuning::from(Profile::Lan)
    };
    let mut world = World::with_tuning(2, 5, tuning);
    world.link(0, 1);
    world.sync_ms = (300, 600);
    let mut proposals = Vec::new();
    for number in 0..60 {
        let host = number % 2;
        proposals.push(world.propose(host, vec![deploy(&format!("s{number}"))]));
        world.run(170);
    }
    world.run(30_000);
    assert!(world.agrees());
    assert!(proposals.iter().all(|id| world.answers[id].1 == Ok(true)));
    assert_eq!(world.machine(0).desired().services.len(), 60);
    let compactions: u64 = (0..2).map(|h| world.machine(h).metrics().compactions).sum();
    assert!(compactions >= 2, "only {compactions}");
    assert_eq!(world.offences(), 0);
}

/// One run of everything bad at once. Returns the log's hash.
fn chaos(seed: u64) -> blake3::Hash {
    let size = 5;
    let tuning = Tuning {
        compact_at: 30,
        ..Tuning::from(Profile::Lan)
    };
    let mut world = World::with_tuning(size, seed, tuning);
    world.weather = Weather::STORM;
    world.link_all();
    let mut accepted = Vec::new();
    let (mut crashes, mut failures, mut cuts) = (0, 0, 0);
    for step in 0..240 {
        let host = world.random(size);
        match world.random(12) {
            0 if world.is_up(host) => {
                world.crash(host);
                crashes += 1;
            }
            1..=3 if !world.is_up(host) => world.start(host),
            1 => {
                let other = world.random(size);
                world.unlink(host, other);
                cuts += 1;
            }
            2 => {
                let broken = world.hosts[host].disk.broken;
                world.hosts[host].disk.broken = !broken && failures < 10;
                failures += 1;
            }
            3 => world.tell(host, Input::Report(named(&format!("step {step}")))),
            4 | 5 => world.link_all(),
            _ if world.is_up(host) => {
                let name = format!("s{step}");
                let id = world.propose(host, vec![deploy(&name)]);
                accepted.push((id, name));
            }
            _ => {}
        }
        let pause = world.random(150) as u64;
        world.run(pause);
    }
    settle(&mut world);
    assert!(
        crashes > 3 && failures > 3 && cuts > 3,
        "{crashes} {failures} {cuts}"
    );
    let (lost, repeated) = (world.lost, world.repeated);
    assert!(
        lost > 50 && repeated > 20,
        "{lost} lost, {repeated} repeated"
    );
    check(&world, &accepted);
    let totals = world.totals();
    assert!(totals.iter().all(|count| *count > 0), "{totals:?}");
    world.log_hash()
}

/// Ends all faults and gives the cluster time.
fn settle(world: &mut World) {
    world.weather = Weather::CALM;
    for host in 0..world.hosts.len() {
        world.hosts[host].disk.broken = false;
        if !world.is_up(host) {
            world.start(host);
        }
        world.tell(host, Input::Report(named(&format!("host {host}"))));
    }
    world.link_all();
    world.run(30_000);
}

fn check(world: &World, accepted: &[(ProposalId, String)]) {
    assert!(world.agrees(), "one state after faults end");
    assert_eq!(world.offences(), 0, "{:?}", world.warnings);
    let split = world
        .warnings
        .iter()
        .find(|(_, text)| text.contains("cannot be used"));
    assert_eq!(split, None, "honest nodes never split a document");
    let desired = world.machine(0).desired();
    let mut kept = 0;
    for (id, name) in accepted {
        if let Some((_, Ok(true))) = world.answers.get(id) {
            kept += 1;
            let here = desired.services.contains_key(&service(name));
            assert!(here, "{name} was accepted and is gone");
        }
    }
    assert!(kept > 20, "only {kept} were accepted");
    for (host, state) in world.hosts.iter().enumerate() {
        let disk = state.disk.load(dunlin_state::desired::Actor([1; 16]));
        assert_eq!(disk.fingerprint(), world.machine(host).fingerprint());
    }
}

#[test]
fn chaos_ends_in_agreement_and_loses_no_accepted_write() {
    for seed in 0..8 {
        println!("seed {seed}");
        chaos(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    assert_eq!(chaos(77), chaos(77));
    assert_ne!(chaos(77), chaos(78));
}
