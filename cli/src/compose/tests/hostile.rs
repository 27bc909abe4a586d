//! Input that means harm, or is noise: it may be refused, never crash or take long.

use proptest::prelude::*;

use super::real::FILES;
use super::{parse_text, shown};
use crate::compose::MAX_FILE_BYTES;

#[track_caller]
fn refused(text: &str, words: &str) {
    let errors = parse_text(text).expect_err("hostile");
    assert!(
        errors.iter().any(|e| e.message.contains(words)),
        "{}",
        shown(&errors)
    );
}

#[test]
fn a_billion_laughs() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        let items = vec![alias; 10].join(", ");
        text.push_str(&format!("x-a{level}: &a{level} [{items}]\n"));
    }
    refused(&text, "aliases expanded");
}

#[test]
fn merge_keys_cannot_multiply() {
    let pairs: Vec<String> = (0..1_000).map(|n| format!("k{n}: 1")).collect();
    let mut text = format!("x-base: &b {{{}}}\nx-many:\n", pairs.join(", "));
    for _ in 0..5_000 {
        text.push_str("  - <<: *b\n");
    }
    refused(&text, "aliases expanded");
}

#[test]
fn deep_nesting() {
    // The scanner looks ahead in flow collections and has a limit of its own.
    refused(&"[".repeat(100_000), "recursion limit");
    refused(&"- ".repeat(100_000), "nested more than 64");
    refused(&"{a: ".repeat(200), "nested more than 64");
    let mut text = "x-0: &a0 []\n".to_owned();
    for level in 1..100 {
        text.push_str(&format!("x-{level}: &a{level} [*a{}]\n", level - 1));
    }
    refused(&text, "nested more than 64");
}

#[test]
fn aliases_of_themselves() {
    refused("x-a: &a [*a]\n", "inside the value");
    refused("x-a: &a {b: *a}\n", "inside the value");
}

#[test]
fn huge_files() {
    refused(&" ".repeat(MAX_FILE_BYTES + 1), "at most 1024 KiB");
    refused(&"a".repeat(MAX_FILE_BYTES), "not a Compose file");
    refused(
        &"- a\n".repeat(MAX_FILE_BYTES / 4),
        "more than 200000 values",
    );
    refused(&"\n".repeat(MAX_FILE_BYTES), "empty");
    refused(&"\"".repeat(MAX_FILE_BYTES), "not valid YAML");
    let keys: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    let errors = parse_text(&keys).expect_err("unknown keys");
    assert_eq!(errors.len(), 101, "the rest is only counted");
    assert!(errors[100].message.contains("further faults"));
}

#[test]
fn keys_that_are_no_text() {
    refused("? [a]\n: b\n", "a key must be text");
    refused("? {a: b}\n: b\n", "a key must be text");
    refused("<<: a\nservices: {}\n", "'<<' takes");
}

/// Pieces that mean something to the parser.
const TOKENS: &[&str] = &[
    "services",
    ":",
    " ",
    "\n",
    "  ",
    "- ",
    "web",
    "image",
    "ports",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a",
    "*a",
    "<<",
    "|",
    ">",
    "#",
    "!",
    "?",
    "$",
    "${",
    "}",
    "80:80",
    "deploy",
    "x-",
    "~",
    "\t",
    "\u{feff}",
    "ä",
    "\r",
    "\0",
    "%",
    "---",
    "...",
    "1",
    "environment",
    "volumes",
    "\\",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_text(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn tokens_never_panic(tokens in proptest::collection::vec(0..TOKENS.len(), 0..120)) {
        let text: String = tokens.into_iter().map(|t| TOKENS[t]).collect();
        if let Err(errors) = parse_text(&text) {
            let _ = shown(&errors);
        }
    }

    #[test]
    fn mutated_files_never_panic(
        file in 0..FILES.len(),
        edits in proptest::collection::vec((any::<u16>(), 0..TOKENS.len(), 0_usize..12), 1..8),
    ) {
        let mut chars: Vec<char> = FILES[file].1.chars().collect();
        for (at, token, removed) in edits {
            let from = usize::from(at) % (chars.len() + 1);
            let to = chars.len().min(from + removed);
            chars.splice(from..to, TOKENS[token].chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(errors) = parse_text(&text) {
            prop_assert!(!errors.is_empty());
            let lines = text.split(['\n', '\r']).count();
            for error in &errors {
                prop_assert!(error.at.line as usize <= lines, "{}", error);
            }
            let _ = shown(&errors);
        }
    }
}
