//! The commands that README, quickstart and operations show, run as they stand there.
//!
//! A fenced block says after `sh` what becomes of it: `sh on a` is run on the node `a`, which the
//! page starts itself with `dunlin up`; `sh shown` needs what a test has not (root, Docker, systemd),
//! so its words are only checked against the command line's grammar, as are commands within
//! sentences. A block that says neither fails the test. A small script stands before the real
//! program and adds what daemons on one machine need: names, addresses and folders of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for something that should take a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program as pages see it. Daemons write into a log: a test waits for the end of all that holds
/// its pipes.
const STAND_IN: &str = r#"#!/bin/sh
if [ "$1" = up ]; then
  shift
  echo $$ >>"$PAGE/pids"
  exec "$REAL" up --name "$NODE" --advertise "$ADDRESS" --dns "$ADDRESS:5300" --profile local \
    --no-mdns --runtime process "$@" >>"$PAGE/$NODE.log" 2>&1
fi
n=0
until "$REAL" nodes >/dev/null 2>&1; do
  n=$((n + 1)); [ $n -lt 600 ] || break
done
# What waits for ever is to fail, and to say what it waited for.
exec timeout 120 "$REAL" "$@"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A fenced block: the node it is run on, or none where it is only shown.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    on: Option<String>,
    text: String,
}

/// The blocks of a page that are meant for a shell.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            continue;
        };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let words: Vec<&str> = info.split(' ').collect();
        let on = match words.as_slice() {
            ["sh", "shown"] => None,
            ["sh", "on", node] => Some((*node).to_owned()),
            ["sh", ..] => panic!("a block says neither `shown` nor `on` a node: {text:?}"),
            _ => continue,
        };
        let text = text.join("\n");
        blocks.push(Block { on, text });
    }
    blocks
}

/// Commands of `dunlin` within sentences.
fn within_sentences(page: &str) -> Vec<String> {
    let outside = page.split("```").step_by(2).collect::<String>();
    let spans = outside.split('`').skip(1).step_by(2);
    let commands = spans.filter(|span| span.starts_with("dunlin "));
    commands.map(str::to_owned).collect()
}

/// Whether the command line understands these words.
fn check_words(words: &[&str]) {
    let end = words
        .iter()
        .position(|word| *word == "--")
        .unwrap_or(words.len());
    // `help` is itself what the flag would ask for.
    let help = if words.first() == Some(&"help") {
        &[][..]
    } else {
        &["--help"]
    };
    let output = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(&words[..end])
        .args(help)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "dunlin {}: {said}",
        words.join(" ")
    );
}

/// Checks a line that is not run.
fn check_line(line: &str) {
    let line = line.split(" #").next().unwrap_or_default();
    let words: Vec<&str> = line
        .split_whitespace()
        .filter(|word| *word != "&")
        .collect();
    let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
    match words {
        [] => {}
        ["dunlin" | "./dunlin" | "target/release/dunlin", words @ ..]
        | ["cargo", "run", "--release", "--", words @ ..] => check_words(words),
        ["cargo", "build", "--release"] | ["curl", _] => {}
        ["systemctl", words @ ..] => assert!(
            matches!(words, ["daemon-reload"]) || words.last() == Some(&"dunlin"),
            "{line}"
        ),
        [script, ..] if script.starts_with("scripts/") => {
            assert!(root().join(script).exists(), "{line}");
        }
        _ => panic!("no rule for a command that is shown: {line}"),
    }
}

/// A page that is being followed; its daemons and replicas end with it.
struct Page {
    folder: tempfile::TempDir,
    nodes: Vec<String>,
    number: u8,
}

impl Page {
    fn open(number: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir_all(&bin).expect("a folder");
        let stand_in = bin.join("dunlin");
        fs::write(&stand_in, STAND_IN).expect("it is written");
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let hello = folder.path().join("examples/hello");
        fs::create_dir_all(&hello).expect("a folder");
        fs::copy(
            root().join("examples/hello/compose.yaml"),
            hello.join("compose.yaml"),
        )
        .expect("it is copied");
        let own = "services:\n  web:\n    command: dunlin whoami\n    ports: ['80']\n    x-dunlin: {runtime: process}\n";
        fs::write(folder.path().join("compose.yaml"), own).expect("it is written");
        Self {
            folder,
            nodes: Vec::new(),
            number,
        }
    }

    /// Runs a page's blocks in their order.
    fn follow(&mut self, page: &str) {
        for block in blocks(page) {
            match &block.on {
                Some(node) => self.run(node, &block.text),
                None => block.text.lines().for_each(check_line),
            }
        }
    }

    fn run(&mut self, node: &str, text: &str) {
        if self.nodes.iter().any(|known| known == node) {
            self.wait_until_all_agree(node);
        } else {
            assert!(
                text.starts_with("dunlin up"),
                "{node} is not started by: {text}"
            );
            self.nodes.push(node.to_owned());
        }
        let script = format!("set -eu\n{text}");
        let output = self.command(node, "sh").args(["-c", &script]).output();
        let output = output.expect("it runs");
        assert!(
            output.status.success(),
            "on {node}:\n{text}\n{}{}",
            said(&output),
            self.logs()
        );
    }

    /// Waits until a node sees all others and their services, as a person would before going on.
    fn wait_until_all_agree(&self, node: &str) {
        let first = self.nodes.first().expect("there is one");
        let start = Instant::now();
        loop {
            let alive = said(&self.ask(node, &["nodes"])).matches(" alive ").count();
            let known = said(&self.ask(node, &["ls", "--quiet"]));
            if alive == self.nodes.len() && known == said(&self.ask(first, &["ls", "--quiet"])) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{node} sees {alive} nodes{}",
                self.logs()
            );
        }
    }

    fn ask(&self, node: &str, words: &[&str]) -> Output {
        let real = env!("CARGO_BIN_EXE_dunlin");
        self.command(node, real)
            .args(words)
            .output()
            .expect("it runs")
    }

    /// A command on a node's host.
    fn command(&self, node: &str, program: &str) -> Command {
        let page = self.folder.path();
        let at = self
            .nodes
            .iter()
            .position(|known| known == node)
            .unwrap_or(0)
            + 1;
        // Of this process and page alone: test processes run at the same time.
        let process = std::process::id();
        let address = format!(
            "127.{}.{}.{}",
            192 + (process >> 8) % 8,
            process % 256,
            self.number + at as u8
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        for name in [
            "DUNLIN_CONTEXT",
            "DUNLIN_TICKET",
            "DUNLIN_LOG",
            "DUNLIN_NAMESPACE",
        ] {
            command.env_remove(name);
        }
        command
            .current_dir(page)
            .env("PATH", format!("{}:{path}", page.join("bin").display()))
            .env("REAL", env!("CARGO_BIN_EXE_dunlin"))
            .env("PAGE", page)
            .env("NODE", node)
            .env("ADDRESS", address)
            .env("DUNLIN_DATA_DIR", page.join(node))
            .env(
                "DUNLIN_HOST",
                format!("unix://{}", page.join(node).join("api.sock").display()),
            )
            .stdin(Stdio::null());
        command
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let log = self.folder.path().join(format!("{node}.log"));
            let log = fs::read_to_string(log).unwrap_or_default();
            text.push_str(&format!("\n--- {node}'s log\n{log}"));
        }
        text
    }

    /// Removes all services and waits until their replicas have ended.
    fn clean(&self) {
        let Some(first) = self.nodes.first() else {
            return;
        };
        let listed = said(&self.ask(first, &["ls", "--quiet"]));
        let names: Vec<&str> = listed.lines().collect();
        if !names.is_empty() {
            self.ask(first, &[&["rm"][..], &names].concat());
        }
        let start = Instant::now();
        while !said(&self.ask(first, &["ps", "--quiet"])).is_empty() && start.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.clean();
        let pids = fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
        for pid in pids.lines() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", pid]).output();
        }
    }
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("the page")
}

#[test]
fn the_readme_works() {
    Page::open(1).follow(&page("README.md"));
}

#[test]
fn the_quickstart_works() {
    Page::open(11).follow(&page("docs/quickstart.md"));
}

#[test]
fn operations_work() {
    let mut cluster = Page::open(21);
    cluster.run("a", "dunlin up &\ndunlin ticket > ticket");
    cluster.run("b", "dunlin up --join ticket &");
    cluster.run("a", "dunlin deploy examples/hello/compose.yaml");
    cluster.follow(&page("docs/operations.md"));
}

#[test]
fn commands_within_sentences_are_understood() {
    let mut seen = 0;
    for name in ["README.md", "docs/quickstart.md", "docs/operations.md"] {
        for command in within_sentences(&page(name)) {
            check_line(&command);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn blocks_are_told_apart() {
    let text = "```sh on a\ndunlin up &\n```\ntext `dunlin ls`, `other`\n```sh shown\nx\ny\n```\n```\nplain\n```\n";
    let read = blocks(text);
    let shell = |on: Option<&str>, text: &str| Block {
        on: on.map(str::to_owned),
        text: text.to_owned(),
    };
    assert_eq!(read, [shell(Some("a"), "dunlin up &"), shell(None, "x\ny")]);
    assert_eq!(within_sentences(text), ["dunlin ls"]);
}

#[test]
#[should_panic(expected = "unexpected argument")]
fn a_flag_that_does_not_exist_is_found() {
    check_line("sudo dunlin ps --no-such-flag");
}
