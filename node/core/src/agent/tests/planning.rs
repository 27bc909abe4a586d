//! What a plan foretells is what then happens.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Command, Rejection};
use dunlin_state::model::{
    Availability, NodeId, PortSpec, Resources, ServiceSpec, Slot, SpreadRule, UpdateOrder,
    VolumeMount, VolumeScope,
};

use super::flock::{Flock, key, node_id, process_spec};
use crate::plan::{ServicePlan, Step};

fn deploy(name: &str, spec: &ServiceSpec, replicas: u32) -> Command {
    Command::Deploy {
        service: key(name),
        spec: Box::new(spec.clone()),
        replicas: Some(replicas),
    }
}

fn plan(flock: &Flock, commands: &[Command]) -> Vec<ServicePlan> {
    flock.agent(0).plan(commands).unwrap().services
}

fn steps(plan: &ServicePlan) -> Vec<Step> {
    plan.slots.iter().map(|slot| slot.step).collect()
}

fn holders(flock: &Flock, name: &str) -> BTreeMap<Slot, NodeId> {
    let claims = flock.claims().filter(|(_, c)| c.slot.service == key(name));
    claims
        .map(|(node, claim)| (claim.slot.slot, node))
        .collect()
}

#[test]
fn a_plan_names_the_nodes_that_an_auction_then_takes() {
    let mut flock = Flock::with(5, |config| {
        let zone = ["a", "b"][config.seed as usize % 2];
        config.labels.insert("zone".to_owned(), zone.to_owned());
    });
    flock.deploy("old", process_spec(), 3);
    flock.run(500);
    let mut plain = process_spec();
    plain.reservation.cpu_millis = 700;
    let mut even = process_spec();
    even.placement.spread = vec![SpreadRule::over("node.labels.zone")];
    for (name, spec, replicas) in [("plain", plain, 7), ("even", even, 4)] {
        let planned = plan(&flock, &[deploy(name, &spec, replicas)]).remove(0);
        assert!(planned.before.is_none());
        assert!(
            planned.slots.iter().all(|s| s.step == Step::Start),
            "{planned:?}"
        );
        flock.deploy(name, spec, replicas);
        assert!(flock.run_until(5_000, |f| f.is_exact(name)).is_some());
        // Which slot goes to which of them is decided by who is asked for several at once.
        let count = |nodes: &mut dyn Iterator<Item = NodeId>| {
            let mut counts = BTreeMap::new();
            nodes.for_each(|node| *counts.entry(node).or_insert(0) += 1);
            counts
        };
        let foretold = count(&mut planned.slots.iter().filter_map(|s| s.node));
        assert_eq!(
            foretold,
            count(&mut holders(&flock, name).into_values()),
            "{name}"
        );
    }
}

#[test]
fn what_is_so_already_stays_and_what_changes_is_told_slot_by_slot() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 4);
    assert!(flock.run_until(5_000, |f| f.is_exact("web")).is_some());
    // The others' last reports are on their way.
    flock.run(100);
    let same = plan(&flock, &[deploy("web", &process_spec(), 4)]).remove(0);
    assert!(
        steps(&same).iter().all(|step| *step == Step::Keep),
        "{same:?}"
    );
    let fewer = plan(&flock, &[deploy("web", &process_spec(), 2)]).remove(0);
    assert_eq!(
        steps(&fewer),
        [Step::Keep, Step::Keep, Step::Stop, Step::Stop]
    );
    let mut changed = process_spec();
    changed.command.push("--more".to_owned());
    let updated = plan(&flock, &[deploy("web", &changed, 5)]).remove(0);
    use Step::{Move, Start, Update};
    assert_eq!(steps(&updated), [Update, Update, Update, Update, Start]);
    changed.update.order = UpdateOrder::StartFirst;
    let moved = plan(&flock, &[deploy("web", &changed, 4)]).remove(0);
    assert_eq!(steps(&moved), [Move, Move, Move, Move]);
    assert!(
        moved
            .slots
            .iter()
            .all(|s| s.from.is_some() && s.from != s.node)
    );
    // Where it may not be any more, it moves.
    changed.update.order = UpdateOrder::StopFirst;
    changed.placement.constraints = vec!["node.hostname != n1".parse().unwrap()];
    let driven = plan(&flock, &[deploy("web", &changed, 4)]).remove(0);
    let driven: BTreeSet<_> = driven
        .slots
        .iter()
        .filter(|s| s.step == Move)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|s| s.from)
        .collect();
    assert_eq!(driven, BTreeSet::from([Some(node_id(1))]));
    assert_eq!(
        flock.desired.services[&key("web")].replicas,
        4,
        "nothing has happened"
    );
}

#[test]
fn what_finds_no_node_is_told_with_every_nodes_reasons() {
    let mut flock = Flock::new(3);
    flock.edit(|d| {
        d.nodes.entry(node_id(2)).or_default().availability = Availability::Cordoned;
    });
    flock.run(100);
    let mut spec = process_spec();
    spec.reservation = Resources {
        cpu_millis: 3_000,
        ..Resources::ZERO
    };
    // Of four cores on each of two nodes, one replica fits on each.
    let planned = plan(&flock, &[deploy("big", &spec, 4)]).remove(0);
    assert_eq!(
        steps(&planned),
        [Step::Start, Step::Start, Step::Nowhere, Step::Nowhere]
    );
    let reasons: Vec<String> = planned
        .refusals
        .iter()
        .map(|(_, r)| r[0].to_string())
        .collect();
    let full = "needs 3.0 CPUs, 1.0 of 4.0 free";
    assert_eq!(reasons, [full, full, "is cordoned"]);
    // Services of one plan take from each other.
    let two = plan(&flock, &[deploy("a", &spec, 2), deploy("b", &spec, 1)]);
    assert_eq!(steps(&two[1]), [Step::Nowhere]);
}

#[test]
fn what_would_be_refused_is_refused_alike() {
    let mut flock = Flock::new(1);
    let mut spec = process_spec();
    spec.ports = vec![PortSpec {
        target: 80,
        published: Some(80),
        ..PortSpec::default()
    }];
    flock.deploy("web", spec.clone(), 1);
    flock.run(100);
    let refused = flock.agent(0).plan(&[deploy("other", &spec, 1)]);
    assert!(
        matches!(refused, Err(Rejection::PortTaken { .. })),
        "{refused:?}"
    );
}

/// What would give way is what then gives way.
#[test]
fn a_plan_foretells_who_gives_way() {
    let sized = |cpu_millis, priority| {
        let mut spec = process_spec();
        spec.reservation.cpu_millis = cpu_millis;
        spec.policy.priority = priority;
        spec
    };
    let mut flock = Flock::new(2);
    flock.deploy("low", sized(1_000, -5), 4);
    flock.deploy("middle", sized(2_000, 1), 2);
    assert!(
        flock
            .run_until(10_000, |f| f.is_exact("low") && f.is_exact("middle"))
            .is_some()
    );
    let none = plan(&flock, &[deploy("same", &sized(2_000, -5), 1)]).remove(0);
    assert_eq!(steps(&none), [Step::Nowhere]);
    let shop = deploy("shop", &sized(2_000, 3), 1);
    let planned = plan(&flock, &[shop]).remove(0).slots.remove(0);
    assert_eq!(planned.step, Step::Start);
    let foretold: BTreeSet<_> = planned.ousts.iter().cloned().collect();
    assert_eq!(foretold.len(), 2, "{foretold:?}");
    flock.deploy("shop", sized(2_000, 3), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("shop")).is_some());
    let there = holders(&flock, "shop")[&Slot::Replica(0)];
    assert_eq!(Some(there), planned.node);
    let nodes = (0..2).flat_map(|n| flock.agent(n).report().preempted);
    let gone: BTreeSet<_> = nodes.map(|p| p.slot).collect();
    assert_eq!(gone, foretold);
}

fn with_volume(scope: VolumeScope) -> ServiceSpec {
    ServiceSpec {
        volumes: vec![VolumeMount {
            source: "data".to_owned(),
            target: "/data".to_owned(),
            scope,
            ..VolumeMount::default()
        }],
        ..process_spec()
    }
}

/// Data decides, also where a node would take the replica that does not have it.
#[test]
fn a_plan_names_no_node_without_the_data() {
    let mut flock = Flock::new(3);
    let db = with_volume(VolumeScope::Node);
    flock.deploy("db", db.clone(), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let home = holders(&flock, "db")[&Slot::Replica(0)];
    let asked = usize::from(home == node_id(0));
    flock.edit(|d| {
        d.services.remove(&key("db"));
    });
    flock.run(10_000);
    let plan = |flock: &Flock, name: &str| {
        let command = deploy(name, &db, 2);
        flock.agent(asked).plan(&[command]).unwrap().services[0].clone()
    };
    let again = plan(&flock, "other");
    assert_eq!(steps(&again), [Step::Start, Step::Start]);
    for slot in &again.slots {
        assert_eq!(slot.node, Some(home));
        let data = &slot.data[0];
        assert_eq!((data.node, data.begins), (home, false));
    }
    flock.edit(|d| {
        d.nodes.entry(home).or_default().availability = Availability::Cordoned;
    });
    flock.run(100);
    let barred = plan(&flock, "other");
    assert_eq!(steps(&barred), [Step::Nowhere, Step::Nowhere]);
    assert_eq!(barred.slots[0].data[0].node, home);
    let reasons = |plan: &ServicePlan| -> BTreeMap<NodeId, String> {
        let told = plan.refusals.iter();
        told.map(|(node, reasons)| (*node, reasons[0].to_string()))
            .collect()
    };
    let told = reasons(&barred);
    assert_eq!(told.len(), 3);
    assert_eq!(told[&home], "is cordoned");
    for (node, text) in &told {
        let elsewhere = text.starts_with("the data of volume default/data is on n");
        assert!(*node == home || elsewhere, "{text}");
    }
    flock.kill(home);
    flock.run(10_000);
    let gone = reasons(&plan(&flock, "other"));
    let silent = |text: &String| text.contains(", which does not answer since 2");
    assert!(gone.values().any(silent), "{gone:?}");
}

/// What nobody has yet is begun once, and the others follow; what each has for itself binds nobody.
#[test]
fn a_plan_begins_a_shared_volume_once() {
    let flock = Flock::new(4);
    let shared = with_volume(VolumeScope::Node);
    let two = plan(&flock, &[deploy("a", &shared, 2), deploy("b", &shared, 1)]);
    let slots: Vec<_> = two.iter().flat_map(|plan| &plan.slots).collect();
    let nodes: BTreeSet<_> = slots.iter().map(|slot| slot.node).collect();
    assert_eq!((slots.len(), nodes.len()), (3, 1), "{slots:?}");
    assert!(slots.iter().all(|slot| slot.data[0].begins));
    let own = plan(
        &flock,
        &[deploy("c", &with_volume(VolumeScope::Replica), 3)],
    );
    let nodes: BTreeSet<_> = own[0].slots.iter().map(|slot| slot.node).collect();
    assert_eq!(nodes.len(), 3);
}

/// An update that names a volume whose data is elsewhere moves the replica there, and one of what
/// has a volume stays in place although it would start first.
#[test]
fn a_plan_of_an_update_follows_the_data() {
    let mut flock = Flock::new(3);
    let mut db = with_volume(VolumeScope::Node);
    flock.deploy("db", db.clone(), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let home = holders(&flock, "db")[&Slot::Replica(0)];
    db.update.order = UpdateOrder::StartFirst;
    db.command.push("--more".to_owned());
    let updated = plan(&flock, &[deploy("db", &db, 1)]).remove(0);
    assert_eq!(steps(&updated), [Step::Update]);
    let mut web = process_spec();
    let away = format!("node.id != {home}");
    web.placement.constraints = vec![away.parse().unwrap()];
    flock.deploy("web", web, 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    flock.run(100);
    let driven = plan(&flock, &[deploy("web", &with_volume(VolumeScope::Node), 1)]).remove(0);
    assert_eq!(steps(&driven), [Step::Move]);
    assert_eq!(driven.slots[0].node, Some(home));
}
