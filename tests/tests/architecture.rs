//! The shape of the project, as docs/ARCHITECTURE.md states it, checked against the manifests and
//! the sources: who may depend on whom, where each heavy library may be named, and that the crates
//! which decide have no clock, socket, thread or randomness of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which workspace crates each one may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dunlin-trust", &[]),
    ("dunlin-state", &["dunlin-trust"]),
    ("dunlin-gossip", &["dunlin-trust", "dunlin-state"]),
    (
        "dunlin-core",
        &["dunlin-trust", "dunlin-state", "dunlin-gossip"],
    ),
    ("dunlin-api", &["dunlin-trust", "dunlin-state"]),
    ("dunlin-dns", &["dunlin-state"]),
    ("dunlin-lb", &["dunlin-state"]),
    (
        "dunlin-node",
        &[
            "dunlin-trust",
            "dunlin-state",
            "dunlin-gossip",
            "dunlin-core",
            "dunlin-api",
            "dunlin-dns",
            "dunlin-lb",
        ],
    ),
    (
        "dunlin",
        &["dunlin-api", "dunlin-node", "dunlin-state", "dunlin-trust"],
    ),
    (
        "dunlin-tests",
        &[
            "dunlin-core",
            "dunlin-gossip",
            "dunlin-state",
            "dunlin-trust",
            "dunlin-api",
            // Their decoders are fed with hostile input.
            "dunlin-dns",
            "dunlin-lb",
            "dunlin",
        ],
    ),
];

/// The only crate that may depend on each library with a job of its own.
const OWNERS: &[(&str, &str)] = &[
    ("automerge", "dunlin-state"),
    ("foca", "dunlin-gossip"),
    ("libp2p", "dunlin-gossip"),
    ("bollard", "dunlin-node"),
    ("redb", "dunlin-node"),
    ("axum", "dunlin-node"),
    ("quinn", "dunlin-lb"),
    ("saphyr-parser", "dunlin"),
];

/// Crates whose whole dependency tree must be free of anything that talks to the world.
const PURE_CRATES: &[&str] = &[
    "dunlin-trust",
    "dunlin-state",
    "dunlin-core",
    "dunlin-gossip",
];
const WORLDLY: &[&str] = &[
    "tokio", "mio", "socket2", "libp2p", "quinn", "bollard", "redb", "axum", "hyper",
];

/// Folders whose sources must not name a clock, a socket, a thread, a file, an unordered
/// collection or unseeded randomness.
const PURE_FOLDERS: &[&str] = &[
    "node/trust/src",
    "crdt-state/src",
    "node/core/src",
    "gossip/src/membership",
    "gossip/src/replication",
    "gossip/src/overlay",
];
const IMPURE_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::thread",
    "std::process",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "HashMap",
    "HashSet",
    "rand::rng(",
    "thread_rng",
    "getrandom",
    "unbounded",
    "println!",
];

#[test]
fn crates_depend_only_downwards() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, uses)| (*name, uses.iter().copied().collect()))
        .collect();
    for (name, dependencies) in manifests() {
        let may = allowed.get(name.as_str()).unwrap_or_else(|| {
            panic!("{name} is a new crate: give it a place in ALLOWED and in ARCHITECTURE.md")
        });
        for used in dependencies
            .iter()
            .filter(|d| allowed.contains_key(d.as_str()))
        {
            assert!(
                may.contains(used.as_str()),
                "{name} must not depend on {used}"
            );
        }
    }
}

#[test]
fn each_library_with_a_job_has_one_owner() {
    for (name, dependencies) in manifests() {
        for (library, owner) in OWNERS {
            let used = dependencies.iter().any(|d| d == library);
            assert!(
                !used || name == *owner,
                "{name} uses {library}, which belongs to {owner}"
            );
        }
    }
}

#[test]
fn only_the_docker_runtime_names_bollard() {
    for (path, text) in sources("node/src") {
        let docker = path.to_string_lossy().contains("runtime/docker");
        assert!(
            docker || !text.contains("bollard::"),
            "{} names bollard",
            path.display()
        );
    }
}

#[test]
fn crates_that_decide_cannot_reach_the_world() {
    for name in PURE_CRATES {
        let tree = cargo(&[
            "tree",
            "-p",
            name,
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ]);
        for line in tree.lines() {
            let dependency = line.split(' ').next().unwrap_or_default();
            assert!(
                !WORLDLY.contains(&dependency),
                "{name} reaches {dependency}"
            );
        }
    }
}

#[test]
fn sources_that_decide_name_no_clock_socket_or_chance() {
    for folder in PURE_FOLDERS {
        for (path, text) in sources(folder) {
            if path.file_name().is_some_and(|f| f == "tests.rs") || is_test_folder(&path) {
                continue;
            }
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let statement = line.split("//").next().unwrap_or_default();
                for word in IMPURE_WORDS {
                    let place = format!("{}:{}", path.display(), number + 1);
                    assert!(!statement.contains(word), "{place} names {word}");
                }
            }
        }
    }
}

fn is_test_folder(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests")
}

/// Each workspace crate with the names of its normal dependencies.
fn manifests() -> Vec<(String, Vec<String>)> {
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(
        packages.len() >= ALLOWED.len(),
        "cargo lists all crates of the workspace"
    );
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|d| d["kind"].is_null())
                .map(|d| text(&d["name"]))
                .collect();
            (text(&package["name"]), dependencies)
        })
        .collect()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds sources");
    found
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var("CARGO").unwrap_or_else(|_unset| "cargo".to_owned());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "cargo {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("tests/ stands in the workspace")
        .to_owned()
}
