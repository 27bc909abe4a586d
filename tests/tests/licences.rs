//! The licences of all that is linked, against `deny.toml`; and that docs/security.md names no test
//! that does not exist.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The licences that `deny.toml` allows.
fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = text
        .split("allow = [")
        .nth(1)
        .and_then(|t| t.split(']').next());
    let quoted = list.unwrap().split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met: one alternative of each part that has to hold.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let flat = expression.replace(['(', ')'], " ");
    // Enough for what crates write: AND of ORs, in parentheses, or OR of ANDs without.
    let grouped = expression.contains('(');
    let (outer, inner) = if grouped {
        (" AND ", " OR ")
    } else {
        (" OR ", " AND ")
    };
    let holds = |part: &str| allowed.contains(part.trim());
    let mut parts = flat.split(outer).map(str::trim);
    if grouped {
        parts.all(|part| part.split(inner).any(holds))
    } else {
        parts.any(|part| part.split(inner).all(holds))
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    // Of this platform only: what was built is there, the rest would have to be fetched.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed = allowed();
    let mut refused = Vec::new();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_met(licence, &allowed) {
            refused.push(format!("{} {licence}", package["name"]));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0"].map(str::to_owned).into();
    let table = [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("(MIT OR GPL-3.0) AND AGPL-3.0", false),
        ("GPL-3.0", false),
        ("none", false),
    ];
    for (expression, expected) in table {
        assert_eq!(is_met(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.strip_prefix("test:"))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let mut sources = String::new();
    for folder in ["node", "crdt-state", "gossip", "dns", "lb", "cli", "tests"] {
        read_all(&root().join(folder), &mut sources);
    }
    for name in named {
        let function = format!("fn {name}(");
        assert!(sources.contains(&function), "there is no test {name}");
    }
}

fn read_all(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                read_all(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
