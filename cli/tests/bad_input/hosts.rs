//! Hosts that fail: damaged files, full disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Daemon, address, refused, until, up};

const STATE: &str = "state.redb";

fn sleeper(name: &str) -> String {
    format!(
        "services:\n  {name}:\n    x-dunlin: {{runtime: process}}\n    command: [/bin/sleep, '1000']\n"
    )
}

#[test]
fn a_damaged_state_is_refused_and_fetched_from_others() {
    let first = Daemon::start("n1", &[]);
    let mut second = Daemon::start("n2", &["--join", &first.ticket()]);
    until("the cluster", || first.sees(2) && second.sees(2));
    second
        .deploy(&sleeper("web"), &["--timeout", "30s"])
        .expect(0, &[]);
    until("the news", || first.ask(&["ls", "-q"]).text == "web\n");
    second.end();
    let path = second.directory.join(STATE);
    let good = fs::read(&path).expect("a state");
    let mut scrambled = good.clone();
    scrambled[4_096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    let words = up(&second.directory, "n2", &second.address);
    for bad in [&[][..], &good[..good.len() / 3], &scrambled] {
        fs::write(&path, bad).expect("it is written");
        let said = refused(&words, &[]).expect(1, &[STATE, "is damaged", "dunlin up --recover"]);
        assert!(!said.text.contains("panicked"), "{}", said.text);
        let kept = fs::metadata(&path).expect("it is kept");
        assert_eq!(kept.len(), bad.len() as u64);
    }
    second.restart(|_| (), &["--recover"]);
    until("the recovery", || {
        second.sees(2) && second.ask(&["ls", "-q"]).text == "web\n"
    });
    second
        .ask(&["doctor"])
        .expect(0, &["was damaged", "state.redb.damaged-"]);
    assert_eq!(first.ask(&["ls", "-q"]).text, "web\n");
}

/// A small file system that is unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(at)
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn large_change() -> String {
    let service = |i: usize| {
        let value: String = (0..1_500)
            .map(|n| format!("{:010x}", n * 7_919 * (i + 1)))
            .collect();
        format!(
            "  s{i}:\n    image: x\n    environment: {{A: '{value}'}}\n    deploy: {{replicas: 0}}\n"
        )
    };
    format!("services:\n{}", (0..20).map(service).collect::<String>())
}

#[test]
fn a_full_disk_refuses_changes_until_there_is_space() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("d");
    fs::create_dir(&directory).expect("a directory");
    let Some(disk) = SmallDisk::mount(&directory) else {
        return; // Only root can mount.
    };
    let node = Daemon::start_in(directory.clone(), None, "n1", &address(), &[]);
    node.deploy(&sleeper("web"), &["--timeout", "30s"])
        .expect(0, &[]);
    let filler = directory.join("filler");
    // Fails half-way, which is the point.
    let _ = fs::write(&filler, vec![1; 4 << 20]);
    let said = node.deploy(&large_change(), &["-d"]);
    said.expect(
        1,
        &["No space left", "nothing has changed", "free some space"],
    );
    let told = node.ask(&["doctor"]).text;
    assert!(told.contains("free space on"), "{told}");
    node.ask(&["ps"]).expect(0, &["ready"]);
    fs::remove_file(&filler).expect("it is there");
    until("the disk's recovery", || {
        node.ask(&["doctor"]).text.contains("accepts writes")
    });
    node.deploy(&large_change(), &["--timeout", "30s"])
        .expect(0, &[]);
    let mut node = node;
    node.restart(|_| (), &[]);
    assert_eq!(node.ask(&["ls", "-q"]).text.lines().count(), 21);
    drop(node);
    drop(disk);
}
