//! Runs commands in tests as `main` does, with a fake daemon and with streams that can be read.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser;
use dunlin_api::fake::FakeDaemon;
use dunlin_api::{Exit, Node, NodeState, Replica};
use dunlin_state::model::{Facts, NodeId, Phase, Resources, Slot};

use crate::args::Cli;
use crate::commands;
use crate::context::Context;
use crate::entry::report;
use crate::output::{Look, Output};

/// The instant at which all tests happen, in milliseconds since the Unix epoch.
pub(crate) const NOW: u64 = 1_700_000_000_000;

/// How a command went.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A stream that keeps what is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `dunlin WORDS…` against the fake daemon, with pipes for streams.
pub(crate) async fn dunlin(daemon: &FakeDaemon, words: &[&str]) -> Ran {
    let (out, err) = (Kept::default(), Kept::default());
    let output = Output::new(
        Box::new(out.clone()),
        Box::new(err.clone()),
        Look::default(),
        || NOW,
    );
    let exit = dunlin_with(daemon, words, output, &err).await;
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

/// The same with these streams.
pub(crate) async fn dunlin_with(
    daemon: &FakeDaemon,
    words: &[&str],
    out: Output,
    err: &Kept,
) -> Exit {
    let words = std::iter::once("dunlin").chain(words.iter().copied());
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let json = cli.global.json;
    let mut context = Context {
        client: daemon.client(),
        json,
        namespace: cli.global.namespace().map(str::to_owned),
        out,
    };
    match commands::dispatch(cli.command, &mut context).await {
        Ok(exit) => exit,
        Err(failure) => {
            let nowhere = Box::new(io::sink());
            let mut told = Output::new(nowhere, Box::new(err.clone()), Look::default(), || NOW);
            report(&failure, json, &mut told);
            failure.exit()
        }
    }
}

/// A node with a name and a key made of one byte.
pub(crate) fn node(name: &str, key: u8) -> Node {
    Node {
        id: NodeId::from_bytes([key; 32]),
        name: name.to_owned(),
        this: false,
        state: NodeState::Alive,
        availability: Default::default(),
        maintenance: Default::default(),
        address: Some(([10, 0, 0, key], 7400).into()),
        labels: [("zone".to_owned(), "north".to_owned())].into(),
        facts: Facts::default(),
        capacity: Resources {
            cpu_millis: 4000,
            memory: 8 << 30,
            disk: 0,
        },
        reserved: Resources {
            cpu_millis: 500,
            memory: 512 << 20,
            disk: 0,
        },
        runtimes: vec!["process".to_owned()],
        disk_ok: true,
        replicas: 3,
        version: "0.1.0".to_owned(),
        boot: 1,
        started_at: NOW - 60_000,
    }
}

/// A ready replica of `default/web` that is twelve seconds old.
pub(crate) fn replica(slot: u32, on: &Node) -> Replica {
    Replica {
        service: "web".parse().unwrap(),
        slot: Slot::Replica(slot),
        node: on.id,
        node_name: on.name.clone(),
        node_state: on.state,
        phase: Phase::Running,
        ready: true,
        leaving: false,
        superseded: false,
        epoch: 1,
        revision: "0123456789abcdef".to_owned(),
        restarts: 0,
        endpoints: vec![],
        since: NOW - 13_000,
        started_at: Some(NOW - 12_000),
        message: None,
        last_exit: None,
        history: Vec::new(),
        workload: None,
    }
}
