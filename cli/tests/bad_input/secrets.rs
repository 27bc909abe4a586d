//! A marked secret, from its writer to a replica on another node, and all the places where it must
//! not be found.

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use crate::daemon::{Daemon, until};

const FIRST: &str = "marked-secret-5d1c-one";
const SECOND: &str = "marked-secret-5d1c-number-two";

/// The service tells the length of its secret, and where it finds it; never what it is.
const COMPOSE: &str = "\
services:
  web:
    x-dunlin: {runtime: process, secret_signal: SIGUSR1}
    command:
      - sh
      - -c
      - |
        tell() { echo \"length $$(wc -c < $$DUNLIN_SECRETS_DIR/pw) at $$DUNLIN_SECRETS_DIR\"; }
        trap tell USR1
        tell
        cat $$DUNLIN_CONFIGS_DIR/cfg
        while :; do sleep 0.1; done
    deploy: {placement: {constraints: [node.hostname == n2]}}
    secrets: [{source: db_pw, target: pw}]
    configs: [cfg]
secrets: {db_pw: {external: true}}
configs: {cfg: {content: \"greeting\\n\"}}
";

#[test]
fn a_secret_reaches_its_replica_and_is_found_nowhere_else() {
    let capture = Capture::start();
    let mut first = Daemon::start("n1", &[]);
    let ticket = first.ask(&["ticket"]).expect(0, &["dunlin2-"]).text;
    let mut words = ticket.split_whitespace();
    let ticket = words.find(|w| w.starts_with("dunlin2-")).expect("a ticket");
    let mut second = Daemon::start("n2", &["--join", ticket]);
    until("the cluster", || first.sees(2) && second.sees(2));

    first.deploy(COMPOSE, &["-d"]).expect(0, &[]);
    let missing = "waits for secret 'default/db_pw', which does not exist";
    until("the word on what is missing", || {
        first.ask(&["ps"]).text.contains(missing)
    });
    first.ask(&["explain", "web"]).expect(0, &[missing]);

    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    fs::write(file.path(), FIRST).expect("it is written");
    first
        .ask(&["secret", "create", "db_pw", &path])
        .expect(0, &[]);
    first
        .ask(&["secret", "create", "db_pw", &path])
        .expect(6, &["exists already"]);
    first
        .ask(&["secret", "update", "nothing", &path])
        .expect(5, &["no secret is named"]);
    until("the first version", || logged(&length(FIRST), &second));
    until("the config", || logged("greeting", &second));

    let place = rotate(&first, &second, file.path());

    // A replica that is adopted by the next life of the daemon, and one that is started by it.
    second.restart(|_| (), &[]);
    until("the adoption", || first.ask(&["ps"]).text.contains("ready"));
    assert!(place.join("pw").exists(), "its files were taken away");
    first.ask(&["stop", "web"]).expect(0, &[]);
    until("the end", || !place.exists());
    first.ask(&["start", "web"]).expect(0, &[]);

    let answers = answers(&[&first, &second]);
    let third = follow(&first, &second, ticket);
    first.ask(&["rm", "web"]).expect(0, &[]);
    first.ask(&["secret", "rm", "db_pw"]).expect(0, &[]);
    until("the removal", || third.ask(&["ps", "-q"]).text.is_empty());
    let mut third = third;
    for node in [&mut first, &mut second, &mut third] {
        node.end();
    }
    if let Some(capture) = capture {
        let packets = capture.end();
        assert!(packets > 100, "only {packets} packets were seen");
    }
    for text in &answers {
        clean("an answer", text.as_bytes());
    }
    for node in [&first, &second, &third] {
        clean("the log", node.log().as_bytes());
        let found = scan(&node.directory);
        assert!(found > 5, "only {found} files were looked at");
    }
}

fn length(secret: &str) -> String {
    format!("length {}", secret.len())
}

fn logged(part: &str, node: &Daemon) -> bool {
    node.ask(&["logs", "web"]).text.contains(part)
}

/// Gives the secret another value. Answers with the directory in which the replica finds it.
fn rotate(first: &Daemon, second: &Daemon, file: &Path) -> PathBuf {
    let path = file.display().to_string();
    fs::write(file, SECOND).expect("it is written");
    // A plain node may not change it.
    second
        .ask(&["secret", "update", "db_pw", &path])
        .expect(7, &["may not write"]);
    first
        .ask(&["secret", "update", "db_pw", &path])
        .expect(0, &[]);
    first
        .ask(&["secret", "update", "db_pw", &path])
        .expect(0, &["as it was"]);
    until("the second version", || logged(&length(SECOND), second));
    first.ask(&["ps"]).expect(0, &["ready"]);
    first
        .ask(&["secret", "rm", "db_pw"])
        .expect(6, &["is used by service"]);

    let told = first.ask(&["logs", "web"]).text;
    let place = told.split_whitespace().rfind(|w| w.starts_with('/'));
    let place = Path::new(place.expect("a directory")).to_owned();
    assert_eq!(
        fs::read(place.join("pw")).expect("it is there"),
        SECOND.as_bytes()
    );
    place
}

/// The replica moves to a node that has never had the secret: its key follows, and goes where it was.
fn follow(first: &Daemon, second: &Daemon, ticket: &str) -> Daemon {
    let third = Daemon::start("n3", &["--join", ticket]);
    until("the third", || first.sees(3) && third.sees(3));
    assert!(holds_a_key(second), "nothing to be taken away");
    assert!(!holds_a_key(&third), "a key without a slot");
    let moved = COMPOSE.replace("node.hostname == n2", "node.hostname == n3");
    first.deploy(&moved, &["-d"]).expect(0, &[]);
    let mut environments = 0;
    until("the move", || {
        environments += environments_are_clean();
        let replicas = first.ask(&["ps"]).text;
        replicas.contains("n3") && replicas.contains("ready") && !replicas.contains("n2")
    });
    assert!(environments > 0, "no replica's environment was looked at");
    until("the key's arrival", || holds_a_key(&third));
    until("the key's end", || !holds_a_key(second));
    third
}

/// Whether a node keeps the key of a secret, sealed to itself.
fn holds_a_key(node: &Daemon) -> bool {
    let kept = fs::read_to_string(node.directory.join("secret-keys.json"));
    kept.is_ok_and(|text| text.contains("db_pw"))
}

/// Looks at what every process of this host was started with. How many of them are replicas with
/// secrets.
fn environments_are_clean() -> usize {
    let mut replicas = 0;
    for entry in fs::read_dir("/proc").expect("a directory").flatten() {
        for name in ["environ", "cmdline"] {
            // It may have ended, or be somebody else's.
            let Ok(bytes) = fs::read(entry.path().join(name)) else {
                continue;
            };
            clean(&format!("{}/{name}", entry.path().display()), &bytes);
            let variable = b"DUNLIN_SECRETS_DIR=";
            replicas += usize::from(bytes.windows(variable.len()).any(|w| w == variable));
        }
    }
    replicas
}

/// What the API says of everything that has to do with the secret.
fn answers(nodes: &[&Daemon]) -> Vec<String> {
    let mut answers = Vec::new();
    for node in nodes {
        for words in [
            &["secret", "ls", "--json"][..],
            &["secret", "inspect", "db_pw"],
            &["inspect", "web", "--json"],
            &["ps", "--json"],
            &["explain", "web", "--json"],
            &["history", "web", "--json"],
            &["audit", "--json"],
        ] {
            answers.push(node.ask(words).expect(0, &[]).text);
        }
    }
    answers
}

/// Looks through every packet of this host while it passes. Only root may.
struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Capture {
    fn start() -> Option<Self> {
        /// All protocols (Linux, `if_ether.h`), in network order.
        const ALL: u16 = 0x0003_u16.to_be();
        let protocol = NonZeroU32::new(u32::from(ALL)).map(Protocol::from_raw);
        let (family, kind) = (AddressFamily::PACKET, SocketType::RAW);
        let Ok(socket) = socket_with(family, kind, SocketFlags::CLOEXEC, protocol) else {
            eprintln!("skipped: packets are captured by root only");
            return None;
        };
        // Best effort: what does not fit is not looked at.
        let _ = set_socket_recv_buffer_size(&socket, 8 << 20);
        let pause = Some(Duration::from_millis(100));
        set_socket_timeout(&socket, Timeout::Recv, pause).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut socket = File::from(socket);
            let mut packet = vec![0; 1 << 17];
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = socket.read(&mut packet) {
                    clean("a packet", &packet[..length]);
                    count += 1;
                }
            }
            count
        });
        Some(Self { stop, thread })
    }

    /// How many packets were seen; none held the mark.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no packet held the mark")
    }
}

/// Looks through all files below a directory; how many there are.
fn scan(directory: &Path) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found += scan(&entry.path());
        } else if kind.is_file() {
            found += 1;
            let bytes = fs::read(entry.path()).expect("it can be read");
            clean(&entry.path().display().to_string(), &bytes);
        }
    }
    found
}

/// The marked part must not be there: as it is, in hexadecimal, or in base 64 at any offset.
fn clean(place: &str, bytes: &[u8]) {
    let mark = b"marked-secret-5d1c";
    let hex = data_encoding::HEXLOWER.encode(mark);
    let mut forms = vec![mark.to_vec(), hex.into_bytes()];
    for offset in 0..3 {
        let shifted = [&vec![b'x'; offset][..], mark].concat();
        let text = data_encoding::BASE64.encode(&shifted);
        // The first and last groups depend on what stands around it.
        forms.push(text.as_bytes()[4..20].to_vec());
    }
    for form in forms {
        let found = bytes.windows(form.len()).any(|window| window == form);
        assert!(
            !found,
            "{} was found in {place}",
            String::from_utf8_lossy(&form)
        );
    }
}
