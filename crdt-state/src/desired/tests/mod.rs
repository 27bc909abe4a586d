//! Tests of the document, by theme. Helpers first.

mod commands;
mod converge;
mod disk;
mod hostile;
mod items;
mod quotas;
mod rebasing;
mod signed;
mod vips;
mod visible;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::Now;
use crate::model::{NodeId, PortSpec, ServiceKey, ServiceSpec};

fn actor(n: u8) -> Actor {
    Actor([n; 16])
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

/// A wall clock of one second per call would do; tests name the instant themselves.
fn at(wall: u64) -> Now {
    Now { mono: wall, wall }
}

fn spec(image: &str) -> ServiceSpec {
    ServiceSpec {
        image: image.to_owned(),
        ..ServiceSpec::default()
    }
}

fn publishing(image: &str, port: u16) -> ServiceSpec {
    ServiceSpec {
        ports: vec![PortSpec {
            target: 80,
            published: Some(port),
            ..PortSpec::default()
        }],
        ..spec(image)
    }
}

fn deploy(name: &str, spec: ServiceSpec) -> Command {
    Command::Deploy {
        service: key(name),
        spec: Box::new(spec),
        replicas: None,
    }
}

fn scale(name: &str, replicas: u32) -> Command {
    Command::Scale {
        service: key(name),
        replicas,
    }
}

fn remove(name: &str) -> Command {
    Command::Remove { service: key(name) }
}

fn stop(name: &str) -> Command {
    Command::SetRunning {
        service: key(name),
        running: false,
    }
}

/// Writes one command, which must change something.
fn write(document: &mut Document, command: Command, wall: u64) -> Bytes {
    document
        .propose(&[command], "ada", at(wall))
        .unwrap()
        .expect("it changes something")
}

/// Gives all of one document's changes to another, which must take them all.
fn feed(document: &mut Document, changes: &[Bytes]) -> Vec<DesiredChange> {
    let applied = document.apply_changes(changes).unwrap();
    assert_eq!(applied.refused, []);
    applied.changes
}

fn service(document: &Document, name: &str) -> Option<Service> {
    document.snapshot().services.get(&key(name)).cloned()
}

/// Runs anti-entropy until both have nothing more to say. Returns the number of steps.
fn sync(a: &mut Document, b: &mut Document) -> usize {
    let (mut with_b, mut with_a) = (SyncSession::new(), SyncSession::new());
    for round in 0..100 {
        let to_b = a.generate_step(&mut with_b);
        if let Some(step) = &to_b {
            let applied = b.receive_step(&mut with_a, step).unwrap();
            assert_eq!(applied.refused, []);
        }
        let to_a = b.generate_step(&mut with_a);
        if let Some(step) = &to_a {
            let applied = a.receive_step(&mut with_b, step).unwrap();
            assert_eq!(applied.refused, []);
        }
        if to_a.is_none() && to_b.is_none() {
            return round;
        }
    }
    panic!("anti-entropy does not come to an end");
}

/// Two documents are one: same history, same snapshot, and nothing put aside.
fn assert_same(a: &Document, b: &Document) {
    assert_eq!(a.id(), b.id());
    assert_eq!(a.fingerprint(), b.fingerprint());
    assert_eq!(a.snapshot(), b.snapshot());
    assert_eq!(a.invalid(), []);
}

/// What a fresh reader of the saved document sees must be what the incremental reader sees.
fn assert_reads_the_same_from_disk(document: &Document) {
    let loaded = Document::load(&document.save(), &[], actor(99)).unwrap();
    assert_eq!(loaded.snapshot(), document.snapshot());
    assert_eq!(loaded.fingerprint(), document.fingerprint());
    assert_eq!(loaded.invalid(), document.invalid());
    for service in document.table.service_keys() {
        assert_eq!(loaded.history(service), document.history(service));
    }
}

fn snapshot_of(document: &Document) -> Arc<Desired> {
    document.snapshot()
}
