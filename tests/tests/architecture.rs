//! The shape of the project, as docs/ARCHITECTURE.md states it, checked against the manifests and
//! the sources: who depends on whom, crates and the modules in them, where each heavy library is
//! named, and that what decides has no clock, socket, thread or randomness of its own.
//!
//! The lists say what is true and not what might be: an arrow that nobody uses any more is a
//! failure too, so that the lists can be read as the shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which workspace crates each one uses.
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

/// Which it uses in its tests besides. Those with features for tests name themselves again.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("dunlin-api", &["dunlin-api"]),
    ("dunlin-node", &["dunlin-api"]),
    ("dunlin", &["dunlin-api", "dunlin-dns"]),
];

/// The only crate that depends on each library with a job of its own, and the folders whose sources
/// name it.
const OWNERS: &[(&str, &str, &[&str])] = &[
    ("automerge", "dunlin-state", &["crdt-state/src/desired"]),
    ("foca", "dunlin-gossip", &["gossip/src/membership"]),
    ("libp2p", "dunlin-gossip", &["gossip/src/net/control"]),
    ("bollard", "dunlin-node", &["node/src/runtime/docker"]),
    ("redb", "dunlin-node", &["node/src/store"]),
    (
        "axum",
        "dunlin-node",
        // Its tests of HTTP probes serve something to probe.
        &["node/src/api", "node/src/runtime/probe"],
    ),
    ("quinn", "dunlin-lb", &["lb/src/proxy"]),
    ("saphyr-parser", "dunlin", &["cli/src/compose"]),
];

/// Which of its crate's other modules each module uses, tests left aside. Modules that are not named
/// use none.
const MODULES: &str = include_str!("architecture.txt");

/// Where the sources of each crate are. Integration tests may name any library.
const CRATE_FOLDERS: &[&str] = &[
    "node/trust/src",
    "crdt-state/src",
    "gossip/src",
    "node/core/src",
    "node/api/src",
    "dns/src",
    "lb/src",
    "node/src",
    "cli/src",
    "tests/src",
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

/// Folders and files that must not name a clock, a socket, a thread, a file, an unordered
/// collection or unseeded randomness.
const PURE_PLACES: &[&str] = &[
    "node/trust/src",
    "crdt-state/src",
    "node/core/src",
    "gossip/src/membership",
    "gossip/src/replication",
    "gossip/src/overlay",
    "dns/src/zone",
    "dns/src/wire",
    "dns/src/wire.rs",
    "dns/src/respond",
    "dns/src/respond.rs",
    "dns/src/answer.rs",
    "dns/src/suffix.rs",
    "lb/src/balance",
    "lb/src/balance.rs",
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
fn crates_use_those_that_they_are_said_to_use() {
    for (kind, listed) in [(None, ALLOWED), (Some("dev"), ALLOWED_IN_TESTS)] {
        let mut listed = table(listed);
        for (name, dependencies) in manifests(kind) {
            assert!(
                ALLOWED.iter().any(|(crate_name, _)| *crate_name == name),
                "{name} is a new crate: give it a place in ALLOWED and in ARCHITECTURE.md"
            );
            let ours = |d: &String| ALLOWED.iter().any(|(name, _)| name == d);
            let used: BTreeSet<String> = dependencies.into_iter().filter(ours).collect();
            let said = listed.remove(&name).unwrap_or_default();
            assert_same(&format!("{name} ({kind:?} dependencies)"), &used, &said);
        }
        assert!(listed.is_empty(), "there are no such crates: {listed:?}");
    }
}

#[test]
fn modules_use_those_that_they_are_said_to_use() {
    for crate_text in MODULES.split("\n\n") {
        let mut lines = crate_text.lines().filter(|line| !line.starts_with('#'));
        let folder = lines.next().expect("a folder");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let mut listed: BTreeMap<String, BTreeSet<String>> = lines
            .map(|line| line.split_once(": ").expect("a module and what it uses"))
            .map(|(module, uses)| (module.to_owned(), words(uses)))
            .collect();
        let modules: BTreeSet<String> = modules(folder);
        for module in &modules {
            let mut used = BTreeSet::new();
            for (path, text) in module_sources(folder, module) {
                let top = path.parent() == Some(&root().join(folder))
                    || path == root().join(folder).join(module).join("mod.rs");
                used.extend(named_modules(&code(&text), top));
            }
            used.retain(|name| name != module && modules.contains(name));
            let said = listed.remove(module).unwrap_or_default();
            assert_same(&format!("{folder}/{module}"), &used, &said);
        }
        assert!(
            listed.is_empty(),
            "{folder} has no such modules: {listed:?}"
        );
    }
}

#[test]
fn each_library_with_a_job_has_one_owner() {
    let manifests = manifests(None);
    for (library, owner, folders) in OWNERS {
        let users = manifests
            .iter()
            .filter(|(_, used)| used.iter().any(|d| d == library));
        let users: Vec<&str> = users.map(|(name, _)| name.as_str()).collect();
        assert_eq!(users, [*owner], "who depends on {library}");
        let word = format!("{}::", library.replace('-', "_"));
        let mut unused: BTreeSet<&str> = folders.iter().copied().collect();
        for crate_folder in CRATE_FOLDERS {
            for (path, text) in sources(crate_folder) {
                if !names(&text, &word) {
                    continue;
                }
                let place = folders.iter().find(|f| path.starts_with(root().join(f)));
                let place = place.unwrap_or_else(|| panic!("{} names {library}", path.display()));
                unused.remove(place);
            }
        }
        assert!(unused.is_empty(), "{library} is not named in {unused:?}");
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
    for place in PURE_PLACES {
        for (path, text) in sources(place)
            .into_iter()
            .filter(|(path, _)| !of_tests(path))
        {
            for (number, line) in code(&text).lines().enumerate() {
                for word in IMPURE_WORDS {
                    let place = format!("{}:{}", path.display(), number + 1);
                    assert!(!line.contains(word), "{place} names {word}");
                }
            }
        }
    }
}

#[test]
fn only_tests_and_comments_are_passed_over() {
    let text = "use crate::a;\n#[cfg(test)]\nmod tests;\nuse crate::{b::{self, x}, c}; // crate::d\n\
                use super::e::Y;\n#[cfg(test)]\nmod tests {\n    use crate::f;\n}\n";
    let shown = code(text);
    assert_eq!(shown.lines().count(), 5, "{shown}");
    assert_eq!(named_modules(&shown, true), set(&["a", "b", "c", "e"]));
    assert_eq!(named_modules(&shown, false), set(&["a", "b", "c"]));
}

/// What a file does, without comments and tests. Lines keep their numbers.
fn code(text: &str) -> String {
    // Tests in the same file are its end; those elsewhere are only named.
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    let code = code.unwrap_or_default();
    let lines = code
        .lines()
        .map(|l| l.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a source names a library, and not merely something that ends as its name does.
fn names(text: &str, word: &str) -> bool {
    let whole = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    };
    text.match_indices(word).any(|(at, _)| whole(at))
}

/// The first names of all paths that begin at the crate's root.
fn named_modules(code: &str, top: bool) -> BTreeSet<String> {
    let roots: &[&str] = if top {
        &["crate::", "super::"]
    } else {
        &["crate::"]
    };
    let mut found = BTreeSet::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            found.extend(first_names(&code[at + root.len()..]));
        }
    }
    found
}

/// The first name of a path, or of each path in a list of some.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let letters = text.trim_start().chars();
        letters
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut depth, mut found, mut rest) = (0, vec![name(list)], list);
    while let Some(at) = rest.find(['{', '}', ',']) {
        let after = &rest[at + 1..];
        match (rest.as_bytes()[at], depth) {
            (b'}', 0) => break,
            (b'}', _) => depth -= 1,
            (b'{', _) => depth += 1,
            (_, 0) => found.push(name(after)),
            (_, _) => {}
        }
        rest = after;
    }
    found
}

/// The modules at the top of a crate.
fn modules(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a readable folder");
    let names = entries.map(|entry| entry.expect("a readable folder").path());
    let stem = |path: PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    let not = ["lib", "main", "bin", "tests"];
    names
        .filter_map(stem)
        .filter(|name| !not.contains(&name.as_str()))
        .collect()
}

/// The sources of a module that are not tests.
fn module_sources(folder: &str, module: &str) -> Vec<(PathBuf, String)> {
    let places = [
        format!("{folder}/{module}.rs"),
        format!("{folder}/{module}"),
    ];
    let places = places.iter().filter(|place| root().join(place).exists());
    let all = places.flat_map(|place| sources(place));
    all.filter(|(path, _)| !of_tests(path)).collect()
}

fn of_tests(path: &Path) -> bool {
    let words = path.components().map(|c| c.as_os_str());
    path.ends_with("tests.rs") || words.into_iter().any(|word| word == "tests")
}

fn table(listed: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    let lines = listed
        .iter()
        .map(|(name, uses)| ((*name).to_owned(), set(uses)));
    lines.collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn assert_same(who: &str, used: &BTreeSet<String>, said: &BTreeSet<String>) {
    let new: Vec<_> = used.difference(said).collect();
    assert!(
        new.is_empty(),
        "{who} uses {new:?}, which the list does not say: is that meant?"
    );
    let dead: Vec<_> = said.difference(used).collect();
    assert!(
        dead.is_empty(),
        "{who} does not use {dead:?} any more: take it off the list"
    );
}

/// Each workspace crate with the names of its dependencies of a kind; the usual ones have none.
fn manifests(kind: Option<&str>) -> Vec<(String, Vec<String>)> {
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
                .filter(|d| d["kind"].as_str() == kind)
                .map(|d| text(&d["name"]))
                .collect();
            (text(&package["name"]), dependencies)
        })
        .collect()
}

/// All sources in a folder, or the one file.
fn sources(place: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![root().join(place)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            left.extend(entries.map(|entry| entry.expect("a readable folder").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a readable source");
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "{place} holds sources");
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
